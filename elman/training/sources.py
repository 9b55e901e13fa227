"""The data of a run: files as they are; lines, rows and standard input as a file in its folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from elman.data.records import is_records, write_jsonl
from elman.errors import ElmanError, InputError
from elman.training import config

# A path, paths, lines of text, rows (dictionaries), or a table with Arrow's C interface.
Data = Any
# What a name ends in that is taken for a path even where there is no such file.
_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".conll", ".conllu")
_READ_LINES = ("lm", "tree", "graph")  # tasks that know no columns


@dataclass(frozen=True)
class Source:
    """What a run learns from.

    Attributes:
        files: that were named, in order.
        kept: a temporary file of what was given otherwise; the run's folder is to have it.
        name: of that file in the folder.
        said: how errors call it.
    """

    files: list[Path]
    kept: Path | None = None
    name: str = ""
    said: str = ""

    def fingerprints(self, files: Iterable[Path], folder: Path) -> list[config.DataFile]:
        """Return the fingerprints of the files, or of the one that will be in the folder."""
        if self.kept is None:
            return [config.fingerprint(file) for file in files]
        place = str((folder / self.name).absolute())
        return [config.fingerprint(self.kept).model_copy(update={"path": place})]

    def store(self, folder: Path) -> None:
        """Put what was given otherwise into the run's folder."""
        if self.kept is not None:
            shutil.move(self.kept, folder / self.name)

    def renamed(self, text: str) -> str:
        """Return a text with the temporary file called what the user knows it as."""
        return text if self.kept is None else text.replace(str(self.kept), self.said)

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Call the temporary file in errors what the user knows it as."""
        try:
            yield
        except ElmanError as error:
            if self.renamed(str(error)) == str(error):
                raise
            raise type(error)(self.renamed(str(error))) from None


@contextmanager
def data_source(data: Data, task: str) -> Iterator[Source]:
    """Find out what data are; what is no file is written to a temporary one, in a stream.

    A list is all paths, all lines, or all rows. A path is what is a file or ends as one.

    Args:
        data: as of `elman.train`.
        task: name of the task; some take no rows.

    Raises:
        InputError: no data, or something else.
    """
    files = named_files(data)
    if files is not None:
        yield Source(files)
        return
    with tempfile.TemporaryDirectory() as place:
        yield _kept(data, task, Path(place))


def named_files(data: Data) -> list[Path] | None:
    """Return the paths that data are, None where they are something else.

    Raises:
        InputError: no data.
    """
    if data is None:
        raise InputError(
            "train: name the data: a path, paths, lines of text, rows (dictionaries), or a table."
        )
    if isinstance(data, str | Path):
        return None if str(data) == "-" else [Path(data)]
    if not isinstance(data, list | tuple):
        return None
    texts = [entry for entry in data if isinstance(entry, str | Path)]
    if len(texts) == len(data) and any(map(_is_path, texts)):
        return [Path(entry) for entry in texts]
    return None


def _is_path(entry: str | Path) -> bool:
    if isinstance(entry, Path):
        return True
    if "\n" in entry or len(entry) > 255:
        return False
    return Path(entry).is_file() or (entry.lower().endswith(_SUFFIXES) and " " not in entry)


def _kept(data: Data, task: str, place: Path) -> Source:
    """Write what was given to a file."""
    text, rows = place / "data.txt", place / "data.jsonl"
    if isinstance(data, str | Path):
        with open(text, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return Source([], text, text.name, "standard input")
    if is_records(data):
        _write_rows(data, task, rows)
        return Source([], rows, rows.name, "the table given")
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise InputError(
            "train: data are a path, paths, lines, rows (a list of dictionaries), or a table; got "
            f"{type(data).__name__}."
        )
    entries = iter(data)
    first = next(entries, None)
    if first is None:
        raise InputError("train: the list of data is empty.")
    if isinstance(first, Mapping):
        _write_rows(chain([first], entries), task, rows)
        return Source([], rows, rows.name, "the rows given")
    every = [first, *entries]
    wrong = [entry for entry in every if not isinstance(entry, str | Path)]
    if wrong:
        raise InputError(f"train: data are paths, lines or rows, got {type(wrong[0]).__name__}.")
    if any(map(_is_path, every)):
        return Source([Path(entry) for entry in every])
    with open(text, "wb") as file:
        file.writelines(f"{str(entry).rstrip()}\n".encode() for entry in every)
    return Source([], text, text.name, "the lines given")


def _write_rows(data: Any, task: str, place: Path) -> None:
    if task in _READ_LINES:
        raise InputError(
            f"train: {task} learns from text and knows no columns; give paths or lines of text."
        )
    with open(place, "wb") as file:
        if not write_jsonl(data, file, "train"):
            raise InputError("train: the table of data is empty.")
