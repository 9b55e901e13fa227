"""`elman train tag`: its options are those of the task and of training, read from there."""

from __future__ import annotations

from elman.cli.train_options import train_command

command = train_command(
    "tag",
    """
    Train a model that gives every word of a sentence, or every frame of a sequence, a label.

    Files are CoNLL columns (a word a line, its tag in the last column, a blank line between
    sentences), CoNLL-U, JSON lines of {"words": […], "tags": […]} or {"vectors": [[…]], "labels":
    […]}, tables with one row a word or frame and a column --id, or .npz arrays.

    [bold]Examples[/bold]

      elman train tag train.conll --valid-file dev.conll --minutes 6

      elman train tag train.conllu --minutes 15

      elman train tag train.conllu --label feats --run runs/feats

      elman train tag gestures.csv --id recording --label gesture --minutes 3
    """,
    files_help="Files of tagged sequences; - or a pipe is standard input.",
    what="files of tagged sequences",
    data=(
        "text",
        "label",
        "id",
        "features",
        "scheme",
        "longest",
        "min_count",
        "unknown_rate",
        "valid_fraction",
        "valid_file",
    ),
    training=("sentences", "tokens"),
    cell_help="A cell by name (see elman cells), or FILE.py:NAME for one of your own; lstm.",
)
