"""Tables of any size: CSV, TSV, JSONL, Parquet, Arrow, rows in memory; columns by name."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elman.data import records
from elman.data.columns import MEMORY_BYTES, Cells, TextColumn, block_of_rows
from elman.data.delimited import Form, even, read_rows
from elman.data.reading import open_bytes, read_chunks
from elman.data.table_kinds import (
    MOST_ROWS,
    binary_kind,
    has_header,
    is_missing,
    is_number,
    text_kind,
)
from elman.errors import FileError, InputError, nearest

_LOOKED_AT = 10_000  # rows from which a column is judged
_DISTINCT = 10_000
_BUFFERED = 1 << 20
_SHOWN = 20


@dataclass(frozen=True)
class Facts:
    """What a column's cells are like, for telling what the column is.

    Attributes:
        rows: looked at.
        empty: how many are empty or blank.
        distinct: different cells that are not empty, counted up to 10,000.
        numeric: share of the cells that are not empty that are numbers, 0 to 1.
        vectors: share of them that begin as a JSON list does, 0 to 1.
        words: mean number of words of them.
    """

    rows: int
    empty: int
    distinct: int
    numeric: float
    vectors: float
    words: float


@dataclass(frozen=True)
class _Source:
    """Where rows came from: from row `first` on, a file by lines, or something by rows."""

    first: int
    name: str
    words: str
    by_line: bool


class Table:
    """Rows and named columns; `read_table` makes it.

    Attributes:
        names: of the columns; "1", "2", … where the file has no header.
        headed: whether the names came with the data.
        fingerprint: hex digest of names and cells.
        source_words: files, kinds, header, rows and columns, for people.
        where: the caller's name, for errors.
    """

    def __init__(
        self, names: Sequence[str], headed: bool, cells: Cells, sources: list[_Source], where: str
    ):
        self.names, self.headed, self.where = tuple(names), headed, where
        self._cells, self._sources = cells, sources
        self._numbers = {name: i for i, name in enumerate(self.names)}
        self.fingerprint = cells.fingerprint(self.names)

    def __len__(self) -> int:
        return self._cells.rows

    @property
    def source_words(self) -> str:
        """Say what was read."""
        names = [source.name for source in self._sources]
        files = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        columns = len(self.names)
        return (
            f"{files}: {self._sources[0].words}, {len(self):,} row{'s' * (len(self) != 1)}, "
            f"{columns} column{'s' * (columns != 1)}"
        )

    def _index(self, name: str) -> int:
        if name not in self._numbers:
            raise InputError(
                f"{self.where}: there is no column {name!r}; {self._there_are()}."
                f"{nearest(name, self.names)}"
            )
        return self._numbers[name]

    def _there_are(self) -> str:
        """List the columns there are."""
        shown = ", ".join(map(repr, self.names[:_SHOWN]))
        more = f" and {len(self.names) - _SHOWN} more" if len(self.names) > _SHOWN else ""
        unnamed = "" if self.headed else " (the file has no header, so columns go by number)"
        return f"{self._sources[0].name} has {shown}{more}{unnamed}"

    def column(self, given: str | None, guesses: Sequence[str], what: str) -> str | None:
        """Return the name of a column that was asked for, or one of the usual names.

        Args:
            given: a name, or a number from "1" that is no name; None tries the guesses.
            guesses: usual names in order; capitals do not matter.
            what: the column's role, for the error ("text").

        Returns:
            the name; None where nothing was asked for and none of the guesses is there.

        Raises:
            InputError: there is no such column; it lists those there are.
        """
        if given is not None:
            if given in self._numbers:
                return given
            if given.isdecimal() and 1 <= int(given) <= len(self.names):
                return self.names[int(given) - 1]
            raise InputError(
                f"{self.where}: there is no column {given!r} ({what}); {self._there_are()}."
                f"{nearest(given, self.names)}"
            )
        folded: dict[str, str] = {}
        for name in self.names:
            folded.setdefault(name.casefold(), name)
        return next((folded[g.casefold()] for g in guesses if g.casefold() in folded), None)

    def place(self, row: int) -> str:
        """Return where a row stands ("train.tsv, line 12"); rows count from 0."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        firsts = [source.first for source in self._sources]
        source = self._sources[bisect_right(firsts, row) - 1]
        return f"{source.name}, {'line' if source.by_line else 'row'} {self._cells.line(row)}"

    def text(self, name: str) -> TextColumn:
        """Return a column's cells as text, decoded as they are read.

        Raises:
            InputError: there is no such column.
        """
        return TextColumn(self._cells, self._index(name), range(len(self)))

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as float64, (rows,); NaN where a cell is empty, null, NA or NaN.

        Raises:
            InputError: there is no such column.
            FileError: a cell that is no number, or an infinite one; its file and line.
        """
        column = self._index(name)
        result = np.empty(len(self), dtype=np.float64)
        at = 0
        for cells in self._cells.walk(column, 0, len(self)):
            try:
                values = [float(cell) for cell in cells]
            except ValueError:
                values = [self._number(cell, at + i, name) for i, cell in enumerate(cells)]
            result[at : at + len(cells)] = values
            at += len(cells)
            odd = np.isinf(result[at - len(cells) : at]).any() or any(b"_" in c for c in cells)
            if odd:
                for i, cell in enumerate(cells, at - len(cells)):
                    self._number(cell, i, name)
        return result

    def _number(self, cell: bytes, row: int, name: str) -> float:
        text = cell.decode()
        if is_missing(text):
            return float("nan")
        if is_number(text):
            value = float(text)
            if np.isinf(value):
                raise FileError(f"{self.place(row)}: column {name}: {text!r} is infinite.")
            return value
        shown = repr(text if len(text) <= 40 else f"{text[:40]}…")
        comma = text.count(",") == 1 and is_number(text.replace(",", "."))
        hint = " (decimal commas: write points)" if comma else ""
        raise FileError(f"{self.place(row)}: column {name}: expected a number, got {shown}{hint}.")

    def vectors(self, name: str) -> list[np.ndarray]:
        """Return a column of JSON lists of numbers as float32 arrays.

        Each is (length,), or (time, features) where a cell is a list of lists.

        Raises:
            InputError: there is no such column.
            FileError: a cell that is no list, or holds anything but finite numbers; its place.
        """
        column = self._index(name)
        found: list[np.ndarray] = []
        for cells in self._cells.walk(column, 0, len(self)):
            found.extend(
                self._vector(cell, row, name) for row, cell in enumerate(cells, len(found))
            )
        return found

    def _vector(self, cell: bytes, row: int, name: str) -> np.ndarray:
        place = f"{self.place(row)}: column {name}"
        try:
            value = json.loads(cell)
            array = np.array(value)  # ragged lists raise
        except (ValueError, RecursionError):
            value, array = None, np.zeros(())
        if not isinstance(value, list) or array.ndim > 2 or array.dtype.kind not in "iuf":
            shown = cell.decode()[:40]
            raise FileError(
                f"{place}: expected a list of numbers, or of equally long lists of them, got "
                f"{shown!r}."
            )
        if not np.isfinite(array).all():
            at = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
            raise FileError(f"{place}: entry {', '.join(map(str, at))} is {array[at]}.")
        return array.astype(np.float32)

    def facts(self, name: str, *, whole: bool = False) -> Facts:
        """Return what a column's cells are like, by its first 10,000 rows or by all.

        Raises:
            InputError: there is no such column.
        """
        column = self._index(name)
        stop = len(self) if whole else min(len(self), _LOOKED_AT)
        empty = numeric = vectors = words = 0
        distinct: set[bytes] = set()
        for cells in self._cells.walk(column, 0, stop):
            for cell in cells:
                text = cell.strip()
                if not text:
                    empty += 1
                    continue
                if len(distinct) < _DISTINCT:
                    distinct.add(cell)
                numeric += len(text) < 400 and is_number(text.decode())
                vectors += text.startswith(b"[")
                words += len(text.split())
        full = max(1, stop - empty)
        return Facts(stop, empty, len(distinct), numeric / full, vectors / full, words / full)


# -- reading ---------------------------------------------------------------------------------


def read_table(
    source: Any,
    *,
    where: str = "train",
    header: bool | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Table:
    r"""Read a table from files, or from rows in memory.

    Files are CSV, TSV, JSONL, Parquet or Arrow, told by suffix and content. CSV has cells in double
    quotes where they hold separators, line ends or quotes, and "," or ";" or TAB between; TSV is
    split on TABs and line ends alone. Everything is read in a stream, and beyond `memory_bytes` it
    lies in a temporary file that is mapped.

    Args:
        source: a path, "-" for standard input, a list of paths (joined), an iterable of
            dictionaries, or a table with Arrow's C interface (pandas, polars, pyarrow).
        where: name of the caller, for errors.
        header: whether the first row of CSV or TSV names the columns; None looks.
        memory_bytes: of cells that stay in memory, >= 0.

    Returns:
        the table, at least one row of at least one column.

    Raises:
        FileError: a file that cannot be read, has no rows, rows of different widths, a quote that
            is not closed, other columns than the file before; file and line are named.
        InputError: rows in memory that are none.

    Example:
        >>> table = read_table([{"text": "a fine film", "stars": 4}, {"text": "a bore"}])
        >>> table.names, list(table.text("text")), table.numbers("stars").tolist()
        (('text', 'stars'), ['a fine film', 'a bore'], [4.0, nan])
    """
    reader = _Reader(where, header, Cells(memory_bytes))
    try:
        for entry in _entries(source, where):
            if isinstance(entry, Path):
                reader.file(entry)
            else:
                reader.records(entry, f"{where}: the data", "rows in memory")
        return reader.finish()
    except BaseException:
        reader.cells.drop()
        raise


def _entries(source: Any, where: str) -> list[Any]:
    """Return paths, or one thing of rows."""
    if isinstance(source, str | Path):
        return [Path(source)]
    if records.is_records(source) or not isinstance(source, Iterable):
        return [records.rows_of(source, where)]
    if isinstance(source, Sequence) and source:
        paths = [isinstance(entry, str | Path) for entry in source]
        if all(paths):
            return [Path(entry) for entry in source]
    return [records.rows_of(source, where)]


class _Reader:
    """Reads one thing after the other into the same cells."""

    def __init__(self, where: str, header: bool | None, cells: Cells):
        self.where, self.header, self.cells = where, header, cells
        self.names: list[str] = []
        self.headed = True
        self.sources: list[_Source] = []

    def finish(self) -> Table:
        """Return the table."""
        self.cells.finish()
        return Table(self.names, self.headed, self.cells, self.sources, self.where)

    def file(self, path: Path) -> None:
        """Read a file of any kind."""
        name = "standard input" if str(path) == "-" else str(path)
        if str(path) != "-":
            with open_bytes(path) as file:
                kind = binary_kind(path, file.read(8))
            if kind is not None:
                self.records(records.read_binary(path, kind), name, kind)
                return
        chunks = read_chunks(path)
        head = next(chunks)
        while head.count("\n") < 2 and (more := next(chunks, "")):
            head += more
        found = text_kind(path, head)
        parts = _again(head, chunks)
        if found.form is None:
            self._jsonl(parts, name)
        else:
            self._delimited(parts, name, found.in_words(), found.form)

    def _delimited(self, chunks: Iterable[str], name: str, kind: str, form: Form) -> None:
        first, before = self.cells.rows, len(self.sources)
        why = ""
        for rows in read_rows(chunks, form, name):
            if not why:
                line = rows.line(0)
                sample = rows.cells(MOST_ROWS + 1)
                if self._starts_with_header(sample, name, bool(before)):
                    why = f" as in its header, line {line}"
                    rows = rows.without_first()
                elif before:
                    why = f" as in {self.sources[0].name}"
                else:
                    why = f" as in line {line}"
                said = kind if form.separator else "one column, a line a row"
                said += f" {'with' if self.headed else 'without'} header"
                self.sources.append(_Source(first, name, said, True))
            self.cells.append(even(rows, len(self.names), name, form, why))
        self._see_rows(first, name, why.startswith(" as in its header"))

    def _starts_with_header(self, sample: list[list[str]], name: str, joined: bool) -> bool:
        """Take names from the first file's first row, or see that another's are the same."""
        row = [cell.strip() for cell in sample[0]]
        if not joined:
            self.headed = has_header(sample) if self.header is None else self.header
            numbered = [str(i) for i in range(1, len(row) + 1)]
            if self.headed:
                numbered = [cell or n for cell, n in zip(row, numbered, strict=True)]
            self.names = numbered
            twice = [n for i, n in enumerate(self.names) if n in self.names[:i]]
            if twice:
                raise FileError(
                    f"{name}: two columns are called {twice[0]!r} in its header; rename one."
                )
            return self.headed
        if self.headed and row != list(self.names):
            self._other_columns(row, name)
        return self.headed

    def _other_columns(self, names: Sequence[str], name: str) -> None:
        raise FileError(
            f"{name}: its columns are {', '.join(map(repr, names[:_SHOWN]))}; expected "
            f"{', '.join(map(repr, self.names[:_SHOWN]))} as in {self.sources[0].name}."
        )

    def _see_rows(self, first: int, name: str, header: bool) -> None:
        if self.cells.rows == first:
            what = "only a header and no rows" if header else "no rows"
            raise FileError(f"{name}: holds {what}.")

    def _jsonl(self, chunks: Iterable[str], name: str) -> None:
        self._numbered(records.read_jsonl(chunks, name), name, "JSONL", True)

    def records(self, rows: Iterable[dict[str, Any]], name: str, kind: str) -> None:
        """Read dictionaries, one a row."""
        self._numbered(enumerate(rows, 1), name, kind, False)

    def _numbered(
        self, rows: Iterable[tuple[int, dict[str, Any]]], name: str, kind: str, by_line: bool
    ) -> None:
        first, joined = self.cells.rows, bool(self.sources)
        before = set(self.names)
        index = {key: i for i, key in enumerate(self.names)}
        self.sources.append(_Source(first, name, kind, by_line))
        seen: set[str] = set()
        held: list[list[bytes]] = []
        lines: list[int] = []
        size = 0
        for number, row in rows:
            seen.update(row)
            for key in row:
                if key not in index:
                    index[key] = len(index)
            cells = [b""] * len(index)
            for key, value in row.items():
                cells[index[key]] = _encoded(records.cell_of(value), name, number, by_line)
            held.append(cells)
            lines.append(number)
            size += sum(map(len, cells)) + len(cells)
            if size >= _BUFFERED:
                self.cells.append(block_of_rows(held, len(index), np.array(lines)))
                held, lines, size = [], [], 0
        if held:
            self.cells.append(block_of_rows(held, len(index), np.array(lines)))
        self.names = list(index)
        self._see_rows(first, name, False)
        if joined and not before & seen:
            self._other_columns(list(seen), name)


def _encoded(text: str, name: str, number: int, by_line: bool) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FileError(
            f"{name}, {'line' if by_line else 'row'} {number}: a text holds half a surrogate pair, "
            "which is no character."
        ) from None


def _again(head: str, chunks: Iterator[str]) -> Iterator[str]:
    yield head
    yield from chunks
