"""The correlations that are left in the errors of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from elman.plots.style import BLUE, GREY, VERMILLION, plain, save, shown
from elman.tasks.forecast.identify_residuals import (
    Correlations,
    autocorrelation,
    cross_correlation,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_INPUTS = 4  # that are drawn


def residuals(
    errors: np.ndarray,
    inputs: Mapping[str, np.ndarray],
    path: str | Path,
    *,
    title: str = "errors one step ahead",
    most: int = 25,
) -> None:
    """Draw the correlation of errors with themselves and with inputs, with 95 % bounds.

    Args:
        errors: (time,), NaN where missing.
        inputs: by name, each (time,); the first four are drawn, those that never change are not.
        path: the PNG to write.
        title: what the errors are.
        most: largest delay.

    Raises:
        InputError: too few errors, or of another length than an input.
    """
    parts: list[tuple[str, Correlations]] = [("with themselves", autocorrelation(errors, most))]
    for name, values in list(inputs.items())[:_MOST_INPUTS]:
        known = values[np.isfinite(values) & np.isfinite(errors)]
        if len(known) and np.ptp(known) > 0:
            parts.append((f"with {shown(name)}", cross_correlation(errors, values, most)))
    figure = Figure(figsize=(7.6, 0.6 + 2.1 * len(parts)), layout="constrained")
    every = np.atleast_1d(figure.subplots(len(parts)))
    for axes, (name, found) in zip(every, parts, strict=True):
        _draw(axes, found)
        axes.set_title(f"{title}, correlation {name}", fontsize=10, loc="left")
    every[-1].set_xlabel("steps by which the other is earlier")
    save(figure, path)


def _draw(axes: Axes, found: Correlations) -> None:
    """Draw a stem a delay; those outside the bounds in another colour."""
    drawn = found.delays != 0 if found.values.max() >= 1 else np.ones(len(found.delays), bool)
    delays, values = found.delays[drawn], found.values[drawn]
    outside = np.abs(values) > found.bound
    for chosen, colour in ((~outside, BLUE), (outside, VERMILLION)):
        axes.vlines(delays[chosen], 0, values[chosen], color=colour, linewidth=1.6)
        axes.plot(delays[chosen], values[chosen], "o", color=colour, markersize=3)
    axes.axhline(0, color="black", linewidth=0.7)
    axes.axhspan(-found.bound, found.bound, color=GREY, alpha=0.25, linewidth=0)
    height = max(1.3 * float(np.abs(values).max(initial=0.0)), 2 * found.bound)
    axes.set_ylim(-height, height)
    plain(axes)
