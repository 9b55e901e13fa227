"""The gradient of a walk where the kernel cannot give it: by the reference.

A second derivative differentiates the first, and several cotangents at once (`is_grads_batched`, a
transform) have no memory for a kernel to read. The walk is done again, in torch's operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elman.backends import reference
from elman.backends.call import Carried
from elman.backends.cpu.geometry import packed_rows
from elman.backends.cpu.sources import by_name
from elman.backends.cpu.walk import Given, Walk, given_of
from elman.equation.sizes import shape_of


def by_reference(
    walk: Walk,
    names: tuple,
    tensors: Sequence[Tensor],
    needed: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradient by the reference.

    Args:
        names: of the tensors after the parameters, as in `given_of`.
        tensors: what the walk was given.
        needed: of which of them a gradient is asked for.
        grads: the cotangents of what the walk gave.
    """
    further = torch.is_grad_enabled()
    if not further:
        tensors = [t.detach().requires_grad_(n) for t, n in zip(tensors, needed, strict=True)]
    with torch.enable_grad():
        outs = _outputs(walk, given_of(walk, names, tensors))
    pairs = [(o, g.reshape(o.shape)) for o, g in zip(outs, grads, strict=True) if g is not None]
    asked = [t for t, n in zip(tensors, needed, strict=True) if n]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs], asked, [g for _, g in pairs], create_graph=further,
            allow_unused=True,
        )
    )  # fmt: skip
    return [next(found) if n else None for n in needed]


def _outputs(walk: Walk, given: Given) -> tuple[Tensor, ...]:
    """What the walk gives, from the reference."""
    graph, geometry = walk.kernels.inner, walk.geometry
    batch, steps = geometry.batch, geometry.steps
    place = None
    if not geometry.even:
        place = torch.cat(
            [t * batch + torch.arange(int(n), device="cpu") for t, n in enumerate(geometry.alive)]
        )

    def padded(rows: Tensor) -> Tensor:
        if place is not None:
            flat = rows.new_zeros(steps * batch, *rows.shape[1:])
            rows = flat.index_copy(0, place, packed_rows(rows, geometry))
        value = rows.reshape(steps, batch, *rows.shape[1:])
        return value.flip(0) if geometry.back else value

    def unpacked(value: Tensor) -> Tensor:
        flat = (value.flip(0) if geometry.back else value).flatten(0, 1)
        if place is None or geometry.take is None:
            return flat
        rows = flat.index_select(0, place)
        zeros = rows.new_zeros(geometry.places, *rows.shape[1:])
        return zeros.index_copy(0, geometry.take, rows)

    extras = {name: padded(v) for name, v in given.steps.items()} | dict(given.sequences)
    x = extras.pop(graph.inputs[0].name)
    named = by_name(given.parameters, graph.parameter_shapes(walk.sizes))
    out, last, every = reference.run(
        graph, named, x, _carried(walk, given), lengths=geometry.lengths,
        extras=extras, return_states=walk.every,
    )  # fmt: skip
    result = [unpacked(out), *last[: len(graph.states)]]
    if walk.every:
        result += [
            unpacked(v)
            for v, i in zip(every or (), graph.new_states, strict=True)
            if i != graph.output
        ]
    return tuple(result)


def _carried(walk: Walk, given: Given) -> Carried:
    """What the reference goes on from: the states, then their delay lines."""
    graph, depth, batch = walk.kernels.inner, walk.kernels.depth, walk.geometry.batch
    depths = {line.name: line.depth for line in graph.lines}
    states, lines = [], []
    for s in graph.states:
        blocks = given.beginnings.get(s.name)
        if blocks is None:
            shape = shape_of(s.dims, walk.sizes)
            blocks = torch.full((depth * batch, *shape), s.initial, dtype=walk.dtype, device="cpu")
        blocks = blocks.reshape(depth, batch, *blocks.shape[1:])
        states.append(blocks[-1])
        if s.name in depths:
            old = blocks[depth - 1 - depths[s.name] : depth - 1]
            lines.append(old.flip(0).transpose(0, 1))
    return (*states, *lines)
