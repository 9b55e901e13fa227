"""`elman train lm`: its options are those of the task and of training, read from there."""

from __future__ import annotations

from elman.cli.train_options import train_command

command = train_command(
    "lm",
    """
    Train a language model on text; what you do not say is chosen from the data and the time.

    [bold]Examples[/bold]

      elman train lm novel.txt --minutes 3

      elman train lm part1.txt part2.txt --cell gru --hidden 256 --layers 2 --epochs 10 --run runs/a

      elman train lm novel.txt --cell mine.py:my_cell --hyper alpha=0.2 --steps 2000

      elman train lm novel.txt --window 32 --carry exact --hidden 64 --minutes 3

      elman train lm --run runs/a --resume
    """,
    files_help="Text files, joined in order; - or a pipe is standard input.",
    what="text files",
    data=("level", "window", "streams", "restart", "min_count", "valid_fraction", "valid_file"),
    training=("carry", "learning"),
    cell_help=(
        "A cell's name (see elman cells), or FILE.py:NAME for a cell of your own. lstm if not"
        " given."
    ),
    next_step="elman generate",
)
