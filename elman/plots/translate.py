"""Where a decoder looks in the source while it tells a translation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from elman.errors import InputError
from elman.plots.style import columns, save, written

if TYPE_CHECKING:
    from elman.tasks.translate import Alignment, TrainedTranslation

MOST_UNITS = 80  # of a side that can still be read
_ENDS = {"</s>": "■"}  # the end of a side


def of_answers(model: TrainedTranslation, data: str | Path, path: str | Path) -> int:
    """Draw where the model looks while it translates the first text of a file.

    Args:
        model: as `elman.load` gives it; with attention.
        data: lines of text, or a table with the source in the column it was trained on.
        path: the PNG to write.

    Returns:
        How many texts of the file are not drawn.

    Raises:
        FileError: the file cannot be read.
        InputError: a model without attention, or a text too long for a picture.
    """
    texts = model.read(data)
    attention(model.alignment(texts[0]), path)
    return len(texts) - 1


def attention(found: Alignment, path: str | Path) -> None:
    """Draw an alignment: a row for each unit of the translation, a column for each of the source.

    The darker a square, the more of the weight lies on that unit of the source; a row sums to 1.

    Args:
        found: as `TrainedTranslation.alignment` gives it.
        path: the PNG to write.

    Raises:
        InputError: more units than a picture can show.
    """
    rows, across = found.weights.shape
    if max(rows, across) > MOST_UNITS:
        raise InputError(
            f"the text has {across} units and its translation {rows}; a picture shows at most "
            f"{MOST_UNITS} of each. Draw a shorter one."
        )
    names = [[_ENDS.get(unit) or written(unit.strip() or unit) for unit in side]
             for side in (found.source, found.target)]  # fmt: skip
    widest = [max(columns(name) for name in side) for side in names]
    figure = Figure(
        figsize=(1.3 + 0.36 * across + 0.09 * widest[1], 0.9 + 0.36 * rows + 0.09 * widest[0]),
        layout="constrained",
    )
    axes = figure.subplots()
    axes.imshow(found.weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal")
    axes.set_xticks(range(across), names[0], rotation=90 if widest[0] > 2 else 0, fontsize=9)
    axes.set_yticks(range(rows), names[1], fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_color("#cccccc")
    save(figure, path)
