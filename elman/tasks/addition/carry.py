"""Which units hold the carry, and since when.

It is measured on *silent* steps, whose digits add to base − 1: they pass a carry on and say nothing
about it, so that after two of them only the network's own memory can know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from elman.tasks.addition.network import answers
from elman.tasks.addition.sums import add_digits

HOLDS = 0.1  # from this swing on, a part of its range, a unit is said to hold the carry
LONGEST = 512  # silent steps that `longest_carry` tries


@dataclass(frozen=True)
class Holder:
    """A unit that holds the carry.

    Args:
        unit: its index.
        since: the update from which on its swing stays above a tenth of its range.
        swing: at the end; see `swings`.
    """

    unit: int
    since: int
    swing: float


def silent_steps(a: np.ndarray, b: np.ndarray, base: int) -> np.ndarray:
    """Steps where neither this nor the last digits say anything about the carry, (sums, time).

    The first such step is the third: before it, some digits must have made the carry.

    Example:
        >>> a, b = np.array([[1, 1, 0, 1]]), np.array([[1, 0, 1, 1]])
        >>> silent_steps(a, b, 2).tolist()
        [[False, False, True, False]]
    """
    passes = a + b == base - 1
    silent = np.zeros_like(passes)
    silent[:, 2:] = passes[:, 2:] & passes[:, 1:-1]
    return silent


def swings(hidden: Tensor, a: np.ndarray, b: np.ndarray, base: int) -> np.ndarray:
    """How far each unit's mean activity moves with the carry on silent steps, (hidden,).

    Args:
        hidden: activity, (time, sums, hidden).
        a: digits, (sums, time).
        b: digits, (sums, time).
        base: of the digits.

    Returns:
        parts of a unit's range (1 for the logistic unit of base 2, 2 for tanh), in [−1, 1].
    """
    silent, carry = silent_steps(a, b, base), add_digits(a, b, base)[1]
    activity = hidden.transpose(0, 1).numpy()
    moved = activity[silent & (carry == 1)].mean(0) - activity[silent & (carry == 0)].mean(0)
    return moved if base == 2 else moved / 2


def longest_carry(weights: Mapping[str, Tensor], base: int) -> int:
    """Silent steps through which a carry, and also no carry, is held rightly, up to `LONGEST`.

    The hardest sums there are: 99…9 + 9 and 99…90 + 0, and with the addends exchanged.
    """
    a = np.zeros((4, LONGEST + 1), dtype=np.int64)
    b = np.zeros_like(a)
    a[:2, 1:], b[2:, 1:] = base - 1, base - 1
    a[[0, 2], 0], b[[0, 2], 0] = base - 1, base - 1
    wrong = (answers(weights, a, b, base) != add_digits(a, b, base)[0]).any(0)
    return max(int(wrong.argmax()) - 1, 0) if wrong.any() else LONGEST


def half_way(updates: np.ndarray, error: np.ndarray) -> int:
    """The first update at which the error is below the middle of its first and last value."""
    return int(updates[np.argmax(error < (error[0] + error[-1]) / 2)])


def find_holders(updates: np.ndarray, swing: np.ndarray) -> list[Holder]:
    """The units whose swing ends above `HOLDS`, the furthest first.

    A curve is read through a running median of nine moments: single updates of the notes' program,
    one sum each, can shake the network for a moment.

    Args:
        updates: when it was measured, (moments,).
        swing: (moments, hidden).
    """
    out = []
    padded = np.pad(np.abs(swing), ((4, 4), (0, 0)), mode="edge")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, 9, axis=0), axis=-1)
    for unit, curve in enumerate(medians.T):
        below = np.flatnonzero(curve < HOLDS)
        start = int(below[-1]) + 1 if len(below) else 0
        if start < len(curve):
            out.append(Holder(unit, int(updates[start]), float(swing[-1, unit])))
    return sorted(out, key=lambda holder: -abs(holder.swing))
