"""The decoder: all steps at once are the steps one by one; padding, hypotheses, feeding back."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from elman.errors import InputError
from elman.layers.decoder import Decoder
from elman.layers.readout import token_loss

KINDS = [(cell, attention) for cell in ("lstm", "gru", "rnn", "mgu") for attention in (
    "multiplicative", "additive", None)]  # fmt: skip


def _made(cell="lstm", attention="multiplicative", **options):
    torch.manual_seed(5)
    decoder = Decoder(
        11, 6, embedding=4, cell=cell, layers=2, summary=3, memory=5, attention=attention,
        **options,
    ).double()  # fmt: skip
    keys, summary = torch.randn(3, 4, 5).double(), torch.randn(3, 3).double()
    lengths = torch.tensor([4, 1, 3])
    memory = decoder.remember(keys, lengths) if attention else None
    return decoder, decoder.begin(summary), memory


@pytest.mark.parametrize(("cell", "attention"), KINDS)
def test_all_steps_at_once_are_the_steps_one_by_one(cell, attention):
    decoder, state, memory = _made(cell, attention, condition=2)
    inputs, condition = torch.randint(1, 11, (3, 7)), torch.randn(3, 2).double()
    told = decoder(inputs, state, memory, condition)
    logits = decoder.logits(told.features)
    for t in range(7):
        scores, state, weights = decoder.step(inputs[:, t], state, memory, condition)
        torch.testing.assert_close(scores, logits[:, t], rtol=1e-12, atol=1e-12)
        if attention:
            torch.testing.assert_close(weights, told.weights[:, t], rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(state, told.state, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_row_of_a_padded_batch_is_the_row_alone():
    decoder, state, memory = _made()
    inputs, lengths = torch.randint(1, 11, (3, 7)), torch.tensor([7, 2, 5])
    told = decoder(inputs, state, memory, lengths=lengths)
    right = torch.randint(1, 11, (3, 7))
    total, count = decoder.loss(told.features, right, lengths)
    assert count == 14
    alone = 0.0
    for row, (steps, keys) in enumerate(zip(lengths.tolist(), [4, 1, 3], strict=True)):
        own = decoder.remember(memory.keys[row : row + 1, :keys])
        one = decoder(inputs[row : row + 1, :steps], tuple(s[row : row + 1] for s in state), own)
        torch.testing.assert_close(
            one.features[0], told.features[row, :steps], rtol=1e-12, atol=1e-12
        )
        torch.testing.assert_close(one.state[0][0], told.state[0][row], rtol=1e-12, atol=1e-12)
        alone += functional.cross_entropy(
            decoder.logits(one.features[0]), right[row, :steps], reduction="sum"
        )
    torch.testing.assert_close(total, alone)


def test_hypotheses_of_a_row_share_its_memory_and_condition():
    decoder, state, memory = _made(condition=2)
    condition, tokens = torch.randn(3, 2).double(), torch.randint(1, 11, (6,))
    double = tuple(s.repeat_interleave(2, 0) for s in state)
    scores, _, weights = decoder.step(tokens, double, memory, condition)
    for row in range(3):
        one = memory._replace(
            keys=memory.keys[row : row + 1], projected=memory.projected[row : row + 1],
            lengths=memory.lengths[row : row + 1],
        )  # fmt: skip
        for beam in range(2):
            at = 2 * row + beam
            own = tuple(s[at : at + 1] for s in double)
            expected, _, seen = decoder.step(
                tokens[at : at + 1], own, one, condition[row : row + 1]
            )
            torch.testing.assert_close(scores[at], expected[0], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(weights[at], seen[0], rtol=1e-12, atol=1e-12)


def test_feeding_back_nothing_is_teacher_forcing_and_all_is_greedy():
    decoder, state, memory = _made()
    inputs = torch.randint(1, 11, (3, 6))
    forced = decoder(inputs, state, memory)
    torch.testing.assert_close(
        decoder.fed_back(inputs, 0.0, state, memory).features, forced.features
    )
    own = decoder.fed_back(inputs, 1.0, state, memory)
    last, now = inputs[:, 0], state
    for t in range(6):
        scores, now, _ = decoder.step(last, now, memory)
        torch.testing.assert_close(scores, decoder.logits(own.features[:, t]))
        last = scores.argmax(1)
    assert own.weights.shape == (3, 6, 4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, 600])
def test_the_loss_and_its_gradient_are_torchs(rows, smoothing):
    torch.manual_seed(1)
    given = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((rows, 5), (13, 5), (13,))
    ]
    right = torch.randint(13, (rows,))
    ours = token_loss(*given, right, smoothing)
    features, weight, bias = given
    theirs = functional.cross_entropy(
        features @ weight.T + bias, right, reduction="sum", label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        torch.autograd.grad(2 * ours, given), torch.autograd.grad(2 * theirs, given), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_the_loss_in_low_precision_is_near():
    torch.manual_seed(2)
    given = [torch.randn(s, requires_grad=True) for s in ((40, 16), (50, 16), (50,))]
    right = torch.randint(50, (40,))
    exact = token_loss(*given, right)
    with torch.autocast("cpu", torch.bfloat16):
        near = token_loss(*given, right)
    assert near.dtype is torch.float32
    assert 0 < abs(near.item() - exact.item()) < 0.02 * exact.item()
    for a, b in zip(
        torch.autograd.grad(near, given), torch.autograd.grad(exact, given), strict=True
    ):
        assert a.dtype is torch.float32
        assert float((a - b).norm()) < 0.05 * float(b.norm())


def test_tied_weights_are_one_tensor():
    decoder, state, memory = _made(tied=True)
    assert decoder.output.weight is decoder.vectors.weight
    told = decoder(torch.ones(3, 1, dtype=torch.int64), state, memory)
    assert told.features.shape == (3, 1, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "additive"}, "needs the size of the keys"),
        ({"hidden": 0}, "at least 1"),
        ({"attention": "additve", "memory": 3}, "Did you mean 'additive'"),
    ],
)
def test_what_cannot_be_built_is_said(options, message):
    with pytest.raises(InputError, match=message):
        Decoder(**({"tokens": 5, "hidden": 3} | options))


def test_what_is_missing_in_a_call_is_said():
    with pytest.raises(InputError, match="none was given"):
        _made()[0](torch.ones(3, 1, dtype=torch.int64))
    with pytest.raises(InputError, match="without attention"):
        _made(attention=None)[0].remember(torch.zeros(1, 1, 5))
    decoder = _made(condition=2)[0]
    with pytest.raises(InputError, match="condition has shape None; expected"):
        decoder(torch.ones(3, 1, dtype=torch.int64))
    with pytest.raises(InputError, match="without a summary"):
        Decoder(5, 3).begin(torch.zeros(1, 2))
