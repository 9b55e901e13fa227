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
from elman.backends.cpu.autograd import Job, found, named
from elman.backends.cpu.geometry import Geometry, packed_rows, ragged, whole
from elman.backends.cpu.kernel import Kernels
from elman.backends.cpu.memory import address
from elman.backends.cpu.sources import Parameters, by_name, own
from elman.backends.cpu.walk import Given, Walk
from elman.backends.reference import ages_of, delayed_input
from elman.equation.evaluate import value_of
from elman.equation.graph import Graph
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
    return run_beside(kernels, sizes, [parameters], [call])[0]


def run_beside(
    kernels: Kernels,
    sizes: Mapping[str, int],
    parameters: Sequence[Parameters],
    calls: Sequence[Call],
) -> list[Result]:
    """Run calls of one cell side by side, each on its share of the threads, as for the directions
    of a layer.

    Args:
        kernels: those of the cell.
        sizes: the number of every size.
        parameters: for each call those of the cell.
        calls: what is asked for, of as many steps and rows each.

    Returns:
        list[Result]: for each call what `run` gives, to the bit.

    Raises:
        InputError, SizeError: as `run`.
    """
    if torch.is_autocast_enabled("cpu"):
        # Inputs may come in half precision; what torch computes here would be in it too.
        with torch.autocast("cpu", enabled=False):
            pairs = zip(calls, parameters, strict=True)
            fitted = [_of_one_type(call, own.tensors) for call, own in pairs]
            return run_beside(kernels, sizes, parameters, fitted)
    pairs = list(zip(parameters, calls, strict=True))
    made = []
    if calls[0].x.shape[1]:
        affordable(kernels, sizes, calls[0].x)
        made = [_Begun(kernels, sizes, own, call, len(pairs)) for own, call in pairs]
    if not made or not all(checked(kernels, b.given, b.walk.dtype) for b in made):
        return [_by_torch(kernels.graph, sizes, own, call) for own, call in pairs]
    results = found([Job(begun.walk, begun.given) for begun in made])
    return [begun.result(one) for begun, one in zip(made, results, strict=True)]


class _Begun:
    """A call that is ready to be walked, and what it gives then."""

    def __init__(
        self,
        kernels: Kernels,
        sizes: Mapping[str, int],
        parameters: Parameters,
        call: Call,
        beside: int,
    ):
        steps, batch = call.x.shape[:2]
        if call.lengths is None and call.resets is None:
            geometry = whole(steps, batch, call.backwards)
        else:
            geometry = ragged(steps, call.lengths, call.resets, batch, call.backwards)
        graph, begun = kernels.graph, _beginning(call, geometry)
        names = (line.name for line in graph.lines)
        self.call = call
        self.lines = dict(zip(names, begun[len(graph.states) :], strict=True))
        self.given = _given(kernels, sizes, parameters, call, geometry, begun, self.lines)
        every = call.return_states or any(line.kind == "state" for line in graph.lines)
        tensors, places = self.given.parameters
        shapes = tuple(tuple(t.shape) for t in tensors)
        self.walk = Walk(
            kernels, sizes, geometry, every, places, shapes, call.x.dtype, beside
        )  # fmt: skip

    def result(self, tensors: Sequence[Tensor]) -> Result:
        """The call's result, from what its walk gave."""
        call = self.call
        out, finals, every = named(self.walk, tensors)
        carried = _carried(self.walk, call, self.given, finals, every, self.lines)
        states = None
        if call.return_states:
            # The state that is the output has memory of its own, as each result has.
            states = tuple(
                _timed(value.clone() if value is out else value, call)
                for value in (every[s.name] for s in self.walk.kernels.graph.states)
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
    given = Given(parameters, {graph.inputs[0].name: x}, {}, begun)
    if not checked(kernels, given, x.dtype):
        return with_all()
    geometry = whole(x.shape[0], x.shape[1])
    shapes = tuple([tuple(t.shape) for t in parameters.tensors])
    walk = Walk(kernels, sizes, geometry, False, parameters.places, shapes, x.dtype)
    out, *last = found([Job(walk, given)])[0]
    return out if out.dim() == 3 else out.view(x.shape[0], x.shape[1], -1), tuple(last)


def _timed(rows: Tensor, call: Call) -> Tensor:
    """(time·batch, …) as (time, batch, …), where they are not so already."""
    return rows if rows.dim() == 3 else rows.view(*call.x.shape[:2], *rows.shape[1:])


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
    needed = rows * max(kernels.state_width(sizes), 1) * x.element_size()
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
    """What the kernel reads, inputs of steps as (time, batch, …); what torch computes once a call
    is computed here."""
    graph, both = kernels.graph, kernels.schedule.split
    inputs = {graph.inputs[0].name: call.x, **call.step_extras}
    steps = dict(inputs)
    sequences = {n: _by_row(value, geometry) for n, value in call.sequence_extras.items()}
    parameters = inner_parameters(kernels, sizes, parameters)
    for name, index in both.steps.items():
        node = graph.nodes[index]
        if node.op == "delayed":
            source = node.attribute("name")
            before = call.carried[list(lines).index(source) + len(graph.states)]
            ages = None if call.resets is None else ages_of(call.resets)
            steps[name] = delayed_input(inputs[source], before, node.attribute("steps"), ages)
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
            rows = every[line.name]
            rows = packed_rows(rows.flatten(0, 1) if rows.dim() == 3 else rows, geometry)
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
