"""Captions as numbers: tokens, classes, vectors, and the parts for training and validation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from elman.data.lexicon import UNKNOWN, Lexicon
from elman.data.parts import held_out
from elman.errors import FileError, InputError, nearest
from elman.tasks.caption.baseline import Texts
from elman.tasks.caption.options import CaptionOptions
from elman.tasks.caption.rows import Rows, read_rows

END = "</s>"
_WORDS = 4.0  # texts with more words than this are read as words
_MOST_CLASSES = 10_000
_FEW_TEXTS = 1.5  # a class has one right text if its classes have fewer on average


class Meaning(NamedTuple):
    """What the numbers of a model of captions stand for.

    Attributes:
        lexicon: tokens; its one mark is the end of a text.
        classes: in order of their numbers; empty where texts are written from vectors alone.
        features: numbers of a vector, 0 for none.
        level: "char" or "word".
        single: whether there is one right text for each condition.
    """

    lexicon: Lexicon
    classes: tuple[str, ...]
    features: int
    level: str
    single: bool

    @property
    def end(self) -> int:
        """The number of the end of a text."""
        return self.lexicon.number_of_mark(END)

    def tokens(self, text: str) -> Sequence[str]:
        """Cut a text into tokens."""
        return text if self.level == "char" else text.split()

    def text(self, numbers: Sequence[int]) -> str:
        """Put tokens together."""
        between = "" if self.level == "char" else " "
        return between.join(self.lexicon.token(number) for number in numbers)

    def characters(self, texts: Sequence[str]) -> np.ndarray:
        """Return the characters of each text, its end counted as one, (texts,)."""
        return np.array([len(text) + 1 for text in texts])

    def texts(self, rows: Rows, where: str = "") -> Texts:
        """Return rows as numbers.

        Raises:
            FileError: a class that training had not, or vectors of another length; the line is
                named.
        """
        tokens = [self.lexicon.numbers(self.tokens(text)) for text in rows.texts or ()]
        return Texts(tokens, self.labels(rows), self.vectors(rows))

    def labels(self, rows: Rows) -> np.ndarray | None:
        """Return the numbers of the classes."""
        if not self.classes:
            return None
        known = {label: i for i, label in enumerate(self.classes)}
        for row, label in enumerate(rows.labels or ()):
            if label not in known:
                raise FileError(
                    f"{rows.places(row)}: the class {label[:40]!r} is not among those of training, "
                    f"{', '.join(self.classes[:20])}.{nearest(label, self.classes)}"
                )
        return np.array([known[label] for label in rows.labels or ()], np.int64)

    def vectors(self, rows: Rows) -> np.ndarray | None:
        """Return the vectors."""
        if not self.features:
            return None
        found = rows.vectors
        if found is None or found.shape[1] != self.features:
            has = 0 if found is None else found.shape[1]
            raise FileError(
                f"{rows.places(0)}: {has} numbers a row; the model writes from {self.features}."
            )
        return found


@dataclass(frozen=True)
class Corpus:
    """Captions to learn from and to be judged on.

    Attributes:
        meaning: of the numbers.
        train, valid: the parts, vectors not yet scaled.
        characters: of each text of the validation part.
        right: its texts.
        once: by number, whether a token was seen once in training.
        said: in words, what was read and how it was divided.
        fingerprint: digest of the data.
    """

    meaning: Meaning
    train: Texts
    valid: Texts
    characters: np.ndarray
    right: list[str]
    once: np.ndarray
    said: list[str]
    fingerprint: str


def read_corpus(files: Sequence[Any], options: CaptionOptions) -> tuple[Corpus, CaptionOptions]:
    """Read captions, divide them, and settle the options of the data.

    Raises:
        InputError: too few rows, one text only, or what `read_rows` says.
        FileError: what `read_rows` says; a class of the validation file that training lacks.
    """
    rows = read_rows(files, options)
    texts = rows.texts or []
    told = {"text": rows.columns.text, "label": rows.columns.label,
            "past": ",".join(rows.columns.past) or None}  # fmt: skip
    options = options.model_copy(update=told)
    digest = _digest(rows)
    if options.valid_file is None:
        keys, by = _keys(rows, texts)
        held = held_out(keys, options.valid_fraction)
        train, valid = np.flatnonzero(~held), np.flatnonzero(held)
        how = f"{options.valid_fraction:.0%}, {by}"
        other = rows
    else:
        train, other = np.arange(len(texts)), read_rows([options.valid_file], options)
        valid = np.arange(len(other))
        digest.update(_digest(other).digest())
        how = options.valid_file
    meaning = _meaning(rows, train, options)
    learned = meaning.texts(_some(rows, train))
    if len({text.tobytes() for text in learned.tokens}) < 2:
        raise InputError(
            f"caption: {len(learned.tokens)} text(s) in the training part, all alike; there is "
            "nothing to tell apart."
        )
    judged = _some(other, valid)
    counts = np.bincount(np.concatenate(learned.tokens), minlength=len(meaning.lexicon))
    once = counts == 1
    once[: UNKNOWN + 2] = False
    right = judged.texts or []
    corpus = Corpus(
        meaning,
        learned,
        meaning.texts(judged),
        meaning.characters(right),
        right,
        once,
        _said(rows, meaning, (len(train), len(valid)), how),
        digest.hexdigest(),
    )
    return corpus, options.model_copy(update={"level": meaning.level})


def _said(rows: Rows, meaning: Meaning, parts: tuple[int, int], how: str) -> list[str]:
    """Say what was read, and how it was divided."""
    kinds = [f"{len(meaning.classes)} classes"] if meaning.classes else []
    kinds += [f"vectors of {meaning.features} numbers"] if meaning.features else []
    columns = [rows.columns.label] if rows.columns.label else []
    columns += _short(rows)
    return [
        f"captions: {rows.said}; text {rows.columns.text!r} from "
        f"{' and '.join(map(repr, columns))}",
        f"captions: {parts[0]:,} to train on, {parts[1]:,} to validate on ({how}); "
        f"{' and '.join(kinds)}; {len(meaning.lexicon) - 3:,} distinct {meaning.level}s",
    ]


def _short(rows: Rows) -> list[str]:
    past = list(rows.columns.past)
    return past if len(past) < 4 else [past[0], "…", past[-1]]


def _some(rows: Rows, chosen: np.ndarray) -> Rows:
    return Rows(
        None if rows.texts is None else [rows.texts[i] for i in chosen],
        None if rows.labels is None else [rows.labels[i] for i in chosen],
        None if rows.vectors is None else rows.vectors[chosen],
        rows.columns,
        rows.said,
        lambda row: rows.places(int(chosen[row])),
    )


def _keys(rows: Rows, texts: Sequence[str]) -> tuple[list[str | bytes], str]:
    """What rows are divided by: their texts where most differ, else what they are written from."""
    if 2 * len(set(texts)) > len(texts):
        return list(texts), "equal texts together"
    if rows.vectors is not None:
        return [vector.tobytes() for vector in rows.vectors], "equal vectors together"
    return [str(row) for row in range(len(texts))], "chosen by row, as texts come again and again"


def _meaning(rows: Rows, train: np.ndarray, options: CaptionOptions) -> Meaning:
    texts = [(rows.texts or [])[i] for i in train]
    words = np.mean([len(text.split()) for text in texts]) if texts else 0
    level = options.level
    level = ("word" if words > _WORDS else "char") if level == "auto" else level
    cut = (text if level == "char" else text.split() for text in texts)
    lexicon = Lexicon.count(cut, min_count=options.min_count, specials=[END])
    classes: tuple[str, ...] = ()
    single = False
    if rows.labels is not None:
        labels = [rows.labels[i] for i in train]
        classes = tuple(sorted(set(labels)))
        if len(classes) > _MOST_CLASSES:
            raise InputError(
                f"caption: {len(classes):,} classes; at most {_MOST_CLASSES:,}. Is "
                f"{rows.columns.label!r} the column of the classes (--label)?"
            )
        different = Counter(label for label, _ in {*zip(labels, texts, strict=True)})
        single = float(np.mean(list(different.values()))) < _FEW_TEXTS
    features = 0 if rows.vectors is None else rows.vectors.shape[1]
    return Meaning(lexicon, classes, features, level, single or bool(features))


def _digest(rows: Rows) -> Any:
    digest = hashlib.sha256()
    for texts in (rows.texts, rows.labels):
        digest.update("\0".join(texts or ()).encode() + b"\1")
    if rows.vectors is not None:
        digest.update(rows.vectors.tobytes())
    return digest
