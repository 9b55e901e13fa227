"""`elman train lm`: its options are those of LMOptions and TrainingOptions, read from there."""

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
from elman.tasks.lm.options import LMOptions


@with_options(
    LMOptions,
    data=("level", "window", "streams", "restart", "min_count", "valid_fraction", "valid_file"),
    training=("carry", "learning"),
    cell_help=(
        "A cell's name (see elman cells), or FILE.py:NAME for a cell of your own. lstm if not "
        "given."
    ),
)
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Text files, joined in order; - or a pipe is standard input.", show_default=False
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
    """Train a language model on text; what you do not say is chosen from the data and the time.

    [bold]Examples[/bold]

      elman train lm novel.txt --minutes 3

      elman train lm part1.txt part2.txt --cell gru --hidden 256 --layers 2 --epochs 10 --run runs/a

      elman train lm novel.txt --cell mine.py:my_cell --hyper alpha=0.2 --steps 2000

      elman train lm novel.txt --window 32 --carry exact --hidden 64 --minutes 3

      elman train lm --run runs/a --resume
    """
    run_task(
        "lm",
        text_files("lm", files, resume, "text files"),
        options,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        as_json=as_json,
        next_step="elman generate",
    )
