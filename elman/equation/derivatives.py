"""The derivative of every operation of the language, and the expressions it is written in.

A rule says what a change d does to an operation's operands, from the operands, the result y and d
alone. Every operation but the product has a symmetric Jacobian (a diagonal one, or softmax's
diag(y) − y yᵀ, or layer norm's), so the same rule serves the reverse mode, where d is the cotangent
of the result, and the forward mode, where d is the tangent of one operand.

At kinks and ties the rules are torch's: relu and abs have slope 0 at 0, clamp slope 1 at its
bounds, a tie of minimum and maximum gives half to each side.

Source: Griewank & Walther 2008, "Evaluating Derivatives", table 3.1 and section 3.2; softmax and
layer norm by hand; the kinks as torch's autograd has them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from elman.equation.graph import Node
from elman.equation.operations import CALL, OPERATIONS, PRODUCT, Operation


def _layer_norm_scale(v: Tensor, eps: float) -> Tensor:
    """1/√(var v + eps), one number a row: what layer norm multiplies with."""
    return torch.rsqrt(v.var(-1, correction=0, keepdim=True) + eps)


def _over_units(evaluate: Callable[[Tensor], Tensor], name: str) -> Operation:
    return Operation(1, evaluate, f"{name}({{0}})", rf"\operatorname{{{name}}}\left({{0}}\right)")


# What adjoints need beyond the language. A cell's equation cannot hold these: the tracer and the
# JSON reader know `OPERATIONS` only. A sum, a mean or a scale over the units is one number a row,
# written with no sizes, and has shape (…, 1).
ADJOINT_OPERATIONS: dict[str, Operation] = {
    "matmul_transposed": Operation(2, lambda w, v: v @ w, "{0}ᵀ {1}", r"{0}^\top {1}", PRODUCT),
    "sum_units": _over_units(lambda v: v.sum(-1, keepdim=True), "sum"),
    "mean_units": _over_units(lambda v: v.mean(-1, keepdim=True), "mean"),
    "layer_norm_scale": Operation(
        1, _layer_norm_scale, "scale({0}, {eps})", r"\operatorname{scale}\left({0}, {eps}\right)",
        CALL, {"eps": float}, 4,
    ),
    "eq": Operation(2, operator.eq, "{0} = {1}", "{0} = {1}", 0, boolean=True),
}  # fmt: skip
ALL_OPERATIONS = OPERATIONS | ADJOINT_OPERATIONS
REDUCED = ("sum_units", "mean_units", "layer_norm_scale")
COMMUTATIVE = ("add", "mul", "eq")


class Value:
    """A node of an expression in the making; arithmetic on it appends simplified nodes."""

    __slots__ = ("index", "made")

    def __init__(self, made: Expressions, index: int):
        self.made, self.index = made, index

    @property
    def node(self) -> Node:
        return self.made.nodes[self.index]

    @property
    def number(self) -> float | None:
        """The value of a constant; None for anything else."""
        return self.node.attribute("value") if self.node.op == "constant" else None

    def operand(self, place: int) -> Value:
        return Value(self.made, self.node.args[place])

    def __add__(self, other: Operand) -> Value:
        return self.made.add(self, self.made.lift(other))

    def __radd__(self, other: float) -> Value:
        return self + other

    def __sub__(self, other: Operand) -> Value:
        return self.made.add(self, -self.made.lift(other))

    def __rsub__(self, other: float) -> Value:
        return self.made.lift(other) - self

    def __mul__(self, other: Operand) -> Value:
        return self.made.multiply(self, self.made.lift(other))

    def __rmul__(self, other: float) -> Value:
        return self * other

    def __truediv__(self, other: Operand) -> Value:
        return self.made.divide(self, self.made.lift(other))

    def __pow__(self, other: Operand) -> Value:
        exponent = self.made.lift(other)
        return self if exponent.number == 1 else self.made.call("pow", self, exponent)

    def __neg__(self) -> Value:
        if self.number is not None:
            return self.made.lift(-self.number)
        return self.operand(0) if self.node.op == "neg" else self.made.call("neg", self)

    def __gt__(self, other: Operand) -> Value:
        return self.made.call("gt", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.made.call("ge", self, other)

    def __lt__(self, other: Operand) -> Value:
        return self.made.call("lt", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.made.call("le", self, other)


Operand = Value | float


class Expressions:
    """Nodes that grow: what is asked for twice is one node, and the trivial is left out.

    Nothing is multiplied by one or by zero, added to zero, or negated twice; signs move outwards
    until a sum takes them up as a subtraction.
    """

    def __init__(self, nodes: Iterable[Node]):
        self.nodes = list(nodes)
        self.known: dict[tuple, int] = {}
        for index, node in enumerate(self.nodes):
            self.known.setdefault(self._key(node.op, node.args, node.attributes), index)

    @staticmethod
    def _key(op: str, args: tuple[int, ...], attributes: tuple) -> tuple:
        return op, tuple(sorted(args)) if op in COMMUTATIVE else args, attributes

    def append(
        self, op: str, args: tuple[int, ...], attributes: tuple[tuple[str, Any], ...], dims
    ) -> Value:
        key = self._key(op, args, attributes)
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(Node(op, args, attributes, dims))
        return Value(self, self.known[key])

    def lift(self, operand: Operand) -> Value:
        if isinstance(operand, Value):
            return operand
        return self.append("constant", (), (("value", float(operand)),), ())

    def call(self, op: str, *operands: Operand, **attributes: float) -> Value:
        """The node of any operation but the product of a matrix, with no simplification."""
        values = [self.lift(o) for o in operands]
        dims = next((v.node.dims for v in values if v.node.dims), ())
        dims = () if op in REDUCED else dims
        return self.append(op, tuple(v.index for v in values), tuple(attributes.items()), dims)

    def add(self, a: Value, b: Value) -> Value:
        if a.number is not None and b.number is not None:
            return self.lift(a.number + b.number)
        if a.number == 0 or b.number == 0:
            return b if a.number == 0 else a
        if b.node.op == "neg":
            b = b.operand(0)
            return -self.add(a.operand(0), b) if a.node.op == "neg" else self.call("sub", a, b)
        if b.number is not None and b.number < 0:
            return self.call("sub", a, -b.number)
        return self.call("sub", b, a.operand(0)) if a.node.op == "neg" else self.call("add", a, b)

    def multiply(self, a: Value, b: Value) -> Value:
        if a.number is not None and b.number is not None:
            return self.lift(a.number * b.number)
        for one, other in ((a, b), (b, a)):
            if one.number == 0:
                return self.lift(0.0)
            if one.number in (1, -1):
                return other if one.number == 1 else -other
        if a.node.op == "neg":
            return -self.multiply(a.operand(0), b)
        if b.node.op == "neg":
            return -self.multiply(a, b.operand(0))
        return self.call("mul", a, b)

    def divide(self, a: Value, b: Value) -> Value:
        if a.number == 0 or b.number == 1:
            return a
        if a.node.op == "neg":
            return -self.divide(a.operand(0), b)
        return self.call("div", a, b)

    def transposed(self, weight: int, v: Value) -> Value:
        """Wᵀ v, of the size of W's columns."""
        dims = self.nodes[weight].dims[1:]
        return self.append("matmul_transposed", (weight, v.index), (), dims)

    def sum(self, terms: Sequence[Value]) -> Value:
        """The sum of terms; a d + b d becomes (a + b) d, and Wᵀ a + Wᵀ b one product."""
        terms = [term for term in terms if term.number != 0]
        for place, term in enumerate(terms):
            for other in range(place + 1, len(terms)):
                joined = self._joined(term, terms[other])
                if joined is not None:
                    rest = [t for i, t in enumerate(terms) if i not in (place, other)]
                    return self.sum([*rest[:place], joined, *rest[place:]])
        # What is taken away comes last, so that no sum begins with a sign.
        signed = sorted(terms, key=lambda term: term.node.op == "neg")
        total = self.lift(0.0)
        for term in signed:
            total = total + term
        return total

    def _joined(self, one: Value, other: Value) -> Value | None:
        """Two terms as one product, where they share a factor or a matrix."""
        (minus, a), (also_minus, b) = _signed(one), _signed(other)
        if a.node.op != b.node.op or a.node.op not in ("mul", "matmul_transposed"):
            return None
        places = [(0, 0)] if a.node.op == "matmul_transposed" else [(0, 0), (0, 1), (1, 0), (1, 1)]
        for mine, its in places:
            if a.node.args[mine] == b.node.args[its]:
                left, right = a.operand(1 - mine), b.operand(1 - its)
                inner = self.sum([-left if minus else left, -right if also_minus else right])
                if a.node.op == "mul":
                    return a.operand(mine) * inner
                return self.transposed(a.node.args[0], inner)
        return None


def _signed(term: Value) -> tuple[bool, Value]:
    return (True, term.operand(0)) if term.node.op == "neg" else (False, term)


def where(condition: Value, one: Operand, other: Operand) -> Value:
    """The one where the condition holds, else the other."""
    one, other = condition.made.lift(one), condition.made.lift(other)
    same = one.index == other.index
    return one if same else condition.made.call("where", condition, one, other)


def _equal(a: Value, b: Operand) -> Value:
    return a.made.call("eq", a, b)


def _pow(d: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
    """b a^(b−1) d, and y log(a) d; 0 where b = 0, and where a = 0 ≤ b."""
    if b.number is not None:
        base = d * 0.0 if b.number == 0 else d * (b * a ** (b.number - 1))
    else:
        base = where(_equal(b, 0.0), 0.0, d * (b * a ** (b - 1.0)))
    if a.number is None:
        slope = d * (y * a.made.call("log", a))
        return base, where(_equal(a, 0.0), where(b >= 0.0, 0.0, slope), slope)
    if a.number == 0:
        return base, where(b >= 0.0, 0.0, d * (y * -math.inf))
    return base, d * (y * (math.log(a.number) if a.number > 0 else math.nan))


def _extremum(d: Value, loses: Value, wins: Value, tie: Value) -> tuple[Value, Value]:
    """d to the operand that is the result; half to each in a tie."""
    shared = where(tie, d * 0.5, d)
    return where(loses, 0.0, shared), where(wins, 0.0, shared)


def _clamp(d: Value, y: Value, v: Value, low: float, high: float) -> tuple[Value]:
    inside = d if high == math.inf else where(v <= high, d, 0.0)
    return (inside if low == -math.inf else where(v >= low, inside, 0.0),)


def _softmax(d: Value, y: Value, v: Value) -> tuple[Value]:
    """(diag(y) − y yᵀ) d."""
    return (y * (d - d.made.call("sum_units", d * y)),)


def _layer_norm(d: Value, y: Value, v: Value, eps: float) -> tuple[Value]:
    """s (I − 1 1ᵀ/n − y yᵀ/n) d with s = 1/√(var v + eps)."""
    call = d.made.call
    centred = d - call("mean_units", d)
    return (call("layer_norm_scale", v, eps=eps) * (centred - y * call("mean_units", d * y)),)


def _softplus(d: Value, y: Value, v: Value, beta: float, threshold: float) -> tuple[Value]:
    scaled = v * beta
    return (where(scaled > threshold, d, d * d.made.call("sigmoid", scaled)),)


def _hardsigmoid(d: Value, y: Value, v: Value) -> tuple[Value]:
    return (where(v > -3.0, where(v < 3.0, d / 6.0, 0.0), 0.0),)


def _comparison(d: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
    return d * 0.0, d * 0.0


# For each operation: from d, the result and the operands, the contribution to each operand. Only
# the product is missing, whose two modes differ: Wᵀ d in reverse, W d forwards.
RULES: dict[str, Callable[..., tuple[Value, ...]]] = {
    "add": lambda d, y, a, b: (d, d),
    "sub": lambda d, y, a, b: (d, -d),
    "mul": lambda d, y, a, b: (d * b, d * a),
    "div": lambda d, y, a, b: (d / b, -(d / b * y)),
    "pow": _pow,
    "neg": lambda d, y, a: (-d,),
    "sigmoid": lambda d, y, v: (d * (y * (1.0 - y)),),
    "tanh": lambda d, y, v: (d * (1.0 - y * y),),
    "relu": lambda d, y, v: (where(y <= 0.0, 0.0, d),),
    "leaky_relu": lambda d, y, v, slope: (where(v > 0.0, d, d * slope),),
    "elu": lambda d, y, v, alpha: (where(v <= 0.0, d * (alpha * v.made.call("exp", v)), d),),
    "softplus": _softplus,
    "hardsigmoid": _hardsigmoid,
    "exp": lambda d, y, v: (d * y,),
    "log": lambda d, y, v: (d / v,),
    "sqrt": lambda d, y, v: (d / (2.0 * y),),
    "abs": lambda d, y, v: (where(v > 0.0, d, where(v < 0.0, -d, 0.0)),),
    "sin": lambda d, y, v: (d * v.made.call("cos", v),),
    "cos": lambda d, y, v: (-(d * v.made.call("sin", v)),),
    "minimum": lambda d, y, a, b: _extremum(d, a > b, a < b, _equal(a, b)),
    "maximum": lambda d, y, a, b: _extremum(d, a < b, a > b, _equal(a, b)),
    "clamp": _clamp,
    "gt": _comparison,
    "ge": _comparison,
    "lt": _comparison,
    "le": _comparison,
    "where": lambda d, y, c, a, b: (d * 0.0, where(c, d, 0.0), where(c, 0.0, d)),
    "softmax": _softmax,
    "layer_norm": _layer_norm,
}
