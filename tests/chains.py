"""Chains of layers put together by hand, and what autograd says of them, for tests of carries."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from elman.backends.reference import Step
from elman.equation import Graph
from elman.equation.sizes import shape_of
from elman.equation.split import split
from elman.learning.chain import Chain, Place, Seen, Weight, Window
from elman.learning.sweep import parameter_values


@dataclass
class Layer:
    """A layer: the inner step of a graph, so that its parameters are what a carry's columns are."""

    graph: Graph
    sizes: dict[str, int]
    parameters: dict[str, Tensor]
    residual: bool = False
    learned: bool = False
    initial: tuple[Tensor, ...] = ()


def layer(graph: Graph, sizes: dict[str, int], numbers, *, scale=0.6, dtype=torch.float64, **more):
    """A layer with random parameters."""
    inner = split(graph).inner
    shapes = inner.parameter_shapes(sizes)
    made = Layer(
        inner, sizes,
        {n: scale * torch.randn(s, generator=numbers, dtype=dtype) for n, s in shapes.items()},
        **more,
    )  # fmt: skip
    if made.learned:
        made.initial = tuple(
            torch.randn(shape_of(s.dims, sizes), generator=numbers, dtype=dtype)
            for s in inner.states
        )
    return made


def chain_of(layers: list[Layer]) -> Chain:
    """The chain of these layers, with their parameters' values."""
    places, values, first = [], [], 0
    for one in layers:
        found = parameter_values(one.graph, one.parameters)
        weights, start = [], 0
        for node, value in found.items():
            name = one.graph.nodes[node].attribute("name")
            weights.append(Weight(name, node, None, tuple(value.shape), start))
            start += value.numel()
        for k, value in enumerate(one.initial):
            name = f"initial_{one.graph.states[k].name}"
            weights.append(Weight(name, None, k, tuple(value.shape), start))
            start += value.numel()
        shapes = tuple(shape_of(s.dims, one.sizes) for s in one.graph.states)
        places.append(
            Place(one.graph, one.sizes, tuple(weights), shapes, tuple(range(len(shapes))), first,
                  one.residual)
        )  # fmt: skip
        first += places[-1].rows
        values.append(found)
    return Chain(tuple(places), tuple(values), tuple(one.initial for one in layers))


@dataclass
class Run:
    """A run of a chain through some steps, kept so that windows can be cut out of it.

    `masks` holds, for each layer, what its input is multiplied with, (time, batch, width) or None.
    """

    layers: list[Layer]
    x: Tensor
    resets: Tensor | None = None
    masks: dict[int, Tensor] = field(default_factory=dict)

    def walk(self, parameters=None, initial=None, start=None, begin=0, end=None):
        """All states after the steps from `begin` to `end`, of parameters that may be asked for.

        Yields after each step what each layer was given and its new states.
        """
        batch = self.x.shape[1]
        parameters = parameters or [one.parameters for one in self.layers]
        initial = initial or [one.initial for one in self.layers]
        fresh = [
            tuple(
                (i if one.learned else torch.full(shape_of(s.dims, one.sizes), s.initial,
                                                  dtype=self.x.dtype)).expand(batch, -1)
                for s, i in zip(one.graph.states, own or [None] * 9, strict=False)
            )
            for one, own in zip(self.layers, initial, strict=True)
        ]  # fmt: skip
        states = start or fresh
        for t in range(begin, self.x.shape[0] if end is None else end):
            given, new, value = [], [], self.x[t]
            for number, one in enumerate(self.layers):
                old = states[number]
                if self.resets is not None:
                    reset = self.resets[t][:, None]
                    old = tuple(
                        torch.where(reset, f, o) for f, o in zip(fresh[number], old, strict=True)
                    )
                if number in self.masks:
                    value = value * self.masks[number][t]
                given.append((value, states[number], fresh[number]))
                out, found = Step(one.graph, parameters[number])(value, old, {})
                new.append(tuple(found))
                value = out + value if one.residual else out
            states = new
            yield given, states

    def window(self, begin: int, end: int, chain: Chain) -> Window:
        """What the chain was given from one step to another."""
        with torch.no_grad():
            start = None
            if begin:
                *_, (_, start) = self.walk(end=begin)
            steps = list(self.walk(start=start, begin=begin, end=end))
        seen = []
        for number in range(len(self.layers)):
            given = [step[0][number] for step in steps]
            states = [step[1][number] for step in steps]
            every = tuple(torch.stack(s) for s in zip(*states, strict=True))
            fresh = given[0][2] if self.resets is not None else None
            mask = self.masks.get(number)
            seen.append(
                Seen(
                    torch.stack([g[0] for g in given]), given[0][1],
                    every if end - begin > 1 else None, fresh,
                    mask=None if mask is None else mask[begin:end],
                )
            )  # fmt: skip
        resets = None if self.resets is None else self.resets[begin:end]
        return Window(tuple(seen), None, resets)

    def influence(self, steps: int) -> list[Tensor]:
        """M after so many steps by autograd, for each layer (batch, rows from it up, columns)."""

        def states(parameters, initial):
            *_, (_, last) = self.walk(parameters, initial, end=steps)
            return [torch.cat(one, 1) for one in last]

        own = [one.parameters for one in self.layers], [one.initial for one in self.layers]
        found = torch.func.jacrev(states, (0, 1))(*own)
        chain = chain_of(self.layers)
        result = []
        for number, place in enumerate(chain.places):
            rows = []
            for upper in range(number, len(self.layers)):
                of_parameters, of_initial = found[upper]
                columns = [
                    of_parameters[number][w.name]
                    if w.state is None
                    else of_initial[number][w.state]
                    for w in place.weights
                ]
                rows.append(torch.cat([c.reshape(*c.shape[:2], -1) for c in columns], 2))
            result.append(torch.cat(rows, 1))
        return result


def nothing(chain: Chain, batch: int) -> tuple[Tensor, ...]:
    """The influence on fresh states: identity at learned initial states, else zero."""
    made = []
    for place in chain.places:
        m = chain.like.new_zeros(batch, chain.rows - place.first, place.columns)
        for weight in place.weights:
            if weight.state is not None:
                first = sum(s[0] for s in place.shapes[: weight.state])
                units = weight.shape[0]
                m[:, first : first + units, weight.columns] = torch.eye(units, dtype=m.dtype)
        made.append(m)
    return tuple(made)
