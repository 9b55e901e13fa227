"""An adjoint at work on tensors, for tests: one step back, and back through all of time."""

from __future__ import annotations

from functools import partial

import torch
from tolerances import EQUAL, assert_close
from torch import Tensor

from elman.backends.reference import Step
from elman.equation import (
    OPERATIONS,
    Graph,
    with_layer_norm,
    with_recurrent_dropout,
    with_zoneout,
)
from elman.equation.adjoint import Adjoint, adjoint, pull_back, step_values
from elman.equation.graph import PARAMETER
from elman.equation.sizes import shape_of

REWRITES = {
    "plain": lambda graph: graph,
    "layer_norm": with_layer_norm,
    "dropout": with_recurrent_dropout,
    "zoneout": with_zoneout,
    "all": lambda graph: with_zoneout(with_recurrent_dropout(with_layer_norm(graph))),
}


class Leaves:
    """Random values for all that a step of a graph reads, one row a batch."""

    def __init__(self, graph: Graph, sizes: dict[str, int], numbers, batch: int = 2):
        def draw(*shape):
            return 0.7 * torch.randn(shape, generator=numbers, dtype=torch.float64)

        shapes = graph.parameter_shapes(sizes)
        self.parameters = {name: draw(*shape) for name, shape in shapes.items()}
        self.inputs = {i.name: draw(batch, *shape_of(i.dims, sizes)) for i in graph.inputs}
        self.states = {s.name: draw(batch, *shape_of(s.dims, sizes)) for s in graph.states}
        self.lines = tuple(
            draw(batch, line.depth, *shape_of(line.dims, sizes)) for line in graph.lines
        )
        self.graph = graph

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        named = (self.parameters, self.inputs, self.states)
        return (*(v for group in named for v in group.values()), *self.lines)

    def named(self, tensors):
        """Tensors in the order of `tensors`, by name in three groups; then the delay lines."""
        groups, rest = [], list(tensors)
        for group in (self.parameters, self.inputs, self.states):
            groups.append(dict(zip(group, rest, strict=False)))
            rest = rest[len(group) :]
        return groups, rest

    def step(self, *tensors):
        """One step of the reference, as a function of `tensors`: the output and the states."""
        (parameters, inputs, states), rest = self.named(tensors)
        first, *extras = inputs
        out, carried = Step(self.graph, parameters)(
            inputs[first], (*states.values(), *rest), {name: inputs[name] for name in extras}
        )
        return (out, *carried[: len(states)])

    def step_by_values(self, *tensors):
        """The same by `step_values`, to the bit what the adjoint reads."""
        groups, rest = self.named(tensors)
        values = step_values(self.graph, *groups, self.delayed(rest))
        return tuple(values[i] for i in (self.graph.output, *self.graph.new_states))

    def delayed(self, tensors=None) -> dict[tuple[str, int], torch.Tensor]:
        """What the step reads of the past, from these delay lines or from its own."""
        tensors = self.lines if tensors is None else tensors
        lines = {ln.name: (ln, v) for ln, v in zip(self.graph.lines, tensors, strict=True)}
        found = {}
        for node in self.graph.nodes:
            if node.op == "delayed":
                name, steps = node.attribute("name"), node.attribute("steps")
                line, value = lines[name]
                found[name, steps] = value[:, steps - 1 - (line.kind == "state")]
        return found


def parameter_gradients(
    backward: Adjoint, parameters: dict[str, torch.Tensor], steps: list[tuple[list, list]]
) -> dict[str, torch.Tensor]:
    """The gradient of every parameter, from the values and the cotangents of all steps.

    A weight's is one product over all steps and rows; then autograd goes through what is made of
    parameters alone.
    """
    leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    graph = backward.graph
    steady = alone_values(graph, leaves)
    totals: dict[int, torch.Tensor] = {}

    def add(index: int, gradient: torch.Tensor) -> None:
        assert gradient.shape == steady[index].shape
        totals[index] = totals.get(index, 0.0) + gradient

    def rows(index: int) -> torch.Tensor:
        """A node's values, or cotangents, at all steps; what has no batch stands in every row."""
        every = [both[index >= len(graph.nodes)][index] for both in steps]
        alone = graph.levels[index] == PARAMETER if index < len(graph.nodes) else False
        return torch.cat([v.expand(batch, *v.shape) if alone else v for v in every])

    batch = next(iter(steps[0][1][i].shape[0] for i in backward.results), 0)
    for weight, vector, cotangent in backward.products:
        add(weight, torch.einsum("bo,bi->oi", rows(cotangent), rows(vector)))
    for weight, first, second, cotangent in backward.bilinear:
        three = rows(cotangent), rows(first), rows(second)
        add(weight, torch.einsum("bo,bi,bj->oij", *three))
    for index, cotangent in backward.vectors.items():
        add(index, rows(cotangent).sum(0))
    outputs = [steady[index] for index in totals]
    found = torch.autograd.grad(
        outputs, list(leaves.values()), list(totals.values()), materialize_grads=True
    )
    return dict(zip(leaves, found, strict=True))


def alone_values(graph: Graph, parameters) -> dict[int, torch.Tensor]:
    """The values of the nodes that depend on parameters alone."""
    values: dict = {}
    for index, (node, level) in enumerate(zip(graph.nodes, graph.levels, strict=True)):
        if level == PARAMETER and node.op == "parameter":
            values[index] = parameters[node.attribute("name")]
        elif level == PARAMETER and node.op == "constant":
            values[index] = node.attribute("value")
        elif level == PARAMETER:
            operands = [values[a] for a in node.args]
            values[index] = OPERATIONS[node.op].evaluate(*operands, **dict(node.attributes))
    return values


def pulled_gradients(backward: Adjoint, leaves: Leaves, weights) -> tuple[torch.Tensor, ...]:
    """By the adjoint: the gradient of each of `leaves.tensors`, for cotangents of the step."""
    graph = backward.graph
    values = step_values(graph, leaves.parameters, leaves.inputs, leaves.states, leaves.delayed())
    states = {s.name: w for s, w in zip(graph.states, weights[1:], strict=True)}
    pulled = pull_back(backward, values, weights[0], states)
    of_parameters = parameter_gradients(backward, leaves.parameters, [(values, pulled)])
    result = list(of_parameters.values())
    for group, places in ((leaves.inputs, backward.inputs), (leaves.states, backward.states)):
        result += [
            pulled[places[name]] if name in places else torch.zeros_like(value)
            for name, value in group.items()
        ]
    for line, value in zip(graph.lines, leaves.lines, strict=True):
        total = torch.zeros_like(value)
        for (name, steps), place in backward.delayed.items():
            if name == line.name:
                total[:, steps - 1 - (line.kind == "state")] += pulled[place]
        result.append(total)
    return tuple(result)


def check_step(leaves: Leaves, numbers: torch.Generator, table=EQUAL) -> None:
    """Adjoint = autograd, and ⟨adjoint(u), v⟩ = ⟨u, forward mode(v)⟩."""
    graph = leaves.graph
    draw = partial(torch.randn, generator=numbers, dtype=torch.float64)
    asked = tuple(t.clone().requires_grad_() for t in leaves.tensors)
    out = leaves.step(*asked)
    weights = tuple(draw(o.shape) for o in out)
    expected = torch.autograd.grad(out, asked, weights, materialize_grads=True)
    found = pulled_gradients(adjoint(graph), leaves, weights)
    assert_close(found, expected, table, "gradients")
    direction = tuple(draw(t.shape) for t in leaves.tensors)
    _, pushed = torch.func.jvp(leaves.step, leaves.tensors, direction)
    forward = sum((w * t).sum() for w, t in zip(weights, pushed, strict=True))
    reverse = sum((g * d).sum() for g, d in zip(found, direction, strict=True))
    assert_close(reverse, forward, table, "⟨adjoint(u), v⟩ and ⟨u, forward mode(v)⟩")


class Through:
    """A sequence forwards, then backwards by the adjoint: backpropagation through time.

    Values and gradients are kept by name and time. At time −1 stands a state's initial value, and
    before that, or at −1 and before for an input, what the delay lines hold.
    """

    def __init__(self, graph: Graph, parameters, x: Tensor, carried, extras):
        self.graph, self.backward, self.time = graph, adjoint(graph), x.shape[0]
        self.parameters, self.carried = parameters, carried
        self.names = [s.name for s in graph.states]
        self.seen = {graph.inputs[0].name: x, **extras}
        self.by_step = {i.name for i in graph.inputs if i.varies == "step"}
        self.past = {n: {-1: v} for n, v in zip(self.names, carried, strict=False)}
        self.past |= {n: dict(enumerate(self.seen[n])) for n in self.by_step}
        for line, place, value in self.lines(carried, 0):
            self.past[line.name][place] = value
        self.steps = [self.forward(t) for t in range(self.time)]

    def lines(self, carried, end: int):
        """What the delay lines hold after the step before `end`, with its time."""
        for line, held in zip(self.graph.lines, carried[len(self.names) :], strict=True):
            newest = end - 1 - (line.kind == "state")
            for place in range(line.depth):
                yield line, newest - place, held[:, place]

    def forward(self, t: int) -> list:
        asked = {
            (n.attribute("name"), n.attribute("steps"))
            for n in self.graph.nodes
            if n.op == "delayed"
        }
        values = step_values(
            self.graph,
            self.parameters,
            {n: self.past[n][t] if n in self.by_step else v for n, v in self.seen.items()},
            {n: self.past[n][t - 1] for n in self.names},
            {(name, ago): self.past[name][t - ago] for name, ago in asked},
        )
        for name, index in zip(self.names, self.graph.new_states, strict=True):
            self.past[name][t] = values[index]
        return values

    def back(self, out_weights: Tensor, last_weights) -> tuple[Tensor, ...]:
        """The gradients of the inputs, of what is carried in, and of the parameters."""
        grads = {n: {t: torch.zeros_like(v) for t, v in p.items()} for n, p in self.past.items()}
        once = {n: torch.zeros_like(v) for n, v in self.seen.items() if n not in self.by_step}
        for name, weight in zip(self.names, last_weights, strict=False):
            grads[name][self.time - 1] += weight
        for line, place, weight in self.lines(last_weights, self.time):
            grads[line.name][place] += weight
        pulled = []
        for t in reversed(range(self.time)):
            states = {n: grads[n][t] for n in self.names}
            now = pull_back(self.backward, self.steps[t], out_weights[t], states)
            for name, place in self.backward.states.items():
                grads[name][t - 1] += now[place]
            for (name, ago), place in self.backward.delayed.items():
                grads[name][t - ago] += now[place]
            for name, place in self.backward.inputs.items():
                total = grads[name][t] if name in self.by_step else once[name]
                total += now[place]
            pulled.append(now)
        both = list(zip(self.steps, reversed(pulled), strict=True))
        of_parameters = parameter_gradients(self.backward, self.parameters, both)
        return (*self.of_leaves(grads, once), *of_parameters.values())

    def of_leaves(self, grads, once):
        for name in self.seen:
            by_step = name in self.by_step
            every = [grads[name][t] for t in range(self.time)] if by_step else []
            yield torch.stack(every) if by_step else once[name]
        yield from (grads[name][-1] for name in self.names)
        for line in self.graph.lines:
            times = range(line.depth)
            newest = -1 - (line.kind == "state")
            yield torch.stack([grads[line.name][newest - place] for place in times], 1)
