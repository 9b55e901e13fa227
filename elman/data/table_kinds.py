"""What a table's file is: its kind by name and content, its separator, whether it has a header."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from elman.data.delimited import Form, read_rows
from elman.errors import FileError

Kind = Literal["CSV", "TSV", "JSONL", "Parquet", "Arrow", "lines"]
MOST_ROWS = 1000  # looked at to tell whether there is a header
_SUFFIXES: dict[str, Kind] = {
    ".csv": "CSV",
    ".tsv": "TSV",
    ".tab": "TSV",
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".json": "JSONL",
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".arrow": "Arrow",
    ".feather": "Arrow",
    ".ipc": "Arrow",
}
_MAGIC: dict[bytes, Kind] = {b"PAR1": "Parquet", b"ARROW1": "Arrow"}
_ARROW_STREAM = b"\xff\xff\xff\xff"
_SEPARATORS = ("\t", ";", ",")
_SAMPLED = 100  # records from which a separator is told
_LONGEST_NAME = 40
_MISSING = frozenset(("", "nan", "null", "none", "na", "n/a", "<na>"))
# Words that head columns and hardly ever are a cell of the first row.
_WORDS = (
    "text sentence sentences question review comment document body title content utterance label "
    "labels class category target tag tags intent sentiment polarity source src tgt translation "
    "input output id unique_id ds date datetime time timestamp year month value y name names word "
    "words token tokens sequence english french german spanish chinese item item_id session "
    "session_id user user_id caption description nationality language lemma form features split "
    "score rating"
)
_FAMILIAR = frozenset(_WORDS.split())


class Found(NamedTuple):
    """A kind of file, and how its cells are written if it is text with separators.

    Attributes:
        kind: of the file.
        form: of its cells; None where there are no separators.
    """

    kind: Kind
    form: Form | None

    def in_words(self) -> str:
        """Return the kind, and its separator where it is not the usual one."""
        usual = {"CSV": b",", "TSV": b"\t"}.get(self.kind)
        if self.form is None or self.form.separator in (usual, b""):
            return self.kind
        mark = self.form.separator.decode()
        return f"{self.kind} ({'TAB' if mark == chr(9) else mark})"


def binary_kind(path: Path, start: bytes) -> Kind | None:
    """Return the kind of a file of Parquet or Arrow by its first bytes, else None.

    Raises:
        FileError: its name says one of these and its content does not.
    """
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    said = _SUFFIXES.get(path.suffix.lower())
    if said == "Arrow" and start.startswith(_ARROW_STREAM):
        return said
    if said in ("Parquet", "Arrow"):
        raise FileError(f"{path}: is no {said} file: it begins with {start[:6]!r}.")
    return None


def text_kind(path: str | Path, head: str) -> Found:
    r"""Return what kind of table a text is, by its file's name and its beginning.

    Args:
        path: "-" and unknown suffixes are judged by content alone.
        head: the first lines, whole but for the last.

    Raises:
        FileError: a JSON array, or lines that end in carriage returns alone.

    Example:
        >>> text_kind("a.csv", "x;y\n1,5;2\n")
        Found(kind='CSV', form=Form(separator=b';', quoted=True))
        >>> text_kind("-", "pos\ta film\nneg\ta bore\n").kind
        'TSV'
    """
    if "\r" in head and "\n" not in head.rstrip("\n"):
        raise FileError(
            f"{path}: its lines end in carriage returns alone; convert it, for instance with "
            "tr '\\r' '\\n'."
        )
    said = _SUFFIXES.get(Path(path).suffix.lower())
    if said == "JSONL" or (said is None and _begins_with_object(head)):
        if head.lstrip()[:1] == "[":
            raise FileError(
                f"{path}: is one JSON array; expected one object a line (jq -c '.[]' makes that)."
            )
        return Found("JSONL", None)
    if said == "TSV":
        return Found("TSV", Form(b"\t", False))
    separator = _separator(head, said)
    if said == "CSV":
        return Found("CSV", Form((separator or ",").encode(), True))
    if separator == "\t":
        return Found("TSV", Form(b"\t", False))
    if separator is None:
        return Found("lines", Form(b"", False))
    return Found("CSV", Form(separator.encode(), True))


def _begins_with_object(head: str) -> bool:
    line = head.lstrip().split("\n", 1)[0]
    if not line.startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _separator(head: str, said: Kind | None) -> str | None:
    """Return the separator by which the first records have equally many cells, 2 or more.

    Args:
        head: the first lines.
        said: "CSV" by the file's name: then TABs may stand in quotes too, one record is enough, and
            where no separator is sure, the most frequent one of the first line is taken.
    """
    lines = [line for line in head.split("\n")[: 4 * _SAMPLED] if line.strip()]
    for mark in _SEPARATORS:
        widths = _widths(lines, Form(mark.encode(), said == "CSV" or mark != "\t"))
        if widths and min(widths) == max(widths) > 1 and (len(widths) > 1 or said == "CSV"):
            return mark
    if said != "CSV":
        return None
    counts = {mark: lines[0].count(mark) for mark in _SEPARATORS} if lines else {}
    best = max(counts, key=lambda mark: counts[mark], default=None)
    return best if best is not None and counts[best] else None


def _widths(lines: Sequence[str], form: Form) -> list[int]:
    """Return how many cells the first records have; the last, perhaps cut, is left out."""
    widths: list[int] = []
    try:
        for rows in read_rows((f"{line}\n" for line in lines), form, ""):
            widths.extend(rows.counts.tolist())
            if len(widths) > _SAMPLED:
                break
    except FileError:  # the reading will say more
        pass
    return widths[:-1] if len(widths) > 2 else widths


# -- the header ------------------------------------------------------------------------------


def is_number(cell: str) -> bool:
    """Return whether a cell is a number as `float` reads it, nan and inf included."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def is_missing(cell: str) -> bool:
    """Return whether a cell of numbers stands for a missing one."""
    return cell.strip().casefold() in _MISSING


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Guess whether the first of some rows names the columns.

    It does where its cells are distinct and no numbers, none occurs again below it, and one of
    these holds: a column below is numbers; a cell is a word that commonly heads a column; all cells
    look like names, and below them is a column that repeats its cells or one of several words in
    each cell.

    Args:
        rows: the first rows of a table, at least one.

    Example:
        >>> has_header([["text", "label"], ["a fine film", "pos"]])
        True
        >>> has_header([["Go.", "Va !"], ["Hi.", "Salut !"], ["Run!", "Cours !"]])
        False
    """
    first, below = [cell.strip() for cell in rows[0]], rows[1 : MOST_ROWS + 1]
    named = [cell for cell in first if cell]
    if len(named) < max(1, len(first) - 1) or len(set(named)) < len(named):
        return False
    if any(is_number(c) or is_missing(c) or len(c) > _LONGEST_NAME for c in named):
        return False
    columns = [
        [row[i].strip() for row in below if i < len(row) and row[i].strip()]
        for i in range(len(first))
    ]
    if any(cell in column for cell, column in zip(first, columns, strict=True) if cell):
        return False
    if any(column and all(map(is_number, column)) for column in columns):
        return True
    if any(cell.casefold() in _FAMILIAR for cell in named):
        return True
    if len(below) < 4 or not all(map(_like_a_name, named)):
        return False
    return any(map(_tells_apart, first, columns))


def _like_a_name(cell: str) -> bool:
    return len(cell.split()) <= 3 and re.fullmatch(r"\w[\w .\-/()%#°]*(?<![.\s])", cell) is not None


def _tells_apart(cell: str, column: Sequence[str]) -> bool:
    """Whether a column's other cells are of another kind than its first."""
    if len(column) < 4:
        return False
    if len(set(column)) <= len(column) / 4:
        return True
    return len(cell.split()) == 1 and all(len(other.split()) > 1 for other in column)
