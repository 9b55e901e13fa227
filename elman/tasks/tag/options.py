"""The options of a model that tags sequences."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from elman.tasks.base import TaskOptions

Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class TagOptions(TaskOptions):
    """Options of a model that gives each word or frame a label; None leaves the choice to the data.

    Args:
        text: column of the words, by name or number; the first, or the form of CoNLL-U.
        label: column of the labels, by name or number; the last, or upos of CoNLL-U.
        id: of a table with one row a word or frame, the column that says which sequence it is of.
        features: of a table of frames, the columns of numbers, as "a,b"; all that are left.
        scheme: how spans are written: "bio", "iob1", "bioes", "bilou", "none" where labels are no
            spans, or "auto" to see from the labels.
        inner_scheme: how the network learns spans: "bio" or "bioes"; the latter where 10,000 words
            of the training part are within spans.
        crf: score the labels of a sentence together; where labels are spans, if not given.
        cell: name of the recurrent cell.
        hyper: hyper-parameters of the cell by name.
        hidden: units of a recurrent layer in each direction.
        layers: recurrent layers.
        embedding: size of the word vectors.
        vectors: a text file of pretrained word vectors (GloVe, word2vec, fastText) to begin from.
        one_hot: read one-hot vectors of words instead of learned ones.
        characters: units of the reader of characters in each direction; 0 is none.
        character_embedding: size of the character vectors.
        affixes: size of the vectors of beginnings, endings and shapes of words; 0 is none.
        dropout: sets dropout_input, dropout_between and dropout_output where those are not named.
        dropout_input: dropout on what the recurrent layers read.
        dropout_between: dropout between recurrent layers.
        dropout_output: dropout before the labels are told.
        sentences: sequences of a batch, at most.
        tokens: words or frames of a batch with padding, at most.
        longest: longer sequences are cut into pieces of so many words to be learned from.
        min_count: words seen less often in training have no vector of their own.
        unknown_rate: a word seen n times is read as unknown with probability r / (r + n) in
            training, so that the unknown means something (Kiperwasser & Goldberg 2016).
        valid_fraction: share of the sequences for validation.
        valid_file: a file to validate on instead.
    """

    text: str | None = None
    label: str | None = None
    id: str | None = None
    features: str | None = None
    scheme: Literal["auto", "bio", "iob1", "bioes", "bilou", "none"] = "auto"
    inner_scheme: Literal["bio", "bioes"] | None = None
    crf: bool | None = None
    cell: str | dict[str, Any] | None = None
    hyper: dict[str, Any] = Field(default_factory=dict)
    hidden: Count | None = None
    layers: Count | None = None
    embedding: Count | None = None
    vectors: str | None = None
    one_hot: bool = False
    characters: Size | None = None
    character_embedding: Count | None = None
    affixes: Size | None = None
    dropout: Rate | None = None
    dropout_input: Rate | None = None
    dropout_between: Rate | None = None
    dropout_output: Rate | None = None
    sentences: Count | None = None
    tokens: Count | None = None
    longest: Annotated[int, Field(ge=2)] | None = None
    min_count: Count | None = None
    unknown_rate: Annotated[float, Field(ge=0)] | None = None
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    valid_file: str | None = None
