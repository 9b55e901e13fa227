"""What all pictures share: colours, axes, fonts, the file.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart; lines that cross
differ in style too. Nothing here opens a window.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, ORANGE, PURPLE, GREY = "#56B4E9", "#E69F00", "#CC79A7", "#777777"
DPI = 150
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
    "Microsoft JhengHei",
    "SimHei",
    "SimSun",
    "Noto Serif CJK SC",
    "Droid Sans Fallback",
    "AR PL UMing CN",
    "Heiti TC",
    "Songti SC",
    "Yu Gothic",
    "Arial Unicode MS",
)


def over_steps(title: str, what: str) -> tuple[Figure, Axes]:
    """A figure whose axis is that of the optimiser's steps."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{shown(title)}: {what}" if shown(title) else what, fontsize=11, loc="left")
    axes.set_xlabel("optimiser steps")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    plain(axes)
    return figure, axes


def plain(axes: Axes) -> None:
    """Axes without a frame, with a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def legend(axes: Axes, place: Literal["upper right", "upper left", "lower right"]) -> None:
    """A legend without a frame."""
    axes.legend(loc=place, framealpha=0.9, edgecolor="none")


def steps_axis(axes: Axes, steps: np.ndarray) -> None:
    """From no step to the last."""
    axes.set_xlim(0, max(float(steps[-1]), 1.0))


def minor_label(value: float, _: int | None) -> str:
    """Two marks between the powers of ten are enough."""
    leading = f"{value:e}"[0]
    return f"{value:g}" if leading in "25" else ""


@cache
def fonts() -> tuple[str, ...]:
    """The font of the pictures and, behind it, one with ideographs if one is installed."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *[name for name in _CJK if name in there][:1])


@cache
def characters() -> frozenset[int]:
    """The code points that these fonts can draw."""
    covered: set[int] = set()
    for name in fonts():
        font = font_manager.get_font(font_manager.findfont(name))
        covered.update(font.get_charmap())
    return frozenset(covered)


def shown(text: str) -> str:
    """The text with "?" for what no installed font can draw; a name of nothing else goes.

    A dollar is escaped, which matplotlib would take for the beginning of a formula.
    """
    drawn = "".join(c if ord(c) in characters() else "?" for c in text)
    return drawn.replace("$", r"\$") if drawn.strip("? -_.0123456789") else ""


def written(token: str) -> str:
    """A token as a picture can show it: a space as ␣, what no font can draw by its code point.

    Example:
        >>> written("a "), written("\\n"), written("\\u0001")
        ('a␣', '⏎', 'U+0001')
    """
    marks = {" ": "␣", "\n": "⏎", "\t": "⇥", "$": r"\$"}
    drawn = (marks.get(c) or (c if _drawable(c) else f"U+{ord(c):04X}") for c in token)
    return "".join(drawn)


def lacking(text: str) -> str:
    """The characters of a text that no font here can draw, each once, in order."""
    return "".join(dict.fromkeys(c for c in text if c not in "\n\t" and not _drawable(c)))


def _drawable(character: str) -> bool:
    return ord(character) in characters() and character.isprintable()


def columns(text: str) -> int:
    """The width of a text in columns; an ideograph takes two."""
    return len(text) + sum(unicodedata.east_asian_width(c) in "WF" for c in text)


def save(figure: Figure, path: str | Path) -> None:
    """Write the picture, its text in fonts that have every script."""
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_fontfamily(list(fonts()))
    figure.savefig(path, dpi=DPI)
