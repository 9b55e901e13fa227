"""The adjoint of a step is the transpose of its derivative, for every cell and random equations."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch
from adjoint_steps import REWRITES, Leaves, Through, check_step
from cases import CASES, generator
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import ORACLE, assert_close
from torch.nn import functional as F

import elman
from elman.backends.reference import initial_carried, run
from elman.equation import OPERATIONS, Graph, Node, Parameter, State
from elman.equation.adjoint import Adjoint, adjoint, pull_back, step_values
from elman.equation.sizes import shape_of
from elman.equation.trace import Declared, trace

# torch's own first use of forward mode loads decompositions written with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_rewrite = pytest.mark.parametrize("rewrite", REWRITES)


# --- cells ---


@every_case
@every_rewrite
def test_adjoint_of_a_step_is_the_transpose(case, rewrite):
    numbers = generator(case, 5)
    check_step(Leaves(REWRITES[rewrite](case.graph), case.all_sizes, numbers), numbers)


@every_case
@every_rewrite
def test_stepping_the_adjoint_back_is_backpropagation_through_time(case, rewrite):
    graph, sizes = REWRITES[rewrite](case.graph), case.all_sizes
    numbers, time, batch = generator(case, 7), 6, 2
    draw = partial(torch.randn, generator=numbers, dtype=torch.float64)
    parameters = {k: 0.5 * draw(s) for k, s in graph.parameter_shapes(sizes).items()}
    x = draw(time, batch, sizes["input"])
    extras = {
        i.name: draw(*([time] if i.varies == "step" else []), batch, *shape_of(i.dims, sizes))
        for i in graph.inputs[1:]
    }
    start = initial_carried(graph, sizes, batch, dtype=torch.float64)
    carried = tuple(0.5 * draw(v.shape) for v in start)
    asked = [v.clone().requires_grad_() for v in (x, *extras.values(), *carried)]
    trained = {k: v.clone().requires_grad_() for k, v in parameters.items()}
    count = 1 + len(extras)
    out, last, _ = run(
        graph, trained, asked[0], tuple(asked[count:]),
        extras=dict(zip(extras, asked[1:count], strict=True)),
    )  # fmt: skip
    weights = draw(out.shape), tuple(draw(v.shape) for v in last)
    expected = torch.autograd.grad(
        (out, *last), (*asked, *trained.values()), (weights[0], *weights[1]),
        materialize_grads=True,
    )  # fmt: skip
    found = Through(graph, parameters, x, carried, extras).back(*weights)
    assert_close(found, expected, what="gradients")


# --- random equations ---

ONE = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda a: F.leaky_relu(a, 0.2),
    "elu": F.elu,
    "softplus": lambda a: F.softplus(a, 2.0, 1.0),
    "exp": lambda a: torch.exp(torch.tanh(a)),
    "log": lambda a: torch.log(0.5 + a * a),
    "sqrt": lambda a: torch.sqrt(0.5 + abs(a)),
    "abs": torch.abs,
    "sin": torch.sin,
    "cos": torch.cos,
    "neg": lambda a: -a,
    "clamp": lambda a: torch.clamp(a, -0.5, 0.5),
    "softmax": lambda a: torch.softmax(-a, -1),
    "layer_norm": lambda a: F.layer_norm(-a, a.shape[-1:]),
    "square": lambda a: torch.tanh(a) ** 2,
    "cube": lambda a: torch.tanh(a) ** 3.0,
    "exponent": lambda a: 2.0 ** torch.tanh(a),
    "rest": lambda a: 1.0 - a,
    "double": lambda a: 2.0 * a,
    "floor": lambda a: torch.maximum(a, torch.zeros_like(a)),
    "self": lambda a: torch.minimum(a, a),
}  # hardsigmoid is left out: torch's own slope is wrong in the eighth digit
TWO = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: torch.tanh(a) * b,
    "div": lambda a, b: a / (1.5 + torch.tanh(b)),
    "pow": lambda a, b: (0.3 + torch.sigmoid(a)) ** torch.tanh(b),
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "gt": lambda a, b: torch.where(a > b, a, 0.5),
    "ge": lambda a, b: torch.where(a >= b, 2.0 * b, a),
    "lt": lambda a, b: torch.where(a < b, b, a * b),
    "le": lambda a, b: torch.where(a <= 0.1, b, -a),
    "lerp": lambda a, b: torch.lerp(a, b, 0.3),
}
# What is not element by element, or mixes kinds: the kinds of operands and of the result, by which
# "v" is a vector, "m" a matrix and "s" a scalar of a row.
ACROSS = {
    "product": ("v", "v", lambda p, a: p.U @ torch.tanh(a)),
    "skew": ("v", "v", lambda p, a: (p.U - p.U.T) @ torch.tanh(a)),
    "low rank": ("v", "v", lambda p, a: (p.A @ p.B) @ torch.tanh(a)),
    "heads": ("v", "v", lambda p, a: elman.block_diagonal(p.R, 2) @ torch.tanh(a)),
    "matvec": ("mv", "v", lambda p, a, b: torch.tanh(a) @ b),
    "matmat": ("mm", "m", lambda p, a, b: torch.tanh(a) @ torch.tanh(b)),
    "from the left": ("m", "m", lambda p, a: p.N @ torch.tanh(a)),
    "from the right": ("m", "m", lambda p, a: torch.tanh(a) @ p.N),
    "transpose": ("m", "m", lambda p, a: torch.tanh(a.T)),
    "outer": ("vv", "m", lambda p, a, b: torch.outer(torch.tanh(a), b)),
    "bilinear": ("vv", "v", lambda p, a, b: F.bilinear(torch.tanh(a), b, p.T)),
    "dot": ("vv", "s", lambda p, a, b: torch.dot(torch.tanh(a), b)),
    "sum": ("v", "s", lambda p, a: torch.sum(a)),
    "mean": ("v", "s", lambda p, a: torch.mean(a)),
    "sum of rows": ("m", "v", lambda p, a: torch.sum(a, -1)),
    "mean of rows": ("m", "v", lambda p, a: torch.mean(a, -1)),
    "all": ("m", "s", lambda p, a: torch.mean(torch.sum(a, -1))),
    "column": ("mv", "m", lambda p, a, b: a * torch.tanh(b).unsqueeze(-1)),
    "row": ("mv", "m", lambda p, a, b: torch.tanh(b).unsqueeze(-2) - a),
    "both": ("vv", "m", lambda p, a, b: torch.tanh(a).unsqueeze(-1) / (2 + b.unsqueeze(-2) ** 2)),
    "chosen rows": ("m", "m", lambda p, a: torch.softmax(2.0 * a, -1)),
    "normal rows": ("m", "m", lambda p, a: F.layer_norm(a, a.shape[-1:])),
    "oblong": (
        "vv",
        "v",
        lambda p, a, b: torch.softmax(torch.outer(a, p.V.T @ b), -1) @ (p.V.T @ a),
    ),
    "one": ("v", "v", lambda p, a: p.k * torch.tanh(a) + p.k),
    "one row": ("m", "m", lambda p, a: p.K * torch.tanh(a)),
    "one column": ("m", "m", lambda p, a: torch.tanh(a) - p.L),
    "scaled": ("sv", "v", lambda p, a, b: torch.tanh(a) * b),
    "shifted": ("sm", "m", lambda p, a, b: b - a),
    "over": ("sv", "v", lambda p, a, b: a / (1.5 + torch.tanh(b))),
    "bound": ("sv", "v", lambda p, a, b: torch.maximum(a, b)),
    "choice": ("sv", "v", lambda p, a, b: torch.where(a > 0, b, a)),
    "choice of two": ("svv", "v", lambda p, a, b, c: torch.where(b < a, c, torch.tanh(a))),
}
UNITS_ONLY = ("softmax", "layer_norm")
DECLARED = Declared(
    sizes={"M": ("hidden", "hidden"), "s": ()},
    inputs={"dt": ()},
    shapes={
        "a": "hidden", "b": "hidden", "d": "hidden", "e": (), "k": ("1",), "K": ("1", "hidden"),
        "L": ("hidden", "1"), "N": ("hidden", "hidden"),
    },
)  # fmt: skip
INSTRUCTIONS = st.tuples(
    st.sampled_from([*ONE, *TWO, *ACROSS]),
    st.sampled_from(["v", "m", "s"]),
    st.tuples(st.integers(0), st.integers(0), st.integers(0)),
)


def random_graph(program: list[tuple[str, str, tuple[int, int, int]]]) -> Graph:
    """The graph of a straight program, whose later values are the new states."""

    def body(p, x, dt, h, c, M, s):
        far = p.V @ elman.delay(x, 2)
        values = {
            "v": [h, c, p.W @ x, p.a, p.b + p.d, elman.delay(h, 3), far],
            "m": [M, p.N, elman.delay(M, 2)],
            "s": [s, dt, p.e, elman.delay(dt, 1)],
        }
        for op, kind, places in program:
            kind = "v" if kind == "s" and op in UNITS_ONLY else kind
            kinds = {1: kind, 2: 2 * kind}.get((op in ONE) + 2 * (op in TWO))
            taken = [
                values[k][-1 - i % len(values[k])]
                for k, i in zip(kinds or ACROSS[op][0], places, strict=False)
            ]
            if op in ACROSS:
                values[ACROSS[op][1]].append(ACROSS[op][2](p, *taken))
            else:
                values[kind].append(ONE[op](*taken) if op in ONE else TWO[op](*taken))
        v, m, s_last = values["v"], values["m"], values["s"][-1]
        # Every declared parameter must be used.
        new_c = c - v[-3] + v[2] + p.a * p.b * p.d * p.e * p.k
        return v[-1] * h + v[-2], new_c, M * p.K + m[-1] + m[-2] * p.L * p.N, s_last - s * dt

    return trace(body, {}, DECLARED)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(INSTRUCTIONS, min_size=1, max_size=14), st.integers(0, 2**32))
def test_adjoint_of_a_random_equation(program, seed):
    graph = random_graph(program)
    numbers = torch.Generator().manual_seed(seed)
    leaves = Leaves(graph, {"input": 3, "hidden": 4}, numbers)
    # Autograd must go over the same rounded values, or a condition might fall another way.
    leaves.step = leaves.step_by_values
    check_step(leaves, numbers, ORACLE)


def test_every_operation_is_among_the_random_ones():
    used = {"hardsigmoid"}
    for op in (*ONE, *TWO, *ACROSS):
        used |= {node.op for node in random_graph([(op, "v", (0, 1, 2))]).nodes}
    assert set(OPERATIONS) <= used


@pytest.mark.parametrize("op", ACROSS)
@pytest.mark.parametrize("places", [(0, 0, 0), (1, 2, 3), (2, 3, 4), (0, 4, 5)], ids=str)
def test_adjoint_of_one_operation_across_kinds(op, places):
    """Each alone, on states, on inputs and on parameters; then beside what reads it again."""
    numbers = torch.Generator().manual_seed(0)
    again = ("tanh", ACROSS[op][1], (0, 0, 0)), ("mul", ACROSS[op][1], (0, 1, 0))
    for program in ([(op, "v", places)], [(op, "v", places), *again]):
        leaves = Leaves(random_graph(program), {"input": 3, "hidden": 4}, numbers)
        check_step(leaves, numbers)


# --- what stands where ---


def work(backward: Adjoint) -> Counter[str]:
    return Counter(backward.nodes[i].op for i in backward.own)


def test_lstm_backward_is_as_short_as_by_hand():
    """δ of the four gates take 21 operations, the carried cell one; the rest is the products.

    By hand: dh = ȳ + h̄; do = dh tanh c; dc = c̄ + dh o (1 − tanh² c); di = dc g; df = dc c₋₁;
    dg = dc i; each gate times its slope (three operations); c̄₋₁ = dc f; then h̄₋₁ = Σ Uᵀδ and
    x̄ = Σ Wᵀδ, four products and three sums each.
    """
    backward = adjoint(elman.cells.get("lstm").graph)
    by_hand = 1 + 1 + 5 + 3 + 4 * 3 + 1
    assert len(backward.own) == by_hand + 2 * (4 + 3) == 37
    assert work(backward) == {"mul": 16, "sub": 5, "add": 8, "matmul_transposed": 8}
    assert len(backward.walk) == by_hand + 4 + 3


@pytest.mark.parametrize(
    ("cell", "rewrite", "operations", "in_the_walk"),
    [
        ("simple", "plain", 6, 5),
        ("gru", "plain", 26, 21),
        ("mingru", "plain", 10, 2),
        ("tdnn", "plain", 7, 0),
        ("lstm", "layer_norm", 37 + 8 * 10, 66),
        # For each state: two products and a sum, and two operations for the mask's cotangent.
        ("lstm", "zoneout", 37 + 2 * 5, 30 + 2 * 3),
        ("lstm", "dropout", 37 + 2, 30 + 1),
        # ȳ + h̄, three for the slope, a product for h and one for x.
        ("second_order", "plain", 1 + 3 + 2, 1 + 3 + 1),
        ("lru", "plain", 27, 11),
        ("cfc", "plain", 28, 24),
        ("mlstm", "plain", 88, 50),
    ],
)
def test_number_of_operations(cell, rewrite, operations, in_the_walk):
    backward = adjoint(REWRITES[rewrite](elman.cells.get(cell).graph))
    assert (len(backward.own), len(backward.walk)) == (operations, in_the_walk)


@every_case
@every_rewrite
def test_adjoint_holds_nothing_twice_and_nothing_for_nothing(case, rewrite):
    graph = REWRITES[rewrite](case.graph)
    backward = adjoint(graph)
    first = len(graph.nodes)
    assert backward.nodes[:first] == graph.nodes
    assert set(backward.needed(backward.results)) == set(backward.own)
    added = [n[:4] for n in backward.nodes[first:]]
    assert len(set(added)) == len(added)
    for place, node in enumerate(backward.nodes):
        assert all(a < place for a in node.args)
        if place >= first and node.op in ("add", "sub", "mul", "div"):
            numbers = [backward.nodes[a] for a in node.args]
            trivial = [n for n in numbers if n[:3] == ("constant", (), (("value", 0.0),))]
            assert not trivial
    assert set(backward.walk) <= set(backward.own)


# --- parameters alone ---


def test_gradient_stops_where_parameters_alone_begin():
    def body(p, x, h):
        bias = p.b + p.c * 2.0
        return torch.tanh(p.W @ x + p.U @ h + bias) * torch.exp(-p.a) + p.a * h

    graph = trace(body, {}, Declared())
    backward = adjoint(graph)
    written = sorted(graph.nodes[i].op for i in backward.vectors)
    assert written == ["add", "exp", "parameter"]
    numbers = torch.Generator().manual_seed(0)
    check_step(Leaves(graph, {"input": 3, "hidden": 4}, numbers), numbers)


def test_a_number_that_meets_every_unit_hears_from_every_unit():
    nodes = (
        Node("state", (), (("name", "h"),), ("hidden",)),
        Node("parameter", (), (("name", "s"),), ()),
        Node("mul", (0, 1), (), ("hidden",)),
        Node("sub", (2, 1), (), ("hidden",)),
    )
    graph = Graph("scaled", nodes, (), (State("h", ("hidden",)),), (Parameter("s", ()),), 3, (3,))
    backward = adjoint(graph)
    h, weight = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    scale = torch.tensor(0.5, requires_grad=True)
    values = step_values(graph, {"s": scale}, {}, {"h": h})
    pulled = pull_back(backward, values, weight, {"h": torch.zeros(2, 2)})
    (summand,) = backward.vectors.values()
    (expected,) = torch.autograd.grad(values[3], scale, weight)
    assert pulled[summand].shape == (2,)
    assert_close(pulled[summand].sum(), expected)


def test_weights_are_nodes_of_parameters_alone():
    """(W − Wᵀ) h and blocks(R) h: their gradients stop at the matrix that the product has."""
    for cell, op in (("antisymmetric_rnn", "sub"), ("slstm", "block_diagonal")):
        backward = adjoint(elman.cells.get(cell).graph)
        weights = Counter(backward.graph.nodes[p.weight].op for p in backward.products)
        assert weights == {op: len(backward.products) // 2, "parameter": weights["parameter"]}
        assert not any(backward.levels[i] == 0 for i in backward.own)


def test_a_bilinear_weight_has_its_triple():
    backward = adjoint(elman.cells.get("second_order").graph)
    (found,) = backward.bilinear
    names = [backward.nodes[i].attribute("name") for i in found[:3]]
    assert (names, backward.products) == (["T", "h", "x"], ())
    assert found.cotangent in backward.results


def test_every_cotangent_has_the_sizes_of_its_value():
    for case in CASES:
        backward = adjoint(case.graph)
        nodes, leaves = backward.nodes, backward.graph.nodes
        for kind, found in (("input", backward.inputs), ("state", backward.states)):
            for name, place in found.items():
                dims = next(n.dims for n in leaves if n[:3] == (kind, (), (("name", name),)))
                assert nodes[place].dims == dims
        pairs = [*backward.vectors.items(), *((p.weight, p.cotangent) for p in backward.products)]
        for index, place in pairs:
            whole = index in backward.vectors and backward.vectors[index] == place
            assert nodes[place].dims == (leaves[index].dims if whole else leaves[index].dims[:1])


def test_a_state_that_nothing_reads_has_no_cotangent():
    backward = adjoint(elman.cells.get("tdnn").graph)
    assert dict(backward.states) == {}
    assert set(backward.delayed) == {("x", 1), ("x", 2)}
