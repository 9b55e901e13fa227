"""Labelled trees as numbers: classes, vocabulary, and the parts for training and validation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from elman.data.trees import LabelledTree, read_trees
from elman.errors import FileError, InputError
from elman.tasks.tree.network import Batch

UNKNOWN = "<unk>"
MOST_CLASSES = 1000
BINARY = {"0": "negative", "1": "negative", "3": "positive", "4": "positive"}


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a model of trees stand for.

    Attributes:
        words: the vocabulary; the first stands for every other word.
        classes: the labels.
        binary: whether labels 0 to 4 were made two.
    """

    words: tuple[str, ...]
    classes: tuple[str, ...]
    binary: bool = False

    @cached_property
    def _word(self) -> dict[str, int]:
        return {w: i for i, w in enumerate(self.words)}

    @cached_property
    def _class(self) -> dict[str, int]:
        return {c: i for i, c in enumerate(self.classes)}

    def word(self, word: str) -> int:
        """The number of a word."""
        return self._word.get(word, 0)

    def label(self, label: str | None, where: str = "") -> int:
        """The number of a label; −1 for none, and in binary for what is neither.

        Raises:
            FileError: a label that training had not.
        """
        if label is None:
            return -1
        if self.binary:
            if label not in (*BINARY, "2"):
                raise FileError(f"{where}: the label {label!r}; binary takes labels 0 to 4.")
            label = BINARY.get(label, "")
            return self._class.get(label, -1)
        found = self._class.get(label)
        if found is None:
            raise FileError(
                f"{where}: the label {label[:40]!r} is not among those of training, "
                f"{', '.join(self.classes[:20])}."
            )
        return found

    def batch(self, trees: Sequence[LabelledTree], where: str = "", labels: bool = True) -> Batch:
        """Trees as numbers, one after another."""
        words: list[int] = []
        parents: list[int] = []
        classes: list[int] = []
        for tree in trees:
            first = len(parents)
            parents.extend(p + first if p >= 0 else -1 for p in tree.parents)
            words.extend(-1 if w is None else self.word(w) for w in tree.words)
            at = f"{where}, line {tree.line}"
            classes.extend(self.label(label, at) if labels else -1 for label in tree.labels)
        return Batch(*map(torch.tensor, (words, parents, classes)))


@dataclass(frozen=True)
class Corpus:
    """Trees to learn from and to be judged on, and what their numbers mean."""

    meaning: Meaning
    train: list[LabelledTree]
    valid: list[LabelledTree]
    once: frozenset[int]
    arity: int
    fingerprint: str


def read_corpus(
    files: Sequence[str | Path],
    *,
    binary: bool,
    min_count: int,
    valid_file: str | None,
    valid_fraction: float,
) -> Corpus:
    """Read trees and make their vocabulary.

    Raises:
        FileError: what `read_trees` refuses; labels that cannot be.
        InputError: too few trees, or one class only.
    """
    trees = [tree for file in files for tree in read_trees(file)]
    digest = hashlib.sha256("\n".join(map(str, trees)).encode())
    if valid_file is None:
        held = max(1, round(len(trees) * valid_fraction))
        train, valid = trees[: len(trees) - held], trees[len(trees) - held :]
        if not train:
            raise InputError(
                f"train tree: {len(trees)} tree(s) cannot be divided into training and validation; "
                "give more, or a valid_file."
            )
    else:
        train, valid = trees, read_trees(valid_file)
        digest.update("\n".join(map(str, valid)).encode())
    if binary:
        train, valid = ([t for t in part if t.labels[0] != "2"] for part in (train, valid))
        if not train or not valid:
            raise InputError("train tree: every root is 2, so binary leaves no tree.")
    counts = Counter(word for tree in train for word in tree.leaves)
    kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    words = (UNKNOWN, *(w for w in kept if w != UNKNOWN))
    meaning = Meaning(words, _classes(train, binary), binary)
    _check_valid(meaning, valid, valid_file)
    most = max(max(Counter(t.parents).get(p, 0) for p in t.parents if p >= 0)
               if len(t.parents) > 1 else 0 for t in (*train, *valid))  # fmt: skip
    once = frozenset(i for i, w in enumerate(words) if i and counts[w] == 1)
    return Corpus(meaning, train, valid, once, most, digest.hexdigest())


def _check_valid(meaning: Meaning, valid: Sequence[LabelledTree], file: str | None) -> None:
    """See, before anything is learned, that the validation part can be judged."""
    where = "the validation part" if file is None else file
    roots = 0
    for tree in valid:
        found = [meaning.label(label, f"{where}, line {tree.line}") for label in tree.labels]
        roots += found[0] >= 0
    if not roots:
        raise InputError(
            f"train tree: no root in {where} has a label, and a model is judged by its roots; "
            "label some, or name a valid_file that has labels there."
        )


def _classes(train: Sequence[LabelledTree], binary: bool) -> tuple[str, ...]:
    found = {label for tree in train for label in tree.labels if label is not None}
    if binary:
        return ("negative", "positive")
    if len(found) < 2:
        raise InputError(
            f"train tree: {len(found)} label(s) in the training part, "
            f"{', '.join(found) or 'none at all'}; a model tells at least two apart."
        )
    if len(found) > MOST_CLASSES:
        raise InputError(
            f"train tree: {len(found):,} labels; at most {MOST_CLASSES:,} can be told apart. Is "
            "the first word after a bracket a label?"
        )
    return tuple(sorted(found, key=lambda label: (len(label), label)))
