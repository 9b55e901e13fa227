"""How good forecasts are: errors, scaled errors, coverage, and how sure these figures are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elman.tasks.forecast.base import Window
from elman.tasks.forecast.series import Scale, backward
from elman.tasks.forecast.windows import Windows
from elman.tasks.intervals import bootstrap

_AT_ONCE = 200_000  # values of windows judged together
_COUNT, _SQUARE, _ABSOLUTE, _SCALED, _MASE, _MASE_COUNT, _FIRST_LEVEL = range(7)


@dataclass
class Told:
    """What a forecaster says of a batch of windows.

    Args:
        middle: (batch, H), scaled.
        ends: ends of intervals, (batch, H, 2 · levels), rising; None where there are none.
        losses: (batch, H), of each value; None where they are not asked for.
    """

    middle: Tensor
    ends: Tensor | None = None
    losses: Tensor | None = None


@dataclass(frozen=True)
class Units:
    """What turns scaled errors into errors.

    Args:
        scale: of training.
        naive: of each series, what MASE divides by; 0 is unknown.
    """

    scale: Scale
    naive: Mapping[str, float]

    def undo(self, values: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """Return scaled values (batch, H) in the units of their series."""
        return torch.from_numpy(backward((values * deviation + mean).numpy(), self.scale.kind))


@dataclass
class Sums:
    """Sums of errors, a row a window (or a value, `by_value`).

    Args:
        rows: (rows, sums): count, squared and absolute error, scaled squared error, error over the
            naive one and its count, values within each interval, and the losses.
        levels: of the intervals.
    """

    rows: np.ndarray
    levels: tuple[float, ...]
    losses: bool = False

    def figures(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return the figures of totals (…, sums), each (…)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = totals / totals[..., _COUNT : _COUNT + 1]
            found = {
                "rmse": np.sqrt(mean[..., _SQUARE]),
                "mae": mean[..., _ABSOLUTE],
                "mse": mean[..., _SQUARE],
                "rmse_scaled": np.sqrt(mean[..., _SCALED]),
                "mse_scaled": mean[..., _SCALED],
                "mase": totals[..., _MASE] / totals[..., _MASE_COUNT],
            }
            for i, level in enumerate(self.levels):
                found[f"coverage_{level:g}"] = mean[..., _FIRST_LEVEL + i]
            if self.losses:
                found["loss"] = mean[..., -1]
        return found

    def total(self) -> dict[str, float | None]:
        """Return the figures over all rows; None where there is nothing to tell."""
        found = self.figures(self.rows.sum(0))
        return {k: float(v) if np.isfinite(v) else None for k, v in found.items()}

    def intervals(self, block: int, seed: int = 0) -> dict[str, list[float] | None]:
        """Return the 95 % interval of each figure, by drawing blocks of neighbouring rows."""
        found = {}
        for key in self.figures(self.rows[:1].sum(0)):
            low, high = bootstrap(
                self.rows, lambda t, key=key: self.figures(t)[key], block=block, seed=seed
            )
            found[key] = [low, high] if np.isfinite([low, high]).all() else None
        return found


def batches(windows: Windows, chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield the numbers of windows that are judged at once."""
    chosen = np.arange(len(windows)) if chosen is None else chosen
    size = max(1, _AT_ONCE // (windows.lags + windows.horizon))
    for first in range(0, len(chosen), size):
        yield chosen[first : first + size]


@torch.no_grad()
def judge(
    tell: Callable[[Window], Sequence[Told]],
    windows: Windows,
    units: Units,
    levels: tuple[float, ...],
    *,
    chosen: np.ndarray | None = None,
    by_value: bool = False,
) -> list[Sums]:
    """Judge several forecasters at once on windows.

    Args:
        tell: what each of them says of a batch.
        windows: with their targets.
        units: of the series.
        levels: of the intervals.
        chosen: numbers of the windows; None is all.
        by_value: a row of the sums is a value and not a window, for a few long windows.

    Returns:
        the sums of each forecaster.
    """
    found: list[list[np.ndarray]] = []
    losses = False
    for numbers in batches(windows, chosen):
        window = windows.window(numbers)
        names = [windows.names[i] for i in windows.number[numbers]]
        own = [(*units.scale.y[n], units.naive[n]) for n in names]
        said = tell(window)
        found = found or [[] for _ in said]
        for place, told in zip(found, said, strict=True):
            losses = told.losses is not None
            rows = _rows(told, window, units, torch.tensor(own, dtype=torch.float64), levels)
            place.append(rows.flatten(0, 1).numpy() if by_value else rows.sum(1).numpy())
    return [Sums(np.concatenate(rows), levels, losses) for rows in found]


def _rows(
    told: Told, window: Window, units: Units, own: Tensor, levels: tuple[float, ...]
) -> Tensor:
    """Return the sums of every value, (batch, H, sums), 0 where nothing is observed.

    `own` has mean, deviation and naive error of each window's series, (batch, 3).
    """
    mean, deviation, naive = own.split(1, 1)
    middle = told.middle.double()
    off = middle - window.target
    absolute = units.undo(middle, mean, deviation) - units.undo(window.target, mean, deviation)
    absolute = absolute.abs()
    has_naive = (naive > 0).expand_as(off)
    columns = [torch.ones_like(off), absolute.square(), absolute, off.square(),
               torch.where(has_naive, absolute / naive.clamp(min=1e-300), 0.0),
               has_naive.double()]  # fmt: skip
    if told.ends is None:
        columns += [torch.full_like(off, torch.nan)] * len(levels)
    else:
        ends, count = told.ends.double(), len(levels)
        for i in range(count):  # the narrowest interval stands in the middle
            low, high = ends[..., count - 1 - i], ends[..., count + i]
            columns.append(((low <= window.target) & (window.target <= high)).double())
    if told.losses is not None:
        columns.append(told.losses.double())
    rows = torch.stack(columns, -1)
    return torch.where(window.observed[..., None], rows, 0.0)
