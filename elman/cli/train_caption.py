"""`elman train caption`: its options are those of the task and of training, read from there."""

from __future__ import annotations

from elman.cli.train_options import train_command

command = train_command(
    "caption",
    """
    Train a model that writes a text from a class or from a vector of numbers.

    [bold]Examples[/bold]

      elman train caption names.csv --label nationality --text name --minutes 4 --run runs/names

      elman train caption digits.jsonl --past pixels --text word --minutes 1

      elman train caption table.csv --past "p*" --text word --minutes 1

      elman train caption --run runs/names --resume
    """,
    files_help=(
        "Tables of texts and their classes or numbers, or a .npz file; - or a pipe is "
        "standard input."
    ),
    what="files of captions",
    data=(
        "text",
        "label",
        "past",
        "level",
        "min_count",
        "unknown_rate",
        "valid_fraction",
        "valid_file",
    ),
    training=("batch",),
    cell_help="A cell by name (see elman cells). lstm.",
)
