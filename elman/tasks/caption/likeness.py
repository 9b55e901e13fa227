"""How like a written text is to the right one: exact, or by the character n-grams they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDER = 6
BETA = 2.0


def ngram_counts(written: str, right: str) -> list[int]:
    """Return, for each order 1 to 6, n-grams of the written text, of the right one, and shared."""
    found = []
    a, b = "".join(written.split()), "".join(right.split())
    for n in range(1, ORDER + 1):
        mine = Counter(a[i : i + n] for i in range(len(a) - n + 1))
        theirs = Counter(b[i : i + n] for i in range(len(b) - n + 1))
        total = sum(theirs.values())
        found += [sum(mine.values()) if total else 0, total, (mine & theirs).total()]
    return found


def chrf(sums: np.ndarray) -> np.ndarray:
    r"""Return chrF, 0 to 100, from summed counts of n-grams.

    With precision P and recall R, each the mean over the orders that both sides have,

    .. math:: chrF = 100 \frac{(1 + \beta^2) P R}{\beta^2 P + R}, \qquad \beta = 2.

    Args:
        sums: (..., 18), sums of what `ngram_counts` returns over the texts.

    Example:
        >>> float(chrf(np.array(ngram_counts("seven", "seven"))))
        100.0

    Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; orders and
    mean as sacrebleu's `chrF2|nc:6|nw:0|space:no`.
    """
    parts = np.asarray(sums, np.float64).reshape(*sums.shape[:-1], ORDER, 3)
    written, right, shared = parts[..., 0], parts[..., 1], parts[..., 2]
    there = (written > 0) & (right > 0)
    orders = np.maximum(there.sum(-1), 1)
    p = (np.where(there, shared / np.maximum(written, 1), 0)).sum(-1) / orders
    r = (np.where(there, shared / np.maximum(right, 1), 0)).sum(-1) / orders
    below = BETA**2 * p + r
    return 100 * np.where(below > 0, (1 + BETA**2) * p * r / np.where(below > 0, below, 1), 0.0)


def compare(written: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """Return, for each text, whether it is exact, and its `ngram_counts`; (texts, 19)."""
    pairs = zip(written, right, strict=True)
    return np.array([[a == b, *ngram_counts(a, b)] for a, b in pairs], np.float64)
