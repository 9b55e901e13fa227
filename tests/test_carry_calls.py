"""Calls under a carry: forms, what is refused and named, memory announced, files, words."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from layer_cases import as_tuple, flat, gradients
from test_carry_laws import BATCH, LENGTHS, RESETS, TIME, assert_same, exact, pair, sequence

import elman
from elman.errors import InputError, SizeError
from elman.learning import BPTT, RTRL, Carried, space

PAGE = Path(__file__).parent.parent / "docs" / "learning.md"


def test_options_of_learning():
    assert RTRL() == BPTT(window=1, carry="exact")
    assert RTRL("uoro").words().endswith("approximated by UORO")
    assert BPTT(carry="snap1").words().startswith("backpropagation through the window of each call")
    with pytest.raises(InputError, match="Did you mean 'exact'"):
        BPTT(carry="exacct")
    with pytest.raises(InputError, match=r"elman.BPTT\(window=1\)"):
        RTRL(None)
    with pytest.raises(InputError, match="whole number of steps"):
        BPTT(window=0, carry="exact")


def test_config_and_back():
    layer = elman.Recurrent("gru", 2, 3, learning=BPTT(window=4, carry="snap1"))
    back = elman.Recurrent.from_config(layer.config())
    assert back.learning == layer.learning
    # A file of before there were carries.
    old = layer.config() | {"learning": {"window": 4}}
    assert elman.Recurrent.from_config(old).learning == BPTT(window=4)
    assert "learning=BPTT(window=4, carry='snap1')" in repr(layer)


def test_every_form_of_a_sequence():
    carries, oracle = pair("LSTM", exact(3), 2)
    first, _ = pair("LSTM", exact(3), 2, batch_first=True)
    x = sequence()
    out, state, states = carries(x, lengths=LENGTHS, resets=RESETS, return_states="layers")
    expected = oracle(x, lengths=LENGTHS, resets=RESETS, return_states="layers")
    assert_same(flat((out, state.states, states)), flat(expected))
    turned = first(x.transpose(0, 1), lengths=LENGTHS, resets=RESETS.T, return_states=True)
    assert_same([turned[0].transpose(0, 1)], [out])
    assert_same(turned[1].influence, state.influence)
    assert_same([s.transpose(0, 1) for s in turned[2]], states[-1])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, LENGTHS)
    packed_out, packed_state = carries(packed)
    expected, expected_state = carries(x, lengths=LENGTHS)
    assert_same([torch.nn.utils.rnn.pad_packed_sequence(packed_out)[0]], [expected])
    assert_same(packed_state.influence, expected_state.influence)
    alone, alone_state = carries(x[:, 0])
    again, _ = carries(x[:, 0], alone_state)
    assert alone_state.states[0].shape == (2, 4)
    assert_same([again], [carries(x[:, :1], _with_batch(alone_state))[0][:, 0]])
    assert_same([alone], [carries(x)[0][:, 0]])


def _with_batch(state):
    return Carried(tuple(s.unsqueeze(1) for s in state.states), state.influence)


def test_without_gradients():
    carries, _ = pair("GRU", exact(2))
    x = sequence()
    with torch.no_grad():
        state = carries(x[:4])[1]
    assert state.influence == ()
    # What is passed in goes on, so that a stream may pause its learning.
    learnt = carries(x[:4])[1]
    with torch.no_grad():
        paused = carries(x[4:], learnt)[1]
    assert_same(paused.influence, carries(x[4:], learnt)[1].influence)
    # What was made without an influence does not begin anew unasked.
    with pytest.raises(InputError, match=r"no influence.*state\.states"):
        carries(x[4:], state)
    assert carries(x[4:], state.states)[1].influence
    for parameter in carries.parameters():
        parameter.requires_grad_(False)
    assert carries(x)[1].influence == ()
    assert carries.learning_bytes(3) == 0
    assert "nothing is carried" in carries.explain()


def test_some_weights_frozen():
    carries, oracle = pair("RNN", exact(2), 2)
    for layer in (carries, oracle):
        layer.weight_hh_l0.requires_grad_(False)
    for layer in (carries, oracle):
        layer(sequence())[0].sin().sum().backward()
    assert carries.weight_hh_l0.grad is None
    trained = [n for n, p in oracle.named_parameters() if p.requires_grad]
    found = [dict(carries.named_parameters())[n].grad for n in trained]
    assert_same(found, [dict(oracle.named_parameters())[n].grad for n in trained])


def test_nothing_given_is_written():
    carries, _ = pair("LSTM", RTRL())
    x = sequence()
    state = carries(x[:2])[1]
    before = [t.clone() for t in flat((state.states, state.influence))]
    first = carries(x[2:3], state)
    second = carries(x[2:3], state)
    for one, other in zip(flat(first), flat(second), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(flat((state.states, state.influence)), before, strict=True):
        assert torch.equal(one, other)


def test_a_copy_goes_on_from_the_same_state():
    carries, _ = pair("LSTM", exact(3))
    x = sequence()
    state = carries(x[:5])[1]
    other = copy.deepcopy(carries)
    other.load_state_dict(carries.state_dict())
    results = [layer(x[5:], state) for layer in (carries, other)]
    found = [gradients(m, r[0].sum()) for m, r in zip((carries, other), results, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_gradient_flow_of_x_stops_at_the_layer():
    carries, _ = pair("LSTM", exact(2))
    x = sequence().requires_grad_()
    with pytest.raises(InputError, match=r"x requires grad.*elman.Chain"):
        carries(x)
    h = torch.zeros(1, BATCH, 4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(InputError, match="the state's tensor 0 requires grad"):
        carries(sequence(), (h, torch.zeros_like(h)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_bidirectional_is_named(kind):
    with pytest.raises(InputError, match=f"{kind}: bidirectional=True cannot learn with carry"):
        getattr(elman, kind)(2, 3, bidirectional=True, learning=RTRL())
    layer = getattr(elman, kind)(2, 3, bidirectional=True)
    with pytest.raises(InputError, match="bidirectional=True"):
        layer.set_learning(RTRL())


def test_transforms_and_autocast_are_refused():
    carries, _ = pair("RNN", exact(2))
    parameters = dict(carries.named_parameters())

    def value(parameters):
        return torch.func.functional_call(carries, parameters, (sequence(),))[0].sum()

    with pytest.raises(InputError, match=r"torch\.func"):
        torch.func.grad(value)(parameters)
    with torch.autocast("cpu"), pytest.raises(InputError, match="autocast"):
        carries(sequence())


def test_a_second_backward_is_refused():
    carries, _ = pair("RNN", exact(2))
    out, _ = carries(sequence())
    first = torch.autograd.grad(out.sin().sum(), carries.weight_hh_l0, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_states_of_another_kind():
    carries, oracle = pair("LSTM", exact(2))
    state = carries(sequence())[1]
    with pytest.raises(InputError, match=r"give state\.states"):
        oracle(sequence(), state)
    with pytest.raises(SizeError, match="the influence has tensors of the shapes"):
        carries(sequence(), Carried(state.states, (torch.zeros(1),)))
    rows = tuple(s[:, :1] for s in state.states)
    with pytest.raises(SizeError, match=r"2 rows|Expected hidden"):
        carries(sequence(), Carried(rows, state.influence))


def test_a_stepper_says_that_it_carries_nothing():
    carries, oracle = pair("LSTM", RTRL())
    x = sequence()
    state = carries(x[:3])[1]
    step = carries.stepper(state)
    with pytest.raises(InputError, match="keeps no influence"):
        step(x[3])
    with torch.no_grad():
        found = carries.stepper(state)(x[3])
        assert_same([found], [oracle(x[3:4], state.states)[0][0]])


def test_bytes_are_announced_and_refused(monkeypatch):
    layer = elman.LSTM(16, 64, learning=RTRL())
    assert layer.learning_bytes(8) == 8 * 128 * 4 * 64 * (16 + 64 + 1) * 4
    held = layer(torch.randn(1, 8, 16))[1].influence
    assert sum(t.nbytes for t in held) == layer.learning_bytes(8)
    monkeypatch.setattr(space, "room", lambda device: 2 * layer.learning_bytes(8) - 1)
    with pytest.raises(InputError, match=r"needs 162.0 MiB.*20,736 weights.*2 times 81.0 MiB"):
        layer(torch.randn(1, 8, 16))
    monkeypatch.setattr(space, "room", lambda device: 2 * layer.learning_bytes(8))
    layer(torch.randn(1, 8, 16))


def test_what_a_later_call_needs_is_refused_too(monkeypatch):
    layer, x = elman.LSTM(16, 64, learning=RTRL()), torch.randn(3, 8, 16)
    state = layer(x[:1])[1]
    monkeypatch.setattr(space, "room", lambda device: 3 * layer.learning_bytes(8) - 1)
    layer(x[:2], state)
    with pytest.raises(InputError, match=r"3 times 81.0 MiB"):
        layer(x, state)
    with torch.no_grad():
        layer(x, state)  # it holds no borders


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_inference_mode_knows_which_weights_are_trained(kind):
    carries, _ = pair(kind, RTRL())
    x = sequence()
    state = carries(x[:3])[1]
    with torch.inference_mode():
        found = carries(x[3:], state)[1]
    assert_same(found.influence, carries(x[3:], state)[1].influence)


def test_an_influence_of_another_type_or_place():
    carries, _ = pair("LSTM", RTRL())
    state = carries(sequence())[1]
    for change in ({"dtype": torch.float32}, {"device": "meta"}):
        other = Carried(state.states, tuple(m.to(**change) for m in state.influence))
        with pytest.raises(SizeError, match="the influence is of type"):
            carries(sequence(), other)


def test_a_state_is_saved_and_loaded_as_it_is(tmp_path):
    carries, _ = pair("LSTM", RTRL())
    state = carries(sequence())[1]
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt")
    assert isinstance(loaded, Carried)
    assert_same(loaded.influence, state.influence)


def test_there_is_room_somewhere():
    assert (space.room(torch.device("cpu")) or 1) > 0
    assert space.room(torch.device("meta")) is None


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (elman.LSTM(2, 3, learning=RTRL()), "one product a step"),
        (elman.Recurrent("gru_cho", 2, 3, learning=RTRL()), "basis of cotangents.*gru_cho"),
        (elman.LSTM(2, 4, proj_size=2, learning=RTRL()), "basis of cotangents.*lstm_projected"),
        (elman.GRU(2, 3, layer_norm=True, learning=RTRL()), "basis of cotangents"),
        (elman.LSTM(2, 3, learning=BPTT(8, "exact")), "windows of 8 steps"),
        (elman.LSTM(2, 3, learning=RTRL("snap1")), "the influence on the new state alone"),
    ],
)
def test_explain_says_how_credit_goes(layer, says):
    words = layer.explain()
    assert re.search(says, words, re.S)
    assert "It weighs" in words


def test_compiled_calls_run_aside():
    carries, _ = pair("RNN", exact(2), backend="auto")
    x = sequence()
    expected = carries(x)
    found = torch.compile(carries, backend="eager")(x)
    assert_same(flat(found), flat(expected))


def test_an_optimiser_at_work():
    # A copy of the influence's memory must not be written while a backward still needs it.
    torch.manual_seed(0)
    layer = elman.LSTM(3, 40, learning=RTRL())
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    state, outs = None, []
    for x in torch.randn(TIME, 1, 2, 3):
        out, state = layer(x, state)
        outs.append(out)
        optimiser.zero_grad()
        out.square().sum().backward()
        optimiser.step()
    assert all(t.isfinite().all() for t in as_tuple(state.influence))
    assert float(outs[-1].detach().square().sum()) < 100


def test_the_page_on_learning_runs():
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 4
    names = {"elman": elman, "torch": torch}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert names["layer"].learning_bytes(batch=8) == 84934656
    assert isinstance(names["state"], Carried)
