"""The exact influence over one step, where every layer's step is one product stage.

Then ∂s'/∂s = Σ_j diag(D_kj) W_j diag(F_jm) + diag(E_km), so that M' = A M + diag(E) M + immediate,
with A made of the weights and the factors of the local Jacobians. Only old states that enter
products take part in the dense product: h and not c, so that an LSTM's is half as large. The
immediate influence touches one unit's columns, and is added in place. In a stack a layer's input is
the new state of the layer below, whose new influence is at hand by then.

Source: Williams & Zipser 1989, "A learning algorithm for continually running fully recurrent neural
networks"; the saving by gate structure is as in Menick et al. 2020, "Practical real time recurrent
learning with a sparse approximation", section 3, for the exact method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from elman.backends.cpu import influence as kernel
from elman.backends.cpu import memory
from elman.equation.graph import Graph
from elman.equation.jacobian import INPUT, Local, local
from elman.learning.chain import Chain, Place, Window
from elman.learning.sweep import values_from

Influence = tuple[Tensor, ...]


def hindrance(chain: Chain) -> str:
    """Why the influence on a chain cannot take this way; "" if it can.

    Returns:
        The first place that is no single product stage, with what hinders, in words.
    """
    last = len(chain.places) - 1
    for number, place in enumerate(chain.places):
        reason = _hindrance(place, below=number > 0, above=number < last)
        if reason:
            return reason
    return ""


def _hindrance(place: Place, *, below: bool, above: bool) -> str:
    graph = place.graph
    if graph is None or not graph.states:
        return "work without a state lies between the weights and the state"
    if place.keeps != tuple(range(len(graph.states))):
        return f"{graph.name}: a delay line is a part of the state"
    made = local(graph)
    if made.hindered:
        return f"{graph.name}: {made.hindered}"
    if below and made.whole:
        return f"{graph.name}: the operation {made.whole!r} takes units of x together"
    if above and graph.output not in graph.new_states:
        return f"{graph.name}: its output is no state"
    return ""


@dataclass(frozen=True)
class Rows:
    """Where the states of a step lie among its rows."""

    starts: tuple[int, ...]
    units: tuple[int, ...]

    @staticmethod
    def of(place: Place) -> Rows:
        units = tuple(shape[0] for shape in place.shapes)
        return Rows(tuple(sum(units[:k]) for k in range(len(units))), units)

    def __getitem__(self, state: int) -> slice:
        return slice(self.starts[state], self.starts[state] + self.units[state])

    @property
    def total(self) -> int:
        return sum(self.units)


class Step:
    """The local Jacobians of one place at one step, as numbers.

    Args:
        place: the place.
        nodes: the values of its step's nodes, (batch, …) each where they belong to a row.
        batch: the number of rows of the batch.
        below: whether anything below the place is trained.
    """

    def __init__(self, place: Place, nodes: Sequence[Any], batch: int, below: bool):
        assert place.graph is not None
        self.place, self.batch = place, batch
        self.local: Local = local(place.graph)
        self.rows = Rows.of(place)
        self.values: Mapping[int, Any] = self.local.values(nodes, self._roots())
        self.like = next(v for v in nodes if isinstance(v, Tensor) and v.is_floating_point())
        recurrent = self.local.recurrent
        self.first = self.rows[recurrent[0]].start if recurrent else 0
        self.span = self.rows[recurrent[-1]].stop - self.first if recurrent else 0
        self.left = self._left()
        self.left_x = self._of_input() if below else None

    def _roots(self) -> list[int]:
        nodes = self.local.graph.nodes
        operands = [a for p in self.local.products for a in nodes[p].args]
        return [*self.local.factors, *operands]

    def factor(self, index: int, units: int) -> Tensor:
        """A factor for every row of the batch and every unit."""
        value = self.values[index]
        if not isinstance(value, Tensor):
            return self.like.new_full((1, 1), float(value)).expand(self.batch, units)
        value = value.to(self.like.dtype)
        return value.expand(self.batch, units)

    def _left(self) -> Tensor:
        """A, (batch, rows, span): what moves the old states that enter products."""
        left = self.like.new_zeros(self.batch, self.rows.total, self.span)
        for m in self.local.recurrent:
            columns = self.rows[m]
            columns = slice(columns.start - self.first, columns.stop - self.first)
            for k in range(len(self.rows.units)):
                self._add_products(left[:, self.rows[k], columns], k, m)
        return left

    def _of_input(self) -> Tensor:
        """The same for x, products and what goes unit by unit."""
        nodes = self.local.graph.nodes
        name = self.local.graph.inputs[0].name
        x = next(
            (i for i, n in enumerate(nodes) if n.op == "input" and n.attribute("name") == name),
            None,
        )
        width = 0 if x is None else self._width(x)
        left = self.like.new_zeros(self.batch, self.rows.total, width)
        for k in range(len(self.rows.units)):
            block = left[:, self.rows[k]]
            self._add_products(block, k, INPUT)
            if (k, INPUT) in self.local.carried:
                found = self.factor(self.local.carried[k, INPUT], self.rows.units[k])
                block.diagonal(dim1=1, dim2=2).add_(found)
        return left

    def _width(self, x: int) -> int:
        return self.values[x].shape[-1] if x in self.values else self.rows.units[0]

    def _add_products(self, block: Tensor, k: int, m: int) -> None:
        nodes = self.local.graph.nodes
        for product in self.local.products:
            onto = self.local.onto.get((k, product))
            into = self.local.into.get((product, m))
            if onto is None or into is None:
                continue
            weight = self.values[nodes[product].args[0]]
            moving = self.values[into]
            if isinstance(moving, Tensor):
                weight = weight * self.factor(into, weight.shape[1])[:, None]
            elif moving != 1:
                weight = weight * moving
            block.addcmul_(self.factor(onto, self.rows.units[k])[:, :, None], weight)

    def terms(self) -> tuple[kernel.Terms, Tensor]:
        """E: the ways unit by unit."""
        pairs = tuple(sorted((k, m) for k, m in self.local.carried if m != INPUT))
        terms, order = _terms(self.rows, pairs)
        found = [self.factor(self.local.carried[pair], self.rows.units[pair[0]]) for pair in pairs]
        if not found:
            return terms, self.like.new_zeros(self.batch, 0)
        return terms, torch.cat(found, 1)[:, order]

    def add_immediate(self, new: Tensor) -> None:
        """Adds ∂s'/∂θ at the weights' own columns."""
        for weight in self.place.weights:
            if weight.node is None:
                continue
            for k, units in enumerate(self.rows.units):
                block = new[:, self.rows[k], weight.columns]
                for onto, vector in self._products_of(weight.node, k):
                    own = block.unflatten(2, (units, -1)).diagonal(dim1=1, dim2=2)
                    own.addcmul_(vector.expand(self.batch, -1)[:, :, None], onto[:, None])
                index = self.local.vectors.get((k, weight.node))
                if index is not None:
                    found = self.factor(index, units)
                    alone = block.shape[2] == 1
                    (block[:, :, 0] if alone else block.diagonal(dim1=1, dim2=2)).add_(found)

    def _products_of(self, node: int, k: int) -> list[tuple[Tensor, Tensor]]:
        """For each product of a weight its factor onto a state, and its vector."""
        nodes, units = self.local.graph.nodes, self.rows.units[k]
        return [
            (self.factor(self.local.onto[k, p], units), self.values[nodes[p].args[1]])
            for p in self.local.products
            if nodes[p].args[0] == node and (k, p) in self.local.onto
        ]


@cache
def _terms(rows: Rows, pairs: tuple[tuple[int, int], ...]) -> tuple[kernel.Terms, Any]:
    runs = [(rows.starts[k], rows.starts[m], rows.units[k]) for k, m in pairs]
    terms, order = kernel.Terms.of(rows.total, runs)
    return terms, torch.tensor(order, dtype=torch.long)


def nodes_at(chain: Chain, window: Window, number: int, step: int = 0) -> list[Any]:
    """The values of the nodes of one place's step, at one step of a window."""
    place, seen = chain.places[number], window.seen[number]
    assert place.graph is not None
    values = values_from(
        place.graph, chain.values[number], seen.x, seen.start, states=seen.states,
        fresh=seen.fresh, lengths=window.lengths, resets=window.resets,
        extras={**seen.steps, **seen.sequences},
    )  # fmt: skip
    return at_step(place.graph, values.nodes, step)


def at_step(graph: Graph, nodes: Sequence[Any], step: int) -> list[Any]:
    """Values of all steps of a window, at one of them."""
    found: list[Any] = []
    for level, value in zip(graph.levels, nodes, strict=False):
        if isinstance(value, Tensor) and level:
            value = value[min(step, value.shape[0] - 1)]
        found.append(value)
    return found


def advance(
    chain: Chain, influence: Influence, window: Window, start: Callable[[], Influence]
) -> Influence:
    """M after a window of one step.

    Args:
        chain: one that `hindrance` has nothing against.
        influence: for each place with weights M, (batch, rows, columns), as of
            `elman.learning.exact.Exact`.
        window: of one step.
        start: gives the influence on a fresh state, for rows that are reset.

    Returns:
        The new influence, in memory of its own.
    """
    ended = None if window.lengths is None else window.lengths == 0
    influence = _begun_anew(influence, window, ended, start)
    steps = [
        Step(place, nodes_at(chain, window, number), window.batch, number > 0)
        for number, place in enumerate(chain.places)
    ]
    moved, given = [], iter(influence)
    for number, place in enumerate(chain.places):
        if place.weights:
            moved.append(_moved(chain, steps, window, number, next(given)))
    if ended is not None and bool(ended.any()):
        for new, old in zip(moved, influence, strict=True):
            new[ended] = old[ended]
    return tuple(moved)


def _begun_anew(
    influence: Influence, window: Window, ended: Tensor | None, start: Callable[[], Influence]
) -> Influence:
    """The influence on the state before the step, after resets."""
    if window.resets is None:
        return influence
    reset = window.resets[0] if ended is None else window.resets[0] & ~ended
    if not bool(reset.any()):
        return influence
    rows = reset[:, None, None]
    return tuple(torch.where(rows, new, old) for new, old in zip(start(), influence, strict=True))


def _moved(chain: Chain, steps: list[Step], window: Window, lowest: int, old: Tensor) -> Tensor:
    """M of one place's weights, through its own layer and those above."""
    new = room(old)
    below: Tensor | None = None
    first = chain.places[lowest].first
    for number in range(lowest, len(chain.places)):
        place, step = chain.places[number], steps[number]
        rows = slice(place.first - first, place.first - first + place.rows)
        target = new[:, rows]
        terms, factors = step.terms()
        kernel.moved(step.left, old[:, rows], step.first, target, terms=terms, factors=factors)
        if below is None:
            step.add_immediate(target)
        elif step.left_x is not None:
            mask = window.seen[number].mask
            moving = below if mask is None else below * mask.reshape(window.batch, -1, 1)
            kernel.moved(step.left_x, moving, 0, target, add=True)
        if number + 1 < len(chain.places):
            assert place.graph is not None
            output = place.graph.new_states.index(place.graph.output)
            of_output = target[:, step.rows[output]]
            below = of_output if below is None or not place.residual else of_output + below
    return new


def room(like: Tensor) -> Tensor:
    """Memory for an influence like another, used again from step to step."""
    if like.device.type != "cpu" or like.dtype not in memory.NUMPY:
        return torch.empty_like(like)
    rows, columns = like.shape[0] * like.shape[1], like.shape[2]
    return memory.empty(rows, columns, like.dtype).view(like.shape)
