"""Rows from text with separators, read in a stream: CSV with quotes, TSV without."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, compress, pairwise
from typing import NamedTuple, NoReturn

import numpy as np

from elman.data.columns import Block
from elman.errors import FileError

# A cell whose quote is not closed would otherwise take the rest of a large file into memory.
LONGEST_RECORD = 64 << 20
_NEWLINE, _RETURN, _QUOTE = b'\n\r"'


class Form(NamedTuple):
    """How cells are written.

    Attributes:
        separator: one byte between cells; none where a line is one cell.
        quoted: whether a cell may stand in double quotes and then hold separators and line ends.
    """

    separator: bytes
    quoted: bool


class Rows(NamedTuple):
    """Rows of any widths; as in `Block`, with the number of cells of each row."""

    text: bytes
    starts: np.ndarray
    counts: np.ndarray
    lines: np.ndarray | int

    def line(self, row: int) -> int:
        """Return the line of a row."""
        return self.lines + row if isinstance(self.lines, int) else int(self.lines[row])

    def cells(self, most: int) -> list[list[str]]:
        """Return the cells of the first rows, at most `most` of them."""
        bounds = np.concatenate([[0], np.cumsum(self.counts[:most])])
        starts = self.starts[: bounds[-1] + 1].tolist()
        cells = [self.text[a : b - 1].decode() for a, b in pairwise(starts)]
        return [cells[a:b] for a, b in pairwise(bounds.tolist())]

    def without_first(self) -> Rows:
        """Return all rows but the first."""
        skipped = int(self.counts[0])
        cut = int(self.starts[skipped])
        lines = self.lines + 1 if isinstance(self.lines, int) else self.lines[1:]
        return Rows(self.text[cut:], self.starts[skipped:] - cut, self.counts[1:], lines)


def read_rows(chunks: Iterable[str], form: Form, name: str) -> Iterator[Rows]:
    r"""Yield the rows of a text that comes in pieces; its last line ends in "\n".

    Lines of nothing but blanks are left out.

    Args:
        chunks: as from `elman.data.reading.read_chunks`.
        form: how cells are written.
        name: of the file, for errors.

    Raises:
        FileError: a quote that is not closed, or has something else than a separator behind it; a
            carriage return within a row of CSV.

    Example:
        >>> found = read_rows(['a,"b, c"\n', "\n1,2\n"], Form(b",", True), "x.csv")
        >>> [(rows.cells(9), rows.line(0)) for rows in found]
        [([['a', 'b, c']], 1), ([['1', '2']], 3)]
    """
    held: list[bytes] = []
    line, size, wanted = 1, 0, 0
    for chunk in chunks:
        data = chunk.encode()
        cut = data.rfind(b"\n") + 1
        held.append(data[:cut])
        size += cut
        if cut and size >= wanted:
            whole = b"".join(held)
            rows, used, lines = _parse(whole, form, name, line)
            rest = whole[used:]
            line += lines
            wanted = 2 * len(rest)  # an open cell is looked at again when it has doubled
            if len(rest) > LONGEST_RECORD:
                _unclosed(name, line)
            held, size = [rest], len(rest)
            if len(rows.counts):
                yield rows
        held.append(data[cut:])
        size += len(data) - cut
    whole = b"".join(held)
    if whole:
        rows, used, lines = _parse(whole, form, name, line, exact=True)
        if used < len(whole):
            _unclosed(name, line + lines)
        if len(rows.counts):
            yield rows


def _parse(
    data: bytes, form: Form, name: str, line: int, exact: bool = False
) -> tuple[Rows, int, int]:
    """Return the whole rows in `data`, how many bytes they take, and how many lines.

    Args:
        data: whole lines.
        form: how cells are written.
        name: of the file.
        line: number of the first line.
        exact: whether this is the end, where nothing that follows can close a quote.
    """
    if form.quoted and (b'"' in data or b"\r" in data):
        found = None if exact else _by_parity(data, form.separator, line)
        return found or _one_by_one(data, form.separator, name, line)
    return _plain(data, form.separator, line), len(data), data.count(b"\n")


def _plain(data: bytes, separator: bytes, line: int) -> Rows:
    lines: np.ndarray | int = line
    if data.startswith(b"\n") or b"\n\n" in data or b" \n" in data:
        every = data.split(b"\n")[:-1]
        kept = [i for i, row in enumerate(every) if row.strip(b" ")]
        if len(kept) < len(every):
            data = b"".join(every[i] + b"\n" for i in kept)
            lines = np.array(kept, dtype=np.int64) + line
    array = np.frombuffer(data, dtype=np.uint8)
    ends = array == _NEWLINE
    marks = np.flatnonzero(ends | (array == separator[0]) if separator else ends)
    starts = np.concatenate([[0], marks + 1])
    counts = np.diff(np.flatnonzero(ends[marks]), prepend=-1)
    return Rows(data, starts, counts, lines)


# -- quotes ----------------------------------------------------------------------------------


def _pattern(separator: bytes) -> re.Pattern[bytes]:
    mark = re.escape(separator)
    return re.compile(rb'("[^"]*+(?:""[^"]*+)*+"|(?!")[^' + mark + rb"\n\r]*+)([" + mark + rb"\n])")


def _by_parity(data: bytes, separator: bytes, line: int) -> tuple[Rows, int, int] | None:
    """Parse rows in which every quote opens, closes or is doubled; None where one is not.

    A byte stands within quotes where the number of quotes up to it is odd. So separators are told
    from text without a look at single cells. This must not be the end of the file: a row with a
    single quote amid its text would seem to be still open.
    """
    array = np.frombuffer(data, dtype=np.uint8)
    inside = (np.cumsum(array == _QUOTE, dtype=np.uint8) & 1).astype(bool)
    breaks = (array == separator[0]) | (array == _NEWLINE)
    marks = np.flatnonzero(breaks & ~inside)
    ends = np.flatnonzero(array[marks] == _NEWLINE)
    if not ends.size or (b"\r" in data and (~inside & (array == _RETURN)).any()):
        return None
    marks = marks[: ends[-1] + 1]
    used = int(marks[-1]) + 1
    quotes = np.flatnonzero(array[:used] == _QUOTE)
    opening, closing = quotes[inside[quotes]], quotes[~inside[quotes]]
    doubled = array[opening - 1] == _QUOTE
    doubled[opening == 0] = False
    starting = (opening == 0) | breaks[opening - 1]
    ending = breaks[closing + 1] | (array[closing + 1] == _QUOTE)
    if not ((doubled | starting).all() and ending.all()):
        return None
    keep = np.ones(used, dtype=bool)
    keep[quotes] = False
    keep[opening[doubled]] = True
    text = array[:used][keep].tobytes()
    dropped = np.flatnonzero(~keep)
    starts = np.concatenate([[0], marks + 1 - np.searchsorted(dropped, marks)])
    counts = np.diff(ends, prepend=-1)
    bare = np.flatnonzero(counts == 1)
    at = starts[np.cumsum(counts)[bare] - 1]
    if any(not text[a : text.index(b"\n", a)].strip(b" ") for a in at.tolist()):
        return None  # a blank line, perhaps
    total = data.count(b"\n", 0, used)
    lines: np.ndarray | int = line
    if total != len(counts):
        newlines = np.flatnonzero(array[:used] == _NEWLINE)
        firsts = np.concatenate([[0], marks[ends][:-1] + 1])
        lines = line + np.searchsorted(newlines, firsts)
    return Rows(text, starts, counts, lines), used, total


def _one_by_one(data: bytes, separator: bytes, name: str, line: int) -> tuple[Rows, int, int]:
    """Parse rows cell by cell; what is not whole yet is left.

    Raises:
        FileError: a quote with text behind it, a carriage return.
    """
    pattern = _pattern(separator)
    found = pattern.findall(data)
    used = len(data)
    if sum(len(cell) for cell, _ in found) + len(found) != used:
        used = _whole(data, pattern, name, line)
        found = pattern.findall(data, 0, used)
    cells, ends = [cell for cell, _ in found], [end for _, end in found]
    last = np.frombuffer(b"".join(ends), dtype=np.uint8) == _NEWLINE
    counts = np.diff(np.flatnonzero(last), prepend=-1)
    total = data.count(b"\n", 0, used)
    taken = np.fromiter((cell.count(b"\n") for cell in cells), np.int64, len(cells)) + last
    lines = np.concatenate([[0], np.cumsum(taken)[last][:-1]]) + line if len(counts) else line
    kept = np.array([bool(cell.strip(b" ")) for cell in cells], dtype=bool)
    kept |= np.repeat(counts, counts) > 1  # only a cell alone in its row makes a blank line
    lines = lines[kept[np.cumsum(counts) - 1]] if isinstance(lines, np.ndarray) else lines
    counts = counts[kept[np.cumsum(counts) - 1]]
    cells = [
        cell[1:-1].replace(b'""', b'"') if cell.startswith(b'"') else cell
        for cell in compress(cells, kept)
    ]
    ends = list(compress(ends, kept))
    starts = np.zeros(len(cells) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, cells), np.int64, len(cells)) + 1, out=starts[1:])
    text = b"".join(chain.from_iterable(zip(cells, ends, strict=True)))
    return Rows(text, starts, counts, lines), used, total


def _whole(data: bytes, pattern: re.Pattern[bytes], name: str, line: int) -> int:
    """Return where the last whole row ends; the one behind it has a quote that is still open.

    Raises:
        FileError: the row behind it is not open but wrong.
    """
    at = row = 0
    while match := pattern.match(data, at):
        at = match.end()
        if match[2] == b"\n":
            row = at
    here = line + data.count(b"\n", 0, at)
    if data[at : at + 1] != b'"':
        raise FileError(
            f"{name}, line {here}: a carriage return within a row; rows end in LF or CRLF, and a "
            "cell that holds one stands in quotes."
        )
    closed = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"').match(data, at)
    if closed is not None and closed.end() < len(data):
        behind = data[closed.end() : closed.end() + 20].decode(errors="replace").split("\n")[0]
        here += data.count(b"\n", at, closed.end())
        raise FileError(
            f"{name}, line {here}: behind the closing quote of a cell stands {behind!r}; expected "
            "a separator or the end of the line. A quote within a quoted cell is doubled."
        )
    return row


def _unclosed(name: str, line: int) -> NoReturn:
    raise FileError(
        f"{name}, line {line}: a cell of this row opens a quote that is not closed. A quote within "
        "a quoted cell is doubled; a file whose quotes mean nothing is best written as TSV."
    )


# -- blocks ----------------------------------------------------------------------------------


def even(rows: Rows, columns: int, name: str, form: Form, why: str) -> Block:
    """Return rows as a block after seeing that each has as many cells as there are columns.

    Raises:
        FileError: a row that has more or fewer; its line, and both numbers.
    """
    wrong = np.flatnonzero(rows.counts != columns)
    if wrong.size:
        at = int(wrong[0])
        mark = {b"\t": "TAB", b"": "line end"}.get(form.separator, form.separator.decode())
        hint = " (a cell that holds it stands in double quotes)" if form.quoted else ""
        raise FileError(
            f"{name}, line {rows.line(at)}: {int(rows.counts[at])} columns, expected {columns}"
            f"{why}; columns are separated by {mark!r}{hint}."
        )
    return Block(rows.text, rows.starts, len(rows.counts), columns, rows.lines)
