"""A corpus: token ids, split into training and validation, and the vocabulary of the first part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from elman.data.reading import read_chunks
from elman.data.tokens import Tokeniser, detect_level
from elman.data.vocabulary import END, UNKNOWN, Level, Vocabulary
from elman.errors import InputError

LARGE_ALPHABET = 512  # beyond this, characters seen once become <unk>
MOST_WORDS = 30_000
_BLOCK = 1 << 17  # ids at a time: what is made of them stays in the processor's cache


@dataclass(frozen=True)
class Corpus:
    """Training and validation ids under one vocabulary.

    Attributes:
        train, valid: ids, (tokens,), in the order of the text.
        vocabulary: the tokens of the training part.
        valid_chars: characters of the validation text (as words: joined by single spaces).
        min_count: tokens seen less often in training are `<unk>`.
        train_unknown, valid_unknown: how many tokens are `<unk>` in each part.
        follows: whether the validation part directly follows the training part in the text.
        fingerprint: hex digest of ids and vocabulary.
    """

    train: np.ndarray
    valid: np.ndarray
    vocabulary: Vocabulary
    valid_chars: int
    min_count: int
    train_unknown: int
    valid_unknown: int
    follows: bool
    fingerprint: str


def read_corpus(
    files: Sequence[str | Path],
    *,
    level: Literal["char", "word", "auto"] = "auto",
    valid_file: str | Path | None = None,
    valid_fraction: float = 0.1,
    min_count: int | None = None,
) -> Corpus:
    """Read files, split them, and build the vocabulary from the training part alone.

    Args:
        files: text files, joined in order; "-" is standard input.
        level: tokens are characters or words; "auto" is characters, unless rare words are already
            marked as `<unk>` in the text.
        valid_file: a file to validate on; None takes the end of the text instead.
        valid_fraction: share of the tokens, from the end, for validation, in (0, 1).
        min_count: tokens seen less often in training become `<unk>`. None chooses: 1 for
            characters (2 where there are more than 512); for words 2, or as much more as brings
            the vocabulary to 30,000.

    Returns:
        the corpus. `<unk>` is in its vocabulary only if a token of the text was mapped to it.

    Raises:
        FileError: a file cannot be read as text.
        InputError: no file named, standard input named twice, a split with nothing on one side.
    """
    _check(files, valid_file, valid_fraction, min_count)
    text = chain.from_iterable(read_chunks(file) for file in files)
    first = next(text)
    level = detect_level(first) if level == "auto" else level
    tokeniser = Tokeniser(level)
    ids = tokeniser.read(chain([first], text))
    if valid_file is None:
        cut = int((1 - valid_fraction) * len(ids))
        train, valid = ids[:cut], ids[cut:]
    else:
        train, valid = ids, tokeniser.read(read_chunks(valid_file))
    if not len(train) or not len(valid):
        raise InputError(
            f"{files[0]}: {len(ids)} tokens cannot be split into training and validation; "
            f"more text is needed."
        )
    return _number(tokeniser, train, valid, min_count, valid_file is None)


def _check(
    files: Sequence[str | Path], valid_file: object, fraction: float, min_count: int | None
) -> None:
    if not files:
        raise InputError("no file named; name at least one text file ('-' is standard input).")
    named = [str(file) for file in files] + ([] if valid_file is None else [str(valid_file)])
    if named.count("-") > 1:
        raise InputError("standard input ('-') can be read only once, but is named twice.")
    if not 0 < fraction < 1:
        raise InputError(f"valid_fraction is {fraction}; expected a number between 0 and 1.")
    if min_count is not None and min_count < 1:
        raise InputError(f"min_count is {min_count}; expected at least 1.")


def _number(
    tokeniser: Tokeniser, train: np.ndarray, valid: np.ndarray, least: int | None, follows: bool
) -> Corpus:
    """Replace the ids of reading by those of the vocabulary, in place."""
    size = len(tokeniser.tokens)
    counts, in_valid = _counts(train, size), _counts(valid, size)
    least = _min_count(counts, tokeniser.level) if least is None else least
    kept = counts >= least
    kept[0] = True
    marked = [i for i, token in enumerate(tokeniser.tokens) if token == UNKNOWN]
    kept[marked] = False
    order = _order(tokeniser, np.flatnonzero(kept), counts)
    new = np.full(size, len(order), dtype=np.int64)
    new[order] = np.arange(len(order))
    new = new.astype(train.dtype)  # where all are kept, len(order) may not fit and is not needed
    train_unknown, valid_unknown = int(counts[~kept].sum()), int(in_valid[~kept].sum())
    tokens = [tokeniser.tokens[i] for i in order]
    if train_unknown or valid_unknown:
        tokens.append(UNKNOWN)
    valid_chars = _characters(tokeniser, valid)
    _renumber(train, new)
    _renumber(valid, new)
    vocabulary = Vocabulary(tokeniser.level, tokens)
    return Corpus(
        train=train,
        valid=valid,
        vocabulary=vocabulary,
        valid_chars=valid_chars,
        min_count=least,
        train_unknown=train_unknown,
        valid_unknown=valid_unknown,
        follows=follows,
        fingerprint=_fingerprint(train, valid, vocabulary),
    )


def _blocks(ids: np.ndarray) -> Iterator[np.ndarray]:
    return (ids[i : i + _BLOCK] for i in range(0, len(ids), _BLOCK))


def _counts(ids: np.ndarray, size: int) -> np.ndarray:
    total = np.zeros(size, dtype=np.int64)
    for block in _blocks(ids):
        total += np.bincount(block, minlength=size)
    return total


def _renumber(ids: np.ndarray, new: np.ndarray) -> None:
    for block in _blocks(ids):
        block[:] = new.take(block)


def _min_count(counts: np.ndarray, level: Level) -> int:
    if level == "char":
        return 2 if np.count_nonzero(counts) > LARGE_ALPHABET else 1
    if np.count_nonzero(counts >= 2) <= MOST_WORDS:
        return 2
    return int(np.sort(counts)[-MOST_WORDS - 1]) + 1


def _order(tokeniser: Tokeniser, kept: np.ndarray, counts: np.ndarray) -> list[int]:
    """Sort: the end of a line, then characters by code point, words by falling count."""
    tokens = tokeniser.tokens
    if tokeniser.level == "char":
        rest = sorted(kept[1:].tolist(), key=lambda i: tokens[i])
    else:
        rest = sorted(kept[1:].tolist(), key=lambda i: (-counts[i], tokens[i]))
    return [0, *rest]


def _characters(tokeniser: Tokeniser, ids: np.ndarray) -> int:
    """Count the characters of a text; between two words of a line there is one space."""
    if tokeniser.level == "char":
        return len(ids)
    total = int((_counts(ids, len(tokeniser.tokens)) * tokeniser.lengths()).sum())
    end, before = tokeniser.tokens.index(END), False
    for block in _blocks(ids):
        words = np.concatenate([[before], np.asarray(block != end)])
        total += int(np.count_nonzero(words[1:] & words[:-1]))
        before = bool(words[-1])
    return total


def _fingerprint(train: np.ndarray, valid: np.ndarray, vocabulary: Vocabulary) -> str:
    digest = hashlib.sha256("\0".join(vocabulary.tokens).encode())
    kind = np.min_scalar_type(len(vocabulary)).newbyteorder("<")
    for part in (train, valid):
        digest.update(str(len(part)).encode())
        for block in _blocks(part):
            digest.update(block.astype(kind).data)
    return digest.hexdigest()
