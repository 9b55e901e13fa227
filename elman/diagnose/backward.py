"""Many cotangents at once, back through a place that was watched.

A cotangent here has the axes (loss, batch, …), one entry of the first for each L_t; the values of
the forward run, (batch, …), stand behind them and are shared. A loss joins the walk where it first
has something to say, so that of T losses half a square is walked and not the whole.

Unlike the sweep of `elman.learning.sweep`, which contracts over all time at its end, this one shows
every step to a visitor and keeps nothing, since diagnosis wants norms and not the cotangents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.diagnose.watch import Place
from elman.equation import Graph
from elman.equation.adjoint import NEW_STATE, OUTPUT, Adjoint, adjoint
from elman.equation.evaluate import sizes_of, value_of


class Arrived(NamedTuple):
    """What is known at a step of the walk back.

    Attributes:
        step: in the place's own time.
        losses: which entries the first axis of the cotangents has.
        values: of all nodes, those of the adjoint behind those of the equation; None for what
            nobody needed.
        out: the cotangents of the output.
        states: those of the new states, by name, beside what comes by way of the output.
    """

    step: int
    losses: slice
    values: Sequence[Any]
    out: Tensor
    states: Mapping[str, Tensor]


Visit = Callable[[Arrived], None]


@cache
def adjoint_of(graph: Graph) -> Adjoint:
    """The adjoint of a step, derived once."""
    return adjoint(graph)


class Seeds(NamedTuple):
    """Cotangents that come from outside a place: of outputs and states, (loss, time, batch, …)."""

    out: Tensor | None
    states: tuple[Tensor | None, ...]


class Pulled(NamedTuple):
    """Cotangents of what a place was given: x (loss, time, batch, input), carried states."""

    x: Tensor | None
    carried: tuple[Tensor, ...]


def step_back(
    backward: Adjoint,
    values: Sequence[Any],
    out: Tensor,
    states: Mapping[str, Tensor],
    needed: Iterable[int],
    sizes: Mapping[str, int] | None = None,
) -> list[Any]:
    """The values of an adjoint's nodes for one step; None for those not needed.

    Args:
        values: of the step's nodes.
        out, states: cotangents of the output and of the new states, (loss, batch, …).
        needed: the adjoint's own operations to compute, in order.
        sizes: of the step, if known.
    """
    results: list[Any] = list(values)
    sizes = sizes_of(backward.graph, values) if sizes is None else sizes
    wanted = set(needed)
    for index in range(len(results), len(backward.nodes)):
        node = backward.nodes[index]
        if node.op == OUTPUT:
            results.append(out)
        elif node.op == NEW_STATE:
            results.append(states[node.attribute("name")])
        elif node.args and index not in wanted:
            results.append(None)
        else:
            results.append(value_of(node, backward.nodes, backward.levels, results, sizes))
    return results


@torch.no_grad()
def pull_back(
    place: Place, seeds: Seeds, visit: Visit, *, roots: Iterable[int] = (), inputs: bool = True
) -> Pulled:
    """Walk back over the time of a place.

    Args:
        place: with the values of its run.
        seeds: the cotangents that come in, in the place's own time.
        visit: is shown each step, the last first.
        roots: nodes of the adjoint that `visit` reads.
        inputs: whether the cotangents of x are wanted.
    """
    walk = _Walk(place, seeds, inputs)
    backward = walk.backward
    needed = backward.needed({*roots, *walk.roots})
    sizes = sizes_of(place.graph, place.values[0])
    for step in reversed(range(place.time)):
        losses = walk.live[step]
        if losses is None:
            continue
        out, states = walk.arriving(step, losses)
        values = step_back(backward, place.values[step], out, states, needed, sizes)
        visit(Arrived(step, losses, values, out, states))
        walk.leave(step, losses, values)
    return Pulled(walk.x, walk.initial())


class _Walk:
    """What is under way: cotangents of the old states, and of values some steps before."""

    def __init__(self, place: Place, seeds: Seeds, inputs: bool):
        self.place, self.seeds, self.backward = place, seeds, adjoint_of(place.graph)
        given = [s for s in (seeds.out, *seeds.states) if s is not None]
        like = given[0]
        self.losses = like.shape[0]
        self.live = _live(given, place.time)
        self.names = [s.name for s in place.graph.states]
        self.held = {
            name: like.new_zeros(self.losses, *value.shape[1:])
            for name, value in zip(self.names, place.states, strict=True)
        }
        self.later: dict[tuple[str, int], Tensor] = {}
        self.main = place.graph.inputs[0].name
        reads = inputs and (
            self.main in self.backward.inputs
            or any(name == self.main for name, _ in self.backward.delayed)
        )
        self.x = like.new_zeros(self.losses, *place.call.x.shape) if reads else None
        delayed = (i for (n, _), i in self.backward.delayed.items() if n in self.held or reads)
        self.roots = {*self.backward.states.values(), *delayed}
        if reads and self.main in self.backward.inputs:
            self.roots.add(self.backward.inputs[self.main])
        self.real = place.real if place.call.lengths is not None else None

    def arriving(self, step: int, losses: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """The cotangents of the output and of the new states of a step."""
        if self.seeds.out is None:
            shape = losses.stop - losses.start, *self.place.out.shape[1:]
            out = self.place.out.new_zeros(shape)
        else:
            out = self._real(step, self.seeds.out[losses, step])
        states = {}
        for name, seed in zip(self.names, self.seeds.states, strict=True):
            total = self.held[name][losses]
            waiting = self.later.pop((name, step), None)
            if waiting is not None:
                total = total + waiting[losses]
            if seed is not None:
                total = total + self._real(step, seed[losses, step])
            states[name] = total
        return out, states

    def leave(self, step: int, losses: slice, values: list[Any]) -> None:
        """Take over the cotangents of what the step read."""
        backward = self.backward
        for name, held in self.held.items():
            held[losses] = values[backward.states[name]] if name in backward.states else 0.0
        for (name, back), index in backward.delayed.items():
            if values[index] is not None:
                self._add(name, step - back, losses, values[index])
        if self.x is not None:
            if self.main in backward.inputs:
                self.x[losses, step] += values[backward.inputs[self.main]]
            waiting = self.later.pop((self.main, step), None)
            if waiting is not None:
                self.x[:, step] += waiting
        if self.place.call.resets is not None:
            self._cut(self.place.call.resets[step])

    def _add(self, name: str, step: int, losses: slice, value: Tensor) -> None:
        """Keep the cotangent of a value that lies some steps before, until the walk is there."""
        key = name, step
        if key not in self.later:
            shape = value.shape[1:]
            self.later[key] = value.new_zeros(self.losses, *shape)
        self.later[key][losses] += value

    def _cut(self, now: Tensor) -> None:
        """A segment begins in some rows: what was before has no part in what comes."""
        for held in (*self.held.values(), *self.later.values()):
            held[:, now] = 0.0

    def _real(self, step: int, value: Tensor) -> Tensor:
        if self.real is None:
            return value
        mask = self.real[step].reshape(-1, *(1,) * (value.dim() - 2))
        return torch.where(mask, value, 0.0)

    def initial(self) -> tuple[Tensor, ...]:
        """The cotangents of the states that the place began with."""
        found = []
        for name in self.names:
            waiting = self.later.get((name, -1))
            found.append(self.held[name] if waiting is None else self.held[name] + waiting)
        return tuple(found)


def _live(seeds: Sequence[Tensor], time: int) -> list[slice | None]:
    """For each step the losses that have something to say there or later, as a slice."""
    some = torch.stack([(s != 0).flatten(2).any(-1) for s in seeds]).any(0)
    ever = some.flip(1).cummax(1).values.flip(1)
    found: list[slice | None] = []
    for step in range(time):
        rows = ever[:, step].nonzero().flatten()
        found.append(slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else None)
    return found
