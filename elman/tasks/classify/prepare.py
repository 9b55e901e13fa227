"""From files to the two parts of the data, cleaned, with what was found in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elman.data.parts import held_out
from elman.data.tables import Table, read_table
from elman.errors import FileError, InputError, nearest
from elman.tasks.classify.arrays import is_arrays
from elman.tasks.classify.columns import Columns, find
from elman.tasks.classify.corpus import Examples, from_arrays, from_table
from elman.tasks.classify.options import ClassifyOptions

_WHERE = "train classify"
_SHOWN = 3


class Part(NamedTuple):
    """A part of the data, ready to be read.

    Args:
        sequences: tokens of each text, or scaled numbers.
        labels: classes, −1 for one that training has not; (count,) int64.
        lengths: tokens or time steps of each, >= 1; (count,).
    """

    sequences: Sequence[Any]
    labels: np.ndarray
    lengths: np.ndarray


class Divided(NamedTuple):
    """Training and validation examples, the columns they came from, and what was found."""

    train: Examples
    valid: Examples
    classes: tuple[str, ...]
    columns: dict[str, Any]
    lines: list[str]
    fingerprint: str


def divide(files: Sequence[str | Path], options: ClassifyOptions) -> Divided:
    """Read files, leave out what cannot be learned from, and divide the rest.

    Raises:
        InputError: columns that are not there, fewer than two classes, too few examples.
        FileError: a file that cannot be read; its line is named.
    """
    examples, columns = read(files, options)
    lines = [f"data: {examples.said}", *_said_of(columns)]
    examples, notes = cleaned(examples)
    lines += notes
    _see_classes(examples)
    if options.valid_file is not None:
        train, valid = examples, read_like([options.valid_file], columns, _WHERE)
        lines.append(f"validation: {valid.said}")
        valid, notes = cleaned(valid)
        lines += notes
    else:
        held = _held_out(examples, options.valid_fraction)
        train, valid = (examples.only(np.flatnonzero(side)) for side in (~held, held))
    counts = Counter(train.labels)
    classes = tuple(name for name, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0])))
    lines += _said_of_classes(counts, valid)
    fingerprint = examples.fingerprint
    return Divided(train, valid, classes, columns, lines, fingerprint)


def read(files: Sequence[str | Path], options: ClassifyOptions) -> tuple[Examples, dict[str, Any]]:
    """Read files and find out which columns are what."""
    if any(is_arrays(file) for file in files):
        if not all(is_arrays(file) for file in files):
            raise InputError(f"{_WHERE}: files of NumPy do not go with files of other kinds.")
        examples = from_arrays(files, options.label)
        return examples, {"kind": "arrays", "label": options.label, "features": None}
    table = read_table(_one_or_several(files), where=_WHERE)
    found = find(table, options.text, options.label, options.id, options.features)
    columns = {
        "kind": "table",
        "headed": table.headed,
        "width": len(table.names),
        "label": found.label,
        "text": list(found.text),
        "vectors": found.vectors,
        "id": found.id,
        "features": list(found.features),
    }
    return from_table(table, found), columns


def _one_or_several(files: Sequence[str | Path]) -> Any:
    return files[0] if len(files) == 1 else list(files)


def read_like(
    files: Sequence[str | Path] | Any,
    columns: Mapping[str, Any],
    where: str,
    *,
    labels: bool = True,
) -> Examples:
    """Read data that have the same columns as those that were trained on.

    Args:
        files: paths, or rows in memory.
        columns: as `read` found them.
        where: the caller's name, for errors.
        labels: whether labels must be there; else they are read where they are.

    Raises:
        InputError: a column is missing; those there are, are listed.
        FileError: a file that cannot be read.
    """
    paths = isinstance(files, list) and all(isinstance(f, str | Path) for f in files)
    if columns["kind"] == "arrays":
        if not paths or not all(is_arrays(file) for file in files):
            raise InputError(
                f"{where}: this model was trained on .npy or .npz; give it such files."
            )
        label = columns["label"]
        own = label is not None and is_arrays(label)
        return from_arrays(files, None if own else label)
    source = _one_or_several(files) if paths else files
    header = False if paths and not columns["headed"] and labels else None
    table = read_table(source, where=where, header=header)
    return from_table(table, _columns_like(table, columns, where, labels))


def _columns_like(table: Table, columns: Mapping[str, Any], where: str, labels: bool) -> Columns:
    """The columns of another table that are called as those of the training data."""
    needed = [*columns["text"], *columns["features"]]
    needed += [columns[name] for name in ("vectors", "id") if columns[name]]
    label = columns["label"]
    if not labels:
        only = len(table.names) == 1 and len(columns["text"]) == 1 and not table.headed
        if only:  # plain lines are the texts
            return Columns(None, (table.names[0],))
        label = label if label in table.names else None
    for name in needed:
        table.column(name, (), "as in training")
    if label is not None:
        table.column(label, (), "label")
    text, features = tuple(columns["text"]), tuple(columns["features"])
    return Columns(label, text, columns["vectors"], columns["id"], features)


def cleaned(examples: Examples) -> tuple[Examples, list[str]]:
    """Leave out rows without a label or without a text, and say so."""
    unnamed = [i for i, label in enumerate(examples.labels) if not label]
    empty = [
        i for i, text in enumerate(examples.data) if isinstance(text, str) and not text.strip()
    ]
    notes = []
    for rows, what in ((unnamed, "no label"), (empty, "no text")):
        if rows:
            many = len(rows) > _SHOWN
            shown = "; ".join(examples.place(i) for i in rows[:_SHOWN]) + "; …" * many
            verb = "has" if len(rows) == 1 else "have"
            noun = "row" if len(rows) == 1 else "rows"
            notes.append(f"left out: {len(rows):,} {noun} {verb} {what} ({shown})")
    if not notes:
        return examples, []
    bad = np.zeros(len(examples), bool)
    bad[[*unnamed, *empty]] = True
    if bad.all():
        raise InputError(f"{_WHERE}: {examples.said}: no row has both a label and data.")
    return examples.only(np.flatnonzero(~bad)), notes


def _see_classes(examples: Examples) -> None:
    """See that there is something to tell apart.

    Raises:
        InputError: one class, or as many classes as examples.
    """
    counts = Counter(examples.labels)
    if len(counts) < 2:
        raise InputError(
            f"{_WHERE}: every label is {next(iter(counts))!r}; a classifier needs two classes. Is "
            "this the right column (label)?"
        )
    if len(counts) == len(examples) and len(examples) > 2:
        raise InputError(
            f"{_WHERE}: each of the {len(examples):,} examples has a label of its own, such as "
            f"{examples.labels[0]!r}; nothing can be learned of such classes. Is this the right "
            "column (label)?"
        )


def _held_out(examples: Examples, fraction: float) -> np.ndarray:
    """Which examples are for validation: equal ones together, and every class stays in training."""
    held = held_out(map(_key, examples.data), fraction)
    place = {name: i for i, name in enumerate(dict.fromkeys(examples.labels))}
    labels = np.array([place[name] for name in examples.labels])
    learned = np.bincount(labels[~held], minlength=len(place))
    if not learned.all():  # classes whose examples were all held out go back, with their equals
        lost = np.flatnonzero(held & (learned[labels] == 0)).tolist()
        back = {_key(examples.data[i]) for i in lost}
        for i in np.flatnonzero(held).tolist():
            held[i] = _key(examples.data[i]) not in back
    if not held.any():
        raise InputError(
            f"{_WHERE}: {len(examples)} examples are too few to hold some out and keep every class "
            "in training; give more, or a valid_file."
        )
    return held


def _key(data: Any) -> str | bytes:
    """What equal examples share."""
    return data if isinstance(data, str) else np.ascontiguousarray(data).tobytes()


def _said_of(columns: Mapping[str, Any]) -> list[str]:
    """Say which columns are read."""
    if columns["kind"] == "arrays":
        return []
    named = "" if columns["headed"] else " (by number)"
    if columns["id"]:
        what = f"sequences by {columns['id']!r}, features {', '.join(columns['features'])}"
    elif columns["vectors"]:
        what = f"sequences of numbers in {columns['vectors']!r}"
    else:
        what = f"text in {', '.join(map(repr, columns['text']))}"
    return [f"columns{named}: {what}; label in {columns['label']!r} (others: --text, --label)"]


def _said_of_classes(counts: Counter[str], valid: Examples) -> list[str]:
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(12))
    more = f" and {len(counts) - 12} more" if len(counts) > 12 else ""
    lines = [
        f"classes: {len(counts)} ({shown}{more}); {sum(counts.values()):,} examples to train on, "
        f"{len(valid):,} to validate on"
    ]
    single = [name for name, count in counts.items() if count == 1]
    if single:
        names = ", ".join(map(repr, single[:_SHOWN])) + " …" * (len(single) > _SHOWN)
        lines.append(f"note: {names} has one example to learn from; hardly anything is told so")
    unseen = sorted({label for label in valid.labels if label not in counts})
    if unseen:
        name = unseen[0]
        lines.append(
            f"note: the validation part has the class {name!r}, which training has not; its "
            f"examples count as wrong.{nearest(name, list(counts))}"
        )
    return lines


def checked_columns(value: Any, where: str) -> dict[str, Any]:
    """Return the columns that a model file names.

    Raises:
        FileError: they are none.
    """
    of_arrays, of_table = {"kind", "label", "features"}, {
        "kind", "headed", "width", "label", "text", "vectors", "id", "features",
    }  # fmt: skip
    good = isinstance(value, Mapping) and set(value) in (of_arrays, of_table)
    if good and value["kind"] == "table":
        lists = all(
            isinstance(value[name], list) and all(isinstance(entry, str) for entry in value[name])
            for name in ("text", "features")
        )
        names = all(value[n] is None or isinstance(value[n], str) for n in ("vectors", "id"))
        good = lists and names and isinstance(value["label"], str)
    elif good:
        good = value["kind"] == "arrays" and isinstance(value["label"], str | None)
    if not good:
        raise FileError(f"{where}: it does not say which columns it reads.")
    return dict(value)
