"""A cell over a graph: rounds of messages between neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elman.equation import Cell, Graph, initialise
from elman.equation.neighbours import divide, gathers
from elman.equation.senders import at_senders
from elman.equation.sizes import shape_of
from elman.errors import InputError, SizeError
from elman.layers import checks
from elman.layers.gathering import BACKENDS, GatheringLayer
from elman.layers.levelwalk import Machine, compute
from elman.layers.recurrent import _all_sizes, _as_cell
from elman.layers.tree import check_batch, checked_edges


class Network(GatheringLayer):
    r"""A cell over a graph: in each round every node reads its neighbours' states of the last.

    $h_v^{t+1} = F(x_v, h_v^t, \{(h_u^t, e_{uv}) : u \to v\};\, \theta)$ for `rounds` rounds with
    the same parameters. Graphs of a batch stand in one, with no edges between them.

    Args:
        cell: the name of a cell of graphs ("gated_graph", "message_passing",
            "graph_convolution", "mean_neighbours"), a Cell, or a function that `elman.cell` would
            take.
        input_size: features of x, ≥ 1.
        hidden_size: units of the state, ≥ 1.
        rounds: how often messages are sent, ≥ 1.
        start: the states before the first round: "zeros" (or the constants that the cell
            declares), or "input": x itself, with zeros behind it, as the gated graph network has
            it; then hidden_size must be at least input_size.
        sizes: sizes by name which the cell has besides, such as {"edge": 4}.
        hyper: hyper-parameters of the cell by name.
        backend: "auto", "cpu" or "reference".

    Shapes:
        x: (nodes, input). edge_index: (2, edges), sender above receiver, as in torch_geometric; an
        undirected edge stands there twice. edges: by name (edges, …). out: (nodes, hidden). state:
        for each state (nodes, size).

    Raises:
        InputError: an option or name that cannot be used.
        SizeError: shapes that do not fit, or an edge to a node that is not there.

    Example:
        >>> import elman, torch
        >>> layer = elman.Network("mean_neighbours", 3, 4, rounds=2)
        >>> out, h = layer(torch.randn(3, 3), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> out.shape
        torch.Size([3, 4])

    Source: Gilmer et al. 2017, "Neural message passing for quantum chemistry", section 2; Li et
    al. 2016, "Gated graph sequence neural networks", section 3.
    """

    piece = "a round"

    def __init__(
        self,
        cell: str | Cell | Callable,
        input_size: int,
        hidden_size: int,
        *,
        rounds: int = 1,
        start: str = "zeros",
        sizes: Mapping[str, int] | None = None,
        hyper: Mapping[str, Any] | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.cell = _as_cell(cell).with_hyper(**dict(hyper or {}))
        checks.check_sizes(self.owner, input_size, hidden_size, 1)
        checks.check_choice(self.owner, "start", start, ("zeros", "input"))
        checks.check_choice(self.owner, "backend", backend, BACKENDS)
        if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
            raise InputError(f"{self.owner}: rounds is {rounds!r}; give a whole number ≥ 1")
        if not gathers(self.cell.graph):
            raise InputError(
                f"{self.owner}: the equation reads no neighbour; a cell of graphs has "
                "elman.each(h) in it. For sequences use elman.Recurrent"
            )
        self.sent = at_senders(self.cell.graph)
        self.parts = divide(self.sent.graph)
        if self.parts.children:
            raise InputError(
                f"{self.owner}: the equation reads children by their place, and neighbours in a "
                "graph have none; use elman.Tree, or elman.each with a sum"
            )
        if start == "input" and hidden_size < input_size:
            raise InputError(
                f"{self.owner}: start='input' puts the {input_size} features of x into the state, "
                f"and hidden_size is {hidden_size}; give at least {input_size}"
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.rounds, self.start, self.backend = rounds, start, backend
        self._sizes = _all_sizes(self.owner, self.cell, input_size, hidden_size, sizes)
        self._names = tuple(p.name for p in self.cell.graph.parameters)
        for name, shape in self.cell.graph.parameter_shapes(self._sizes).items():
            value = torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(value))
        self.output_size = shape_of((self.cell.graph.output_size,), self._sizes)[0]
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start all parameters anew, as the cell says."""
        for parameter in self.cell.graph.parameters:
            initialise(getattr(self, parameter.name), parameter.init, self.hidden_size)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        state: Tensor | Sequence[Tensor] | None = None,
        *,
        batch: Tensor | None = None,
        inputs: Mapping[str, Tensor] | None = None,
        edges: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """Send messages `rounds` times.

        Args:
            x: inputs of the nodes, read in every round.
            edge_index: sender and receiver of each edge.
            state: what to start with.
            batch: the graph of each node, as torch_geometric has it; nothing is computed from it,
                but an edge between two graphs is refused.
            inputs: the cell's further inputs by name, (nodes, …).
            edges: the cell's inputs of edges by name, (edges, …).

        Returns:
            The outputs of the last round, and the states: one tensor, or a tuple of them.
        """
        if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != self.input_size:
            raise SizeError(
                f"{self.owner}: x has shape {tuple(getattr(x, 'shape', ()))}; give "
                f"(nodes, {self.input_size})"
            )
        index = checked_edges(self.owner, edge_index, len(x))
        if batch is not None:
            check_batch(self.owner, batch, index, len(x))
        named = checks.check_named(
            self.owner, self.cell.graph, self._sizes,
            {self.cell.graph.inputs[0].name: x, **(inputs or {}), **(edges or {})},
            len(x), index.shape[1], self._weight().dtype,
        )  # fmt: skip
        states = self._begin(x, state)
        if len(x):
            machine = Machine(self.parts, self._sizes, self._choose().backend, self._names)
            for _ in range(self.rounds):
                states = self._round(machine, index, named, states)
        return states[0], states[0] if len(states) == 1 else states

    def _round(self, machine, index, named, states) -> tuple[Tensor, ...]:
        graph, sender = self.cell.graph, self.sent.sender
        at_nodes = {**named, **dict(zip((s.name for s in graph.states), states, strict=True))}
        by_edge = {i.name for i in graph.inputs if i.varies == "edge"}
        parameters = {name: getattr(self, name) for name in self._names}
        if sender is not None:
            x, *further = self.sent.reads
            inputs = {name: at_nodes[name] for name in further}
            sent = machine.run(sender, parameters, at_nodes[x], inputs, None)
            at_nodes |= dict(zip((s.name for s in sender.states), sent, strict=True))

        def get(name: str, places: Tensor) -> Tensor:
            return at_nodes[name].index_select(0, places)

        return compute(
            machine,
            parameters,
            {n: v for n, v in named.items() if n not in by_edge},
            {n: v for n, v in named.items() if n in by_edge},
            states,
            index[0], index[1], index.new_zeros(len(states[0]), 0),
            get,
        )  # fmt: skip

    def _begin(self, x: Tensor, state: Tensor | Sequence[Tensor] | None) -> tuple[Tensor, ...]:
        graph = self.cell.graph
        shapes = [(len(x), *shape_of(s.dims, self._sizes)) for s in graph.states]
        if state is None:
            states = [x.new_full(shape, s.initial) for s, shape in zip(graph.states, shapes,
                                                                      strict=True)]  # fmt: skip
            if self.start == "input":
                missing = self.hidden_size - self.input_size
                states[0] = torch.nn.functional.pad(x, (0, missing))
            return tuple(states)
        given = (state,) if isinstance(state, Tensor) else tuple(state)
        if [tuple(s.shape) for s in given] != shapes:
            raise SizeError(
                f"{self.owner}: the state has shapes {[tuple(s.shape) for s in given]}; expected "
                f"{shapes}"
            )
        return given

    def _steps(self) -> tuple[Graph | None, ...]:
        return self.sent.sender, self.parts.edge, self.parts.node

    def _own_words(self) -> str:
        return f"rounds={self.rounds}"


def symmetric_weights(edge_index: Tensor, nodes: int, dtype: torch.dtype | None = None):
    r"""Edges with a loop at every node, and weights $1/\sqrt{d_u d_v}$, d counted with the loops.

    Args:
        edge_index: (2, edges); loops that are there already stay single.
        nodes: the number of nodes.
        dtype: of the weights; torch's default if not given.

    Returns:
        The edges, (2, edges + nodes), and their weights.

    Example:
        >>> import torch
        >>> index, weights = symmetric_weights(torch.tensor([[0, 1], [1, 0]]), 2)
        >>> index.tolist(), weights.tolist()
        ([[0, 1, 0, 1], [1, 0, 0, 1]], [0.5, 0.5, 0.5, 0.5])

    Source: Kipf & Welling 2017, eq. 2 and the renormalisation trick of section 2.2.
    """
    index = checked_edges("symmetric_weights", edge_index, nodes)
    loops = torch.arange(nodes).repeat(2, 1)
    index = torch.cat([index[:, index[0] != index[1]], loops], 1)
    degree = torch.bincount(index[1], minlength=nodes).to(dtype or torch.get_default_dtype())
    return index, (degree[index[0]] * degree[index[1]]).rsqrt()
