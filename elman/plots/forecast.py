"""Forecasts with their intervals, and what is left in the errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from elman.errors import FileError, InputError
from elman.plots.residuals import residuals
from elman.plots.style import BLUE, VERMILLION, plain, save, shown
from elman.training.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from elman.tasks.forecast import TrainedForecast

_FEWEST_SHOWN = 40  # steps of history
_FEWEST_ERRORS = 20  # whose correlations are drawn
_SHADES = (0.32, 0.16, 0.1, 0.06)


def of_answers(model: TrainedForecast, data: str | Path, path: str | Path) -> int:
    """Draw how the first series of some data goes on.

    Args:
        model: as `elman.load` gives it.
        data: a table.
        path: the PNG to write.

    Returns:
        How many series are not drawn.

    Raises:
        FileError, InputError: as of `TrainedForecast.forecasts`.
    """
    told = model.forecasts(data)
    first = told[0]
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = figure.subplots()
    forecast(
        axes, first.history, first.yhat, low=first.low, high=first.high,
        title=f"{shown(first.name)}: from {first.stamps[0]}",
    )  # fmt: skip
    axes.set_xlabel(f"steps of one {model.meaning.grid.words()}")
    _legend(figure, axes)
    save(figure, path)
    return len(told) - 1


def of_run(folder: str | Path) -> list[Path]:
    """Draw forecasts of the validation part of a run.

    Args:
        folder: a finished run of the task "forecast".

    Returns:
        the file; none where the run kept nothing to draw.

    Raises:
        FileError: what it kept cannot be read.
    """
    run = RunFolder(folder)
    if not run.keepsake.exists():
        return []
    path = _place(run) / "forecast.png"
    try:
        examples(json.loads(run.keepsake.read_text(encoding="utf-8"))["forecasts"], path)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FileError(f"{run.keepsake}: damaged: it holds no forecasts.") from None
    return [path]


def residuals_of_run(folder: str | Path) -> list[Path]:
    """Draw what is left in the errors of a run, one step ahead in its validation part.

    Args:
        folder: a finished run of the task "forecast".

    Returns:
        the file; none where the run kept nothing to draw.

    Raises:
        FileError: what it kept cannot be read.
        InputError: errors too few, or all alike as those of a constant series.
    """
    run = RunFolder(folder)
    if not run.keepsake.exists():
        return []
    try:
        left = json.loads(run.keepsake.read_text(encoding="utf-8"))["residuals"]
        errors = _numbers(left["errors"])
        inputs = {name: _numbers(values) for name, values in left["inputs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FileError(f"{run.keepsake}: damaged: it holds no errors.") from None
    known = int(np.isfinite(errors).sum())
    if known < _FEWEST_ERRORS:
        raise InputError(f"residuals: {known} known errors; expected {_FEWEST_ERRORS} or more.")
    path = _place(run) / "residuals.png"
    residuals(errors, inputs, path, title="errors one step ahead")
    return [path]


def _place(run: RunFolder) -> Path:
    place = run.path / "plots"
    place.mkdir(exist_ok=True)
    return place


def examples(kept: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw forecasts beside what came, one below the other.

    Args:
        kept: forecasts as a run keeps them.
        path: the PNG to write.
    """
    figure = Figure(figsize=(7.6, 1.2 + 2.5 * len(kept)), layout="constrained")
    for i, (axes, one) in enumerate(
        zip(np.atleast_1d(figure.subplots(len(kept))), kept, strict=True)
    ):
        forecast(
            axes, _numbers(one["history"]), _numbers(one["told"]), _numbers(one["came"]),
            low={k: _numbers(v) for k, v in one["low"].items()},
            high={k: _numbers(v) for k, v in one["high"].items()},
            title=f"{shown(one['series'])}: from {one['from']}",
        )  # fmt: skip
        if i == len(kept) - 1:
            axes.set_xlabel(f"steps of one {one['step']}")
            _legend(figure, axes)
    save(figure, path)


def forecast(
    axes: Axes,
    history: np.ndarray,
    told: np.ndarray,
    came: np.ndarray | None = None,
    *,
    low: Mapping[str, np.ndarray],
    high: Mapping[str, np.ndarray],
    title: str,
) -> None:
    """Draw values, how a model says they go on, and how they went on.

    Args:
        axes: to draw into; step 1 is the first that is told.
        history: values before, (time,), NaN where missing; as many are shown as are told, or more.
        told: (steps,).
        came: (steps,) or fewer.
        low, high: ends of the intervals by level in percent, each (steps,).
        title: above.
    """
    steps = np.arange(1, len(told) + 1)
    before = history[-max(_FEWEST_SHOWN, len(told)) :]
    axes.plot(np.arange(1 - len(before), 1), before, color="black", linewidth=1.0)
    levels = sorted(low, key=float)
    for level, shade in reversed(list(zip(levels, _SHADES, strict=False))):
        axes.fill_between(
            steps, low[level], high[level], color=BLUE, alpha=shade, linewidth=0,
            label=f"{level} % interval",
        )  # fmt: skip
    if came is not None and len(came):
        axes.plot(steps[: len(came)], came, color="black", linewidth=1.0, label="what came")
    mark = "o" if len(told) == 1 else ""
    axes.plot(
        steps, told, color=VERMILLION, linewidth=1.4, marker=mark, markersize=4, label="forecast"
    )
    axes.axvline(0.5, color="black", linewidth=0.7, linestyle=":")
    axes.set_title(title, fontsize=10, loc="left")
    plain(axes)


def _legend(figure: Figure, axes: Axes) -> None:
    """Below all, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
