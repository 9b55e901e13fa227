"""The reference: a graph evaluated on torch tensors, in a plain loop over time.

It is the oracle of every other backend. All that torch can do works on it: autograd, double
backward, forward mode, vmap. Values that need no old state are computed for all steps at once;
nothing else is done for speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from elman.equation.evaluate import aligned
from elman.equation.graph import PARAMETER, SEQUENCE, STATE, STEP, Graph
from elman.equation.operations import OPERATIONS
from elman.equation.sizes import shape_of

Carried = tuple[Tensor, ...]


def initial_carried(
    graph: Graph,
    sizes: Mapping[str, int],
    batch: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Carried:
    """What a sequence starts with where nothing is given.

    Returns:
        The states, each (batch, …), at their initial constants; then the delay lines, each
        (batch, depth, …), in the order of `graph.lines`: zeros for an input's, the initial
        constant for a state's.
    """
    states = tuple(
        torch.full((batch, *shape_of(s.dims, sizes)), s.initial, dtype=dtype, device=device)
        for s in graph.states
    )
    return with_initial_states(graph, states, sizes)


def with_initial_states(
    graph: Graph, states: Sequence[Tensor], sizes: Mapping[str, int]
) -> Carried:
    """States, and the delay lines of a beginning: zeros before x, the state before a state."""
    first = states[0]
    by_name = {s.name: value for s, value in zip(graph.states, states, strict=True)}
    lines = []
    for line in graph.lines:
        if line.kind == "input":
            shape = shape_of(line.dims, sizes)
            lines.append(first.new_zeros(first.shape[0], line.depth, *shape))
        else:
            value = by_name[line.name]
            lines.append(value.unsqueeze(1).expand(-1, line.depth, *value.shape[1:]))
    return (*states, *lines)


def run(
    graph: Graph,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    carried: Carried,
    *,
    fresh: Carried | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    extras: Mapping[str, Tensor] | None = None,
    return_states: bool = False,
) -> tuple[Tensor, Carried, tuple[Tensor, ...] | None]:
    """Run a cell over time.

    Args:
        graph: the step.
        parameters: a tensor for each parameter of the graph, by name.
        x: the inputs, (time, batch, input), time ≥ 1.
        carried: states, each (batch, size), or (batch, size, size) where a state is a matrix, and
            delay lines, each (batch, depth, …).
        fresh: what `carried` becomes at a reset; the cell's initial constants if not given.
        lengths: the number of real steps of each row, (batch,), 1 to time, in any order.
        resets: true where a new segment of a row begins, (time, batch).
        extras: the further inputs of the graph, (time, batch, …) for those of a step and
            (batch, …) for those of a sequence.
        return_states: also return every state at every step.

    Returns:
        The outputs (time, batch, size), zero past a row's end; what is carried on after each
        row's last real step; all states, each (time, batch, size), or None.
    """
    if resets is not None and fresh is None:
        fresh = _constants(graph, carried)
    if lengths is None:
        whole = _Run(graph, parameters, extras, x.dtype)
        return whole.over(x, carried, fresh, resets, return_states)
    order = torch.argsort(lengths, descending=True, stable=True)
    back = torch.argsort(order)
    sorted_extras = {
        i.name: (extras or {})[i.name].index_select(int(i.varies == "step"), order)
        for i in graph.inputs[1:]
    }
    x, ends = x.index_select(1, order), lengths[order]
    # What stands in the padding may be anything, NaN too, and the gradients of what is computed
    # for all steps at once must not see it. A row's first step is real, so it does no harm there.
    past_end = torch.arange(x.shape[0], device=x.device).unsqueeze(-1) >= ends
    x = torch.where(_onto(past_end, x), x[:1], x)
    for i in graph.inputs[1:]:
        if i.varies == "step":
            extra = sorted_extras[i.name]
            sorted_extras[i.name] = torch.where(_onto(past_end, extra), extra[:1], extra)
    out, last, states = _Run(graph, parameters, sorted_extras, x.dtype).over(
        x,
        tuple(c.index_select(0, order) for c in carried),
        None if fresh is None else tuple(f.index_select(0, order) for f in fresh),
        None if resets is None else resets.index_select(1, order),
        return_states,
        ends.tolist(),
    )
    if states is not None:
        states = tuple(s.index_select(1, back) for s in states)
    return out.index_select(1, back), tuple(c.index_select(0, back) for c in last), states


def _constants(graph: Graph, carried: Carried) -> Carried:
    """What a sequence starts with, in the shapes of `carried`."""
    constants = {s.name: s.initial for s in graph.states}
    names = [s.name for s in graph.states] + [line.name for line in graph.lines]
    return tuple(
        torch.full_like(value, constants.get(name, 0.0))
        for name, value in zip(names, carried, strict=True)
    )


class Step:
    """One step at a time: `step(x, carried)` gives the output and what is carried on.

    Args:
        graph: the step.
        parameters: a tensor for each parameter, by name. What depends on them alone is computed
            here, once.
    """

    def __init__(self, graph: Graph, parameters: Mapping[str, Tensor]):
        dtype = next((p.dtype for p in parameters.values()), torch.get_default_dtype())
        self._run = _Run(graph, parameters, None, dtype)
        self._graph = graph

    def __call__(
        self, x: Tensor, carried: Carried, extras: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Carried]:
        """One step: x is (batch, input); extras, by name, are (batch, size)."""
        steps = {i.name: i.varies == "step" for i in self._graph.inputs}
        self._run.extras = {
            name: value.unsqueeze(0) if steps[name] else value
            for name, value in (extras or {}).items()
        }
        out, carried, _ = self._run.over(x.unsqueeze(0), carried, None, None, False)
        return out[0], carried


class _Run:
    """One graph with its parameters; computes the nodes of each level when they can be."""

    def __init__(self, graph: Graph, parameters: Mapping[str, Tensor], extras, dtype):
        self.graph, self.extras = graph, extras or {}
        self.values: list[Any] = [None] * len(graph.nodes)
        self.programs: list[list] = [[] for _ in range(STATE + 1)]
        self.leaves: list[list] = [[] for _ in range(STATE + 1)]
        self.at_once = all(graph.levels[i] <= STEP for i in (graph.output, *graph.new_states))
        for index, (node, level) in enumerate(zip(graph.nodes, graph.levels, strict=True)):
            if node.op in OPERATIONS:
                evaluate, numbers = OPERATIONS[node.op].evaluate, dict(node.attributes)
                if node.op == "where":
                    # Two plain numbers would otherwise come out in torch's default type.
                    evaluate = _where_of(dtype)
                evaluate = aligned(graph.nodes, graph.levels, node, evaluate)
                self.programs[level].append((index, evaluate, node.args, numbers))
            elif node.op == "constant":
                self.values[index] = node.attribute("value")
            elif node.op == "parameter":
                self.values[index] = parameters[node.attribute("name")]
            else:
                self.leaves[level].append((index, node))
        for index, evaluate, args, numbers in self.programs[PARAMETER]:
            self.values[index] = evaluate(*[self.values[a] for a in args], **numbers)

    def compute(self, level: int) -> None:
        values = self.values
        for index, evaluate, operands, numbers in self.programs[level]:
            values[index] = evaluate(*[values[a] for a in operands], **numbers)

    def over(self, x, carried, fresh, resets, return_states, lengths=None):
        graph, time = self.graph, x.shape[0]
        count = len(graph.states)
        by_input = {graph.inputs[0].name: x, **self.extras}
        lines = dict(zip(graph.lines, carried[count:], strict=True))
        for index, node in self.leaves[SEQUENCE]:
            self.values[index] = by_input[node.attribute("name")]
        self.compute(SEQUENCE)
        ages = None if resets is None else ages_of(resets)
        for index, node in self.leaves[STEP]:
            value = by_input[node.attribute("name")]
            if node.op == "delayed":
                line = next(v for k, v in lines.items() if k.name == node.attribute("name"))
                value = delayed_input(value, line, node.attribute("steps"), ages)
            self.values[index] = value
        self.compute(STEP)
        if self.at_once:
            out, states, last, old = self.without_loop(x, lengths, return_states)
        else:
            out, states, last, old = self.walk(x, carried, fresh, resets, return_states, lengths)
        return out, (*last, *self.final_lines(x, lines, old, ages, lengths, time)), states

    def without_loop(self, x, lengths, return_states):
        """All steps at once, for an equation whose new states need no old one."""
        time, rows = x.shape[:2]
        ends = torch.tensor(lengths or [time] * rows, dtype=torch.long, device=x.device)
        real = torch.arange(time, device=x.device).unsqueeze(-1) < ends
        out, *states = [self.values[i] for i in (self.graph.output, *self.graph.new_states)]
        if lengths is not None:
            out, *states = [
                torch.where(_onto(real, v), v, torch.zeros_like(v)) for v in (out, *states)
            ]
        last = tuple(s[ends - 1, torch.arange(rows, device=x.device)] for s in states)
        return out, tuple(states) if return_states else None, last, {}

    def walk(self, x, carried, fresh, resets, return_states, lengths):
        """The loop over time: outputs, all states, the last states, the last state lines."""
        graph, time, rows = self.graph, x.shape[0], x.shape[1]
        states = list(carried[: len(graph.states)])
        old = _Past(graph, carried)
        outputs, history, ends = [], [[] for _ in states], _Ends()
        sliced = self.sliced()
        alive = rows
        for t in range(time):
            if lengths is not None:
                left = _alive(lengths, t, alive)
                if left < alive:
                    ends.add(left, states, old)
                    states, alive = [s[:left] for s in states], left
            if resets is not None:
                states = old.reset(states, fresh, resets[t, :alive])
            states, out = self.step(t, alive if alive < rows else None, states, old, sliced)
            outputs.append(_padded(out, rows))
            for kept, state in zip(history, states, strict=True) if return_states else ():
                kept.append(_padded(state, rows))
        last, lines = ends.close(states, old)
        everything = tuple(torch.stack(h) for h in history) if return_states else None
        return torch.stack(outputs), everything, last, lines

    def sliced(self):
        """The values of earlier levels which the steps read, with how to take one step of them."""
        wanted = {a for _, _, operands, _ in self.programs[STATE] for a in operands}
        wanted |= {self.graph.output, *self.graph.new_states}
        levels = self.graph.levels
        return [(i, levels[i] == STEP) for i in sorted(wanted) if levels[i] in (SEQUENCE, STEP)]

    def step(self, t, alive, states, old, sliced):
        values = list(self.values)
        for index, by_step in sliced:
            value = values[index][t] if by_step else values[index]
            values[index] = value if alive is None else value[:alive]
        names = {s.name: value for s, value in zip(self.graph.states, states, strict=True)}
        for index, node in self.leaves[STATE]:
            name = node.attribute("name")
            values[index] = (
                names[name] if node.op == "state" else old.get(name, node.attribute("steps"))
            )
        for index, evaluate, operands, numbers in self.programs[STATE]:
            values[index] = evaluate(*[values[a] for a in operands], **numbers)
        old.push(names)
        return [values[i] for i in self.graph.new_states], values[self.graph.output]

    def final_lines(self, x, lines, old, ages, lengths, time):
        """The delay lines after the last real step; those of the states are in `old`."""
        result = []
        for line, value in lines.items():
            if line.kind == "state":
                result.append(old[line.name])
                continue
            source = {self.graph.inputs[0].name: x, **self.extras}[line.name]
            delayed = torch.stack(
                [source, *(delayed_input(source, value, k, ages) for k in range(1, line.depth))]
            )
            ends = (
                torch.tensor(lengths or [time] * x.shape[1], dtype=torch.long, device=x.device) - 1
            )
            rows = torch.arange(x.shape[1], device=x.device)
            result.append(delayed[:, ends, rows].transpose(0, 1))
        return result


def _where_of(dtype: torch.dtype):
    def where(condition, one, other):
        if not isinstance(one, Tensor) and not isinstance(other, Tensor):
            one = torch.tensor(one, dtype=dtype, device=condition.device)
        return torch.where(condition, one, other)

    return where


class _Past:
    """The states before the old states, newest first, for cells that delay a state."""

    def __init__(self, graph: Graph, carried: Carried):
        count = len(graph.states)
        self.places = {s.name: i for i, s in enumerate(graph.states)}
        self.lines: dict[str, list[Tensor]] = {}
        self.fresh_lines: dict[str, int] = {}
        for place, (line, value) in enumerate(zip(graph.lines, carried[count:], strict=True)):
            if line.kind == "state":
                self.lines[line.name] = list(value.unbind(1))
                self.fresh_lines[line.name] = count + place

    def get(self, name: str, steps: int) -> Tensor:
        return self.lines[name][steps - 2]

    def push(self, states: Mapping[str, Tensor]) -> None:
        for name, line in self.lines.items():
            self.lines[name] = [states[name], *line[:-1]]

    def keep(self, rows: int) -> None:
        for name, line in self.lines.items():
            self.lines[name] = [v[:rows] for v in line]

    def reset(self, states: list[Tensor], fresh: Carried, now: Tensor) -> list[Tensor]:
        """Put what is fresh into the rows that begin a segment now."""
        rows = now.shape[0]
        for name, line in self.lines.items():
            new = fresh[self.fresh_lines[name]][:rows].unbind(1)
            self.lines[name] = [
                torch.where(_onto(now, v), f, v) for f, v in zip(new, line, strict=True)
            ]
        return [
            torch.where(_onto(now, s), f[:rows], s) for f, s in zip(fresh, states, strict=False)
        ]


class _Ends:
    """The last states of rows that end before others; the rows come sorted by length."""

    def __init__(self) -> None:
        self.states: list[list[Tensor]] = []
        self.lines: list[dict[str, Tensor]] = []

    def add(self, left: int, states: list[Tensor], old: _Past) -> None:
        self.states.append([s[left:] for s in states])
        self.lines.append(
            {n: torch.stack([v[left:] for v in ln], 1) for n, ln in old.lines.items()}
        )
        old.keep(left)

    def close(self, states: list[Tensor], old: _Past):
        self.add(0, states, old)
        parts = self.states[::-1]
        last = tuple(torch.cat(p) if len(parts) > 1 else p[0] for p in zip(*parts, strict=True))
        lines = {n: torch.cat([part[n] for part in self.lines[::-1]]) for n in self.lines[0]}
        return last, lines


def _alive(lengths: list[int], t: int, alive: int) -> int:
    while alive and lengths[alive - 1] <= t:
        alive -= 1
    return alive


def _padded(value: Tensor, rows: int) -> Tensor:
    missing = rows - value.shape[0]
    return F.pad(value, (0, 0) * (value.dim() - 1) + (0, missing)) if missing else value


def ages_of(resets: Tensor) -> Tensor:
    """For each step and row the number of steps since its segment began; large before any did."""
    time = torch.arange(resets.shape[0], device=resets.device).unsqueeze(-1)
    began = torch.where(resets, time, torch.full_like(time, -1_000_000_000)).cummax(0).values
    return time - began


def delayed_input(value: Tensor, line: Tensor, steps: int, ages: Tensor | None) -> Tensor:
    """`value` of `steps` steps ago at every step, zero where that lies before a reset."""
    time = value.shape[0]
    before = line[:, :steps].flip(1).transpose(0, 1)
    shifted = torch.cat([before, value])[:time]
    if ages is None:
        return shifted
    return torch.where(_onto(ages >= steps, shifted), shifted, torch.zeros_like(shifted))


def _onto(mask: Tensor, value: Tensor) -> Tensor:
    """A mask of rows, or of steps and rows, with the axes of `value` behind."""
    return mask.reshape(*mask.shape, *(1,) * (value.dim() - mask.dim()))
