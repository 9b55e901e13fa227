"""The derivative of every operation is torch's, at kinks, ties and bounds too."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from elman.equation import (
    OPERATIONS,
    Graph,
    Input,
    Node,
    State,
    graph_from_json,
    graph_to_json,
)
from elman.equation.adjoint import adjoint, pull_back, step_values
from elman.equation.derivatives import ADJOINT_OPERATIONS, LINEAR, RULES, Expressions, Value, where
from elman.errors import FileError

NAN, INF = float("nan"), float("inf")
# Every kink and bound of the functions of one operand below, both zeros, both tails.
POINTS = (
    -INF, -1e3, -4.0, -3.0, -1.0, -0.5, -1e-9, -0.0, 0.0, 1e-9, 0.5, 1.0, 2.0, 3.0, 4.0, 10.0,
    20.0, 20.5, 1e3, INF, NAN,
)  # fmt: skip
ATTRIBUTES = {
    "leaky_relu": [{"slope": 0.01}, {"slope": -0.5}],
    "elu": [{"alpha": 1.0}, {"alpha": -0.3}],
    "softplus": [{"beta": 1.0, "threshold": 20.0}, {"beta": 2.0, "threshold": 1.0}],
    "clamp": [{"low": -1.0, "high": 3.0}, {"low": -INF, "high": 0.5}, {"low": 0.0, "high": INF}],
    "layer_norm": [{"eps": 1e-5}],
}
UNARY = [
    (op, attributes)
    for op, operation in OPERATIONS.items()
    for attributes in ATTRIBUTES.get(op, [{}])
    if operation.arity == 1 and op not in LINEAR
]
BINARY = [op for op, o in OPERATIONS.items() if o.arity == 2 and not o.boolean and op not in LINEAR]


def one_operation(op: str, *operands: str | float, **attributes: float) -> Graph:
    """A cell whose new state is one operation on its input x, its state h, and numbers."""
    nodes = [Node("input", (), (("name", "x"),), ("hidden",))]
    nodes.append(Node("state", (), (("name", "h"),), ("hidden",)))
    places = []
    for operand in operands:
        if isinstance(operand, str):
            places.append(("x", "h").index(operand))
        else:
            nodes.append(Node("constant", (), (("value", operand),)))
            places.append(len(nodes) - 1)
    nodes.append(Node(op, tuple(places), tuple(attributes.items()), ("hidden",)))
    last = len(nodes) - 1
    return Graph(
        op, tuple(nodes), (Input("x", ("hidden",)),), (State("h", ("hidden",)),), (), last, (last,)
    )


def check_at(graph: Graph, x: torch.Tensor, h: torch.Tensor, rounding: float = 1e-14) -> None:
    """The cotangents of x and h at these points are torch's, NaN and infinities too."""
    backward = adjoint(graph)
    weight = torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).view_as(x)
    values = step_values(graph, {}, {"x": x}, {"h": h})
    pulled = pull_back(backward, values, weight, {"h": torch.zeros_like(h)})
    asked = [v.clone().requires_grad_() for v in (x, h)]
    out = step_values(graph, {}, {"x": asked[0]}, {"h": asked[1]})[graph.output]
    # A choice between two numbers depends on neither, and autograd wants to be told so.
    out = out + 0.0 * asked[0]
    expected = torch.autograd.grad(out, asked, weight, materialize_grads=True)
    for name, places, want in (
        ("x", backward.inputs, expected[0]),
        ("h", backward.states, expected[1]),
    ):
        got = pulled[places[name]] if name in places else torch.zeros_like(want)
        close = torch.isclose(got, want, rtol=rounding, atol=1e-15, equal_nan=True)
        wrong = [(x[i].tolist(), h[i].tolist(), got[i], want[i]) for i in (~close).nonzero()[:, 0]]
        assert not wrong, f"{graph.name}: cotangent of {name} at (x, h), ours, torch's: {wrong[:3]}"


def test_every_operation_has_a_rule():
    assert set(RULES) | {"matmul", "bilinear", "block_diagonal"} == set(OPERATIONS)


@pytest.mark.parametrize(("op", "attributes"), UNARY, ids=lambda v: str(v))
def test_rule_of_one_operand_is_torchs(op, attributes):
    graph = one_operation(op, "x", **attributes)
    if op in ("softmax", "layer_norm"):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x = torch.cat([x, torch.zeros(1, 5), 30.0 * x[:2]])
        check_at(graph, x, torch.zeros_like(x), 1e-12)
    else:
        # torch's own slope of elu at NaN is 1 or NaN, by where in a tensor it stands; ours is NaN.
        points = [p for p in POINTS if op != "elu" or p == p]
        x = torch.tensor(points, dtype=torch.float64).unsqueeze(-1)
        # torch multiplies with 1/6 rounded to float32 where the numbers are float64.
        check_at(graph, x, torch.zeros_like(x), 1e-7 if op == "hardsigmoid" else 1e-14)


@pytest.mark.parametrize("op", BINARY)
def test_rule_of_two_operands_is_torchs(op):
    """At every pair of the points: ties, zero bases, zero exponents, zero divisors."""
    finite = [p for p in POINTS if p == p and abs(p) < 100]
    pairs = torch.tensor(list(itertools.product(finite, finite)), dtype=torch.float64)
    x, h = pairs[:, :1], pairs[:, 1:]
    check_at(one_operation(op, "x", "h"), x, h)
    # Of one value with itself, where the two terms do not cancel to rounding.
    large = torch.where(h.abs() < 1e-3, 0.0 * h, h)
    check_at(one_operation(op, "h", "h"), x, large)
    for number in (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0):
        check_at(one_operation(op, "x", number), x, h)
        check_at(one_operation(op, number, "x"), x, h)


@pytest.mark.parametrize("comparison", ["gt", "ge", "lt", "le"])
@pytest.mark.parametrize("branches", [("x", "h"), ("h", 0.5), (0.5, "x"), (1.0, 0.0)], ids=str)
def test_rule_of_where_is_torchs(comparison, branches):
    graph = one_operation(comparison, "x", "h")
    constants = [Node("constant", (), (("value", b),)) for b in branches if isinstance(b, float)]
    nodes = [*graph.nodes, *constants]
    free = iter(range(len(graph.nodes), len(nodes)))
    places = [("x", "h").index(b) if isinstance(b, str) else next(free) for b in branches]
    nodes.append(Node("where", (2, *places), (), ("hidden",)))
    last = len(nodes) - 1
    chosen = Graph("where", tuple(nodes), graph.inputs, graph.states, (), last, (last,))
    pairs = torch.tensor(list(itertools.product(POINTS[3:14], repeat=2)), dtype=torch.float64)
    check_at(chosen, pairs[:, :1], pairs[:, 1:])


def test_the_language_does_not_hold_the_adjoints_operations():
    assert not set(ADJOINT_OPERATIONS) & set(OPERATIONS)
    for op, operation in ADJOINT_OPERATIONS.items():
        data = graph_to_json(one_operation("add", *(["x", "h"])))
        data["nodes"][-1] |= {"op": op, "args": [0, 1][: operation.arity]}
        with pytest.raises(FileError, match="no operation of the language"):
            graph_from_json(json.loads(json.dumps(data)))


# --- expressions ---


def some_values(*names: str) -> list[Value]:
    """Vectors, scalars where the name is s, matrices where it is a capital."""
    dims = {True: ("hidden", "input"), False: ("hidden",)}
    made = Expressions(
        Node("input", (), (("name", name),), () if name == "s" else dims[name.isupper()])
        for name in names
    )
    return [Value(made, place) for place in range(len(names))]


def written(value: Value) -> str:
    """A value as text, with every operation in parentheses."""
    node = value.node
    if not node.args:
        return str(dict(node.attributes).get("name", dict(node.attributes).get("value")))
    return f"({node.op} {' '.join(written(value.operand(i)) for i in range(len(node.args)))})"


def test_what_is_asked_for_twice_is_one_node():
    a, b = some_values("a", "b")
    assert (a * b).index == (b * a).index
    assert (a + b).index == (b + a).index
    assert (a - b).index != (b - a).index
    assert (a / b).index != (b / a).index


def test_the_trivial_is_left_out():
    a, b = some_values("a", "b")
    assert [v.index for v in (1.0 * a, a / 1.0, a + 0.0, a - 0.0, a**1.0)] == [a.index] * 5
    assert (-(0.0 + -a)).index == a.index
    assert (a * 0.0).number == 0
    assert (a.made.lift(2.0) * 3.0 + 1.0).number == 7
    assert written(where(a > b, b, b)) == "b"
    assert written(a * (b * -1.0)) == "(neg (mul a b))"
    assert written(b + -a) == written(-a + b) == "(sub b a)"
    assert written(-a - b) == "(neg (add a b))"


def test_a_sum_takes_out_what_is_common():
    a, b, c, d = some_values("a", "b", "c", "d")
    total = a.made.sum
    assert written(total([a * d, b, d * c])) == "(add (mul d (add a c)) b)"
    assert written(total([-(a * d), b * d])) == "(mul d (sub b a))"
    assert written(total([-(a * d), -(b * d), c])) == "(sub c (mul d (add a b)))"
    assert written(total([-a, b])) == "(sub b a)"
    assert total([a * 0.0, b]).index == b.index
    product = a.made.transposed
    assert written(total([product(a.index, b), -product(a.index, c)])) == (
        "(matmul_transposed a (sub b c))"
    )


def test_a_spread_moves_outwards_until_it_is_gone():
    s, a, b = some_values("s", "a", "b")
    spread = s.made.spread(s, ("hidden",))
    assert written(spread * a + b) == "(add (mul s a) b)"
    assert written(2.0 * spread) == written(s.made.spread(s * 2.0, ("hidden",)))
    assert (spread * 2.0).dims == ("hidden",)
    assert written(-spread + a) == "(sub a s)"
    assert written(s.made.spread(-s, ("hidden",))) == "(neg (spread s))"
    assert s.made.spread(spread, ("hidden", "input")).operand(0).index == s.index
    assert s.made.spread(a, ("hidden",)).index == a.index
    # The same number for two vectors of other sizes is two values.
    assert s.made.spread(s, ("input",)).index != spread.index


def test_what_was_broadcast_is_summed_over():
    s, a, M = some_values("s", "a", "M")
    reduced = s.made.reduced
    assert reduced(a, ("hidden",)).index == a.index
    assert written(reduced(-a, ())) == "(neg (sum a))"
    assert written(reduced(M, ())) == "(sum (sum M))"
    for dims, axes in [(("hidden", "1"), [-1]), (("1", "input"), [-2]), (("1", "1"), [-2, -1])]:
        value = reduced(M, dims)
        assert value.dims == dims
        for axis in axes:
            assert value.node.attribute("axis") == axis
            value = value.operand(0)
        assert value.index == M.index


def test_operands_that_do_not_fit_are_refused():
    a, M = some_values("a", "M")
    with pytest.raises(ValueError, match="do not fit"):
        _ = a + M
    with pytest.raises(ValueError, match="do not fit"):
        a.made.call("matvec", a, a)
