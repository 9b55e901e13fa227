"""The options of a model of graphs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from elman.tasks.base import TaskOptions

Count = Annotated[int, Field(ge=1)]


class GraphOptions(TaskOptions):
    """Options of a model of graphs; None leaves the choice to the data.

    Args:
        cell: name of a cell of graphs, or its JSON; gated_graph_typed where edges have types, else
            graph_convolution for the nodes of one graph and message_passing for many graphs.
        hyper: hyper-parameters of the cell by name.
        hidden: units of a node's state.
        layers: layers, each with weights of its own.
        rounds: rounds of messages of a layer, with the same weights.
        target: what labels are: classes of "node" or "graph", or the one node of each graph that
            is the answer, "selection".
        pool: how a graph's nodes come together for its class: "sum" or "mean".
        directed: whether an edge sends from u to v only. Cells that see the type of an edge get it
            back all the same, as a type of its own. If not given, the table of edges says so by a
            first row that names its columns from and to.
        features: whether features are "ids" of what a node has, or "numbers".
        normalise: divide the features of a node by their sum (ids), or centre and scale each
            (numbers).
        dropout: on what each layer reads, in training.
        decay: weight λ of the penalty λ/2 Σ w² on the matrices of the first layer, beside the
            loss.
        graphs: graphs of a batch, where there are many.
        valid_fraction: share of the labelled nodes or graphs for validation where no splits say.
        features_file, edges_file, labels_file, splits_file: tables that are not among the files.
    """

    cell: str | dict[str, Any] | None = None
    hyper: dict[str, Any] = Field(default_factory=dict)
    hidden: Count | None = None
    layers: Count | None = None
    rounds: Count | None = None
    target: Literal["node", "graph", "selection"] | None = None
    pool: Literal["sum", "mean"] = "sum"
    directed: bool | None = None
    features: Literal["ids", "numbers"] | None = None
    normalise: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    decay: Annotated[float, Field(ge=0)] | None = None
    graphs: Count | None = None
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    features_file: str | None = None
    edges_file: str | None = None
    labels_file: str | None = None
    splits_file: str | None = None
