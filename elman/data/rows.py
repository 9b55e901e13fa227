"""Rows of numbers out of the lines of a table that has no end: CSV with a header, or JSONL."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from elman.data.lines import MOST_LINE_BYTES, TooLong
from elman.data.reading import refuse_known_formats
from elman.errors import FileError, InputError, nearest

ALL = "all"
MOST = 1e100  # beyond it the squares of numbers leave the floating point
_DELIMITERS = ",;\t|"
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
_FALLS = "with a table that grows, use tail -n +1 -f FILE, which begins with the first line"


class Row(NamedTuple):
    """The numbers of a line in the order asked for; None where one is missing."""

    values: tuple[float | None, ...]


class Bad(NamedTuple):
    """A line that is no row, and why."""

    why: str


class Rows:
    r"""The rows of a table, made of its lines one at a time.

    The first line says what the table is: one that begins with "{" makes it JSONL, one object of
    names and numbers a line; any other is the header of a CSV, whose cells are separated by a
    comma, a semicolon, a tab or a bar. A header again among the rows is passed over; if it names
    the columns in another order, that order holds from there on.

    A number is missing where its cell is empty, NA, NaN, null, none, "?" or "-", or its name is
    not in the object.

    Args:
        target: name of the column to forecast.
        features: names of further columns, or "all" for every other one.
        name: what to call the source in messages.
        columns: names of the columns of a CSV without a header; None where the header names them.

    Attributes:
        number: lines taken so far.
        names: of the columns of a row, the target first; empty before the first line.
        others: names of the table's other columns.

    Example:
        >>> rows = Rows("y", ["a"], "sensor.csv")
        >>> [rows.take(line) for line in (b"a,y", b"1,2.5", b"3,", b"a,y")]
        [None, Row(values=(2.5, 1.0)), Row(values=(None, 3.0)), None]
        >>> rows.take(b"x,1")
        Bad(why="a is no number: 'x'")
    """

    def __init__(
        self,
        target: str,
        features: Sequence[str] | str = (),
        name: str = "standard input",
        columns: Sequence[str] | None = None,
    ):
        wanted = [] if features == ALL else [features] if isinstance(features, str) else features
        self.target, self._all, self.name = target, features == ALL, name
        self._wanted = [target, *dict.fromkeys(f for f in wanted if f != target)]
        self.number = 0
        self.kind, self.delimiter, self.header = "", "", list(columns or ())
        self.names: list[str] = []
        self.others: list[str] = []
        self._places: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        """What is known of the table, as plain JSON values."""
        found = ("number", "kind", "delimiter", "header", "names")
        return {name: getattr(self, name) for name in found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the table of `state_dict`."""
        for name in ("number", "kind", "delimiter", "header", "names"):
            setattr(self, name, state[name])
        self._wanted, self._all = [*self.names], False
        self._find()

    def take(self, line: bytes) -> Row | Bad | None:
        """Read a line.

        Args:
            line: without its end.

        Returns:
            the numbers; why the line has none; or None for a header and for an empty line.

        Raises:
            FileError: the first line shows that this is no such table.
            InputError: a column that the table does not have.
        """
        self.number += 1
        if isinstance(line, TooLong):
            return Bad(f"a line of more than {MOST_LINE_BYTES:,} bytes")
        if not self.kind:
            line = line.removeprefix(b"\xef\xbb\xbf")
            refuse_known_formats(line, self.name)
        try:
            text = line.decode().strip(" ")  # a tab at an end may be an empty cell
        except UnicodeDecodeError as error:
            return self._no_text(f"not UTF-8 at byte {error.start} of the line")
        if "\0" in text:
            return self._no_text("a NUL, as in a binary file")
        if not text or text.isspace():
            return None
        if not self.kind:
            return self._begin(text)
        return self._object(text) if self.kind == "jsonl" else self._cells(text)

    def _no_text(self, why: str) -> Bad:
        if not self.kind:
            raise FileError(f"{self.name}: line {self.number} is {why}; expected CSV or JSONL.")
        return Bad(why)

    # The first line.

    def _begin(self, text: str) -> Row | Bad | None:
        if text.startswith("{"):
            self.kind = "jsonl"
            values = _parse(text)
            if isinstance(values, Bad):
                raise FileError(f"{self._here()}: {values.why}; expected one JSON object a line.")
            self.header = list(values)
            self._find()
            return self._object(text)
        if text.startswith("["):
            raise FileError(
                f"{self._here()}: a JSON array; expected one JSON object a line, or CSV. With jq: "
                "jq -c '.[]' FILE"
            )
        self.kind, self.delimiter = "csv", _delimiter(text)
        try:
            cells = _split(text, self.delimiter)
        except csv.Error as error:
            raise FileError(f"{self._here()}: no header of a CSV ({error}).") from None
        if self.header:
            self._find()
            return self._cells(text)
        if self.target not in cells and any(isinstance(_number(c), float) for c in cells):
            raise FileError(
                f"{self._here()}: the first line has numbers and no names: {_short(text)}; {_FALLS}"
                ", or name the columns (--columns)."
            )
        doubled = [c for c in cells if cells.count(c) > 1 and (self._all or c in self._wanted)]
        if doubled:
            raise FileError(f"{self._here()}: the header has {doubled[0]!r} twice.")
        self.header = cells
        self._find()
        return None

    def _here(self) -> str:
        return f"{self.name}, line {self.number}"

    def _find(self) -> None:
        """Where the columns asked for are."""
        if self._all:
            rest = [column for column in self.header if column != self.target]
            self._wanted, self._all = [self.target, *rest], False
        for column in self._wanted:
            if column not in self.header:
                there = ", ".join(self.header[:20]) + (", …" if len(self.header) > 20 else "")
                raise InputError(
                    f"{self.name}: there is no column {column!r}.{nearest(column, self.header)} "
                    f"There are: {there}."
                )
        self.names = [*self._wanted]
        self.others = [column for column in self.header if column not in self.names]
        self._places = [self.header.index(column) for column in self.names]

    # Rows.

    def _cells(self, text: str) -> Row | Bad | None:
        try:
            cells = _split(text, self.delimiter)
        except csv.Error as error:
            return Bad(f"no row of a CSV ({error})")
        if len(cells) != len(self.header):
            return Bad(f"{len(cells)} cells, not {len(self.header)}: {_short(text)}")
        if cells[self._places[0]] in self.header and sorted(cells) == sorted(self.header):
            if cells != self.header:
                self.header = cells
                self._find()
            return None
        return self._row([cells[place] for place in self._places])

    def _object(self, text: str) -> Row | Bad:
        values = _parse(text)
        if isinstance(values, Bad):
            return values
        return self._row([values.get(name) for name in self.names])

    def _row(self, found: Sequence[Any]) -> Row | Bad:
        numbers: list[float | None] = []
        for name, value in zip(self.names, found, strict=True):
            number = _number(value)
            if isinstance(number, Bad):
                return Bad(f"{name} is {number.why}")
            numbers.append(number)
        return Row(tuple(numbers))


def _number(value: Any) -> float | Bad | None:
    """The number that a cell or a JSON value is; None where it stands for a missing one."""
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() in _MISSING:
        return None
    plain = isinstance(value, str) and "_" not in value
    if not plain and (isinstance(value, bool) or not isinstance(value, int | float)):
        return Bad(f"no number: {_short(value)}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return Bad(f"no number: {_short(value)}")
    if number != number:
        return None
    if not -MOST <= number <= MOST:
        return Bad(f"beyond all measure: {_short(value)}")
    return number


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else words[:57] + "…"


def _parse(text: str) -> dict[str, Any] | Bad:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Bad(f"no JSON ({error}): {_short(text)}")
    return values if isinstance(values, dict) else Bad(f"no JSON object: {_short(text)}")


def _delimiter(header: str) -> str:
    """What separates the cells of a header: the mark that is most frequent, the comma first."""
    bare = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=bare.count)


def _split(text: str, delimiter: str) -> list[str]:
    """The cells of a line, without the white space around them."""
    cells = text.split(delimiter)
    if '"' in text:
        cells = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True))
    return [cell.strip() for cell in cells]
