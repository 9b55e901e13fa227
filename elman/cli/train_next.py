"""`elman train next`: its options are those of NextOptions and TrainingOptions, read from there."""

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
from elman.tasks.next.options import NextOptions


@with_options(
    NextOptions,
    data=("layout", "id", "text", "target", "time", "separator", "min_count", "unknown_rate",
          "valid_fraction", "valid_file"),
    training=("batch", "window"),
    cell_help="A cell by name (see elman cells), or FILE.py:NAME for one of your own. gru.",
)  # fmt: skip
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files of sessions: a table or lines of items; - or a pipe is standard input.",
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
    """Train a model that tells the next item of a session, from the items before it.

    Sessions are a table with one event a row (--id, --text, --time), or lines of items.

    [bold]Examples[/bold]

      elman train next outfits.csv --id week --text worn --minutes 1

      elman train next playlists.txt --minutes 3 --run runs/next

      elman train next events.parquet --id session --target item --time timestamp --minutes 10

      elman train next --run runs/next --resume
    """
    run_task(
        "next",
        text_files("next", files, resume, "files of sessions"),
        options,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        as_json=as_json,
        next_step="elman predict",
    )
