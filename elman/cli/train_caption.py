"""`elman train caption`: its options are those of CaptionOptions and TrainingOptions."""

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
from elman.tasks.caption.options import CaptionOptions


@with_options(
    CaptionOptions,
    data=("text", "label", "past", "level", "min_count", "unknown_rate", "valid_fraction",
          "valid_file"),
    training=("batch",),
    cell_help="A cell by name (see elman cells). lstm.",
)  # fmt: skip
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Tables of texts and their classes or numbers, or a .npz file; - or a pipe is "
            "standard input.",
            show_default=False,
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
    """Train a model that writes a text from a class or from a vector of numbers.

    [bold]Examples[/bold]

      elman train caption names.csv --label nationality --text name --minutes 4 --run runs/names

      elman train caption digits.jsonl --past pixels --text word --minutes 1

      elman train caption table.csv --past "p*" --text word --minutes 1

      elman train caption --run runs/names --resume
    """
    run_task(
        "caption",
        text_files("caption", files, resume, "files of captions"),
        options,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        as_json=as_json,
        next_step="elman predict",
    )
