"""What is seen inside a model: gradient flow, spectra, gates and states over a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from elman.diagnose import Activity, Decay, Exponents, Flow, Spectrum
from elman.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    columns,
    plain,
    save,
    shown,
    written,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

_LINES = (
    (BLUE, "-"),
    (VERMILLION, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (ORANGE, "-"),
    (SKY, "--"),
    (GREY, "-."),
)
_DECADES = 6  # of a logarithmic scale of colours
_MOST_LABELS = 110  # tokens that are written out along an axis
_MOST_ON_A_MAP = 32  # tokens along a heat map that can be read
_NOTHING = "#e8e8e8"
_DELTA = r"$\|\partial L_t / \partial z_k\|$"


def flow(
    found: Flow,
    path: str | Path,
    *,
    tokens: Sequence[str] = (),
    predicted: Sequence[str] = (),
    title: str = "",
) -> None:
    """Draw ‖δ_{t,k}‖ as heat maps: a row for each layer, a column for all gates and for each.

    Args:
        found: of `elman.diagnose.gradient_flow`.
        path: the PNG to write.
        tokens: what each step read; written along the axis of k where there are few.
        predicted: so, along the axis of t, what each step was to predict.
        title: above the picture.
    """
    places = found.places
    maps = [[("all", p.matrix()), *((g, p.matrix(g)) for g in p.gates)] for p in places]
    if all(len(row) <= 2 for row in maps):
        maps = [row[-1:] for row in maps]
    widest = max(map(len, maps))
    width = max(6.8, 1.6 + 3.0 * widest)
    figure = Figure(figsize=(width, 0.9 + 3.1 * len(maps)), layout="constrained")
    _breathe(figure)
    panels = figure.subplots(len(maps), widest, squeeze=False)
    scale = _scale([v for row in maps for _, v in row])
    words = "error of step $t$"
    if 0 < len(predicted) <= _MOST_ON_A_MAP:
        words = "error in predicting"
    for row, place, across in zip(maps, places, panels, strict=True):
        for axes in across[len(row) :]:
            axes.axis("off")
        for (name, values), axes in zip(row, across, strict=False):
            _square(axes, values.numpy(), scale, tokens, predicted)
            axes.set_title(f"{place.name}, {_gate(name)}", fontsize=10, loc="left")
        across[0].set_ylabel(words)
    for axes in panels[-1]:
        axes.set_xlabel("at step $k$")
    mesh = ScalarMappable(scale, "viridis")
    bar = figure.colorbar(mesh, ax=panels, pad=0.01, aspect=30, extend="both")
    bar.set_label(_DELTA + " (log scale)")
    figure.suptitle(_headed(title, "how much of each error reaches back to each step"), fontsize=12)
    save(figure, path)


def _gate(name: str) -> str:
    return "all pre-activations" if name == "all" else f"pre-activation of {name}"


def _scale(maps: Sequence[Tensor]) -> Normalize:
    """One logarithmic scale for all maps: down to 1e-6 of the largest at lag 0, up to 100 times.

    What explodes would otherwise leave all else in the dark.
    """
    parts = [v[(v > 0) & v.isfinite()].flatten() for v in maps]
    least = min((float(p.min()) for p in parts if len(p)), default=0.0)
    most = max((float(p.max()) for p in parts if len(p)), default=0.0)
    first = [v.diagonal() for v in maps]
    at_once = max((float(d[d.isfinite()].max()) for d in first if d.isfinite().any()), default=0.0)
    at_once = at_once or most
    least, most = max(least, at_once * 10.0**-_DECADES), min(most, 100 * at_once)
    return LogNorm(least, most) if 0 < least < most else Normalize(0, 1)


def _square(
    axes: Axes,
    values: np.ndarray,
    scale: Normalize,
    tokens: Sequence[str],
    predicted: Sequence[str],
) -> None:
    """One matrix; what is zero, for want of a way there, is grey."""
    axes.set_facecolor(_NOTHING)
    shown_values = np.ma.masked_where(~(values > 0), values)
    axes.pcolormesh(shown_values, norm=scale, cmap="viridis", rasterized=True)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    for axis, names in ((axes.xaxis, tokens), (axes.yaxis, predicted or tokens)):
        if 0 < len(names) <= _MOST_ON_A_MAP and len(names) == len(values):
            words = [written(token) for token in names]
            turn = 90 if axis is axes.xaxis and max(map(len, words)) > 2 else 0
            size = min(7.0, 180.0 / len(words))
            axis.set_ticks(np.arange(len(words)) + 0.5, words, fontsize=size, rotation=turn)
            axes.tick_params(length=0)
        else:
            axis.set_major_locator(MaxNLocator(5, integer=True))


def beside(flows: Mapping[str, Flow], path: str | Path, *, title: str = "") -> None:
    """Draw the heat maps of several models side by side, all gates of the top layer of each.

    Args:
        flows: by name of the model or cell.
        path: the PNG to write.
        title: above the picture.
    """
    figure = Figure(figsize=(1.8 + 3.2 * len(flows), 4.2), layout="constrained")
    _breathe(figure)
    panels = figure.subplots(1, len(flows), squeeze=False)[0]
    maps = {name: flow.places[-1].matrix() for name, flow in flows.items()}
    scale = _scale(list(maps.values()))
    for (name, values), axes in zip(maps.items(), panels, strict=True):
        _square(axes, values.numpy(), scale, (), ())
        axes.set_title(shown(name) or name, fontsize=10, loc="left")
        axes.set_xlabel("at step $k$")
    panels[0].set_ylabel("error of step $t$")
    mesh = ScalarMappable(scale, "viridis")
    bar = figure.colorbar(mesh, ax=list(panels), pad=0.01, aspect=25, extend="both")
    bar.set_label(_DELTA + " (log scale)")
    words = "how much of each error reaches back to each step"
    figure.suptitle(_headed(title, words), fontsize=12)
    save(figure, path)


def decay(decays: Mapping[str, Decay], path: str | Path, *, title: str = "") -> None:
    """Draw how gradients fall or grow with their lag, several cells or layers side by side.

    Args:
        decays: by what the legend shall call them, such as {"lstm": flow[0].decay()}.
        path: the PNG to write.
        title: above the picture.
    """
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.subplots()
    floor = 1.0
    for number, (name, one) in enumerate(decays.items()):
        colour, line = _LINES[number % len(_LINES)]
        part = (one.mean / one.mean[0]).numpy() if float(one.mean[0]) else one.mean.numpy()
        there = np.isfinite(part) & (part > 0)
        lags = np.arange(len(part))[there]
        axes.plot(
            lags,
            part[there],
            color=colour,
            linestyle=line,
            linewidth=1.7,
            label=_lag_label(name, one),
        )
        if one.horizon is not None:
            axes.plot(one.horizon, part[one.horizon], marker="o", color=colour, markersize=6)
        floor = min(floor, float(part[there].min())) if there.any() else floor
    for level, words in ((math.exp(-1), "1/e"), (0.01, "1 %")):
        axes.axhline(level, color="black", linewidth=0.9, linestyle=":")
        axes.annotate(
            words, (1.0, level), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=9, annotation_clip=False,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(min(floor, 5e-3), 1e-12))
    axes.set_xlabel("lag $t - k$, in steps")
    axes.set_ylabel(f"mean {_DELTA}, lag 0 = 1 (log scale)")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(_headed(title, "how far back errors reach"), fontsize=11, loc="left")
    plain(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save(figure, path)


def _lag_label(name: str, one: Decay) -> str:
    if one.word == "exploding":
        return f"{shown(name) or name}: × 100 at lag {one.explodes}"
    if one.word == "none":
        return f"{shown(name) or name}: nothing arrives"
    horizon = "1 % not reached" if one.horizon is None else f"1 % at lag {one.horizon}"
    return f"{shown(name) or name}: {horizon}"


def spectrum(
    spectra: Sequence[Spectrum],
    exponents: Sequence[Exponents],
    path: str | Path,
    *,
    title: str = "",
) -> None:
    """Draw the singular values of each step, the spectral radius, and the Lyapunov exponents.

    Args:
        spectra: of `elman.diagnose.spectrum`.
        exponents: of `elman.diagnose.lyapunov`, place by place.
        path: the PNG to write.
        title: above the picture.
    """
    figure = Figure(figsize=(10.5, 0.8 + 3.1 * len(spectra)), layout="constrained")
    panels = figure.subplots(len(spectra), 2, squeeze=False, width_ratios=(1.5, 1.0))
    for one, found, (left, right) in zip(spectra, exponents, panels, strict=True):
        _singular(left, one)
        _lyapunov(right, found)
    panels[-1][0].set_xlabel("step $t$")
    panels[-1][1].set_xlabel("number of the exponent")
    figure.suptitle(_headed(title, "what a step does to small changes of the state"), fontsize=12)
    save(figure, path)


def _singular(axes: Axes, one: Spectrum) -> None:
    values = one.singular.mean(1).numpy()
    steps = np.array(one.steps)
    low, middle = values[:, -1], np.median(values, 1)
    top = values[:, 0]
    axes.fill_between(steps, low, top, color=SKY, alpha=0.35, linewidth=0, label="all of them")
    axes.plot(steps, top, color=BLUE, linewidth=1.6, label="largest")
    axes.plot(steps, middle, color=BLUE, linewidth=1.2, linestyle=":", label="median")
    radius = one.radius.mean(1).numpy()
    axes.plot(
        steps, radius, color=VERMILLION, linewidth=1.4, linestyle="--", label="spectral radius"
    )
    axes.axhline(1.0, color="black", linewidth=0.9)
    axes.set_ylim(0, 1.15 * max(float(top.max()), 1.0))
    axes.set_ylabel(r"singular values of $\partial s_t / \partial s_{t-1}$", fontsize=9)
    axes.set_title(f"{one.name}: each step", fontsize=10, loc="left")
    plain(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best", ncols=2, fontsize=8, framealpha=0.9, edgecolor="none")


def _lyapunov(axes: Axes, found: Exponents) -> None:
    values = found.values.mean(0).numpy()
    there = np.isfinite(values)
    numbers = np.arange(1, len(values) + 1)
    axes.plot(numbers[there], values[there], color=GREEN, marker=".", markersize=4, linewidth=0.8)
    axes.axhline(0.0, color="black", linewidth=0.9)
    axes.set_ylabel("nats a step", fontsize=9)
    largest = f"{values[0]:.3g}" if there.any() else "−∞"
    axes.set_title(f"{found.name}: Lyapunov exponents (largest {largest})", fontsize=10, loc="left")
    plain(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def states(one: Activity, tokens: Sequence[str], path: str | Path, *, title: str = "") -> None:
    """Draw every unit of every state over the tokens of a text, and the states' norms.

    Args:
        one: of `elman.diagnose.activity`; its first row is drawn.
        tokens: what each step read.
        path: the PNG to write.
        title: above the picture.
    """
    maps = {name: _units(v).T for name, v in one.states.items()}
    figure, panels = _over_tokens(len(maps) + 1, len(tokens))
    for (name, values), axes in zip(maps.items(), panels, strict=False):
        bound = max(float(np.quantile(np.abs(values), 0.995)), 1e-12)
        mesh = axes.pcolormesh(values, cmap="RdBu_r", vmin=-bound, vmax=bound, rasterized=True)
        axes.set_ylabel(f"unit of {name}")
        axes.set_title(f"state {name}", fontsize=10, loc="left")
        figure.colorbar(mesh, ax=axes, pad=0.01, aspect=14, extend="both")
    norms = panels[-1]
    at = np.arange(len(tokens)) + 0.5
    for (name, value), (colour, line) in zip(one.norms().items(), _LINES, strict=False):
        norms.plot(at, value[:, 0].numpy(), color=colour, linestyle=line, label=f"‖{name}‖")
    norms.set_ylim(bottom=0)
    norms.set_ylabel("norm")
    norms.legend(loc="best", fontsize=8, framealpha=0.9, edgecolor="none", ncols=len(maps))
    plain(norms)
    _token_axis(panels, tokens)
    figure.suptitle(_headed(title, f"states of {one.name}"), fontsize=12)
    save(figure, path)


def gates(one: Activity, tokens: Sequence[str], path: str | Path, *, title: str = "") -> None:
    """Draw every gate over the tokens of a text, and how much of each is near its bounds.

    Args:
        one: of `elman.diagnose.activity`; its first row is drawn.
        tokens: what each step read.
        path: the PNG to write.
        title: above the picture.
    """
    figure, panels = _over_tokens(len(one.gates), len(tokens))
    shares = one.saturation()
    for (name, value), axes in zip(one.gates.items(), panels, strict=True):
        values, function = _units(value).T, one.functions[name]
        signed = bool((values < 0).any())
        bound = 1.0 if function in ("tanh", "sigmoid", "hardsigmoid", "softmax") else None
        bound = bound or max(float(np.abs(values).max()), 1e-12)
        low, colours = (-bound, "RdBu_r") if signed else (0.0, "viridis")
        mesh = axes.pcolormesh(values, cmap=colours, vmin=low, vmax=bound, rasterized=True)
        axes.set_ylabel("unit")
        share = shares[name]
        axes.set_title(
            f"{_made(name, function)}: mean {share.mean:.2f}, near its lower bound "
            f"{100 * share.low:.0f} %, near its upper {100 * share.high:.0f} %",
            fontsize=10,
            loc="left",
        )
        figure.colorbar(mesh, ax=axes, pad=0.01, aspect=14)
    _token_axis(panels, tokens)
    figure.suptitle(_headed(title, f"gates of {one.name}"), fontsize=12)
    save(figure, path)


def _made(name: str, function: str) -> str:
    return name if "(" in name else f"{name} = {function}(…)"


def saturated(one: Activity, path: str | Path, *, title: str = "") -> None:
    """Draw each unit of each gate by how often it is near its lower and its upper bound.

    Args:
        one: of `elman.diagnose.activity`.
        path: the PNG to write.
        title: above the picture.

    Source: the form of the picture is that of Karpathy, Johnson & Fei-Fei 2015, figure 2.
    """
    figure = Figure(figsize=(1.2 + 2.6 * len(one.gates), 3.5), layout="constrained")
    panels = figure.subplots(1, len(one.gates), squeeze=False, sharex=True, sharey=True)[0]
    for name, axes in zip(one.gates, panels, strict=True):
        share = one.unit_saturation(name)
        axes.scatter(
            share.low.numpy(), share.high.numpy(), s=22, color=BLUE, alpha=0.45, linewidth=0
        )
        axes.plot([0, 1], [1, 0], color=GREY, linewidth=0.9)
        axes.set_title(f"{name} ({one.functions[name]})", fontsize=10, loc="left")
        axes.set_aspect("equal")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        plain(axes)
    panels[0].set_ylabel("share near the upper bound")
    figure.supxlabel("share of steps near the lower bound (a dot is a unit)", fontsize=10)
    figure.suptitle(_headed(title, f"saturation in {one.name}"), fontsize=12)
    save(figure, path)


def text(tokens: Sequence[str], values: Sequence[float], path: str | Path, *, title: str) -> None:
    """Draw a text, each token coloured by one number: red above zero, blue below.

    Args:
        tokens: of the text, in order.
        values: one for each.
        path: the PNG to write.
        title: above the picture, and what the numbers are.
    """
    lines = wrapped(tokens, 64)
    figure = Figure(figsize=(9.6, 1.1 + 0.34 * len(lines)))
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96 - 0.55 / figure.get_figheight()))
    axes.set_xlim(0, 66)
    axes.set_ylim(len(lines) + 0.1, -0.1)
    axes.axis("off")
    bound = max((abs(v) for v in values), default=0.0) or 1.0
    colours = Normalize(-bound, bound)
    palette = colormaps["RdBu_r"]
    for number, line in enumerate(lines):
        at = 0.0
        for index, wide in line:
            rgba = palette(0.5 + 0.8 * (float(colours(values[index])) - 0.5))
            axes.add_patch(_box(at, number, wide, rgba))
            name = written(tokens[index])
            size = 10 if len(name) <= 2 * wide else 5.5
            axes.text(at + wide / 2, number + 0.5, name, ha="center", va="center", fontsize=size)
            at += wide
    figure.text(0.02, 1 - 0.3 / figure.get_figheight(), title, fontsize=11, va="center")
    save(figure, path)


def wrapped(tokens: Sequence[str], most: int) -> list[list[tuple[int, int]]]:
    """Lines of tokens, each by its number and its width in columns; an end of line ends one.

    Example:
        >>> wrapped(["a", "\\n", "be"], 10)
        [[(0, 1), (1, 1)], [(2, 2)]]
    """
    lines: list[list[tuple[int, int]]] = [[]]
    used = 0
    for index, token in enumerate(tokens):
        wide = max(1, columns(written(token)))
        if lines[-1] and used + wide > most:
            lines.append([])
            used = 0
        lines[-1].append((index, wide))
        used += wide
        if token == "\n" and index + 1 < len(tokens):
            lines.append([])
            used = 0
    return lines


def _box(at: float, line: int, wide: float, colour: Any):
    return Rectangle((at, line + 0.04), wide, 0.92, facecolor=colour, linewidth=0)


def _units(values: Tensor) -> np.ndarray:
    """The first row of (time, batch, …), (time, units)."""
    return values[:, 0].reshape(len(values), -1).numpy()


def _breathe(figure: Figure) -> None:
    """Room between rows of panels, so that a title is clear of the numbers above it."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(h_pad=0.14)


def _over_tokens(rows: int, tokens: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(
        figsize=(min(16.0, max(7.0, 1.8 + 0.13 * tokens)), 1.1 + 2.2 * rows), layout="constrained"
    )
    panels = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    return figure, list(panels)


def _token_axis(panels: Sequence[Axes], tokens: Sequence[str]) -> None:
    """The tokens under the lowest picture, or numbers of steps where they are too many."""
    axes = panels[-1]
    axes.set_xlim(0, len(tokens))
    for one in panels:
        one.tick_params(length=0)
    if len(tokens) > _MOST_LABELS:
        axes.set_xlabel("step")
        return
    names = [written(token) for token in tokens]
    turn = 0 if max(map(len, names)) <= 1 else 90
    axes.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=8, rotation=turn)
    axes.set_xlabel("token that was read")


def _headed(title: str, what: str) -> str:
    return f"{shown(title)}: {what}" if shown(title) else what
