"""`elman train translate`: its options are those of TranslateOptions and TrainingOptions."""

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
from elman.tasks.translate.options import TranslateOptions


@with_options(
    TranslateOptions,
    data=(
        "text", "target", "level", "source_level", "target_level", "source_units", "target_units",
        "min_count", "longest", "valid_fraction", "valid_file",
    ),
    training=("smoothing", "feed_back", "pairs", "tokens"),
    cell_help="Cell of encoder and decoder: lstm, gru, rnn, or another by name (see elman cells).",
)  # fmt: skip
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="A table of pairs (TSV, CSV, JSONL, Parquet), or two text files whose lines "
            "belong together; - or a pipe is standard input.",
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
    """Train a model that turns one sequence into another, of another length and order.

    Sentences into another language, numbers into words, a word into its sounds, a sum into its
    result: an encoder reads the source in both directions, a decoder tells the target unit by unit.

    [bold]Examples[/bold]

      elman train translate pairs.tsv --minutes 30

      elman train translate train.en train.fr --minutes 30 --run runs/en-fr

      elman train translate verbs.csv --text lemma --target past --minutes 2

      elman train translate pairs.tsv --attention none --level word
    """
    run_task(
        "translate",
        text_files("translate", files, resume, "file of pairs, or two files line by line"),
        options,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        as_json=as_json,
        next_step="elman predict",
    )
