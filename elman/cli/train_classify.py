"""`elman train classify`: its options are those of the task and of training, read from there."""

from __future__ import annotations

from elman.cli.train_options import train_command

command = train_command(
    "classify",
    """
    Train a model that tells the class of a text, or of a sequence of numbers.

    Columns are found by their names and content, and said; --text and --label name them. For
    numbers with a row a time step, --id names the column that tells which rows are one sequence.

    [bold]Examples[/bold]

      elman train classify reviews.csv --minutes 5

      elman train classify train.tsv --text 2 --label 1 --run runs/questions

      elman train classify steps.csv --id walk --label kind --minutes 2

      elman train classify --run runs/questions --resume
    """,
    files_help="CSV, TSV, JSONL, Parquet, Arrow, .npy or .npz; - or a pipe is standard input.",
    what="tables or arrays",
    data=(
        "text",
        "label",
        "id",
        "features",
        "level",
        "split",
        "case",
        "digits",
        "longest",
        "min_count",
        "unknown_rate",
        "vectors",
        "one_hot",
        "batch",
        "valid_fraction",
        "valid_file",
    ),
    training=("smoothing", "class_weights"),
    cell_help=(
        "A cell by name (see elman cells), or FILE.py:NAME for one of your own. lstm if not given."
    ),
)
