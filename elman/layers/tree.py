"""A cell over trees and other graphs without circles, level by level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from elman.equation import Cell, Graph, initialise
from elman.equation.neighbours import divide, gathers
from elman.equation.sizes import shape_of
from elman.errors import InputError, SizeError
from elman.layers import checks
from elman.layers.gathering import BACKENDS, GatheringLayer
from elman.layers.levels import edges_of_parents, levels_of
from elman.layers.levelwalk import LevelFunction, Machine, Walk
from elman.layers.recurrent import _all_sizes, _as_cell

DIRECTIONS = ("up", "down", "both")


class Tree(GatheringLayer):
    r"""A cell over trees: a node's state from its input and the states of its children.

    $s_v = F(x_v, \{s_u : u \text{ child of } v\};\, \theta)$. All nodes whose children are ready,
    in any tree of the batch, are computed in one call of a kernel. Any graph without circles will
    do: a node's "children" are the nodes with an edge to it.

    Args:
        cell: the name of a cell of trees ("child_sum_tree_lstm", "nary_tree_lstm", "tree_gru",
            "recursive"), a Cell, or a function that `elman.cell` would take.
        input_size: features of x, ≥ 1.
        hidden_size: units of the state, ≥ 1.
        direction: "up", from the leaves; "down", from the roots, where each node's one "child" is
            its parent; "both", with parameters of their own for "down", outputs side by side.
        sizes: sizes by name which the cell has besides.
        hyper: hyper-parameters of the cell by name, such as {"arity": 3}.
        initial_state: "zeros" (or the constants that the cell declares), or "learned": what
            stands for a child that is not there where the equation reads children by their place
            (a sum over no children is zero).
        backend: "auto", "cpu" or "reference".

    Shapes:
        x: (nodes, input), the nodes of all trees one after another. parents: (nodes,), the number
        of each node's parent, −1 for a root; or edge_index: (2, edges), child and parent of each
        edge, in the order of the children. out: (nodes, directions·hidden). states: for each state
        (nodes, directions·size).

    Raises:
        InputError: an option or name that cannot be used; edges that go in a circle (named); more
            children than the cell has places for.
        SizeError: shapes that do not fit, or an edge to a node that is not there.

    Example:
        >>> import elman, torch
        >>> tree = elman.Tree("child_sum_tree_lstm", 3, 4)
        >>> parents = torch.tensor([2, 2, -1])
        >>> out, (h, c) = tree(torch.randn(3, 3), parents)
        >>> out.shape, bool((out == h).all())
        (torch.Size([3, 4]), True)

    Source: Tai, Socher & Manning 2015, section 3; the levels as in Looks et al. 2017, "Deep
    learning with dynamic computation graphs", section 2.
    """

    piece = "a level"

    def __init__(
        self,
        cell: str | Cell | Callable,
        input_size: int,
        hidden_size: int,
        *,
        direction: str = "up",
        sizes: Mapping[str, int] | None = None,
        hyper: Mapping[str, Any] | None = None,
        initial_state: str = "zeros",
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.cell = _as_cell(cell).with_hyper(**dict(hyper or {}))
        checks.check_sizes(self.owner, input_size, hidden_size, 1)
        checks.check_choice(self.owner, "direction", direction, DIRECTIONS)
        checks.check_choice(self.owner, "initial_state", initial_state, checks.INITIAL_STATES)
        checks.check_choice(self.owner, "backend", backend, BACKENDS)
        graph = self.cell.graph
        if not gathers(graph):
            raise InputError(
                f"{self.owner}: the equation reads no child; a cell of trees has elman.each(h) or "
                "elman.child(h, k) in it. For sequences use elman.Recurrent"
            )
        self.parts = divide(graph)
        if any(n.op == "state" for n in (*self.parts.node.nodes,)) or any(
            where == "receiver" and name in self.cell.states
            for name, where in self.parts.edge_inputs.values()
        ):
            raise InputError(
                f"{self.owner}: the equation reads the node's own old state, which a tree's node "
                "has none of; use elman.Network, or elman.each and elman.child"
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.direction, self.initial_state, self.backend = direction, initial_state, backend
        self._sizes = _all_sizes(self.owner, self.cell, input_size, hidden_size, sizes)
        graph.check_sizes(self._sizes)
        self._ways = ("",) if direction != "both" else ("", "_down")
        self.output_size = shape_of((graph.output_size,), self._sizes)[0] * len(self._ways)
        self._names = tuple(p.name for p in graph.parameters)
        shapes = graph.parameter_shapes(self._sizes)
        if initial_state == "learned":
            shapes |= {f"initial_{s.name}": shape_of(s.dims, self._sizes) for s in graph.states}
        for end in self._ways:
            for name, shape in shapes.items():
                value = torch.empty(shape, device=device, dtype=dtype)
                self.register_parameter(name + end, nn.Parameter(value))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start all parameters anew, as the cell says."""
        for end in self._ways:
            for parameter in self.cell.graph.parameters:
                initialise(getattr(self, parameter.name + end), parameter.init, self.hidden_size)
            if self.initial_state == "learned":
                for state in self.cell.graph.states:
                    getattr(self, f"initial_{state.name}{end}").fill_(state.initial)

    def forward(
        self,
        x: Tensor,
        parents: Tensor | None = None,
        *,
        edge_index: Tensor | None = None,
        batch: Tensor | None = None,
        inputs: Mapping[str, Tensor] | None = None,
        edges: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """Compute the states of all nodes.

        Args:
            x: inputs of the nodes.
            parents: the parent of each node; or
            edge_index: child and parent of each edge.
            batch: the tree of each node, as torch_geometric has it; nothing is computed from it,
                but an edge between two trees is refused.
            inputs: the cell's further inputs by name, (nodes, …).
            edges: the cell's inputs of edges by name, (edges, …); with `parents` the edges are
                those of the nodes that have one, in order.

        Returns:
            The outputs of all nodes, and their states: one tensor, or a tuple of them.
        """
        index = self._edges(x, parents, edge_index)
        if batch is not None:
            check_batch(self.owner, batch, index, len(x))
        values = checks.check_named(
            self.owner, self.cell.graph, self._sizes,
            {self.cell.graph.inputs[0].name: x, **(inputs or {}), **(edges or {})},
            len(x), index.shape[1], self._weight().dtype,
        )  # fmt: skip
        results = []
        for end in self._ways:
            down = self.direction == "down" or end == "_down"
            results.append(self._walk(index.flip(0) if down else index, values, end))
        states = tuple(torch.cat(each, -1) for each in zip(*results, strict=True))
        return states[0], states[0] if len(states) == 1 else states

    def _edges(self, x: Tensor, parents: Tensor | None, edge_index: Tensor | None) -> Tensor:
        if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != self.input_size:
            raise SizeError(
                f"{self.owner}: x has shape {tuple(getattr(x, 'shape', ()))}; give "
                f"(nodes, {self.input_size})"
            )
        if (parents is None) == (edge_index is None):
            raise InputError(f"{self.owner}: give either parents or edge_index")
        if parents is not None:
            given = torch.as_tensor(parents)
            if given.shape != (len(x),) or not is_whole(given):
                raise SizeError(
                    f"{self.owner}: parents has shape {tuple(given.shape)} and type {given.dtype}; "
                    f"give a whole number for each of the {len(x)} nodes"
                )
            return edges_of_parents(self.owner, given.long())
        return checked_edges(self.owner, edge_index, len(x))

    def _walk(self, index: Tensor, values: dict[str, Tensor], end: str) -> tuple[Tensor, ...]:
        """The states of all nodes, in the order of the nodes."""
        graph = self.cell.graph
        x = values[graph.inputs[0].name]
        initial = [self._initial(s.name, end) for s in graph.states]
        if not len(x):
            return tuple(i.new_zeros(0, *i.shape) + 0 * i for i in initial)
        levels = levels_of(self.owner, index, len(x), self.parts.arity)
        by_edge = tuple(i.name for i in graph.inputs if i.varies == "edge")
        by_node = tuple(i.name for i in graph.inputs if i.varies != "edge")
        machine = Machine(self.parts, self._sizes, self._choose().backend, self._names)
        bare = self.initial_state == "zeros" and not any(s.initial for s in graph.states)
        walk = Walk(machine, levels, by_node, by_edge, bare)
        tensors = [
            *(values[n].index_select(0, levels.order) for n in by_node),
            *(values[n].index_select(0, levels.edge_order) for n in by_edge),
            *initial,
            *(getattr(self, name + end) for name in self._names),
        ]
        if machine.backend == "reference":
            states = walk.plainly(tensors)
        else:
            states = LevelFunction.apply(walk, *tensors)
        return tuple(s.index_select(0, levels.position) for s in states)

    def _initial(self, name: str, end: str) -> Tensor:
        if self.initial_state == "learned":
            return getattr(self, f"initial_{name}{end}")
        state = next(s for s in self.cell.graph.states if s.name == name)
        return self._weight().new_full(shape_of(state.dims, self._sizes), state.initial)

    def _steps(self) -> tuple[Graph | None, ...]:
        return self.parts.edge, self.parts.node

    def _own_words(self) -> str:
        return f"direction={self.direction!r}"


def is_whole(numbers: Tensor) -> bool:
    """Whether a tensor holds whole numbers; truth values are none."""
    kind = numbers.dtype
    return not (kind.is_floating_point or kind.is_complex or kind == torch.bool)


def check_batch(owner: str, batch: Any, index: Tensor, nodes: int) -> None:
    """See that every node has the number of its graph, and that no edge leaves one.

    Raises:
        SizeError: a shape or type that cannot be, or an edge between two graphs; it is named.
    """
    of_node = torch.as_tensor(batch)
    if of_node.shape != (nodes,) or not is_whole(of_node):
        raise SizeError(
            f"{owner}: batch has shape {tuple(of_node.shape)} and type {of_node.dtype}; give the "
            f"number of its graph for each of the {nodes} nodes"
        )
    apart = torch.nonzero(of_node[index[0]] != of_node[index[1]]).flatten()
    if len(apart):
        one, other = index[:, apart[0]].tolist()
        raise SizeError(
            f"{owner}: edge {int(apart[0])} goes from node {one} of graph {int(of_node[one])} to "
            f"node {other} of graph {int(of_node[other])}; graphs of a batch have no edges between"
        )


def checked_edges(owner: str, edge_index: Any, nodes: int) -> Tensor:
    """Edges as (2, edges) of whole numbers among the nodes.

    Raises:
        SizeError: a shape, type or number that cannot be; the edge is named.
    """
    index = torch.as_tensor(edge_index)
    if index.dim() != 2 or index.shape[0] != 2 or not is_whole(index):
        raise SizeError(
            f"{owner}: edge_index has shape {tuple(index.shape)} and type {index.dtype}; give "
            "(2, edges) of whole numbers, senders above receivers"
        )
    index = index.long()
    bad = torch.nonzero(((index < 0) | (index >= nodes)).any(0)).flatten()
    if len(bad):
        edge = int(bad[0])
        raise SizeError(
            f"{owner}: edge {edge} goes from {int(index[0, edge])} to {int(index[1, edge])}; the "
            f"nodes are 0 to {nodes - 1}"
        )
    return index
