"""What came of learning to add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from elman.errors import InputError
from elman.tasks.addition.carry import LONGEST, Holder
from elman.tasks.addition.network import answers
from elman.tasks.addition.sums import digits_of


@dataclass(frozen=True)
class Result:
    """Figures and curves of a network that learned to add.

    Args:
        base: of the digits.
        seed: of weights and sums.
        sums: trained on, in all.
        width: digits of an addend in training.
        printed: the notes' program's own error at update 0, 1000, … (base 2; else empty).
        accuracy: part of the 1,000 held-out sums whose every digit is right.
        longer: the same by the digits of an addend, for lengths that were not trained on.
        longest_carry: silent steps through which the carry is held, in the hardest sums.
        fell: the update at which the error is half-way down.
        told_fell: the same of a network that is told the carry (base 2; else None).
        holders: the units that hold the carry, the one that moves most first.
        updates: when the curves were measured, (moments,).
        error: mean error of a held-out sum, (moments,): the sum of |error| over its bits (base 2),
            or the number of its wrong digits.
        told_error: the same of the network that is told the carry, or None.
        swing: how far each unit moves with the carry, (moments, hidden); see `carry.swings`.
        readout: size of the readout's weights from each unit, (moments, hidden).
        weights: at the end.
    """

    base: int
    seed: int
    sums: int
    width: int
    printed: dict[int, float]
    accuracy: float
    longer: dict[int, float]
    longest_carry: int
    fell: int
    told_fell: int | None
    holders: list[Holder]
    updates: np.ndarray
    error: np.ndarray
    told_error: np.ndarray | None
    swing: np.ndarray
    readout: np.ndarray
    weights: dict[str, Tensor]

    def add(self, a: int, b: int) -> int:
        """Add two whole numbers with the trained network.

        Args:
            a: an addend >= 0, of any length.
            b: the other.

        Returns:
            the sum as the network says it, right or wrong.

        Raises:
            InputError: a negative number.
        """
        if a < 0 or b < 0:
            raise InputError(f"the adder takes whole numbers >= 0, got {a} and {b}")
        pair = [digits_of(n, self.base) for n in (a, b)]
        width = max(map(len, pair)) + 1
        rows = [np.array([d + [0] * (width - len(d))]) for d in pair]
        said = answers(self.weights, rows[0], rows[1], self.base)[0]
        return sum(int(digit) * self.base**k for k, digit in enumerate(said))

    def why(self) -> str:
        """Say in words, with the moments measured, why the error falls when it does."""
        if not self.holders:
            return "No unit came to hold the carry."
        most = self.holders[0]
        words = (
            f"The error is half-way down at update {self.fell:,}. Of the units that hold the carry "
            f"furthest, {self._begin()}."
        )
        if self.base != 2:
            words += (
                f" Measured: the wrong digits of a held-out sum, in the mean; and as held, where a "
                f"unit's mean activity differs by a tenth of its range between carry and none, "
                f"after two digits or more that add to {self.base - 1} and so only pass it on."
            )
        if self.told_fell is not None:
            words += (
                f" Told the carry, the same network is half-way down at {self.told_fell:,}: the "
                f"other {self.fell - self.told_fell:,} updates went into finding a memory."
            )
        if self.base != 2:
            return words
        start, end = np.searchsorted(self.updates, [self.fell // 2, self.fell])
        before, after = self.readout[[start, end], most.unit]
        return words + (
            " It is sudden because a unit is taught to hold the carry only as far as the readout "
            "listens to it, and the readout learns to listen only as far as it holds something: "
            f"from update {self.updates[start]:,} to {self.updates[end]:,} unit {most.unit}'s "
            f"readout weight goes from {before:.2f} to {after:.2f} and its swing from "
            f"{abs(self.swing[start, most.unit]):.2f} to {abs(self.swing[end, most.unit]):.2f}."
        )

    def _begin(self) -> str:
        """Say of the two foremost units when they begin, against the moment the error falls."""
        said: dict[str, list[str]] = {}
        for holder in sorted(self.holders[:2], key=lambda holder: holder.since):
            apart = holder.since - self.fell
            when = (
                "around then" if abs(apart) <= self.fell / 4 else "before" if apart < 0 else "after"
            )
            said.setdefault(when, []).append(f"unit {holder.unit} from update {holder.since:,}")
        parts = []
        for when, units in said.items():
            begin = "begins" if len(units) == 1 else "begin"
            parts.append(f"{' and '.join(units)} {begin} to hold it {when}")
        return ", ".join(parts)

    def held(self) -> str:
        """Say in words how long the carry is held in the hardest sums."""
        if self.longest_carry >= LONGEST:
            return f"In the hardest sums the carry is held for at least {LONGEST} steps."
        return f"In the hardest sums the carry is held for {self.longest_carry} steps, then lost."

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values, without the weights."""
        return {
            "base": self.base,
            "seed": self.seed,
            "sums": self.sums,
            "width": self.width,
            "errors": {str(k): v for k, v in self.printed.items()},
            "held_out_accuracy": self.accuracy,
            "accuracy_by_digits": {str(k): v for k, v in self.longer.items()},
            "longest_carry": self.longest_carry,
            "error_half_way_down_at": self.fell,
            "told_the_carry_half_way_down_at": self.told_fell,
            "units_that_hold_the_carry": [vars(holder) for holder in self.holders],
            "why": self.why(),
            "curves": {
                "update": self.updates.tolist(),
                "error": self.error.tolist(),
                "told_error": None if self.told_error is None else self.told_error.tolist(),
                "swing": self.swing.tolist(),
            },
        }
