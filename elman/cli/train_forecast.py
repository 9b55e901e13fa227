"""`elman train forecast`: its options are those of ForecastOptions and TrainingOptions."""

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
from elman.tasks.forecast.options import ForecastOptions


@with_options(
    ForecastOptions,
    data=("target", "time", "id", "past", "future", "horizon", "season", "scaling",
          "valid_fraction", "valid_file"),
    training=("windows", "teacher_forcing", "training"),
    cell_help=(
        "A cell by name (see elman cells), or FILE.py:NAME for one of your own; an LSTM if not "
        "given."
    ),
)  # fmt: skip
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Tables (CSV, TSV, JSONL, Parquet); - or a pipe is standard input.",
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
    """Train a model that tells how series go on.

    A table is long, with columns such as unique_id, ds and y, or wide, with a column of time and
    one of each series. Columns are found by their names, and the choice is printed.

    [bold]Examples[/bold]

      elman train forecast sales.csv --horizon 28 --minutes 3

      elman train forecast train.csv --valid-file dev.csv --target OT --time date --horizon 168

      elman train forecast furnace.csv --target CO2 --future rate --model narx

      elman train forecast --run runs/a --resume
    """
    run_task(
        "forecast",
        text_files("forecast", files, resume, "tables"),
        options,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        as_json=as_json,
        next_step="elman predict",
    )
