"""The elementwise operations of the language on vectors, in LLVM IR, without a call.

`emit` appends one operation to a builder. Every result is within 4 units in the last place of the
true value over the whole range of the arguments, subnormal results included, in float and double,
with FMA and without; of sin and cos that holds for |x| ≤ 1e4 (`maths_circular` says what comes
beyond). NaN, infinities, signed zeros, kinks and ties come out as from torch. The largest errors
that sweeps over all exponents found, in units in the last place:

| operation | float | double |
|---|---|---|
| sigmoid | 2.4 | 2.3 |
| tanh | 3.4 | 3.4 |
| exp | 1.2 | 1.2 |
| log | 2.0 | 2.0 |
| sin, cos | 0.6 | 2.0 |
| pow | 0.6 | 2.3 |
| elu | 2.2 | 2.2 |
| softplus, beta a power of two | 2.8 | 2.9 |
| softplus, any beta | 3.8 | 3.6 |
| hardsigmoid, rsqrt; pow with −0.5, 3 | 1.5 | 1.5 |
| pow with −2 | 2.0 | 2.0 |
| the rest | as torch, to the bit | as torch, to the bit |

Where torch itself loses digits, as its float32 sigmoid does below −88, the results here are the
true ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llvmlite import ir

from elman.backends.cpu import maths_circular, maths_exponential, maths_power
from elman.backends.cpu.maths_vectors import Vectors, splat
from elman.errors import InputError, nearest

__all__ = ["ELEMENTWISE", "Vectors", "emit", "splat"]


def _relu(v: Vectors, x: ir.Value) -> ir.Value:
    return v.at_least(x, 0.0)


def _leaky_relu(v: Vectors, x: ir.Value, slope: float) -> ir.Value:
    return v.select(v.compare(">", x, 0.0), x, v.mul(x, slope))


def _hardsigmoid(v: Vectors, x: ir.Value) -> ir.Value:
    return v.mul(v.within(v.add(x, 3.0), 0.0, 6.0), 1.0 / 6.0)


def _minimum(v: Vectors, a: ir.Value, b: ir.Value) -> ir.Value:
    return _extremum(v, "<", a, b)


def _maximum(v: Vectors, a: ir.Value, b: ir.Value) -> ir.Value:
    return _extremum(v, ">", a, b)


def _extremum(v: Vectors, relation: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """The a that wins, else b; NaN where either is: the selection alone gives b for it."""
    if splat(b) is not None:
        a, b = b, a
    chosen = v.select(v.compare(relation, a, b), a, b)
    number = splat(a)
    if number is not None and number == number:
        return chosen
    return v.select(v.unordered(a, a), a, chosen)


def _clamp(v: Vectors, x: ir.Value, low: float, high: float) -> ir.Value:
    """min(max(x, low), high), and NaN where any of the three is."""
    if low != low or high != high:
        return v.constant(float("nan"))
    if low > float("-inf"):
        x = v.at_least(x, low)
    return v.at_most(x, high) if high < float("inf") else x


def _comparison(relation: str) -> Callable[..., ir.Value]:
    return lambda v, a, b: v.compare(relation, a, b)


def _where(v: Vectors, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """a where the condition holds, else b; a mask where both are."""
    if not (v.is_mask(a) and v.is_mask(b)):
        a, b = v.number(a), v.number(b)
    return v.builder.select(v.mask(condition), a, b)


# Every operation that goes element by element, and what the adjoints need beside them.
ELEMENTWISE: dict[str, Callable[..., ir.Value]] = {
    "add": Vectors.add,
    "sub": Vectors.sub,
    "mul": Vectors.mul,
    "div": Vectors.div,
    "fma": Vectors.fma,
    "neg": Vectors.neg,
    "pow": maths_power.power,
    "sigmoid": maths_exponential.sigmoid,
    "tanh": maths_exponential.tanh,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "elu": maths_exponential.elu,
    "softplus": maths_exponential.softplus,
    "hardsigmoid": _hardsigmoid,
    "exp": maths_exponential.exp,
    "log": maths_exponential.log,
    "sqrt": Vectors.sqrt,
    "rsqrt": lambda v, x: v.div(1.0, v.sqrt(x)),
    "abs": Vectors.abs,
    "sin": maths_circular.sin,
    "cos": maths_circular.cos,
    "minimum": _minimum,
    "maximum": _maximum,
    "clamp": _clamp,
    "gt": _comparison(">"),
    "ge": _comparison(">="),
    "lt": _comparison("<"),
    "le": _comparison("<="),
    "eq": _comparison("=="),
    "where": _where,
}
# What torch makes of truth values is a truth value again; the rest takes them as numbers.
_OF_MASKS: dict[str, Callable[..., ir.Value]] = {
    "add": lambda v, a, b: v.builder.or_(a, b),
    "mul": lambda v, a, b: v.builder.and_(a, b),
    "maximum": lambda v, a, b: v.builder.or_(a, b),
    "minimum": lambda v, a, b: v.builder.and_(a, b),
}


def emit(
    v: Vectors, op: str, operands: Sequence[ir.Value], attributes: Mapping[str, float]
) -> ir.Value:
    """Append one elementwise operation and return its result.

    Args:
        v: the vectors to write with.
        op: the name of an operation of `ELEMENTWISE`: all that go element by element in
            `elman.equation.operations`, "eq" of the adjoints, and "fma" (a·b + c) and "rsqrt".
        operands: vectors of numbers, or masks as comparisons give them. A mask counts as 1 and 0;
            of two masks sum and maximum are "or", product and minimum "and", as with torch's bool.
        attributes: the operation's attributes by name, as the graph has them.

    Returns:
        A vector of numbers; of comparisons, and where torch gives bool, a mask.

    Raises:
        InputError: the operation does not go element by element.

    Example:
        >>> module = ir.Module("example")
        >>> kind = ir.VectorType(ir.FloatType(), 8)
        >>> function = ir.Function(module, ir.FunctionType(kind, [kind]), "half")
        >>> builder = ir.IRBuilder(function.append_basic_block())
        >>> v = Vectors(builder, "float", 8)
        >>> y = emit(v, "mul", [function.args[0], v.constant(0.5)], {})
        >>> str(y.type)
        '<8 x float>'
    """
    if op not in ELEMENTWISE:
        raise InputError(
            f"operation {op!r} does not go element by element; expected one of "
            f"{', '.join(ELEMENTWISE)}.{nearest(op, ELEMENTWISE)}"
        )
    if op == "where":
        return _where(v, *operands)
    if op in _OF_MASKS and all(v.is_mask(operand) for operand in operands):
        return _OF_MASKS[op](v, *operands)
    return ELEMENTWISE[op](v, *(v.number(operand) for operand in operands), **attributes)
