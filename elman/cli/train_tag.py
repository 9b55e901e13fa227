"""`elman train tag`: its options are those of TagOptions and TrainingOptions, read from there."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from elman.cli.train_options import (
    InitFrom,
    Json,
    Overwrite,
    Quiet,
    Resume,
    RunFolder,
    run_task,
    text_files,
    with_options,
)
from elman.tasks.tag.options import TagOptions


@with_options(
    TagOptions,
    data=("text", "label", "id", "features", "scheme", "longest", "min_count", "unknown_rate",
          "valid_fraction", "valid_file"),
    training=("sentences", "tokens"),
    cell_help="A cell by name (see elman cells), or FILE.py:NAME for one of your own; lstm.",
)  # fmt: skip
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files of tagged sequences; - or a pipe is standard input.", show_default=False
        ),
    ] = None,
    run: RunFolder = None,
    resume: Resume = False,
    init_from: InitFrom = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Train a model that gives every word of a sentence, or every frame of a sequence, a label.

    Files are CoNLL columns (a word a line, its tag in the last column, a blank line between
    sentences), CoNLL-U, JSON lines of {"words": […], "tags": […]} or {"vectors": [[…]], "labels":
    […]}, tables with one row a word or frame and a column --id, or .npz arrays.

    [bold]Examples[/bold]

      elman train tag train.conll --valid-file dev.conll --minutes 6

      elman train tag train.conllu --minutes 15

      elman train tag train.conllu --label feats --run runs/feats

      elman train tag gestures.csv --id recording --label gesture --minutes 3
    """
    run_task(
        "tag",
        text_files("tag", files, resume, "files of tagged sequences"),
        options,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        as_json=as_json,
        next_step="elman predict",
    )
