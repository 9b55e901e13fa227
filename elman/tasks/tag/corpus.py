"""A corpus of tagged sequences as flat arrays of numbers, divided into training and validation."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from elman.data.parts import held_out
from elman.errors import FileError, InputError
from elman.tasks.tag import schemes
from elman.tasks.tag.labels import MOST_LABELS, Labels, check_count
from elman.tasks.tag.opening import open_source
from elman.tasks.tag.options import TagOptions
from elman.tasks.tag.sources import Source

_MANY_WITHIN = 10_000  # words within spans, from which on their ends are learned too


@dataclass
class Part:
    """Sequences one after another.

    Attributes:
        offsets: where each begins, and the end of the last, (sequences + 1,).
        items: numbers of words, (steps,), int32, or frames, (steps, features), float32.
        labels: numbers of labels as written, (steps,), int32; −1 where there is none.
    """

    offsets: np.ndarray
    items: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each sequence."""
        return np.diff(self.offsets)

    def chosen(self, which: np.ndarray) -> Part:
        """The part with only these sequences."""
        steps = np.repeat(which, self.lengths)
        offsets = np.concatenate([[0], np.cumsum(self.lengths[which])])
        return Part(offsets, self.items[steps], self.labels[steps])


@dataclass
class Corpus:
    """Sequences to learn from and to be judged on.

    Attributes:
        train, valid: the parts.
        words: the distinct words of both; empty for frames.
        names: the labels of both as written, those of the training part first.
        seen: how many of the names stand in the training part.
        labels: what the network learns.
        settings: how the files were read.
        said: lines about what was found.
        fingerprint: of all that was read.
    """

    train: Part
    valid: Part
    words: list[str]
    names: list[str]
    seen: int
    labels: Labels
    settings: dict[str, Any]
    said: list[str]
    fingerprint: str
    cut: int = 0  # sequences that were cut into pieces

    def texts(self, part: Part, row: int) -> list[str | None]:
        """The labels of a sequence as written."""
        found = part.labels[part.offsets[row] : part.offsets[row + 1]].tolist()
        return [None if number < 0 else self.names[number] for number in found]

    def counts(self) -> Counter[str]:
        """How often each word stands in the training part."""
        found = np.bincount(self.train.items, minlength=len(self.words)).tolist()
        return Counter({word: n for word, n in zip(self.words, found, strict=True) if n})


@dataclass
class _Gathered:
    """Numbers for words and labels, in the order in which they come."""

    words: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    digest: Any = field(default_factory=hashlib.sha256)
    features: int | None = None

    def take(self, sources: Sequence[Source], keys: list[bytes] | None) -> Part:
        """Read all sequences; what identifies each goes into `keys`."""
        items, labels, offsets = array("i"), array("i"), array("q", [0])
        frames: list[np.ndarray] = []
        for source in sources:
            for example in source:
                count = len(example.items)
                if not count:
                    continue
                said = "\0".join("\1" if x is None else x for x in example.labels)
                if isinstance(example.items, np.ndarray):
                    key = example.items.tobytes()
                    self._check_frames(example.items, example.at(0))
                    frames.append(example.items)
                else:
                    key = "\0".join(example.items).encode("utf-8", "surrogatepass")
                    items.extend(self.words.setdefault(w, len(self.words)) for w in example.items)
                labels.extend(
                    -1 if x is None else self.names.setdefault(x, len(self.names))
                    for x in example.labels
                )
                if len(self.names) > MOST_LABELS:
                    check_count(list(self.names), source.name)
                offsets.append(offsets[-1] + count)
                self.digest.update(key + b"\2" + said.encode("utf-8", "surrogatepass") + b"\3")
                if keys is not None:
                    keys.append(hashlib.blake2b(key, digest_size=16).digest())
        own = np.concatenate(frames) if frames else np.array(items, dtype=np.int32)
        return Part(np.array(offsets), own, np.array(labels, dtype=np.int32))

    def _check_frames(self, frames: np.ndarray, at: str) -> None:
        width = frames.shape[1]
        if self.features is None:
            self.features = width
        if width != self.features:
            raise FileError(f"{at}: vectors of {width} numbers; those before have {self.features}.")


def read_corpus(files: Sequence[str | Path], options: TagOptions) -> Corpus:
    """Read tagged sequences and divide them.

    Raises:
        FileError: a file that cannot be read, with the line.
        InputError: a column that is not there, too few sequences or labels.
    """
    sources = [open_source(file, options) for file in files]
    gathered, keys = _Gathered(), []
    train = gathered.take(sources, keys if options.valid_file is None else None)
    where = ", ".join(source.name for source in sources)
    if not len(train):
        raise InputError(f"train tag: there is no sequence in {where}.")
    said = [source.said for source in sources[:3]]
    if len(sources) > 3:
        said.append(f"and {len(sources) - 3} more files")
    if options.valid_file is None:
        held = held_out(keys, options.valid_fraction)
        train, valid = train.chosen(~held), train.chosen(held)
    else:
        valid = gathered.take([open_source(options.valid_file, options)], None)
        if not len(valid):
            raise InputError(f"train tag: there is no sequence in {options.valid_file}.")
    if not (valid.labels >= 0).any():
        raise InputError(
            f"train tag: nothing in {options.valid_file or 'the validation part'} has a label, so "
            "nothing could be judged."
        )
    names, train, valid = _ordered(list(gathered.names), train, valid)
    seen = int(train.labels.max(initial=-1)) + 1
    check_count(names[:seen], where)
    scheme, remarks = _scheme(names[:seen], train, options, files)
    labels = Labels(names[:seen], scheme, options.inner_scheme or _inner_scheme(names, train))
    return Corpus(
        train, valid, list(gathered.words), names, seen, labels, sources[0].settings,
        said + remarks, gathered.digest.hexdigest(),
    )  # fmt: skip


def _ordered(names: list[str], train: Part, valid: Part) -> tuple[list[str], Part, Part]:
    """Labels renumbered: those of training first, the frequent before the rare."""
    counts = np.bincount(train.labels[train.labels >= 0], minlength=len(names))
    order = sorted(range(len(names)), key=lambda k: (-counts[k], names[k]))
    places = np.empty(len(names) + 1, dtype=np.int32)
    places[order] = np.arange(len(names))
    places[-1] = -1  # where a number of −1 leads to
    for part in (train, valid):
        part.labels = places[part.labels]
    return [names[k] for k in order], train, valid


def _sentences(part: Part, names: Sequence[str]) -> Iterator[list[str]]:
    for first, end in zip(part.offsets[:-1].tolist(), part.offsets[1:].tolist(), strict=True):
        yield ["O" if x < 0 else names[x] for x in part.labels[first:end].tolist()]


def _scheme(
    names: Sequence[str], train: Part, options: TagOptions, files: Sequence[str | Path]
) -> tuple[str, list[str]]:
    """The scheme of the labels, and what is to be said of labels that break it."""
    scheme = options.scheme
    fits = schemes.is_of_spans(names)
    if scheme == "none" or (scheme == "auto" and not fits):
        return "none", []
    if not fits:
        wrong = next((n for n in names if not schemes.is_tag(n)), names[0])
        raise InputError(
            f"{_first_place(wrong, options, files)}: the label {wrong!r} is no tag of spans such "
            f"as O or B-name; leave scheme={scheme} out, or name another column (label)."
        )
    if scheme == "auto":
        scheme = schemes.detect(_sentences(train, names))
    # The files are gone through again, for lines to name, only where there is something to name.
    if not any(schemes.breaks(tags, scheme) for tags in _sentences(train, names)):
        return scheme, []
    return scheme, _broken(scheme, options, files)


def _inner_scheme(names: Sequence[str], train: Part) -> str:
    """BIOES where there is enough to learn its letters from, else BIO, which has half as many."""
    outside = names.index("O") if "O" in names else -1
    within = int(((train.labels >= 0) & (train.labels != outside)).sum())
    return "bioes" if within >= _MANY_WITHIN else "bio"


def _first_place(label: str, options: TagOptions, files: Sequence[str | Path]) -> str:
    """Where a label stands first."""
    for file in files:
        if str(file) != "-":
            for example in open_source(file, options):
                if label in example.labels:
                    return example.at(list(example.labels).index(label))
    return "standard input"


def _broken(scheme: str, options: TagOptions, files: Sequence[str | Path]) -> list[str]:
    """A line about tags that break their scheme: the first place, how many, how they are read."""
    count, first = 0, ""
    for file in files:
        for example in open_source(file, options):
            tags = ["O" if label is None else label for label in example.labels]
            wrong = schemes.breaks(tags, scheme)
            if wrong and not count:
                at = wrong[0]
                before = f"after {tags[at - 1]}" if at else "at the begin of a sentence"
                first = f"{example.at(at)}: {tags[at]} {before}"
            count += len(wrong)
    return [
        f"{count:,} tag(s) break the scheme {scheme}, the first in {first}; spans are read as "
        "conlleval reads them"
    ]
