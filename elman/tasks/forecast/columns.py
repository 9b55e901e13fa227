"""Which columns of a table are what, and the series that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from elman.data.tables import Table, read_table
from elman.errors import FileError, InputError, nearest
from elman.tasks.forecast.grid import Grid, check_dates, find_grid, read_stamps
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.series import Series

_TIMES = ("ds", "date", "time", "timestamp", "datetime", "day", "week", "month", "year")
_IDS = ("unique_id", "id", "series", "series_id", "item_id")
_TARGETS = ("y", "target", "value")


@dataclass(frozen=True)
class Columns:
    """The columns of a table by their part; "" is none.

    Args:
        target: one name, or several, each of which is a series.
        time, id: of the stamps, and of what tells series apart.
        past, future: covariates.
    """

    target: tuple[str, ...]
    time: str
    id: str
    past: tuple[str, ...]
    future: tuple[str, ...]

    def options(self) -> dict[str, str]:
        """Return them as options."""
        return {
            "target": ",".join(self.target),
            "time": self.time,
            "id": self.id,
            "past": ",".join(self.past),
            "future": ",".join(self.future),
        }

    @classmethod
    def of(cls, options: ForecastOptions) -> Columns:
        """Return the columns of settled options."""
        names = (options.target, options.past, options.future)
        target, past, future = (tuple(split(n)) for n in names)
        return cls(target, options.time or "", options.id or "", past, future)


def split(names: str | None) -> list[str]:
    """The names in "a,b".

    Example:
        >>> split("a, b"), split(""), split(None)
        (['a', 'b'], [], [])
    """
    return [name.strip() for name in (names or "").split(",") if name.strip()]


@dataclass(frozen=True)
class Loaded:
    """The series of files.

    Args:
        series: in the order in which they begin in the files.
        columns: they came from.
        grid: of time.
        notes: what was found and done, in lines.
        fingerprint: of the tables.
    """

    series: list[Series]
    columns: Columns
    grid: Grid
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""


def find_columns(table: Table, options: ForecastOptions) -> Columns:
    """Find the columns that options leave open, and see that those they name are there.

    Raises:
        InputError: a column that is not there, or a target that cannot be guessed.
    """
    time = _one(table, options.time, _TIMES, "time") or ""
    name = _one(table, options.id, _IDS, "id") or ""
    past, future = (
        tuple(str(table.column(n, (), what)) for n in split(given))
        for given, what in ((options.past, "past"), (options.future, "future"))
    )
    taken = {time, name, *past, *future}
    target = tuple(str(table.column(n, (), "target")) for n in split(options.target))
    if not target:
        free = [n for n in table.names if n not in taken]
        named = table.column(None, [n for n in _TARGETS if n in {f.lower() for f in free}], "y")
        numeric = [n for n in free if table.facts(n).numeric > 0.5]
        target = (named,) if named else tuple(numeric)
    if not target:
        raise InputError(
            f"forecast: {_where(table)} has no column of numbers to forecast; its columns are "
            f"{', '.join(table.names)}. Name one with target."
        )
    if name and len(target) > 1:
        raise InputError(
            f"forecast: {_where(table)} has several columns that may be the target, "
            f"{', '.join(target)}; name one with target, and the others that matter with past or "
            "future."
        )
    for twice in target:
        if twice in taken:
            raise InputError(f"forecast: the column {twice!r} is the target and something else.")
    return Columns(target, time, name, past, future)


def _one(table: Table, given: str | None, guesses: Sequence[str], what: str) -> str | None:
    return None if given == "" else table.column(given, guesses, what)


def _where(table: Table) -> str:
    return table.source_words.partition(":")[0]


def load(
    files: Any, options: ForecastOptions, *, grid: Grid | None = None, where: str = "forecast"
) -> Loaded:
    """Read the series of files.

    Args:
        files: as `elman.data.tables.read_table` takes them.
        options: whose open columns are found.
        grid: of training, for new files; None finds it.
        where: for errors.

    Raises:
        FileError: stamps or values that cannot be read; two rows for one moment of a series.
        InputError: columns that are not there.
    """
    table = read_table(files, where=where)
    columns = find_columns(table, options)
    names = table.text(columns.id)[:] if columns.id else None
    groups = _groups(names, len(table))
    stamps = np.arange(len(table), dtype=np.float64)
    notes = [f"table: {table.source_words}"]
    if columns.time:
        place = f"{_where(table)}, column {columns.time}"
        texts = list(table.text(columns.time))
        file = f"{_where(table)}, "
        stamps, dates = read_stamps(texts, place, lambda row: table.place(row).removeprefix(file))
        if grid is None:
            grid = find_grid([stamps[rows] for rows in groups.values()], dates, place)
        check_dates(dates, grid, place)
    elif grid is None:
        grid = Grid("rows", 1, 1)
    series, done = _series(table, columns, groups, stamps, grid)
    notes += [_columns_in_words(columns, grid), *done]
    return Loaded(series, columns, grid, notes, table.fingerprint)


def _groups(names: Sequence[str] | None, rows: int) -> dict[str, np.ndarray]:
    """The rows of each series, in the order of the file; one of all rows where there is no id."""
    if names is None:
        return {"": np.arange(rows)}
    found, inverse = np.unique(np.asarray(names, dtype=object), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    pairs = sorted(zip(found, parts, strict=True), key=lambda pair: pair[1][0])
    return {str(name): rows for name, rows in pairs}


def _series(
    table: Table,
    columns: Columns,
    groups: dict[str, np.ndarray],
    stamps: np.ndarray,
    grid: Grid,
) -> tuple[list[Series], list[str]]:
    values = {n: _finite(table, n) for n in (*columns.target, *columns.past, *columns.future)}
    series, moved, empty, steps, unordered = [], 0, 0, 0, False
    for name, rows in groups.items():
        if columns.time and grid.kind != "rows":
            places, exact = grid.places(stamps[rows])
            _check_once(table, rows, stamps[rows], columns)
            moved += int((~exact).sum())
            unordered |= bool((np.diff(places) < 0).any())
        else:
            places = np.arange(len(rows))
        first, end = int(places.min()), int(places.max()) + 1
        steps += end - first
        empty += end - first - len(np.unique(places))

        def laid(
            column: str, places: np.ndarray = places - first, count: int = end - first, rows=rows
        ) -> np.ndarray:
            return _laid(values[column][rows], places, count)

        past, future = (
            np.stack([laid(c) for c in part], 1) if part else np.zeros((end - first, 0))
            for part in (columns.past, columns.future)
        )
        series += [
            Series(name or column, first, laid(column), past, future) for column in columns.target
        ]
    done = [_missing(table, name, v) for name, v in values.items() if np.isnan(v).any()]
    if unordered:
        done.append("time: the rows are not in order of time; they were put into it")
    if moved:
        done.append(
            f"time: {moved:,} stamps lie between the steps of one {grid.words()}; each went to the "
            "nearest (the mean where several meet)"
        )
    if empty:
        done.append(
            f"time: {empty:,} of {steps:,} steps have no row; they are filled in what is read "
            "(linearly between neighbours) and never scored"
        )
    return series, done


def _finite(table: Table, name: str) -> np.ndarray:
    values = table.numbers(name)
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise FileError(
            f"{table.place(int(infinite[0]))}: {name} is {values[infinite[0]]}; a series needs "
            "finite numbers (leave a cell empty where the value is missing)."
        )
    return values


def _laid(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Values on the grid: the mean of those of a step, NaN where there is none."""
    known = np.isfinite(values)
    sums = np.bincount(places[known], weights=values[known], minlength=count)
    counts = np.bincount(places[known], minlength=count)
    with np.errstate(invalid="ignore"):
        means = sums / counts
    # a lone value stays itself to the bit: v / 1
    return np.where(counts > 0, means, np.nan)


def _missing(table: Table, name: str, values: np.ndarray) -> str:
    rows = np.flatnonzero(np.isnan(values))
    return (
        f"{name}: {len(rows):,} of {len(values):,} values are missing (the first in "
        f"{table.place(int(rows[0]))}); they are filled in what is read and never scored"
    )


def _check_once(table: Table, rows: np.ndarray, stamps: np.ndarray, columns: Columns) -> None:
    order = np.argsort(stamps, kind="stable")
    same = np.flatnonzero(np.diff(stamps[order]) == 0)
    if not len(same):
        return
    one, other = (int(rows[order[same[0] + k]]) for k in (0, 1))
    text = table.text(columns.time)[other]
    hint = "keep one of them" if columns.id else "is there an id column that tells series apart?"
    raise FileError(
        f"{table.place(other)}: a second row for {text} (the first is {table.place(one)}); {hint}"
    )


def _columns_in_words(columns: Columns, grid: Grid) -> str:
    parts = [f"target {', '.join(columns.target)}"]
    if columns.id:
        parts.append(f"id {columns.id}")
    if columns.time:
        parts.append(f"time {columns.time} (one {grid.words()} a step)")
    else:
        parts.append("no time column, so each row is a step")
    covariates = (("past", columns.past), ("future", columns.future))
    parts += [f"{what} {', '.join(names)}" for what, names in covariates if names]
    return f"columns: {'; '.join(parts)}"


def check_known(series: Sequence[Series], known: Sequence[str], where: str) -> None:
    """See that training had every series.

    Raises:
        InputError: a series it had not.
    """
    for one in series:
        if one.name not in known:
            few = ", ".join(map(str, list(known)[:8])) + (" …" if len(known) > 8 else "")
            raise InputError(
                f"{where}: the series {one.name!r} was not in training, so its scale is not known; "
                f"training had {few}.{nearest(one.name, known)}"
            )


def named(files: Any) -> str:
    """The names of files, for errors."""
    if isinstance(files, str | Path):
        return str(files)
    if isinstance(files, Sequence) and all(isinstance(f, str | Path) for f in files):
        return ", ".join(map(str, files))
    return "the data given"
