"""The body of a cell called on tensors, and the laws that hold it against its trace."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from elman.backends.reference import Step
from elman.diagnose.compare import TOLERANCES, Comparison, apart
from elman.diagnose.trial import Trial
from elman.equation import Cell, Graph, Parameters
from elman.equation.adjoint import step_values
from elman.errors import EquationError, InputError

BODY, TRACE = "the body", "its trace"
ROUNDING = TOLERANCES["rounding"][torch.float64]

Named = dict[str, Tensor]


class Moment:
    """All that one row reads at one step: inputs, old states, and the values before them.

    Attributes:
        now: x, further inputs and old states by name, without a batch.
        past: by name of a delay line, the values before the one at hand, newest first.
    """

    def __init__(self, trial: Trial, row: int, time: int):
        graph, (_, _, states) = trial.graph, trial.whole
        count = len(graph.states)
        before = [v[row] for v in trial.carried]
        self.now: Named = {
            i.name: value[time, row] if i.varies == "step" else value[row]
            for i, value in zip(graph.inputs, trial.inputs.values(), strict=True)
        }
        self.past: dict[str, list[Tensor]] = {}
        history: dict[str, list[Tensor]] = {}
        for state, first, values in zip(graph.states, before[:count], states, strict=True):
            history[state.name] = [first, *values[:time, row]]
            self.now[state.name] = history[state.name][-1]
        for line, held in zip(graph.lines, before[count:], strict=True):
            if line.kind == "input":
                seen = list(trial.inputs[line.name][:time, row])
            else:
                seen = history[line.name][:-1]
            self.past[line.name] = [*reversed(seen), *held][: line.depth]

    def copy(self, leaves: bool = False) -> tuple[Named, dict[str, list[Tensor]]]:
        """The same values in memory of their own; as leaves of autograd if asked."""

        def own(value: Tensor) -> Tensor:
            return value.detach().clone().requires_grad_(leaves)

        now = {name: own(value) for name, value in self.now.items()}
        return now, {name: [own(v) for v in values] for name, values in self.past.items()}


class _Given(Parameters):
    """The parameters of the equation; one that the body reads beside them is told."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        raise EquationError(_unused(f"p.{name}"))


def _unused(what: str) -> str:
    return (
        f"the body reads {what}, and nothing that it returns depends on it; use it, or leave it out"
    )


def call(cell: Cell, parameters: Mapping[str, Tensor], now: Named, past) -> tuple[Any, ...]:
    """The output and the new states that the body gives, as a tuple."""
    arguments = [now[name] for name in cell.arguments]
    try:
        new = cell(_Given(parameters), *arguments, past=past)
    except InputError as error:
        if str(error).startswith("elman.delay reaches"):
            raise EquationError(_unused("a delayed value")) from error
        raise
    new = new if isinstance(new, tuple) else tuple(new) if isinstance(new, list) else (new,)
    return (new[0], *new[len(new) - len(cell.states) :])


def names_of(cell: Cell) -> list[str]:
    """What `call` gives, in words."""
    return ["the output", *(f"the new {name}" for name in cell.states)]


# --- laws ---


def read_is_used(trial: Trial) -> Comparison:
    """What the body reads, its equation reads; the trace leaves out what has no effect."""
    result = Comparison(BODY, TRACE, 0.0)
    try:
        call(trial.cell, trial.parameters, *Moment(trial, 0, 0).copy())
    except EquationError as error:
        if "nothing that it returns depends" in str(error):
            result.fail(str(error))
    except Exception:  # any other error is told by the other laws of the body
        pass
    return result


def same_each_time(trial: Trial) -> Comparison:
    """A second trace gives the same equation, a second call the same bits, and writes nowhere."""
    cell = trial.cell
    result = Comparison("a second call", "the first", TOLERANCES["bits"][torch.float64])
    difference = graphs_differ(cell.graph, cell.traced_again().graph)
    if difference:
        result.fail(f"a second trace of the body gives another equation: {difference}")
    moments = [Moment(trial, row, trial.time - 1) for row in range(min(trial.batch, 2))]
    first, again = [], []
    for collect in (first, again):
        for moment in moments:
            now, past = moment.copy()
            weights = {name: value.clone() for name, value in trial.parameters.items()}
            collect.append(call(cell, weights, now, past))
            _say_written(result, weights, trial.parameters, "p.")
            _say_written(result, now, moment.now, "the argument ")
    for one, other in zip(again, first, strict=True):
        result.add_all(names_of(cell), one, other)
    return result


def _say_written(result: Comparison, after: Named, before: Mapping[str, Tensor], what: str):
    for name, value in after.items():
        if not torch.equal(value, before[name]) and not result.said:
            result.fail(f"the body writes into {what}{name}; give the new value a name of its own")


def traced_is_called(trial: Trial) -> Comparison:
    """At every step and row, the body on tensors gives what the graph gives from the same state."""
    result = Comparison(BODY, TRACE, ROUNDING)
    out, _, states = trial.whole
    for time in range(trial.time):
        for row in range(trial.batch):
            now, past = Moment(trial, row, time).copy()
            found = call(trial.cell, trial.parameters, now, past)
            expected = (out[time, row], *(s[time, row] for s in states))
            names = [f"{name} at step {time}, row {row}" for name in names_of(trial.cell)]
            result.add_all(names, found, expected)
    if not result.holds:
        result.hint = _first_difference(trial)
    return result


def gradient_of_the_body(trial: Trial) -> Comparison:
    """Autograd through one step of the body gives what it gives through the graph."""
    result = Comparison(BODY, TRACE, ROUNDING)
    cell, graph = trial.cell, trial.graph
    for row in range(trial.batch):
        moment = Moment(trial, row, trial.time - 1)
        gradients = []
        for step in (_step_of_body, _step_of_graph):
            now, past = moment.copy(leaves=True)
            weights = {k: v.clone().requires_grad_() for k, v in trial.parameters.items()}
            new = step(cell, weights, now, past)
            leaves = {f"p.{name}": value for name, value in weights.items()} | now
            for line in graph.lines:
                start = 1 + (line.kind == "state")
                named = enumerate(past[line.name], start)
                leaves |= {f"{line.name} of {k} steps ago": value for k, value in named}
            gradients.append(_gradients(new, leaves, trial.numbers(5)))
        for name, expected in gradients[1].items():
            result.add(f"the gradient of {name}", gradients[0][name], expected)
    if not result.holds:
        result.hint = _without_gradient(trial)
    return result


def _step_of_body(cell, weights, now, past):
    return call(cell, weights, now, past)


def _step_of_graph(cell, weights, now, past):
    graph, x = cell.graph, cell.graph.inputs[0].name
    lines = tuple(torch.stack(past[line.name]).unsqueeze(0) for line in graph.lines)
    states = tuple(now[name].unsqueeze(0) for name in cell.states)
    extras = {i.name: now[i.name].unsqueeze(0) for i in graph.inputs[1:]}
    out, carried = Step(graph, weights)(now[x].unsqueeze(0), (*states, *lines), extras)
    return (out[0], *(c[0] for c in carried[: len(states)]))


def _gradients(new, leaves: Named, numbers: torch.Generator) -> Named:
    total = torch.zeros((), dtype=torch.float64)
    for value in new:
        total = total + (value * _weights(value, numbers)).sum()
    if not total.requires_grad:
        return {name: torch.zeros_like(value) for name, value in leaves.items()}
    found = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def _weights(value: Tensor, numbers: torch.Generator) -> Tensor:
    return torch.randn(value.shape, generator=numbers, dtype=value.dtype)


# --- where they differ ---


def graphs_differ(one: Graph, other: Graph) -> str:
    """The first thing in which two graphs differ, in words; "" where they do not.

    Example:
        >>> import elman
        >>> graphs_differ(elman.cells.get("lstm").graph, elman.cells.get("lstm").graph)
        ''
    """
    lines = one.equation(), other.equation()
    for a, b in zip(*lines, strict=False):
        if a != b:
            return f"{b}, before: {a}"
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a == b:
            continue
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            a, b = next((x, y) for x, y in zip(a, b, strict=True) if x != y)
        return f"its {field.name.replace('_', ' ')}: {b}, before: {a}"
    return ""


def _first_difference(trial: Trial) -> str:
    """The first named value of the equation in which the body and the graph part."""
    cell, graph = trial.cell, trial.graph
    now, past = Moment(trial, 0, 0).copy()
    local: dict[str, Any] = {}
    try:
        _watched(cell, lambda: call(cell, trial.parameters, now, past), local)
        steps = {
            (line.name, k): past[line.name][k - 1 - (line.kind == "state")].unsqueeze(0)
            for line in graph.lines
            for k in range(1 + (line.kind == "state"), line.depth + 1 + (line.kind == "state"))
        }
        given = {name: value.unsqueeze(0) for name, value in Moment(trial, 0, 0).now.items()}
        values = step_values(graph, trial.parameters, given, given, steps)
    except Exception:  # the difference itself has been told; this only helps to find its line
        return ""
    for node, value in zip(graph.nodes, values, strict=True):
        found = local.get(node.name)
        if node.name in cell.arguments or not isinstance(found, Tensor):
            continue
        traced = value if value.shape == found.shape else value[0]
        if found.shape == traced.shape:
            difference = apart(node.name, found.detach(), traced.detach())
            if difference and difference.far > ROUNDING:
                return f"the first value of the body that differs is {node.name}"
    return ""


def _without_gradient(trial: Trial) -> str:
    """The first named value of the equation that no gradient passes in the body."""
    now, past = Moment(trial, 0, trial.time - 1).copy(leaves=True)
    weights = {k: v.clone().requires_grad_() for k, v in trial.parameters.items()}
    local: dict[str, Any] = {}
    _watched(trial.cell, lambda: call(trial.cell, weights, now, past), local)
    for node in trial.graph.nodes:
        value = local.get(node.name)
        if isinstance(value, Tensor) and not value.requires_grad:
            return f"in the body no gradient passes {node.name}"
    return ""


def _watched(cell: Cell, run: Callable[[], Any], local: dict[str, Any]) -> None:
    """Run the body and keep what its names held when it returned."""
    code = cell.body.__code__ if cell.body is not None else None

    def watch(frame, event, _):
        if event == "return" and frame.f_code is code:
            local.update(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(before)
