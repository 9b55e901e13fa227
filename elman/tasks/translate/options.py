"""The options of a model that translates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from elman.tasks.base import TaskOptions

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Level = Literal["auto", "char", "word", "bpe"]


class TranslateOptions(TaskOptions):
    """Options of a model that translates; None leaves the choice to the data and the time.

    Args:
        text: column of the source, by name or number; the first if no name tells.
        target: column of the translation; the second if no name tells.
        level: units of both sides: "char", "word", "bpe" (parts of words, learned from the text) or
            "auto", which looks at the data.
        source_level, target_level: the same for one side.
        source_units, target_units: how many different units a side may have, for words and bpe.
        min_count: units seen less often in training are unknown.
        cell: of encoder and decoder: "lstm", "gru", "rnn", or another by name.
        attention: "multiplicative", "additive" or "none".
        hidden: units of the decoder's state; each direction of the encoder has half of them.
        embedding: size of the token vectors.
        layers: of encoder and of decoder.
        dropout: on token vectors, between layers, and before the output.
        smoothing: part of the target's probability that is spread over all units while learning.
        tied: whether the decoder's output weights are its token vectors.
        feed_back: probability that the decoder, while learning, is given its own last output in
            place of the right one; it then goes step by step, which is slower.
        pairs: of a batch, at most.
        tokens: of a batch's longer side, at most.
        longest: pairs with more units than this on a side are not learned from.
        beam: beginnings that the search keeps; 1 is greedy.
        length_penalty: alpha of ((5 + length) / 6)^alpha, which the search divides ln p by.
        valid_fraction: share of the pairs for validation; equal sources stay together.
        valid_file: a table to validate on instead.
    """

    text: str | None = None
    target: str | None = None
    level: Level = "auto"
    source_level: Level | None = None
    target_level: Level | None = None
    source_units: Count | None = None
    target_units: Count | None = None
    min_count: Count | None = None
    cell: str | None = None
    attention: Literal["multiplicative", "additive", "none"] = "multiplicative"
    hidden: Annotated[int, Field(ge=2)] | None = None
    embedding: Count | None = None
    layers: Count | None = None
    dropout: Rate | None = None
    smoothing: Rate | None = None
    tied: bool | None = None
    feed_back: Annotated[float, Field(ge=0, le=1)] = 0.0
    pairs: Count | None = None
    tokens: Count | None = None
    longest: Count | None = None
    beam: Count = 5
    length_penalty: Annotated[float, Field(ge=0)] = 1.0
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    valid_file: str | None = None
