"""Pictures of a model that tags: what is told as what, and a sequence with its labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from elman.errors import InputError
from elman.plots.classify import of_run
from elman.plots.style import columns, plain, save, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from elman.tasks.tag import TrainedTag

__all__ = ["MOST_FRAMES", "MOST_WORDS", "frames", "of_answers", "of_run", "sentence"]

MOST_WORDS = 200  # of a sentence that can still be read
MOST_FRAMES = 20_000
_LINE = 76  # columns of text in a line
_MOST_NAMED = 20  # labels with colours of their own


def of_answers(model: TrainedTag, data: str | Path, path: str | Path) -> int:
    """Draw the first sequence of a file with the labels that a model tells.

    Args:
        model: as `elman.load` gives it.
        data: a file such as `elman predict` takes.
        path: the PNG to write.

    Returns:
        How many sequences of the file are not drawn.

    Raises:
        InputError: the sequence is too long to be read.
    """
    answers = (record for _, record in model.answers(data))
    first = next(islice(answers, 1), None)
    if first is None:
        raise InputError(f"{data}: there is no sequence to draw.")
    if "words" in first:
        sentence(first["words"], first["tags"], first["probabilities"], path)
    else:
        frames(first["labels"], first["probabilities"], path)
    return sum(1 for _ in answers)


def sentence(
    words: Sequence[str], tags: Sequence[str], certainties: Sequence[float], path: str | Path
) -> None:
    """Draw a sentence, under each word its tag; the surer the model, the fuller the colour.

    Args:
        words: of the sentence.
        tags: of each word; "O" has no colour.
        certainties: of each word the probability of its tag, 0 to 1.
        path: the PNG to write.

    Raises:
        InputError: more words than a picture can show.
    """
    if len(words) > MOST_WORDS:
        raise InputError(
            f"the sentence has {len(words)} words; a picture shows at most {MOST_WORDS}. Draw a "
            "shorter one."
        )
    colours = _colours([_kind(tag) for tag in tags if tag != "O"])
    lines = _lines(words, tags)
    figure = Figure(figsize=(8.4, 0.5 + 0.72 * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, _LINE)
    axes.set_ylim(-2.0 * len(lines), 0.5)
    for row, line in enumerate(lines):
        for word, across in line:
            _word(axes, words[word], tags[word], certainties[word], colours, across, -2.0 * row)
    save(figure, path)


def _word(
    axes: Axes,
    word: str,
    tag: str,
    certainty: float,
    colours: dict[str, Any],
    across: float,
    up: float,
) -> None:
    box = None
    if tag != "O":
        shade = {"alpha": 0.15 + 0.6 * certainty, "edgecolor": "none", "pad": 2.0}
        box = {"facecolor": colours[_kind(tag)], **shade}
    axes.text(across, up, written(word), fontsize=10, family="monospace", va="center", bbox=box)
    if tag != "O":
        axes.text(across, up - 0.75, written(tag), fontsize=7, va="center")


def _lines(words: Sequence[str], tags: Sequence[str]) -> list[list[tuple[int, float]]]:
    """Which words stand on which line, and where."""
    lines: list[list[tuple[int, float]]] = [[]]
    across = 0.0
    for k, (word, tag) in enumerate(zip(words, tags, strict=True)):
        wide = max(columns(written(word)), 0.75 * columns(written(tag)) if tag != "O" else 0) + 1.5
        if across + wide > _LINE and lines[-1]:
            lines.append([])
            across = 0.0
        lines[-1].append((k, across))
        across += wide
    return lines


def frames(labels: Sequence[str], certainties: Sequence[float], path: str | Path) -> None:
    """Draw the labels of a sequence of frames over time, and how sure the model is of each.

    Args:
        labels: of each frame.
        certainties: of each frame the probability of its label, 0 to 1.
        path: the PNG to write.

    Raises:
        InputError: more frames than a picture can show.
    """
    if len(labels) > MOST_FRAMES:
        raise InputError(
            f"the sequence has {len(labels):,} frames; a picture shows at most {MOST_FRAMES:,}."
        )
    names = sorted(set(labels))
    colours = _colours(labels)
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.subplots()
    sure, time = np.asarray(certainties), np.arange(len(labels))
    for name in names:
        chosen = np.array([label == name for label in labels])
        axes.fill_between(time, np.where(chosen, sure, 0.0), step="mid", color=colours[name])
    axes.set_xlabel("frame")
    axes.set_ylabel("probability of the label")
    axes.set_ylim(0, 1.02)
    plain(axes)
    marks = [Patch(color=colours[name], label=written(name)) for name in names[:_MOST_NAMED]]
    axes.legend(handles=marks, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    save(figure, path)


def _kind(tag: str) -> str:
    """The type of a tag of spans, else the tag."""
    return tag[2:] if tag[1:2] == "-" and tag[:1] in "BIESLU" else tag


def _colours(names: Sequence[str]) -> dict[str, str]:
    table = colormaps["tab20"]
    return {name: to_hex(table(k % _MOST_NAMED)) for k, name in enumerate(sorted(set(names)))}
