"""What a forecast writes: a line for each row, in the form that the rows came in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import BinaryIO, Protocol

from elman.errors import FileError, RunError
from elman.online.forecast import Forecast

COLUMNS = ("line", *Forecast._fields)
_DIGITS = (17, 9, 9, 6, 6, 6, 6)  # the target as it came, the rest as it is worth


class Output(Protocol):
    """Where lines go, each handed to the system as it is written."""

    def write(self, data: bytes) -> None: ...

    def sync(self) -> int | None:
        """Flush to the disk; the bytes written so far where they can be taken back."""
        ...


class ToScreen:
    """Standard output."""

    def write(self, data: bytes) -> None:
        stream = getattr(sys.stdout, "buffer", None)
        if stream is None:
            sys.stdout.write(data.decode())
            sys.stdout.flush()
            return
        try:
            stream.write(data)
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            why = error.strerror or error
            raise FileError(f"standard output: cannot be written: {why}.") from None

    def sync(self) -> int | None:
        return None


class ToFile:
    """A file, whose end can be taken back.

    Args:
        path: of the file.
        keep: bytes of it that stay; what comes behind them is cut off. None: there must be none.

    Raises:
        RunError: the file is there and `keep` is None, or it is shorter.
        FileError: the system does not allow it.
    """

    def __init__(self, path: Path, keep: int | None = None):
        self.path = path
        size = path.stat().st_size if path.is_file() else 0
        if keep is None and size:
            raise RunError(
                f"{path} is there already; name another file (--output), go on with its run "
                "(--resume), or write over it (--overwrite)."
            )
        if keep and size < keep:
            raise RunError(
                f"{path} has {size:,} bytes, and the run wrote {keep:,}: it was cut or taken away. "
                "Name another file for what comes (--output)."
            )
        try:
            self._file: BinaryIO = path.open("r+b" if keep else "wb", buffering=0)
            if keep:
                self._file.truncate(keep)
                self._file.seek(keep)
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror or error}.") from None

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written: {error.strerror or error}.") from None

    def sync(self) -> int | None:
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def header(kind: str, delimiter: str) -> bytes:
    """The names of the columns, where the form has a line for them."""
    return f"{delimiter.join(COLUMNS)}\n".encode() if kind == "csv" else b""


def row(kind: str, delimiter: str, number: int, forecast: Forecast | None) -> bytes:
    r"""A line of output.

    Args:
        kind: "csv" or "jsonl".
        delimiter: between the cells of a CSV.
        number: of the line that came in.
        forecast: None for a line that was no row: all but the number is empty.

    Example:
        >>> row("csv", ",", 7, Forecast(1.5, 1.25, 2.0, 0.25, 0.1, None, None))
        b'7,1.5,1.25,2,0.25,0.1,,\n'
        >>> row("jsonl", ",", 8, None)[:36]
        b'{"line": 8, "target": null, "predict'
    """
    values = forecast or (None,) * len(_DIGITS)
    cells = [_cell(v, digits) for v, digits in zip(values, _DIGITS, strict=True)]
    if kind == "csv":
        return f"{number}{delimiter}{delimiter.join(cells)}\n".encode()
    pairs = ", ".join(f'"{n}": {c or "null"}' for n, c in zip(COLUMNS[1:], cells, strict=True))
    return f'{{"line": {number}, {pairs}}}\n'.encode()


def _cell(value: float | None, digits: int) -> str:
    if value is None:
        return ""
    if digits == 17:  # the shortest that is this number
        return json.dumps(value)
    return f"{value:.{digits}g}"
