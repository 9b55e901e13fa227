"""exp, the activations made of it, and log, on vectors.

The exponential: x = n·ln 2 + r with an integer n and |r| ≤ ln 2 / 2, then e^x = 2^n·e^r. n comes
from adding 1.5 × 2^shift, which leaves it in the low bits of the sum; a shift moves it into the
exponent of 2^n. ln 2 is split in two so that n times its first part is exact, with FMA or without.
Results that are subnormal come from one last product or division and so are rounded once.

The polynomials were fitted for this file by Remez' exchange at 60 digits, for the least relative
error, and their coefficients rounded one after another, the rest fitted again each time. Relative
errors that remain, without the rounding of the evaluation (2^-24 and 2^-53 are half a unit in the
last place of 1):

| what | interval | float | double |
|---|---|---|---|
| e^r = 1 + r + r² p(r) | abs(r) ≤ ln 2 / 2 | 2^-28.2 | 2^-57.8 |
| log: 2 artanh(t/2) = t + t³ p(t²) | abs(t) ≤ 2/5 | 2^-28.4 | 2^-55.9 |
| log(1 + u): the same | 0 ≤ t ≤ 2/3 | 2^-27.7 | 2^-59.4 |

Source: the reduction is Cody & Waite 1980, "Software Manual for the Elementary Functions",
chapters 5 and 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llvmlite import ir

from elman.backends.cpu.maths_vectors import Vectors


@dataclass(frozen=True)
class Constants:
    """What depends on the number format.

    `ln2` in two parts, the first with so many zeros at its end that its product with n is exact.
    e^x is 0 below `zero` and overflows above `huge`; e^−x is nothing beside 1 from `whole` on.
    `lift` is a power of two that keeps e^r·2^(n−lift) normal where e^x is not.
    """

    ln2: tuple[float, float]
    exp: tuple[float, ...]
    log: tuple[float, ...]
    log1p: tuple[float, ...]
    zero: float
    huge: float
    whole: float
    lift: int


CONSTANTS = {
    "float": Constants(
        (float.fromhex("0x1.62e4p-1"), 1.428606765330187e-06),
        (
            1.0, 1.0, 0.4999999403953552, 0.16666516661643982, 0.04166810214519501,
            0.008369192481040955, 0.001383890281431377,
        ),
        (0.08333368599414825, 0.012486767955124378, 0.002372226445004344),
        (0.08333302289247513, 0.012506699189543724, 0.0021877363324165344, 0.0005470074247568846),
        zero=-104.0, huge=89.0, whole=19.0, lift=32,
    ),
    "double": Constants(
        (float.fromhex("0x1.62e42fefa2p-1"), float.fromhex("0x1.9ef35793c7673p-41")),
        (
            1.0, 1.0, 0.5000000000000011, 0.16666666666666535, 0.041666666666530947,
            0.008333333333439137, 0.0013888888942952542, 0.00019841269595944347,
            2.4801494005615564e-05, 2.7557524516508046e-06, 2.7629893947165846e-07,
            2.5015636902744177e-08,
        ),
        (
            0.08333333333334085, 0.012499999998805123, 0.0022321429213217328,
            0.0004340261460413716, 8.880053458969994e-05, 1.861610101844776e-05,
            4.6897327739172456e-06,
        ),
        (
            0.08333333333333288, 0.01250000000004872, 0.0022321428553134285,
            0.0004340278117304909, 8.877804796183119e-05, 1.878241464813233e-05,
            4.059156497118789e-06, 9.235822190537761e-07, 1.5911346982754556e-07,
            8.113465501894802e-08,
        ),
        zero=-746.0, huge=710.0, whole=40.0, lift=60,
    ),
}  # fmt: skip


def _reduced(
    v: Vectors, x: ir.Value, bias: int, sign: float = 1.0, rest: ir.Value | None = None
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """n, r and a number whose lowest bits are n + bias, or −n + bias: x + rest = n·ln 2 + r."""
    high, low = CONSTANTS[v.element].ln2
    n, biased = v.rounded(x, sign / math.log(2.0), bias)
    r = v.fma(n, -high, x)  # exact
    if rest is None:
        return n, v.fma(n, -low, r), biased
    return n, v.add(r, v.fma(n, -low, rest)), biased


def exp(v: Vectors, x: ir.Value, rest: ir.Value | None = None) -> ir.Value:
    """e^x, or e^(x + rest) for a rest below the last digit of x; 0 or ∞ out of range."""
    known = CONSTANTS[v.element]
    n, r, biased = _reduced(v, v.within(x, known.zero, known.huge), 2 * v.format.bias, rest=rest)
    p = v.polynomial(r, known.exp)
    if v.scales:
        return v.scaled(p, n)
    # n in two halves: the first product is exact, the second rounds to what is subnormal.
    whole = v.bits(biased)
    half = v.builder.lshr(whole, v.integers(1))
    other = v.builder.sub(whole, half)
    return v.mul(v.mul(p, v.power_of_two(v.from_bits(half))), v.power_of_two(v.from_bits(other)))


def _exp_of_negative(v: Vectors, x: ir.Value, rest: ir.Value | None) -> ir.Value:
    """e^x, or e^(x + rest), for x ≤ 0."""
    known = CONSTANTS[v.element]
    n, r, biased = _reduced(v, v.at_least(x, known.zero), v.format.bias + known.lift, rest=rest)
    if v.scales:
        return v.scaled(v.polynomial(r, known.exp), n)
    small = [c * 2.0**-known.lift for c in known.exp]
    return v.mul(v.polynomial(r, small), v.power_of_two(biased))


def sigmoid(v: Vectors, x: ir.Value) -> ir.Value:
    """1 / (1 + e^−x), as e^r / (2^−n + e^r).

    Both e^r and 2^−n are kept small by the same power of two, so that neither overflows where the
    quotient is subnormal.
    """
    known = CONSTANTS[v.element]
    inside = v.within(x, known.zero, known.whole)
    _, r, biased = _reduced(v, inside, v.format.bias - known.lift, -1.0)
    p = v.polynomial(r, [c * 2.0**-known.lift for c in known.exp])
    return v.div(p, v.add(v.power_of_two(biased), p))


def tanh(v: Vectors, x: ir.Value) -> ir.Value:
    """The hyperbolic tangent, as (e^2r − 2^−n) / (e^2r + 2^−n); never above 1 in magnitude."""
    limit = CONSTANTS[v.element].whole / 2.0
    r, biased = _short(v, v.within(x, -limit, limit), -2.0)
    power = v.power_of_two(biased)
    # e^2r − 1 = r h(2r); of the two signs of the bracket this one keeps −0.
    above = v.fma(r, _slope(v, r, 2.0), v.neg(v.sub(power, 1.0)))
    return v.div(above, v.fma(power, 2.0, above))


def elu(v: Vectors, x: ir.Value, alpha: float) -> ir.Value:
    """alpha·(e^x − 1) where x < 0, with 2^n (e^r − 1) − (1 − 2^n) for the bracket; else x."""
    r, biased = _short(v, v.at_least(x, -CONSTANTS[v.element].whole), 1.0)
    power = v.power_of_two(biased)
    below = v.fma(power, v.mul(r, _slope(v, r, 1.0)), v.neg(v.sub(1.0, power)))
    return v.select(v.compare("<", x, 0.0), below if alpha == 1 else v.mul(below, alpha), x)


def _short(v: Vectors, x: ir.Value, factor: float) -> tuple[ir.Value, ir.Value]:
    """r and a number whose lowest bits are ±n + bias: |factor|·x = n·ln 2 + |factor|·r.

    The sign is the factor's. ln 2 in one part is enough where a summand 1 stands beside 2^n·e^r or
    2^−n·e^r: an error of r, which grows as n, counts by 2^−|n|.
    """
    n, biased = v.rounded(x, factor / math.log(2.0))
    return v.fma(n, -math.log(2.0) / abs(factor), x), biased


def _slope(v: Vectors, r: ir.Value, factor: float) -> ir.Value:
    """(e^(factor·r) − 1) / r."""
    coefficients = CONSTANTS[v.element].exp[1:]
    return v.polynomial(r, [c * factor ** (k + 1) for k, c in enumerate(coefficients)])


def softplus(v: Vectors, x: ir.Value, beta: float, threshold: float) -> ir.Value:
    """log(1 + e^(beta·x)) / beta; x where beta·x > threshold.

    With z = beta·x this is max(z, 0) + log(1 + e^−|z|), which never overflows.
    """
    z, rest = _times(v, x, beta)
    u = _exp_of_negative(v, v.neg(v.abs(z)), rest)
    t = v.div(u, v.fma(u, 0.5, 1.0))
    y = v.add(v.at_least(z, 0.0), _log_of_ratio(v, t, CONSTANTS[v.element].log1p))
    if beta != 1:
        y = v.div(y, beta)
    return y if threshold == math.inf else v.select(v.compare(">", z, threshold), x, y)


def _times(v: Vectors, x: ir.Value, beta: float) -> tuple[ir.Value, ir.Value | None]:
    """z = x·beta, and what −|z| lacks by its rounding: of e^−100 that is 50 units."""
    if abs(math.frexp(beta)[0]) == 0.5:  # a power of two
        return (x if beta == 1 else v.mul(x, beta)), None
    z, error = v.product(x, v.constant(beta))
    near = v.compare("<", v.abs(z), -CONSTANTS[v.element].zero)
    return z, v.select(near, v.neg(v.with_sign_of(error, z)), 0.0)


def _log_of_ratio(v: Vectors, t: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    """2 artanh(t/2), which is log((1 + t/2) / (1 − t/2)): log(1 + f) for t = f / (1 + f/2)."""
    z = v.mul(t, t)
    return v.fma(v.mul(t, z), v.polynomial(z, coefficients), t)


def split(v: Vectors, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """k and f with x = 2^k·(1 + f) and 2/3 ≤ 1 + f < 4/3, for finite x > 0, subnormal or not."""
    b, form = v.builder, v.format
    tiny = v.compare("<", x, 2.0 ** (1 - form.bias))
    up = form.shift + 2
    bits = v.bits(v.select(tiny, v.mul(x, 2.0**up), x))
    low, one = form.bits(2.0 / 3.0), form.bits(1.0)
    moved = b.add(bits, v.integers(one - low))
    # k + bias as a number: the integer in the low bits of 2^shift.
    start = form.bits(2.0**form.shift)
    k = v.from_bits(b.or_(b.lshr(moved, v.integers(form.shift)), v.integers(start)))
    bias = 2.0**form.shift + form.bias
    k = v.sub(k, v.select(tiny, bias + up, bias))
    kept = b.and_(moved, v.integers((1 << form.shift) - 1))
    return k, v.sub(v.from_bits(b.add(kept, v.integers(low))), 1.0)


def log(v: Vectors, x: ir.Value) -> ir.Value:
    """The natural logarithm; −∞ at ±0, NaN below."""
    known = CONSTANTS[v.element]
    k, f = split(v, x)
    y = _log_of_ratio(v, v.div(f, v.fma(f, 0.5, 1.0)), known.log)
    high, low = known.ln2
    y = v.fma(k, high, v.fma(k, low, y))
    y = v.select(v.compare("<", x, math.inf), y, x)  # NaN and ∞ are their own
    y = v.select(v.compare("<", x, 0.0), math.nan, y)
    return v.select(v.compare("==", x, 0.0), -math.inf, y)
