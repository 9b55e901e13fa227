"""Pairs of texts from files: two files line by line, or two columns of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elman.data.columns import Cells, TextColumn, block_of_rows
from elman.data.reading import read_chunks
from elman.data.tables import Table, read_table
from elman.errors import FileError, InputError

SOURCES = ("source", "src", "text", "input", "question", "from", "sentence")
TARGETS = ("target", "tgt", "translation", "output", "answer", "to", "reference")
_TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".pq", ".arrow",
           ".feather", ".ipc")  # fmt: skip


_LOOKED_AT = 20  # lines


class Pairs(NamedTuple):
    """Sources and their targets, read as they are asked for.

    Attributes:
        source: the texts.
        target: their translations; None where there are none.
        words: what was read, for people.
        columns: names of the columns; None for two files.
        fingerprint: hex digest of the content.
        table: that the texts are of; None for two files.
        files: that they are of.
    """

    source: Sequence[str]
    target: Sequence[str] | None
    words: str
    columns: tuple[str, str] | None
    fingerprint: str
    table: Table | None
    files: tuple[str, ...]

    def place(self, row: int) -> str:
        """Say where a pair stands."""
        if self.table is not None:
            return self.table.place(row)
        return f"{' and '.join(self.files)}, line {row + 1}"


def read_pairs(
    files: Any,
    text: str | None = None,
    target: str | None = None,
    *,
    where: str = "train translate",
) -> Pairs:
    """Read pairs of texts.

    Args:
        files: two text files line by line; or tables, as `elman.data.tables.read_table` reads
            them, with a column for each side. Two names that do not end as those of tables do, and
            no columns named, are read line by line.
        text: the column of the sources.
        target: that of the targets.
        where: the caller, for errors.

    Raises:
        FileError: a file that cannot be read, or two of different numbers of lines; the first line
            without a partner is named.
        InputError: there is no such column, or only one.
    """
    paths = [files] if isinstance(files, str | Path) else files
    if text is None and target is None and line_by_line(paths):
        return _aligned(Path(paths[0]), Path(paths[1]))
    table = read_table(files, where=where)
    source, goal = columns_of(table, text, target)
    if goal is None:
        raise InputError(
            f"{where}: {table.source_words}: one column holds no pairs. Give two columns, such as "
            "source TAB target, or two files whose lines belong together."
        )
    return Pairs(
        table.text(source), table.text(goal), table.source_words, (source, goal),
        table.fingerprint, table, (),
    )  # fmt: skip


def columns_of(table: Table, text: str | None, target: str | None) -> tuple[str, str | None]:
    """Return the names of the columns of sources and targets; those asked for, or the usual.

    Raises:
        InputError: there is no such column, or it is one for both.
    """
    source = table.column(text, SOURCES, "text, the source")
    goal = table.column(target, TARGETS, "target")
    left = [name for name in table.names if name not in (source, goal)]
    if source is None and left:
        source = left.pop(0)
    if goal is None and left:
        goal = left.pop(0)
    if source is None or source == goal:
        raise InputError(
            f"{table.where}: {source or goal!r} cannot be the source and the target at once; the "
            f"columns are {', '.join(map(repr, table.names))}."
        )
    return source, goal


def read_sources(data: Any, text: str | None) -> Sequence[str]:
    """Read what is to be translated.

    Args:
        data: texts; a path of a table (by its suffix) or rows in memory, with the source in the
            column `text`, or a usual name, or the first; a path of any other file, or "-", whose
            lines are the sources, up to a TAB where there is one in each of the first.
        text: the column of the sources in training.

    Raises:
        FileError, InputError: as `elman.data.tables.read_table`.
    """
    if isinstance(data, str | Path):
        if Path(data).suffix.lower() not in _TABLES:
            lines = _lines(Path(data))
            if not all("\t" in line for line in lines[:_LOOKED_AT]):
                return lines
            return [line.partition("\t")[0] for line in lines]
    elif _are_texts(data):
        return data
    table = read_table(data, where="predict")
    known = text if text in table.names or (text or "").isdecimal() else None
    if len(table.names) == 1:
        return table.text(table.names[0])
    return table.text(columns_of(table, known, None)[0])


def _are_texts(data: Any) -> bool:
    return isinstance(data, Sequence) and bool(data) and all(isinstance(e, str) for e in data)


def line_by_line(files: Any) -> bool:
    """Return whether data are the names of two files that are no tables."""
    if not isinstance(files, Sequence) or len(files) != 2:
        return False
    if not all(isinstance(file, str | Path) for file in files):
        return False
    return not any(Path(file).suffix.lower() in _TABLES for file in files)


def _aligned(source: Path, target: Path) -> Pairs:
    sides = [_lines(source), _lines(target)]
    counts = [len(side) for side in sides]
    if counts[0] != counts[1]:
        longer = source if counts[0] > counts[1] else target
        raise FileError(
            f"{longer}, line {min(counts) + 1}: has no partner: {source} has {counts[0]:,} lines "
            f"and {target} {counts[1]:,}; line by line they must belong together."
        )
    digest = hashlib.sha256()
    for side in sides:
        for line in side:
            digest.update(line.encode() + b"\n")
        digest.update(b"\0")
    words = f"{source} and {target}: {counts[0]:,} lines each, line by line"
    return Pairs(
        sides[0], sides[1], words, None, digest.hexdigest(), None, (str(source), str(target))
    )


def _lines(path: Path) -> TextColumn:
    """The lines of a text file, in memory or mapped."""
    cells, count = Cells(), 0
    for lines in _some_lines(path):
        cells.append(block_of_rows([[line.encode()] for line in lines], 1, count + 1))
        count += len(lines)
    cells.finish()
    return TextColumn(cells, 0, range(count))


def _some_lines(path: Path) -> Iterator[list[str]]:
    held: list[str] = []
    for chunk in read_chunks(path):
        first, *more = chunk.split("\n")
        held.append(first)
        if more:
            yield ["".join(held), *more[:-1]]
            held = [more[-1]]
    if "".join(held):
        yield ["".join(held)]
