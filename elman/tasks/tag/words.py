"""Words as numbers: their own, those of their characters, beginnings, ends and shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import pad
from elman.data.lexicon import UNKNOWN, Lexicon
from elman.errors import FileError

_DIGIT = re.compile(r"[0-9]")
_LONGEST = 40  # characters of a word that are read; of a longer one, both ends
_MARKS = ("<w>", "</w>")  # begin and end of a word, among the characters
_AFFIX_COUNT = 3  # a beginning or end is known from so many different words on
AFFIXES = ("shape", "prefix 2", "prefix 3", "suffix 1", "suffix 2", "suffix 3", "suffix 4")


def plain(word: str) -> str:
    """The word as the lexicon of words has it: in small letters, digits as 0."""
    return _DIGIT.sub("0", word.lower())


def shape(word: str) -> str:
    """The form of a word: X for capitals, x for other letters, 0 for digits, runs as one.

    Example:
        >>> [shape(word) for word in ("Apple", "iPhone", "B-52", "...", "é", "NASA")]
        ['Xx', 'xXx', 'X-0', '...', 'x', 'XX']
    """
    letters: list[str] = []
    for c in word[:_LONGEST]:
        kind = "X" if c.isupper() else "x" if c.isalpha() else "0" if c.isdigit() else c
        if len(letters) < 1 or letters[-1] != kind or not c.isalnum():
            letters.append(kind)
    found = "".join(letters[:8])
    return "XX" if found == "X" and len(word) > 1 else found


def affixes(word: str) -> list[str]:
    """The entries of AFFIXES of one word."""
    low = plain(word)
    marked = f"<{low}>"
    return [shape(word), marked[:3], marked[:4], low[-1:], marked[-3:], marked[-4:], marked[-5:]]


class Distinct(NamedTuple):
    """What a network reads of the distinct words of a batch.

    Attributes:
        affixes: numbers of beginnings, ends and shapes, (words, 7).
        characters: (words, longest), with marks of begin and end.
        lengths: of the words in characters, (words,).
    """

    affixes: Tensor
    characters: Tensor
    lengths: Tensor


class Vocabulary:
    """The words, characters and affixes that a model knows.

    Args:
        words: in small letters, digits as 0.
        characters: with marks for begin and end of a word.
        affixes: one lexicon for each of AFFIXES.
    """

    def __init__(self, words: Lexicon, characters: Lexicon, affixes: Sequence[Lexicon]):
        self.words, self.characters, self.affixes = words, characters, tuple(affixes)

    @classmethod
    def count(cls, counts: Mapping[str, int], min_count: int) -> Vocabulary:
        """Make the vocabulary of words with their counts."""
        lower: Counter[str] = Counter()
        characters: Counter[str] = Counter()
        ends: list[Counter[str]] = [Counter() for _ in AFFIXES]
        for word, n in counts.items():
            lower[plain(word)] += n
            for c in set(word):
                characters[c] += n
            for counter, affix in zip(ends, affixes(word), strict=True):
                counter[affix] += 1
        return cls(
            _lexicon(lower, min_count),
            _lexicon(characters, min(2, min_count + 1), _MARKS),
            [_lexicon(counter, _AFFIX_COUNT) for counter in ends],
        )

    def numbers(self, words: Iterable[str]) -> np.ndarray:
        """Numbers of words for their vectors, (words,), int64."""
        return self.words.numbers(map(plain, words))

    def spelled(self, word: str) -> np.ndarray:
        """Numbers of a word's characters, between those of begin and end."""
        if len(word) > _LONGEST:
            word = word[: _LONGEST // 2] + word[-_LONGEST // 2 :]
        begin, end = map(self.characters.number_of_mark, _MARKS)
        return np.array([begin, *map(self.characters.number, word), end])

    def ended(self, word: str) -> np.ndarray:
        """Numbers of a word's affixes, (7,)."""
        found = affixes(word)
        return np.array([x.number(a) for x, a in zip(self.affixes, found, strict=True)])

    def distinct(self, words: Sequence[str]) -> Distinct:
        """What a network reads of words."""
        ends = torch.from_numpy(np.stack([self.ended(word) for word in words]))
        return Distinct(ends, *pad([self.spelled(word) for word in words]))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "words": self.words.to_json(),
            "characters": self.characters.to_json(),
            "affixes": [lexicon.to_json() for lexicon in self.affixes],
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> Vocabulary:
        """What `to_json` wrote.

        Raises:
            FileError: it is something else.
        """
        if not isinstance(value, dict) or set(value) != {"words", "characters", "affixes"}:
            raise FileError(f"{where}: its vocabulary is not that of a model that tags words.")
        ends = value["affixes"]
        if not isinstance(ends, list) or len(ends) != len(AFFIXES):
            raise FileError(f"{where}: its vocabulary has no affixes.")
        return cls(
            Lexicon.from_json(value["words"], 0, where),
            Lexicon.from_json(value["characters"], len(_MARKS), where),
            [Lexicon.from_json(entry, 0, where) for entry in ends],
        )


def _lexicon(counts: Mapping[str, int], least: int, marks: Sequence[str] = ()) -> Lexicon:
    kept = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))
    return Lexicon(kept, marks)


class WordTable:
    """All distinct words of a corpus, ready to be read: flat arrays, so that millions fit.

    Args:
        vocabulary: of the model.
        words: distinct.
        counts: how often each stands in the training part.
    """

    def __init__(self, vocabulary: Vocabulary, words: Sequence[str], counts: Sequence[int]):
        self.numbers = vocabulary.numbers(words)
        spelled = [vocabulary.spelled(word).astype(np.int32) for word in words]
        self.ends = np.stack([vocabulary.ended(word) for word in words]).astype(np.int32)
        self.offsets = np.concatenate([[0], np.cumsum([len(s) for s in spelled])])
        self.characters = np.concatenate(spelled)
        lower: Counter[int] = Counter()
        for number, n in zip(self.numbers.tolist(), counts, strict=True):
            lower[number] += n
        self.counts = np.array([lower[number] for number in self.numbers.tolist()])

    def distinct(self, chosen: np.ndarray) -> Distinct:
        """What a network reads of chosen words."""
        spelled = [self.characters[self.offsets[w] : self.offsets[w + 1]] for w in chosen.tolist()]
        return Distinct(torch.from_numpy(self.ends[chosen].astype(np.int64)), *pad(spelled))

    def hidden(self, words: np.ndarray, rate: float, draw: np.random.Generator) -> np.ndarray:
        """Numbers of words, each unknown with probability rate / (rate + count)."""
        lost = draw.random(len(words)) * (rate + self.counts[words]) < rate
        return np.where(lost, UNKNOWN, self.numbers[words])
