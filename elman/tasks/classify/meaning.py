"""What the numbers of a classifier stand for: classes, tokens, pieces of words, scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import pad
from elman.data.lexicon import UNKNOWN, Lexicon
from elman.errors import FileError
from elman.tasks.classify.baseline import Counting, centred
from elman.tasks.classify.bayes import Bag, scores
from elman.tasks.classify.features import ngrams
from elman.tasks.classify.network import Inputs
from elman.tasks.classify.options import ClassifyOptions
from elman.tasks.classify.texts import Reading

PIECES = (3, 5)  # characters of a piece of a word, shortest and longest


@dataclass
class Meaning:
    """Turns sequences into a network's input, and classes into names.

    Args:
        classes: names of the classes, in order.
        reading: how texts become tokens; None for sequences of numbers.
        lexicon: the known tokens; None for numbers.
        pieces: number of vectors of pieces of words; 0 is none.
        centre, spread: mean and deviation of each feature on the training part, (features,).
        counting: which n-grams naive Bayes counts, where the network uses it.
        bag: their counts.
        longest: time steps of numbers that are read, at most.
    """

    classes: tuple[str, ...]
    reading: Reading | None = None
    lexicon: Lexicon | None = None
    pieces: int = 0
    centre: np.ndarray | None = None
    spread: np.ndarray | None = None
    counting: Counting | None = None
    bag: Bag | None = None
    longest: int | None = None

    def __post_init__(self) -> None:
        self._pieces: dict[str, np.ndarray] = {}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.classes)}

    def labels(self, names: Sequence[str]) -> np.ndarray:
        """Return the numbers of classes, −1 for one that training had not, (names,) int64."""
        return np.array([self._places.get(name, -1) for name in names], dtype=np.int64)

    def sequence(self, data: Any) -> Any:
        """Return the tokens of a text, or the scaled numbers of a sequence."""
        if self.reading is not None:
            return self.reading.tokens(data)
        return (data[: self.longest] - self.centre) / self.spread

    def inputs(
        self,
        sequences: Sequence[Any],
        hidden: Sequence[np.ndarray] | None = None,
        logs: np.ndarray | None = None,
    ) -> Inputs:
        """Return a batch of what `sequence` returned; a text without tokens is one unknown token.

        Args:
            sequences: tokens, or arrays (time, features).
            hidden: of each sequence, where tokens are read as unknown.
            logs: log probabilities of naive Bayes, (batch, classes); computed if not given.
        """
        none = torch.zeros(0, dtype=torch.int64)
        if self.lexicon is None:
            x, lengths = pad([np.asarray(s, dtype=np.float32) for s in sequences])
            return Inputs(x, lengths, none, none, none, torch.zeros(0))
        sequences = [tokens or [""] for tokens in sequences]
        numbers = [self.lexicon.numbers(tokens) for tokens in sequences]
        for row, unknown in enumerate(hidden or ()):
            numbers[row][unknown] = UNKNOWN
        x, lengths = pad(numbers)
        words, pieces, begins = self._cut(sequences) if self.pieces else (none, none, none)
        told = torch.zeros(0)
        if self.bag is not None:
            told = torch.from_numpy(self.logs(sequences) if logs is None else logs)
        return Inputs(x, lengths, words, pieces, begins, told)

    def logs(self, sequences: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the log probabilities of naive Bayes, centred, (texts, classes) float32."""
        if self.counting is None or self.bag is None:
            return np.zeros((len(sequences), len(self.classes)), np.float32)
        found = self.bag.find([self.counting.features(tokens) for tokens in sequences])
        return centred(scores(self.bag, found, self.counting.smoothing))

    def _cut(self, sequences: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor, Tensor]:
        """The distinct words of a batch, once each, and their pieces."""
        places: dict[str, int] = {}
        words = [np.array([places.setdefault(w, len(places)) for w in s]) for s in sequences]
        pieces = [self._pieces_of(word) for word in places]
        begins = np.cumsum([0, *map(len, pieces[:-1])])
        return pad(words)[0], torch.from_numpy(np.concatenate(pieces)), torch.from_numpy(begins)

    def _pieces_of(self, word: str) -> np.ndarray:
        found = self._pieces.get(word)
        if found is None:
            found = piece_numbers(word, self.pieces)
            if len(self._pieces) < 1 << 18:
                self._pieces[word] = found
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the counts of naive Bayes are tensors of the network."""
        value: dict[str, Any] = {"classes": list(self.classes)}
        if self.reading is not None and self.lexicon is not None:
            value["reading"] = dict(vars(self.reading))
            value["vocabulary"] = self.lexicon.to_json()
        if self.centre is not None and self.spread is not None:
            value["centre"], value["spread"] = self.centre.tolist(), self.spread.tolist()
        if self.counting is not None:
            value["counting"] = dict(vars(self.counting))
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any], options: ClassifyOptions, where: str) -> Meaning:
        """Return what `to_json` wrote.

        Raises:
            FileError: something is missing or of the wrong type.
        """
        classes = value.get("classes") or []
        if not _texts(classes) or len(set(classes)) != len(classes) or not classes:
            raise FileError(f"{where}: its classes are no list of distinct names.")
        meaning = cls(tuple(classes), pieces=options.pieces or 0, longest=options.longest)
        if "reading" in value:
            meaning.reading = _reading(value["reading"], where)
            meaning.lexicon = Lexicon.from_json(value.get("vocabulary"), where=where)
        else:
            meaning.centre, meaning.spread = (
                _row(value.get(n), where) for n in ("centre", "spread")
            )
            if len(meaning.centre) != len(meaning.spread) or not (meaning.spread > 0).all():
                raise FileError(f"{where}: its scaling is damaged.")
        if "counting" in value:
            meaning.counting = _counting(value["counting"], where)
        return meaning


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _row(value: Any, where: str) -> np.ndarray:
    good = isinstance(value, list) and value and all(isinstance(v, float | int) for v in value)
    if not good:
        raise FileError(f"{where}: its scaling is no list of numbers.")
    return np.array(value, dtype=np.float32)


def _reading(value: Any, where: str) -> Reading:
    fields = {"level", "split", "lower", "digits", "longest"}
    good = (
        isinstance(value, Mapping)
        and set(value) == fields
        and value["level"] in ("word", "char")
        and value["split"] in ("blanks", "punctuation")
        and isinstance(value["lower"], bool)
        and isinstance(value["digits"], bool)
        and (
            value["longest"] is None or (isinstance(value["longest"], int) and value["longest"] > 0)
        )
    )
    if not good:
        raise FileError(f"{where}: it does not say how texts are read.")
    return Reading(**value)


def _counting(value: Any, where: str) -> Counting:
    good = (
        isinstance(value, Mapping)
        and set(value) == {"order", "level", "smoothing"}
        and isinstance(value["order"], int)
        and 1 <= value["order"] <= 100
        and value["level"] in ("word", "char")
        and isinstance(value["smoothing"], float)
        and value["smoothing"] > 0
    )
    if not good:
        raise FileError(f"{where}: it does not say which n-grams are counted.")
    return Counting(**value)


def piece_numbers(word: str, count: int) -> np.ndarray:
    """Return the numbers, below `count`, of the pieces of a word: runs of 3 to 5 characters.

    The word's ends count as characters. Different pieces may share a number.

    Example:
        >>> a, b = set(piece_numbers("reading", 10_000)), set(piece_numbers("reader", 10_000))
        >>> len(a & b)
        6
    """
    shortest, longest = PIECES
    characters = ["<", *word, ">"]
    every = ngrams(characters, longest)
    # n-grams come by length: those of one and two characters stand first
    short = sum(max(len(characters) - n + 1, 0) for n in range(1, shortest))
    found = every[short:] if len(every) > short else every[-1:]
    return np.unique(found % np.uint64(count)).astype(np.int64)
