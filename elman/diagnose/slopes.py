"""The laws of derivatives: the gradient is the slope, the symbolic adjoint is the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from elman.diagnose.body import ROUNDING, Moment
from elman.diagnose.compare import COARSE_SLOPES, TOLERANCES, Comparison
from elman.diagnose.trial import Trial
from elman.equation import OPERATIONS, Graph
from elman.equation.adjoint import Adjoint, adjoint, pull_back, step_values
from elman.equation.graph import PARAMETER

STEPS = (1e-5, 1e-6, 1e-7, 1e-4)
DRAWS = 3


def gradient_is_slope(trial: Trial) -> Comparison:
    """Along a random direction of each weight, input and state, gradient = difference quotient.

    A difference of the two may come from a kink nearby. So shorter steps are tried, then other
    values; a wrong gradient is wrong with all of them.
    """
    sides = "the gradient", "the difference quotient"
    result = Comparison(*sides, TOLERANCES["quotient"][torch.float64])
    for draw in range(DRAWS):
        result = Comparison(*sides, result.tolerance)
        _compare_slopes(replace(trial, seed=trial.seed + 97 * draw).drawn(), result)
        if result.holds:
            break
    return result


def _compare_slopes(trial: Trial, result: Comparison) -> None:
    leaves, value = _as_function(trial)
    asked = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    total = value(asked)
    zeros = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    gradients = zeros
    if total.requires_grad:
        found = torch.autograd.grad(total, list(asked.values()), materialize_grads=True)
        gradients = dict(zip(asked, found, strict=True))
    numbers = trial.numbers(7)
    scale = max((float(g.norm()) for g in gradients.values()), default=0.0)
    for name, leaf in leaves.items():
        direction = torch.randn(leaf.shape, generator=numbers, dtype=leaf.dtype)
        direction = direction / direction.norm()
        slope = (gradients[name] * direction).sum()

        def along(step: float, name=name, direction=direction) -> Tensor:
            return value(leaves | {name: leaves[name] + step * direction})

        quotient = _quotient(along, slope, max(scale, 1e-3) * result.tolerance)
        # Beside the largest gradient: the quotient's rounding is that of the whole sum.
        beside = torch.full_like(slope, scale)
        pair = torch.stack([slope, beside]), torch.stack([quotient, beside])
        result.add(f"the slope along {name}", *pair)


def _quotient(along: Callable[[float], Tensor], slope: Tensor, near: float) -> Tensor:
    """The difference quotient of the step that comes nearest to the slope, the first near it."""
    found = []
    for step in STEPS:
        found.append(((along(step) - along(-step)) / (2 * step)).detach())
        if float((found[-1] - slope).abs()) < 0.01 * near:
            break
    return min(found, key=lambda quotient: float((quotient - slope).abs()))


def _as_function(trial: Trial) -> tuple[dict[str, Tensor], Callable]:
    """All that a run reads, by name, and a random sum of all it gives as a function of that."""
    count = len(trial.graph.inputs)
    names = [f"p.{name}" for name in trial.parameters]
    names += [f"the input {name}" for name in trial.inputs]
    names += [f"the state {name}" for name in trial.cell.states]
    names += [f"the delay line of {line.name}" for line in trial.graph.lines]
    values = (*trial.parameters.values(), *trial.inputs.values(), *trial.carried)
    first = len(trial.parameters)

    def value(leaves: dict[str, Tensor]) -> Tensor:
        given = list(leaves.values())
        parameters = dict(zip(trial.parameters, given[:first], strict=True))
        x, *extras = given[first : first + count]
        named = dict(zip(list(trial.inputs)[1:], extras, strict=True))
        out, last, _ = trial.run((x, named), tuple(given[first + count :]), parameters)
        numbers, total = trial.numbers(6), torch.zeros((), dtype=x.dtype)
        for result in (out, *last):
            weights = torch.randn(result.shape, generator=numbers, dtype=x.dtype)
            total = total + (weights * result).sum()
        return total

    return dict(zip(names, values, strict=True)), value


def adjoint_is_autograd(trial: Trial) -> Comparison:
    """The symbolic adjoint of one step, which kernels are made of, gives autograd's gradients."""
    graph = trial.graph
    coarse = [COARSE_SLOPES[n.op] for n in graph.nodes if n.op in COARSE_SLOPES]
    result = Comparison("the adjoint", "autograd", max([ROUNDING, *coarse]))
    plain = _last_step(trial)
    asked = _LastStep(
        _leaves(plain.parameters), _leaves(plain.inputs), _leaves(plain.states),
        _leaves(plain.delayed),
    )  # fmt: skip
    values = step_values(graph, *asked)
    new = [values[i] for i in (graph.output, *graph.new_states)]
    numbers = trial.numbers(8)
    cotangents = [torch.randn(v.shape, generator=numbers, dtype=v.dtype) for v in new]
    leaves = [v for group in asked for v in group.values()]
    expected = torch.autograd.grad(new, leaves, cotangents, materialize_grads=True)
    backward = adjoint(graph)
    values = step_values(graph, *plain)
    by_name = dict(zip(trial.cell.states, cotangents[1:], strict=True))
    pulled = pull_back(backward, values, cotangents[0], by_name)
    found = [*parameter_gradients(backward, plain.parameters, values, pulled).values()]
    places = {**backward.inputs, **backward.states, **backward.delayed}
    for group in plain[1:]:
        for name, value in group.items():
            found.append(pulled[places[name]] if name in places else torch.zeros_like(value))
    names = [f"the gradient of {name}" for group in asked for name in group]
    result.add_all(names, found, expected)
    return result


def parameter_gradients(
    backward: Adjoint, parameters: dict[str, Tensor], values: list, pulled: list
) -> dict[str, Tensor]:
    """The gradient of every parameter, from the values and the cotangents of one step.

    What is made of parameters alone is no part of the adjoint; autograd goes through it.
    """
    leaves = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    graph, totals = backward.graph, {}
    steady = _alone(graph, leaves)
    batch = next((pulled[i].shape[0] for i in backward.results), 1)

    def add(index: int, gradient: Tensor) -> None:
        totals[index] = totals.get(index, 0.0) + gradient

    def rows(index: int) -> Tensor:
        """The rows of a factor of a product; one of parameters alone stands in every row."""
        alone = index < len(graph.nodes) and graph.levels[index] == PARAMETER
        return values[index].expand(batch, *values[index].shape) if alone else pulled[index]

    for weight, vector, cotangent in backward.products:
        add(weight, torch.einsum("bo,bi->oi", rows(cotangent), rows(vector)))
    for weight, first, second, cotangent in backward.bilinear:
        three = rows(cotangent), rows(first), rows(second)
        add(weight, torch.einsum("bo,bi,bj->oij", *three))
    for index, cotangent in backward.vectors.items():
        add(index, pulled[cotangent].sum(0))
    found = torch.autograd.grad(
        [steady[index] for index in totals], list(leaves.values()), list(totals.values()),
        materialize_grads=True,
    )  # fmt: skip
    return dict(zip(leaves, found, strict=True))


def _alone(graph: Graph, parameters: dict[str, Tensor]) -> dict[int, Any]:
    """The values of the nodes that depend on parameters alone."""
    values: dict[int, Any] = {}
    for index, (node, level) in enumerate(zip(graph.nodes, graph.levels, strict=True)):
        if level != PARAMETER:
            continue
        if node.op == "parameter":
            values[index] = parameters[node.attribute("name")]
        elif node.op == "constant":
            values[index] = node.attribute("value")
        else:
            operands = [values[a] for a in node.args]
            values[index] = OPERATIONS[node.op].evaluate(*operands, **dict(node.attributes))
    return values


class _LastStep(NamedTuple):
    """What the last step of a trial reads, for all rows, by name."""

    parameters: dict[str, Tensor]
    inputs: dict[str, Tensor]
    states: dict[str, Tensor]
    delayed: dict[tuple[str, int], Tensor]


Key = TypeVar("Key")


def _leaves(values: dict[Key, Tensor]) -> dict[Key, Tensor]:
    return {key: value.clone().requires_grad_() for key, value in values.items()}


def _last_step(trial: Trial) -> _LastStep:
    moments = [Moment(trial, row, trial.time - 1) for row in range(trial.batch)]
    graph = trial.graph

    def rows(name: str) -> Tensor:
        return torch.stack([m.now[name] for m in moments])

    delayed = {}
    for node in graph.nodes:
        if node.op == "delayed":
            name, steps = node.attribute("name"), node.attribute("steps")
            place = steps - 1 - (name in trial.cell.states)
            delayed[name, steps] = torch.stack([m.past[name][place] for m in moments])
    inputs = {i.name: rows(i.name) for i in graph.inputs}
    states = {name: rows(name) for name in trial.cell.states}
    return _LastStep(trial.parameters, inputs, states, delayed)
