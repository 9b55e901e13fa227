"""The tables of a graph as rows: which file is which, cells between tabs, the parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from elman.data.reading import read_text
from elman.errors import FileError

ROLES = ("features", "edges", "labels", "splits")
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Row(NamedTuple):
    """The cells of a line, and where it stands."""

    path: str | Path
    line: int
    cells: tuple[str, ...]


def fail(row: Row, what: str) -> NoReturn:
    """Say what is wrong with a row.

    Raises:
        FileError: always.
    """
    raise FileError(f"{row.path}, line {row.line}: {what}.")


def sort_files(files: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """Say which file is which: a folder's tables, or files by what is in their names.

    Raises:
        FileError: a file that is none of the four, or two that are the same.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(f) for f in files]
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            entries = [path / f"{role}.{'json' if role == 'splits' else 'tsv'}" for role in ROLES]
            inside = [entry for entry in entries if entry.exists()]
            if not inside:
                raise FileError(f"{path}: there is no features.tsv or edges.tsv in this folder.")
        else:
            inside = [path]
        for entry in inside:
            roles = [role for role in ROLES if role in entry.name]
            if len(roles) != 1:
                raise FileError(
                    f"{entry}: is this features, edges, labels or splits? Its name should have "
                    "one of these words in it."
                )
            if roles[0] in found:
                raise FileError(f"{entry}: {found[roles[0]]} is a table of {roles[0]} already.")
            found[roles[0]] = entry
    return {role: found[role] for role in ROLES if role in found}


def rows_of(
    path: str | Path, header: Sequence[str], may_be_empty: bool = False
) -> tuple[tuple[str, ...], list[Row]]:
    """The rows of a table, and the first one apart where it names columns.

    Args:
        path: a file; empty lines are passed over.
        header: words that a row of names has in its second column, or in its first.
        may_be_empty: whether there may be no row.

    Raises:
        FileError: what `read_text` refuses, or a table without rows.
    """
    if may_be_empty and Path(path).is_file() and not Path(path).stat().st_size:
        return (), []
    lines = read_text(path).split("\n")
    rows = [
        Row(path, number, tuple(cell.strip(" ") for cell in line.split("\t")))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    names: tuple[str, ...] = ()
    if rows:
        first = tuple(cell.lower() for cell in rows[0].cells)
        if len(first) > 1 and all(cell in ("graph", *header) for cell in first):
            names, rows = first, rows[1:]
    if not rows and not may_be_empty:
        raise FileError(f"{path}: there is no row in this table.")
    return names, rows


def read_splits(path: str | Path) -> dict[str, list[str]]:
    """The names in each part; "val" may be called valid or validation.

    Raises:
        FileError: no JSON, another part than these three, something else than lists of names.
    """
    try:
        found: Any = json.loads(read_text(path))
    except ValueError as error:
        raise FileError(f"{path}: not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise FileError(f'{path}: expected {{"train": […], "val": […], "test": […]}}.')
    parts: dict[str, list[str]] = {}
    for part, names in found.items():
        if part not in PARTS:
            raise FileError(f"{path}: the part {part!r} is not known; they are train, val, test.")
        if not isinstance(names, list) or not all(
            isinstance(n, str | int) and not isinstance(n, bool) for n in names
        ):
            raise FileError(f"{path}: {part} should be a list of names.")
        parts[PARTS[part]] = [str(name) for name in names]
    if not parts.get("train"):
        raise FileError(f"{path}: the part train is missing or empty.")
    return parts
