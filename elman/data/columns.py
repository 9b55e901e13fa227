"""The cells of a table as UTF-8 bytes, in memory or in a temporary file that is mapped."""

from __future__ import annotations

import hashlib
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple, overload

import numpy as np

from elman.errors import FileError

MEMORY_BYTES = 256 << 20  # more than this goes to a temporary file
_ALIGNED = 8


class Block(NamedTuple):
    """Rows on their way into a table.

    Attributes:
        text: the cells, row after row, one byte behind each.
        starts: where in `text` each cell starts, and its length at the end, (cells + 1,).
        rows: how many there are, all of `columns` cells.
        columns: cells of a row.
        lines: the line of each row, (rows,), or that of the first where no line is left out.
    """

    text: bytes
    starts: np.ndarray
    rows: int
    columns: int
    lines: np.ndarray | int


class _Part(NamedTuple):
    """Where a block lies; positions in bytes, `lines` < 0 where lines follow on `line`."""

    first: int
    rows: int
    columns: int
    text: int
    size: int
    starts: int
    lines: int
    line: int


class Cells:
    """Rows of cells, added block by block, then read by row and column.

    Beyond `memory_bytes` all goes to an unnamed temporary file, which is mapped and shared, so that
    a table may be larger than memory. A block may have more columns than those before it; what they
    lack is empty.

    Args:
        memory_bytes: what may stay in memory, in bytes, >= 0.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES):
        self.memory_bytes = memory_bytes
        self.rows = 0
        self._parts: list[_Part] = []
        self._firsts: list[int] = []
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._size = 0
        self._data: np.ndarray | None = None
        self._hashes = hashlib.sha256(), hashlib.sha256()

    def append(self, block: Block) -> None:
        """Add rows at the end."""
        if not block.rows:
            return
        wide = len(block.text) >= 1 << 32
        starts = block.starts.astype(np.uint64 if wide else np.uint32)
        text, line, lines = self._add(block.text), 0, -1
        if isinstance(block.lines, np.ndarray):
            lines = self._add(block.lines.astype(np.int64).tobytes())
        else:
            line = block.lines
        place = self._add(starts.tobytes())
        part = _Part(
            self.rows, block.rows, block.columns, text, len(block.text), place, lines, line
        )
        self._parts.append(part)
        self._firsts.append(self.rows)
        self.rows += block.rows
        self._hashes[0].update(block.text)
        self._hashes[1].update(np.diff(block.starts).astype(np.uint64).tobytes())

    def _add(self, data: bytes) -> int:
        place = self._size
        data += b"\0" * (-len(data) % _ALIGNED)
        self._size += len(data)
        if self._file is None and self._size <= self.memory_bytes:
            self._memory += data
            return place
        if self._file is None:
            # Unbuffered: blocks are large, and nothing is left to fail when it is closed.
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long)
            self._write(self._memory)
            self._memory = bytearray()
        self._write(data)
        return place

    def _write(self, data: bytes | bytearray) -> None:
        """Write to the file; the system may take less than it is given.

        Raises:
            FileError: there is no room.
        """
        rest = memoryview(data)
        try:
            while self._file is not None and rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise FileError(
                f"{tempfile.gettempdir()}: a table of more than {self._size >> 20:,} MiB cannot be "
                f"kept here: {(error.strerror or str(error)).lower()}. Name another temporary "
                "folder (TMPDIR)."
            ) from None

    def drop(self) -> None:
        """Close the temporary file, where reading has failed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """End adding; from here on there is reading."""
        if self._file is None:
            self._data = np.frombuffer(self._memory, dtype=np.uint8)
            return
        self._data = np.memmap(self._file, dtype=np.uint8, mode="r+", shape=(self._size,))
        self._file.close()  # the mapping holds the file
        self._file = None

    def fingerprint(self, names: Sequence[str]) -> str:
        """Return a hex digest of names and cells."""
        own = [name.encode() for name in names]
        whole = hashlib.sha256(repr(own).encode())
        for part in self._hashes:
            whole.update(part.digest())
        return whole.hexdigest()

    def _array(self, place: int, count: int, kind: type) -> np.ndarray:
        if self._data is None:
            raise RuntimeError("cells are read after finish()")
        size = count * np.dtype(kind).itemsize
        return self._data[place : place + size].view(kind)

    def _starts(self, part: _Part) -> np.ndarray:
        kind = np.uint64 if part.size >= 1 << 32 else np.uint32
        return self._array(part.starts, part.rows * part.columns + 1, kind)

    def line(self, row: int) -> int:
        """Return the line a row stands in."""
        part = self._parts[bisect_right(self._firsts, row) - 1]
        if part.lines < 0:
            return part.line + row - part.first
        return int(self._array(part.lines, part.rows, np.int64)[row - part.first])

    def cell(self, row: int, column: int) -> bytes:
        """Return one cell."""
        part = self._parts[bisect_right(self._firsts, row) - 1]
        if column >= part.columns:
            return b""
        at = (row - part.first) * part.columns + column
        start, end = self._starts(part)[at : at + 2].tolist()
        return self._array(part.text + start, end - 1 - start, np.uint8).tobytes()

    def walk(self, column: int, start: int, stop: int) -> Iterator[list[bytes]]:
        """Yield the cells of a column from row `start` up to `stop`, in pieces."""
        at = bisect_right(self._firsts, start) - 1
        while start < stop:
            part = self._parts[at]
            end = min(stop, part.first + part.rows)
            low, high = start - part.first, end - part.first
            start, at = end, at + 1
            if column >= part.columns:
                yield [b""] * (high - low)
                continue
            marks = self._starts(part)[low * part.columns : high * part.columns + 1]
            base = int(marks[0])
            text = self._array(part.text + base, int(marks[-1]) - base, np.uint8).tobytes()
            begins = (marks[column :: part.columns][: high - low].astype(np.int64) - base).tolist()
            ends = (marks[column + 1 :: part.columns].astype(np.int64) - (base + 1)).tolist()
            yield [text[a:b] for a, b in zip(begins, ends, strict=True)]


class TextColumn(Sequence[str]):
    """A column's cells as text, decoded as they are read.

    A slice is such a sequence again; going through it reads the table in a stream.

    Args:
        cells: of the table.
        column: its number, from 0.
        rows: which rows, in order.
    """

    def __init__(self, cells: Cells, column: int, rows: range):
        self._cells, self._column, self._rows = cells, column, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> TextColumn: ...
    def __getitem__(self, index: int | slice) -> str | TextColumn:
        if isinstance(index, slice):
            return TextColumn(self._cells, self._column, self._rows[index])
        return self._cells.cell(self._rows[index], self._column).decode()

    def __iter__(self) -> Iterator[str]:
        rows = self._rows
        if rows.step != 1:
            yield from (self[i] for i in range(len(rows)))
            return
        for cells in self._cells.walk(self._column, rows.start, rows.stop):
            yield from map(bytes.decode, cells)

    def __repr__(self) -> str:
        shown = ", ".join(repr(self[i]) for i in range(min(3, len(self))))
        return f"<{len(self):,} cells: {shown}{', …' if len(self) > 3 else ''}>"


def block_of_rows(rows: Sequence[Sequence[bytes]], columns: int, lines: np.ndarray | int) -> Block:
    """Return a block of rows of cells; a short row is filled up with empty cells."""
    flat: list[bytes] = []
    for row in rows:
        flat.extend(row)
        if len(row) < columns:
            flat.extend([b""] * (columns - len(row)))
    starts = np.zeros(len(flat) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, flat), np.int64, len(flat)) + 1, out=starts[1:])
    text = b"\n".join(flat) + b"\n" * bool(flat)
    return Block(text, starts, len(rows), columns, lines)
