"""When a network learned to hold the carry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from elman.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, legend, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from elman.tasks.addition import Result


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
    save(figure, path)


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
        legend(axes, "upper right")
    plain(axes)


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
        legend(axes, "upper left" if result.base == 2 else "lower right")
    plain(axes)


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
