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
from elman.equation.trace import trace

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
        i.name: draw(*([time] if i.varies == "step" else []), batch, sizes[i.size])
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
    "layer_norm": lambda a: F.layer_norm(-a, a.shape),
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
INSTRUCTIONS = st.tuples(st.sampled_from([*ONE, *TWO, "matmul"]), st.integers(0), st.integers(0))


def random_graph(program: list[tuple[str, int, int]]) -> Graph:
    """The graph of a straight program, whose later values are the new states."""

    def body(p, x, h, c):
        values = [h, c, p.W @ x, p.a, p.b + p.d, elman.delay(h, 3), p.V @ elman.delay(x, 2)]
        for place, (op, i, j) in enumerate(program):
            a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
            if op == "matmul":
                values.append(p["U", place % 3] @ torch.tanh(a))
            else:
                values.append(ONE[op](a) if op in ONE else TWO[op](a, b))
        return values[-1] * h + values[-2], c - values[-3] + values[2]

    return trace(body, {}, {}, {}, {})


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
    used = {"matmul", "hardsigmoid"}
    for op in (*ONE, *TWO):
        used |= {node.op for node in random_graph([(op, 0, 1), ("add", 0, 8)]).nodes}
    assert set(OPERATIONS) <= used


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
    added = [(n.op, n.args, n.attributes) for n in backward.nodes[first:]]
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

    graph = trace(body, {}, {}, {}, {})
    backward = adjoint(graph)
    written = sorted(graph.nodes[i].op for i in backward.vectors)
    assert written == ["add", "exp", "parameter"]
    numbers = torch.Generator().manual_seed(0)
    check_step(Leaves(graph, {"input": 3, "hidden": 4}, numbers), numbers)


def test_a_number_that_meets_every_unit_hears_from_every_unit():
    """A parameter without sizes, which the tracer does not yet make."""
    nodes = (
        Node("state", (), (("name", "h"),), ("hidden",)),
        Node("parameter", (), (("name", "s"),), ()),
        Node("mul", (0, 1), (), ("hidden",)),
        Node("sub", (2, 1), (), ("hidden",)),
    )
    graph = Graph("scaled", nodes, (), (State("h", "hidden"),), (Parameter("s", ()),), 3, (3,))
    backward = adjoint(graph)
    h, weight = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    scale = torch.tensor(0.5, requires_grad=True)
    values = step_values(graph, {"s": scale}, {}, {"h": h})
    pulled = pull_back(backward, values, weight, {"h": torch.zeros(2, 2)})
    (summand,) = backward.vectors.values()
    (expected,) = torch.autograd.grad(values[3], scale, weight)
    assert pulled[summand].shape == (2, 1)
    assert_close(pulled[summand].sum(), expected)


def test_a_state_that_nothing_reads_has_no_cotangent():
    backward = adjoint(elman.cells.get("tdnn").graph)
    assert dict(backward.states) == {}
    assert set(backward.delayed) == {("x", 1), ("x", 2)}
