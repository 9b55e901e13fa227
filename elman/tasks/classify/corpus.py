"""Sequences with their classes: read from tables and arrays, and divided into two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from elman.data.tables import Table
from elman.errors import FileError
from elman.tasks.classify.arrays import read_labelled
from elman.tasks.classify.columns import Columns

_SHOWN = 3


@dataclass(frozen=True)
class Examples:
    """Sequences, and of each its class as the file has it.

    Args:
        data: texts, or float32 arrays (time, features).
        labels: "" where the file has none.
        place: says where an example stands ("train.tsv, line 12").
        said: what was read, for people.
        fingerprint: of what was read.
        notes: sentences on what is left out or read otherwise.
    """

    data: Sequence[Any]
    labels: Sequence[str]
    place: Callable[[int], str]
    said: str
    fingerprint: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.data)

    def only(self, chosen: np.ndarray) -> Examples:
        """Return some of the examples, by their numbers."""
        rows = chosen.tolist()
        labels = [self.labels[i] for i in rows]
        return replace(
            self, data=_Some(self.data, chosen), labels=labels, place=lambda i: self.place(rows[i])
        )


class _Some(Sequence[Any]):
    """Some entries of a sequence, fetched when they are asked for."""

    def __init__(self, whole: Sequence[Any], chosen: np.ndarray):
        self._whole, self._chosen = whole, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return _Some(self._whole, self._chosen[at])
        return self._whole[int(self._chosen[at])]


class _Joined(Sequence[str]):
    """The texts of several columns of a table, with a blank between."""

    def __init__(self, table: Table, names: Sequence[str]):
        self._columns = [table.text(name) for name in names]

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return " ".join(column[at] for column in self._columns)


def from_table(table: Table, columns: Columns) -> Examples:
    """Return the sequences of a table, with labels where a column has them.

    Raises:
        FileError: a number that is missing, or a sequence with several labels; file and line.
    """
    if columns.id is not None:
        return _of_steps(table, columns)
    data: Sequence[Any]
    if columns.vectors is not None:
        data = _matrices(table, columns.vectors)
    elif len(columns.text) == 1:
        data = table.text(columns.text[0])
    else:
        data = _Joined(table, columns.text)
    labels: Sequence[str] = [""] * len(table)
    if columns.label is not None:
        labels = [intern(label.strip()) for label in table.text(columns.label)]
    return Examples(data, labels, table.place, table.source_words, table.fingerprint)


def _matrices(table: Table, name: str) -> list[np.ndarray]:
    """A column of lists as (time, features); all need the same features."""
    found = [a[:, None] if a.ndim == 1 else a for a in table.vectors(name)]
    for row, array in enumerate(found):
        if 0 in array.shape:
            raise FileError(f"{table.place(row)}: column {name}: is an empty sequence.")
        if array.shape[1] != found[0].shape[1]:
            raise FileError(
                f"{table.place(row)}: column {name}: {array.shape[1]} features a step; the first "
                f"row has {found[0].shape[1]}."
            )
    return found


def _of_steps(table: Table, columns: Columns) -> Examples:
    """Sequences of a table with a row a time step, in the order in which their ids come first."""
    names = list(table.text(columns.id or ""))
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        first.setdefault(name, row)
    numbers = np.stack([table.numbers(name) for name in columns.features], axis=1)
    missing = np.argwhere(np.isnan(numbers))
    if len(missing):
        row, at = missing[0].tolist()
        raise FileError(
            f"{table.place(row)}: column {columns.features[at]}: a number is missing; fill it, or "
            "leave the row out."
        )
    place = {name: i for i, name in enumerate(first)}
    of_row = np.array([place[name] for name in names])
    order = np.argsort(of_row, kind="stable")
    cuts = np.searchsorted(of_row[order], np.arange(1, len(first)))
    data = np.split(numbers[order].astype(np.float32), cuts)
    starts = list(first.values())
    labels = [""] * len(first)
    if columns.label is not None:
        every = [label.strip() for label in table.text(columns.label)]
        labels = [every[row] for row in starts]
        for row, name in enumerate(names):
            if every[row] != labels[place[name]]:
                raise FileError(
                    f"{table.place(row)}: sequence {name!r} has the label {every[row]!r} here and "
                    f"{labels[place[name]]!r} before; a sequence has one."
                )
    said = f"{table.source_words}; {len(first):,} sequences by column {columns.id!r}"
    return Examples(data, labels, lambda i: table.place(starts[i]), said, table.fingerprint)


def from_arrays(paths: Sequence[str | Path], label: str | None) -> Examples:
    """Return the sequences of NumPy's files.

    Raises:
        FileError: see `elman.tasks.classify.arrays.read_labelled`; or files whose sequences have
            other features.
    """
    data: list[np.ndarray] = []
    labels: list[str] = []
    places: list[str] = []
    for path in paths:
        found = read_labelled(path, label)
        data += found.sequences
        labels += found.labels
        places += [f"{path}, sequence {i}" for i in range(len(found.labels))]
    wide = {s.shape[1] for s in data}
    if len(wide) > 1:
        raise FileError(
            f"{paths[-1]}: sequences of {sorted(wide)} features; all need equally many."
        )
    said = f"{', '.join(map(str, paths))}: {len(data):,} sequences of {min(wide)} features a step"
    digest = hashlib.sha256()
    for sequence, name in zip(data, labels, strict=True):
        digest.update(f"{sequence.shape}{name}".encode())
        digest.update(sequence.tobytes())
    return Examples(data, labels, places.__getitem__, said, digest.hexdigest())
