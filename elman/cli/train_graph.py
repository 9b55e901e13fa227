"""`elman train graph`: its options are those of GraphOptions and TrainingOptions."""

from __future__ import annotations

from pathlib import Path
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
    with_options,
)
from elman.errors import InputError
from elman.tasks.graph.options import GraphOptions


@with_options(
    GraphOptions,
    data=(
        "target", "directed", "features", "normalise", "graphs", "valid_fraction",
        "features_file", "edges_file", "labels_file", "splits_file",
    ),
    cell_help=(
        "A cell of graphs by name (see elman cells), or FILE.py:NAME for one of your own. "
        "gated_graph_typed where edges have types; else graph_convolution for the nodes of one "
        "graph, message_passing for many graphs."
    ),
)  # fmt: skip
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="A folder with features.tsv, edges.tsv, labels.tsv and perhaps splits.json, or "
            "these files.",
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
    """Train a model on graphs: labels of nodes, of whole graphs, or the node that is the answer.

    One graph has rows of a node and its features, of two nodes that an edge joins (and its type),
    and of a node and its label, between tabs. Of many graphs each row begins with the graph.

    [bold]Examples[/bold]

      elman train graph cora --minutes 1

      elman train graph molecules --cell message_passing --rounds 6 --run runs/molecules

      elman train graph --run runs/molecules --resume
    """
    if not files and not resume:
        raise InputError("train graph: name the folder of the tables, or the tables.")
    run_task(
        "graph",
        [Path(name) for name in files] if files else None,
        options,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        as_json=as_json,
        next_step="elman predict",
    )
