"""Pictures: how a run went, and when a network learned to hold the carry.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart; lines that cross
differ in style too. Nothing here opens a window.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from elman.errors import FileError
from elman.training import config
from elman.training.folder import RunFolder, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from elman.tasks.addition import Result

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, ORANGE, PURPLE, GREY = "#56B4E9", "#E69F00", "#CC79A7", "#777777"
_DPI = 150
# A name of a file may be in any script; these have the ideographs, where one is installed.
_CJK = (
    "Noto Sans CJK SC",
    "Noto Sans CJK TC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "Arial Unicode MS",
)


def of_run(folder: str | Path) -> list[Path]:
    """Draw the pictures of a run, from its metrics.jsonl and result.json, into its plots folder.

    Args:
        folder: a run folder; an unfinished run has no baseline in its picture.

    Returns:
        the files, `training.png` and `gradients.png`; none where nothing was trained.

    Raises:
        FileError: no metrics, or rows that cannot be read.
    """
    run = RunFolder(folder)
    rows = list(read_metrics(run.metrics))
    train = [row for row in rows if row.get("kind") == "train"]
    validation = [row for row in rows if row.get("kind") == "validation"]
    if not train:
        return []
    settings = config.read(run.config)
    place = run.path / "plots"
    place.mkdir(exist_ok=True)
    name = run.path.resolve().name
    metric = _metric(validation)
    training(
        train,
        validation,
        place / "training.png",
        metric=metric,
        baseline=_baseline(run, metric),
        final=_final(run, metric),
        title=name,
    )
    gradients(train, place / "gradients.png", clip_norm=settings.training.clip_norm, title=name)
    return [place / "training.png", place / "gradients.png"]


def _metric(validation: Sequence[Mapping[str, Any]]) -> str:
    """The metric in nats, of characters where there is one."""
    for name in ("nats_per_char", "nats_per_token"):
        if validation and name in validation[-1]:
            return name
    return "loss"


def _baseline(run: RunFolder, metric: str) -> tuple[str, float] | None:
    """Name and value of the baseline, once it was measured."""
    if not run.result.exists():
        return None
    try:
        found = json.loads(run.result.read_text(encoding="utf-8"))["baseline"]
        return (str(found["name"]), float(found[metric])) if metric in found else None
    except (ValueError, KeyError, TypeError):
        raise FileError(f"{run.result}: damaged: it has no readable baseline.") from None


def _final(run: RunFolder, metric: str) -> float | None:
    """What the finished run was judged to be, on more text than the validations on the way."""
    if not run.result.exists():
        return None
    try:
        value = json.loads(run.result.read_text(encoding="utf-8"))["metrics"].get(metric)
        return None if value is None else float(value)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FileError(f"{run.result}: damaged: it has no readable metrics.") from None


def training(
    train: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    metric: str = "nats_per_char",
    baseline: tuple[str, float] | None = None,
    final: float | None = None,
    title: str = "",
) -> None:
    """Draw the losses of a run over its steps, with the baseline as a line.

    Args:
        train: rows with "step" and "loss", the mean loss in nats since the row before.
        validation: rows with "step" and the metric.
        path: the PNG to write.
        metric: key of the validation rows.
        baseline: its name and its value of the metric.
        final: value of the metric at the last judgement; None takes the least of the validations.
        title: above the picture.
    """
    figure, axes = _figure(title, "training and validation loss")
    steps, losses = _columns(train, "step"), _columns(train, "loss")
    axes.plot(steps, losses, color=SKY, linewidth=0.8, alpha=0.6)
    axes.plot(steps, _smooth(losses), color=BLUE, linewidth=1.6, label="training, smoothed")
    shown = [row for row in validation if metric in row]
    values = _columns(shown, metric)
    if shown:
        axes.plot(
            _columns(shown, "step"),
            values,
            color=VERMILLION,
            marker="o",
            markersize=4.5,
            linewidth=1.4,
            label=f"validation (best {values.min() if final is None else final:.3f})",
        )
    if baseline is not None:
        name, level = baseline
        axes.axhline(level, color="black", linestyle="--", linewidth=1.2)
        axes.plot([], [], color="black", linestyle="--", label=f"{_shown(name)} ({level:.3f})")
    # The first steps fall from far above; the picture is of what comes after.
    settled = losses[len(losses) // 20 :]
    everything = np.concatenate([settled, values, [baseline[1]] if baseline else []])
    low, high = float(everything.min()), float(np.quantile(everything, 0.995))
    margin = 0.06 * max(high - low, 1e-3)
    axes.set_ylim(low - margin, high + margin)
    axes.set_ylabel(_unit(metric))
    _steps_axis(axes, steps)
    _legend(axes, "upper right")
    _save(figure, path)


def gradients(
    train: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    clip_norm: float = 0.0,
    title: str = "",
) -> None:
    """Draw the norm of the gradient over the steps of a run, before it was clipped.

    Args:
        train: rows with "step", "gradient_norm" and "gradient_norm_max", the mean and the largest
            since the row before.
        path: the PNG to write.
        clip_norm: norm to which longer gradients were scaled back; 0 draws none.
        title: above the picture.
    """
    figure, axes = _figure(title, "norm of the gradient, before clipping")
    steps, mean = _columns(train, "step"), _columns(train, "gradient_norm")
    largest = _columns(train, "gradient_norm_max")
    if bool((largest > 1.02 * mean).any()):
        axes.fill_between(
            steps, mean, largest, color=SKY, alpha=0.45, linewidth=0, label="up to the largest"
        )
    axes.plot(steps, mean, color=BLUE, linewidth=1.3, label="mean of the steps")
    if clip_norm > 0:
        axes.axhline(
            clip_norm,
            color=VERMILLION,
            linestyle="--",
            linewidth=1.2,
            label=f"clipped to {clip_norm:g}",
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(_minor_label))
    axes.set_ylabel("norm of the gradient (log scale)")
    _steps_axis(axes, steps)
    _legend(axes, "upper right")
    _save(figure, path)


def addition(result: Result, path: str | Path) -> None:
    """Draw when the units of an adding network begin to hold the carry, and when its error falls.

    Above, the error of held-out sums; in the middle, how far the activity of each unit moves with
    the carry on steps whose digits say nothing about it; below, the same for every unit.

    Args:
        result: of `elman.tasks.addition.learn`.
        path: the PNG to write.
    """
    figure = Figure(figsize=(8.6, 9.2), layout="constrained")
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(1.0, 1.0, 1.25))
    figure.suptitle(f"When a network that learns to add in base {result.base} finds the carry")
    _error_curves(upper, result)
    _swing_curves(middle, result)
    _swing_map(figure, lower, result)
    for axes in (upper, middle, lower):
        axes.axvline(result.fell, color="black", linestyle=":", linewidth=1.3)
    lower.set_xlabel("sums learned from" if result.base == 2 else "updates, 64 sums each")
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    end = float(result.updates[-1])
    lower.set_xlim(0, end if result.base == 2 else min(end, 3.0 * result.fell))
    _save(figure, path)


def _error_curves(axes: Axes, result: Result) -> None:
    axes.plot(result.updates, result.error, color=BLUE, linewidth=1.8, label="the network")
    if result.told_error is not None:
        axes.plot(
            result.updates,
            result.told_error,
            color=ORANGE,
            linestyle="--",
            linewidth=1.6,
            label="the same network, told the carry",
        )
    axes.annotate(
        f"half-way down\nat {result.fell:,}",
        (result.fell, (result.error[0] + result.error[-1]) / 2),
        xytext=(8, 6),
        textcoords="offset points",
        fontsize=9,
    )
    unit = "sum of |error| over the bits" if result.base == 2 else "wrong digits a sum"
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.set_title("error on 1,000 held-out sums", fontsize=10, loc="left")
    if result.told_error is not None:
        _legend(axes, "upper right")
    _plain(axes)


def _swing_curves(axes: Axes, result: Result) -> None:
    """The units that move most are in colour, each with the moment it begins; the rest are grey."""
    axes.plot(result.updates, np.abs(result.swing), color=GREY, linewidth=0.6, alpha=0.45)
    styles = ((VERMILLION, "-"), (GREEN, "--"), (PURPLE, "-."))
    for holder, (colour, line) in zip(result.holders, styles, strict=False):
        axes.plot(
            result.updates,
            np.abs(result.swing[:, holder.unit]),
            color=colour,
            linestyle=line,
            linewidth=1.8,
            label=f"unit {holder.unit}: holds it from {holder.since:,}",
        )
        axes.plot(holder.since, 0.1, marker="o", color=colour, markersize=6)
    axes.axhline(0.1, color=GREY, linewidth=0.8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("part of the unit's range")
    axes.set_title(
        "how far a unit moves with the carry, after two steps that say nothing about it",
        fontsize=10,
        loc="left",
    )
    if result.holders:
        _legend(axes, "upper left" if result.base == 2 else "lower right")
    _plain(axes)


def _swing_map(figure: Figure, axes: Axes, result: Result) -> None:
    order = np.argsort(-np.abs(result.swing[-1]), kind="stable")
    units = len(order)
    mesh = axes.pcolormesh(
        result.updates,
        np.arange(units + 1),
        result.swing[:-1, order].T,
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        rasterized=True,
    )
    axes.set_yticks(np.arange(units) + 0.5, [str(unit) for unit in order], fontsize=7)
    axes.invert_yaxis()
    axes.set_ylabel("unit")
    axes.set_title("the same for every unit, with its sign", fontsize=10, loc="left")
    bar = figure.colorbar(mesh, ax=axes, pad=0.01, aspect=25)
    bar.set_label("activity with carry − without")


# -- what all pictures share -----------------------------------------------------------------


def _figure(title: str, what: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{_shown(title)}: {what}" if _shown(title) else what, fontsize=11, loc="left")
    axes.set_xlabel("optimiser steps")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(axes: Axes, place: Literal["upper right", "upper left", "lower right"]) -> None:
    axes.legend(loc=place, framealpha=0.9, edgecolor="none")


def _steps_axis(axes: Axes, steps: np.ndarray) -> None:
    axes.set_xlim(0, max(float(steps[-1]), 1.0))


def _minor_label(value: float, _: int | None) -> str:
    """Two marks between the powers of ten are enough."""
    leading = f"{value:e}"[0]
    return f"{value:g}" if leading in "25" else ""


def _unit(metric: str) -> str:
    words = {"nats_per_char": "nats a character", "nats_per_token": "nats a token"}
    return words.get(metric, metric)


def _columns(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([row[key] for row in rows], dtype=float)


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over a fortieth of the curve, narrower towards its ends."""
    half = max(len(values) // 80, 1)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(np.minimum(at, len(values) - 1 - at), half)
    return (total[at + reach + 1] - total[at - reach]) / (2 * reach + 1)


@cache
def _fonts() -> tuple[str, ...]:
    """The font of the pictures and, behind it, one with ideographs if one is installed."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *[name for name in _CJK if name in there][:1])


@cache
def _characters() -> frozenset[int]:
    covered: set[int] = set()
    for name in _fonts():
        font = font_manager.get_font(font_manager.findfont(name))
        covered.update(font.get_charmap())
    return frozenset(covered)


def _shown(text: str) -> str:
    """The text with "?" for what no installed font can draw; a name of nothing else goes.

    A dollar is escaped, which matplotlib would take for the beginning of a formula.
    """
    shown = "".join(c if ord(c) in _characters() else "?" for c in text)
    return shown.replace("$", r"\$") if shown.strip("? -_.0123456789") else ""


def _save(figure: Figure, path: str | Path) -> None:
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_fontfamily(list(_fonts()))
    figure.savefig(path, dpi=_DPI)


def report(folder: Path) -> list[str]:
    """Draw the pictures of a finished run, and say where they are."""
    drawn = of_run(folder)
    return [f"pictures: {', '.join(map(str, drawn))}"] if drawn else []
