"""Many cotangents back through a window at once.

Cotangents have one axis more than values behind the batch, (time, batch, basis, …): all of a basis
share the values, so that a Jacobian costs one walk back over time whatever its number of rows.
Everything here is without autograd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from elman.backends.call import Carried as Kept
from elman.equation.adjoint import NEW_STATE, OUTPUT, Adjoint
from elman.errors import InputError
from elman.learning.values import (
    Values,
    nearest,
    onto,
    parameter_values,
    values_from,
    window_values,
)

__all__ = ["Pair", "Pulled", "Values", "parameter_values", "pull", "values_from", "window_values"]


class Pair(NamedTuple):
    """A product a = W v of a step: W's cotangent is Σ over time of `cotangent` `vector`ᵀ.

    Attributes:
        weight: the node of W, which depends on parameters alone.
        cotangent: ā, (time, batch, basis, rows).
        vector: v, (time, batch, columns); of a bilinear product u ⊗ v as one vector.
    """

    weight: int
    cotangent: Tensor
    vector: Tensor


@dataclass(frozen=True)
class Pulled:
    """What cotangents become on their way back through a window.

    Attributes:
        carried: of what the window began with, states and then delay lines, (batch, basis, …).
        fresh: of what resets put there, in the same order; None without resets.
        x: of the input, (time, batch, basis, input); None where the step does not read it.
        pairs: one for each product.
        vectors: for each other node that depends on parameters alone its summands,
            (time, batch, basis, …), to be summed over time.
    """

    carried: Kept
    fresh: Kept | None
    x: Tensor | None
    pairs: tuple[Pair, ...]
    vectors: Mapping[int, Tensor]


def pull(
    values: Values,
    out: Tensor | None = None,
    last: tuple[Tensor | None, ...] | None = None,
    *,
    x: bool = True,
) -> Pulled:
    """Many cotangents at once, back through a window.

    Args:
        values: of the window.
        out: cotangents of the outputs, (time, batch, basis, size); None for zeros.
        last: cotangents of what the window carries on, states and then delay lines,
            (batch, basis, …) each, at each row's own last real step; None for zeros, of each or
            of all.
        x: whether the input's cotangents are wanted.

    Returns:
        Pulled: their pull-back to the window's start, its inputs, and its weights.

    Raises:
        InputError: no cotangents are given.

    Example:
        >>> import elman, torch
        >>> graph = elman.cells.get("simple").graph
        >>> weights = {"W": torch.eye(2), "U": 0.5 * torch.eye(2), "b": torch.zeros(2)}
        >>> start = (torch.zeros(1, 2),)
        >>> values = window_values(graph, weights, torch.zeros(3, 1, 2), start)
        >>> pull(values, last=(torch.eye(2).unsqueeze(0),)).carried[0]
        tensor([[[0.1250, 0.0000],
                 [0.0000, 0.1250]]])
    """
    walk = _Walk(values, out, last, _basis_of(out, last))
    for t in reversed(range(values.time)):
        walk.step(t)
    return walk.finish(x)


def _basis_of(out: Tensor | None, last: tuple[Tensor | None, ...] | None) -> int:
    """How many cotangents there are."""
    given = [(2, out)] if out is not None else []
    given += [(1, part) for part in last or () if part is not None]
    if not given:
        raise InputError("pull: neither `out` nor `last` is given; give cotangents of one of them")
    axis, one = given[0]
    return one.shape[axis]


class _Walk:
    """The walk back over time: the cotangents of what is carried, at the step at hand."""

    def __init__(self, values: Values, out: Tensor | None, last, basis: int):
        self.values, self.basis, self.graph = values, basis, values.graph
        programs, graph = values.programs, values.graph
        self.backward = programs.backward
        count = len(graph.states)
        last = (None,) * (count + len(graph.lines)) if last is None else last
        self.states: list[Tensor | None] = list(last[:count])
        self.lines: list[Tensor | None] = list(last[count:])
        self.fresh: list[Tensor | None] = [None] * len(last)
        real = values.real
        self.out = out if out is None or real is None else _masked(real.unsqueeze(-1), out)
        self.kept: dict[int, list[Tensor | None]] = {i: [None] * values.time for i in programs.kept}
        self.into_x: list[Tensor | None] = [None] * values.time
        self.read = {i: _by_step(values.nodes[i], values.time) for i in programs.read}
        self.nodes = list(values.nodes)
        self.leaves = _cotangent_leaves(self.backward)

    def step(self, t: int) -> None:
        """One step back."""
        dead = None if self.values.real is None else ~self.values.real[t].unsqueeze(-1)
        past = self._put_aside(dead)
        nodes = self.nodes
        for index, steps in self.read.items():
            nodes[index] = steps[t]
        for index, place in self.leaves:
            nodes[index] = self.states[place] if place >= 0 else _at(self.out, t)
        for index, evaluate, args in self.values.programs.walk:
            nodes[index] = evaluate(*[nodes[a] for a in args])
        for index, steps in self.kept.items():
            steps[t] = nodes[index]
        self._old(t)
        self._take_back(past)
        if self.values.resets is not None:
            self._reset(self.values.resets[t].unsqueeze(-1))

    def _put_aside(self, dead: Tensor | None) -> list[Tensor | None] | None:
        """Rows that have ended take no part: theirs pass by the step as they are."""
        if dead is None:
            return None
        alive, before = ~dead, [*self.states, *self.lines]
        count = len(self.states)
        taken = [None if c is None else _masked(alive, c) for c in before]
        self.states, self.lines = taken[:count], taken[count:]
        both = zip(before, taken, strict=True)
        return [None if c is None or k is None else c - k for c, k in both]

    def _take_back(self, past: list[Tensor | None] | None) -> None:
        if past is not None:
            count = len(self.states)
            whole = [_plus(c, k) for c, k in zip((*self.states, *self.lines), past, strict=True)]
            self.states, self.lines = whole[:count], whole[count:]

    def _old(self, t: int) -> None:
        """The cotangents of what stood before the step: old states and lines."""
        backward, nodes, graph = self.backward, self.nodes, self.graph
        found = {s.name: self._node(backward.states.get(s.name)) for s in graph.states}
        lines = []
        for line, after in zip(graph.lines, self.lines, strict=True):
            parts: list[Tensor | None] = [None] * line.depth
            if after is not None:
                # The newest value of a line came from the old state, or from the input.
                parts = [after[:, :, k] for k in range(1, line.depth)] + [None]
                newest = after[:, :, 0]
                if line.kind == "state":
                    found[line.name] = _plus(found[line.name], newest)
                elif line.name == graph.inputs[0].name:
                    self.into_x[t] = newest
            for (name, steps), index in backward.delayed.items():
                if name == line.name:
                    place = steps - nearest(line)
                    parts[place] = _plus(parts[place], nodes[index])
            lines.append(_stacked(parts))
        self.states, self.lines = [found[s.name] for s in graph.states], lines

    def _reset(self, now: Tensor) -> None:
        """What a reset put there takes the cotangents; nothing goes on to what was before."""
        both = [*self.states, *self.lines]
        for place, cotangent in enumerate(both):
            if cotangent is not None:
                taken = _masked(now, cotangent)
                self.fresh[place] = _plus(self.fresh[place], taken)
                both[place] = cotangent - taken
        count = len(self.states)
        self.states, self.lines = both[:count], both[count:]

    def finish(self, wanted: bool) -> Pulled:
        """What all steps at once still have to do."""
        values, programs, nodes = self.values, self.values.programs, self.nodes
        for index in programs.read_after:
            nodes[index] = values.nodes[index].unsqueeze(2)
        for index, steps in self.kept.items():
            nodes[index] = _over_time(steps)
        for index, evaluate, args in (*programs.rest, *(programs.inputs if wanted else ())):
            nodes[index] = evaluate(*[nodes[a] for a in args])
        backward, graph, x = self.backward, self.graph, None
        if wanted:
            x = self._node(backward.inputs.get(graph.inputs[0].name))
            x = _plus(x, _over_time(self.into_x))
        pairs = [
            Pair(p.weight, nodes[p.cotangent], values.over_time(p.vector))
            for p in backward.products
            if nodes[p.cotangent] is not None
        ]
        for b in backward.bilinear:
            if nodes[b.cotangent] is not None:
                first, second = values.over_time(b.first), values.over_time(b.second)
                both = first.unsqueeze(-1) * second.unsqueeze(-2)
                pairs.append(Pair(b.weight, nodes[b.cotangent], both.flatten(-2)))
        vectors = {w: nodes[i] for w, i in backward.vectors.items() if nodes[i] is not None}
        carried = self._zeros(values.carried, [*self.states, *self.lines])
        fresh = None if values.resets is None else self._zeros(values.carried, self.fresh)
        return Pulled(carried, fresh, x, tuple(pairs), vectors)

    def _node(self, index: int | None) -> Tensor | None:
        return None if index is None else self.nodes[index]

    def _zeros(self, like: Kept, found: list[Tensor | None]) -> Kept:
        return tuple(
            v.new_zeros(v.shape[0], self.basis, *v.shape[1:]) if c is None else c
            for v, c in zip(like, found, strict=True)
        )


def _cotangent_leaves(backward: Adjoint) -> list[tuple[int, int]]:
    """The leaves of an adjoint's cotangents, each with the place of its state; −1: the output's."""
    places = {s.name: place for place, s in enumerate(backward.graph.states)}
    found = []
    for index, node in enumerate(backward.nodes):
        if node.op == OUTPUT:
            found.append((index, -1))
        elif node.op == NEW_STATE:
            found.append((index, places[node.attribute("name")]))
    return found


def _by_step(value: Tensor, time: int) -> list[Tensor]:
    """A value's steps, with an axis for the basis behind the batch."""
    steps = list(value.unsqueeze(2).unbind(0))
    return steps * time if len(steps) == 1 else steps


def _at(value: Tensor | None, t: int) -> Tensor | None:
    return None if value is None else value[t]


def _plus(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _masked(mask: Tensor, value: Tensor) -> Tensor:
    """The value where the mask is true, else zero."""
    return torch.where(onto(mask, value), value, value.new_zeros(()))


def _stacked(parts: list[Tensor | None]) -> Tensor | None:
    """The cotangents of a delay line, newest first; None where all are zero."""
    one = next((p for p in parts if p is not None), None)
    if one is None:
        return None
    return torch.stack([torch.zeros_like(one) if p is None else p for p in parts], 2)


def _over_time(steps: list[Tensor | None]) -> Tensor | None:
    """Cotangents of all steps as one tensor; None where all are zero."""
    one = next((s for s in steps if s is not None), None)
    if one is None:
        return None
    if len(steps) == 1:
        return one.unsqueeze(0)
    return torch.stack([torch.zeros_like(one) if s is None else s for s in steps])
