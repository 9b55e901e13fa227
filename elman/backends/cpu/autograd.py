"""Walks under autograd: several side by side, as one function of everything that they read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from elman.backends.cpu.again import by_reference
from elman.backends.cpu.geometry import packed_rows
from elman.backends.cpu.memory import address
from elman.backends.cpu.walk import Given, Planes, Walk, forward, given_of
from elman.backends.cpu.walk_back import Asked, Cotangents, backward
from elman.backends.torch_kernel import in_transform
from elman.equation.sizes import number

T = TypeVar("T")


class Job(NamedTuple):
    """A walk, and what it reads: of the call's rows in the call's order, (time, batch, …)."""

    walk: Walk
    given: Given


def found(jobs: Sequence[Job]) -> Sequence[Sequence[Tensor]]:
    """Of each walk the outputs, the last states and, where asked for, all states that are not the
    output. Walks of one call run side by side, and have sizes, number type and batch in common."""
    tensors = [
        (*g.parameters.tensors, *g.steps.values(), *g.sequences.values(), *g.beginnings.values())
        for _, g in jobs
    ]
    walks = tuple([walk for walk, _ in jobs])
    names = tuple([(tuple(g.steps), tuple(g.sequences), tuple(g.beginnings)) for _, g in jobs])
    if torch.is_grad_enabled() and any(t.requires_grad for own in tensors for t in own):
        flat = _Function.apply(walks, names, *[t for own in tensors for t in own])
        return _cut(flat, [results_of(walk) for walk in walks])
    given = [_in_order(*one) for one in zip(walks, names, tensors, strict=True)]
    planes = forward(walks, given, training=False)
    return [results(*one, training=False) for one in zip(walks, planes, strict=True)]


def _cut(values: Sequence[T], counts: Sequence[int]) -> list[Sequence[T]]:
    """Values in runs of so many each."""
    if len(counts) == 1:
        return [values]
    return [values[a:b] for a, b in pairwise(accumulate(counts, initial=0))]


def results_of(walk: Walk) -> int:
    """How many tensors a walk gives."""
    graph = walk.kernels.inner
    more = sum(index != graph.output for index in graph.new_states) if walk.every else 0
    return 1 + len(graph.states) + more


def _in_order(walk: Walk, names: tuple, tensors: Sequence[Tensor]) -> Given:
    """What the kernel reads, the inputs of each step as it wants them."""
    given = given_of(walk, names, tensors)
    if walk.geometry.take is None:
        return given
    steps = {name: packed_rows(value, walk.geometry) for name, value in given.steps.items()}
    return replace(given, steps=steps)


def named(walk: Walk, found: Sequence[Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Of what a walk gives, or of its cotangents: the outputs', and by name those of the last
    states and, where asked for, of all states."""
    graph = walk.kernels.inner
    count = len(graph.states)
    out, finals, every = found[0], found[1 : 1 + count], list(found[1 + count :])
    names = [s.name for s in graph.states]
    by_name = {}
    if walk.every:
        for name, index in zip(names, graph.new_states, strict=True):
            by_name[name] = out if index == graph.output else every.pop(0)
    return out, dict(zip(names, finals, strict=True)), by_name


def results(walk: Walk, planes: Planes, *, training: bool) -> tuple[Tensor, ...]:
    """The outputs, the last states, and all states that are not the output, as plain tensors.

    Outputs are (time, batch, …) where they were written so, else (time·batch, …).
    """
    graph, geometry, depth = walk.kernels.inner, walk.geometry, walk.kernels.depth
    start = geometry.outputs(depth)
    finals, every = [], []
    out = planes.output
    if out is not None:
        dims = graph.nodes[graph.output].dims
        if not geometry.even:
            out = geometry.spread(out, 0)
        elif not dims or out.shape[-1] != number(dims[0], walk.sizes):
            out = out.view(geometry.total, -1)
        out = out if out.dim() == 3 else _shaped(out, dims, walk.sizes)
    for state, index in zip(graph.states, graph.new_states, strict=True):
        plane = planes.states[state.name]
        full = training or walk.every or index == graph.output
        ends = geometry.ends(depth) if full else geometry.ring_ends(depth)
        last = (
            plane[ends] if isinstance(ends, Tensor) else plane.narrow(0, ends.start, geometry.batch)
        )
        finals.append(_shaped(last, state.dims, walk.sizes).clone())
        if index == graph.output:
            # Two states may be the output.
            if out is None:
                rows = geometry.spread(plane, start)
                out = _shaped(rows, state.dims, walk.sizes)
        elif walk.every:
            # Of several views that a function returns torch lets none be changed in place.
            every.append(_shaped(geometry.spread(plane, start), state.dims, walk.sizes).clone())
    assert out is not None
    return (out, *finals, *every)


def _shaped(rows: Tensor, dims: Sequence[str], sizes: Mapping[str, int]) -> Tensor:
    """Rows without the columns that fill them up."""
    if not dims:
        return rows[:, 0].contiguous()
    units = number(dims[0], sizes)
    return rows if rows.shape[1] == units else rows[:, :units].contiguous()


class _Function(torch.autograd.Function):
    """Walks and their gradient; a second derivative comes from the reference."""

    @staticmethod
    def forward(ctx, walks: tuple[Walk, ...], names: tuple, *tensors: Tensor):
        ctx.walks, ctx.names = walks, names
        ctx.counts = [len(w.shapes) + sum(map(len, n)) for w, n in zip(walks, names, strict=True)]
        parts = _cut(tensors, ctx.counts)
        given = [_in_order(*one) for one in zip(walks, names, parts, strict=True)]
        planes = forward(walks, given, training=True)
        kept: list[Tensor] = []
        for walk, own, made in zip(walks, given, planes, strict=True):
            kept += () if walk.geometry.take is None else own.steps.values()
            kept += *made.states.values(), made.kept
        ctx.save_for_backward(*tensors, *kept)
        ctx.hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        ctx.set_materialize_grads(False)
        pairs = zip(walks, planes, strict=True)
        return tuple([r for walk, made in pairs for r in results(walk, made, training=True)])

    @staticmethod
    def backward(ctx, *grads: Tensor | None):
        walks, saved = ctx.walks, ctx.saved_tensors
        count = sum(ctx.counts)
        parts = list(
            zip(
                walks, ctx.names, _cut(saved[:count], ctx.counts),
                _cut(ctx.needs_input_grad[2:], ctx.counts),
                _cut(grads, [results_of(walk) for walk in walks]), strict=True,
            )
        )  # fmt: skip
        if torch.is_grad_enabled() or in_transform() or _without_memory(grads):
            return (None, None, *[g for part in parts for g in by_reference(*part)])
        # Without a second backward to come, what was kept may be written over.
        # What a hook on saved tensors keeps is not ours.
        again = ctx.hooked or torch._C._autograd._get_current_graph_task_keep_graph()
        held = iter(saved[count:])
        returns = [_Return(*part, held) for part in parts]
        pull([one for one in returns if one.reached], again)
        return (None, None, *[g for one in returns for g in one.gradients()])


class _Return:
    """One of a function's walks on its way back: what it was given, and what came of it."""

    def __init__(self, walk, names, tensors, needed, grads, held: Iterator[Tensor]):
        self.names, self.tensors, self.needed, self.grads = names, tensors, needed, grads
        given = given_of(walk, names, tensors)
        if walk.geometry.take is not None:
            given = replace(given, steps={name: next(held) for name in names[0]})
        states = {s.name: next(held) for s in walk.kernels.inner.states}
        self.walk, self.given, self.planes = walk, given, Planes(states, None, next(held))
        # One of two directions may have no part in a loss.
        self.reached = any(g is not None for g in grads)
        self.found: Cotangents | None = None

    def gradients(self) -> list[Tensor | None]:
        """Those of its tensors, in their order."""
        if self.found is None:
            return [None] * len(self.tensors)
        found = self.found
        flat, groups = list(found.parameters), (found.steps, found.sequences, found.beginnings)
        for own, group in zip(self.names, groups, strict=True):
            flat += [group.get(name) for name in own]
        return [
            None if g is None or not n else g if g.shape == t.shape else g.reshape(t.shape)
            for g, t, n in zip(flat, self.tensors, self.needed, strict=True)
        ]


def pull(returns: Sequence[_Return], again: bool) -> None:
    """Walk back, all side by side."""
    if not returns:
        return
    walks = [one.walk._replace(beside=len(returns)) for one in returns]
    asked = [asked_of(one.walk, one.grads, one.needed, one.names, again) for one in returns]
    given, planes = [one.given for one in returns], [one.planes for one in returns]
    for one, made in zip(returns, backward(walks, given, planes, asked), strict=True):
        one.found = put_back(one.walk, made)


def _without_memory(grads: Sequence[Tensor | None]) -> bool:
    """Whether a cotangent stands for others (`is_grads_batched`) or for zeros: none to read."""
    return any(g is not None and g.numel() and not address(g) for g in grads)


def asked_of(
    walk: Walk,
    grads: Sequence[Tensor | None],
    needed: Sequence[bool],
    names: Sequence[Sequence[str]],
    again: bool = True,
) -> Asked:
    """What a walk back is asked for, from the cotangents of what the walk gave.

    Args:
        needed: of which of the walk's tensors a gradient is asked for.
        names: of the tensors after the parameters, as in `given_of`.
        again: whether what the forward kept must stay as it is.
    """
    out, finals, every = named(walk, grads)
    if out is not None:
        out = packed_rows(out.flatten(0, 1) if out.dim() == 3 else out, walk.geometry)
    if walk.every:
        # The output's cotangent holds what came for the state that it is.
        graph = walk.kernels.inner
        every = {
            name: None
            if index == graph.output or every[name] is None
            else packed_rows(every[name], walk.geometry)
            for name, index in zip(every, graph.new_states, strict=True)
        }
    start = len(walk.shapes)
    wanted = [n for n, need in zip(names[0], needed[start:], strict=False) if need]
    return Asked(out, finals, every, wanted, again)


def put_back(walk: Walk, found: Cotangents) -> Cotangents:
    """Cotangents of the steps' inputs in the order of the call."""
    if walk.geometry.take is not None:
        for name, rows in found.steps.items():
            found.steps[name] = walk.geometry.spread(rows, 0)
    return found
