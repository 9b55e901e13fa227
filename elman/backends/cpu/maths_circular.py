"""sin and cos on vectors.

x = n·π/2 + r with |r| ≤ π/4, in double whatever the element. π/2 is split in three parts of 36, 36
and 53 bits; the first two products with n are exact for |n| < 2^17, with FMA or without, so for
|x| < 2 × 10^5 r is right to its last digits, next to multiples of π/2 too. Beyond, digits are lost
slowly and then all; from `LIMIT` on the result is that of 0. A float's r is so exact in double
that the float result is right for |x| < 10^5 nearly to half a unit in the last place.

Polynomials in z = r²: sin r = r + r³ p(z), cos r = 1 − z/2 + z² q(z), fitted by Remez' exchange at
60 digits for the least relative error. What remains without the rounding of the evaluation: sin
2^-28.0 and cos 2^-33.0 for float, sin 2^-57.9 and cos 2^-63.9 for double.

Source: the reduction is Cody & Waite 1980, "Software Manual for the Elementary Functions",
chapter 8.
"""

from __future__ import annotations

import math

from llvmlite import ir

from elman.backends.cpu.maths_vectors import Vectors

HALF_PI = (
    float.fromhex("0x1.921fb54440000p+0"),
    float.fromhex("0x1.68c234c4c0000p-39"),
    float.fromhex("0x1.98a2e03707345p-77"),
)
LIMIT = 2.0**45
SIN = {
    "float": (-0.16666654602243197, 0.008332160290051654, -0.0001951521789635462),
    "double": (
        -0.1666666666666663, 0.00833333333332184, -0.00019841269829358528, 2.75573135385144e-06,
        -2.505073438931338e-08, 1.5895433293797535e-10,
    ),
}  # fmt: skip
COS = {
    "float": (0.04166664567020031, -0.00138873156181989, 2.4433082842775484e-05),
    "double": (
        0.041666666666666595, -0.0013888888888873338, 2.480158728899748e-05,
        -2.755731421529929e-07, 2.0875705115059047e-09, -1.1358732782155789e-11,
    ),
}  # fmt: skip


def _quarters(v: Vectors, x: ir.Value, turn: int) -> tuple[ir.Value, ir.Value]:
    """r, and a number whose lowest bits are n + turn."""
    inside = v.compare("<", v.abs(x), LIMIT)
    # Infinities become NaN here, and NaN stays; what is too large for n becomes 0.
    x = v.select(inside, x, v.mul(x, 0.0))
    n, biased = v.rounded(x, 2.0 / math.pi, turn)
    r = x
    for part in HALF_PI:
        r = v.fma(n, -part, r)
    return r, biased


def _turned(v: Vectors, x: ir.Value, turn: int) -> ir.Value:
    """sin(x + turn·π/2)."""
    d, element = v.wide(), v.element
    b = v.builder
    wide = x if element == "double" else v.widened(x)
    r, biased = _quarters(d, wide, turn)
    z = d.mul(r, r)
    sine = d.mul(r, d.polynomial(z, (1.0, *SIN[element])))  # a product keeps −0
    cosine = d.fma(d.mul(z, z), d.polynomial(z, COS[element]), d.fma(z, -0.5, 1.0))
    bits = d.bits(biased)
    # Odd quarters are cosines; the second bit of the quarter becomes the sign.
    odd = b.icmp_unsigned("!=", b.and_(bits, d.integers(1)), d.integers(0))
    sign = d.from_bits(b.shl(bits, d.integers(62)))
    y = d.with_sign_of(d.select(odd, cosine, sine), sign)
    return y if element == "double" else v.narrowed(y)


def sin(v: Vectors, x: ir.Value) -> ir.Value:
    """The sine; NaN at ±∞."""
    return _turned(v, x, 0)


def cos(v: Vectors, x: ir.Value) -> ir.Value:
    """The cosine; NaN at ±∞."""
    return _turned(v, x, 1)
