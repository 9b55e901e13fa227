"""Sequences from tables with one row a word or frame, and from numpy arrays."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elman.data.tables import Table
from elman.errors import FileError, InputError
from elman.tasks.tag.options import TagOptions
from elman.tasks.tag.sources import Example, Source

IDS = ("id", "sequence", "sequence_id", "sentence", "sentence_id", "sentence #", "unique_id")
_WORDS = ("word", "token", "text", "form")
_LABELS = ("label", "tag", "labels", "tags", "ner", "pos", "upos", "class")
_ARRAYS = ("vectors", "frames", "features", "x")
_ARRAY_LABELS = ("labels", "tags", "label", "y")


class StepSource(Source):
    """A table with one row a word, or a frame of numbers; a column says of which sequence.

    Args:
        table: as read.
        name: of the file.
        options: which columns hold what.
        labelled: whether labels must be there.
        known: the settings of the training file.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        options: TagOptions,
        *,
        labelled: bool,
        known: Mapping[str, Any] | None = None,
    ):
        self.name, self._table = name, table
        known = known if known is not None and known.get("kind") == "steps" else None
        if known is not None:
            named = {key: known[key] for key in ("id", "text", "label", "features")}
            options = options.model_copy(update=named)
        self._id = table.column(options.id, IDS, "id")
        if self._id is None:
            raise InputError(
                f"{name}: no column says which rows make a sequence; there are "
                f"{', '.join(table.names)}. Name it (id)."
            )
        there = options.label is None or options.label in table.names or labelled
        self._label = table.column(options.label if there else None, _LABELS, "label")
        if self._label is None and labelled:
            raise InputError(
                f"{name}: no column of labels; there are {', '.join(table.names)}. Name it (label)."
            )
        self._text: str | None = None
        if known is None or known["text"] is not None:
            self._text = table.column(options.text, _WORDS, "text")
        self.of_words = self._text is not None
        self._features = [] if self.of_words else self._numeric(options)
        self.settings = {
            "kind": "steps",
            "id": self._id,
            "label": self._label,
            "text": self._text,
            "features": ",".join(self._features) or None,
        }
        what = (
            f"words in {self._text}"
            if self.of_words
            else f"vectors of {len(self._features)} columns ({', '.join(self._features[:6])}"
            f"{' …' * (len(self._features) > 6)})"
        )
        self.said = f"{table.source_words}; sequences by {self._id}, {what}" + (
            f", labels in {self._label}" if self._label is not None else ""
        )

    def _numeric(self, options: TagOptions) -> list[str]:
        table = self._table
        if options.features is not None:
            given = [entry.strip() for entry in options.features.split(",")]
            return [table.column(entry, (), "features") or entry for entry in given]
        taken = (self._id, self._label)
        found = [n for n in table.names if n not in taken and table.facts(n).numeric == 1.0]
        if not found:
            raise InputError(
                f"{self.name}: no column of words and none of numbers besides {self._id}; there "
                f"are {', '.join(table.names)}. Name them (text or features)."
            )
        return found

    def __iter__(self) -> Iterator[Example]:
        matrix = None
        if not self.of_words:
            matrix = np.stack([self._column(name) for name in self._features], 1)
        texts = None if self._text is None else self._table.text(self._text)
        labels = None if self._label is None else self._table.text(self._label)
        for first, end in self._runs():
            if matrix is not None:
                items: Sequence[str] | np.ndarray = matrix[first:end]
            else:
                items = list(texts[first:end])  # type: ignore[index]
                if "" in items:
                    at = self._table.place(first + list(items).index(""))
                    raise FileError(f"{at}: the word is empty.")
            told: Sequence[str | None] = [None] * (end - first)
            if labels is not None:
                told = [label or None for label in labels[first:end]]
            yield Example(items, told, self._at(first), (first, end))

    def _column(self, name: str) -> np.ndarray:
        values = self._table.numbers(name)
        missing = np.flatnonzero(np.isnan(values))
        if len(missing):
            raise FileError(
                f"{self._table.place(int(missing[0]))}: column {name} has no number "
                f"({len(missing):,} such); fill it, or leave the column out (features)."
            )
        return values.astype(np.float32)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Begin and end of the rows of each sequence; an empty id goes on with the one before."""
        first, current, row = 0, "", -1
        seen: set[str] = set()
        for row, cell in enumerate(self._table.text(self._id or "")):
            if cell and cell != current:
                if row > first:
                    yield first, row
                if cell in seen:
                    raise FileError(
                        f"{self._table.place(row)}: the rows of {self._id} {cell!r} do not stand "
                        "together; sort the file by it."
                    )
                seen.add(cell)
                first, current = row, cell
        if row >= first:
            yield first, row + 1

    def _at(self, first: int) -> Callable[[int], str]:
        return lambda item: self._table.place(first + item)

    def filled(self, example: Example, labels: Sequence[str]) -> str:
        """Return the rows as CSV with these labels, the header before the first."""
        first, end = example.origin
        names = list(self._table.names)
        label = self._label or "label"
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        whole = names if label in names else [*names, label]
        if first == 0:
            writer.writerow(whole)
        columns = [self._table.text(name)[first:end] for name in names]
        for told, row in zip(labels, zip(*columns, strict=True), strict=True):
            cells = dict(zip(names, row, strict=True)) | {label: told}
            writer.writerow([cells[name] for name in whole])
        return lines.getvalue().removesuffix("\n")


class ArraySource(Source):
    """An .npz file: "vectors" (frames, features) "labels" (frames,), "lengths" of sequences.

    With vectors of three dimensions, (sequences, time, features), labels have the first two.

    Args:
        path: the file.
        labelled: whether labels must be there.
    """

    of_words = False

    def __init__(self, path: str | Path, *, labelled: bool):
        self.name = str(path)
        arrays = _load(path)
        vectors = next((arrays[key] for key in _ARRAYS if key in arrays), None)
        labels = next((arrays[key] for key in _ARRAY_LABELS if key in arrays), None)
        if vectors is None or (labels is None and labelled):
            what = "vectors" if vectors is None else "labels"
            raise FileError(
                f"{self.name}: there is no array {what!r}; there are {', '.join(arrays)}."
            )
        if vectors.ndim not in (2, 3) or vectors.dtype.kind not in "fiu" or not len(vectors):
            raise FileError(
                f"{self.name}: the array of vectors has shape {vectors.shape} and type "
                f"{vectors.dtype}; expected (frames, features) of numbers."
            )
        lengths = arrays.get("lengths")
        if vectors.ndim == 3:
            full = vectors.shape[1]
            sizes = np.full(len(vectors), full) if lengths is None else lengths
            inside = np.arange(full) < np.asarray(sizes)[:, None]
            vectors = vectors[inside]
            labels = None if labels is None else labels[inside]
        else:
            sizes = np.array([len(vectors)]) if lengths is None else lengths
        told = len(vectors) if labels is None else len(labels)
        if int(np.sum(sizes)) != len(vectors) or told != len(vectors):
            raise FileError(
                f"{self.name}: {len(vectors)} vectors, {told} labels, and lengths that sum to "
                f"{int(np.sum(sizes))}; they must agree."
            )
        wrong = np.argwhere(~np.isfinite(vectors))
        if len(wrong):
            at = wrong[0]
            raise FileError(f"{self.name}: vector {at[0] + 1} holds {vectors[tuple(at)]}.")
        self._vectors, self._labels = vectors.astype(np.float32), labels
        self._ends = np.cumsum(sizes).tolist()
        self.settings = {"kind": "arrays"}
        self.said = (
            f"{self.name}: arrays, {len(self._ends):,} sequences of {vectors.shape[1]} features"
        )

    def __iter__(self) -> Iterator[Example]:
        first = 0
        for end in self._ends:
            labels: list[str | None] = [None] * (end - first)
            if self._labels is not None:
                labels = [str(label) for label in self._labels[first:end].tolist()]
            yield Example(self._vectors[first:end], labels, self._at(first), None)
            first = end

    def _at(self, first: int) -> Callable[[int], str]:
        return lambda item: f"{self.name}, frame {first + item + 1}"

    def filled(self, example: Example, labels: Sequence[str]) -> str:
        """Return the labels as a JSON line."""
        return json.dumps({"labels": list(labels)}, ensure_ascii=False)


def _load(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {key: found[key] for key in found.files}
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except (ValueError, AttributeError, TypeError):
        raise FileError(f"{path}: no .npz file of plain numbers and texts.") from None
