"""A call on the CPU kernels: rows put in order, what torch does once, the walk, and all back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from elman.backends import reference
from elman.backends.call import Call, Carried, Result
from elman.backends.cpu.geometry import Geometry, ragged, whole
from elman.backends.cpu.kernel import Kernels
from elman.backends.cpu.sources import Parameters, by_name, own
from elman.backends.cpu.walk import Cotangents, Given, Planes, Walk, backward, forward
from elman.equation.evaluate import value_of
from elman.equation.graph import Graph
from elman.equation.sizes import number
from elman.errors import InputError


def run(
    kernels: Kernels, sizes: Mapping[str, int], parameters: Parameters, call: Call
) -> Result:
    """Run a call; as the reference does, to rounding.

    Args:
        kernels: those of the cell.
        sizes: the number of every size.
        parameters: those of the cell.
        call: what is asked for.
    """
    if torch.is_autocast_enabled("cpu"):
        # Inputs may come in half precision; what torch computes here would be in it too.
        with torch.autocast("cpu", enabled=False):
            return run(kernels, sizes, parameters, _of_one_type(call, parameters.tensors))
    steps, batch = call.x.shape[:2]
    if not batch:
        return _without_rows(kernels.graph, sizes, parameters, call)
    if call.lengths is None and call.resets is None:
        geometry = whole(steps, batch, call.backwards)
    else:
        geometry = ragged(steps, call.lengths, call.resets, batch, call.backwards)
    graph = kernels.graph
    begun = _beginning(call, geometry)
    lines = dict(zip((line.name for line in graph.lines), begun[len(graph.states) :], strict=True))
    given = _given(kernels, sizes, parameters, call, geometry, begun, lines)
    state_lines = any(line.kind == "state" for line in graph.lines)
    tensors, places = given.parameters
    _check(kernels, sizes, given, call.x.dtype)
    walk = Walk(
        kernels, sizes, geometry, call.return_states or state_lines, places,
        tuple(tuple(t.shape) for t in tensors), call.x.dtype,
    )  # fmt: skip
    out, finals, every = _walked(walk, given)
    carried = _carried(walk, call, given, finals, every, lines)
    states = None
    if call.return_states:
        states = tuple(_spread(every[s.name], call, geometry) for s in graph.states)
    return Result(_spread(out, call, geometry), carried, states)


def _of_one_type(call: Call, parameters: Sequence[Tensor]) -> Call:
    """A call whose numbers are all of the parameters' type: words of a kernel carry no type."""
    dtype = parameters[0].dtype if parameters else call.x.dtype

    def fit(values: Any) -> Any:
        if isinstance(values, Mapping):
            return {name: value.to(dtype) for name, value in values.items()}
        return values and tuple(value.to(dtype) for value in values)

    return replace(
        call, x=call.x.to(dtype), carried=fit(call.carried), fresh=fit(call.fresh),
        step_extras=fit(call.step_extras), sequence_extras=fit(call.sequence_extras),
    )  # fmt: skip


def _without_rows(
    graph: Graph, sizes: Mapping[str, int], parameters: Parameters, call: Call
) -> Result:
    """A batch without rows: nothing to walk, so the reference gives the shapes and the graph."""
    return Result(
        *reference.run(
            graph, by_name(parameters, graph.parameter_shapes(sizes)), call.x, call.carried,
            fresh=call.fresh, lengths=call.lengths, resets=call.resets,
            extras={**call.step_extras, **call.sequence_extras},
            return_states=call.return_states,
        )
    )  # fmt: skip


def _check(kernels: Kernels, sizes: Mapping[str, int], given: Given, dtype: torch.dtype) -> None:
    """Refuse tensors whose memory is not what a kernel takes it for."""
    for group in (given.parameters.tensors, given.steps.values(), given.sequences.values(),
                  given.beginnings.values()):  # fmt: skip
        for tensor in group:
            if tensor.dtype != dtype or not tensor.is_cpu:
                raise InputError(
                    f"{kernels.graph.name}: a tensor of type {tensor.dtype} on {tensor.device} "
                    f"came with an x of type {dtype} on the CPU; give all of one type and place"
                )


# Rows in order.


def _packed(value: Tensor, geometry: Geometry) -> Tensor:
    """(time, batch, …) as the rows of all steps together."""
    flat = value.reshape(-1, *value.shape[2:])
    return flat if geometry.take is None else _Taken.apply(flat, geometry.take)


class _Taken(torch.autograd.Function):
    """Rows by number, none twice, so that the gradient is copied and not added up."""

    @staticmethod
    def forward(ctx, rows: Tensor, take: Tensor) -> Tensor:
        ctx.save_for_backward(take)
        ctx.rows = rows.shape[0]
        return rows.index_select(0, take)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (take,) = ctx.saved_tensors
        return grad.new_zeros(ctx.rows, *grad.shape[1:]).index_copy(0, take, grad), None


def _by_row(value: Tensor, geometry: Geometry) -> Tensor:
    """(batch, …), a row for each of ours."""
    return value if geometry.rows is None else value.index_select(0, geometry.rows)


def _spread(rows: Tensor, call: Call, geometry: Geometry) -> Tensor:
    """The rows of all steps as (time, batch, …), zero past a row's end."""
    steps, batch = call.x.shape[:2]
    if geometry.take is not None:
        flat = rows.new_zeros(steps * batch, *rows.shape[1:])
        rows = flat.index_copy(0, geometry.take, rows)
    return rows.view(steps, batch, *rows.shape[1:])


def _beginning(call: Call, geometry: Geometry) -> Carried:
    """What each of our rows begins with."""
    begun = tuple(_by_row(c, geometry) for c in call.carried)
    if geometry.fresh is None:
        return begun
    fresh = tuple(_by_row(f, geometry) for f in call.fresh or ())
    marks = geometry.fresh
    return tuple(
        torch.where(marks.reshape(-1, *(1,) * (old.dim() - 1)), new, old)
        for new, old in zip(fresh, begun, strict=True)
    )


def _given(
    kernels: Kernels,
    sizes: Mapping[str, int],
    parameters: Parameters,
    call: Call,
    geometry: Geometry,
    begun: Carried,
    lines: Mapping[str, Tensor],
) -> Given:
    """What the kernel reads; what torch computes once a call is computed here."""
    graph, both = kernels.graph, kernels.schedule.split
    steps = {graph.inputs[0].name: _packed(call.x, geometry)}
    steps |= {name: _packed(value, geometry) for name, value in call.step_extras.items()}
    sequences = {n: _by_row(value, geometry) for n, value in call.sequence_extras.items()}
    if both.outer:
        named = by_name(parameters, graph.parameter_shapes(sizes))
        values = _outer(kernels, named)
        parameters = own({name: values[i] for name, i in both.parameters.items()})
    for name, index in both.steps.items():
        node = graph.nodes[index]
        if node.op == "delayed":
            source = node.attribute("name")
            steps[name] = _delayed(steps[source], lines[source], node.attribute("steps"), geometry)
    beginnings = {
        s.name: _blocks(begun[i], lines.get(s.name), kernels.depth)
        for i, s in enumerate(graph.states)
    }
    return Given(parameters, steps, sequences, beginnings)


def _delayed(rows: Tensor, line: Tensor, steps: int, geometry: Geometry) -> Tensor:
    """An input of some steps ago, at every step and row."""
    before = line[:, :steps].flip(1).transpose(0, 1).flatten(0, 1)
    return torch.cat([before, rows])[geometry.before(steps, steps)]


def _outer(kernels: Kernels, parameters: Mapping[str, Tensor]) -> list[Any]:
    """The values of the nodes that torch computes once a call."""
    graph = kernels.graph
    values: list[Any] = [None] * len(graph.nodes)
    wanted = set(kernels.schedule.split.outer)
    for index, node in enumerate(graph.nodes):
        if node.op == "parameter":
            values[index] = parameters[node.attribute("name")]
        elif node.op == "constant":
            values[index] = node.attribute("value")
        elif index in wanted:
            values[index] = value_of(node, graph.nodes, graph.levels, values)
    return values


def _blocks(state: Tensor, line: Tensor | None, depth: int) -> Tensor:
    """A state's values before the first step, oldest first, as rows."""
    if depth == 1:
        return state
    if line is None:
        return torch.cat([torch.zeros_like(state).repeat(depth - 1, *(1,) * (state.dim() - 1)),
                          state])
    old = line.flip(1).transpose(0, 1)
    missing = depth - 1 - old.shape[0]
    if missing:
        old = torch.cat([old.new_zeros(missing, *old.shape[1:]), old])
    return torch.cat([old.flatten(0, 1), state])


def _carried(walk: Walk, call: Call, given: Given, finals, every, lines) -> Carried:
    """What goes on after each row's last step."""
    graph, geometry, depth = walk.kernels.graph, walk.geometry, walk.kernels.depth

    def own(value: Tensor) -> Tensor:
        return value if geometry.last is None else value.index_select(0, geometry.last)

    result = [own(finals[s.name]) for s in graph.states]
    for line in graph.lines:
        if line.kind == "state":
            plane, first = torch.cat([given.beginnings[line.name], every[line.name]]), 1
            back = depth
        else:
            old = lines[line.name].flip(1).transpose(0, 1).flatten(0, 1)
            source = call.x if line.name == graph.inputs[0].name else call.step_extras[line.name]
            plane, first, back = torch.cat([old, _packed(source, geometry)]), 0, line.depth
        values = [plane[geometry.at_end(first + j, back)] for j in range(line.depth)]
        result.append(own(torch.stack(values, 1)))
    return tuple(result)


# The walk under autograd.


def _walked(walk: Walk, given: Given):
    """Outputs, last states and, where asked for, all states, by name."""
    tensors = [
        *given.parameters.tensors, *given.steps.values(), *given.sequences.values(),
        *given.beginnings.values(),
    ]  # fmt: skip
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        names = tuple(given.steps), tuple(given.sequences), tuple(given.beginnings)
        found = _Function.apply(walk, names, *tensors)
    else:
        planes = forward(walk, given, training=False)
        found = _results(walk, planes, training=False)
    return _named(walk, found)


def _named(walk: Walk, found: Sequence[Tensor]):
    graph = walk.kernels.inner
    count = len(graph.states)
    out, finals, every = found[0], found[1 : 1 + count], list(found[1 + count :])
    names = [s.name for s in graph.states]
    by_name = {}
    if walk.every:
        for name, index in zip(names, graph.new_states, strict=True):
            by_name[name] = out if index == graph.output else every.pop(0)
    return out, dict(zip(names, finals, strict=True)), by_name


def _results(walk: Walk, planes: Planes, *, training: bool) -> tuple[Tensor, ...]:
    """The outputs, the last states, and all states that are not the output, as plain tensors."""
    graph, geometry, depth = walk.kernels.inner, walk.geometry, walk.kernels.depth
    start = geometry.outputs(depth)
    stop = start + geometry.total
    finals, every = [], []
    out = planes.output
    if out is not None:
        dims = graph.nodes[graph.output].dims
        out = _shaped(out, dims, walk.sizes)
    for state, index in zip(graph.states, graph.new_states, strict=True):
        plane = planes.states[state.name]
        full = training or walk.every or index == graph.output
        ends = geometry.ends(depth) if full else geometry.ring_ends(depth)
        finals.append(_shaped(plane[ends], state.dims, walk.sizes).clone())
        if index == graph.output and out is None:
            out = _shaped(plane[start:stop], state.dims, walk.sizes)
        elif walk.every:
            every.append(_shaped(plane[start:stop], state.dims, walk.sizes))
    assert out is not None
    return (out, *finals, *every)


def _shaped(rows: Tensor, dims: Sequence[str], sizes: Mapping[str, int]) -> Tensor:
    """Rows without the columns that fill them up."""
    if not dims:
        return rows[:, 0].contiguous()
    units = number(dims[0], sizes)
    return rows if rows.shape[1] == units else rows[:, :units].contiguous()


class _Function(torch.autograd.Function):
    """The walk and its gradient; a second derivative comes from the reference."""

    @staticmethod
    def forward(ctx, walk: Walk, names: tuple, *tensors: Tensor):
        planes = forward(walk, _grouped(walk, names, tensors), training=True)
        ctx.walk, ctx.names, ctx.states = walk, names, tuple(planes.states)
        ctx.has_output = planes.output is not None
        kept = (*planes.states.values(), planes.kept)
        ctx.save_for_backward(*tensors, *kept)
        ctx.set_materialize_grads(False)
        return _results(walk, planes, training=True)

    @staticmethod
    def backward(ctx, *grads: Tensor | None):
        walk, names = ctx.walk, ctx.names
        count = len(walk.shapes) + sum(map(len, names))
        saved = ctx.saved_tensors
        tensors, kept = saved[:count], saved[count:]
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return (None, None, *_again(walk, names, tensors, needed, grads))
        given = _grouped(walk, names, tensors)
        planes = Planes(dict(zip(ctx.states, kept, strict=False)), None, kept[-1])
        found = _pulled(walk, given, planes, grads, needed, names)
        groups = (found.steps, found.sequences, found.beginnings)
        flat = list(found.parameters)
        flat += [group.get(n) for ns, group in zip(names, groups, strict=True) for n in ns]
        return (
            None,
            None,
            *(
                None if g is None or not n else g.reshape(t.shape)
                for g, t, n in zip(flat, tensors, needed, strict=True)
            ),
        )


def _grouped(walk: Walk, names: tuple, tensors: Sequence[Tensor]) -> Given:
    start = len(walk.shapes)
    parameters = Parameters(tuple(tensors[:start]), walk.places)
    groups = []
    for group in names:
        groups.append(dict(zip(group, tensors[start:], strict=False)))
        start += len(group)
    return Given(parameters, *groups)


def _pulled(walk, given, planes, grads, needed, names) -> Cotangents:
    out, finals, every = _named(walk, grads)
    if walk.every:
        # The output's cotangent holds what came for the state that it is.
        graph = walk.kernels.inner
        every = {
            name: None if index == graph.output else every[name]
            for name, index in zip(every, graph.new_states, strict=True)
        }
    start = len(walk.shapes)
    wanted = [n for n, need in zip(names[0], needed[start:], strict=False) if need]
    return backward(walk, given, planes, out, finals, every, wanted)


def _again(walk: Walk, names, tensors, needed, grads) -> list[Tensor | None]:
    """The gradient by the reference, which can itself be differentiated."""
    outs = _by_reference(walk, _grouped(walk, names, tensors))
    pairs = [(o, g) for o, g in zip(outs, grads, strict=True) if g is not None]
    asked = [t for t, n in zip(tensors, needed, strict=True) if n]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs], asked, [g for _, g in pairs], create_graph=True,
            allow_unused=True,
        )
    )  # fmt: skip
    return [next(found) if n else None for n in needed]


def _by_reference(walk: Walk, given: Given) -> tuple[Tensor, ...]:
    graph, geometry, depth = walk.kernels.inner, walk.geometry, walk.kernels.depth
    batch, steps = geometry.batch, geometry.steps
    place = None
    if not geometry.even:
        place = torch.cat(
            [t * batch + torch.arange(int(n)) for t, n in enumerate(geometry.alive)]
        )

    def padded(rows: Tensor) -> Tensor:
        if place is not None:
            flat = rows.new_zeros(steps * batch, *rows.shape[1:])
            rows = flat.index_copy(0, place, rows)
        value = rows.reshape(steps, batch, *rows.shape[1:])
        return value.flip(0) if geometry.back else value

    def packed(value: Tensor) -> Tensor:
        flat = (value.flip(0) if geometry.back else value).flatten(0, 1)
        return flat if place is None else flat.index_select(0, place)

    extras = {name: padded(v) for name, v in given.steps.items()} | dict(given.sequences)
    states, lines = [], {line.name: line.depth for line in graph.lines}
    carried_lines = []
    for s in graph.states:
        blocks = given.beginnings[s.name]
        blocks = blocks.reshape(depth, batch, *blocks.shape[1:])
        states.append(blocks[-1])
        if s.name in lines:
            old = blocks[depth - 1 - lines[s.name] : depth - 1]
            carried_lines.append(old.flip(0).transpose(0, 1))
    x = extras.pop(graph.inputs[0].name)
    named = by_name(given.parameters, graph.parameter_shapes(walk.sizes))
    out, last, every = reference.run(
        graph, named, x, (*states, *carried_lines), lengths=geometry.lengths,
        extras=extras, return_states=walk.every,
    )  # fmt: skip
    result = [packed(out), *last[: len(graph.states)]]
    if walk.every:
        result += [
            packed(v) for v, i in zip(every or (), graph.new_states, strict=True)
            if i != graph.output
        ]
    return tuple(result)
