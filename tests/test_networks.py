"""Graphs: rounds of messages against formulas on dense matrices, written here."""

from __future__ import annotations

import pytest
import torch

import elman
from elman.errors import InputError, SizeError

DOUBLE = torch.float64
EDGES = torch.tensor([[0, 1, 2, 3, 0, 4, 4], [1, 0, 1, 2, 3, 4, 1]])
NODES = 6  # the last one alone


def _layer(name: str, **options) -> elman.Network:
    torch.manual_seed(0)
    layer = elman.Network(name, 3, 5, dtype=DOUBLE, **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def _adjacency() -> torch.Tensor:
    """A with A[v, u] the number of edges from u to v."""
    matrix = torch.zeros(NODES, NODES, dtype=DOUBLE)
    for sender, receiver in EDGES.T.tolist():
        matrix[receiver, sender] += 1
    return matrix


def _gated_graph(p, x, edges, adjacency):
    h = torch.nn.functional.pad(x, (0, 2))
    for _ in range(3):
        m = adjacency @ h @ p["A"].T + p["a"]
        r = torch.sigmoid(m @ p["W_r"].T + h @ p["U_r"].T + p["b_r"])
        z = torch.sigmoid(m @ p["W_z"].T + h @ p["U_z"].T + p["b_z"])
        n = torch.tanh(m @ p["W_n"].T + (r * h) @ p["U_n"].T + p["b_n"])
        h = (1 - z) * h + z * n
    return h


def _gated_graph_typed(p, x, edges, adjacency):
    h = torch.nn.functional.pad(x, (0, 2))
    for _ in range(2):
        rows = [p["a"].clone() for _ in range(NODES)]
        for k, (u, v) in enumerate(EDGES.T.tolist()):
            matrix = sum(edges["e"][k, t] * p["A"][:, t] for t in range(3))
            rows[v] = rows[v] + matrix @ h[u]
        m = torch.stack(rows)
        r = torch.sigmoid(m @ p["W_r"].T + h @ p["U_r"].T + p["b_r"])
        z = torch.sigmoid(m @ p["W_z"].T + h @ p["U_z"].T + p["b_z"])
        n = torch.tanh(m @ p["W_n"].T + (r * h) @ p["U_n"].T + p["b_n"])
        h = (1 - z) * h + z * n
    return h


def _message_passing(p, x, edges, adjacency):
    h = x.new_zeros(NODES, 5)
    for _ in range(2):
        rows = [x.new_zeros(5) for _ in range(NODES)]
        for k, (u, v) in enumerate(EDGES.T.tolist()):
            m = p["M"] @ h[v] + p["N"] @ h[u] + p["E"] @ edges["e"][k] + p["a"]
            rows[v] = rows[v] + torch.relu(m)
        total = torch.stack(rows)
        h = torch.relu(x @ p["W"].T + h @ p["U"].T + total @ p["V"].T + p["b"])
    return h


def _graph_convolution(p, x, edges, adjacency):
    matrix = x.new_zeros(NODES, NODES)
    matrix = matrix.index_put((EDGES[1], EDGES[0]), edges["w"], accumulate=True)
    return torch.relu(matrix @ x @ p["W"].T + p["b"])


def _mean_neighbours(p, x, edges, adjacency):
    h = x.new_zeros(NODES, 5)
    share = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
    for _ in range(2):
        h = torch.relu(x @ p["W"].T + h @ p["U"].T + share @ h @ p["V"].T + p["b"])
    return h


CASES = {
    "gated_graph": (_gated_graph, {"start": "input", "rounds": 3}, {}),
    "gated_graph_typed": (
        _gated_graph_typed,
        {"start": "input", "sizes": {"edge": 3}, "rounds": 2},
        {"e": (7, 3)},
    ),
    "message_passing": (_message_passing, {"sizes": {"edge": 2}, "rounds": 2}, {"e": (7, 2)}),
    "graph_convolution": (_graph_convolution, {}, {"w": (7,)}),
    "mean_neighbours": (_mean_neighbours, {"rounds": 2}, {}),
}


BACKENDS = [
    (name, backend) for name in CASES for backend in ("cpu", "reference")
    if (name, backend) != ("gated_graph_typed", "cpu")
]  # fmt: skip


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_rounds_are_the_dense_formula(name, backend):
    oracle, options, shapes = CASES[name]
    layer = _layer(name, backend=backend, **options)
    p = dict(layer.named_parameters())
    x = torch.randn(NODES, 3, dtype=DOUBLE, requires_grad=True)
    edges = {n: torch.rand(s, dtype=DOUBLE, requires_grad=True) for n, s in shapes.items()}
    out = layer(x, EDGES, edges=edges)[0]
    expected = oracle(p, x, edges, _adjacency())
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    wanted = [x, *edges.values(), *p.values()]
    weights = torch.linspace(-1, 1, out.numel(), dtype=DOUBLE).view_as(out)
    ours = torch.autograd.grad((out * weights).sum(), wanted, allow_unused=True)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        if a is None or b is None:
            assert a is None
            assert b is None or not b.any()
        else:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_what_the_kernel_cannot_is_said():
    layer = elman.Network("gated_graph_typed", 3, 5, sizes={"edge": 2})
    assert "the operation 'bilinear'" in layer.explain()
    assert "runs on the reference" in layer.explain()
    with pytest.raises(InputError, match="bilinear"):
        elman.Network("gated_graph_typed", 3, 5, sizes={"edge": 2}, backend="cpu")(
            torch.zeros(1, 3), torch.zeros(2, 0, dtype=torch.long), edges={"e": torch.zeros(0, 2)}
        )


def test_the_largest_neighbour():
    @elman.cell
    def pooled(p, x, h):
        return torch.tanh(p.W @ x + p.U @ elman.largest(p.V @ elman.each(h)) + p.b)

    layer = elman.Network(pooled, 3, 5, dtype=DOUBLE, backend="cpu")
    x, h = torch.randn(NODES, 3, dtype=DOUBLE), torch.randn(NODES, 5, dtype=DOUBLE)
    most = torch.zeros(NODES, 5, dtype=DOUBLE)
    for v in range(NODES):
        senders = EDGES[0][EDGES[1] == v]
        if len(senders):
            most[v] = (h[senders] @ layer.V.T).max(0).values
    expected = torch.tanh(x @ layer.W.T + most @ layer.U.T + layer.b)
    torch.testing.assert_close(layer(x, EDGES, h)[0], expected, rtol=0, atol=1e-12)


def test_graphs_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    layer = elman.Network("mean_neighbours", 3, 5, rounds=3, backend="cpu")
    x = torch.randn(2 * NODES, 3)
    together = layer(x, torch.cat([EDGES, EDGES + NODES], 1))[0]
    alone = torch.cat([layer(x[:NODES], EDGES)[0], layer(x[NODES:], EDGES)[0]])
    assert torch.equal(together, alone)


def test_symmetric_weights_are_the_papers_matrix():
    adjacency = ((_adjacency() + _adjacency().T) > 0).to(DOUBLE).fill_diagonal_(0)
    index, weights = elman.symmetric_weights(adjacency.nonzero().T, NODES, DOUBLE)
    found = torch.zeros(NODES, NODES, dtype=DOUBLE).index_put((index[1], index[0]), weights)
    looped = adjacency + torch.eye(NODES, dtype=DOUBLE)
    scale = looped.sum(1).rsqrt()
    torch.testing.assert_close(found, scale[:, None] * looped * scale)


def test_a_batch_vector_is_held_to_the_edges():
    layer = elman.Network("mean_neighbours", 3, 5)
    x = torch.zeros(2 * NODES, 3)
    edges = torch.cat([EDGES, EDGES + NODES], 1)
    batch = torch.arange(2).repeat_interleave(NODES)
    assert torch.equal(layer(x, edges, batch=batch)[0], layer(x, edges)[0])
    with pytest.raises(SizeError, match="edge 7 goes from node 5 of graph 0 to node 6 of graph 1"):
        layer(x, torch.cat([EDGES, torch.tensor([[5], [6]])], 1), batch=batch)
    with pytest.raises(SizeError, match="batch has shape"):
        layer(x, edges, batch=batch[:-1])
    with pytest.raises(SizeError, match=r"type torch\.bool"):
        layer(x, EDGES.bool())
    tree = elman.Tree("tree_gru", 3, 5)
    with pytest.raises(SizeError, match="edge 0 goes from node 0 of graph 0 to node 1 of graph 1"):
        tree(x[:2], torch.tensor([1, -1]), batch=torch.tensor([0, 1]))


def test_no_edges_one_node_and_no_nodes():
    layer = elman.Network("message_passing", 2, 3, sizes={"edge": 1})
    none = torch.zeros(2, 0, dtype=torch.long)
    for nodes in (1, 0):
        out, h = layer(torch.zeros(nodes, 2), none, edges={"e": torch.zeros(0, 1)})
        assert out.shape == (nodes, 3)
        assert h.shape == (nodes, 3)


def test_what_does_not_fit_is_named():
    layer = elman.Network("message_passing", 3, 5, sizes={"edge": 2})
    x, e = torch.zeros(NODES, 3), torch.zeros(7, 2)
    with pytest.raises(InputError, match="the equation reads 'e'"):
        layer(x, EDGES)
    with pytest.raises(SizeError, match=r"e has shape \(6, 2\); expected \(7, 2\)"):
        layer(x, EDGES, edges={"e": e[:6]})
    with pytest.raises(InputError, match="there is no input 'f'"):
        layer(x, EDGES, edges={"e": e, "f": e})
    with pytest.raises(SizeError, match="edge 0 goes from 0 to 9"):
        layer(x, torch.tensor([[0], [9]]), edges={"e": e[:1]})
    with pytest.raises(SizeError, match="whole numbers, senders above receivers"):
        layer(x, EDGES.T, edges={"e": e})
    with pytest.raises(SizeError, match="the state has shapes"):
        layer(x, EDGES, torch.zeros(NODES, 4), edges={"e": e})
    with pytest.raises(InputError, match="hidden_size is 2; give at least 3"):
        elman.Network("gated_graph", 3, 2, start="input")
    with pytest.raises(InputError, match="children by their place"):
        elman.Network("recursive", 2, 3)
    with pytest.raises(InputError, match=r"use elman\.Recurrent"):
        elman.Network("gru", 2, 3)
