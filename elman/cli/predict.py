"""`elman predict`: a trained model's answers."""

from __future__ import annotations

import json
from typing import Annotated

from typer import Argument

from elman.cli.terminal import Json, Run, piped


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
    as_json: Json = False,
) -> None:
    """Let a trained model tell labels; what the data say themselves is not read.

    A model of trees is given trees in brackets, such as ((A) ((fine) (film))), and gives them back
    with a label at every node. With --json each is an object on a line of its own, with the
    probability of each label.

    [bold]Examples[/bold]

      elman predict runs/trees new.txt

      echo "((A) ((fine) (film)))" | elman predict runs/trees
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
    for line, record in model.answers(data or "-"):
        print(json.dumps(record, ensure_ascii=False, allow_nan=False) if as_json else line)
