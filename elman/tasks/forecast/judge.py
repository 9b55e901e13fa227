"""The network and the simple forecasts, judged on the same windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.tasks.forecast.base import Window
from elman.tasks.forecast.baseline import Baselines
from elman.tasks.forecast.measure import Sums, Told, Units, batches, judge
from elman.tasks.forecast.network import Network, error_quantiles, told_of_points
from elman.tasks.forecast.windows import Windows
from elman.tasks.intervals import bootstrap

_FEWEST_BLOCKS = 3


class Judge:
    """Measures a network beside its baselines.

    Args:
        network: the network.
        baselines: simple forecasts; None where they were not kept.
        units: of the series.
    """

    def __init__(self, network: Network, baselines: Baselines | None, units: Units):
        self.network, self.baselines, self.units = network, baselines, units
        # how far off each simple forecast is: quantiles and root mean square by step
        self.spreads: list[tuple[Tensor, Tensor]] = []

    @property
    def levels(self) -> tuple[float, ...]:
        """Of the intervals, in percent."""
        return self.network.output.levels

    def cut(self, window: Window) -> Window:
        """Return what of a window the network reads."""
        first = window.y.shape[1] - self.network.forecaster.lags
        return window._replace(
            y=window.y[:, first:], past=window.past[:, first:], future=window.future[:, first:]
        )

    def model(self, windows: Windows, chosen: np.ndarray | None, errors: list[np.ndarray]) -> Sums:
        """Judge the network alone, and leave its errors, NaN where nothing is observed."""
        losses = self.network.output.kind != "point"

        def tell(window: Window) -> Sequence[Told]:
            told = self.network.tell(self.cut(window), losses=losses)
            off = (window.target - told.middle.double()).numpy()
            errors.append(np.where(window.observed.numpy(), off, np.nan))
            return [told]

        return judge(tell, windows, self.units, self.levels, chosen=chosen)[0]

    def learn_spreads(self, windows: Windows) -> None:
        """Find how far off the simple forecasts are, on a part where they may be known."""
        if self.baselines is None or self.spreads:
            return
        found: list[list[np.ndarray]] = [[] for _ in self.baselines.names()]
        step = max(1, len(windows) * windows.horizon // 4_000_000)
        for numbers in batches(windows, np.arange(0, len(windows), step)):
            window = windows.window(numbers)
            for place, middle in zip(found, self.baselines.tell(window), strict=True):
                off = (window.target - middle).numpy()
                place.append(np.where(window.observed.numpy(), off, np.nan))
        for parts in found:
            off = np.concatenate(parts)
            square = np.where(np.isfinite(off), np.square(off), 0.0)
            count = np.maximum(np.isfinite(off).sum(0), 1)
            deviation = torch.from_numpy(np.sqrt(square.sum(0) / count))
            self.spreads.append((error_quantiles(off, self.levels), deviation))

    def simple(self, window: Window) -> list[Told]:
        """Return what the simple forecasts say."""
        if self.baselines is None:
            return []
        said = self.baselines.tell(window)
        if not self.spreads:
            return [Told(middle) for middle in said]
        return [
            told_of_points(middle, *spread, self.network.output, window.target)
            for middle, spread in zip(said, self.spreads, strict=True)
        ]

    def baselines_on(self, windows: Windows) -> list[Sums]:
        """Judge the simple forecasts alone."""
        self.learn_spreads(windows)
        return judge(self.simple, windows, self.units, self.levels)

    def everything(self, windows: Windows) -> list[Sums]:
        """Judge the network and then the simple forecasts."""

        def tell(window: Window) -> Sequence[Told]:
            losses = self.network.output.kind != "point"
            return [self.network.tell(self.cut(window), losses=losses), *self.simple(window)]

        return judge(tell, windows, self.units, self.levels)

    def free_run(self, windows: Sequence[Windows]) -> list[Sums]:
        """Judge the network and then the simple forecasts in free run; a row of sums is a value."""
        found: list[list[Sums]] = []
        for one in windows:

            def tell(window: Window) -> Sequence[Told]:
                simple = [] if self.baselines is None else self.baselines.tell(window)
                middle = self.network.tell(self.cut(window)).middle
                return [Told(middle), *map(Told, simple)]

            found.append(judge(tell, one, self.units, (), by_value=True))
        return [
            Sums(np.concatenate([s.rows for s in each]), ()) for each in zip(*found, strict=True)
        ]


def verdict(what: str, ours: float, name: str, theirs: float, gain: Sequence[float] | None) -> str:
    """Say which is ahead, the network or a simple forecast.

    Args:
        what: the figure, of which less is better.
        ours, theirs: its values.
        name: of the simple forecast.
        gain: the 95 % interval of theirs less ours, which must not reach 0; None is not known.
            A difference that four digits do not show is none.

    Example:
        >>> verdict("rmse", 1.0, "persistence", 1.25, (0.2, 0.3))
        'rmse 1 against 1.25: this model is ahead of persistence.'
        >>> verdict("rmse", 1.0, "ridge", 1.01, (-0.1, 0.12))
        'rmse 1 against 1.01: ridge is level or ahead. Use the baseline, or train longer.'
    """
    figures = f"{what} {ours:.4g} against {theirs:.4g}"
    if gain is not None and gain[0] > 0 and f"{ours:.4g}" != f"{theirs:.4g}":
        return f"{figures}: this model is ahead of {name}."
    return f"{figures}: {name} is level or ahead. Use the baseline, or train longer."


def block_of(block: int, rows: int) -> int:
    """Return how many rows are drawn together: as asked, but so that there are three blocks.

    One block alone would be all rows each time, and every interval a point.
    """
    return max(1, min(block, rows // _FEWEST_BLOCKS))


def gain(ours: Sums, theirs: Sums, key: str, block: int) -> list[float] | None:
    """Return the 95 % interval of how much larger the error of a simple forecast is.

    The same windows are drawn for both (the paired bootstrap), so that what makes a window hard
    for both does not blur which is better.

    Args:
        ours, theirs: sums of the network and of the simple forecast, on the same rows.
        key: a figure of `Sums.figures`, of which less is better.
        block: rows that are drawn together.

    Returns:
        the ends of theirs less ours; None where there are fewer than two rows, or no figure.
    """
    if len(ours.rows) < 2:
        return None
    width = ours.rows.shape[1]
    both = np.concatenate([ours.rows, theirs.rows], 1)
    ends = bootstrap(
        both,
        lambda t: theirs.figures(t[:, width:])[key] - ours.figures(t[:, :width])[key],
        block=block_of(block, len(both)),
    )
    return list(ends) if np.isfinite(ends).all() else None


def record(sums: Sums, block: int, persistence: Sums | None) -> dict[str, Any]:
    """Return the figures of a forecaster with their intervals, as plain values.

    Args:
        sums: its errors.
        block: rows that are drawn together.
        persistence: that of persistence, for the skill 1 − RMSE / RMSE of persistence.
    """
    figures, sure = sums.total(), sums.intervals(block_of(block, len(sums.rows)))
    coverage = {k.removeprefix("coverage_"): v for k, v in figures.items() if "coverage" in k}
    found: dict[str, Any] = {k: v for k, v in figures.items() if "coverage" not in k}
    if any(v is not None for v in coverage.values()):
        found["coverage"] = coverage
    if persistence is not None:
        theirs = persistence.total()["rmse"]
        ours = figures["rmse"]
        found["skill"] = 1 - ours / theirs if ours is not None and theirs else None
    found["intervals"] = {k: v for k, v in sure.items() if v is not None}
    return found


def best(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the record with the least RMSE."""
    return min(records, key=lambda name: records[name]["rmse"] or float("inf"))
