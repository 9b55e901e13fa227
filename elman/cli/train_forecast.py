"""`elman train forecast`: its options are those of the task and of training, read from there."""

from __future__ import annotations

from elman.cli.train_options import train_command

command = train_command(
    "forecast",
    """
    Train a model that tells how series go on.

    A table is long, with columns such as unique_id, ds and y, or wide, with a column of time and
    one of each series. Columns are found by their names, and the choice is printed.

    [bold]Examples[/bold]

      elman train forecast sales.csv --horizon 28 --minutes 3

      elman train forecast train.csv --valid-file dev.csv --target OT --time date --horizon 168

      elman train forecast furnace.csv --target CO2 --future rate --model narx

      elman train forecast --run runs/a --resume
    """,
    files_help="Tables (CSV, TSV, JSONL, Parquet); - or a pipe is standard input.",
    what="tables",
    data=(
        "target",
        "time",
        "id",
        "past",
        "future",
        "horizon",
        "season",
        "scaling",
        "valid_fraction",
        "valid_file",
    ),
    training=("windows", "teacher_forcing", "training"),
    cell_help=(
        "A cell by name (see elman cells), or FILE.py:NAME for one of your own; an LSTM if "
        "not given."
    ),
)
