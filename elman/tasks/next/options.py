"""The options of a model of the next item."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from elman.tasks.base import TaskOptions

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class NextOptions(TaskOptions):
    """Options of a model that tells the next item of a session; None leaves the choice to the data.

    Args:
        layout: "rows" (a table with one event a row: session, item, perhaps time), "cells" (a table
            with all items of a session in one cell), "lines" (a text with one session a line), or
            "auto", which looks at the file.
        id: column of a table that says which session a row belongs to.
        text: column of the items.
        target: the same column by its other name; give one of the two.
        time: column by which the rows of a session are ordered, numbers or dates; if there is none
            the order of the file holds.
        separator: what stands between the items of a line or cell: "blank", "comma", or "auto".
        min_count: items seen less often in training become `<unk>`.
        unknown_rate: probability that an item seen once in training is read as `<unk>`, so that
            `<unk>` means something.
        valid_fraction: share of the sessions for validation, chosen by their keys.
        valid_file: a file to validate on instead.
        cell: name of a cell, or its JSON.
        hyper: hyper-parameters of the cell by name.
        hidden: units of a recurrent layer.
        layers: recurrent layers.
        embedding: size of the item vectors, which are also the weights of the output layer.
        dropout: sets dropout_input and dropout_output where those are not named.
        dropout_input: dropout on the item vectors.
        dropout_output: dropout on the state before the output layer.
        batch: sessions of a batch, at most.
        window: items of a piece into which longer sessions are cut in training; in validation and
            prediction every session is read whole.
    """

    layout: Literal["auto", "rows", "cells", "lines"] = "auto"
    id: str | None = None
    text: str | None = None
    target: str | None = None
    time: str | None = None
    separator: Literal["auto", "blank", "comma"] = "auto"
    min_count: Count = 1
    unknown_rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    valid_file: str | None = None
    cell: str | dict[str, Any] = "gru"
    hyper: dict[str, Any] = Field(default_factory=dict)
    hidden: Count | None = None
    layers: Count | None = None
    embedding: Count | None = None
    dropout: Rate | None = None
    dropout_input: Rate | None = None
    dropout_output: Rate | None = None
    batch: Count | None = None
    window: Annotated[int, Field(ge=2)] | None = None

    @field_validator("valid_file", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value
