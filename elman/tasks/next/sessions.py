"""Sessions out of files: a table with an event a row or a session a row, or a session a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from elman.data.lexicon import Lexicon
from elman.data.reading import read_chunks
from elman.data.tables import Table, read_table
from elman.errors import FileError, InputError
from elman.tasks.next.options import NextOptions

_TABLES = {".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".arrow",
           ".feather", ".ipc"}  # fmt: skip
_IDS = ("session", "session_id", "sessionid", "user", "user_id", "userid", "visitor", "visitor_id",
        "visitorid", "customer", "customer_id", "basket", "basket_id", "order_id", "playlist",
        "week", "id")  # fmt: skip
_ITEMS = ("item", "item_id", "itemid", "product", "product_id", "sku", "track", "song", "article",
          "page", "url", "event", "action", "token", "word", "worn", "text", "target")  # fmt: skip
_TIMES = ("time", "timestamp", "datetime", "date", "ds", "created_at", "day", "position", "step")
_CELLS = ("items", "sequence", "events", "text", "tokens", "words")
_SAMPLE = 1000  # lines looked at for what stands between items


class Layout(NamedTuple):
    """How sessions stand in a file; what is None is not there."""

    kind: Literal["rows", "cells", "lines"]
    separator: Literal["blank", "comma"]
    id: str | None = None
    item: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class Sessions:
    """Sessions of items, those without any left out.

    Attributes:
        keys: what each is called: its id, or "line 3".
        codes: of all items, one session after another; places in `distinct`.
        starts: where each session starts, and the end of the last; (sessions + 1,).
        distinct: the items, as text.
        layout: how they stood in the file.
        said: in words, what was read.
        empty: sessions without an item.
    """

    keys: list[str]
    codes: np.ndarray
    starts: np.ndarray
    distinct: list[str]
    layout: Layout
    said: str
    empty: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def lengths(self) -> np.ndarray:
        """Return the number of items of each session."""
        return np.diff(self.starts)

    def items(self, session: int) -> list[str]:
        """Return the items of a session."""
        codes = self.codes[self.starts[session] : self.starts[session + 1]]
        return [self.distinct[code] for code in codes.tolist()]

    def count(self, chosen: Sequence[int] | np.ndarray, min_count: int) -> Lexicon:
        """Return the lexicon of the items of some sessions, the frequent first."""
        counts = np.zeros(len(self.distinct), np.int64)
        for session in chosen:
            np.add.at(counts, self.codes[self.starts[session] : self.starts[session + 1]], 1)
        ranked = sorted((-n, self.distinct[i]) for i, n in enumerate(counts.tolist()) if n)
        return Lexicon([token for n, token in ranked if -n >= min_count])

    def numbers(self, lexicon: Lexicon) -> list[np.ndarray]:
        """Return every session as numbers of a lexicon, int64."""
        table = lexicon.numbers(self.distinct)
        flat = table[self.codes] if len(self.codes) else self.codes.astype(np.int64)
        return [flat[a:b] for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]


class _Codes:
    """Gives each distinct item a code as it comes."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def __call__(self, items: Iterable[str]) -> list[int]:
        return [self.of.setdefault(item, len(self.of)) for item in items]


def read_sessions(files: Sequence[str | Path], options: NextOptions) -> Sessions:
    """Read sessions from files, and say how they stood there.

    Args:
        files: tables or texts, all of one layout; "-" is standard input.
        options: `layout`, the columns, and `separator`; what is None or "auto" is found out.

    Raises:
        InputError: a column that is not there, or none that could be the items.
        FileError: a file that cannot be read, no session in it, an event without session or item,
            a time that is none; the line is named.
    """
    given = options.text if options.target is None else options.target
    if None not in (options.text, options.target) and options.text != options.target:
        raise InputError(
            f"next: text is {options.text!r} and target {options.target!r}; both name the column "
            "of the items, so give one."
        )
    if options.layout == "lines" or (options.layout == "auto" and _is_text(files, options)):
        return _of_lines(files, options)
    named = (options.id, given, options.time)
    # Whoever names columns by names has them in the first line.
    header = True if any(name and not name.isdecimal() for name in named) else None
    table = read_table(list(files) if len(files) > 1 else files[0], where="next", header=header)
    layout = _layout(table, options, given)
    return _of_cells(table, layout) if layout.kind == "cells" else _of_rows(table, layout)


def _is_text(files: Sequence[str | Path], options: NextOptions) -> bool:
    """Whether files that say nothing else of themselves hold a session a line."""
    named = (options.id, options.text, options.target, options.time)
    suffixes = {Path(file).suffix.lower() for file in files}
    return not any(named) and not suffixes & _TABLES


# -- a session a line ------------------------------------------------------------------------


def lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a text without their ends, in a stream."""
    rest = ""
    for chunk in read_chunks(path):
        *whole, rest = (rest + chunk).split("\n")
        yield from whole


def _of_lines(files: Sequence[str | Path], options: NextOptions) -> Sessions:
    several = len(files) > 1
    numbered = (
        (f"{file}, line {i}" if several else f"line {i}", line)
        for file in files
        for i, line in enumerate(lines(file), 1)
    )
    separator = options.separator
    held: list[tuple[str, str]] = []
    if separator == "auto":
        for _, entry in zip(range(_SAMPLE), numbered, strict=False):
            held.append(entry)
        separator = _separator(line for _, line in held)

    def entries() -> Iterator[tuple[str, str]]:
        yield from held
        yield from numbered

    kind = {"blank": "blanks", "comma": "commas"}[separator]
    name = ", ".join(str(file) for file in files)
    return _gathered(
        entries(), Layout("lines", separator), f"{name}: one session a line, items between {kind}"
    )


def _separator(texts: Iterable[str]) -> Literal["blank", "comma"]:
    """Tell commas that separate from those that are items, or stand in a sentence, themselves."""
    found = [text for text in texts if "," in text or len(text.split()) > 1]
    alone = any(" ," in text or text.startswith(",") for text in found)
    return "comma" if not alone and 2 * sum("," in t for t in found) > len(found) else "blank"


def separate(text: str, separator: str) -> list[str]:
    """Return the items of a line or cell: those of a JSON list, or what separators stand between.

    Example:
        >>> separate("bread  milk", "blank"), separate("red wine, rice,", "comma")
        (['bread', 'milk'], ['red wine', 'rice'])
        >>> separate('["a b", 7]', "blank")
        ['a b', '7']
    """
    if text.startswith("[") and text.rstrip().endswith("]"):
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, list) and not any(isinstance(v, list | dict) for v in value):
            return [entry if isinstance(entry, str) else json.dumps(entry) for entry in value]
    if separator == "blank":
        return text.split()
    return [part for part in (part.strip() for part in text.split(",")) if part]


def _gathered(entries: Iterable[tuple[str, str]], layout: Layout, said: str) -> Sessions:
    """Put sessions together whose items stand in one text each."""
    codes = _Codes()
    keys: list[str] = []
    empty: list[str] = []
    parts: list[np.ndarray] = []
    for key, text in entries:
        items = codes(separate(text, layout.separator))
        (keys if items else empty).append(key)
        if items:
            parts.append(np.array(items, np.int32))
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    flat = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return Sessions(keys, flat, starts, list(codes.of), layout, said, tuple(empty))


# -- tables ----------------------------------------------------------------------------------


def _layout(table: Table, options: NextOptions, given: str | None) -> Layout:
    """Find out how sessions stand in a table."""
    by_id = options.layout == "rows" or options.id is not None or options.time is not None
    separator = options.separator
    if options.layout != "cells":
        session = table.column(options.id, _IDS, "of the sessions (id)")
        item = table.column(given, _ITEMS, "of the items (text)")
        if by_id and session is None:
            raise InputError(_missing(table, "the session of each row", "id"))
        if session is not None and session != item and (item is not None or by_id):
            item = item or _other(table, session, options.time)
            time = table.column(options.time, _TIMES, "of the times (time)")
            time = None if time in (session, item) else time
            if time is not None and options.time is None and not _orders(table, time):
                time = None
            return Layout("rows", "blank", session, item, time)
    guesses = table.names if len(table.names) == 1 else _CELLS
    item = table.column(given, guesses, "of the items (text)")
    if item is None:
        raise InputError(_missing(table, "the items", "text"))
    if separator == "auto":
        texts = table.text(item)
        separator = _separator(texts[i] for i in range(min(len(texts), _SAMPLE)))
    key = table.column(options.id, ("id", "session", "session_id"), "of the sessions (id)")
    return Layout("cells", separator, None if key == item else key, item)


def _missing(table: Table, what: str, option: str) -> str:
    return (
        f"next: no column could be found that holds {what}; name it (--{option}). There are: "
        f"{', '.join(table.names)}."
    )


def _other(table: Table, session: str, time: str | None) -> str:
    """The one column that is left for the items."""
    left = [name for name in table.names if name not in (session, time)]
    if len(left) != 1:
        raise InputError(_missing(table, "the items", "text"))
    return left[0]


def _of_cells(table: Table, layout: Layout) -> Sessions:
    texts = table.text(layout.item or "")
    keys: Iterable[str] = (
        (table.place(row) for row in range(len(table)))
        if layout.id is None
        else table.text(layout.id)
    )
    said = f"{table.source_words}; all items of a session in column {layout.item!r}"
    return _gathered(zip(keys, texts, strict=True), layout, said)


def _of_rows(table: Table, layout: Layout) -> Sessions:
    codes, sessions = _Codes(), _Codes()
    items = _column(table, layout.item or "", codes, "item")
    of = _column(table, layout.id or "", sessions, "session")
    if layout.time is None:
        order = np.argsort(of, kind="stable")
    else:
        order = np.lexsort((times(table, layout.time), of))
    starts = np.searchsorted(of[order], np.arange(len(sessions.of) + 1)).astype(np.int64)
    by = f", in order of {layout.time!r}" if layout.time else ", in the order of the file"
    said = f"{table.source_words}; session {layout.id!r}, item {layout.item!r}{by}"
    return Sessions(list(sessions.of), items[order], starts, list(codes.of), layout, said)


def _column(table: Table, name: str, codes: _Codes, what: str) -> np.ndarray:
    """Code a column in which no cell may be empty."""
    found = np.empty(len(table), np.int32)
    known = codes.of
    for row, text in enumerate(table.text(name)):
        if not text or text.isspace():
            raise FileError(
                f"{table.place(row)}: column {name!r} is empty; every row needs its {what}."
            )
        found[row] = known.setdefault(text, len(known))
    return found


def _orders(table: Table, name: str) -> bool:
    """Whether a column that nobody named can be read as times."""
    try:
        times(table, name)
    except FileError:
        return False
    return True


def times(table: Table, name: str) -> np.ndarray:
    """Return a column of numbers or of ISO 8601 dates as float64 to be sorted by.

    Raises:
        FileError: a cell is neither; its line is named.
    """
    try:
        found = table.numbers(name)
    except FileError:
        if table.facts(name).numeric > 0.5:
            raise  # numbers, and a cell among them that is none
        found = np.empty(len(table))
        for row, text in enumerate(table.text(name)):
            found[row] = _moment(text, table, row, name)
    bad = np.flatnonzero(np.isnan(found))
    if len(bad):
        raise FileError(
            f"{table.place(int(bad[0]))}: column {name!r} has no time, by which rows are ordered."
        )
    return found


def _moment(text: str, table: Table, row: int, name: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise FileError(
            f"{table.place(row)}: {text[:40]!r} in column {name!r} is neither a number nor a date "
            "such as 2024-05-31 or 2024-05-31T08:15."
        ) from None
    # Without a zone all count as of one zone; whole days since a fixed day keep float64 exact.
    zone = moment.utcoffset()
    seconds = moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6
    return moment.toordinal() * 86400.0 + seconds - (zone.total_seconds() if zone else 0.0)


# -- what Python hands over ------------------------------------------------------------------


def sessions_given(data: object, options: NextOptions) -> Sessions:
    """Return sessions of a list of texts or of lists of items, of dicts, or of an Arrow object.

    Raises:
        InputError: data of another kind.
        FileError: as of `read_sessions`.
    """
    if not isinstance(data, Sequence) or (data and isinstance(data[0], dict)):
        table = read_table(data, where="next")
        told = options if options.layout != "lines" else NextOptions()
        layout = _layout(table, told, told.text if told.target is None else told.target)
        return _of_cells(table, layout) if layout.kind == "cells" else _of_rows(table, layout)
    separator = "blank" if options.separator == "auto" else options.separator
    entries = []
    for i, session in enumerate(data, 1):
        if not isinstance(session, str) and not (
            isinstance(session, Sequence) and all(isinstance(item, str) for item in session)
        ):
            raise InputError(
                f"next: session {i} is a {type(session).__name__}; expected a text, or a list of "
                "texts."
            )
        text = session if isinstance(session, str) else json.dumps(list(session))
        entries.append((f"session {i}", text))
    return _gathered(entries, Layout("lines", separator), f"{len(entries):,} sessions")
