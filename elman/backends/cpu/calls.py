"""A call on the CPU kernels: rows put in order, what torch does once, the walk, and all back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from elman.backends import reference
from elman.backends.call import Call, Carried, Result
from elman.backends.cpu.again import by_reference
from elman.backends.cpu.geometry import Geometry, packed_rows, ragged, whole
from elman.backends.cpu.kernel import Kernels
from elman.backends.cpu.memory import empty
from elman.backends.cpu.sources import Parameters, by_name, own
from elman.backends.cpu.walk import (
    Cotangents,
    Given,
    Planes,
    Walk,
    backward,
    forward,
    given_of,
)
from elman.backends.reference import ages_of, delayed_input
from elman.backends.torch_kernel import in_transform
from elman.equation.evaluate import value_of
from elman.equation.graph import Graph
from elman.equation.sizes import number
from elman.errors import InputError, SizeError


@cache
def most_bytes() -> int:
    """Twice the machine's memory: more the system would grant, and then end the process."""
    try:
        return 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 42


def run(kernels: Kernels, sizes: Mapping[str, int], parameters: Parameters, call: Call) -> Result:
    """Run a call; as the reference does, to rounding.

    Args:
        kernels: those of the cell.
        sizes: the number of every size.
        parameters: those of the cell.
        call: what is asked for.

    Returns:
        Result: outputs, what goes on after the last step and, where asked for, all states.

    Raises:
        InputError: a tensor is not of the type of x, not on the CPU, or has no memory.
        SizeError: the parameters do not have the shapes that the sizes ask for.
    """
    if torch.is_autocast_enabled("cpu"):
        # Inputs may come in half precision; what torch computes here would be in it too.
        with torch.autocast("cpu", enabled=False):
            return run(kernels, sizes, parameters, _of_one_type(call, parameters.tensors))
    steps, batch = call.x.shape[:2]
    if not batch:
        return _by_torch(kernels.graph, sizes, parameters, call)
    affordable(kernels, sizes, call.x)
    if call.lengths is None and call.resets is None:
        geometry = whole(steps, batch, call.backwards)
    else:
        geometry = ragged(steps, call.lengths, call.resets, batch, call.backwards)
    graph, original = kernels.graph, parameters
    begun = _beginning(call, geometry)
    lines = dict(zip((line.name for line in graph.lines), begun[len(graph.states) :], strict=True))
    given = _given(kernels, sizes, parameters, call, geometry, begun, lines)
    state_lines = any(line.kind == "state" for line in graph.lines)
    tensors, places = given.parameters
    if not checked(kernels, given, call.x.dtype):
        return _by_torch(graph, sizes, original, call)
    walk = Walk(
        kernels, sizes, geometry, call.return_states or state_lines, places,
        tuple(tuple(t.shape) for t in tensors), call.x.dtype,
    )  # fmt: skip
    out, finals, every = _walked(walk, given)
    carried = _carried(walk, call, given, finals, every, lines)
    states = None
    if call.return_states:
        # The state that is the output has memory of its own, as each result has.
        states = tuple(
            _timed(value.clone() if value is out else value, call)
            for value in (every[s.name] for s in graph.states)
        )
    return Result(_timed(out, call), carried, states)


def run_plain(
    kernels: Kernels,
    sizes: Mapping[str, int],
    parameters: Parameters,
    x: Tensor,
    states: Carried | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Outputs and last states of whole rows, for a cell with neither delays nor further inputs.

    Args:
        x: (time, batch, input).
        states: what the states begin with, each (batch, size); their constants if None.

    Returns:
        The outputs, (time, batch, size), and the last states, each (batch, size).

    Raises:
        InputError, SizeError: as `run`.
    """
    graph, original = kernels.inner, parameters
    affordable(kernels, sizes, x)

    def with_all() -> tuple[Tensor, tuple[Tensor, ...]]:
        carried = states or reference.initial_carried(
            kernels.graph, sizes, x.shape[1], dtype=x.dtype, device=x.device
        )
        result = run(kernels, sizes, original, Call(x, carried))
        return result.out, result.carried

    if torch.is_autocast_enabled("cpu") or not x.shape[1]:
        return with_all()
    parameters = inner_parameters(kernels, sizes, parameters)
    names = (s.name for s in graph.states)
    begun = {} if states is None else dict(zip(names, states, strict=True))
    given = Given(parameters, {graph.inputs[0].name: x.flatten(0, 1)}, {}, begun)
    if not checked(kernels, given, x.dtype):
        return with_all()
    geometry = whole(x.shape[0], x.shape[1])
    shapes = tuple([tuple(t.shape) for t in parameters.tensors])
    walk = Walk(kernels, sizes, geometry, False, parameters.places, shapes, x.dtype)
    found = _found(walk, given)
    return found[0].view(x.shape[0], x.shape[1], -1), found[1:]


def _timed(rows: Tensor, call: Call) -> Tensor:
    """(time·batch, …) as (time, batch, …)."""
    return rows.view(*call.x.shape[:2], *rows.shape[1:])


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


def _by_torch(graph: Graph, sizes: Mapping[str, int], parameters: Parameters, call: Call) -> Result:
    """What the kernel cannot read, or where it has no row to walk: the reference does it."""
    return Result(
        *reference.run(
            graph, by_name(parameters, graph.parameter_shapes(sizes)), call.x, call.carried,
            fresh=call.fresh, lengths=call.lengths, resets=call.resets,
            extras={**call.step_extras, **call.sequence_extras},
            return_states=call.return_states,
        )
    )  # fmt: skip


def affordable(kernels: Kernels, sizes: Mapping[str, int], x: Tensor) -> None:
    """Refuse sequences that no memory holds before the system ends the process over them."""
    rows = x.shape[0] * x.shape[1]
    needed = rows * sum(number(s.dims[0], sizes) if s.dims else 1 for s in kernels.inner.states)
    needed = max(needed, rows) * x.element_size()
    if needed > most_bytes():
        raise SizeError(
            f"{kernels.graph.name}: x has shape {tuple(x.shape)}; its states alone would take "
            f"{needed / 2**30:.3g} GiB. Give the sequence in pieces, with the state carried on"
        )


def checked(kernels: Kernels, given: Given, dtype: torch.dtype) -> bool:
    """Refuse tensors whose memory is not what a kernel takes it for; false where one has none of
    its own, but stands for another, so that only torch's operations can read it."""
    for group in (given.parameters.tensors, given.steps.values(), given.sequences.values(),
                  given.beginnings.values()):  # fmt: skip
        for tensor in group:
            if tensor.dtype != dtype or not tensor.is_cpu:
                raise InputError(
                    f"{kernels.graph.name}: a tensor of type {tensor.dtype} on {tensor.device} "
                    f"came with an x of type {dtype} on the CPU; give all of one type and place"
                )
            if tensor.numel() and not address(tensor):
                if type(tensor) in (Tensor, torch.nn.Parameter) and not tensor._is_zerotensor():
                    raise InputError(
                        f"{kernels.graph.name}: a tensor of shape {tuple(tensor.shape)} has no "
                        "memory (its storage was emptied); give one that has"
                    )
                return False
    return True


def address(tensor: Tensor) -> int:
    """Where a tensor's memory begins; 0 where it has none."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


# Rows in order.


def _by_row(value: Tensor, geometry: Geometry) -> Tensor:
    """(batch, …), a row for each of ours."""
    return value if geometry.rows is None else value.index_select(0, geometry.rows)


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
    inputs = {graph.inputs[0].name: call.x, **call.step_extras}
    steps = {name: value.flatten(0, 1) for name, value in inputs.items()}
    sequences = {n: _by_row(value, geometry) for n, value in call.sequence_extras.items()}
    parameters = inner_parameters(kernels, sizes, parameters)
    for name, index in both.steps.items():
        node = graph.nodes[index]
        if node.op == "delayed":
            source = node.attribute("name")
            before = call.carried[list(lines).index(source) + len(graph.states)]
            ages = None if call.resets is None else ages_of(call.resets)
            value = delayed_input(inputs[source], before, node.attribute("steps"), ages)
            steps[name] = value.flatten(0, 1)
    beginnings = {
        s.name: blocks(begun[i], lines.get(s.name), kernels.depth)
        for i, s in enumerate(graph.states)
    }
    return Given(parameters, steps, sequences, beginnings)


def inner_parameters(
    kernels: Kernels, sizes: Mapping[str, int], parameters: Parameters
) -> Parameters:
    """The parameters of the inner step: those of the cell, or what torch makes of them."""
    both = kernels.schedule.split
    if not both.outer:
        return parameters
    named = by_name(parameters, kernels.graph.parameter_shapes(sizes))
    values = _outer(kernels, named)
    return own({name: values[i] for name, i in both.parameters.items()})


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


def blocks(state: Tensor, line: Tensor | None, depth: int) -> Tensor:
    """A state's values before the first step, oldest first, as rows."""
    if depth == 1:
        return state
    if line is None:
        return torch.cat(
            [torch.zeros_like(state).repeat(depth - 1, *(1,) * (state.dim() - 1)), state]
        )
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
    for place, line in enumerate(graph.lines, len(graph.states)):
        if line.kind == "state":
            rows = packed_rows(every[line.name], geometry)
            plane = torch.cat([given.beginnings[line.name], rows])
            values = [plane[geometry.at_end(1 + j, depth)] for j in range(line.depth)]
            result.append(own(torch.stack(values, 1)))
            continue
        source = {graph.inputs[0].name: call.x, **call.step_extras}[line.name]
        ages = None if call.resets is None else ages_of(call.resets)
        steps = [delayed_input(source, call.carried[place], k, ages) for k in range(1, line.depth)]
        delayed = torch.stack([source, *steps])
        batch = source.shape[1]
        ends = (
            source.new_full((batch,), source.shape[0], dtype=torch.long)
            if call.lengths is None
            else call.lengths
        )
        result.append(delayed[:, ends - 1, torch.arange(batch, device="cpu")].transpose(0, 1))
    return tuple(result)


# The walk under autograd.


def _walked(walk: Walk, given: Given):
    """Outputs, last states and, where asked for, all states, by name."""
    return _named(walk, _found(walk, given))


def _found(walk: Walk, given: Given) -> tuple[Tensor, ...]:
    """Outputs, last states and, where asked for, all states that are not the output."""
    tensors = [
        *given.parameters.tensors, *given.steps.values(), *given.sequences.values(),
        *given.beginnings.values(),
    ]  # fmt: skip
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        names = tuple(given.steps), tuple(given.sequences), tuple(given.beginnings)
        return _Function.apply(walk, names, *tensors)
    planes = forward(walk, _in_order(walk, given), training=False)
    return _results(walk, planes, training=False)


def _in_order(walk: Walk, given: Given) -> Given:
    """The inputs of each step as the kernel wants them."""
    if walk.geometry.take is None:
        return given
    steps = {name: packed_rows(value, walk.geometry) for name, value in given.steps.items()}
    return replace(given, steps=steps)


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
    finals, every = [], []
    out = planes.output
    if out is not None:
        dims = graph.nodes[graph.output].dims
        out = _shaped(geometry.spread(out, 0), dims, walk.sizes)
    for state, index in zip(graph.states, graph.new_states, strict=True):
        plane = planes.states[state.name]
        full = training or walk.every or index == graph.output
        ends = geometry.ends(depth) if full else geometry.ring_ends(depth)
        finals.append(_shaped(plane[ends], state.dims, walk.sizes).clone())
        if index == graph.output:
            # Two states may be the output.
            if out is None:
                rows = geometry.spread(plane, start)
                out = _shaped(rows, state.dims, walk.sizes)
                if training and out is rows and geometry.inverse is None:
                    # The backward reads this memory; outputs may be changed in place.
                    out = empty(rows.shape[0], rows.shape[1], rows.dtype).copy_(rows)
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
    """The walk and its gradient; a second derivative comes from the reference."""

    @staticmethod
    def forward(ctx, walk: Walk, names: tuple, *tensors: Tensor):
        given = _in_order(walk, given_of(walk, names, tensors))
        planes = forward(walk, given, training=True)
        ctx.walk, ctx.names, ctx.states = walk, names, tuple(planes.states)
        kept = (*planes.states.values(), planes.kept)
        packed = () if walk.geometry.take is None else given.steps.values()
        ctx.save_for_backward(*tensors, *packed, *kept)
        ctx.hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        ctx.set_materialize_grads(False)
        return _results(walk, planes, training=True)

    @staticmethod
    def backward(ctx, *grads: Tensor | None):
        walk, names = ctx.walk, ctx.names
        count = len(walk.shapes) + sum(map(len, names))
        saved = ctx.saved_tensors
        tensors, kept = saved[:count], saved[count:]
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or in_transform() or _without_memory(grads):
            return (None, None, *by_reference(walk, names, tensors, needed, grads))
        given = given_of(walk, names, tensors)
        if walk.geometry.take is not None:
            given = replace(given, steps=dict(zip(names[0], kept, strict=False)))
            kept = kept[len(names[0]) :]
        planes = Planes(dict(zip(ctx.states, kept, strict=False)), None, kept[-1])
        # Without a second backward to come, what was kept may be written over.
        # What a hook on saved tensors keeps is not ours.
        again = ctx.hooked or torch._C._autograd._get_current_graph_task_keep_graph()
        found = _pulled(walk, given, planes, grads, needed, names, again)
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


def _without_memory(grads: Sequence[Tensor | None]) -> bool:
    """Whether a cotangent stands for others (`is_grads_batched`) or for zeros: none to read."""
    return any(g is not None and g.numel() and not address(g) for g in grads)


def _pulled(walk, given, planes, grads, needed, names, again=True) -> Cotangents:
    out, finals, every = _named(walk, grads)
    out = None if out is None else packed_rows(out, walk.geometry)
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
    found = backward(walk, given, planes, out, finals, every, wanted, again)
    if walk.geometry.take is not None:
        for name, rows in found.steps.items():
            found.steps[name] = walk.geometry.spread(rows, 0)
    return found
