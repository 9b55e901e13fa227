"""`elman train next`: its options are those of the task and of training, read from there."""

from __future__ import annotations

from elman.cli.train_options import train_command

command = train_command(
    "next",
    """
    Train a model that tells the next item of a session, from the items before it.

    Sessions are a table with one event a row (--id, --text, --time), or lines of items.

    [bold]Examples[/bold]

      elman train next outfits.csv --id week --text worn --minutes 1

      elman train next playlists.txt --minutes 3 --run runs/next

      elman train next events.parquet --id session --target item --time timestamp --minutes 10

      elman train next --run runs/next --resume
    """,
    files_help="Files of sessions: a table or lines of items; - or a pipe is standard input.",
    what="files of sessions",
    data=(
        "layout",
        "id",
        "text",
        "target",
        "time",
        "separator",
        "min_count",
        "unknown_rate",
        "valid_fraction",
        "valid_file",
    ),
    training=("batch", "window"),
    cell_help="A cell by name (see elman cells), or FILE.py:NAME for one of your own. gru.",
)
