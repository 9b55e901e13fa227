"""The walk over levels: every node of a level in one call of a kernel, forward and back.

The states of all nodes stand in one piece of memory, in the order of the levels. A level gathers
what its nodes read from there and writes its own. On the way back the cotangents stand in the same
order, and each level adds what its nodes owe to those they read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.backends.once import once
from elman.equation.graph import Graph
from elman.equation.neighbours import Messages, reduce_edges
from elman.equation.sizes import shape_of
from elman.layers.levels import Levels

Get = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Machine:
    """How the nodes of a level are computed.

    Attributes:
        parts: the equation, of edges and of nodes.
        sizes: the number of every size.
        backend: "cpu" or "reference".
        names: the parameters, in the order in which their tensors are given.
    """

    parts: Messages
    sizes: Mapping[str, int]
    backend: str
    names: tuple[str, ...]

    @property
    def graph(self) -> Graph:
        return self.parts.graph

    def run(self, graph: Graph, parameters, x, inputs, states) -> tuple[Tensor, ...]:
        return once(graph, self.sizes, parameters, x, inputs, states, self.backend)


def compute(
    machine: Machine,
    parameters: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    edge_inputs: Mapping[str, Tensor],
    states: tuple[Tensor, ...] | None,
    senders: Tensor,
    receivers: Tensor,
    children: Tensor,
    get: Get,
) -> tuple[Tensor, ...]:
    """The new states of some nodes.

    Args:
        inputs: of these nodes, x first.
        edge_inputs: of the edges that they receive.
        states: their own old ones, for an equation that reads them.
        senders: where `get` finds the sender of each edge.
        receivers: the place of each edge's receiver among these nodes.
        children: where `get` finds each node's children by place.
        get: the values of an argument of the equation at places.
    """
    parts = machine.parts
    x, *further = inputs.items()
    nodes = len(x[1])
    read = {i.name for i in parts.node.inputs}
    given = {name: value for name, value in further if name in read}
    made = _messages(machine, parameters, inputs, edge_inputs, states, senders, receivers, get)
    for k, (kind, what) in enumerate(parts.reduced):
        sent = get(what, senders) if isinstance(what, str) else made[what]
        given[f"@{k}"] = reduce_edges(kind, sent, receivers, nodes)
    for name, (argument, k) in parts.children.items():
        given[name] = get(argument, children[:, k])
    return machine.run(parts.node, parameters, x[1], given, states)


def _messages(machine, parameters, inputs, edge_inputs, states, senders, receivers, get):
    """What the edges compute; of no edges nothing."""
    parts = machine.parts
    if parts.edge is None:
        return ()
    if not len(senders):
        like = next(iter(inputs.values()))
        return tuple(like.new_zeros(0, *shape_of(s.dims, machine.sizes)) for s in parts.edge.states)
    own = {s.name: v for s, v in zip(machine.graph.states, states or (), strict=False)}
    values = {}
    for called, (argument, where) in parts.edge_inputs.items():
        if where == "sender":
            values[called] = get(argument, senders)
        elif where == "edge":
            values[called] = edge_inputs[argument]
        else:
            mine = inputs[argument] if argument in inputs else own[argument]
            values[called] = mine.index_select(0, receivers)
    x, *further = values.items()
    return machine.run(parts.edge, parameters, x[1], dict(further), None)


@dataclass(frozen=True)
class Walk:
    """A walk over levels: the machine, the levels, and which inputs of which kind there are.

    `bare` says that initial states are zero, whatever is asked of them.
    """

    machine: Machine
    levels: Levels
    inputs: tuple[str, ...]
    edge_inputs: tuple[str, ...]
    bare: bool = False

    def tape(self, tensors: Sequence[Tensor], wanted: Sequence[bool]) -> Any:
        """What walks, remembers and goes back: the kernels themselves where they can."""
        from elman.layers.levelkernels import KernelTape, served

        alike = len({t.dtype for t in tensors}) == 1 and not torch.is_autocast_enabled("cpu")
        if alike and served(self.machine.graph):
            return KernelTape(self, tensors, wanted, self.bare)
        return _Tape(self, tensors, wanted)

    def level(self, at: int, inputs: Sequence[Tensor], edge_inputs: Sequence[Tensor],
              parameters: Sequence[Tensor], get: Get) -> tuple[Tensor, ...]:  # fmt: skip
        """The new states of one level's nodes, from their inputs and those of their edges."""
        levels = self.levels
        first, end = levels.nodes[at : at + 2]
        before, behind = levels.edges[at : at + 2]
        return compute(
            self.machine,
            dict(zip(self.machine.names, parameters, strict=True)),
            dict(zip(self.inputs, inputs, strict=True)),
            dict(zip(self.edge_inputs, edge_inputs, strict=True)),
            None,
            levels.senders[before:behind],
            levels.receivers[before:behind],
            levels.children[first:end],
            get,
        )

    def split(self, tensors: Sequence[Any]) -> tuple[Sequence[Any], ...]:
        """Inputs, inputs of edges, initial states, and parameters."""
        ends = [len(self.inputs), len(self.edge_inputs), len(self.machine.graph.states)]
        parts, at = [], 0
        for count in (*ends, len(tensors) - sum(ends)):
            parts.append(tensors[at : at + count])
            at += count
        return tuple(parts)

    def plainly(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The states of all nodes, by operations of torch alone: every derivative is there."""
        inputs, edge_inputs, initial, parameters = self.split(tensors)
        names = {s.name: i for i, s in enumerate(self.machine.graph.states)}
        arguments = dict(zip(self.inputs, inputs, strict=True))
        done: list[list[Tensor]] = [[] for _ in names]
        nodes = self.levels.nodes[-1]
        for at in range(len(self.levels)):
            have = self.levels.nodes[at]

            def get(name: str, places: Tensor, have: int = have) -> Tensor:
                if name not in names:
                    return _padded(arguments[name]).index_select(0, places)
                state = names[name]
                every = torch.cat([*done[state], initial[state].unsqueeze(0)])
                return every.index_select(0, torch.where(places == nodes, have, places))

            first, end = self.levels.nodes[at : at + 2]
            before, behind = self.levels.edges[at : at + 2]
            new = self.level(
                at, [v[first:end] for v in inputs], [v[before:behind] for v in edge_inputs],
                parameters, get,
            )  # fmt: skip
            for kept, value in zip(done, new, strict=True):
                kept.append(value)
        return tuple(torch.cat(kept) for kept in done)


class LevelFunction(torch.autograd.Function):
    """The states of all nodes: levels one after the other, each with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, walk: Walk, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.walk, ctx.tape = walk, walk.tape(tensors, ctx.needs_input_grad[1:])
        ctx.save_for_backward(*tensors)
        return ctx.tape.forwards()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled():
            return None, *ctx.tape.backwards(grad_outputs)
        # A gradient of the gradient is wanted: everything once more, by operations of torch.
        tensors = ctx.saved_tensors
        asked = [t for t, w in zip(tensors, wanted, strict=True) if w]
        states = ctx.walk.plainly(tensors)
        found = iter(
            torch.autograd.grad(states, asked, grad_outputs, create_graph=True, allow_unused=True)
        )
        return None, *(next(found) if w else None for w in wanted)


class _Read(NamedTuple):
    """What a level gathered: from which argument, where, and the values."""

    name: str
    places: Tensor
    values: Tensor


class _Level(NamedTuple):
    """What a level read and gave, with autograd's graph between."""

    inputs: list[Tensor]
    edge_inputs: list[Tensor]
    reads: list[_Read]
    states: tuple[Tensor, ...]


class _Tape:
    """A walk over the levels that remembers each, and the way back."""

    def __init__(self, walk: Walk, tensors: Sequence[Tensor], wanted: Sequence[bool]):
        self.walk, self.at_work = walk, any(wanted)
        self.inputs, self.edge_inputs, self.initial, parameters = walk.split(tensors)
        self.wants = walk.split(wanted)
        self.parameters = [
            p.detach().requires_grad_(w) for p, w in zip(parameters, self.wants[3], strict=True)
        ]
        self.states = {s.name: i for i, s in enumerate(walk.machine.graph.states)}
        self.arguments = {name: i for i, name in enumerate(walk.inputs)}
        self.levels: list[_Level] = []

    def forwards(self) -> tuple[Tensor, ...]:
        """The states of all nodes, in the order of the levels."""
        nodes = self.walk.levels.nodes
        memory = [v.new_empty(nodes[-1] + 1, *v.shape) for v in self.initial]
        for whole, start in zip(memory, self.initial, strict=True):
            whole[-1] = start
        for at in range(len(self.walk.levels)):
            found = self._level(at, memory)
            for whole, value in zip(memory, found.states, strict=True):
                whole[nodes[at] : nodes[at + 1]] = value.detach()
            if self.at_work:
                self.levels.append(found)
        return tuple(whole[:-1] for whole in memory)

    def _level(self, at: int, memory: list[Tensor]) -> _Level:
        nodes, edges = self.walk.levels.nodes, self.walk.levels.edges
        reads: list[_Read] = []

        def get(name: str, places: Tensor) -> Tensor:
            if name in self.states:
                values = memory[self.states[name]].index_select(0, places)
            else:
                values = _padded(self.inputs[self.arguments[name]]).index_select(0, places)
            reads.append(_Read(name, places, values.requires_grad_(self.at_work)))
            return values

        def own(tensors: Sequence[Tensor], wants: Sequence[bool], piece: slice) -> list[Tensor]:
            return [
                v[piece].detach().requires_grad_(w) for v, w in zip(tensors, wants, strict=True)
            ]

        mine = own(self.inputs, self.wants[0], slice(nodes[at], nodes[at + 1]))
        between = own(self.edge_inputs, self.wants[1], slice(edges[at], edges[at + 1]))
        with torch.set_grad_enabled(self.at_work):
            states = self.walk.level(at, mine, between, self.parameters, get)
        return _Level(mine, between, reads, states)

    def backwards(self, cotangents: Sequence[Tensor]) -> list[Tensor | None]:
        """The cotangent of every tensor of the walk, in their order; None where not wanted."""
        # A place behind all nodes, as in the memory, for the initial states and for no child.
        owed = [torch.cat([c, c.new_zeros(1, *c.shape[1:])]) for c in cotangents]
        groups = (self.inputs, self.edge_inputs)
        sums = [[_padded(torch.zeros_like(v)) for v in group] for group in groups]
        weights = [torch.zeros_like(p) for p in self.parameters]
        for at in reversed(range(len(self.levels))):
            self._level_back(at, owed, sums, weights)
        self.levels.clear()
        every = [*(v[:-1] for group in sums for v in group), *(v[-1] for v in owed), *weights]
        wants = [w for group in self.wants for w in group]
        return [value if w else None for value, w in zip(every, wants, strict=True)]

    def _level_back(self, at: int, owed, sums, weights) -> None:
        """Take what is owed to a level's nodes and add what they owe to what they read."""
        nodes, edges = self.walk.levels.nodes, self.walk.levels.edges
        level = self.levels[at]
        mine = slice(nodes[at], nodes[at + 1])
        targets = [(v, s[mine]) for v, s in zip(level.inputs, sums[0], strict=True)]
        between = slice(edges[at], edges[at + 1])
        targets += [(v, s[between]) for v, s in zip(level.edge_inputs, sums[1], strict=True)]
        targets += list(zip(self.parameters, weights, strict=True))
        asked = [(v, target) for v, target in targets if v.requires_grad]
        tensors = [v for v, _ in asked] + [read.values for read in level.reads]
        found = torch.autograd.grad(
            level.states, tensors, [o[mine] for o in owed], allow_unused=True
        )
        for (_, target), value in zip(asked, found, strict=False):
            if value is not None:
                target += value
        for read, value in zip(level.reads, found[len(asked) :], strict=True):
            of_state = read.name in self.states
            to = owed[self.states[read.name]] if of_state else sums[0][self.arguments[read.name]]
            if value is not None:
                to.index_add_(0, read.places, value)


def _padded(value: Tensor) -> Tensor:
    """With one row of zeros behind."""
    return torch.cat([value, value.new_zeros(1, *value.shape[1:])])
