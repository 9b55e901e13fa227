"""`elman train tree`: its options are those of TreeOptions and TrainingOptions, read from there."""

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
from elman.tasks.tree.options import TreeOptions


@with_options(
    TreeOptions,
    data=("labels", "nodes", "trees", "min_count", "unknown_rate", "valid_fraction", "valid_file"),
    cell_help=(
        "A cell of trees by name (see elman cells), or FILE.py:NAME for one of your "
        "own. nary_tree_lstm where no node has more than two children, else child_sum_tree_lstm."
    ),
)
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files of bracketed trees; - or a pipe is standard input.", show_default=False
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
    """Train a model that labels the nodes of trees, such as (3 (2 A) (4 (4 fine) (2 film))).

    A label stands after each bracket; nodes without one, as in (3 (fine) (film)), are not learned
    from.

    [bold]Examples[/bold]

      elman train tree trees.txt --minutes 3

      elman train tree train.txt --valid-file dev.txt --labels binary --run runs/a

      elman train tree trees.txt --cell child_sum_tree_lstm --hidden 100 --epochs 8

      elman train tree --run runs/a --resume
    """
    run_task(
        "tree",
        text_files("tree", files, resume, "files of trees"),
        options,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        as_json=as_json,
        next_step="elman predict",
    )
