"""a^b on vectors, as e^(b·log a).

The exponent b·log a must be right to far more digits than the result: of 745 its rounding to double
alone would cost 2^9 units in the last place. A float power is therefore computed in double, and a
double one with log a as a sum of two doubles, of relative error below 2^-65.

With a = 2^k·(1 + f) and t = f / (1 + f/2), log(1 + f) = t + t³ (1/12 + t² h(t²)); h was fitted by
Remez' exchange at 60 digits for |t| ≤ 2/5, to 2^-69 of t. Only the quotient, 1/12 of its cube and
k·ln 2 need both parts.

Source: the sums in two parts are Dekker 1971, "A floating-point technique for extending the
available precision", section 4.
"""

from __future__ import annotations

import math

from llvmlite import ir

from elman.backends.cpu.maths_exponential import CONSTANTS, exp, log, split
from elman.backends.cpu.maths_vectors import Vectors, splat

TWELFTH = (float.fromhex("0x1.5555555555555p-4"), float.fromhex("0x1.5555555555555p-58"))
H = (
    0.012499999999999914, 0.0022321428571544866, 0.0004340277771721776, 8.877842543846184e-05,
    1.877979299943332e-05, 4.071396399125914e-06, 8.844176128717234e-07, 2.397962490140584e-07,
)  # fmt: skip
# ln 2 with room for a product with any exponent, and the rest of it.
LN2 = CONSTANTS["double"].ln2
# Beyond this b·log a is no finite result's.
BEYOND = 800.0

Pair = tuple[ir.Value, ir.Value]


def _sum(v: Vectors, a: ir.Value, b: ir.Value) -> Pair:
    """a + b and its rounding error, for |a| ≥ |b| or a = 0."""
    s = v.add(a, b)
    return s, v.sub(b, v.sub(s, a))


def _quotient(v: Vectors, f: ir.Value) -> Pair:
    """f / (1 + f/2) in two parts."""
    half = v.mul(f, 0.5)
    d, d_low = _sum(v, v.constant(1.0), half)
    t = v.div(f, d)
    p, p_low = v.product(t, d)
    left = v.sub(v.sub(v.sub(f, p), p_low), v.mul(t, d_low))
    return t, v.div(left, d)


def _long_log(v: Vectors, a: ir.Value) -> Pair:
    """log a in two doubles, for finite a > 0."""
    k, f = split(v, a)
    t, t_low = _quotient(v, f)
    z, z_low = v.product(t, t)
    z_low = v.fma(v.mul(t, 2.0), t_low, z_low)
    # w = z (1/12 + z h), so that log(1 + f) = t + t w.
    w, w_low = v.product(z, v.constant(TWELFTH[0]))
    w_low = v.fma(z, TWELFTH[1], v.fma(z_low, TWELFTH[0], w_low))
    w, w_low = _sum(v, w, v.fma(v.mul(z, z), v.polynomial(z, H), w_low))
    u, u_low = v.product(t, w)
    u_low = v.add(v.fma(t, w_low, u_low), v.fma(t_low, w, t_low))
    s, s_low = _sum(v, v.mul(k, LN2[0]), t)
    r, r_low = _sum(v, s, u)
    low = v.fma(k, LN2[1], v.add(v.add(s_low, r_low), u_low))
    return _sum(v, r, low)


def _magnitude(v: Vectors, a: ir.Value, b: ir.Value) -> ir.Value:
    """a^b in double for a ≥ 0, not yet where a = 1 or b = 0."""
    logarithm, low = _long_log(v, a)
    p, p_low = v.product(b, logarithm)
    p_low = v.fma(b, low, p_low)
    # Zero and infinity have logarithms of their own; far out the second part is of no use.
    end = v.select(v.compare("==", a, 0.0), -math.inf, a)
    ends = v.builder.or_(v.compare("==", a, 0.0), v.builder.not_(v.compare("<", a, math.inf)))
    p = v.select(ends, v.mul(b, end), p)
    far = v.builder.or_(ends, v.builder.not_(v.compare("<", v.abs(p), BEYOND)))
    return exp(v, p, v.select(far, 0.0, p_low))


def _whole(v: Vectors, b: ir.Value) -> ir.Value:
    """The mask of integers, for b ≥ 0."""
    step = 2.0**v.format.shift
    rounded = v.sub(v.add(b, step), step)
    return v.builder.or_(v.compare(">=", b, step), v.compare("==", rounded, b))


def power(v: Vectors, a: ir.Value, b: ir.Value) -> ir.Value:
    """a^b as IEEE 754's pow has it: 1^b and a^0 are 1 even of NaN, (−2)^3 is −8, (−2)^½ NaN."""
    number = splat(b)
    if number is not None and number in SIMPLE:
        return SIMPLE[number](v, a)
    size = v.abs(a)
    if v.element == "float":
        d = v.wide()
        y = v.narrowed(exp(d, d.mul(v.widened(b), log(d, v.widened(size)))))
    else:
        y = _magnitude(v, size, b)
    return _exceptions(v, a, b, size, y)


def _exceptions(v: Vectors, a: ir.Value, b: ir.Value, size: ir.Value, y: ir.Value) -> ir.Value:
    """Signs, and the values that e^(b·log|a|) misses."""
    both = v.builder.and_
    power = v.abs(b)
    whole = _whole(v, power)
    odd = both(whole, v.builder.not_(_whole(v, v.mul(power, 0.5))))
    one = v.compare("==", size, 1.0)
    y = v.select(both(one, v.compare("==", b, b)), 1.0, y)
    y = v.select(odd, v.with_sign_of(y, a), y)
    negative = both(v.compare("<", a, 0.0), v.compare("<", size, math.inf))
    y = v.select(both(negative, v.builder.not_(whole)), math.nan, y)
    fixed = v.builder.or_(v.compare("==", a, 1.0), v.compare("==", b, 0.0))
    return v.select(fixed, 1.0, y)


def _square(v: Vectors, a: ir.Value) -> ir.Value:
    return v.mul(a, a)


def _inverse(v: Vectors, a: ir.Value) -> ir.Value:
    return v.div(1.0, a)


# Exponents for which there is something shorter. The roots are torch's: of −0 the square root is
# −0 and its inverse −∞, of −∞ NaN, where IEEE 754's pow has 0 and ∞.
SIMPLE = {
    0.0: lambda v, a: v.constant(1.0),
    1.0: lambda v, a: a,
    2.0: _square,
    3.0: lambda v, a: v.mul(_square(v, a), a),
    0.5: lambda v, a: v.sqrt(a),
    -0.5: lambda v, a: _inverse(v, v.sqrt(a)),
    -1.0: _inverse,
    -2.0: lambda v, a: _square(v, _inverse(v, a)),
}
