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
_GAIN = 0.4  # part of the error, over the root of the steps judged, that more lags must gain
_MOST_LAGS, _FEWEST_LAGS = 512, 4
_LONGEST_SEASON = 400  # that is looked for without a calendar
_CLEAR = 0.3  # autocorrelation at a season that no calendar names, at least
_RISE = 0.2  # of it, from half a season to a whole one, at least
_MICROSECONDS = 1_000_000


def season(parts: Sequence[Series], grid: Grid) -> int:
    """Return the steps of a season of training parts: of the calendar, or the clearest; 1 if none.

    A span of the calendar (a day of hours, a year of months) is a season where the autocorrelation
    at it, of series less their running mean over two spans, is positive and clearly more than at
    half of it: without a season it falls. Where the calendar has none, the highest peak of 0.3 or
    more is taken.
    """
    found = {}
    for span in _of_calendar(grid):
        shape = _mean_correlations(parts, span)
        if len(shape) > span and shape[span] > 0 and _rises(shape, span, parts):
            found[span] = shape[span]
    if found:
        return max(found, key=lambda span: found[span])
    shape = _mean_correlations(parts, _LONGEST_SEASON)
    inner = np.arange(2, len(shape) - 1)
    peaks = inner[(shape[inner] > shape[inner - 1]) & (shape[inner] >= shape[inner + 1])]
    peaks = [m for m in peaks if shape[m] >= _CLEAR and _rises(shape, m, parts)]
    return int(max(peaks, key=lambda m: shape[m], default=1))


def _rises(shape: np.ndarray, span: int, parts: Sequence[Series]) -> bool:
    chance = 4 / np.sqrt(sum(len(s) for s in parts))
    return bool(shape[span] - shape[span // 2] > max(_RISE, chance))


def _mean_correlations(parts: Sequence[Series], most: int) -> np.ndarray:
    """Autocorrelations up to a lag, the mean over series of those that are long enough."""
    shapes = [shape for s in parts if len(shape := _correlations(s.y, most)) > 2]
    longest = max(map(len, shapes), default=0)
    sums, counts = np.zeros(longest), np.zeros(longest)
    for shape in shapes:
        sums[: len(shape)] += shape
        counts[: len(shape)] += 1
    return sums / np.maximum(counts, 1)


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
    judged = sum(len(s) - start for s, start in zip(data.valid, data.valid_from, strict=True))
    # of few steps an error is known only roughly, and so is what more lags gain
    worth = 1 - _GAIN / np.sqrt(max(judged, 1))
    best = (candidates[0], np.inf)
    for count in candidates if len(candidates) > 1 else []:
        error = _ridge_error(data, count, horizon)
        if error < worth * best[1]:
            best = (count, error)
    return best[0]


def _candidates(data: Data, horizon: int) -> list[int]:
    """Numbers of steps to try, rising, for which there is room."""
    longest = max(len(s) for s in data.train)
    room = min(_MOST_LAGS, max(1, (longest - horizon) // 3))
    if data.season > 1:
        wanted = [data.season * seasons for seasons in _SEASONS]
    else:
        wanted = [_FEWEST_LAGS * 2**k for k in range(5)]
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
