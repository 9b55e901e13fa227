"""`elman train graph`: its options are those of the task and of training, read from there."""

from __future__ import annotations

from elman.cli.train_options import train_command

command = train_command(
    "graph",
    """
    Train a model on graphs: labels of nodes, of whole graphs, or the node that is the answer.

    One graph has rows of a node and its features, of two nodes that an edge joins (and its type),
    and of a node and its label, between tabs. Of many graphs each row begins with the graph.

    [bold]Examples[/bold]

      elman train graph cora --minutes 1

      elman train graph molecules --cell message_passing --rounds 6 --run runs/molecules

      elman train graph --run runs/molecules --resume
    """,
    files_help=(
        "A folder with features.tsv, edges.tsv, labels.tsv and perhaps splits.json, or these files."
    ),
    what="folder of the tables, or the tables",
    data=(
        "target",
        "directed",
        "features",
        "normalise",
        "graphs",
        "valid_fraction",
        "features_file",
        "edges_file",
        "labels_file",
        "splits_file",
    ),
    cell_help=(
        "A cell of graphs by name (see elman cells), or FILE.py:NAME for one of your own. "
        "gated_graph_typed where edges have types; else graph_convolution for the nodes of "
        "one graph, message_passing for many graphs."
    ),
    pipe=False,
)
