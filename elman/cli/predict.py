"""`elman predict`: a trained model's answers."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Annotated, Any

from typer import Argument, Option

from elman.cli.terminal import JsonLines, Run, note, piped

# The module that draws the answers of a task's models.
_PICTURES = {
    "tree": "elman.plots.trees",
    "graph": "elman.plots.graphs",
    "translate": "elman.plots.translate",
    "classify": "elman.plots.classify",
    "forecast": "elman.plots.forecast",
    "tag": "elman.plots.tag",
}


def command(
    run: Run,
    data: Annotated[
        str | None,
        Argument(
            help="Data of the kind it was trained on, with or without labels; - or a pipe is "
            "standard input.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        str | None,
        Option("--plot", metavar="PNG", help="Draw the first answer of a file into a picture."),
    ] = None,
    horizon: Annotated[
        int | None, Option("--horizon", min=1, help="Series: steps to tell; else as in training.")
    ] = None,
    as_json: JsonLines = False,
) -> None:
    """Let a trained model answer; labels that the data have themselves are not read.

    Each task takes data of the kind it was trained on:

    classify: a table, or a text a line; gives label, probability and text, coloured on a terminal.

    tag: the format of training, or a sentence a line; gives it back with the labels filled in.

    translate: a table, or a text a line; gives its translation.

    forecast: a table of series; gives the steps behind the last value of each as rows of CSV. Rows
    without a value give the covariates that are known ahead.

    caption: classes or numbers; gives the likeliest text of each row.

    next: sessions; gives what comes next in each.

    tree: trees in brackets, such as ((A) ((fine) (film))); gives them back with a label at every
    node.

    graph: a folder of tables; gives rows of graph, node and label.

    With --json each answer is an object on a line of its own, with probabilities.

    [bold]Examples[/bold]

      echo "Who wrote this ?" | elman predict runs/questions

      elman predict runs/questions new.txt --plot first.png

      elman predict runs/load load.csv --horizon 24 --json

      elman predict runs/trees trees.txt
    """
    from elman.errors import InputError
    from elman.tasks import load

    if data is None and not piped():
        raise InputError("predict: name the data, or pipe them in.")
    model = load(run)
    if not hasattr(model, "answers"):
        raise InputError(
            f"predict: {run} is a language model, which has no labels to tell; there are elman "
            "generate, elman score and elman evaluate."
        )
    given = {} if horizon is None else {"horizon": horizon}
    if given and model.task != "forecast":
        raise InputError("predict: --horizon is for models of series; leave it out.")
    if plot is not None:
        _draw(model, data, plot)
    noted = False
    for line, record in model.answers(data or "-", **given):
        if "note" in record and not noted:
            note(f"note: {record['note']}")
            noted = True
        print(json.dumps(record, ensure_ascii=False, allow_nan=False) if as_json else line)


def _draw(model: Any, data: str | None, path: str) -> None:
    """Draw what the model answers of a file, which is read twice."""
    from elman.errors import FileError, InputError

    if data in (None, "-"):
        raise InputError("predict: --plot needs a file; standard input can be read only once.")
    module = _PICTURES.get(model.task)
    if module is None:
        raise InputError(f"predict: there is no picture of the answers of {model.task!r}.")
    if not path.lower().endswith(".png"):
        raise InputError(f"predict: --plot {path}: a picture is a PNG; end its name in .png.")
    try:
        left = import_module(module).of_answers(model, data, path)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}.") from None
    note(f"picture: {path}" + (f" (the first; {left} more are not drawn)" if left else ""))
