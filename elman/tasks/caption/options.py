"""The options of a model that writes a text from a class or a vector."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from elman.tasks.base import TaskOptions

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class CaptionOptions(TaskOptions):
    """Options of a model that writes a text from a class or a vector; None is chosen from the data.

    Args:
        text: column of the texts to be written.
        label: column of the classes they are written from.
        past: columns of the numbers they are written from: one column of JSON lists, or columns
            of numbers by names with commas between, "p*" for all that begin so; a label may stand
            beside. Of a .npz file, the array's name.
        level: tokens: "char", "word", or "auto" (words where texts have more than four).
        min_count: tokens seen less often in training become `<unk>`.
        unknown_rate: probability that a token seen once in training is taken for `<unk>`, so that
            `<unk>` means something.
        valid_fraction: share of the rows for validation; equal texts stay together where most
            texts differ, else equal vectors.
        valid_file: a file to validate on instead.
        cell: name of a cell.
        hidden: units of a recurrent layer.
        layers: recurrent layers.
        embedding: size of the token vectors.
        condition: size of the vector that a class or a vector of numbers becomes; it makes the
            initial state and stands beside every token.
        dropout: dropout on token vectors, between layers and before the output layer.
        batch: texts of a batch, at most.
        beam: beginnings kept in the search for the likeliest text.
        length_penalty: exponent by which longer texts are favoured in it; 0 is by probability.
        most: tokens of a written text, at most.
    """

    text: str | None = None
    label: str | None = None
    past: str | None = None
    level: Literal["char", "word", "auto"] = "auto"
    min_count: Count = 1
    unknown_rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    valid_file: str | None = None
    cell: str = "lstm"
    hidden: Count | None = None
    layers: Count | None = None
    embedding: Count | None = None
    condition: Count | None = None
    dropout: Rate | None = None
    batch: Count | None = None
    beam: Count = 5
    length_penalty: Annotated[float, Field(ge=0)] = 0.0
    most: Count | None = None

    @field_validator("valid_file", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return os.fspath(value) if isinstance(value, os.PathLike) else value
