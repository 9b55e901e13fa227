"""The ways through a stack: torch's kernel for the whole of it, one layer on ours, or a walk.

A stack is any layer that is called over time. What it does once, where it is built or asked, stands
in `base`; here stands what a call does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.backends import cpu, reference, torch_kernel
from elman.backends.call import Call, Result
from elman.backends.choose import Choice
from elman.equation import Graph
from elman.equation.sizes import shape_of
from elman.layers import checks
from elman.layers.forms import UNBATCHED, Given, real_steps
from elman.layers.states import as_tuple, read_state, write_state
from elman.layers.walk import Plan, walk

if TYPE_CHECKING:
    from elman.layers.base import RecurrentLayer

State = Tensor | Sequence[Tensor] | None


def run_whole(stack: RecurrentLayer, x: Tensor, state: State):
    """The whole stack in one call of torch's kernel: torch.nn's own way, at its speed."""
    checks.check_input(
        stack.owner, x, stack.input_size, stack._weight().dtype, batch_first=stack.batch_first
    )
    batched, batch_first = x.dim() == 3, stack.batch_first and x.dim() == 3
    if not batched:
        x = x.unsqueeze(1)
    weights = [
        weight
        for layer in range(stack.num_layers)
        for direction in range(stack.directions)
        for weight in stack.stacked_parameters(layer, direction)
    ]
    out, *last = torch_kernel.run_stack(
        stack._torch_kernel(),
        x,
        _whole_state(stack, x, state, batched, batch_first),
        weights,
        layers=stack.num_layers,
        bidirectional=stack.bidirectional,
        batch_first=batch_first,
        twice=stack.backend == "auto",
    )
    if stack.dense is not None:
        out = stack._dense(out)
    if not batched:
        out, last = out.squeeze(1), [s.squeeze(1) for s in last]
    return out, one_or_all(last)


def _whole_state(
    stack: RecurrentLayer, x: Tensor, state: State, batched: bool, batch_first: bool
) -> tuple[Tensor, ...]:
    """What torch's kernel starts with: (layers·directions, batch, size) of every state."""
    batch = x.shape[0] if batch_first else x.shape[1]
    graph, sizes = stack.cell.graph, stack._sizes[0]
    if state is None and stack.initial_state == "zeros":
        places = stack.num_layers * stack.directions
        shapes = [shape_of(s.dims, sizes) for s in graph.states]
        return tuple(x.new_zeros(places, batch, *shape) for shape in shapes)
    if state is None:
        return write_state(graph, stack.initial_carried(batch, x), stack.directions)
    seen = x.transpose(0, 1) if batch_first else x
    read_state(stack.owner, graph, stack._sizes, stack.directions, state, seen, batched=batched)
    states = as_tuple(stack.owner, state)
    return states if batched else tuple(s.unsqueeze(1) for s in states)


def run_single(stack: RecurrentLayer, x: Tensor, state: State):
    """One layer, one direction and whole rows on our kernel, with as little around as can be."""
    checks.check_input(
        stack.owner, x, stack.input_size, stack._weight().dtype, batch_first=stack.batch_first
    )
    if stack.batch_first:
        x = x.transpose(0, 1)
    graph, sizes = stack.cell.graph, stack._sizes[0]
    states = None
    if state is not None:
        (states,) = read_state(stack.owner, graph, stack._sizes, 1, state, x, batched=True)
    elif stack.initial_state != "zeros":
        (states,) = stack.initial_carried(x.shape[1], x)
    kernels = cpu.kernels_of(stack._graphs[stack.training])
    out, last = cpu.run_plain(kernels, sizes, stack._cpu_parameters(0, 0), x, states)
    last = write_state(graph, [last], 1)
    return out.transpose(0, 1) if stack.batch_first else out, one_or_all(last)


def run_walk(
    stack: RecurrentLayer, got: Given, state: State, choice: Choice, return_states: bool | str
):
    """Layer after layer, direction after direction, on the chosen backend."""
    graph = stack.cell.graph
    batch, batched = got.x.shape[1], got.form.kind != UNBATCHED
    fresh = None if got.resets is None else stack.initial_carried(batch, got.x)
    if state is None:
        carried = fresh or stack.initial_carried(batch, got.x)
    else:
        carried = read_state(
            stack.owner, graph, stack._sizes, stack.directions, state, got.x, batched=batched
        )
    out, last, history = walk(
        plan_of(stack),
        got,
        carried,
        fresh,
        partial(run_layer, stack, choice),
        return_states=bool(return_states),
        natural=choice.backend == "cpu"
        and got.resets is None
        and not graph.lines
        and stack.learning.window is None,
    )
    if stack.dense is not None:
        out = stack._dense(out)
        if got.lengths is not None:
            out = out * real_steps(out.shape[0], got.lengths).unsqueeze(-1)
    restore = got.form.restore
    states = write_state(graph, last, stack.directions)
    results = [restore(out), one_or_all([got.form.restore_state(s) for s in states])]
    if return_states:
        every = [one_or_all([restore(s) for s in states]) for states in history]
        results.append(tuple(every) if return_states == "layers" else every[-1])
    return tuple(results)


def one_or_all(parts: Sequence[Any]) -> Any:
    """torch.nn's form: the one there is, or a tuple."""
    return parts[0] if len(parts) == 1 else tuple(parts)


def plan_of(stack: RecurrentLayer) -> Plan:
    """What a walk needs to know of a stack in its present mode."""
    training = stack.training
    return Plan(
        graph=stack._graphs[training],
        own_inputs=len(stack.cell.graph.inputs),
        sizes=stack._sizes,
        directions=stack.directions,
        dropout=stack.dropout if training else 0.0,
        recurrent_dropout=stack.recurrent_dropout,
        zoneout=stack.zoneout,
        residual=stack.residual,
        training=training,
    )


def run_layer(
    stack: RecurrentLayer, choice: Choice, layer: int, calls: Sequence[Call]
) -> list[Result]:
    """A layer's directions, a call each: on our kernel side by side, else one after the other."""
    whole = stack.learning.window is None and not torch.compiler.is_compiling()
    if choice.backend == "cpu" and len(calls) > 1 and whole:
        parameters = [stack._cpu_parameters(layer, d) for d in range(stack.directions)]
        kernels = cpu.kernels_of(stack._graphs[stack.training])
        return cpu.run_beside(kernels, stack._sizes[layer], parameters, calls)
    first = layer * stack.directions
    return [run_place(stack, choice, first + d, call) for d, call in enumerate(calls)]


def run_place(stack: RecurrentLayer, choice: Choice, place: int, call: Call) -> Result:
    """One layer and direction, `place` = layer·directions + direction, on the chosen backend."""
    layer, direction = divmod(place, stack.directions)
    if choice.backend == "torch":
        weights = stack.stacked_parameters(layer, direction)
        kernel, twice = stack._torch_kernel(), stack.backend == "auto"
        return stack.learning.walk(partial(torch_kernel.run, kernel, weights, twice), call)
    if choice.backend == "cpu" and torch.compiler.is_compiling():
        from elman.layers.captured import run as run_captured

        return run_captured(stack, layer, direction, call)
    if choice.backend == "cpu":
        kernels = cpu.kernels_of(stack._graphs[stack.training])
        parameters = stack._cpu_parameters(layer, direction)
        run = partial(cpu.run, kernels, stack._sizes[layer], parameters)
        return stack.learning.walk(run, call)
    parameters = stack.equation_parameters(layer, direction)
    run = partial(_run_reference, stack._graphs[stack.training], parameters)
    return stack.learning.walk(run, call)


def _run_reference(graph: Graph, parameters: dict[str, Tensor], call: Call) -> Result:
    return Result(
        *reference.run(
            graph,
            parameters,
            call.x,
            call.carried,
            fresh=call.fresh,
            lengths=call.lengths,
            resets=call.resets,
            extras={**call.step_extras, **call.sequence_extras},
            return_states=call.return_states,
        )
    )
