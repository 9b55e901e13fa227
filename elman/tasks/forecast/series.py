"""Series as numbers: on an even grid of time, scaled by the training part, cut into windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elman.errors import InputError


@dataclass(frozen=True)
class Series:
    """One series on an even grid of time.

    Args:
        name: its id.
        first: place of the first step on the grid of time (see `elman.tasks.forecast.grid`).
        y: (time,), float64; NaN where there is no value.
        past: (time, P), float64, NaN where missing.
        future: (time, F), float64, NaN where missing.
    """

    name: str
    first: int
    y: np.ndarray
    past: np.ndarray
    future: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def part(self, start: int, end: int) -> Series:
        """Return the steps from `start` until before `end` as a series."""
        cut = slice(start, end)
        return Series(self.name, self.first + start, self.y[cut], self.past[cut], self.future[cut])

    def filled(self) -> Series:
        """Return the series with its holes filled, to be read and not to be scored.

        The target and what is known ahead are interpolated linearly, what is known up to the
        origin goes on with its last value, so that nothing is told ahead of its time: a forecast
        begins only where the target has a value.
        """
        return Series(
            self.name,
            self.first,
            _interpolated(self.y),
            np.stack([_held(c) for c in self.past.T], 1) if self.past.size else self.past,
            np.stack([_interpolated(c) for c in self.future.T], 1)
            if self.future.size
            else self.future,
        )


def _interpolated(values: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return np.zeros_like(values)
    return np.interp(np.arange(len(values)), known, values[known])


def _held(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    if not known.any():
        return np.zeros_like(values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return values[np.where(last < 0, known.argmax(), last)]


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of each series, and of each covariate over all series, in training.

    Args:
        y: by series' name, mean and deviation of the target, or of its root or logarithm.
        past, future: (covariates, 2), mean and deviation of each.
        kind: "standard", "sqrt", "log" or "none".
    """

    y: dict[str, tuple[float, float]]
    past: np.ndarray
    future: np.ndarray
    kind: str = "standard"

    @classmethod
    def of(cls, parts: Sequence[Series], kind: str = "standard") -> Scale:
        """Return the scale of training parts; a deviation of 0 becomes 1.

        Raises:
            InputError: a root or logarithm of values below it.
        """
        if kind == "none":
            past, future = (
                np.tile([0.0, 1.0], (m.shape[1], 1)) for m in (parts[0].past, parts[0].future)
            )
            return cls({s.name: (0.0, 1.0) for s in parts}, past, future, kind)
        past, future = (
            np.array([_mean_and_deviation(c) for c in np.concatenate(m).T]).reshape(-1, 2)
            for m in ([s.past for s in parts], [s.future for s in parts])
        )
        own = {s.name: _mean_and_deviation(forward(s.y, kind, s.name)) for s in parts}
        return cls(own, past, future, kind)

    def apply(self, series: Series) -> Series:
        """Return a series (or its root or logarithm), less the mean and over the deviation.

        Raises:
            InputError: a root or logarithm of values below it.
        """
        mean, deviation = self.y[series.name]
        return Series(
            series.name,
            series.first,
            (forward(series.y, self.kind, series.name) - mean) / deviation,
            (series.past - self.past[:, 0]) / self.past[:, 1],
            (series.future - self.future[:, 0]) / self.future[:, 1],
        )

    def undo(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return scaled values of a series' target in its own units."""
        mean, deviation = self.y[name]
        return backward(np.asarray(values, dtype=np.float64) * deviation + mean, self.kind)


def forward(values: np.ndarray, kind: str, name: str) -> np.ndarray:
    """Return values, or their root or logarithm.

    Raises:
        InputError: there is none.
    """
    if kind not in ("sqrt", "log"):
        return values
    low = float(np.nanmin(values)) if np.isfinite(values).any() else 1.0
    if low < 0 or (low == 0 and kind == "log"):
        what = {"sqrt": "the square root", "log": "the logarithm"}[kind]
        raise InputError(
            f"forecast: series {name!r} has the value {low:g}, and its scaling is by {what}; train "
            "with scaling standard."
        )
    return np.sqrt(values) if kind == "sqrt" else np.log(values)


def backward(values: np.ndarray, kind: str) -> np.ndarray:
    """Undo `forward`; what would be a root below 0 counts as 0."""
    if kind == "sqrt":
        return np.square(np.maximum(values, 0.0))
    return np.exp(np.minimum(values, 700.0)) if kind == "log" else values


def _mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    mean, deviation = float(known.mean()), float(known.std())
    # what a constant deviates by is rounding
    return mean, deviation if deviation > 1e-9 * max(1.0, abs(mean)) else 1.0


@dataclass(frozen=True)
class Data:
    """What a network is chosen from: the parts, scaled, with their holes still in them.

    Args:
        train: the training part of each series.
        valid: the validation part of each series, with up to all of its training part before it.
        valid_from: of each of `valid`, the first step that is judged.
        scale: that was applied.
        season: steps of a season; 1 is none.
    """

    train: tuple[Series, ...]
    valid: tuple[Series, ...]
    valid_from: tuple[int, ...]
    scale: Scale
    season: int
