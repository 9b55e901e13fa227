"""Rows that are dictionaries: JSON lines, Python lists, Arrow; and back to JSON lines."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from elman.errors import FileError, InputError

Row = Mapping[str, Any]
_BATCH_ROWS = 4096
_NEEDS_ARROW = (
    "needs pyarrow, which is not installed: pip install 'elman[tables]', or give CSV, TSV or JSONL."
)


def is_records(data: Any) -> bool:
    """Return whether data is a table in memory that is no iterable of its rows.

    That is, an object with Arrow's C interface or pandas' `to_dict`.
    """
    if isinstance(data, type | Mapping):
        return False
    return hasattr(data, "__arrow_c_stream__") or (
        hasattr(data, "to_dict") and hasattr(data, "columns")
    )


def rows_of(data: Any, where: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table in memory as dictionaries of plain values.

    Args:
        data: an iterable of mappings, an object with `__arrow_c_stream__`, or one with
            `to_dict("records")`.
        where: for errors, the caller's name.

    Raises:
        InputError: something else, or a row that is no mapping or has a key that is no text.
        FileError: Arrow data, and pyarrow is not installed.
    """
    if hasattr(data, "__arrow_c_stream__"):
        arrow = _pyarrow(f"{where}: this table in memory")
        yield from _of_batches(arrow.RecordBatchReader.from_stream(data), where)
        return
    found = data.to_dict("records") if is_records(data) else data
    if isinstance(found, Mapping | str | bytes) or not isinstance(found, Iterable):
        raise InputError(
            f"{where}: data in memory are dictionaries, one a row, or a table (pandas, polars, "
            f"pyarrow); got {type(found).__name__}."
        )
    for number, row in enumerate(found, 1):
        if not isinstance(row, Mapping):
            raise InputError(
                f"{where}, row {number}: expected a dictionary, got {type(row).__name__}."
            )
        for key in row:
            if not isinstance(key, str):
                raise InputError(
                    f"{where}, row {number}: a column's name is text, got {key!r} "
                    f"({type(key).__name__})."
                )
        yield {key: plain(value, f"{where}, row {number}, {key}") for key, value in row.items()}


def plain(value: Any, place: str) -> Any:
    """Return a value as JSON has it; missing ones (NaN, NaT, NA) are None, dates are ISO text.

    Raises:
        InputError: an infinite number, or a value that JSON has not; `place` says where.
    """
    if isinstance(value, np.generic | np.ndarray):
        return plain(_of_numpy(np.asarray(value)), place)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise InputError(f"{place}: the number is infinite.")
        return None if math.isnan(value) else float(value)
    if isinstance(value, datetime.date | datetime.time):
        return None if value != value else value.isoformat()  # NaT is a date, and not itself
    if isinstance(value, decimal.Decimal | Path):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): plain(entry, place) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, place) for entry in value]
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "tolist"):  # an array of another library
        return plain(value.tolist(), place)
    raise InputError(
        f"{place}: a {type(value).__name__} cannot be a cell; give text, a number, a date or a "
        "list of numbers."
    )


def _of_numpy(array: np.ndarray) -> Any:
    """Return Python's values; `tolist` would make integers of times finer than microseconds."""
    if array.dtype.kind == "M":
        missing = np.full(array.shape, None, dtype=object)
        array = np.where(np.isnat(array), missing, np.asarray(np.datetime_as_string(array), object))
    elif array.dtype.kind == "m":
        array = array / np.timedelta64(1, "s")
    return array.tolist()


def cell_of(value: Any) -> str:
    """Return a plain value as the text of a cell; None is empty, a list stays JSON.

    Example:
        >>> [cell_of(value) for value in ("a", 0.1, None, True, [1, 2.5])]
        ['a', '0.1', '', 'true', '[1, 2.5]']
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if type(value) is float and value == value:  # faster than by json, and the same but for inf
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def write_jsonl(data: Any, file: IO[bytes], where: str) -> int:
    """Write the rows of a table in memory as JSON lines, and return how many there are.

    Floats are written so that they are read back exactly; see `plain` for the rest.

    Raises:
        InputError: as of `rows_of`; a text with half a surrogate pair.
    """
    number = 0
    for number, row in enumerate(rows_of(data, where), 1):
        try:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        except UnicodeEncodeError:
            raise InputError(
                f"{where}, row {number}: a text holds half a surrogate pair, which no file can."
            ) from None
    return number


# -- JSON lines ------------------------------------------------------------------------------


def read_jsonl(chunks: Iterable[str], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of every line that is not blank.

    Raises:
        FileError: a line that is no JSON, or no object.
    """
    number, held = 0, ""
    for chunk in chain(chunks, [""]):
        lines = (held + chunk).split("\n")
        held = lines.pop()
        for line in lines:
            number += 1
            if line.strip():
                yield number, _object(line, f"{name}, line {number}")


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{place}: not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise FileError(
            f"{place}: expected an object ({{name: value, …}}), got {type(value).__name__}."
        )
    return value


# -- Arrow -----------------------------------------------------------------------------------


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise FileError(f"{what} {_NEEDS_ARROW}") from None
    return pyarrow


def read_binary(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of Parquet or of Arrow, batch by batch.

    Raises:
        FileError: pyarrow is not installed, or the file is damaged.
    """
    arrow = _pyarrow(f"{path}: {kind}")
    try:
        if kind == "Parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                batches = file.iter_batches(batch_size=_BATCH_ROWS)
                yield from _of_batches(batches, str(path))
            return
        from pyarrow import ipc

        with arrow.memory_map(str(path)) as source:
            if source.read(6) == b"ARROW1":
                file = ipc.open_file(source)
                batches = (file.get_batch(i) for i in range(file.num_record_batches))
            else:
                source.seek(0)
                batches = ipc.open_stream(source)
            yield from _of_batches(batches, str(path))
    except (arrow.ArrowException, OSError) as error:
        raise FileError(f"{path}: damaged, or no {kind}: {error}.") from None


def _of_batches(batches: Iterable[Any], where: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of record batches."""
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(start, _BATCH_ROWS)
            names: list[str] = part.schema.names
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise FileError(f"{where}: two columns are called {twice!r}.")
            columns = [_values(part.column(i), f"{where}: column {n}") for i, n in enumerate(names)]
            for cells in zip(*columns, strict=True):
                number += 1
                yield {
                    name: plain(value, f"{where}, row {number}, {name}")
                    for name, value in zip(names, cells, strict=True)
                }


def _values(column: Any, where: str) -> list[Any]:
    """Return the values of an Arrow array as Python's; times finer than microseconds as text."""
    import pyarrow as arrow

    kind = column.type
    if arrow.types.is_timestamp(kind) and kind.unit == "ns":
        try:
            column = column.cast(arrow.timestamp("us", kind.tz))
        except arrow.ArrowInvalid:
            return column.cast(arrow.string()).to_pylist()
    if arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind):
        raise FileError(f"{where} is bytes ({kind}); text or numbers are needed.")
    return column.to_pylist()
