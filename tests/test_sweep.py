"""Many cotangents back through a window at once, against autograd through the reference."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, random_carried, random_input, random_parameters, split_input
from tolerances import assert_close

from elman.backends import reference
from elman.errors import InputError
from elman.learning import sweep

TIME, BATCH, BASIS = 4, 3, 2
BOUND = {torch.float64: 1e-11}
RAGGED = {
    "lengths": torch.tensor([2, 4, 3]),
    "resets": torch.tensor([[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 1]]).bool(),
}


class Setting:
    """A cell's run under autograd, its leaves, and random cotangents of what it gives."""

    def __init__(self, case, ragged: bool):
        self.graph, self.options = case.graph, dict(RAGGED) if ragged else {}
        self.parameters = {k: v.requires_grad_() for k, v in random_parameters(case).items()}
        x, self.extras = split_input(case, random_input(case, TIME, BATCH))
        self.x = x.clone().requires_grad_()
        self.carried = tuple(c.requires_grad_() for c in random_carried(case, BATCH))
        self.fresh = None
        if ragged:
            self.fresh = self._fresh(random_carried(case, BATCH, seed=9))
        self.out, self.last, self.states = reference.run(
            self.graph, self.parameters, self.x, self.carried, extras=self.extras,
            fresh=self.fresh, return_states=True, **self.options,
        )  # fmt: skip
        numbers = torch.Generator().manual_seed(5)

        def drawn(like, axis):
            shape = (*like.shape[:axis], BASIS, *like.shape[axis:])
            return torch.randn(shape, generator=numbers, dtype=torch.float64)

        self.of_out = drawn(self.out, 2)
        self.of_last = tuple(drawn(part, 1) for part in self.last)

    def _fresh(self, drawn):
        count = len(self.graph.states)
        lines = self.graph.lines
        # A reset puts zeros before the inputs, whatever stands in `fresh` for their lines.
        parts = [
            torch.zeros_like(part) if i >= count and lines[i - count].kind == "input" else part
            for i, part in enumerate(drawn)
        ]
        return tuple(part.requires_grad_() for part in parts)

    def values(self, known: bool) -> sweep.Values:
        states = tuple(s.detach() for s in self.states) if known else None
        fresh = None if self.fresh is None else tuple(f.detach() for f in self.fresh)
        return sweep.window_values(
            self.graph, {k: v.detach() for k, v in self.parameters.items()}, self.x.detach(),
            tuple(c.detach() for c in self.carried), states=states, fresh=fresh,
            extras=self.extras, **self.options,
        )  # fmt: skip

    def expected(self, k: int, leaves):
        total = (self.out * self.of_out[:, :, k]).sum()
        for part, cotangent in zip(self.last, self.of_last, strict=True):
            total = total + (part * cotangent[:, k]).sum()
        return torch.autograd.grad(total, leaves, retain_graph=True, materialize_grads=True)

    def of_weights(self, pulled: sweep.Pulled, k: int):
        """Cotangents of the parameters, from those of the weights as a step sees them."""
        weights = sweep.parameter_values(self.graph, self.parameters)
        sums = {}
        for weight, cotangent, vector in pulled.pairs:
            product = torch.einsum("tbr,tbc->rc", cotangent[:, :, k], vector)
            sums[weight] = sums.get(weight, 0) + product.reshape(weights[weight].shape)
        for node, summand in pulled.vectors.items():
            sums[node] = sums.get(node, 0) + summand[:, :, k].sum((0, 1))
        return torch.autograd.grad(
            [weights[n] for n in sums], list(self.parameters.values()),
            [s.reshape(weights[n].shape) for n, s in sums.items()],
            retain_graph=True, materialize_grads=True,
        )  # fmt: skip


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_cotangents_are_autograds(case, ragged):
    setting = Setting(case, ragged)
    pulled = sweep.pull(setting.values(known=ragged), setting.of_out, setting.of_last)
    lines = [None] * len(setting.graph.states) + [k.kind for k in setting.graph.lines]
    for k in range(BASIS):
        carried = setting.expected(k, setting.carried)
        assert_close(tuple(c[:, k] for c in pulled.carried), carried, BOUND, "the start")
        (x,) = setting.expected(k, [setting.x])
        zeros = torch.zeros_like(setting.x)
        assert_close(zeros if pulled.x is None else pulled.x[:, :, k], x, BOUND, "x")
        weights = setting.expected(k, list(setting.parameters.values()))
        assert_close(setting.of_weights(pulled, k), weights, BOUND, "weights")
        if pulled.fresh is not None:
            expected = setting.expected(k, setting.fresh)
            for kind, found, wanted in zip(lines, pulled.fresh, expected, strict=True):
                if kind != "input":
                    assert_close(found[:, k], wanted, BOUND, "fresh")


@pytest.mark.parametrize("name", ["out", "last"])
@pytest.mark.parametrize("case", CASES[::9], ids=lambda case: case.id)
def test_what_is_not_given_is_zero(case, name):
    setting = Setting(case, True)
    values = setting.values(known=True)
    given = {"out": setting.of_out, "last": setting.of_last}
    zeros = {"out": torch.zeros_like(setting.of_out)}
    zeros["last"] = tuple(torch.zeros_like(c) for c in setting.of_last)
    one = sweep.pull(values, **{name: given[name]})
    other = sweep.pull(values, **{**zeros, name: given[name]})
    assert_close(one.carried, other.carried, BOUND)
    for k in range(BASIS):
        assert_close(setting.of_weights(one, k), setting.of_weights(other, k), BOUND)


def test_parts_of_a_window_are_the_window():
    setting = Setting(CASES[10], True)
    values = setting.values(known=True)
    whole = sweep.pull(values, setting.of_out, setting.of_last)
    second = sweep.pull(values.part(2, TIME), setting.of_out[2:], setting.of_last)
    first = sweep.pull(values.part(0, 2), setting.of_out[:2], second.carried)
    assert_close(first.carried, whole.carried, BOUND)
    assert_close(torch.cat([first.x, second.x]), whole.x, BOUND)


def test_no_cotangents():
    with pytest.raises(InputError, match="neither `out` nor `last`"):
        sweep.pull(Setting(CASES[0], False).values(known=False))
