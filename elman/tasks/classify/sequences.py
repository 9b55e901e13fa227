"""Sequences as networks read them: tokens of texts, scaled numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from elman.tasks.classify.baseline import accuracy_alone, spread
from elman.tasks.classify.options import ClassifyOptions
from elman.tasks.classify.texts import LOOKED_AT, Reading, choose

_KEPT_TOKENS = 5_000_000  # of all texts; beyond that they are divided when they are asked for
_CLEARLY = 0.01  # by how much capitals of words must help naive Bayes to be kept
_COMPARED = 20_000  # texts by which ways of reading are compared


class Lazy(Sequence[Any]):
    """Sequences that are made anew whenever they are asked for."""

    def __init__(self, data: Sequence[Any], make: Callable[[Any], Any]):
        self._data, self._make = data, make

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self._make(entry) for entry in self._data[at]]
        return self._make(self._data[at])


def read_as(data: Sequence[Any], make: Callable[[Any], Any]) -> tuple[Sequence[Any], np.ndarray]:
    """Return sequences and their lengths, at least 1; they are kept where they fit into memory.

    Args:
        data: texts or arrays.
        make: of one of them the sequence that a network reads.
    """
    kept: list[Any] | None = []
    lengths = np.empty(len(data), dtype=np.int64)
    total = 0
    known: dict[str, str] = {}  # one object a token
    for i, entry in enumerate(data):
        found = make(entry)
        if kept is not None and isinstance(found, list):
            found = [known.setdefault(token, token) for token in found]
        lengths[i] = max(len(found), 1)
        total += len(found)
        if kept is not None:
            kept.append(found)
        if total > _KEPT_TOKENS:
            kept = None
            known.clear()
    return (Lazy(data, make) if kept is None else kept), lengths


def reading_of(
    options: ClassifyOptions, texts: Sequence[str], labels: np.ndarray, classes: int
) -> tuple[Reading, str]:
    """Choose how texts are read, and say why.

    Where the case is open, both ways are tried: naive Bayes tells each of up to 20,000 training
    texts by the counts of all others, and capitals are kept if that tells more of them
    right; of words a hundredth more, as capitals divide their counts.
    """
    rows = spread(len(texts), len(texts), LOOKED_AT)
    reading = choose(options, [texts[i] for i in rows.tolist()])
    why = ""
    if options.case == "auto":
        rows = spread(len(texts), len(texts), _COMPARED)
        some, of_some = [texts[i] for i in rows.tolist()], labels[rows]
        ways = [replace(reading, lower=lower) for lower in (True, False)]
        shares = [
            accuracy_alone([way.tokens(text) for text in some], of_some, classes, way.level)
            for way in ways
        ]
        needed = _CLEARLY if reading.level == "word" else 0.0
        reading = ways[int(shares[1] > shares[0] + needed)]
        why = (
            f" (naive Bayes on each text by all others: {shares[0]:.1%} in small letters, "
            f"{shares[1]:.1%} kept)"
        )
    return reading, why


def scaled(data: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of each feature over all steps; 1 where a feature is constant."""
    count = sum(len(sequence) for sequence in data)
    centre = np.sum([s.sum(0, dtype=np.float64) for s in data], axis=0) / count
    spread = np.sqrt(np.sum([np.square(s - centre).sum(0) for s in data], axis=0) / count)
    return centre.astype(np.float32), np.where(spread > 0, spread, 1.0).astype(np.float32)
