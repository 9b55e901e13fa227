"""Attention against a plain loop, and what lengths mean."""

from __future__ import annotations

import math

import pytest
import torch

from elman.errors import InputError, SizeError
from elman.layers.attention import Attention


def _made(kind):
    torch.manual_seed(3)
    attention = Attention(3, 4, kind, 5).double()
    return attention, torch.randn(2, 6, 3).double(), torch.randn(2, 7, 4).double()


@pytest.mark.parametrize("kind", ["multiplicative", "additive"])
def test_it_is_a_plain_loop(kind):
    attention, queries, keys = _made(kind)
    lengths = [7, 3]
    context, weights = attention(queries, keys, lengths)
    named = {name: w.tolist() for name, w in attention.named_parameters()}

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    for row in range(2):
        for i in range(6):
            q, scores = queries[row, i].tolist(), []
            for j in range(lengths[row]):
                k = keys[row, j].tolist()
                projected = [dot(line, k) for line in named["of_key.weight"]]
                if kind == "multiplicative":
                    scores.append(dot(q, projected))
                else:
                    own = [
                        dot(line, q) + b
                        for line, b in zip(
                            named["of_query.weight"], named["of_query.bias"], strict=True
                        )
                    ]
                    inner = [math.tanh(a + b) for a, b in zip(own, projected, strict=True)]
                    scores.append(dot(named["score.weight"][0], inner))
            total = sum(math.exp(s) for s in scores)
            shares = [math.exp(s) / total for s in scores] + [0.0] * (7 - lengths[row])
            assert weights[row, i].tolist() == pytest.approx(shares, rel=1e-12, abs=1e-12)
            mean = [sum(a * float(keys[row, j, f]) for j, a in enumerate(shares)) for f in range(4)]
            assert context[row, i].tolist() == pytest.approx(mean, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", ["multiplicative", "additive"])
def test_what_lies_behind_a_row_changes_nothing(kind):
    attention, queries, keys = _made(kind)
    context, weights = attention(queries, keys, torch.tensor([7, 3]))
    keys[1, 3:] = 1e30
    again, weights_again = attention(queries, keys, torch.tensor([7, 3]))
    assert torch.equal(context, again)
    assert torch.equal(weights, weights_again)
    assert not weights[1, :, 3:].any()


@pytest.mark.parametrize("kind", ["multiplicative", "additive"])
def test_gradients_are_right(kind):
    attention, queries, keys = _made(kind)
    given = (queries[:, :2, :].requires_grad_(), keys[:, :3].requires_grad_())
    exact = Attention.forward
    assert torch.autograd.gradcheck(lambda q, k: exact(attention, q, k, [3, 2])[0], given)


def test_what_does_not_fit_is_said():
    attention, queries, keys = _made("additive")
    with pytest.raises(SizeError, match=r"queries have shape \(1, 6, 3\); expected \(2, queries"):
        attention(queries[:1], keys)
    with pytest.raises(SizeError, match=r"keys have shape \(2, 7, 3\)"):
        attention(queries, keys[..., :3])
    with pytest.raises(InputError, match="at least 1"):
        attention(queries, keys, [7, 0])
    with pytest.raises(InputError, match="Did you mean 'additive'"):
        Attention(3, 4, "aditive")
    with pytest.raises(InputError, match="expected at least 1"):
        Attention(3, 0)
