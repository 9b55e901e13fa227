"""Digits, sums and carries, by the rule taught in school."""

from __future__ import annotations

import numpy as np


def digits_of(number: int, base: int) -> list[int]:
    """The digits of one whole number of any length, least significant first.

    Example:
        >>> digits_of(144, 10)
        [4, 4, 1]
    """
    out = []
    while number or not out:
        number, digit = divmod(number, base)
        out.append(digit)
    return out


def digits(numbers: np.ndarray, width: int, base: int = 2) -> np.ndarray:
    """The digits of whole numbers below base**width, least significant first.

    Example:
        >>> digits(np.array([6, 1]), 4).tolist()
        [[0, 1, 1, 0], [1, 0, 0, 0]]
    """
    return numbers[..., None] // base ** np.arange(width) % base


def add_digits(a: np.ndarray, b: np.ndarray, base: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Digits of the sums, and the carry out of each step.

    Args:
        a: digits, least significant first, (sums, time).
        b: the same of the other addends.
        base: of the digits.

    Returns:
        digits and carries, both (sums, time); what the last step carries is cut off.

    Example:
        >>> total, carry = add_digits(np.array([[4, 4, 1, 0]]), np.array([[7, 7, 1, 0]]), 10)
        >>> total.tolist(), carry.tolist()
        ([[1, 2, 3, 0]], [[1, 1, 0, 0]])
    """
    carry, totals, carries = np.zeros(len(a), dtype=np.int64), [], []
    for t in range(a.shape[1]):
        total = a[:, t] + b[:, t] + carry
        carry = total // base
        totals.append(total % base)
        carries.append(carry)
    return np.stack(totals, 1), np.stack(carries, 1)


def random_addends(
    rng: np.random.Generator, sums: int, width: int, base: int, silent: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Digits of random addends, and one step more for the last carry.

    Args:
        rng: what draws them.
        sums: how many.
        width: digits of each addend.
        base: of the digits.
        silent: part of the steps, in [0, 1], where b is set to base − 1 − a, so that the step
            passes a carry on (without this, one step in `base` does).

    Returns:
        digits of the addends, both (sums, width + 1).
    """
    a, b = rng.integers(base, size=(2, sums, width))
    b = np.where(rng.random((sums, width)) < silent, base - 1 - a, b)
    last = np.zeros((sums, 1), dtype=np.int64)
    return np.concatenate([a, last], 1), np.concatenate([b, last], 1)
