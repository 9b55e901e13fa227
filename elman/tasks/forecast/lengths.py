"""How many steps are read, and how long a season is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elman.errors import InputError
from elman.tasks.forecast.grid import Grid
from elman.tasks.forecast.linear import Features, fit
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.series import Data, Series
from elman.tasks.forecast.windows import Windows

_SEASONS = (1, 2, 4, 8, 14)  # that may be read
_GAIN = 0.995  # of the error that more steps must leave, to be worth their cost
_MOST_LAGS, _FEWEST_LAGS = 512, 8
_LONGEST_SEASON = 400  # that is looked for without a calendar
_CLEAR = 0.3  # autocorrelation at a season, at least
_MICROSECONDS = 1_000_000


def season(parts: Sequence[Series], grid: Grid) -> int:
    """Return the steps of a season of training parts: of the calendar, or the clearest; 1 if none.

    A season is believed where the autocorrelation at it, of series without their slow change, is
    0.3 or more, and clearly more than at half of it; of several that with the largest is taken.
    """
    shapes = [_correlations(s.y, _LONGEST_SEASON) for s in parts]
    shapes = [s for s in shapes if len(s) > 2]
    if not shapes:
        return 1
    longest = max(map(len, shapes))
    sums, counts = np.zeros(longest), np.zeros(longest)
    for shape in shapes:
        sums[: len(shape)] += shape
        counts[: len(shape)] += 1
    found = sums / counts
    inner = np.arange(2, longest - 1)
    peaks = inner[(found[inner] > found[inner - 1]) & (found[inner] >= found[inner + 1])]
    for there in (_of_calendar(grid), peaks.tolist()):
        # without a season the autocorrelation falls, and half of it is nearer than the whole
        clear = [m for m in there if m < longest and found[m] > found[m // 2] + _CLEAR / 3]
        best = max(clear, key=lambda m: found[m], default=1)
        if best > 1 and found[best] >= _CLEAR:
            return int(best)
    return 1


def _of_calendar(grid: Grid) -> list[int]:
    if grid.kind == "months":
        return [12 // int(grid.step)] if grid.step < 12 and 12 % grid.step == 0 else []
    if grid.kind == "weekdays":
        return [5]
    if grid.kind != "time":
        return []
    day = 86_400 * _MICROSECONDS
    return [int(span // grid.step) for span in (day // 24, day, 7 * day)
            if span % grid.step == 0 and 2 <= span // grid.step <= 2016]  # fmt: skip


def _correlations(y: np.ndarray, most: int) -> np.ndarray:
    """Autocorrelation at 0 … of a series less its running mean, holes left out."""
    most = min(most, len(y) // 3)
    known = np.isfinite(y)
    if known.sum() < 8 or most < 2:
        return np.zeros(0)
    values = np.where(known, y, np.interp(np.arange(len(y)), np.flatnonzero(known), y[known]))
    width = min(2 * most + 1, len(y))
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(y))
    low, high = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, len(y))
    rest = values - (total[high] - total[low]) / (high - low)
    size = 1 << int(np.ceil(np.log2(2 * len(rest))))
    power = np.abs(np.fft.rfft(rest, size)) ** 2
    shape = np.fft.irfft(power)[: most + 2]
    return shape / shape[0] if shape[0] > 0 else np.zeros(0)


def lags(options: ForecastOptions, data: Data) -> int:
    """Return the steps that a window reads: as given, or those that a ridge regression forecasts
    best from, on the validation part.

    Raises:
        InputError: no whole number above 0 was given.
    """
    if options.lags not in (None, "auto"):
        try:
            found = max(int(part) for part in str(options.lags).split(","))
        except ValueError:
            found = 0
        if found < 1:
            raise InputError(
                f"forecast: lags is {options.lags!r}; expected a number of steps such as 96, or "
                "auto."
            )
        return found
    horizon = options.horizon or 1
    candidates = _candidates(data, horizon)
    best = (candidates[0], np.inf)
    for count in candidates if len(candidates) > 1 else []:
        error = _ridge_error(data, count, horizon)
        if error < _GAIN * best[1]:
            best = (count, error)
    return best[0]


def _candidates(data: Data, horizon: int) -> list[int]:
    """Numbers of steps to try, rising, for which there is room."""
    longest = max(len(s) for s in data.train)
    room = min(_MOST_LAGS, max(1, (longest - horizon) // 3))
    if data.season > 1:
        wanted = [data.season * seasons for seasons in _SEASONS]
    else:
        wanted = [_FEWEST_LAGS, 2 * _FEWEST_LAGS, 4 * _FEWEST_LAGS, 8 * _FEWEST_LAGS]
    return sorted({min(w, room) for w in wanted})


def _ridge_error(data: Data, count: int, horizon: int) -> float:
    """Mean squared error of ridge regression on the validation part, told from so many steps."""
    past, future = data.train[0].past.shape[1], data.train[0].future.shape[1]
    train = Windows(data.train, [(0, len(s)) for s in data.train], count, horizon)
    parts = list(zip(data.valid_from, map(len, data.valid), strict=True))
    valid = Windows(data.valid, parts, count, horizon)
    if not len(train) or not len(valid):
        return np.inf
    features = Features.of(count, horizon, past, future, True)
    return fit(train, valid, features).error
