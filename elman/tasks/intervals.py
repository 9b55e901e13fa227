"""How sure a test figure is: intervals by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_MOST_CELLS = 1 << 24  # of the table of drawn counts held at once
Interval = tuple[float, float]


def bootstrap(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    block: int = 1,
    seed: int = 0,
    draws: int = 1000,
) -> Interval:
    r"""Return the 95 % interval of a figure that depends on sums over examples.

    From n examples n are drawn with replacement, again and again, and the interval is that of the
    figure's 2.5 and 97.5 % quantiles over the draws (the percentile bootstrap).

    Args:
        sums: what each example adds, (examples, sums): for accuracy the right and the judged
            labels, for F1 the right, told and true spans, ….
        statistic: the figure, of the sums over all drawn examples: (draws, sums) → (draws,).
            Where it is not finite, the draw is left out.
        block: examples that follow each other are drawn together in blocks of so many, where
            neighbours are alike, as windows of a series are; blocks begin anywhere and go on at
            the start behind the end.
        seed: of the draws.
        draws: how many.

    Returns:
        the lower and the upper end; twice NaN where there is no example or no finite figure.

    Example:
        >>> right = np.array([[1, 1], [0, 1], [1, 1], [1, 1]])
        >>> bootstrap(right, lambda s: s[:, 0] / s[:, 1])
        (0.25, 1.0)

    Source: Efron 1979; blocks that wrap around, Politis & Romano 1992.
    """
    sums = np.asarray(sums, dtype=np.float64)
    if sums.ndim == 1:
        sums = sums[:, None]
    count = len(sums)
    if not count:
        return (float("nan"), float("nan"))
    draw = np.random.default_rng(seed)
    block = min(max(block, 1), count)
    blocks, last = divmod(count, block)
    parts = [(_window_sums(sums, block), blocks)]
    if last:
        parts.append((_window_sums(sums, last), 1))
    totals = np.zeros((draws, sums.shape[1]))
    for windows, times in parts:
        step = max(1, _MOST_CELLS // count)
        for first in range(0, draws, step):
            some = min(step, draws - first)
            drawn = draw.integers(count, size=(some, times))
            weights = np.stack([np.bincount(row, minlength=count) for row in drawn])
            totals[first : first + some] += weights.astype(np.float64) @ windows
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = np.asarray(statistic(totals), dtype=np.float64)
    figures = figures[np.isfinite(figures)]
    if not figures.size:
        return (float("nan"), float("nan"))
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)


def _window_sums(sums: np.ndarray, length: int) -> np.ndarray:
    """The sums over the windows of so many examples that begin at each example."""
    if length == 1:
        return sums
    around = np.concatenate([sums, sums[: length - 1]])
    total = np.concatenate([np.zeros((1, sums.shape[1])), np.cumsum(around, axis=0)])
    return total[length:] - total[:-length]


def in_words(value: float, interval: Interval, form: str = ".1%") -> str:
    """Return a figure with its interval.

    Example:
        >>> in_words(0.9124, (0.89, 0.934))
        '91.2% (89.0–93.4)'
        >>> in_words(1.25, (1.125, 1.5), ".3f")
        '1.250 (1.125–1.500)'
    """
    low, high = (format(end, form).removesuffix("%") for end in interval)
    return f"{value:{form}} ({low}–{high})"
