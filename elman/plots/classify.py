"""Pictures of a classifier: the confusion matrix, and what decided of one sequence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from elman.errors import FileError, InputError
from elman.plots.style import BLUE, GREY, columns, plain, save, written
from elman.tasks.classify.credit import Decided, decided, strengths

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from elman.tasks.classify.trained import TrainedClassify

MOST_TOKENS = 400  # of a text that can still be read
_MOST_CLASSES = 40  # in a matrix with names; beyond that the most frequent are drawn
_NUMBERED = 20  # classes whose counts are written into the matrix
_LINE = 78  # columns of text in a line
_BARS = 8  # probabilities that are drawn
_LONGEST = 24  # characters of a class's name


def of_run(folder: str | Path) -> list[Path]:
    """Draw the confusion matrix of a run's validation part from its keepsake.

    Args:
        folder: a run folder.

    Returns:
        the file, in the folder's plots; none where the run has not kept a matrix.

    Raises:
        FileError: a keepsake that is damaged.
    """
    kept = Path(folder) / "keepsake.json"
    if not kept.is_file():
        return []
    try:
        record = json.loads(kept.read_text(encoding="utf-8"))
        names, table = record["classes"], np.array(record["confusion"], dtype=np.int64)
        if table.shape != (len(names), len(names)):
            raise ValueError(f"a matrix of shape {table.shape} for {len(names)} classes")
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{kept}: damaged: {error}.") from None
    path = Path(folder) / "plots" / "confusion.png"
    path.parent.mkdir(exist_ok=True)
    confusion(names, table, path)
    return [path]


def confusion(names: Sequence[str], table: np.ndarray, path: str | Path) -> None:
    """Draw how many examples of each class were told as which.

    A row is a class of the data, a column what the model says; the colour is the share of the row.

    Args:
        names: of the classes.
        table: counts, (classes, classes).
        path: the PNG to write.
    """
    left = ""
    if len(names) > _MOST_CLASSES:
        most = np.sort(np.argsort(-table.sum(1), kind="stable")[:_MOST_CLASSES])
        left = f"; {len(names) - _MOST_CLASSES} rarer classes are not drawn"
        names, table = [names[i] for i in most], table[np.ix_(most, most)]
    count = len(names)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = 2.6 + 0.34 * count
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    shown = [_short(name) for name in names]
    axes.set_xticks(range(count), shown, rotation=90 if count > 3 else 0, fontsize=8)
    axes.set_yticks(range(count), shown, fontsize=8)
    axes.set_xlabel("told")
    axes.set_ylabel("in the data")
    right = np.trace(table) / max(table.sum(), 1)
    axes.set_title(f"validation: {right:.1%} right{left}", fontsize=11, loc="left")
    if count <= _NUMBERED:
        for row, column in np.argwhere(table > 0).tolist():
            dark = share[row, column] > 0.5
            axes.text(column, row, f"{table[row, column]:,}", ha="center", va="center",
                      fontsize=7, color="white" if dark else "black")  # fmt: skip
    figure.colorbar(image, ax=axes, label="share of the row", shrink=0.8)
    save(figure, path)


def _short(name: str) -> str:
    name = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    return written(name) or "?"


def of_answers(model: TrainedClassify, data: str | Path, path: str | Path) -> int:
    """Draw what decided of the first sequence of a file.

    Args:
        model: as `elman.load` gives it.
        data: a file such as `elman predict` takes.
        path: the PNG to write.

    Returns:
        How many sequences of the file are not drawn.

    Raises:
        FileError: the file cannot be read.
        InputError: the text is too long to be drawn.
    """
    examples = model.examples(data)
    first = examples.data[0]
    found = decided(model, first)
    probabilities = model.predict([first])[0]["probabilities"]
    if model.meaning.reading is None:
        of_numbers(found, np.asarray(first)[: len(found.tokens)], probabilities, path)
    else:
        space = "" if model.meaning.reading.level == "char" else " "
        of_text(found, probabilities, path, space)
    return len(examples) - 1


def _frame(found: Decided, high: float) -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(9.2, high), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[high - 1.9, 1.9])
    above.set_title(
        f"{_short(found.label)} ({found.probability:.0%}): red spoke for it, blue against",
        fontsize=11, loc="left",
    )  # fmt: skip
    return figure, above, below


def _bars(axes: Axes, probabilities: dict[str, float]) -> None:
    """The likeliest classes with their probabilities."""
    most = sorted(probabilities.items(), key=lambda entry: -entry[1])[:_BARS][::-1]
    axes.barh([_short(name) for name, _ in most], [p for _, p in most], color=BLUE, height=0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability")
    axes.tick_params(labelsize=8)
    plain(axes)


def of_text(
    found: Decided, probabilities: dict[str, float], path: str | Path, space: str = " "
) -> None:
    """Draw a text, its tokens coloured by what they say for the told class, and probabilities.

    Raises:
        InputError: more tokens than a picture can show.
    """
    if len(found.tokens) > MOST_TOKENS:
        raise InputError(
            f"the text has {len(found.tokens):,} tokens; a picture shows at most {MOST_TOKENS}."
        )
    lines = _lines(found.tokens, space)
    rows = lines[-1][1] + 1 if lines else 1
    figure, axes, below = _frame(found, 2.7 + 0.3 * rows)
    axes.set_axis_off()
    axes.set_xlim(0, _LINE)
    axes.set_ylim(rows, -0.4)
    colours = colormaps["coolwarm"]
    marks = zip(found.tokens, lines, strengths(found.weights), strict=True)
    for token, (column, row), strength in marks:
        face = colours(0.5 + 0.5 * float(strength))
        axes.text(
            column, row + 0.5, written(token), fontsize=9, family="monospace", va="center",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": face, "edgecolor": "none"},
            color="white" if abs(strength) > 0.75 else "black",
        )  # fmt: skip
    _bars(below, probabilities)
    save(figure, path)


def _lines(tokens: Sequence[str], space: str) -> list[tuple[float, int]]:
    """Where each token stands: column and line."""
    places, column, row = [], 0.0, 0
    for token in tokens:
        wide = columns(written(token)) * 1.02 + (1.2 if space else 0.4)
        if column and column + wide > _LINE:
            column, row = 0.0, row + 1
        places.append((column, row))
        column += wide
    return places


def of_numbers(
    found: Decided, numbers: np.ndarray, probabilities: dict[str, float], path: str | Path
) -> None:
    """Draw a sequence of numbers over its steps, shaded by what they say for the told class."""
    figure, axes, below = _frame(found, 5.0)
    steps = np.arange(1, len(numbers) + 1)
    colours = colormaps["coolwarm"]
    for step, strength in zip(steps, strengths(found.weights), strict=True):
        axes.axvspan(step - 0.5, step + 0.5, color=colours(0.5 + 0.5 * float(strength)), alpha=0.5,
                     linewidth=0)  # fmt: skip
    axes.plot(steps, numbers, linewidth=1.2, color="black" if numbers.shape[1] == 1 else None)
    axes.set_xlim(0.5, len(numbers) + 0.5)
    axes.set_xlabel("time step", color=GREY)
    plain(axes)
    _bars(below, probabilities)
    save(figure, path)
