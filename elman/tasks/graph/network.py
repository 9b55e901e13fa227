"""The network of a model of graphs: layers of messages, then labels, or a choice of nodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from elman.equation import Cell
from elman.equation.neighbours import EACH
from elman.layers import Network
from elman.layers.network import symmetric_weights
from elman.tasks.graph.meaning import Batch


def reads_input(cell: Cell) -> bool:
    """Whether an equation reads x at all; where it does not, the state begins with it."""
    return _reads(cell, {cell.graph.inputs[0].name})


def convolves(cell: Cell) -> bool:
    """Whether an equation reads no state, so that a layer is one round."""
    return not _reads(cell, {state.name for state in cell.graph.states})


def _reads(cell: Cell, names: set[str]) -> bool:
    """Whether anything is made of an argument; a graph has its arguments even where nothing is."""
    nodes = cell.graph.nodes
    used = {a for node in nodes for a in node.args} | {cell.graph.output, *cell.graph.new_states}
    return any(
        nodes[i].op in ("input", "state", EACH) and nodes[i].attribute("name") in names
        for i in used
    )


def thinned(x: Tensor, rate: float) -> Tensor:
    """Dropout; where most values are zero, numbers are drawn for the others alone.

    Args:
        x: (nodes, features).
        rate: of what is set to zero, in [0, 1); the rest grows by 1/(1 − rate).
    """
    if not rate or x.requires_grad:
        return functional.dropout(x, rate, bool(rate))
    flat = x.reshape(-1)
    places = flat.nonzero()[:, 0]
    if 4 * len(places) > len(flat):
        return functional.dropout(x, rate)
    kept = functional.dropout(flat[places], rate)
    return torch.zeros_like(flat).index_put_((places,), kept).view_as(x)


class GraphModel(nn.Module):
    r"""Tells the labels of nodes or of graphs, or which node is the answer.

    .. math::

        h_v = layers(x, edges)_v, \qquad
        p(y_v) = \mathrm{softmax}(A\,[h_v; x_v] + b), \qquad
        p(y_G) = \mathrm{softmax}(A \textstyle\sum_{v \in G} g_v + b), \qquad
        p(v \mid G) = \mathrm{softmax}_{v \in G}(a^\top [h_v; x_v])

    with x_v beside h_v where the cell does not read x by itself, and
    :math:`g_v = \sigma(C [h_v; x_v]) \odot \tanh(D [h_v; x_v])`, what a node has to say of its
    graph. With `last`, the last layer of a model of nodes is that cell and its readout.

    Args:
        features: of a node.
        classes: number of labels; not read for a selection.
        types: number of types of edges.
        cell: of the nodes.
        hidden, layers, rounds: sizes.
        target: "node", "graph" or "selection".
        pool: "sum" or "mean" over a graph's nodes.
        dropout: on what each layer reads.
        last: the cell of the last layer, whose units are the classes; None has a dense readout.

    Source: Kipf & Welling 2017, section 3.1; Li et al. 2016, section 3.2 (eq. 7).
    """

    def __init__(
        self,
        features: int,
        classes: int,
        types: int,
        cell: Cell,
        hidden: int,
        *,
        layers: int = 1,
        rounds: int = 1,
        target: str = "node",
        pool: str = "sum",
        dropout: float = 0.0,
        last: Cell | None = None,
    ):
        super().__init__()
        self.target, self.pool, self.dropout = target, pool, dropout
        inputs = {i.name: i.dims for i in cell.graph.inputs if i.varies == "edge"}
        self.weighted = tuple(name for name, dims in inputs.items() if not dims)
        self.typed = tuple(name for name, dims in inputs.items() if dims)
        self.types, self.outside = types, not reads_input(cell)
        sizes = {dims[0]: types for dims in inputs.values() if dims}
        self.embedding = (
            nn.Linear(features, hidden) if self.outside and features > hidden else nn.Identity()
        )
        width = hidden if self.outside and features > hidden else features
        self.layers = nn.ModuleList()
        for place in range(layers):
            here, size = cell, hidden
            if last is not None and place == layers - 1:
                here, size = last, classes
            start = "input" if self.outside else "zeros"
            self.layers.append(Network(here, width, size, rounds=rounds, start=start, sizes=sizes))
            width = size
        read = width + (features if self.outside else 0)
        self.output: nn.Module = nn.Identity()
        self.gate: nn.Module | None = None
        if target == "graph":
            self.gate, self.said = nn.Linear(read, hidden), nn.Linear(read, hidden)
            self.output = nn.Linear(hidden, classes)
        elif last is None:
            self.output = nn.Linear(read, classes if target == "node" else 1)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits: of nodes (nodes, classes), graphs (graphs, classes), or of each node to be
        the chosen one, (nodes,)."""
        index, given = self._edges(batch)
        h = self.embedding(batch.x)
        for layer in self.layers:
            h = layer(thinned(h, self.dropout if self.training else 0.0), index, edges=given)[0]
        if self.outside:
            h = torch.cat([h, batch.x], 1)
        if self.target == "node":
            return self.output(h)
        if self.gate is None:
            return self.output(h)[:, 0]
        said = torch.sigmoid(self.gate(h)) * torch.tanh(self.said(h))
        graphs = len(batch.targets)
        whole = said.new_zeros(graphs, said.shape[1]).index_add(0, batch.graph, said)
        if self.pool == "mean":
            counts = torch.bincount(batch.graph, minlength=graphs).clamp(min=1)
            whole = whole / counts.unsqueeze(1)
        return self.output(whole)

    def _edges(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The edges, and what the cell reads of each: weights with loops, or types one-hot."""
        index, given = batch.edge_index, {}
        dtype = batch.x.dtype
        hot = functional.one_hot(batch.types, self.types).to(dtype)
        if self.weighted:
            loops = index[0] == index[1]
            index, weights = symmetric_weights(index, len(batch.x), dtype)
            given = dict.fromkeys(self.weighted, weights)
            # Loops have no type.
            kept = hot[~loops]
            hot = torch.cat([kept, kept.new_zeros(index.shape[1] - len(kept), self.types)])
        return index, given | dict.fromkeys(self.typed, hot)

    def explain(self) -> str:
        """Say which backend runs the first layer, and why."""
        first = self.layers[0]
        return first.explain() if isinstance(first, Network) else ""

    def penalty(self) -> Tensor:
        """Σ w² / 2 over the matrices of the first layer."""
        first = [w for w in self.layers[0].parameters() if w.ndim >= 2]
        return sum((w.square().sum() / 2 for w in first), start=first[0].new_zeros(()))


def log_probabilities(logits: Tensor, batch: Batch, target: str) -> Tensor:
    """ln p: over classes, or for a selection over the nodes of each graph."""
    if target != "selection":
        return logits.log_softmax(1)
    graphs = len(batch.targets)
    most = logits.new_full((graphs,), -torch.inf).scatter_reduce(
        0, batch.graph, logits.detach(), "amax"
    )
    above = logits - most[batch.graph]
    total = above.new_zeros(graphs).index_add(0, batch.graph, above.exp())
    return above - total.log()[batch.graph]


def chosen(logs: Tensor, batch: Batch, target: str) -> tuple[Tensor, Tensor]:
    """The likeliest class or node, and ln p of it; of the first where several are."""
    if target != "selection":
        found = logs.max(1)
        return found.indices, found.values
    graphs = len(batch.targets)
    best = logs.new_full((graphs,), -torch.inf).scatter_reduce(0, batch.graph, logs, "amax")
    places = torch.arange(len(logs))
    first = places.new_full((graphs,), len(logs)).scatter_reduce(
        0, batch.graph, torch.where(logs == best[batch.graph], places, len(logs)), "amin"
    )
    return first, best


def nats(logs: Tensor, batch: Batch, target: str) -> tuple[Tensor, int]:
    """Σ −ln p of what is asked, and how many labels that is."""
    known = batch.targets >= 0
    asked = batch.targets[known]
    if target == "selection":
        return -logs[asked].sum(), len(asked)
    return -logs[known].gather(1, asked.unsqueeze(1)).sum(), len(asked)
