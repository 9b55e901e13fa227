"""The walk over levels on the kernels themselves: one memory for all nodes, weights packed once.

It gives what `LevelFunction` gives, for the equations that it serves, without a graph of autograd
for each level. Nodes without children are computed by an equation without what children bring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from elman.backends.cpu.pieces import Pieces, panel_of, serves
from elman.equation.graph import Graph
from elman.equation.leaves import without
from elman.equation.neighbours import divide
from elman.equation.sizes import shape_of
from elman.layers.levelwalk import Walk

# Numbers up to which torch adds them with index_put_ on one thread, which is the quicker way then.
_FEW = 1 << 15


@cache
def served(graph: Graph) -> bool:
    """Whether an equation can be walked so: sums over children, of states or of what edges make."""
    parts, states = divide(graph), {s.name for s in graph.states}
    return (
        all(kind == "total" for kind, _ in parts.reduced)
        and all(what in states for _, what in parts.reduced if isinstance(what, str))
        and all(argument in states for argument, _ in parts.children.values())
        and all(a in states for a, where in parts.edge_inputs.values() if where == "sender")
        and serves(parts.node)
        and (parts.edge is None or serves(parts.edge))
    )


class KernelTape:
    """A walk over the levels that remembers what the way back needs, and the way back.

    Args:
        walk: the machine and the levels.
        tensors: inputs, inputs of edges, initial states and parameters, in the walk's order.
        wanted: of which of them a cotangent is asked for.
        bare: whether the initial states are zero, and nobody asks for their cotangents.
    """

    def __init__(self, walk: Walk, tensors: Sequence[Tensor], wanted: Sequence[bool], bare: bool):
        self.walk, self.levels, self.parts = walk, walk.levels, walk.machine.parts
        inputs, edge_inputs, self.initial, parameters = walk.split(tensors)
        self.inputs = dict(zip(walk.inputs, inputs, strict=True))
        self.edge_inputs = dict(zip(walk.edge_inputs, edge_inputs, strict=True))
        self.parameters = dict(zip(walk.machine.names, parameters, strict=True))
        self.wants = walk.split(wanted)
        self.names = [s.name for s in walk.machine.graph.states]
        levels = self.levels
        nodes, edges = levels.nodes[-1], levels.edges[-1]
        self.memory = self._memory(self.initial)
        self.first = levels.nodes[1]
        self.leaves = self._leaves(bare)
        rest = 0 if self.leaves is None else self.first
        self.rest = rest
        self.nodes = None
        if nodes > rest:
            self.nodes = self._pieces(
                self.parts.node, {n: v[rest:] for n, v in self.inputs.items()}, nodes - rest,
                _largest(levels.nodes[rest > 0 :]), rest,
            )  # fmt: skip
        graph = self.parts.edge
        self.edges = self._edges(graph, edges) if edges and graph is not None else None
        self.senders = _cut(levels.senders, levels.edges)
        self.receivers = _cut(levels.receivers, levels.edges)
        self.children = [
            _cut(column.contiguous(), levels.nodes) for column in levels.children.unbind(1)
        ]

    def _memory(self, like: Sequence[Tensor]) -> dict[str, Tensor]:
        """Rows for every node, and one behind for the initial state; filled up to whole panels."""
        nodes, panel = self.levels.nodes[-1], panel_of(like[0].dtype)
        found = {}
        for name, start in zip(self.names, like, strict=True):
            units = start.shape[0]
            memory = start.new_zeros(nodes + 1, -(-units // panel) * panel)
            memory[-1, :units] = start
            found[name] = memory
        return found

    def _pieces(self, graph, inputs: Mapping[str, Tensor], rows: int, largest: int, place: int,
                states: Mapping[str, Tensor] | None = None) -> Pieces:  # fmt: skip
        return Pieces(
            graph, self.walk.machine.sizes, self.parameters, inputs, rows, largest,
            self.memory if states is None else states, place,
        )  # fmt: skip

    def _leaves(self, bare: bool) -> Pieces | None:
        """The nodes of the first level, without what children bring; None where that is needed."""
        sums = {f"@{k}" for k in range(len(self.parts.reduced))}
        graph = without(self.parts.node, frozenset({*self.parts.children, *sums})) if bare else None
        if graph is None or not serves(graph):
            return None
        inputs = {n: v[: self.first] for n, v in self.inputs.items()}
        return self._pieces(graph, inputs, self.first, self.first, 0)

    def _edges(self, graph: Graph, edges: int) -> Pieces:
        """What edges make, with inputs of their own and those of their receivers in place."""
        levels, given = self.levels, {}
        level = torch.repeat_interleave(
            torch.tensor(levels.nodes[:-1]),
            torch.tensor([b - a for a, b in pairwise(levels.edges)]),
        )
        self.places = levels.receivers + level
        for called, (argument, where) in self.parts.edge_inputs.items():
            if where == "edge":
                given[called] = self.edge_inputs[argument]
            elif where == "receiver":
                given[called] = self.inputs[argument].index_select(0, self.places)
        starts = [
            self.initial[0].new_zeros(shape_of(s.dims, self.walk.machine.sizes))
            for s in graph.states
        ]
        panel = panel_of(starts[0].dtype)
        self.messages = {
            s.name: start.new_zeros(edges, -(-len(start) // panel) * panel)
            for s, start in zip(graph.states, starts, strict=True)
        }
        return self._pieces(graph, given, edges, _largest(levels.edges), 0, self.messages)

    # Forwards.

    def forwards(self) -> tuple[Tensor, ...]:
        """The states of all nodes, in the order of the levels."""
        if self.leaves is not None:
            self.leaves.run(0, self.first)
        for at in range(int(self.leaves is not None), len(self.levels)):
            self._forwards(at)
        return tuple(
            self.memory[name][:-1, : start.shape[0]].clone()
            for name, start in zip(self.names, self.initial, strict=True)
        )

    def _forwards(self, at: int) -> None:
        assert self.nodes is not None
        first, end = (n - self.rest for n in self.levels.nodes[at : at + 2])
        before, behind = self.levels.edges[at : at + 2]
        if self.edges is not None and behind > before:
            for called, (argument, where) in self.parts.edge_inputs.items():
                if where == "sender":
                    _gather(self.memory[argument], self.senders[at],
                            self.edges.steps[called][before:behind])  # fmt: skip
            self.edges.run(before, behind)
        if behind > before:
            for k, (_, what) in enumerate(self.parts.reduced):
                target = self.nodes.steps[f"@{k}"][first:end]
                if isinstance(what, str):
                    sent = self.memory[what].index_select(0, self.senders[at])
                else:
                    sent = self.messages[f"m{what}"][before:behind]
                _add(target, self.receivers[at], sent[:, : target.shape[1]])
        for (called, (argument, _)), places in zip(
            self.parts.children.items(), self._columns(), strict=True
        ):
            _gather(self.memory[argument], places[at], self.nodes.steps[called][first:end])
        self.nodes.run(first, end)

    def _columns(self) -> list[Sequence[Tensor]]:
        return [self.children[k] for _, k in self.parts.children.values()]

    # Back.

    def backwards(self, cotangents: Sequence[Tensor]) -> list[Tensor | None]:
        """The cotangent of every tensor of the walk, in their order; None where not wanted."""
        owed = {}
        for name, given in zip(self.names, cotangents, strict=True):
            owed[name] = torch.zeros_like(self.memory[name])
            owed[name][:-1, : given.shape[1]] = given
        wants = [n for n, w in zip(self.walk.inputs, self.wants[0], strict=True) if w]
        inner = [*self.parts.children, *(f"@{k}" for k in range(len(self.parts.reduced)))]
        if self.leaves is not None:
            self.leaves.begin_back(owed, wants)
        if self.nodes is not None:
            self.nodes.begin_back(owed, [*wants, *inner])
        due = self._edges_back(wants)
        for at in reversed(range(int(self.leaves is not None), len(self.levels))):
            self._backwards(at, owed, due)
        if self.leaves is not None:
            self.leaves.back(0, self.first)
        return self._cotangents(owed)

    def _edges_back(self, wants: Sequence[str]) -> dict[str, Tensor]:
        if self.edges is None:
            return {}
        due = {name: torch.zeros_like(memory) for name, memory in self.messages.items()}
        own = dict(zip(self.walk.edge_inputs, self.wants[1], strict=True))
        asked = [
            called
            for called, (argument, where) in self.parts.edge_inputs.items()
            if where == "sender" or argument in wants or own.get(argument)
        ]
        self.edges.begin_back(due, asked)
        return due

    def _backwards(self, at: int, owed: Mapping[str, Tensor], due: Mapping[str, Tensor]) -> None:
        assert self.nodes is not None
        first, end = (n - self.rest for n in self.levels.nodes[at : at + 2])
        before, behind = self.levels.edges[at : at + 2]
        self.nodes.back(first, end)
        found = self.nodes.cotangents
        for (called, (argument, _)), places in zip(
            self.parts.children.items(), self._columns(), strict=True
        ):
            _add(owed[argument], places[at], found[called][first:end])
        if behind == before:
            return
        for k, (_, what) in enumerate(self.parts.reduced):
            sent = found[f"@{k}"][first:end].index_select(0, self.receivers[at])
            if isinstance(what, str):
                _add(owed[what], self.senders[at], sent)
            else:
                due[f"m{what}"][before:behind] += sent
        if self.edges is not None:
            self.edges.back(before, behind)
            for called, (argument, where) in self.parts.edge_inputs.items():
                if where == "sender":
                    sent = self.edges.cotangents[called][before:behind]
                    _add(owed[argument], self.senders[at], sent)

    def _cotangents(self, owed: Mapping[str, Tensor]) -> list[Tensor | None]:
        result: list[Tensor | None] = []
        for name, wanted in zip(self.walk.inputs, self.wants[0], strict=True):
            result.append(self._of_input(name) if wanted else None)
        by_argument = {a: c for c, (a, where) in self.parts.edge_inputs.items() if where == "edge"}
        for name, wanted in zip(self.walk.edge_inputs, self.wants[1], strict=True):
            value = self.edge_inputs[name]
            found = None if self.edges is None else self.edges.cotangents.get(by_argument[name])
            none = torch.zeros_like(value) if found is None else found[:, : value.shape[1]]
            result.append(none if wanted else None)
        for name, start, wanted in zip(self.names, self.initial, self.wants[2], strict=True):
            result.append(owed[name][-1, : len(start)] if wanted else None)
        total: dict[str, Tensor] = {}
        for part in (self.leaves, self.nodes, self.edges):
            for name, gradient in ({} if part is None else part.gradients()).items():
                total[name] = total[name] + gradient if name in total else gradient
        for name, wanted in zip(self.walk.machine.names, self.wants[3], strict=True):
            found = total.get(name)
            if wanted and found is None:
                found = torch.zeros_like(self.parameters[name])
            result.append(found if wanted else None)
        return result

    def _of_input(self, name: str) -> Tensor:
        """The cotangent of an input, from the nodes and from the edges that read it."""
        value = self.inputs[name]
        units = value.shape[1]
        parts = [
            part.cotangents[name][:, :units]
            if name in part.cotangents
            else value.new_zeros(part.rows, units)
            for part in (self.leaves, self.nodes)
            if part is not None
        ]
        found = torch.cat(parts)
        if self.edges is not None:
            for called, (argument, where) in self.parts.edge_inputs.items():
                if argument == name and where == "receiver" and called in self.edges.cotangents:
                    found.index_add_(0, self.places, self.edges.cotangents[called][:, :units])
        return found


def _gather(memory: Tensor, places: Tensor, target: Tensor) -> None:
    """Rows of a memory, into as many columns as the target has."""
    if target.shape[1] < memory.shape[1]:
        memory = memory[:, : target.shape[1]]
    torch.index_select(memory, 0, places, out=target)


def _add(memory: Tensor, places: Tensor, rows: Tensor) -> None:
    """Add rows at places, in their order."""
    if rows.numel() < _FEW:
        memory.index_put_((places,), rows, accumulate=True)
    else:
        memory.index_add_(0, places, rows)


def _cut(values: Tensor, ends: Sequence[int]) -> Sequence[Tensor]:
    return values.split([b - a for a, b in pairwise(ends)])


def _largest(ends: Sequence[int]) -> int:
    return max((b - a for a, b in pairwise(ends)), default=1)
