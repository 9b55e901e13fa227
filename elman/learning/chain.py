"""What credit is carried through: a chain of places, each one step of an equation.

A place is a recurrent layer, or work without a state below one: a dense layer, an activation (both
are graphs without states), a lookup. The state s of the chain is that of all its places, one after
another; a delay line is a part of the state. θ is made of each place's weights as its step sees
them: results of work on parameters alone count as weights, and how module parameters make them up
is for autograd, once a call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from elman.backends.call import Carried as Kept
from elman.equation.adjoint import Adjoint
from elman.equation.graph import Graph
from elman.equation.sizes import shape_of
from elman.equation.split import name_of
from elman.learning.programs import adjoint_of


class Weight(NamedTuple):
    """A trained tensor as a step sees it, and its columns among those of its place.

    Attributes:
        name: that of the equation's parameter, "@7" for what parameters make up, or that of a
            learned initial state, "initial_h".
        node: of the place's graph; that of a lookup is 0; None for an initial state.
        state: for an initial state its place among the states, else None.
        shape: its own; the columns are its entries row by row.
        start: its first column.
    """

    name: str
    node: int | None
    state: int | None
    shape: tuple[int, ...]
    start: int

    @property
    def columns(self) -> slice:
        return slice(self.start, self.start + math.prod(self.shape))


@dataclass(frozen=True)
class Place:
    """One place of a chain, without values.

    Attributes:
        graph: its step, with the options that rewrite it; of a lookup None.
        sizes: the sizes of the graph by name; of a lookup its rows and its width.
        weights: those that are trained, in the order of their columns.
        shapes: of each part of its state: the states, then the delay lines (depth first) that
            `keeps` names; none without a state.
        keeps: the places in what a layer carries on (states, then lines) of those parts. Lines of
            an input below which nothing is trained are left out: no weight has an influence there.
        first: the row of s at which its state begins.
        residual: whether its input is added to its output.
        padding: of a lookup the row that is never trained, or None.
    """

    graph: Graph | None
    sizes: Mapping[str, int]
    weights: tuple[Weight, ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    keeps: tuple[int, ...] = ()
    first: int = 0
    residual: bool = False
    padding: int | None = None

    @cached_property
    def rows(self) -> int:
        """The number of entries of its state."""
        return sum(math.prod(shape) for shape in self.shapes)

    @cached_property
    def columns(self) -> int:
        """The number of its trained values."""
        return sum(math.prod(w.shape) for w in self.weights)

    @cached_property
    def parts(self) -> tuple[slice, ...]:
        """For each of `shapes` its entries among those of the place's state."""
        found, start = [], 0
        for shape in self.shapes:
            found.append(slice(start, start + math.prod(shape)))
            start += math.prod(shape)
        return tuple(found)

    @property
    def adjoint(self) -> Adjoint:
        """One step backwards."""
        if self.graph is None:
            raise ValueError("a lookup has no graph")
        return adjoint_of(self.graph)


@dataclass(frozen=True)
class Chain:
    """Places from below to above, with the weights' values of one call.

    Attributes:
        places: the last one has a state.
        values: for each place the values of the nodes that depend on parameters alone and enter a
            row's work, trained or not, by node, attached to autograd's graph; of a lookup its
            table, at 0.
        initial: for each place the learned initial states, in the order of its states, or ().
    """

    places: tuple[Place, ...]
    values: tuple[Mapping[int, Tensor], ...]
    initial: tuple[tuple[Tensor, ...], ...]

    @cached_property
    def rows(self) -> int:
        """The number of entries of s."""
        return sum(place.rows for place in self.places)

    @property
    def weights(self) -> list[Tensor]:
        """The value of every trained weight, place by place in the order of `Place.weights`."""
        each = zip(self.places, self.values, self.initial, strict=True)
        return [
            values[weight.node or 0] if weight.state is None else initial[weight.state]
            for place, values, initial in each
            for weight in place.weights
        ]

    def alone(self, number: int) -> Chain:
        """One of the places as a chain of its own."""
        place = replace(self.places[number], first=0)
        return Chain((place,), (self.values[number],), (self.initial[number],))

    @property
    def like(self) -> Tensor:
        """A tensor of the chain's number type and device."""
        return next(v for values in self.values for v in values.values())


@dataclass(frozen=True)
class Seen:
    """What one place was given in a window; tensors without gradients, time before batch.

    Attributes:
        x: its input after any dropout, (time, batch, …); of a lookup the indices.
        start: what it carried into the window, states and then lines as in `Call.carried`, before
            any reset at the first step; () without a state.
        states: every state after each step, each (time, batch, …); None where the window has one
            step, or they were not kept.
        fresh: what a reset puts in place of what is carried; None without resets.
        steps, sequences: the further inputs, masks among them, as in `Call`.
        mask: what its input was multiplied with before it became x (dropout), or None.
    """

    x: Tensor
    start: Kept = ()
    states: tuple[Tensor, ...] | None = None
    fresh: Kept | None = None
    steps: Mapping[str, Tensor] = field(default_factory=dict)
    sequences: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None


@dataclass(frozen=True)
class Window:
    """What a chain was given in one window.

    Attributes:
        seen: for each place.
        lengths: real steps of each row in this window, (batch,), 0 for a row that had ended
            before it, or None for all.
        resets: true where a segment of a row begins, (time, batch), or None.
    """

    seen: tuple[Seen, ...]
    lengths: Tensor | None = None
    resets: Tensor | None = None

    @property
    def time(self) -> int:
        return self.seen[-1].x.shape[0]

    @property
    def batch(self) -> int:
        return self.seen[-1].x.shape[1]


def flat_rows(parts: Sequence[Tensor], lead: int = 1) -> Tensor:
    """Parts of a state as one tensor: `lead` axes (the batch first), then the entries of s."""
    flat = [p.reshape(*p.shape[:lead], -1) for p in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, -1)


def place_of(
    graph: Graph,
    sizes: Mapping[str, int],
    trained: frozenset[int],
    *,
    learned: bool = False,
    first: int = 0,
    residual: bool = False,
    below: bool = False,
) -> Place:
    """The place of a graph.

    Args:
        graph: its step, with or without states.
        sizes: its sizes by name.
        trained: the nodes of `parameter_values` whose tensors are trained.
        learned: whether its initial states are trained.
        first: the number of entries of s before its own.
        residual: whether its input is added to its output.
        below: whether something below it is trained, so that its input depends on weights.
    """
    return _place(graph, tuple(sizes.items()), trained, learned, first, residual, below)


@cache
def _place(graph, pairs, trained, learned, first, residual, below) -> Place:
    sizes = dict(pairs)
    weights: list[Weight] = []
    start = 0
    for node in _by_vector(adjoint_of(graph)):
        if node in trained:
            shape = shape_of(graph.nodes[node].dims, sizes)
            weights.append(Weight(name_of(graph, node), node, None, shape, start))
            start += math.prod(shape)
    for state, declared in enumerate(graph.states) if learned else ():
        shape = shape_of(declared.dims, sizes)
        weights.append(Weight(f"initial_{declared.name}", None, state, shape, start))
        start += math.prod(shape)
    shapes = [shape_of(s.dims, sizes) for s in graph.states]
    keeps = list(range(len(shapes)))
    for place, line in enumerate(graph.lines, len(shapes)):
        if line.kind == "state" or (below and line.name == graph.inputs[0].name):
            keeps.append(place)
            shapes.append((line.depth, *shape_of(line.dims, sizes)))
    return Place(graph, sizes, tuple(weights), tuple(shapes), tuple(keeps), first, residual)


def _by_vector(backward: Adjoint) -> list[int]:
    """The weights of a step: matrices by the vector that they multiply, then all others."""
    order: dict[int, tuple[int, int]] = {}
    for product in backward.products:
        order.setdefault(product.weight, (0, product.vector))
    for bilinear in backward.bilinear:
        order.setdefault(bilinear.weight, (1, bilinear.first))
    for node in backward.vectors:
        order.setdefault(node, (2, 0))
    return sorted(order, key=lambda node: (*order[node], node))


def lookup_of(rows: int, width: int, *, trained: bool, padding: int | None = None) -> Place:
    """The place of a table of vectors that whole numbers pick from."""
    weights = (Weight("weight", 0, None, (rows, width), 0),) if trained else ()
    return Place(None, {"rows": rows, "width": width}, weights, padding=padding)
