"""What the verbs print and read, in one way."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from elman.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a line and nothing else.")
]
Run = Annotated[str, typer.Argument(help="A run folder or a model file.", show_default=False)]


def print_json(data: Any) -> None:
    """Print data as JSON on standard output; text stays readable."""
    print(json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False))


def note(line: str) -> None:
    """Say something beside the result, on standard error."""
    print(line, file=sys.stderr, flush=True)


def note_unseen(what: str, tokens: Sequence[str], used: bool) -> None:
    """Say on standard error which tokens the vocabulary lacks, and how they were counted."""
    if tokens:
        distinct = list(dict.fromkeys(tokens))
        more = f" and {len(distinct) - 10} more" if len(distinct) > 10 else ""
        how = "taken as <unk>" if used else "left out"
        names = ", ".join(map(repr, distinct[:10]))
        note(f"note: {what} has tokens rare or unseen in training, {how}: {names}{more}.")


def piped() -> bool:
    """Return whether standard input is a pipe or a file."""
    return sys.stdin is not None and not sys.stdin.isatty()


def check_text(text: str, what: str) -> str:
    """Return text given as an argument, which must be UTF-8.

    Raises:
        InputError: the shell handed over bytes that are not.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what}: not UTF-8 at character {error.start}.") from None
    return text


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def columns(text: str) -> int:
    """The number of terminal columns a text takes; an ideograph takes two.

    Example:
        >>> columns("ab"), columns("春"), columns("e\u0301")
        (2, 2, 1)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def pad(text: str, to: int) -> str:
    """The text with spaces behind it, `to` columns in all."""
    return text + " " * max(to - columns(text), 0)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table, with a line under its head.

    Example:
        >>> print(*table(("cell", "states"), [("lstm", "h c"), ("gru", "h")]), sep="\\n")
        cell  states
        ────  ──────
        lstm  h c
        gru   h
    """
    rows = [tuple(row) for row in rows]
    widths = [max(map(columns, column)) for column in zip(head, *rows, strict=True)]
    lines = [tuple(head), tuple("─" * w for w in widths), *rows]
    return [
        "  ".join(pad(cell, w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def flow(pieces: Iterable[str], indent: str = "  ") -> list[str]:
    """Lines filled with pieces, two spaces between them, within the terminal's width."""
    lines, line = [], ""
    for piece in pieces:
        longer = f"{line}  {piece}" if line else f"{indent}{piece}"
        if line and columns(longer) > width():
            lines.append(line)
            longer = f"{indent}{piece}"
        line = longer
    return [*lines, line] if line else lines
