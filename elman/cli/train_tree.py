"""`elman train tree`: its options are those of the task and of training, read from there."""

from __future__ import annotations

from elman.cli.train_options import train_command

command = train_command(
    "tree",
    """
    Train a model that labels the nodes of trees, such as (3 (2 A) (4 (4 fine) (2 film))).

    A label stands after each bracket; nodes without one, as in (3 (fine) (film)), are not learned
    from.

    [bold]Examples[/bold]

      elman train tree trees.txt --minutes 3

      elman train tree train.txt --valid-file dev.txt --labels binary --run runs/a

      elman train tree trees.txt --cell child_sum_tree_lstm --hidden 100 --epochs 8

      elman train tree --run runs/a --resume
    """,
    files_help="Files of bracketed trees; - or a pipe is standard input.",
    what="files of trees",
    data=("labels", "nodes", "trees", "min_count", "unknown_rate", "valid_fraction", "valid_file"),
    cell_help=(
        "A cell of trees by name (see elman cells), or FILE.py:NAME for one of your own. "
        "nary_tree_lstm where no node has more than two children, else child_sum_tree_lstm."
    ),
)
