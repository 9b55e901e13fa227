"""Texts and what they are written from, out of tables and of .npz files."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elman.data.tables import Table, read_table
from elman.errors import FileError, InputError, nearest
from elman.tasks.caption.options import CaptionOptions

_TEXTS = ("text", "caption", "name", "word", "words", "spelling", "sentence", "title",
          "description", "target")  # fmt: skip
_LABELS = ("label", "class", "category", "nationality", "language", "lang", "genre", "type")
_NPZ = ".npz"
_FEW = 0.5  # a column with fewer different cells than this share of its rows is of classes


class Columns(NamedTuple):
    """Names of the columns; what is None or empty is not there."""

    text: str | None
    label: str | None
    past: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """Texts and what they are written from.

    Attributes:
        texts: to be written; None where none was asked for or there is none.
        labels: a class each, or None.
        vectors: (rows, features), float32, or None.
        columns: where they stood.
        said: in words, what was read.
        places: where each row stands, for errors: a function of the row.
    """

    texts: list[str] | None
    labels: list[str] | None
    vectors: np.ndarray | None
    columns: Columns
    said: str
    places: Any

    def __len__(self) -> int:
        return next(len(p) for p in (self.labels, self.vectors, self.texts) if p is not None)


def read_rows(data: Any, options: CaptionOptions, *, answered: bool = True) -> Rows:
    """Read rows of texts and conditions.

    Args:
        data: a file or files, or what `elman.data.tables.read_table` takes.
        options: the columns; what is None is found out.
        answered: whether every row must have its text; otherwise texts are not read.

    Raises:
        InputError: a column that is not there, or nothing that a text could be written from.
        FileError: a file that cannot be read, a row without text, vectors of different lengths,
            a number that is none or NaN; the line is named.
    """
    if isinstance(data, Sequence) and not isinstance(data, str) and len(data) == 1:
        data = data[0] if isinstance(data[0], str | Path) else data
    if isinstance(data, str | Path) and Path(data).suffix.lower() == _NPZ:
        return _of_arrays(Path(data), options, answered)
    named = [options.text, options.label, *(options.past or "").split(",")]
    # Whoever names columns by names has them in the first line.
    header = True if any(name and not name.isdecimal() for name in named) else None
    table = read_table(data, where="caption", header=header)
    columns = _columns(table, options, answered)
    texts = _texts(table, columns.text) if columns.text is not None and answered else None
    labels = None if columns.label is None else _labels(table, columns.label)
    vectors = _vectors(table, columns.past) if columns.past else None
    return Rows(texts, labels, vectors, columns, table.source_words, table.place)


# -- which columns ---------------------------------------------------------------------------


def _columns(table: Table, options: CaptionOptions, answered: bool) -> Columns:
    """Find the columns that were not named: by their names, else by what they hold."""
    text = options.text
    if answered or text is None or text in table.names:
        text = table.column(text, _TEXTS, "of the texts (text)")
    label = table.column(options.label, _LABELS, "of the classes (label)")
    label = None if label == text else label
    past = _past(table, options.past)
    taken = {text, label, *past}
    rest = [name for name in table.names if name not in taken]
    if not past and label is None:
        past = _numeric(table, rest)
        rest = [name for name in rest if name not in past]
    if label is None and not past and len(rest) > (text is None):
        label = min(rest, key=lambda name: table.facts(name).distinct)
        rest.remove(label)
        if text is not None and not _is_classes(table, label):
            label = None
    if text is None and answered:
        if len(rest) != 1:
            raise InputError(_not_found(table, "the texts to be written", "text"))
        text = rest[0]
    if label is None and not past:
        what = "what the texts are to be written from, a class or numbers"
        raise InputError(_not_found(table, what, "label or --past"))
    return Columns(text, label, past)


def _not_found(table: Table, what: str, option: str) -> str:
    return (
        f"caption: no column could be found that holds {what}; name it (--{option}). There are: "
        f"{', '.join(table.names[:20])}."
    )


def _past(table: Table, given: str | None) -> tuple[str, ...]:
    """Return the columns of numbers that were named."""
    if given is None:
        return ()
    found: dict[str, None] = {}
    for name in (part.strip() for part in given.split(",")):
        if "*" in name:
            several = [n for n in table.names if fnmatchcase(n, name)]
            if not several:
                raise InputError(
                    f"caption: no column is called like {name!r} (past). There are: "
                    f"{', '.join(table.names[:20])}."
                )
            found.update(dict.fromkeys(several))
        else:
            found[table.column(name, (), "of numbers (past)") or name] = None
    return tuple(found)


def _numeric(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """Return a column of lists, or else all columns of numbers."""
    facts = {name: table.facts(name) for name in names}
    lists = [name for name in names if facts[name].vectors == 1.0]
    if lists:
        return (lists[0],)
    return tuple(name for name in names if facts[name].numeric > 0.99 and facts[name].rows)


def _is_classes(table: Table, name: str) -> bool:
    facts = table.facts(name)
    return facts.distinct <= max(2, _FEW * facts.rows)


# -- what they hold --------------------------------------------------------------------------


def _texts(table: Table, name: str) -> list[str]:
    found = [text.strip() for text in table.text(name)]
    for row, text in enumerate(found):
        if not text:
            raise FileError(f"{table.place(row)}: column {name!r} is empty; a text is needed.")
    return found


def _labels(table: Table, name: str) -> list[str]:
    found = [text.strip() for text in table.text(name)]
    for row, label in enumerate(found):
        if not label:
            raise FileError(f"{table.place(row)}: column {name!r} is empty; a class is needed.")
    return found


def _vectors(table: Table, names: Sequence[str]) -> np.ndarray:
    if len(names) == 1 and table.facts(names[0]).vectors > 0:
        found = table.vectors(names[0])
        size = found[0].size
        for row, vector in enumerate(found):
            if vector.ndim != 1 or vector.size != size or not size:
                raise FileError(
                    f"{table.place(row)}: column {names[0]!r} has {vector.size} numbers; "
                    f"{table.place(0)} has {size}, and all must have as many, at least one."
                )
        return np.stack(found).astype(np.float32)
    parts = []
    for name in names:
        numbers = table.numbers(name)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise FileError(
                f"{table.place(int(bad[0]))}: column {name!r} has no number; a text is written "
                "from numbers that are all there."
            )
        parts.append(numbers.astype(np.float32))
    return np.stack(parts, 1)


# -- arrays ----------------------------------------------------------------------------------


def _of_arrays(path: Path, options: CaptionOptions, answered: bool) -> Rows:
    """Read a .npz file: an array of texts, and one of numbers with as many rows."""
    arrays = _load(path)
    texts = {n: a for n, a in arrays.items() if a.dtype.kind == "U" and a.ndim == 1}
    numbers = {n: a for n, a in arrays.items() if a.dtype.kind in "fiub" and a.ndim >= 2}
    text = _named(path, options.text, texts, "of texts (text)", ("label", options.label))
    if text is None and answered:
        raise FileError(f"{path}: it has no array of texts; there are {_shapes(arrays)}.")
    label = _named(path, options.label, texts, "of classes (label)", ("text", text or ""))
    past = _named(path, options.past, numbers, "of numbers (past)", ("", ""))
    if label is None and past is None:
        raise FileError(
            f"{path}: it has no array of vectors, (rows, features); there are {_shapes(arrays)}."
        )
    chosen = [arrays[n] for n in (text, label, past) if n is not None]
    if len({len(a) for a in chosen}) != 1 or not len(chosen[0]):
        raise FileError(
            f"{path}: its arrays must have as many rows, and at least one; there are "
            f"{_shapes(arrays)}."
        )
    vectors = None
    if past is not None:
        vectors = arrays[past].reshape(len(arrays[past]), -1).astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(vectors).all(1))
        if len(bad):
            raise FileError(f"{path}, row {bad[0] + 1}: array {past!r} has a number not finite.")
    told = [str(t).strip() for t in arrays[text]] if text is not None and answered else None
    if told is not None and not all(told):
        raise FileError(f"{path}, row {told.index('') + 1}: array {text!r} is empty there.")
    labels = None if label is None else [str(entry).strip() for entry in arrays[label]]
    columns = Columns(text, label, () if past is None else (past,))
    said = f"{path}: {_shapes(arrays)}"
    return Rows(told, labels, vectors, columns, said, lambda row: f"{path}, row {row + 1}")


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileError(f"{path}: there is no such file.")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        raise FileError(f"{path}: cannot be read as .npz: {error}.") from None


def _named(
    path: Path, given: str | None, arrays: dict[str, np.ndarray], what: str, other: tuple[str, Any]
) -> str | None:
    """Return the array that was named, or the only one, or one called as the option is."""
    if given is not None:
        if given not in arrays:
            raise InputError(
                f"{path}: there is no array {given!r} {what}; there are {_shapes(arrays)}."
                f"{nearest(given, arrays)}"
            )
        return given
    option = what.rsplit("(", 1)[1].rstrip(")")
    left = [name for name in arrays if name not in other]
    return option if option in left else left[0] if len(left) == 1 else None


def _shapes(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{n} {a.shape}" for n, a in arrays.items()) or "none"
