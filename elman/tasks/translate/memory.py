"""The baseline: a translation memory, which answers with the target of the likest source."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.errors import FileError

NAME = "translation memory"
MOST_PAIRS = 300_000  # kept of many; of fewer, all
_COMMON = 20_000  # a feature of more sources than this is too common to look up
_MOST_BYTES = 1 << 30


class TranslationMemory:
    r"""Finds the likest source of training by words and pairs of words, and gives its target.

    Likeness is the cosine of vectors of features f (words and pairs of neighbouring words;
    characters where texts have no blanks), weighed by idf(f) = ln(n / n_f).

    Args:
        source: of training.
        target: their translations.

    Example:
        >>> memory = TranslationMemory(["a red pear", "a plum"], ["une poire rouge", "une prune"])
        >>> memory.answer(["the red pear"])
        ['une poire rouge']
    """

    def __init__(self, source: Sequence[str], target: Sequence[str]):
        self.source, self.target = list(source), list(target)
        spaced = sum(" " in text.strip() for text in self.source[:1000])
        self._blanks = 2 * spaced > min(1000, len(self.source))
        self._index()

    def _index(self) -> None:
        """For each feature the sources that have it, and the length of each source's vector."""
        numbers: dict[str, int] = {}
        features: list[int] = []
        owners: list[int] = []
        for row, text in enumerate(self.source):
            own = self._features(text)
            features.extend(numbers.setdefault(f, len(numbers)) for f in own)
            owners.extend([row] * len(own))
        column, row = np.array(features, np.int64), np.array(owners, np.int64)
        counts = np.bincount(column, minlength=len(numbers))
        self._numbers, self._idf = numbers, np.log(len(self.source) / np.maximum(counts, 1)) + 1e-6
        self._rows = row[np.argsort(column, kind="stable")].astype(np.int32)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        squares = np.bincount(row, weights=self._idf[column] ** 2, minlength=len(self.source))
        self._norms = np.sqrt(np.maximum(squares, 1e-12))

    def _features(self, text: str) -> set[str]:
        units: Sequence[str] = text.lower().split() if self._blanks else text.strip()
        pairs = (f"{a} {b}" for a, b in pairwise(units))
        return {*units, *pairs}

    def nearest(self, text: str) -> int:
        """Return the number of the likest source, the first of several."""
        known = [self._numbers[f] for f in self._features(text) if f in self._numbers]
        known.sort(key=lambda f: self._starts[f + 1] - self._starts[f])
        scores = np.zeros(len(self.source))
        for at, feature in enumerate(known):
            rows = self._rows[self._starts[feature] : self._starts[feature + 1]]
            if at and len(rows) > _COMMON:
                break
            scores[rows] += self._idf[feature] ** 2
        return int(np.argmax(scores / self._norms))

    def answer(self, sources: Iterable[str]) -> list[str]:
        """Return a translation of each source."""
        return [self.target[self.nearest(text)] for text in sources]

    def kept(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what `of_kept` builds it from again."""
        text = "\n".join(_flat(t) for pair in zip(self.source, self.target, strict=True)
                         for t in pair)  # fmt: skip
        data = np.frombuffer(zlib.compress(text.encode(), 6), dtype=np.uint8).copy()
        return {"name": NAME, "pairs": len(self.source)}, {"text": torch.from_numpy(data)}

    @classmethod
    def of_kept(
        cls, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
    ) -> TranslationMemory:
        """Build the memory that was kept.

        Raises:
            FileError: it is damaged.
        """
        if set(tensors) != {"text"} or tensors["text"].dtype is not torch.uint8:
            raise FileError(f"{where}: it does not hold the texts of a translation memory.")
        unpack = zlib.decompressobj()
        try:
            data = unpack.decompress(tensors["text"].numpy().tobytes(), _MOST_BYTES)
            lines = data.decode().split("\n")
        except (zlib.error, UnicodeDecodeError) as error:
            raise FileError(f"{where}: damaged: {error}.") from None
        if not unpack.eof or len(lines) != 2 * metadata.get("pairs", -1):
            raise FileError(f"{where}: damaged: it does not hold as many pairs as it says.")
        return cls(lines[::2], lines[1::2])


def _flat(text: str) -> str:
    return text.replace("\n", " ")
