"""Windows cut from series, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from elman.tasks.forecast.base import Window
from elman.tasks.forecast.series import Series


class Windows:
    r"""All windows of some series whose targets lie in a part of them.

    An origin is a step where the target has a value, so that filling a hole before it reads nothing
    behind it. A window that reaches back over the beginning of its series reads its first values
    again (only where the series has fewer than `lags` steps before the part).

    Args:
        series: scaled, with their holes.
        parts: of each series, the first step of targets and the end (not included).
        lags: L, steps read.
        horizon: H, steps told.
        stride: steps between origins.
        whole: whether all H targets must lie in the part; if not, one is enough.
    """

    def __init__(
        self,
        series: Sequence[Series],
        parts: Sequence[tuple[int, int]],
        lags: int,
        horizon: int,
        *,
        stride: int = 1,
        whole: bool = True,
    ):
        self.lags, self.horizon = lags, horizon
        self.names = [s.name for s in series]
        ends = np.cumsum([0, *(len(s) for s in series)])
        self._starts, self._ends = ends[:-1], ends[1:]
        filled = [s.filled() for s in series]
        self._y = np.concatenate([s.y for s in filled])
        self._past = np.concatenate([s.past for s in filled])
        self._future = np.concatenate([s.future for s in filled])
        self._known = np.concatenate([np.isfinite(s.y) for s in series])
        numbers, origins = [], []
        for i, (one, (start, end)) in enumerate(zip(series, parts, strict=True)):
            found = _origins(one, start, end, lags, horizon if whole else 1)[::stride]
            numbers.append(np.full(len(found), i))
            origins.append(found)
        self.number, self.origin = np.concatenate(numbers), np.concatenate(origins)
        self._part_end = np.array([end for _, end in parts])

    def __len__(self) -> int:
        return len(self.origin)

    def count(self) -> int:
        """Return how many values of targets are observed, over all windows."""
        total = np.concatenate([[0], np.cumsum(self._known)])
        first = self.origin + self._starts[self.number] + 1
        end = np.minimum(
            first + self.horizon, self._starts[self.number] + self._part_end[self.number]
        )
        return int((total[end] - total[first]).sum())

    def keep(self, most: int) -> None:
        """Keep at most so many windows of each series, evenly spread."""
        kept = []
        bounds = np.searchsorted(self.number, np.arange(len(self.names) + 1))
        for first, end in pairwise(bounds.tolist()):
            mine = np.arange(first, end)
            if len(mine) > most:
                mine = mine[np.unique(np.linspace(0, len(mine) - 1, most).round().astype(int))]
            kept.append(mine)
        chosen = np.concatenate(kept)
        self.number, self.origin = self.number[chosen], self.origin[chosen]

    def window(self, chosen: np.ndarray | slice) -> Window:
        """Return the chosen windows as a batch, in float64."""
        number, origin = self.number[chosen], self.origin[chosen]
        steps = origin[:, None] + np.arange(1 - self.lags, self.horizon + 1)
        inside = steps[:, self.lags :] < self._part_end[number][:, None]
        start, end = self._starts[number][:, None], self._ends[number][:, None]
        at = np.clip(steps + start, start, end - 1)
        before, behind = at[:, : self.lags], at[:, self.lags :]
        observed = self._known[behind] & inside
        target = np.where(observed, self._y[behind], 0.0)
        parts = (self._y[before], self._past[before], self._future[at], target, observed)
        return Window(*map(torch.from_numpy, parts))


def _origins(series: Series, start: int, end: int, lags: int, horizon: int) -> np.ndarray:
    first, last = start - 1, end - horizon - 1
    if first < lags - 1:
        # a short series learns from windows that are not full
        room = last - (lags - 1)
        first = max(lags - 1, first) if room >= 0 else max(0, first, last // 2)
    origins = np.arange(first, last + 1)
    return origins[np.isfinite(series.y[origins])]


def to(window: Window, like: Tensor) -> Window:
    """Return a window with the number type and device of a tensor; truth values stay."""

    def moved(part: Tensor) -> Tensor:
        return part.to(like.device, like.dtype)

    return Window(
        moved(window.y),
        moved(window.past),
        moved(window.future),
        moved(window.target),
        window.observed.to(like.device),
    )
