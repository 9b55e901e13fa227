"""The derivative of every operation of the language, and the expressions it is written in.

A rule says what the cotangent d of an operation's result y gives to its operands, from the
operands, y and d alone. Of the operations that go element by element, and of softmax and layer
norm, the Jacobian is symmetric (a diagonal one, or softmax's diag(y) − y yᵀ, or layer norm's), so
there the same rule also serves the forward mode, where d is the tangent of one operand. Those of
`LINEAR` are linear in each operand and are their own forward mode.

A cotangent has the sizes of its value, always: where one number met a vector, or a size 1 another,
`Expressions.reduced` sums over what it met. A `spread` is the other way round, one number a row
written for every unit; it moves outwards through sums and products and mostly vanishes there.

At kinks and ties the rules are torch's: relu and abs have slope 0 at 0, clamp slope 1 at its
bounds, a tie of minimum and maximum gives half to each side. Of hardsigmoid in float64 torch's
slope is 1/6 rounded to float32; ours is 1/6.

Source: Griewank & Walther 2008, "Evaluating Derivatives", table 3.1 and section 3.2; softmax and
layer norm by hand; the kinks as torch's autograd has them; the products as in Giles 2008, "An
extended collection of matrix derivative results for forward and reverse mode AD", section 2.2.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from elman.equation.graph import Node
from elman.equation.operations import CALL, OPERATIONS, PRODUCT, Operation
from elman.equation.sizes import Dims, joined, result_dims


def _layer_norm_scale(v: Tensor, eps: float) -> Tensor:
    """1/√(var v + eps), one number a row: what layer norm multiplies with."""
    return torch.rsqrt(v.var(-1, correction=0) + eps)


def _spread(v: Tensor, rank: int, shape: tuple[int, ...]) -> Tensor:
    """A value of `rank` sizes, each 1 or that of `shape`, in the whole shape."""
    rows = v.shape[: v.dim() - rank]
    ones = (1,) * (len(shape) - rank)
    return v.reshape(*rows, *ones, *v.shape[len(rows) :]).expand(*rows, *shape)


def _bilinear_first(tensor: Tensor, d: Tensor, other: Tensor) -> Tensor:
    return torch.einsum("oij,...o,...j->...i", tensor, d, other)


def _bilinear_second(tensor: Tensor, d: Tensor, one: Tensor) -> Tensor:
    return torch.einsum("oij,...o,...i->...j", tensor, d, one)


def _sum_axis(v: Tensor, axis: int) -> Tensor:
    return v.sum(axis, keepdim=True)


# What adjoints need beyond the language. A cell's equation cannot hold these: the tracer and the
# JSON reader know `OPERATIONS` only. `spread` takes its sizes from its node; `sum_axis` leaves a
# size 1 at the axis, which is negative. An adjoint's `column` may stand on a scalar too.
ADJOINT_OPERATIONS: dict[str, Operation] = {
    "matmul_transposed": Operation(2, lambda w, v: v @ w, "{0}ᵀ {1}", r"{0}^\top {1}", PRODUCT),
    "bilinear_first": Operation(
        3, _bilinear_first, "bilinear({0}; {1}, ·, {2})", r"{0}\left({1}, \cdot, {2}\right)"
    ),
    "bilinear_second": Operation(
        3, _bilinear_second, "bilinear({0}; {1}, {2}, ·)", r"{0}\left({1}, {2}, \cdot\right)"
    ),
    "spread": Operation(1, _spread, "{0}", "{0}", CALL, cost=0),
    "sum_axis": Operation(
        1, _sum_axis, "sum({0}, {axis})", r"\operatorname{sum}\left({0}, {axis}\right)",
        CALL, {"axis": int},
    ),
    "layer_norm_scale": Operation(
        1, _layer_norm_scale, "scale({0}, {eps})", r"\operatorname{scale}\left({0}, {eps}\right)",
        CALL, {"eps": float}, 4,
    ),
    "eq": Operation(2, operator.eq, "{0} = {1}", "{0} = {1}", 0, boolean=True),
}  # fmt: skip
ALL_OPERATIONS = OPERATIONS | ADJOINT_OPERATIONS
# A leaf of adjoints: how many units a size has, by name.
UNITS = "units"
LINEAR = (
    "matmul", "matvec", "matmat", "outer", "bilinear", "transpose", "column", "row", "sum", "mean",
    "block_diagonal",
)  # fmt: skip
# What does not go element by element.
WHOLE = (*LINEAR, *ADJOINT_OPERATIONS.keys() - {"eq"}, "softmax", "layer_norm")
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

    @property
    def dims(self) -> Dims:
        return self.node.dims

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
            self.known.setdefault(self._key(node), index)

    @staticmethod
    def _key(node: Node) -> tuple:
        args = tuple(sorted(node.args)) if node.op in COMMUTATIVE else node.args
        return node.op, args, node.attributes, node.dims

    def append(
        self, op: str, args: tuple[int, ...], attributes: tuple[tuple[str, Any], ...], dims: Dims
    ) -> Value:
        node = Node(op, args, attributes, dims)
        key = self._key(node)
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(node)
        return Value(self, self.known[key])

    def lift(self, operand: Operand) -> Value:
        if isinstance(operand, Value):
            return operand
        return self.append("constant", (), (("value", float(operand)),), ())

    def call(self, op: str, *operands: Operand, **attributes: float) -> Value:
        """The node of any operation, with no simplification but that spreads move outwards."""
        values = [self.lift(o) for o in operands]
        pairs = tuple(attributes.items())
        all_dims = [v.dims for v in values]
        if op in WHOLE:
            dims = _whole_dims(op, all_dims, attributes)
            return self.append(op, tuple(v.index for v in values), pairs, dims)
        if op != "neg":
            values = [v.operand(0) if v.node.op == "spread" else v for v in values]
        inner = _fitting(joined([v.dims for v in values]))
        small = self.append(op, tuple(v.index for v in values), pairs, inner)
        return self.spread(small, _fitting(joined(all_dims)))

    def spread(self, v: Value, dims: Dims) -> Value:
        """A value, where it has fewer sizes or a size 1, written out for all of `dims`."""
        if v.dims == dims:
            return v
        if v.node.op == "neg":
            return -self.spread(v.operand(0), dims)
        inner = v.operand(0) if v.node.op == "spread" else v
        return self.append("spread", (inner.index,), (), dims)

    def reduced(self, v: Value, dims: Dims) -> Value:
        """The transpose of broadcasting: the sum over what `dims` lacks, or has a 1 for."""
        if v.dims == dims:
            return v
        if v.node.op == "neg":
            return -self.reduced(v.operand(0), dims)
        if not dims:
            return self.reduced(self.call("sum", v), dims)
        axis = next(-i for i in range(1, 1 + len(dims)) if dims[-i] != v.dims[-i])
        return self.reduced(self.call("sum_axis", v, axis=axis), dims)

    def over_units(self, op: str, v: Value, **attributes: float) -> Value:
        """A sum, a mean or a scale over the last size, so that it can stand beside the value."""
        found = self.call(op, v, **attributes)
        return self.call("column", found) if found.dims else found

    def units(self, name: str) -> Value:
        """The number of units of a size."""
        return self.append(UNITS, (), (("name", name),), ())

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
        return self.call("matmul_transposed", Value(self, weight), v)

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


def _fitting(dims: Dims | None) -> Dims:
    if dims is None:
        raise ValueError("the operands of an expression do not fit each other; a rule is wrong")
    return dims


def _whole_dims(op: str, dims: Sequence[Dims], attributes: Mapping[str, Any]) -> Dims:
    """The sizes of an operation that does not go element by element."""
    if op in ("matmul_transposed", "bilinear_first"):
        return dims[0][1:2]
    if op == "bilinear_second":
        return dims[0][2:]
    if op == "layer_norm_scale":
        return dims[0][:-1]
    if op == "column":
        return (*dims[0], "1")
    if op == "sum_axis":
        place = len(dims[0]) + attributes["axis"]
        return (*dims[0][:place], "1", *dims[0][place + 1 :])
    return _fitting(result_dims(op, dims, attributes))


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
    return (y * (d - d.made.over_units("sum", d * y)),)


def _layer_norm(d: Value, y: Value, v: Value, eps: float) -> tuple[Value]:
    """s (I − 1 1ᵀ/n − y yᵀ/n) d with s = 1/√(var v + eps)."""
    over_units = d.made.over_units
    centred = d - over_units("mean", d)
    return (over_units("layer_norm_scale", v, eps=eps) * (centred - y * over_units("mean", d * y)),)


def _sum(d: Value, y: Value, v: Value) -> tuple[Value]:
    return (d.made.spread(d.made.call("column", d) if d.dims else d, v.dims),)


def _mean(d: Value, y: Value, v: Value) -> tuple[Value]:
    return _sum(d / d.made.units(v.dims[-1]), y, v)


def _matvec(d: Value, y: Value, m: Value, v: Value) -> tuple[Value, Value]:
    """d vᵀ and mᵀ d."""
    call = d.made.call
    return call("outer", d, v), call("matvec", call("transpose", m), d)


def _matmat(d: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
    """d bᵀ and aᵀ d."""
    call = d.made.call
    return call("matmat", d, call("transpose", b)), call("matmat", call("transpose", a), d)


def _outer(d: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
    """d b and dᵀ a."""
    call = d.made.call
    return call("matvec", d, b), call("matvec", call("transpose", d), a)


def _column(d: Value, y: Value, v: Value) -> tuple[Value]:
    return (d.made.call("sum", d),)


def _row(d: Value, y: Value, v: Value) -> tuple[Value]:
    return (d.made.call("sum", d.made.call("transpose", d)),)


def _softplus(d: Value, y: Value, v: Value, beta: float, threshold: float) -> tuple[Value]:
    scaled = v * beta
    return (where(scaled > threshold, d, d * d.made.call("sigmoid", scaled)),)


def _hardsigmoid(d: Value, y: Value, v: Value) -> tuple[Value]:
    return (where(v > -3.0, where(v < 3.0, d / 6.0, 0.0), 0.0),)


def _comparison(d: Value, y: Value, a: Value, b: Value) -> tuple[Value, Value]:
    return d * 0.0, d * 0.0


# For each operation: from d, the result and the operands, the contribution to each operand, of the
# sizes of the result where operands were broadcast. What is missing has a weight made of parameters
# alone, whose gradient `elman.equation.adjoint` takes for all rows at once, or is made of them.
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
    "elu": lambda d, y, v, alpha: (where(v > 0.0, d, d * (alpha * v.made.call("exp", v))),),
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
    "sum": _sum,
    "mean": _mean,
    "matvec": _matvec,
    "matmat": _matmat,
    "outer": _outer,
    "transpose": lambda d, y, m: (d.made.call("transpose", d),),
    "column": _column,
    "row": _row,
}
