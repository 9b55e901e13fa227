"""`elman train translate`: its options are those of the task and of training, read from there."""

from __future__ import annotations

from elman.cli.train_options import train_command

command = train_command(
    "translate",
    """
    Train a model that turns one sequence into another, of another length and order.

    Sentences into another language, numbers into words, a word into its sounds, a sum into its
    result: an encoder reads the source in both directions, a decoder tells the target unit by unit.

    [bold]Examples[/bold]

      elman train translate pairs.tsv --minutes 30

      elman train translate train.en train.fr --minutes 30 --run runs/en-fr

      elman train translate verbs.csv --text lemma --target past --minutes 2

      elman train translate pairs.tsv --attention none --level word
    """,
    files_help=(
        "A table of pairs (TSV, CSV, JSONL, Parquet), or two text files whose lines belong "
        "together; - or a pipe is standard input."
    ),
    what="file of pairs, or two files line by line",
    data=(
        "text",
        "target",
        "level",
        "source_level",
        "target_level",
        "source_units",
        "target_units",
        "min_count",
        "longest",
        "valid_fraction",
        "valid_file",
    ),
    training=("smoothing", "feed_back", "pairs", "tokens"),
    cell_help=(
        "Cell of encoder and decoder: lstm, gru, rnn, or another by name (see elman cells)."
    ),
)
