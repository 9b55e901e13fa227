"""elman.Chain: credit through lookups, dense layers, activations and several stacks."""

from __future__ import annotations

import pytest
import torch
from layer_cases import flat, gradients, total
from test_carry_laws import assert_same
from torch import nn

import elman
from elman.errors import InputError
from elman.learning import Carried

TIME, BATCH, WORDS = 8, 2, 7
LENGTHS = torch.tensor([5, TIME])
RESETS = torch.rand(TIME, BATCH, generator=torch.Generator().manual_seed(2)) < 0.3
REAL = (torch.arange(TIME).unsqueeze(1) < LENGTHS).unsqueeze(-1)


def language_model(learning=None, p=0.0):
    """Everything that a chain may have, below, between and above."""
    torch.manual_seed(1)
    chain = elman.Chain(
        nn.Embedding(WORDS, 3, padding_idx=2), nn.Dropout(p), nn.Linear(3, 4), nn.Tanh(),
        nn.LayerNorm(4), nn.Identity(),
        elman.LSTM(4, 3, dense=[5], dense_activation="relu", num_layers=2, dropout=p,
                   residual=True, initial_state="learned"),
        nn.SiLU(), nn.Dropout(p), nn.Linear(5, 5, bias=False),
        elman.Recurrent("gru_cho", 5, 3, zoneout=p, recurrent_dropout=p, layer_norm=True),
        nn.Linear(3, WORDS), nn.GELU(),
        learning=learning,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.copy_(0.6 * torch.randn_like(parameter))
    return chain


def words(seed=0):
    return torch.randint(0, WORDS, (TIME, BATCH), generator=torch.Generator().manual_seed(seed))


def learn(chain, x, real=None, **call):
    torch.manual_seed(5)
    out, state = chain(x, **call)
    state = state.states if isinstance(state, Carried) else state
    out = out if real is None else out * real
    return flat((out, state)), gradients(chain, total(out.sin(), state))


@pytest.mark.parametrize("window", [1, 3, 7, None])
@pytest.mark.parametrize(
    "call", [{}, {"lengths": LENGTHS}, {"lengths": LENGTHS, "resets": RESETS}], ids=len
)
def test_exact_is_the_whole_gradient(window, call):
    real = REAL if "lengths" in call else None
    found = learn(language_model(elman.BPTT(window, "exact")), words(), real, **call)
    expected = learn(language_model(), words(), real, **call)
    assert_same(found[0], expected[0])
    assert_same(found[1], expected[1])


@pytest.mark.parametrize("window", [1, 3])
def test_under_dropout_windows_change_nothing(window):
    # One window is plain backpropagation; the masks are those of the whole call either way.
    found = learn(language_model(elman.BPTT(window, "exact"), 0.3), words(), resets=RESETS)
    expected = learn(language_model(elman.BPTT(carry="exact"), 0.3), words(), resets=RESETS)
    assert_same(found[0], expected[0])
    assert_same(found[1], expected[1])


def test_without_a_carry_it_is_its_modules():
    chain = language_model()
    x, states = words(), []
    y = x
    for module in chain.links:
        if isinstance(module, elman.LSTM | elman.Recurrent):
            y, state = module(y)
            states.append(state)
        else:
            y = module(y)
    out, last = chain(x)
    assert_same(flat((out, last)), flat((y, states)))


@pytest.mark.parametrize("batch_first", [False, True])
def test_truncation_without_a_carry(batch_first):
    def build(learning):
        torch.manual_seed(2)
        layers = [
            elman.GRU(3, 4, batch_first=batch_first),
            elman.RNN(4, 2, batch_first=batch_first),
        ]
        return elman.Chain(layers[0], nn.Tanh(), layers[1], learning=learning).double()

    x = torch.randn(TIME, BATCH, 3, dtype=torch.float64)
    x = x.transpose(0, 1) if batch_first else x
    cut, plain = build(elman.BPTT(window=3)), build(None)
    out, _ = cut(x)
    found = gradients(cut, total(out))
    parts, carried = [], None
    axis = 1 if batch_first else 0
    for piece in x.split(3, axis):
        part, carried = plain(piece, carried)
        parts.append(part)
        carried = tuple(c.detach() for c in carried)
    whole = torch.cat(parts, axis)
    assert_same([out], [whole])
    assert_same(found, gradients(plain, total(whole)))


def test_forms_and_streams():
    chain = language_model(elman.BPTT(2, "exact"))
    x = words()
    out, state = chain(x)
    alone, alone_state = chain(x[:, 0])
    assert_same([alone], [out[:, 0]])
    assert [t.shape[0] for t in alone_state.influence] == [1] * len(state.influence)
    assert_same(flat(alone_state.states), [s[:, 0] for s in flat(state.states)])
    first, middle = chain(x[:4])
    second, last = chain(x[4:], middle)
    assert_same([torch.cat([first, second])], [out])
    assert_same(last.influence, state.influence)


def test_announced_bytes_are_those_held():
    chain = language_model(elman.RTRL())
    state = chain(words())[1]
    assert chain.learning_bytes(BATCH) == sum(t.nbytes for t in state.influence)
    assert "It weighs" in chain.explain()


def test_frozen_weights_have_no_columns():
    chain = language_model(elman.RTRL())
    before = chain.learning_bytes(1)
    chain.links[0].weight.requires_grad_(False)
    assert chain.learning_bytes(1) == before - 8 * WORDS * 3 * (12 + 3)
    oracle = language_model()
    for model in (chain, oracle):
        out, state = model(words())
        total(out.sin(), state.states if isinstance(state, Carried) else state).backward()
    found, expected = ([p.grad for p in m.parameters()] for m in (chain, oracle))
    assert found[0] is None
    assert_same(found[1:], expected[1:])


def rnn(**options):
    return elman.RNN(3, 4, **options)


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        ([nn.Linear(3, 3)], "no recurrent layer"),
        ([nn.GELU(), rnn()], "recurrent layer: torch.gelu is not an operation of the language. W"),
        ([nn.Conv1d(3, 3, 1), rnn()], "module 0, Conv1d.*weights or buffers"),
        ([nn.LSTM(3, 3), rnn()], "module 0, LSTM"),
        ([nn.BatchNorm1d(3), rnn()], "module 0, BatchNorm1d"),
        ([nn.Linear(2, 3), nn.Embedding(3, 3), rnn()], "comes first"),
        ([nn.Embedding(3, 3, max_norm=1.0), rnn()], "max_norm"),
        ([nn.LayerNorm([2, 3]), rnn()], "normalises over 2 sizes"),
        ([rnn(bidirectional=True)], "bidirectional"),
        ([rnn(learning=elman.RTRL())], "of its own"),
        ([rnn(), elman.RNN(4, 2, batch_first=True)], "build all alike"),
        ([elman.Recurrent("cfc", 3, 4)], "further inputs"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_named(modules, says):
    with pytest.raises(InputError, match=says):
        elman.Chain(*modules, learning=elman.RTRL())


def test_what_lies_above_may_be_anything():
    chain = elman.Chain(rnn(), nn.GELU(), nn.Linear(4, 2), learning=elman.RTRL())
    chain(torch.randn(5, 2, 3))[0].sum().backward()
    with pytest.raises(InputError, match="module 0, GELU"):
        elman.Chain(nn.GELU(), rnn()).set_learning(elman.RTRL())


@pytest.mark.parametrize(
    ("x", "call", "says"),
    [
        (torch.randn(5), {}, "give \\(time, batch, features\\)"),
        (torch.randn(5, 2, 2), {}, "input_size is 3"),
        (torch.randn(5, 2, 3), {"lengths": [6, 1]}, r"lengths\[0\] is 6"),
        (torch.randn(5, 2, 3), {"resets": torch.ones(5)}, "booleans"),
        (torch.randn(5, 2, 3), {"state": (torch.zeros(1, 2, 4),) * 2}, "got 2 entries"),
        (torch.randn(5, 2, 3), {"state": (torch.zeros(1, 3, 4),)}, "expected \\(1, 2, 4\\)"),
        (torch.randn(5, 2, 3, requires_grad=True), {}, "x requires grad"),
        ("x", {}, "x is a str"),
    ],
)
def test_bad_calls(x, call, says):
    chain = elman.Chain(rnn(), nn.Linear(4, 2), learning=elman.RTRL())
    with pytest.raises(InputError, match=says):
        chain(x, **call)
