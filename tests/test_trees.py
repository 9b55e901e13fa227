"""Trees: the walk over levels against plain recursions written here, and what a user may give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import elman
from elman.cells import OF_TREES
from elman.equation.neighbours import divide
from elman.errors import EquationError, InputError, SizeError

DOUBLE = torch.float64
NAMES = [cell.name for cell in OF_TREES]


def _parents(nodes: int, seed: int, most: int = 2) -> torch.Tensor:
    """Random trees in which a node has at most `most` children, numbered in any order."""
    draw = torch.Generator().manual_seed(seed)
    parents, counts = [-1] * nodes, [0] * nodes
    for node in range(1, nodes):
        free = [v for v in range(node) if counts[v] < most]
        if torch.rand((), generator=draw) < 0.9 and free:
            parents[node] = free[int(torch.randint(len(free), (), generator=draw))]
            counts[parents[node]] += 1
    places = torch.randperm(nodes, generator=draw)
    shuffled = torch.full((nodes,), -1)
    for node, parent in enumerate(parents):
        shuffled[places[node]] = places[parent] if parent >= 0 else -1
    return shuffled


def _layer(name: str, **options) -> elman.Tree:
    torch.manual_seed(0)
    layer = elman.Tree(name, 3, 4, dtype=DOUBLE, **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return layer


def _recursion(name: str, p: dict, x: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
    """Each node by itself, from the papers' equations."""
    children: list[list[int]] = [[] for _ in x]
    for node, parent in enumerate(parents.tolist()):
        if parent >= 0:
            children[parent].append(node)
    sigmoid, tanh = torch.sigmoid, torch.tanh
    none = x.new_zeros(4)

    def at(values, place):
        return values[place] if place < len(values) else none

    def visit(node):
        below = [visit(child) for child in children[node]]
        h, c = [b[0] for b in below], [b[1] for b in below]
        v, s = x[node], sum((b[0] for b in below), none)
        if name == "recursive":
            return tanh(p["W"] @ v + p["b"] + p["U_0"] @ at(h, 0) + p["U_1"] @ at(h, 1)), none
        if name == "tree_gru":
            z = sigmoid(p["W_z"] @ v + p["U_z"] @ s + p["b_z"])
            r = [sigmoid(p["W_r"] @ v + p["U_r"] @ k + p["b_r"]) for k in h]
            m = sum((a * b for a, b in zip(r, h, strict=True)), none)
            return z * s + (1 - z) * tanh(p["W_n"] @ v + p["U_n"] @ m + p["b_n"]), none
        if name == "child_sum_tree_lstm":
            i, o, u = (p[f"W_{g}"] @ v + p[f"U_{g}"] @ s + p[f"b_{g}"] for g in "iou")
            f = [sigmoid(p["W_f"] @ v + p["U_f"] @ k + p["b_f"]) for k in h]
            memory = sigmoid(i) * tanh(u) + sum((a * b for a, b in zip(f, c, strict=True)), none)
            return sigmoid(o) * tanh(memory), memory
        i, o, u = (
            p[f"W_{g}"] @ v + p[f"b_{g}"] + p[f"U_{g}_0"] @ at(h, 0) + p[f"U_{g}_1"] @ at(h, 1)
            for g in "iou"
        )
        memory = sigmoid(i) * tanh(u)
        for k in (0, 1):
            a = p["W_f"] @ v + p["b_f"]
            a = a + p[f"U_f_{k}_0"] @ at(h, 0) + p[f"U_f_{k}_1"] @ at(h, 1)
            memory = memory + sigmoid(a) * at(c, k)
        return sigmoid(o) * tanh(memory), memory

    return torch.stack([visit(node)[0] for node in range(len(x))])


def _gradients(out, wanted):
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad((out * weights).sum(), wanted)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_the_walk_is_the_recursion(name, backend):
    layer = _layer(name, backend=backend)
    p = dict(layer.named_parameters())
    for seed in range(4):
        parents = _parents(12, seed)
        x = torch.randn(12, 3, dtype=DOUBLE, requires_grad=True)
        out, expected = layer(x, parents)[0], _recursion(name, p, x, parents)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        wanted = (x, *p.values())
        for ours, theirs in zip(_gradients(out, wanted), _gradients(expected, wanted), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


SEQUENCES = {
    "recursive": ("simple", {"arity": 1}),
    "child_sum_tree_lstm": ("lstm", {}),
    "nary_tree_lstm": ("lstm", {"arity": 1}),
    "tree_gru": ("gru_cho", {}),
}


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("name", NAMES)
def test_a_chain_is_the_sequence_to_the_bit(name, dtype):
    sequence, hyper = SEQUENCES[name]
    torch.manual_seed(1)
    layer = elman.Tree(name, 7, 18, hyper=hyper, dtype=dtype, backend="cpu")
    plain = elman.Recurrent(sequence, 7, 18, dtype=dtype, backend="cpu")
    mine = {}
    for parameter, value in plain.named_parameters():
        called = parameter.removesuffix("_l0")
        called = called.replace("_g", "_u") if sequence == "lstm" else called
        if hyper and called.startswith("U"):
            called += "_0_0" if called == "U_f" else "_0"
        mine[parameter] = called
        with torch.no_grad():
            getattr(layer, called).copy_(value)
    x = torch.randn(25, 7, dtype=dtype, requires_grad=True)
    parents = torch.cat([torch.arange(1, 25), torch.tensor([-1])])
    out, expected = layer(x, parents)[0], plain(x.unsqueeze(1))[0].squeeze(1)
    assert torch.equal(out, expected)
    ours = _gradients(out, [x, *(getattr(layer, n) for n in mine.values())])
    theirs = _gradients(expected, [x, *(getattr(plain, n) for n in mine)])
    close = 1e-12 if dtype == DOUBLE else 2e-5
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=close)


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_is_the_same_alone_and_in_a_batch(name):
    torch.manual_seed(0)
    layer = elman.Tree(name, 3, 20, backend="cpu")
    parts = [_parents(9, seed) for seed in range(3)]
    x = torch.randn(27, 3)
    shifted = [p + 9 * k * (p >= 0) for k, p in enumerate(parts)]
    together = layer(x, torch.cat(shifted))[0]
    alone = torch.cat([layer(x[9 * k : 9 * k + 9], p)[0] for k, p in enumerate(parts)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", ["child_sum_tree_lstm", "tree_gru"])
def test_the_order_of_children_does_not_matter_to_a_sum(name):
    layer = _layer(name)
    x = torch.randn(6, 3, dtype=DOUBLE)
    edges = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 0, 0, 3]])
    one = layer(x, edge_index=edges)[0]
    other = layer(x, edge_index=edges[:, torch.tensor([3, 0, 4, 2, 1])])[0]
    torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


def test_the_order_of_children_matters_to_places():
    layer = _layer("nary_tree_lstm")
    x = torch.randn(3, 3, dtype=DOUBLE)
    edges = torch.tensor([[1, 2], [0, 0]])
    assert not torch.allclose(
        layer(x, edge_index=edges)[0][0], layer(x, edge_index=edges.flip(1))[0][0]
    )


def test_a_dag_reads_a_shared_node_once_for_each_edge():
    layer = _layer("child_sum_tree_lstm")
    x = torch.randn(4, 3, dtype=DOUBLE)
    shared = layer(x, edge_index=torch.tensor([[3, 3, 1, 2], [1, 2, 0, 0]]))[0]
    # The tree in which the shared node stands twice.
    parents = torch.tensor([-1, 0, 0, 1, 2])
    tree = layer(x[torch.tensor([0, 1, 2, 3, 3])], parents)[0]
    torch.testing.assert_close(shared, tree[:4], rtol=0, atol=1e-14)


def test_from_the_top_down_each_node_reads_its_parent():
    down = _layer("child_sum_tree_lstm", direction="down")
    x = torch.randn(5, 3, dtype=DOUBLE)
    parents = torch.tensor([-1, 0, 0, 1, 1])
    out = down(x, parents)[0]
    chain = torch.tensor([1, 2, -1])
    down.direction = "up"
    for path in ([0, 1, 3], [0, 1, 4]):
        torch.testing.assert_close(out[path], down(x[path], chain)[0], rtol=0, atol=1e-14)
    both = _layer("child_sum_tree_lstm", direction="both")
    assert both(x, parents)[0].shape == (5, 8)
    assert both.output_size == 8


def test_learned_initial_states_stand_where_there_is_no_child():
    layer = _layer("recursive", initial_state="learned")
    x = torch.randn(1, 3, dtype=DOUBLE)
    u = layer.U_0 + layer.U_1
    expected = torch.tanh(layer.W @ x[0] + layer.b + u @ layer.initial_h)
    torch.testing.assert_close(layer(x, torch.tensor([-1]))[0][0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives(name):
    layer = _layer(name)
    parents = _parents(5, 3)
    x = torch.randn(5, 3, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: layer(v, parents)[0], (x,))


@pytest.mark.filterwarnings("ignore:.torch.jit.script.:DeprecationWarning")
def test_transforms_of_torch_func():
    layer, parents = _layer("child_sum_tree_lstm"), _parents(6, 2)
    x = torch.randn(6, 3, dtype=DOUBLE, requires_grad=True)

    def loss(v):
        return layer(v, parents)[0].square().sum()

    expected = torch.autograd.grad(loss(x), x)[0]
    torch.testing.assert_close(torch.func.grad(loss)(x.detach()), expected)
    torch.testing.assert_close(torch.func.jacrev(loss)(x.detach()), expected)
    torch.testing.assert_close(torch.func.jacfwd(loss)(x.detach()), expected)


@settings(max_examples=25, deadline=None)
@given(nodes=st.integers(1, 15), seed=st.integers(0, 10_000))
def test_random_trees(nodes, seed):
    layer = _layer("child_sum_tree_lstm", backend="cpu")
    x = torch.randn(nodes, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    parents = _parents(nodes, seed, most=5)
    expected = _recursion("child_sum_tree_lstm", dict(layer.named_parameters()), x, parents)
    torch.testing.assert_close(layer(x, parents)[0], expected, rtol=0, atol=1e-12)


def test_a_deep_tree_and_a_wide_one():
    layer = elman.Tree("child_sum_tree_lstm", 2, 3, backend="cpu")
    deep = torch.cat([torch.arange(1, 1000), torch.tensor([-1])])
    x = torch.randn(1000, 2, requires_grad=True)
    layer(x, deep)[0][-1].sum().backward()
    assert x.grad is not None
    assert bool(x.grad[-1].abs().sum() > 0)
    star = torch.zeros(100_001, dtype=torch.long)
    star[0] = -1
    out = layer(torch.randn(100_001, 2), star)[0]
    assert bool(out.isfinite().all())


def test_no_nodes_and_one_node():
    layer = elman.Tree("tree_gru", 2, 3)
    out, h = layer(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    assert out.shape == (0, 3)
    assert h.shape == (0, 3)
    assert layer(torch.zeros(1, 2), torch.tensor([-1]))[0].shape == (1, 3)


def test_what_cannot_be_a_tree_is_named():
    layer = elman.Tree("child_sum_tree_lstm", 2, 3)
    x = torch.zeros(3, 2)
    with pytest.raises(InputError, match=r"circle, (0 → 1 → 2 → 0|1 → 2 → 0 → 1|2 → 0 → 1 → 2)"):
        layer(x, torch.tensor([1, 2, 0]))
    with pytest.raises(InputError, match="circle, 1 → 1"):
        layer(x, edge_index=torch.tensor([[0, 1], [1, 1]]))
    with pytest.raises(SizeError, match="parent of node 1 is 7"):
        layer(x, torch.tensor([-1, 7, 0]))
    with pytest.raises(SizeError, match="edge 1 goes from 1 to 3"):
        layer(x, edge_index=torch.tensor([[0, 1], [1, 3]]))
    with pytest.raises(SizeError, match="a whole number for each of the 3"):
        layer(x, torch.tensor([-1, 0]))
    with pytest.raises(SizeError, match=r"give \(nodes, 2\)"):
        layer(torch.zeros(3, 5), torch.tensor([-1, 0, 0]))
    with pytest.raises(InputError, match="either parents or edge_index"):
        layer(x)
    with pytest.raises(InputError, match="node 0 has 3 children"):
        elman.Tree("nary_tree_lstm", 2, 3)(torch.zeros(4, 2), torch.tensor([-1, 0, 0, 0]))


def test_cells_and_layers_that_do_not_fit():
    with pytest.raises(InputError, match=r"use elman\.Recurrent"):
        elman.Tree("lstm", 2, 3)
    with pytest.raises(InputError, match=r"use elman\.Tree"):
        elman.Recurrent("tree_gru", 2, 3)
    with pytest.raises(InputError, match="old state"):
        elman.Tree("gated_graph", 2, 3)
    with pytest.raises(InputError, match="the laws are those of sequences"):
        elman.check("tree_gru")
    with pytest.raises(InputError, match="there are no cells of 'tree'"):
        elman.cells.names("tree")


def test_a_body_that_mixes_edges_and_nodes_is_refused():
    with pytest.raises(EquationError, match="the new h has a value for each edge"):

        @elman.cell
        def unsummed(p, x, h):
            return torch.tanh(p.W @ x + p.U @ elman.each(h))

    with pytest.raises(EquationError, match="needs a value for each edge"):

        @elman.cell
        def nothing_to_sum(p, x, h):
            return torch.tanh(p.W @ elman.total(x) + p.U @ h)

    with pytest.raises(EquationError, match="another sum over edges"):

        @elman.cell
        def twice(p, x, h):
            return elman.total(elman.each(h) * elman.total(elman.each(h))) + p.W @ x

    with pytest.raises(EquationError, match="counts children from 0"):

        @elman.cell
        def far(p, x, h):
            return torch.tanh(p.W @ x + p.U @ elman.child(h, -1))


@pytest.mark.parametrize("name", [c.name for c in (*OF_TREES, *elman.cells.OF_GRAPHS)])
def test_the_equation_survives_its_file(name):
    cell = elman.cells.get(name)
    again = elman.Cell.from_json(cell.to_json())
    assert again == cell
    assert divide(again.graph) == divide(cell.graph)
    assert cell.source
    assert cell.graph.latex()
