"""The values of a window: all nodes of a step, at all of its steps at once.

The states are known from the run itself, so that nothing is walked here but delay lines. The values
have the axes (time, batch, …). Everything here is without autograd, but for the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from elman.backends import reference
from elman.backends.call import Carried as Kept
from elman.equation.evaluate import value_of
from elman.equation.graph import PARAMETER, Graph, Line, Node
from elman.learning.programs import Programs, programs


@dataclass(frozen=True)
class Values:
    """The values of a step's nodes at all steps of a window, for one layer.

    Attributes:
        programs: of the step's adjoint.
        nodes: for each node of the adjoint that does not depend on a cotangent its value:
            (time, batch, …) for what changes from step to step, (1, batch, …) for what belongs to
            a sequence, no lead axes for what depends on parameters alone, numbers for constants.
        carried: what the window began with, states and then delay lines, (batch, …) each.
        real: true at each row's real steps, (time, batch); None where all are.
        resets: true where a segment of a row begins, (time, batch), or None.
    """

    programs: Programs
    nodes: list[Any]
    carried: Kept
    time: int
    real: Tensor | None = None
    resets: Tensor | None = None

    @property
    def graph(self) -> Graph:
        return self.programs.backward.graph

    def part(self, start: int, stop: int) -> Values:
        """The values of some of the steps; `carried` stays that of the whole window."""
        if start == 0 and stop == self.time:
            return self
        levels = self.programs.backward.levels
        nodes = [
            v[start:stop] if isinstance(v, Tensor) and level != PARAMETER and len(v) > 1 else v
            for v, level in zip(self.nodes, levels, strict=True)
        ]
        real, resets = (None if m is None else m[start:stop] for m in (self.real, self.resets))
        return replace(self, nodes=nodes, time=stop - start, real=real, resets=resets)

    def over_time(self, index: int) -> Tensor:
        """The value of a node at every step, (time, batch, …)."""
        return self.nodes[index].expand(self.time, *[-1] * (self.nodes[index].dim() - 1))


def window_values(
    graph: Graph,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    carried: Kept,
    *,
    states: tuple[Tensor, ...] | None = None,
    fresh: Kept | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    extras: Mapping[str, Tensor] | None = None,
) -> Values:
    """The values of all steps of a window.

    Args:
        graph: one step of a layer.
        parameters: a tensor for each parameter of the graph, by name.
        x: (time, batch, input).
        carried: what the window begins with, states and then delay lines, (batch, …) each.
        states: every state after each step, each (time, batch, …), if they are known; else they
            are computed here, step by step.
        fresh: what `carried` becomes at a reset; needed with `resets`.
        lengths: real steps of each row, (batch,), 0 for a row that had ended before the window.
        resets: true where a segment of a row begins, (time, batch).
        extras: the further inputs by name, (time, batch, …) for those of a step and (batch, …)
            for those of a sequence.
    """
    if states is None:
        states = _states(graph, parameters, x, carried, fresh, lengths, resets, extras)
    given = parameter_values(graph, parameters)
    return values_from(
        graph, given, x, carried, states=states, fresh=fresh, lengths=lengths, resets=resets,
        extras=extras,
    )  # fmt: skip


def _states(graph, parameters, x, carried, fresh, lengths, resets, extras):
    """Every state after each step, by the reference; of a single step none is needed."""
    if x.shape[0] == 1:
        return None
    with torch.no_grad():
        return reference.run(
            graph, parameters, x, carried, fresh=fresh, resets=resets, extras=extras,
            lengths=None if lengths is None else lengths.clamp(min=1), return_states=True,
        )[2]  # fmt: skip


def parameter_values(graph: Graph, parameters: Mapping[str, Tensor]) -> dict[int, Any]:
    """The values of the nodes that depend on parameters alone and meet a row's work, by node.

    They are attached to autograd's graph where it is at work: these are the weights as a step sees
    them.
    """
    values: list[Any] = [None] * len(graph.nodes)
    found: dict[int, Any] = {}
    wanted = _met(graph)
    for index, (node, level) in enumerate(zip(graph.nodes, graph.levels, strict=True)):
        if level != PARAMETER:
            continue
        if node.op == "parameter":
            values[index] = parameters[node.attribute("name")]
        else:
            values[index] = value_of(node, graph.nodes, graph.levels, values)
        if index in wanted and isinstance(values[index], Tensor):
            found[index] = values[index]
    return found


@cache
def _met(graph: Graph) -> frozenset[int]:
    """Nodes that depend on parameters alone and are an operand of a row's work, or a result."""
    rows = (n for n, level in zip(graph.nodes, graph.levels, strict=True) if level != PARAMETER)
    read = {a for node in rows for a in node.args} | {graph.output, *graph.new_states}
    return frozenset(i for i in read if graph.levels[i] == PARAMETER)


def values_from(
    graph: Graph,
    given: Mapping[int, Tensor],
    x: Tensor,
    carried: Kept,
    *,
    states: tuple[Tensor, ...] | None = None,
    fresh: Kept | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    extras: Mapping[str, Tensor] | None = None,
) -> Values:
    """As `window_values`, from the values of `parameter_values`; `states` for one step is None."""
    time, batch = x.shape[:2]
    real = None if lengths is None else torch.arange(time, device=x.device).unsqueeze(1) < lengths
    if real is not None and resets is not None:
        resets = resets & real
    inputs = {graph.inputs[0].name: x, **(extras or {})}
    by_step = {i.name: i.varies == "step" for i in graph.inputs}
    leaves = _Leaves(graph, inputs, by_step, carried, states, fresh, resets, time, batch)
    values: list[Any] = [None] * len(graph.nodes)
    for index, value in given.items():
        values[index] = value.detach()
    for index, node in enumerate(graph.nodes):
        if not node.args and node.op in ("input", "state", "delayed"):
            # Past a row's end stands its first step again, so that nothing there overflows.
            values[index] = _first_again(leaves.value(node), real)
    program = programs(graph, tuple(_numbers(graph, values).items()), x.dtype)
    nodes = values + [None] * (len(program.backward.nodes) - len(values))
    for index, evaluate, args in program.still:
        nodes[index] = evaluate(*[nodes[a] for a in args])
    return Values(program, nodes, carried, time, real, resets)


def _numbers(graph: Graph, values: list[Any]) -> dict[str, int]:
    """The number of each size that the values at hand tell."""
    known = {i: v for i, v in enumerate(values) if isinstance(v, Tensor)}
    sizes: dict[str, int] = {}
    for index, value in known.items():
        dims = graph.nodes[index].dims
        for name, units in zip(dims, value.shape[value.dim() - len(dims) :], strict=True):
            whole, _, parts = name.partition("/")
            sizes[whole] = units * int(parts or 1)
    return sizes


class _Leaves:
    """What a step reads from outside, for all steps of a window at once."""

    def __init__(self, graph, inputs, by_step, carried, states, fresh, resets, time, batch):
        self.inputs = {k: v if by_step[k] else v.unsqueeze(0) for k, v in inputs.items()}
        count = len(graph.states)
        self.old = {}
        for place, state in enumerate(graph.states):
            start = carried[place].unsqueeze(0)
            old = start if time == 1 else torch.cat([start, states[place][:-1]])
            if resets is not None:
                old = torch.where(onto(resets, old), fresh[place], old)
            self.old[state.name] = old
        self.lines = {}
        for place, line in enumerate(graph.lines):
            source = self.old if line.kind == "state" else self.inputs
            new = None if fresh is None else fresh[count + place]
            self.lines[line.name] = (
                line,
                _history(carried[count + place], source[line.name], new, resets),
            )

    def value(self, node: Node) -> Tensor:
        name = node.attribute("name")
        if node.op == "input":
            return self.inputs[name]
        if node.op == "state":
            return self.old[name]
        line, history = self.lines[name]
        return history[:, :, node.attribute("steps") - nearest(line)]


def nearest(line: Line) -> int:
    """How many steps ago the newest value of a line is."""
    return 2 if line.kind == "state" else 1


def _history(line: Tensor, source: Tensor, fresh: Tensor | None, resets: Tensor | None) -> Tensor:
    """What a delay line holds before each step, (time, batch, depth, …)."""
    held = []
    for t in range(source.shape[0]):
        if resets is not None and fresh is not None:
            line = torch.where(onto(resets[t], line), fresh, line)
        held.append(line)
        line = torch.cat([source[t].unsqueeze(1), line[:, :-1]], 1)
    return torch.stack(held)


def onto(mask: Tensor, value: Tensor) -> Tensor:
    """A mask of rows, or of steps and rows, with the axes of `value` behind."""
    return mask.reshape(*mask.shape, *(1,) * (value.dim() - mask.dim()))


def _first_again(value: Tensor, real: Tensor | None) -> Tensor:
    if real is None or value.shape[0] == 1:
        return value
    return torch.where(onto(real, value), value, value[:1])
