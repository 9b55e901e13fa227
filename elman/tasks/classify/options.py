"""Options of a classifier of sequences."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from elman.tasks.base import TaskOptions

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class ClassifyOptions(TaskOptions):
    """Options of a model that tells the class of a sequence; None leaves the choice to the data.

    Args:
        text: column of the text, or several as a,b, joined by a blank.
        label: column of the class; for FILE.npy, the file with the labels.
        id: column that tells which rows are one sequence of numbers, a row a time step.
        features: columns of numbers as a,b; all others that are numbers if not given.
        level: "word", "char", or "auto": characters where texts are single short words, as names,
            and where words are not divided by blanks.
        split: how words are divided: at "blanks", or at "punctuation" too; "auto" looks whether
            punctuation already stands alone.
        case: "lower", "keep", or "auto": small letters, unless naive Bayes on the training texts
            does clearly better with capitals.
        digits: whether digits of words are read as 0, so that numbers of equal length are one word.
        longest: read only so many tokens or time steps of a sequence; all if not given.
        min_count: words seen less often in training are unknown.
        unknown_rate: probability that a word seen once in training is read as unknown, so that
            the unknown means something.
        vectors: a text file of pretrained vectors (GloVe, word2vec, fastText) to begin from.
        one_hot: read one-hot vectors instead of learned ones.
        embedding: size of the token vectors.
        pieces: number of vectors of pieces of words (runs of 3 to 5 characters), which help with
            words that were not seen; 0 is none.
        ngrams: whether log probabilities of naive Bayes on n-grams are added to the network's
            logits, with a learned factor.
        cell: name of a cell, or its JSON.
        hyper: hyper-parameters of the cell by name.
        hidden: units of a state.
        layers: recurrent layers.
        bidirectional: read from both ends.
        pool: what the label is told from: the "last" state, the "mean" or "max" over time, or their
            mean weighted by "attention".
        skip: pool the token vectors too, beside what the recurrent layer makes of them; not with
            "last".
        members: recurrent networks that read the same vectors side by side; the probabilities of
            all members are averaged.
        delay_members: delay networks beside them, whose units look at 2 to 5 steps at a time, and
            of which the largest over time counts.
        dropout: sets the four below where they are not named.
        dropout_words: of whole tokens.
        dropout_input: of the numbers of the token vectors.
        dropout_output: of the numbers of the pooled state, and between layers.
        dropout_recurrent: of the state from step to step.
        smoothing: share of the label's probability that is spread over all classes in training.
        class_weights: "balanced" gives every class the same weight in the loss, "none" every
            example.
        batch: sequences of a batch.
        valid_fraction: share of the sequences for validation, equal texts together.
        valid_file: a file to validate on instead.
    """

    text: str | None = None
    label: str | None = None
    id: str | None = None
    features: str | None = None
    level: Literal["auto", "word", "char"] = "auto"
    split: Literal["auto", "blanks", "punctuation"] = "auto"
    case: Literal["auto", "lower", "keep"] = "auto"
    digits: bool | None = None
    longest: Count | None = None
    min_count: Count | None = None
    unknown_rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    vectors: str | None = None
    one_hot: bool = False
    embedding: Count | None = None
    pieces: Annotated[int, Field(ge=0)] | None = None
    ngrams: bool | None = None
    cell: str | dict[str, Any] | None = None
    hyper: dict[str, Any] = Field(default_factory=dict)
    hidden: Count | None = None
    layers: Count | None = None
    bidirectional: bool | None = None
    pool: Literal["last", "mean", "max", "attention"] | None = None
    skip: bool | None = None
    members: Count | None = None
    delay_members: Annotated[int, Field(ge=0)] | None = None
    dropout: Rate | None = None
    dropout_words: Rate | None = None
    dropout_input: Rate | None = None
    dropout_output: Rate | None = None
    dropout_recurrent: Rate | None = None
    smoothing: Rate | None = None
    class_weights: Literal["none", "balanced"] = "none"
    batch: Count | None = None
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    valid_file: str | None = None
