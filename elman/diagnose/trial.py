"""One case to try a law on: a cell, numbers for its sizes, and random values for all it reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from elman.backends import reference
from elman.equation import Cell, Graph
from elman.equation.sizes import names_in, number, shape_of
from elman.errors import SizeError

Carried = tuple[Tensor, ...]


@dataclass(frozen=True)
class Trial:
    """A cell with sizes, steps and rows; all values follow from the seed.

    Attributes:
        cell: the cell.
        sizes: a number for each size of its graph.
        time: steps.
        batch: rows.
        seed: of the random values.
        scale: the deviation of weights and states; a large one reaches saturation.
        positive: whether states, inputs and weights are drawn above zero, for an equation that
            takes roots or logarithms of them.
    """

    cell: Cell
    sizes: Mapping[str, int]
    time: int = 5
    batch: int = 3
    seed: int = 0
    scale: float = 0.6
    positive: bool = False

    @property
    def graph(self) -> Graph:
        return self.cell.graph

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        numbers = self.numbers(1)
        shapes = self.graph.parameter_shapes(self.sizes)
        return {name: self.scale * self._draw(shape, numbers) for name, shape in shapes.items()}

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """x and the further inputs, by name; (time, batch, …) where they vary by step."""
        numbers = self.numbers(2)
        lead = {"step": (self.time, self.batch), "sequence": (self.batch,)}
        return {
            i.name: self._draw((*lead[i.varies], *shape_of(i.dims, self.sizes)), numbers)
            for i in self.graph.inputs
        }

    @cached_property
    def carried(self) -> Carried:
        """Random states and delay lines, as after some steps."""
        numbers = self.numbers(3)
        return tuple(self.scale * self._draw(v.shape, numbers) for v in self.fresh())

    def numbers(self, stream: int) -> torch.Generator:
        """Random numbers of a stream of the trial's own."""
        return torch.Generator().manual_seed(1_000_003 * self.seed + stream)

    def _draw(self, shape, numbers: torch.Generator) -> Tensor:
        drawn = torch.randn(tuple(shape), generator=numbers, dtype=torch.float64)
        return drawn.abs() if self.positive else drawn

    def fresh(self) -> Carried:
        """What a sequence starts with where nothing is given."""
        return reference.initial_carried(self.graph, self.sizes, self.batch, dtype=torch.float64)

    def piece(
        self, rows: slice, begin: int = 0, end: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x and the further inputs of some rows, from one step to another."""
        cut = {
            i.name: value[begin:end, rows] if i.varies == "step" else value[rows]
            for i, value in zip(self.graph.inputs, self.inputs.values(), strict=True)
        }
        return cut.pop(self.graph.inputs[0].name), cut

    def run(self, inputs, carried: Carried, parameters=None, **options):
        """Outputs, what is carried on and all states, by the reference."""
        x, extras = inputs
        return reference.run(
            self.graph, parameters or self.parameters, x, carried, extras=extras,
            return_states=True, **options,
        )  # fmt: skip

    @cached_property
    def whole(self) -> tuple[Tensor, Carried, tuple[Tensor, ...]]:
        """All rows over all steps: what most laws compare with."""
        out, last, states = self.run(self.piece(slice(None)), self.carried)
        return out, last, states or ()

    @property
    def finite(self) -> bool:
        """Whether the run gives numbers; also where it fails, for the laws to tell."""
        try:
            out, last, _ = self.whole
        except Exception:
            return True
        return all(bool(v.isfinite().all()) for v in (out, *last))

    def drawn(self) -> Trial:
        """This trial, or one with smaller or positive values where this one gives no numbers."""
        smaller = min(self.scale, 0.2)
        for other in (self, replace(self, scale=smaller), replace(self, positive=True),
                      replace(self, scale=smaller, positive=True)):  # fmt: skip
            if other.finite:
                return other
        return self

    def smaller(self) -> Iterator[Trial]:
        """Trials that are smaller in one respect, the smallest of each first."""
        for sizes in small_sizes(self.graph, self.sizes):
            yield replace(self, sizes=sizes)
        for time in range(1, self.time):
            yield replace(self, time=time)
        for batch in range(1, self.batch):
            yield replace(self, batch=batch)


def parts_of(graph: Graph) -> dict[str, int]:
    """For each size the least number that it must be a multiple of."""
    least = dict.fromkeys(graph.sizes, 1)
    declared = [d.dims for d in (*graph.inputs, *graph.states, *graph.parameters)]
    for size in itertools.chain(*declared, *graph.equal):
        name, _, parts = size.partition("/")
        if parts:
            least[name] = math.lcm(least[name], int(parts))
    return least


def fitting(graph: Graph, wanted: Mapping[str, int]) -> dict[str, int]:
    """The numbers nearest to the wanted ones that fit the equation.

    Example:
        >>> import elman
        >>> fitting(elman.cells.get("slstm").graph, {"input": 3, "hidden": 5})
        {'input': 3, 'hidden': 4}
    """
    choices = _choices(graph, max(wanted.values()))
    found = min(
        choices, key=lambda s: sum(abs(n - wanted[name]) for name, n in s.items()), default=None
    )
    if found is None:
        raise SizeError(f"{graph.name}: no small sizes fit the equation; there are {graph.sizes}")
    return found


def small_sizes(graph: Graph, most: Mapping[str, int]) -> list[dict[str, int]]:
    """All sizes that fit the equation and are smaller than the given ones, the smallest first."""
    below = (
        s for s in _choices(graph, max(most.values()))
        if s != most and all(n <= most[name] for name, n in s.items())
    )  # fmt: skip
    return sorted(below, key=lambda s: sum(s.values()))


def _choices(graph: Graph, most: int) -> Iterator[dict[str, int]]:
    least = parts_of(graph)
    every = [range(n, max(most, n) + 1, n) for n in (least[name] for name in graph.sizes)]
    for numbers in itertools.product(*every):
        sizes = dict(zip(graph.sizes, numbers, strict=True))
        if all(number(a, sizes) == number(b, sizes) for a, b in graph.equal):
            yield sizes


def full_sizes(graph: Graph, input_size: int, hidden_size: int) -> dict[str, int]:
    """The sizes at which figures are told: what is not x's is hidden, what must agree agrees.

    Raises:
        SizeError: the equation divides a size that has no such part.
    """
    sizes = dict.fromkeys(graph.sizes, hidden_size) | {"input": input_size}
    sizes = {name: sizes[name] for name in graph.sizes}
    for one, other in graph.equal:
        for size, partner in ((one, other), (other, one)):
            if "/" not in size and names_in((partner,)) != ["input"]:
                sizes[size] = number(partner, sizes)
                break
    graph.check_sizes(sizes)
    return sizes


def trials(cell: Cell, seed: int = 0) -> list[Trial]:
    """The cases that every law is tried on.

    One has sizes that all differ, so that what is exchanged does not fit; one has the same number
    for all sizes, steps and rows, where what is exchanged fits and goes unnoticed, and values that
    saturate; a third is the first with other, larger values.
    """
    graph = cell.graph
    primes = dict(zip(graph.sizes, (3, 4, 2, 5, 6, 7, 8, 9), strict=False))
    wanted = {name: primes.get(name, 3) for name in graph.sizes}
    distinct = fitting(graph, wanted)
    number_for_all = max(2, *parts_of(graph).values())
    square = fitting(graph, dict.fromkeys(graph.sizes, number_for_all))
    same = square["hidden"]
    return [
        Trial(cell, distinct, 5, 3, seed).drawn(),
        Trial(cell, square, max(same, 2), max(same, 2), seed + 1, 2.0).drawn(),
        Trial(cell, distinct, 4, 2, seed + 2, 3.0).drawn(),
    ]
