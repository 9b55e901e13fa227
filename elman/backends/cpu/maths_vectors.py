"""What the vector mathematics is written with: constants, arithmetic, bits and masks of vectors."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from elman.errors import InputError, nearest

INT32 = ir.IntType(32)


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: the bits of its significand and the bias of its exponent.

    A number ±1.f × 2^e is stored as its sign, e + `bias`, and the `shift` bits of f.
    """

    scalar: ir.Type
    size: int
    shift: int
    bias: int

    def bits(self, number: float) -> int:
        """The number, rounded to the format, as the integer of the same bits."""
        kind, integer = ("<f", "<I") if self.size == 32 else ("<d", "<Q")
        return struct.unpack(integer, struct.pack(kind, number))[0]

    @property
    def magic(self) -> float:
        """1.5 × 2^shift: what is added to it comes out rounded to an integer, in the low bits."""
        return 1.5 * 2.0**self.shift


FORMATS = {
    "float": Format(ir.FloatType(), 32, 23, 127),
    "double": Format(ir.DoubleType(), 64, 52, 1023),
}


@functools.cache
def _vector(scalar: ir.Type, lanes: int) -> ir.VectorType:
    return ir.VectorType(scalar, lanes)


class Vectors:
    """Arithmetic on vectors of `lanes` numbers, appended to a builder as LLVM IR.

    Nothing here lowers to a call, on any target: a sum with a large constant rounds to integers,
    masks and selections stand in for minimum and maximum. No instruction carries a flag that
    lets LLVM assume numbers to be finite, or reorder them.

    Args:
        builder: where the instructions go; its position may move between calls.
        element: "float" or "double".
        lanes: numbers to a vector, at least 1; any, though powers of two compile best.
        fused: the target multiplies and adds with one rounding (FMA); products may then have their
            rounding errors computed so. `fma` fuses where the target can, whatever this says.
        scaling: the target has AVX-512 (F and VL), whose instruction for x·2^n is used where the
            vectors have one of its widths. Results are the same bits with and without.

    Raises:
        InputError: the element or the number of lanes cannot be.

    Example:
        >>> module = ir.Module("example")
        >>> kind = ir.FunctionType(ir.VoidType(), [])
        >>> block = ir.Function(module, kind, "example").append_basic_block()
        >>> v = Vectors(ir.IRBuilder(block), "float", 8)
        >>> str(v.add(v.constant(1.0), v.constant(2.0)).type)
        '<8 x float>'
    """

    def __init__(
        self,
        builder: ir.IRBuilder,
        element: str,
        lanes: int,
        *,
        fused: bool = False,
        scaling: bool = False,
    ):
        if element not in FORMATS:
            raise InputError(
                f"element is {element!r}; vectors hold 'float' or 'double'."
                f"{nearest(str(element), FORMATS)}"
            )
        if lanes < 1:
            raise InputError(f"lanes is {lanes}; a vector holds at least 1 number")
        self.builder, self.element, self.lanes = builder, element, lanes
        self.fused, self.scaling = fused, scaling
        self.format = FORMATS[element]
        self.type = _vector(self.format.scalar, lanes)
        self.bits_type = _vector(ir.IntType(self.format.size), lanes)
        self.mask_type = _vector(ir.IntType(1), lanes)

    # Constants.

    def constant(self, number: float) -> ir.Constant:
        """The number, rounded to the element, in every lane."""
        return ir.Constant(self.type, [ir.Constant(self.format.scalar, float(number))] * self.lanes)

    def integers(self, number: int) -> ir.Constant:
        """The integer of the element's size, modulo 2^size, in every lane."""
        kept = number & ((1 << self.format.size) - 1)
        return ir.Constant(self.bits_type, [kept] * self.lanes)

    def lift(self, value: ir.Value | float) -> ir.Value:
        """The value itself, or a number in every lane."""
        return value if isinstance(value, ir.Value) else self.constant(value)

    # Arithmetic; a plain number stands for itself in every lane.

    def add(self, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        return self.builder.fadd(self.lift(a), self.lift(b))

    def sub(self, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        return self.builder.fsub(self.lift(a), self.lift(b))

    def mul(self, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        return self.builder.fmul(self.lift(a), self.lift(b))

    def div(self, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        return self.builder.fdiv(self.lift(a), self.lift(b))

    def neg(self, a: ir.Value) -> ir.Value:
        return self.builder.fneg(a)

    def fma(self, a: ir.Value | float, b: ir.Value | float, c: ir.Value | float) -> ir.Value:
        """a·b + c, with one rounding where the target can, else with two."""
        return self._call("llvm.fmuladd", self.lift(a), self.lift(b), self.lift(c))

    def sqrt(self, a: ir.Value) -> ir.Value:
        return self._call("llvm.sqrt", a)

    def abs(self, a: ir.Value) -> ir.Value:
        return self._call("llvm.fabs", a)

    def product(self, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        """a·b and what its rounding took away, where nothing overflows or underflows.

        Source: Dekker 1971, "A floating-point technique for extending the available precision",
        section 5; the factors are halved by clearing bits.
        """
        p = self.mul(a, b)
        if self.fused:
            return p, self.fma(a, b, self.neg(p))
        half = self.format.shift // 2 + 1
        high, other = self.truncated(a, half), self.truncated(b, half)
        low, rest = self.sub(a, high), self.sub(b, other)
        error = self.sub(self.mul(high, other), p)
        error = self.add(self.add(error, self.mul(high, rest)), self.mul(low, other))
        return p, self.add(error, self.mul(low, rest))

    def polynomial(self, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
        """c₀ + x (c₁ + x (c₂ + …)), the coefficients in this order."""
        *lower, last = coefficients
        value = self.constant(last)
        for coefficient in reversed(lower):
            value = self.fma(value, x, coefficient)
        return value

    # Choices.

    def compare(self, relation: str, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        """The mask of a `relation` b, "<", "<=", "==", ">" or ">="; never true of NaN."""
        return self.builder.fcmp_ordered(relation, self.lift(a), self.lift(b))

    def unordered(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The mask of the lanes where a or b is NaN."""
        return self.builder.fcmp_unordered("uno", a, b)

    def select(self, mask: ir.Value, a: ir.Value | float, b: ir.Value | float) -> ir.Value:
        return self.builder.select(mask, self.lift(a), self.lift(b))

    def at_most(self, a: ir.Value, bound: float) -> ir.Value:
        """min(a, bound), and NaN where a is NaN: one instruction on x86."""
        return self.select(self.compare(">", a, bound), bound, a)

    def at_least(self, a: ir.Value, bound: float) -> ir.Value:
        """max(a, bound), and NaN where a is NaN: one instruction on x86."""
        return self.select(self.compare("<", a, bound), bound, a)

    def within(self, a: ir.Value, low: float, high: float) -> ir.Value:
        """a where low ≤ a ≤ high, else the nearer bound; NaN where a is NaN."""
        return self.at_most(self.at_least(a, low), high)

    def is_mask(self, value: Any) -> bool:
        """Whether the value is a comparison's result."""
        return value.type == self.mask_type

    def number(self, value: ir.Value) -> ir.Value:
        """1 where a mask is true and 0 where it is not; a vector of numbers as it is."""
        return self.select(value, 1.0, 0.0) if self.is_mask(value) else value

    def mask(self, value: ir.Value) -> ir.Value:
        """A mask as it is; of numbers, the mask of those that are not 0 (NaN is not)."""
        if self.is_mask(value):
            return value
        return self.builder.fcmp_unordered("!=", value, self.constant(0.0))

    # Bits.

    def bits(self, a: ir.Value) -> ir.Value:
        """The numbers as integers of the same bits."""
        return self.builder.bitcast(a, self.bits_type)

    def from_bits(self, a: ir.Value) -> ir.Value:
        """The integers as numbers of the same bits."""
        return self.builder.bitcast(a, self.type)

    def truncated(self, a: ir.Value, bits: int) -> ir.Value:
        """The numbers with their lowest `bits` bits cleared."""
        return self.from_bits(self.builder.and_(self.bits(a), self.integers(-1 << bits)))

    def with_sign_of(self, a: ir.Value, sign: ir.Value) -> ir.Value:
        """a, negated where `sign` is negative or −0."""
        top = self.integers(1 << (self.format.size - 1))
        return self.from_bits(
            self.builder.xor(self.bits(a), self.builder.and_(self.bits(sign), top))
        )

    def power_of_two(self, biased: ir.Value) -> ir.Value:
        """2^n, of numbers whose lowest bits are n + bias > 0, as `rounded` leaves them."""
        return self.from_bits(self.builder.shl(self.bits(biased), self.integers(self.format.shift)))

    def rounded(
        self, x: ir.Value, factor: float, bias: int | None = None
    ) -> tuple[ir.Value, ir.Value]:
        """n = x·|factor| rounded to an integer, and a number whose lowest bits are ±n + bias.

        The sign is the factor's; n is never −0. |n| must stay below a quarter of 2^shift. The bias
        is the format's own unless given.
        """
        start = self.format.magic + (self.format.bias if bias is None else bias)
        biased = self.fma(x, factor, start)
        n = self.sub(biased, start) if factor > 0 else self.sub(start, biased)
        return n, biased

    def scaled(self, x: ir.Value, n: ir.Value) -> ir.Value:
        """x·2^n by AVX-512's instruction, rounded once; n an integer as a number."""
        size, lanes = self.format.size, self.lanes
        letter, width = "s" if size == 32 else "d", size * lanes
        name = f"llvm.x86.avx512.mask.scalef.p{letter}.{width}"
        everywhere = ir.IntType(max(8, lanes))
        arguments = [x, n, x, ir.Constant(everywhere, -1)]
        if width == 512:
            arguments.append(ir.Constant(INT32, 4))  # the rounding in force
        return self.builder.call(self._intrinsic(name, arguments, self.type), arguments)

    @property
    def scales(self) -> bool:
        """Whether `scaled` may be used."""
        return self.scaling and self.format.size * self.lanes in (128, 256, 512)

    # Other elements.

    def wide(self) -> Vectors:
        """The same lanes in double; itself where the element is double."""
        if self.element == "double":
            return self
        return Vectors(self.builder, "double", self.lanes, fused=self.fused, scaling=self.scaling)

    def widened(self, a: ir.Value) -> ir.Value:
        """The float numbers as double."""
        return self.builder.fpext(a, self.wide().type)

    def narrowed(self, a: ir.Value) -> ir.Value:
        """Double numbers rounded to float, for these vectors of float."""
        return self.builder.fptrunc(a, self.type)

    def _call(self, name: str, *arguments: Any) -> ir.Value:
        full = f"{name}.v{self.lanes}f{self.format.size}"
        return self.builder.call(self._intrinsic(full, arguments, self.type), arguments)

    def _intrinsic(self, name: str, arguments: Sequence[Any], result: ir.Type) -> ir.Function:
        module = self.builder.module
        known = module.globals.get(name)
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return known if known is not None else ir.Function(module, kind, name)


def splat(value: ir.Value) -> float | None:
    """The number that a constant vector has in every lane; None of anything else.

    Example:
        >>> kind = ir.VectorType(ir.FloatType(), 4)
        >>> splat(ir.Constant(kind, [2.0] * 4))
        2.0
        >>> splat(ir.Constant(kind, [2.0, 3.0, 2.0, 2.0])) is None
        True
    """
    if not isinstance(value, ir.Constant) or not isinstance(value.constant, (list, tuple)):
        return None
    numbers = [one.constant for one in value.constant]
    same = all(isinstance(n, float) and n == numbers[0] for n in numbers)
    return numbers[0] if same else None
