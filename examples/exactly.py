"""A saturated-linear network evaluated without rounding, for numbers longer than any float.

A stack of n symbols in base 8 is a number of 3 n bits; float64 has 53. So the units' values are
kept here as whole numbers and a fraction of as many bits as are asked for, and every product and
sum is exact; a bit that would be lost is an error. Weights must be dyadic (whole over a power of
two), as those of `constructed.turing` are.
"""

from __future__ import annotations

from fractions import Fraction

from constructed import Weights


class ExactNetwork:
    """A network without inputs, step by step. Values are (whole, fraction · 2^bits)."""

    def __init__(self, net: Weights, bits: int):
        if net.inputs:
            raise ValueError(f"the network has inputs, {net.inputs}; this one takes none")
        self.bits, self.names = bits, list(net.units)
        place = {name: i for i, name in enumerate(self.names)}
        self.bias = [self._parts(Fraction(net.bias.get(n, 0))) for n in self.names]
        self.columns: list[list[tuple[int, int, int]]] = [[] for _ in self.names]
        for name, sources in net.units.items():
            for source, weight in sources.items():
                if weight:
                    w = Fraction(weight)
                    entry = (place[name], w.numerator, self._shift(w))
                    self.columns[place[source]].append(entry)
        start = (Fraction(net.start.get(n, 0)) for n in self.names)
        self.values = {i: self._parts(v) for i, v in enumerate(start) if v}

    @staticmethod
    def _shift(value: Fraction) -> int:
        shift = value.denominator.bit_length() - 1
        if 1 << shift != value.denominator:
            raise ValueError(f"{value} is not dyadic; its denominator is no power of two")
        return shift

    def _parts(self, value: Fraction) -> tuple[int, int]:
        whole, rest = divmod(value, 1)
        return whole, (rest.numerator << self.bits) >> self._shift(rest)

    def step(self) -> None:
        """One step of the network: every unit that is not 0 adds to those that see it."""
        sums = {i: list(parts) for i, parts in enumerate(self.bias)}
        for source, (whole, fraction) in self.values.items():
            for unit, times, shift in self.columns[source]:
                self._add(sums[unit], whole, fraction, times, shift)
        self.values = {}
        for unit, (whole, fraction) in sums.items():
            if fraction == 0:
                if whole > 0:
                    self.values[unit] = (1, 0)
            # |fraction| < 2^length: a whole part that outweighs it decides without a long sum.
            elif whole >= 0 or fraction.bit_length() > self.bits + (-whole).bit_length() - 1:
                total = (whole << self.bits) + fraction
                if total > 0:
                    one = total >> self.bits
                    self.values[unit] = (1, 0) if one else (0, total)

    def _add(self, total: list[int], whole: int, fraction: int, times: int, shift: int) -> None:
        if fraction:
            product = fraction * times
            if shift and product & ((1 << shift) - 1):
                raise ValueError(f"{self.bits} bits are too few for this tape")
            total[1] += product >> shift
        if whole:
            if shift:
                total[1] += (whole * times << self.bits) >> shift
            else:
                total[0] += whole * times

    def value(self, name: str) -> Fraction:
        """A unit's value."""
        whole, fraction = self.values.get(self.names.index(name), (0, 0))
        return whole + Fraction(fraction, 1 << self.bits)

    def on(self, name: str) -> bool:
        """Whether a logical unit is 1."""
        return self.values.get(self.names.index(name), (0, 0)) == (1, 0)
