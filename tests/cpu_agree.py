"""The CPU's kernels beside the reference: the same weights, one call of each, all results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from cases import Case
from layer_cases import flat, total
from tolerances import distance
from torch import Tensor

import elman
from elman.backends.cpu import memory
from elman.equation import Cell
from elman.equation.sizes import shape_of

# What no kernel serves yet, and the operation that explain() names.
ON_THE_REFERENCE = {"second_order": "bilinear", "mlstm": "matrix"}


@dataclass(frozen=True)
class Shape:
    """Steps, rows and sizes of a call; a batch of rows is one more than a multiple of two or four,
    so that threads and register tiles have a rest."""

    steps: int = 6
    rows: int = 5
    input: int = 5
    hidden: int = 6
    others: Mapping[str, int] = field(default_factory=dict)

    def of(self, cell: Cell) -> dict[str, int]:
        known = {
            "input": self.input, "hidden": self.hidden, "projection": self.hidden // 2 + 1,
            "output": self.hidden - 1, "other": self.hidden + 3, **self.others,
        }  # fmt: skip
        return {name: known[name] for name in cell.graph.sizes}


ODD = Shape()
EVEN = Shape(input=16, hidden=16, rows=4)


def shape_for(case: Case, shape: Shape) -> Shape:
    """The shape, with what a cell demands: some have as many hidden units as inputs."""
    joined = "hidden" in case.sizes
    hidden = shape.input if joined else shape.hidden
    hidden += hidden % case.hyper.get("heads", 1)
    others = {}
    if case.all_sizes.get("projection") == case.all_sizes.get("hidden"):
        others["projection"] = hidden
    if "output" in case.all_sizes and case.all_sizes["output"] == case.all_sizes["hidden"]:
        others["output"] = hidden
    return Shape(shape.steps, shape.rows, hidden if joined else shape.input, hidden, others)


def layers(
    cell: Cell, sizes: Mapping[str, int], dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[elman.Recurrent, elman.Recurrent]:
    """A layer on the kernels and one on the reference, with the same distinct random weights."""
    further = {n: s for n, s in sizes.items() if n not in ("input", "hidden")}
    made = []
    for backend in ("cpu", "reference"):
        numbers = torch.Generator().manual_seed(7)
        layer = elman.Recurrent(
            cell, sizes["input"], sizes["hidden"], sizes=further, dtype=dtype, backend=backend,
            **options,
        )  # fmt: skip
        with torch.no_grad():
            for parameter in layer.parameters():
                value = torch.randn(parameter.shape, generator=numbers, dtype=torch.float64)
                wide = parameter.shape[-1] if parameter.dim() > 1 else 1
                parameter.copy_(0.6 * value / math.sqrt(max(1.0, wide / 4)))
        made.append(layer)
    return made[0], made[1]


@dataclass
class Sequence:
    """What a call is given."""

    x: Tensor
    inputs: dict[str, Tensor]
    state: tuple[Tensor, ...] | None = None
    lengths: Tensor | None = None
    resets: Tensor | None = None

    def rows(self, start: int, stop: int) -> Sequence:
        """Some rows, without lengths and resets."""
        state = self.state and tuple(s[:, start:stop] for s in self.state)
        cut = {name: value[:, start:stop] for name, value in self.inputs.items()}
        return Sequence(self.x[:, start:stop], cut, state)

    def steps(self, start: int, stop: int) -> Sequence:
        """Some steps, without a state, lengths and resets."""
        return Sequence(self.x[start:stop], {n: v[start:stop] for n, v in self.inputs.items()})


def sequence(layer: elman.Recurrent, shape: Shape, dtype=torch.float64, *, seed=11) -> Sequence:
    """A random sequence for a layer, with its further inputs, without a state."""
    numbers = torch.Generator().manual_seed(seed)
    sizes = layer._sizes[0]

    def random(*dims: int) -> Tensor:
        return torch.randn(*dims, generator=numbers, dtype=torch.float64).to(dtype)

    x = random(shape.steps, shape.rows, sizes["input"])
    inputs = {
        i.name: random(shape.steps, shape.rows, *shape_of(i.dims, sizes)).abs()
        for i in layer.cell.graph.inputs[1:]
    }
    return Sequence(x, inputs)


def lengths_of(shape: Shape) -> Tensor:
    """Lengths in no order, from one step to all of them, some equal."""
    return torch.tensor([(3 * row + 2) % shape.steps + 1 for row in range(shape.rows)])


def resets_of(shape: Shape, share: float = 0.3) -> Tensor:
    """Marks at random, a row with its first step marked and one with two in succession."""
    numbers = torch.Generator().manual_seed(2)
    marks = torch.rand(shape.steps, shape.rows, generator=numbers) < share
    marks[0, 0] = True
    marks[-2:, shape.rows // 2] = True
    return marks


def state_of(layer: elman.Recurrent, given: Sequence) -> tuple[Tensor, ...]:
    """A state, and delay lines, as after some steps of another sequence."""
    other = sequence(layer, Shape(4, given.x.shape[1]), given.x.dtype, seed=5)
    with torch.no_grad():
        state = call(layer, other, every=False)[1:]
    return tuple(s.clone() for s in state)


def call(layer: elman.Recurrent, given: Sequence, *, every: bool = True):
    """One call, its results as a list of tensors."""
    state = given.state
    if state is not None and len(state) == 1:
        state = state[0]
    further = {"inputs": given.inputs} if given.inputs else {}
    asked = {"lengths": given.lengths, "resets": given.resets, "return_states": every}
    return flat(layer(given.x, state, **asked, **further))


def outcome(
    layer: elman.Recurrent,
    given: Sequence,
    *,
    every: bool = True,
    loss: Callable[..., Tensor] = total,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Results by place, and by name the gradients of everything that the layer was given."""
    leaf = {"x": given.x, **given.inputs}
    leaf |= {f"state[{i}]": s for i, s in enumerate(given.state or ())}
    leaf = {name: value.detach().clone().requires_grad_() for name, value in leaf.items()}
    own = Sequence(
        leaf["x"], {n: leaf[n] for n in given.inputs},
        given.state and tuple(leaf[f"state[{i}]"] for i in range(len(given.state))),
        given.lengths, given.resets,
    )  # fmt: skip
    torch.manual_seed(5)  # the masks of dropout and zoneout
    results = call(layer, own, every=every)
    leaf |= dict(layer.named_parameters())
    value = loss(results)
    found: list[Tensor | None] = [None] * len(leaf)
    if value.requires_grad:  # an equation may read all that has a gradient in a comparison only
        found = list(torch.autograd.grad(value, list(leaf.values()), allow_unused=True))
    gradients = {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(leaf.items(), found, strict=True)
    }
    return {str(i): r.detach() for i, r in enumerate(results)}, gradients


def assert_agree(pair, given: Sequence, values: float, slopes: float, **options: Any) -> None:
    """Fail where results or gradients are further from the reference's than allowed."""
    ours, theirs = (outcome(layer, given, **options) for layer in pair)
    for what, one, other, bound in (
        ("result", ours[0], theirs[0], values),
        ("gradient of", ours[1], theirs[1], slopes),
    ):
        far = {name: distance(one[name], other[name]) for name in other}
        wrong = {name: f"{d:.1e}" for name, d in far.items() if not d <= bound}
        assert not wrong, f"{what} {wrong}, more than {bound:.0e} from the reference"


@contextmanager
def memory_of_nan(monkeypatch) -> Iterator[None]:
    """All fresh memory is NaN, so that nothing is read before it is written."""

    def filled(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args, **kwargs):
            fresh = make(*args, **kwargs)
            return fresh.fill_(math.nan) if fresh.is_floating_point() else fresh

        return made

    with monkeypatch.context() as patch:
        for owner in (torch, torch.Tensor):
            for name in ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"):
                if hasattr(owner, name):
                    patch.setattr(owner, name, filled(getattr(owner, name)))
        # Blocks that were used before, too: all bits set are NaN.
        take = memory._take
        patch.setattr(memory, "_take", lambda size: _all_bits(take(size)))
        yield


def _all_bits(block):
    block.fill(255)
    return block
