"""Pairs as numbers: units of both sides, and the parts for training and validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from torch import Tensor

from elman.data.batches import pad
from elman.data.parts import held_out
from elman.data.tokens import TokenArray
from elman.errors import InputError
from elman.tasks.translate.defaults import level_of, units_of
from elman.tasks.translate.options import TranslateOptions
from elman.tasks.translate.pairs import Pairs, read_pairs
from elman.tasks.translate.units import END, START, Units, tidy

_LOOKED_AT = 20_000  # texts of a side that tell its level
_VALIDATED = 2000  # pairs held out of many
_LONGEST = 400  # units of a side that is learned from


class Side:
    """Texts of one side as numbers of units, in memory or mapped."""

    def __init__(self, sequences: Iterable[np.ndarray]):
        array, lengths = TokenArray(), TokenArray()
        for sequence in sequences:
            array.append(sequence)
            lengths.append(np.array([len(sequence)]))
        self.numbers = array.finish()
        self.lengths = lengths.finish().astype(np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])

    def __getitem__(self, row: int) -> np.ndarray:
        return self.numbers[self.starts[row] : self.starts[row + 1]]


@dataclass(frozen=True)
class Part:
    """Some pairs, as texts and as numbers.

    Attributes:
        pairs: as read.
        source, target: as numbers.
        rows: of them, those of this part.
    """

    pairs: Pairs
    source: Side
    target: Side
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def lengths(self) -> np.ndarray:
        """Return the units of the longer side of each pair, with the end."""
        longer = np.maximum(self.source.lengths[self.rows], self.target.lengths[self.rows])
        return longer + 1

    def texts(self, chosen: Sequence[int] | np.ndarray) -> tuple[list[str], list[str]]:
        """Return sources and targets of some pairs."""
        rows = self.rows[chosen].tolist()
        target = self.pairs.target or ()
        return [self.pairs.source[r] for r in rows], [target[r] for r in rows]

    def batch(self, chosen: Sequence[int] | np.ndarray) -> tuple[Tensor, ...]:
        """Return source, its lengths, the decoder's inputs, targets, and their lengths."""
        rows = self.rows[chosen].tolist()
        source, lengths = sources([self.source[r] for r in rows])
        goals = [self.target[r].astype(np.int64) for r in rows]
        inputs, steps = pad([np.concatenate([[START], goal]) for goal in goals])
        targets, _ = pad([np.concatenate([goal, [END]]) for goal in goals])
        return source, lengths, inputs, targets, steps


def sources(numbers: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return sources as the encoder reads them, padded, each with its end; and their lengths."""
    return pad([np.concatenate([n.astype(np.int64), [END]]) for n in numbers])


@dataclass(frozen=True)
class Corpus:
    """Pairs to learn from and to be judged on, and what their numbers mean.

    Attributes:
        units: of source and target.
        train, valid: the parts.
        notes: what was left out, for people.
        fingerprint: hex digest of the data.
    """

    units: tuple[Units, Units]
    train: Part
    valid: Part
    notes: tuple[str, ...]
    fingerprint: str


def read_corpus(files: Any, options: TranslateOptions) -> tuple[Corpus, TranslateOptions]:
    """Read pairs, choose and learn the units, and divide.

    Returns:
        the corpus, and the options with what was chosen of them here.

    Raises:
        FileError, InputError: what `read_pairs` refuses; no pair, or none to validate on.
    """
    pairs = read_pairs(files, options.text, options.target)
    notes: list[str] = []
    full = _full(pairs, notes)
    if not len(full):
        raise InputError(f"{pairs.words}: no pair has both sides.")
    digest, judged = pairs.fingerprint, pairs
    if options.valid_file is not None:
        judged = read_pairs(options.valid_file, *(pairs.columns or (None, None)))
        train, held = full, _full(judged, notes)
        digest += judged.fingerprint
        if not len(held):
            raise InputError(f"{options.valid_file}: no pair in it has both sides.")
    else:
        fraction = options.valid_fraction or min(0.1, max(0.001, _VALIDATED / len(full)))
        hidden = held_out((pairs.source[r] for r in full.tolist()), fraction)
        train, held = full[~hidden], full[hidden]
        options = options.model_copy(update={"valid_fraction": fraction})
    if pairs.columns is not None:
        named = dict(zip(("text", "target"), pairs.columns, strict=True))
        options = options.model_copy(update=named)
    options, units = _units(pairs, train, options)
    sides = _sides(units, pairs)
    train = _short(sides, train, options.longest or _LONGEST, notes)
    options = options.model_copy(update={"longest": options.longest or _LONGEST})
    theirs = sides if judged is pairs else _sides(units, judged)
    learned, kept = Part(pairs, *sides, train), Part(judged, *theirs, held)
    return Corpus(units, learned, kept, tuple(notes), digest), options


def _full(pairs: Pairs, notes: list[str]) -> np.ndarray:
    """The rows that have both sides."""
    sides = zip(pairs.source, pairs.target or (), strict=True)
    there = np.fromiter((bool(tidy(a)) and bool(tidy(b)) for a, b in sides), dtype=bool)
    empty = np.flatnonzero(~there)
    if len(empty):
        were = "pair with an empty side is" if len(empty) == 1 else "pairs with an empty side are"
        first = pairs.place(int(empty[0]))
        notes.append(f"{len(empty):,} {were} left out, the first in {first}")
    return np.flatnonzero(there)


def _short(
    sides: tuple[Side, Side], rows: np.ndarray, longest: int, notes: list[str]
) -> np.ndarray:
    """The rows of at most so many units on each side."""
    longer = np.maximum(sides[0].lengths[rows], sides[1].lengths[rows])
    short = rows[longer <= longest]
    if not len(short):
        raise InputError(
            f"train translate: every pair has more than {longest} units on a side; set longest."
        )
    if left := len(rows) - len(short):
        notes.append(
            f"{left:,} pairs of more than {longest} units (longest) on a side are not learned "
            f"from; the longest has {int(longer.max()):,}"
        )
    return short


def _sides(units: tuple[Units, Units], pairs: Pairs) -> tuple[Side, Side]:
    return Side(units[0].numbers(pairs.source)), Side(units[1].numbers(pairs.target or ()))


def _units(
    pairs: Pairs, train: np.ndarray, options: TranslateOptions
) -> tuple[TranslateOptions, tuple[Units, Units]]:
    """Choose level and number of the units of both sides, and learn them from the training part."""
    found, chosen = [], {}
    whole = len(train) == len(pairs.source)
    for name, texts in (("source", pairs.source), ("target", pairs.target or ())):
        own = texts if whole else _Chosen(texts, train)
        level = getattr(options, f"{name}_level") or options.level
        split = "punctuation"
        if level in ("auto", "word"):
            told, split = level_of(own[:_LOOKED_AT])
            level = told if level == "auto" else level
        size = getattr(options, f"{name}_units") or units_of(level, len(train))
        least = options.min_count or (2 if len(train) > 1000 else 1)
        units = Units.learn(own, level, split=split, size=size, min_count=least)
        found.append(units)
        chosen |= {f"{name}_level": level, f"{name}_units": size, "min_count": least}
    return options.model_copy(update=chosen), (found[0], found[1])


class _Chosen(Sequence[str]):
    """Some of the texts of a sequence, read as they are asked for."""

    def __init__(self, texts: Sequence[str], rows: np.ndarray):
        self._texts, self._rows = texts, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return _Chosen(self._texts, self._rows[index])
        return self._texts[int(self._rows[index])]
