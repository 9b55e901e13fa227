"""The picture of a measurement: for each shape, how many times as long each peer takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from elman.benchmark.measure import PASSES, Found, Row, summary
from elman.benchmark.peers import TITLES
from elman.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = {
    "torch": (style.BLUE, "o"),
    "packed": (style.SKY, "s"),
    "torchrecurrent": (style.VERMILLION, "^"),
    "jax": (style.GREEN, "D"),
    "products": (style.GREY, "|"),
    "onednn": ("black", "|"),
    "reference": (style.ORANGE, "v"),
    "whole": (style.PURPLE, "x"),
}
_DPI = 150


def draw(found: Found, path: str | Path, *, title: str = "") -> None:
    """Draw a measurement, a panel for each cell and pass.

    A mark right of the line at 1 says that the peer takes longer than Elman; the bars reach from
    the one quartile of the rounds to the other.

    Args:
        found: of `elman.benchmark.measure.measure`.
        path: the PNG to write.
        title: above the picture; the machine, say.
    """
    groups = _groups(found)
    tall = [1.1 + 0.36 * len(rows) for _, rows in groups]
    figure = Figure(figsize=(8.6, 0.6 + sum(tall)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=tall)[:, 0]
    if title:
        figure.suptitle(title.replace("$", r"\$"), fontsize=9)
    for axes, (words, rows) in zip(panels, groups, strict=True):
        axes.set_title(words, fontsize=10, loc="left")
        _panel(axes, rows)
    panels[-1].set_xlabel(
        "time of the peer ÷ time of Elman (log scale; right of 1: Elman is faster)"
    )
    figure.savefig(path, dpi=_DPI)


def _groups(found: Found) -> list[tuple[str, list[Row]]]:
    """The panels, each with its title; many cells at one shape each share one."""
    groups = list(found.groups())
    words = ", rows with lengths" if found.rows[0].case.ragged else ""
    if len(groups) > 4 and all(len(rows) == 1 for _, _, rows in groups):
        return [
            (f"{len(rows)} cells, {PASSES[backward]}{words}", rows)
            for backward in PASSES
            if (rows := [row for row in found.rows if row.backward == backward])
        ]
    return [(f"{name}, {PASSES[backward]}{words}", rows) for name, backward, rows in groups]


def _label(row: Row, cells: int) -> str:
    return f"{row.case.cell.name}: {row.case.shape}" if cells > 1 else str(row.case.shape)


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    means = summary(rows)
    for place, (name, (mean, _)) in enumerate(means.items()):
        colour, mark = _STYLES.get(name, (style.GREY, "o"))
        shift = 0.5 * ((place + 0.5) / len(means) - 0.5)
        shown = [(y, row.ratios[name]) for y, row in enumerate(rows) if name in row.ratios]
        medians = [ratio.median for _, ratio in shown]
        axes.errorbar(
            medians,
            [y + shift for y, _ in shown],
            xerr=[
                [max(ratio.median - ratio.low, 0.0) for _, ratio in shown],
                [max(ratio.high - ratio.median, 0.0) for _, ratio in shown],
            ],
            fmt=mark,
            color=colour,
            markersize=9 if mark == "|" else 5.5,
            markeredgewidth=2.0 if mark in "|x" else 1.0,
            elinewidth=1.2,
            linestyle="none",
            label=f"{TITLES.get(name, name)} (mean {mean:.2f})",
        )
    axes.axvline(1.0, color="black", linewidth=1.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(_minor_label))
    axes.tick_params(axis="x", which="minor", labelsize=8)
    cells = len({row.case.cell.name for row in rows})
    axes.set_yticks(range(len(rows)), [_label(row, cells) for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_ylabel("steps, batch, input, hidden", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, which="both", axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if means:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    else:
        axes.xaxis.set_minor_formatter(NullFormatter())


def _minor_label(value: float, _: int | None) -> str:
    """Two marks between the powers of ten are enough."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
