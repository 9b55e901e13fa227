"""Which kind of file a file of sequences is, by its suffix and its first characters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from elman.data import records
from elman.data.reading import read_chunks
from elman.data.tables import Table, read_table
from elman.tasks.tag.options import TagOptions
from elman.tasks.tag.records import RecordSource, Rows
from elman.tasks.tag.sources import ColumnSource, Source
from elman.tasks.tag.steps import IDS, ArraySource, StepSource

_TABLES = (".csv", ".parquet", ".arrow", ".feather", ".ipc")
_WHERE = "tag"


def open_source(
    data: Any,
    options: TagOptions,
    *,
    labelled: bool = True,
    known: Mapping[str, Any] | None = None,
) -> Source:
    """Open a file of sequences of any kind, or rows in memory.

    Args:
        data: a path; "-" is standard input; or dictionaries, or a table with Arrow's interface.
        options: which columns hold what.
        labelled: whether labels must be there.
        known: the settings of the file that a model was trained on.

    Raises:
        FileError: the file cannot be read, or is none of the kinds.
        InputError: a column is not there; those there are, are listed.
    """
    if not isinstance(data, str | Path):
        rows = records.rows_of(data, _WHERE)
        return RecordSource(
            ((f"the data, row {n}", row) for n, row in enumerate(rows, 1)), "the data",
            "rows in memory", options, labelled=labelled, known=known,
        )  # fmt: skip
    suffix = Path(data).suffix.lower()
    if suffix in (".npz", ".npy"):
        return ArraySource(data, labelled=labelled)
    by_step = known["kind"] == "steps" if known is not None else options.id is not None
    if suffix in _TABLES or (by_step and suffix not in (".jsonl", ".ndjson")):
        return _of_table(read_table(data, where=_WHERE), str(data), options, labelled, known)
    chunks = read_chunks(data)
    name = "standard input" if str(data) == "-" else str(data)
    head = next(chunks)
    if head.lstrip().startswith("{"):
        rows_of_lines = _placed(records.read_jsonl(chain([head], chunks), name), name)
        return RecordSource(rows_of_lines, name, "JSONL", options, labelled=labelled, known=known)
    return ColumnSource(chain([head], chunks), name, options, labelled=labelled, known=known)


def _placed(rows: Iterable[tuple[int, dict[str, Any]]], name: str) -> Iterator[tuple[str, dict]]:
    for line, row in rows:
        yield f"{name}, line {line}", row


def _of_table(
    table: Table,
    name: str,
    options: TagOptions,
    labelled: bool,
    known: Mapping[str, Any] | None,
) -> Source:
    """A table of steps where a column of ids is named or is there; else of one sequence a row."""
    of_rows = known is not None and known["kind"] == "records"
    if not of_rows and table.column(options.id, IDS, "id") is not None:
        return StepSource(table, name, options, labelled=labelled, known=known)
    rows: Rows = (
        (table.place(k), dict(zip(table.names, cells, strict=True)))
        for k, cells in enumerate(zip(*map(table.text, table.names), strict=True))
    )
    kind = table.source_words.partition(": ")[2]
    return RecordSource(rows, name, kind, options, labelled=labelled, known=known)
