"""The options of a model of trees."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from elman.tasks.base import TaskOptions

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class TreeOptions(TaskOptions):
    """Options of a model that labels the nodes of trees; None leaves the choice to the data.

    Args:
        cell: name of a cell of trees, or its JSON; N-ary Tree-LSTM where no node has more than
            two children, else the child-sum one.
        hyper: hyper-parameters of the cell by name.
        hidden: units of a node's state.
        embedding: size of the word vectors.
        direction: "up", "down" or "both".
        labels: "all", or "binary" for labels 0 to 4: two classes, below and above 2, where 2 is
            no class (trees with a root of 2 are left out).
        nodes: whether "all" labelled nodes are learned, or the "root" alone.
        dropout: sets dropout_input and dropout_output where those are not named.
        dropout_input: dropout on the word vectors.
        dropout_output: dropout on a node's state before its label is told.
        trees: trees of a batch.
        min_count: words seen less often in training become `<unk>`.
        unknown_rate: probability that a word seen once in training is read as `<unk>`, so that
            `<unk>` means something.
        valid_fraction: share of the trees, the last ones, for validation.
        valid_file: a file to validate on instead.
    """

    cell: str | dict[str, Any] | None = None
    hyper: dict[str, Any] = Field(default_factory=dict)
    hidden: Count | None = None
    embedding: Count | None = None
    direction: Literal["up", "down", "both"] = "up"
    labels: Literal["all", "binary"] = "all"
    nodes: Literal["all", "root"] = "all"
    dropout: Rate | None = None
    dropout_input: Rate | None = None
    dropout_output: Rate | None = None
    trees: Count | None = None
    min_count: Count | None = None
    unknown_rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    valid_file: str | None = None
