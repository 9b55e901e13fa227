"""Sequences as rows: JSON lines, tables and rows in memory with words, or vectors, and labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from elman.errors import FileError, InputError, nearest
from elman.tasks.tag.options import TagOptions
from elman.tasks.tag.sources import Example, Source

_VECTORS = ("vectors", "frames", "features")
_WORDS = ("words", "tokens", "text", "sentence", "form")
_LABELS = ("labels", "tags", "label", "tag", "ner_tags", "pos_tags", "upos", "ner", "pos")
_SHOWN = 20
Rows = Iterable[tuple[str, Mapping[str, Any]]]


class RecordSource(Source):
    """Rows of one sequence each: lists, or text with blanks between.

    Args:
        rows: of each its place in words, and its columns by name.
        name: of the file.
        kind: of the file, in words.
        options: which columns hold words (or vectors) and labels.
        labelled: whether labels must be there.
        known: the settings of the training file.
    """

    def __init__(
        self,
        rows: Rows,
        name: str,
        kind: str,
        options: TagOptions,
        *,
        labelled: bool,
        known: Mapping[str, Any] | None = None,
    ):
        self.name = name
        self._rows = iter(rows)
        first = next(self._rows, None)
        if first is None:
            raise FileError(f"{name}: holds no rows.")
        self._first, self._labelled = first, labelled
        there = list(first[1])
        known = known if known is not None and known.get("kind") == "records" else None
        text, label = options.text, options.label
        if known is not None:
            text, label = known["items"], known["label"]
        items = _column(name, there, text, (*_VECTORS, *_WORDS), "text")
        if items is None:
            raise InputError(
                f"{name}: no column of words or vectors; there are {_listed(there)}. Name it "
                "(text)."
            )
        self._items: str = items
        found = _column(name, there, label, _LABELS, "label", labelled)
        if found is None and labelled:
            raise InputError(
                f"{name}: no column of labels; there are {_listed(there)}. Name it (label)."
            )
        self._label = found or label or ("tags" if self.of_words else "labels")
        self.of_words = not _holds_vectors(first[1][items])
        self.settings = {"kind": "records", "items": items, "label": self._label}
        self.said = (
            f"{name}: {kind}, a sequence a row, {'words' if self.of_words else 'vectors'} in "
            f"{items}" + (f", labels in {found}" if found is not None else "")
        )

    def __iter__(self) -> Iterator[Example]:
        yield self._example(*self._first)
        for place, row in self._rows:
            yield self._example(place, row)

    def _example(self, place: str, row: Mapping[str, Any]) -> Example:
        if self._items not in row:
            raise FileError(f"{place}: the column {self._items!r} is missing.")
        cell = row[self._items]
        items: Sequence[str] | np.ndarray
        items = _words(cell, place) if self.of_words else _frames(cell, place)
        labels: Sequence[str | None] = [None] * len(items)
        given = row.get(self._label)
        if given is None and self._labelled and len(items):
            raise FileError(f"{place}: the column {self._label!r} of labels is missing or empty.")
        if given is not None:
            labels = _labels(given, place)
            if len(labels) != len(items) and self._labelled:
                what = "words" if self.of_words else "vectors"
                raise FileError(f"{place}: {len(items)} {what} and {len(labels)} labels.")
        return Example(items, labels, _at(place), row)

    def filled(self, example: Example, labels: Sequence[str]) -> str:
        """Return the row as a JSON line with these labels."""
        row = dict(example.origin)
        as_text = isinstance(row.get(self._label), str) or isinstance(row[self._items], str)
        row[self._label] = " ".join(labels) if as_text else list(labels)
        return json.dumps(row, ensure_ascii=False, default=_plain)


def _at(place: str) -> Callable[[int], str]:
    return lambda item: f"{place}, item {item + 1}"


def _plain(value: Any) -> Any:
    """What JSON can hold, of an array or a number of numpy."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN]))


def _column(
    name: str,
    there: Sequence[str],
    given: str | None,
    guesses: Sequence[str],
    what: str,
    needed: bool = True,
) -> str | None:
    """The column that was named, or one of the usual names."""
    if given is not None:
        if given in there:
            return given
        if not needed:
            return None
        raise InputError(
            f"{name}: there is no column {given!r} ({what}); there are {_listed(there)}."
            f"{nearest(given, there)}"
        )
    folded = {entry.casefold(): entry for entry in reversed(there)}
    return next((folded[guess] for guess in guesses if guess in folded), None)


def _as_list(cell: Any) -> Any:
    """A cell of a table that holds a list as JSON, as a list; else what it is."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell.tolist() if hasattr(cell, "tolist") else cell


def _holds_vectors(cell: Any) -> bool:
    found = _as_list(cell)
    return isinstance(found, list) and bool(found) and not isinstance(found[0], str | None)


def _words(cell: Any, place: str) -> Sequence[str]:
    found = _as_list(cell)
    if isinstance(found, str):
        return found.split()
    if not isinstance(found, list) or not all(isinstance(word, str) and word for word in found):
        raise FileError(f"{place}: expected a list of words, or text, got {str(cell)[:60]!r}.")
    return found


def _labels(cell: Any, place: str) -> list[str | None]:
    found = _as_list(cell)
    if isinstance(found, str):
        return list(found.split())
    if not isinstance(found, list) or not all(
        x is None or (isinstance(x, str | int) and x != "") for x in found
    ):
        raise FileError(f"{place}: expected a list of labels, got {str(cell)[:60]!r}.")
    return [None if x is None else str(x) for x in found]


def _frames(cell: Any, place: str) -> np.ndarray:
    try:
        found = np.array(_as_list(cell), dtype=np.float32)
    except (ValueError, TypeError):
        found = np.zeros(0, dtype=np.float32)
    if found.ndim == 1 and len(found):
        found = found[:, None]  # one number a frame
    if found.ndim != 2 or not found.shape[-1]:
        if not _as_list(cell):
            return np.zeros((0, 1), dtype=np.float32)
        raise FileError(
            f"{place}: expected a list of vectors of numbers, all of the same length, got "
            f"{str(cell)[:60]!r}."
        )
    if not np.isfinite(found).all():
        at = np.argwhere(~np.isfinite(found))[0]
        raise FileError(f"{place}: vector {at[0] + 1} holds {found[tuple(at)]}.")
    return found
