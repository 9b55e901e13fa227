"""How a run went: its losses and the norms of its gradient over the steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FuncFormatter

from elman.errors import ElmanError, FileError
from elman.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    legend,
    minor_label,
    over_steps,
    save,
    shown,
    steps_axis,
)
from elman.training import config
from elman.training.folder import RunFolder, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# What draws further pictures of a finished run, by task: a module and functions of it.
_OF_TASK: dict[str, tuple[str, tuple[str, ...]]] = {
    "classify": ("elman.plots.classify", ("of_run",)),
    "tag": ("elman.plots.tag", ("of_run",)),
    "forecast": ("elman.plots.forecast", ("of_run", "residuals_of_run")),
}


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
    names = [name for row in validation[-1:] for name in row if name.startswith("nats_per_")]
    return "nats_per_char" if "nats_per_char" in names else [*names, "loss"][0]


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
    figure, axes = over_steps(title, "training and validation loss")
    steps, losses = _columns(train, "step"), _columns(train, "loss")
    axes.plot(steps, losses, color=SKY, linewidth=0.8, alpha=0.6)
    axes.plot(steps, _smooth(losses), color=BLUE, linewidth=1.6, label="training, smoothed")
    judged = [row for row in validation if metric in row]
    values = _columns(judged, metric)
    if judged:
        axes.plot(
            _columns(judged, "step"),
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
        axes.plot([], [], color="black", linestyle="--", label=f"{shown(name)} ({level:.3f})")
    # The first steps fall from far above; the picture is of what comes after.
    settled = losses[len(losses) // 20 :]
    everything = np.concatenate([settled, values, [baseline[1]] if baseline else []])
    low, high = float(everything.min()), float(np.quantile(everything, 0.995))
    margin = 0.06 * max(high - low, 1e-3)
    axes.set_ylim(low - margin, high + margin)
    axes.set_ylabel(_unit(metric))
    steps_axis(axes, steps)
    legend(axes, "upper right")
    save(figure, path)


def gradients(
    train: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    clip_norm: float = 0.0,
    title: str = "",
) -> None:
    """Draw the norm of the gradient over the steps of a run, before it was clipped.

    Beside that of all weights stand those of each recurrent layer's matrices and of the rest, by
    group, and the mean norm of the states, where the rows have them.

    Args:
        train: rows with "step", "gradient_norm" and "gradient_norm_max", the mean and the largest
            since the row before; "gradient_norms" by group and "state_norm" may be there.
        path: the PNG to write.
        clip_norm: norm to which longer gradients were scaled back; 0 draws none.
        title: above the picture.
    """
    figure, axes = over_steps(title, "norm of the gradient, before clipping")
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
    parts = _norm_curves(axes, train)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(minor_label))
    axes.set_ylabel("norm of the gradient (log scale)")
    steps_axis(axes, steps)
    if parts:
        figure.set_figheight(5.2)
        figure.legend(loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    else:
        legend(axes, "upper right")
    save(figure, path)


def _norm_curves(axes: Axes, train: Sequence[Mapping[str, Any]]) -> int:
    """Draw the groups of weights and the states; return how many, none for rows of older runs."""
    curves = {
        name: [(row["step"], row["gradient_norms"].get(name)) for row in train if _parts(row)]
        for name in dict.fromkeys(name for row in train for name in _parts(row))
    }
    states = [(row["step"], row["state_norm"]) for row in train if "state_norm" in row]
    if states:
        curves["mean norm of a state"] = states
    colours = (GREEN, ORANGE, PURPLE, GREY, VERMILLION, SKY)
    for i, (name, points) in enumerate(curves.items()):
        at = np.array([point for point in points if point[1] is not None], dtype=float)
        axes.plot(
            at[:, 0],
            _smooth(at[:, 1]),
            color="black" if points is states else colours[i % len(colours)],
            linestyle=("-", "--", "-.")[i // len(colours) % 3],
            linewidth=0.9,
            label=shown(name),
        )
    return len(curves)


def _parts(row: Mapping[str, Any]) -> Mapping[str, float]:
    return row.get("gradient_norms", {})


def _unit(metric: str) -> str:
    unit = metric.removeprefix("nats_per_")
    if unit == metric:
        return metric
    unit = "character" if unit == "char" else unit
    return f"nats {'an' if unit[0] in 'aeiou' else 'a'} {unit}"


def _columns(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([row[key] for row in rows], dtype=float)


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over a fortieth of the curve, narrower towards its ends."""
    half = max(len(values) // 80, 1)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(np.minimum(at, len(values) - 1 - at), half)
    return (total[at + reach + 1] - total[at - reach]) / (2 * reach + 1)


def report(folder: Path) -> list[str]:
    """Draw the pictures of a finished run, and say where they are; or why one is missing.

    The run is finished without them, so nothing that goes wrong here may end it with an error.
    """
    module, names = _OF_TASK.get(config.read(RunFolder(folder).config).task, ("", ()))
    further = [getattr(import_module(module), name) for name in names]
    drawn: list[Path] = []
    missing: list[str] = []
    for draw in (of_run, *further):
        try:
            drawn += draw(folder)
        except Exception as error:
            kind = "" if isinstance(error, ElmanError) else f"{type(error).__name__}: "
            missing.append(f"a picture is missing: {kind}{error}")
    return [*([f"pictures: {', '.join(map(str, drawn))}"] if drawn else []), *missing]
