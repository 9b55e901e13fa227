"""`elman train classify`: its options are those of ClassifyOptions and TrainingOptions."""

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
from elman.tasks.classify.options import ClassifyOptions


@with_options(
    ClassifyOptions,
    data=(
        "text", "label", "id", "features", "level", "split", "case", "digits", "longest",
        "min_count", "unknown_rate", "vectors", "one_hot", "batch", "valid_fraction", "valid_file",
    ),
    training=("smoothing", "class_weights"),
    cell_help="A cell by name (see elman cells), or FILE.py:NAME for one of your own. lstm if not "
    "given.",
)  # fmt: skip
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="CSV, TSV, JSONL, Parquet, Arrow, .npy or .npz; - or a pipe is standard input.",
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
    """Train a model that tells the class of a text, or of a sequence of numbers.

    Columns are found by their names and content, and said; --text and --label name them. For
    numbers with a row a time step, --id names the column that tells which rows are one sequence.

    [bold]Examples[/bold]

      elman train classify reviews.csv --minutes 5

      elman train classify train.tsv --text 2 --label 1 --run runs/questions

      elman train classify steps.csv --id walk --label kind --minutes 2

      elman train classify --run runs/questions --resume
    """
    run_task(
        "classify",
        text_files("classify", files, resume, "tables or arrays"),
        options,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        as_json=as_json,
        next_step="elman predict",
    )
