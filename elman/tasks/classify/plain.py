"""Whether what is to be predicted is a table as in training, or plain text with a text a line."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elman.data.reading import open_bytes, read_chunks
from elman.data.tokens import whole_lines
from elman.errors import FileError

_TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather")
_SEPARATORS = ("\t", ",", ";")
STDIN = "standard input"


@contextmanager
def on_disk(path: str) -> Iterator[str]:
    """Give the name of a file that can be read more than once; standard input is kept in one."""
    if path != "-":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "standard_input"
        with open_bytes(path) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        try:
            yield str(copy)
        except FileError as error:
            raise FileError(str(error).replace(str(copy), STDIN)) from None


def is_plain(path: str, columns: Mapping[str, Any]) -> bool:
    """Return whether a file is text with a text a line, seen from the columns of the training data.

    A file named as a table is none, nor one of JSON lines. Else it is, unless its first line has
    the column of the text in it, or, where columns have no names, as many TABs as in training.

    Args:
        path: the file.
        columns: of the training data, see `elman.tasks.classify.prepare.read`.
    """
    if columns["kind"] != "table" or len(columns["text"]) != 1:
        return False
    if Path(path).suffix.lower() in _TABLES:
        return False
    with open_bytes(path) as file:
        if file.read(4) == b"PAR1":
            return False
    first = next(whole_lines(read_chunks(path)), "").split("\n", 1)[0]
    if first.lstrip().startswith("{"):
        return False
    if not columns["headed"]:
        return bool(first.count("\t") != columns["width"] - 1 or columns["width"] == 1)
    name = columns["text"][0]
    return not any(name in next(csv.reader([first], delimiter=mark), []) for mark in _SEPARATORS)


def lines_of(path: str) -> list[str]:
    """Return the lines of a file; empty ones stay, so that answers go by lines."""
    return "".join(read_chunks(path)).removesuffix("\n").split("\n")
