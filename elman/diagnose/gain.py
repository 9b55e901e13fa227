"""What a cell does at its start: how its state and its gradient grow or fade over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from elman.backends.reference import Step, initial_carried
from elman.equation import Graph, initialise
from elman.equation.sizes import shape_of

STEPS, ROWS = 100, 4

# A value that changes by more than this factor over all the steps fades or grows.
STEADY = 1e3


class Gain(NamedTuple):
    """A size at the first and at the last step of a way, and what became of it, in a word.

    Attributes:
        word: "steady", "vanishing", "exploding", "none" (where there is nothing from the start),
            or "overflowing".
        first: root mean square where the way begins.
        last: root mean square where it ends.
        steps: the length of the way, or the steps until nothing, or no number, was left.
    """

    word: str
    first: float
    last: float
    steps: int

    @property
    def rate(self) -> float:
        """The factor of one step, as the geometric mean over the way."""
        if not self.first or not math.isfinite(self.last):
            return float("nan")
        return (self.last / self.first) ** (1 / max(self.steps, 1))


class Start(NamedTuple):
    """A cell with the weights that a layer gives it, over white noise as input.

    Attributes:
        state: how the size of the states goes, from the first step to the last.
        gradient: how the size of the gradient goes, from the last state back to the first.
        silent: the parameters that get no gradient.
    """

    state: Gain
    gradient: Gain
    silent: tuple[str, ...]


def at_start(graph: Graph, sizes: Mapping[str, int], seed: int = 0, steps: int = STEPS) -> Start:
    """Measure the gain of state and gradient at initialisation.

    The weights are those of a new layer, the input is N(0, 1), the state starts as the cell says.
    The gradient is that of a random sum of the last states, with respect to all that is carried
    from step to step, delay lines included.

    Args:
        graph: the step.
        sizes: a number for each size of it.
        seed: of weights and input.
        steps: the length of the sequence.

    Example:
        >>> import elman
        >>> graph = elman.cells.get("simple").graph
        >>> at_start(graph, {"input": 4, "hidden": 16}).gradient.word
        'vanishing'

    Source: Hochreiter 1991; Bengio, Simard & Frasconi 1994, section III (gradients fade or grow
    geometrically with the number of steps).
    """
    numbers = torch.Generator().manual_seed(seed)
    weights = _new_weights(graph, sizes, seed)
    step, states = Step(graph, weights), len(graph.states)
    carried = initial_carried(graph, sizes, ROWS, dtype=torch.float64)
    way = [tuple(c.clone().requires_grad_() for c in carried)]
    total = torch.zeros((), dtype=torch.float64)
    for _ in range(steps):
        inputs = {
            i.name: torch.randn(
                (ROWS, *shape_of(i.dims, sizes)), generator=numbers, dtype=torch.float64
            )
            for i in graph.inputs
        }
        out, new = step(inputs.pop(graph.inputs[0].name), way[-1], inputs)
        total = total + _random_sum([out], numbers)
        way.append(new)
    gradient = _gradient_sizes(_random_sum(way[-1][:states], numbers), way)
    return Start(
        _word([_size(s[:states]) for s in way[1:]]),
        _word(gradient),
        _silent(total + _random_sum(way[-1][:states], numbers), weights),
    )


def _new_weights(graph: Graph, sizes: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    weights = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in graph.parameters:
            weight = torch.empty(shape_of(parameter.dims, sizes), dtype=torch.float64)
            initialise(weight, parameter.init, sizes["hidden"])
            weights[parameter.name] = weight.requires_grad_()
    return weights


def _random_sum(values: Sequence[Tensor], numbers: torch.Generator) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for value in values:
        weights = torch.randn(value.shape, generator=numbers, dtype=value.dtype)
        total = total + (weights * value).sum()
    return total


def _gradient_sizes(total: Tensor, way: list) -> list[float]:
    """The sizes of the gradient of what is carried, from the last step back to the first."""
    asked = [c for carried in way[:-1] for c in carried]
    if not total.requires_grad:
        return [0.0] * (len(way) - 1)
    flat = [c for c in asked if c.requires_grad]
    found = iter(torch.autograd.grad(total, flat, materialize_grads=True, retain_graph=True))
    sizes = [
        _size([next(found) if c.requires_grad else torch.zeros_like(c) for c in carried])
        for carried in way[:-1]
    ]
    return sizes[::-1]


def _size(values: Sequence[Tensor]) -> float:
    """Root mean square of all entries."""
    count = sum(v.numel() for v in values)
    return math.sqrt(sum(float((v.detach() ** 2).sum()) for v in values) / max(count, 1))


def _word(sizes: list[float]) -> Gain:
    first = sizes[0]
    for steps, size in enumerate(sizes):
        if not math.isfinite(size):
            return Gain("overflowing", first, size, steps)
        if size == 0:
            return Gain("vanishing" if first else "none", first, 0.0, steps)
    change = sizes[-1] / first
    word = "exploding" if change > STEADY else "vanishing" if change < 1 / STEADY else "steady"
    return Gain(word, first, sizes[-1], len(sizes) - 1)


def _silent(total: Tensor, weights: dict[str, Tensor]) -> tuple[str, ...]:
    """The parameters on which nothing that the cell gives depends."""
    if not weights or not total.requires_grad:
        return tuple(weights)
    found = torch.autograd.grad(total, list(weights.values()), materialize_grads=True)
    return tuple(n for n, g in zip(weights, found, strict=True) if not g.any())
