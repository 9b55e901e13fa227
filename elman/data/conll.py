"""Tagged sentences in columns, a word a line: CoNLL files and CoNLL-U.

Sentences end at a blank line, which may hold blanks or a TAB. Columns are separated by TABs or by
blanks; CoNLL-U has ten and numbers its words. What is no word stays where it is: comments,
`-DOCSTART-` lines, ranges of CoNLL-U such as 3-4 and empty nodes such as 5.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from elman.data.reading import read_chunks
from elman.errors import FileError, InputError, nearest

CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_WORD_ID = re.compile(r"[0-9]+")
_ANY_ID = re.compile(r"[0-9]+(-[0-9]+|\.[0-9]+)?")
_CELL = re.compile(r"[^ \t]+")
_DOCUMENT = "-DOCSTART-"
_SAMPLED = 2000  # lines by which the layout is known


@dataclass(frozen=True)
class Layout:
    """How the lines of a file are divided.

    Attributes:
        kind: "columns", "conllu", or "plain": a sentence a line, words between blanks.
        tab: whether TABs separate columns, else blanks.
        width: columns of a line, 1 of a plain text.
    """

    kind: str
    tab: bool
    width: int

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns are called; numbers from "1" where they have no names."""
        if self.kind == "conllu":
            return CONLLU_COLUMNS
        return tuple(str(k + 1) for k in range(self.width))

    @property
    def words(self) -> int:
        """The column of the words, from 0."""
        return 1 if self.kind == "conllu" else 0

    def column(self, given: str, what: str, where: str) -> int:
        """Return the place of a column that is called by name or number, from 0.

        Raises:
            InputError: there is no such column; those there are, are listed.
        """
        if given.isdecimal() and 1 <= int(given) <= self.width:
            return int(given) - 1
        lowered = given.lower()
        if lowered in self.names:
            return self.names.index(lowered)
        raise InputError(
            f"{where}: there is no column {given!r} for {what}; there are "
            f"{', '.join(self.names)}.{nearest(lowered, self.names)}"
        )

    def cells(self, line: str) -> list[str]:
        """Return what stands in the columns of a line."""
        if self.kind == "plain":
            return [line]
        return line.split("\t") if self.tab else _CELL.findall(line)

    def with_cell(self, line: str, column: int, text: str) -> str:
        """Return a line with another text in a column, or with one more column at the end.

        Example:
            >>> Layout("columns", False, 2).with_cell("Rome   O", 1, "B-city")
            'Rome   B-city'
            >>> Layout("columns", True, 1).with_cell("Rome", 1, "B-city")
            'Rome\\tB-city'
        """
        if self.tab:
            cells = line.split("\t")
            cells[column:] = [text, *cells[column + 1 :]]
            return "\t".join(cells)
        places = list(_CELL.finditer(line))
        if column >= len(places):
            return f"{line.rstrip(' ')} {text}"
        return line[: places[column].start()] + text + line[places[column].end() :]


@dataclass(slots=True)
class Block:
    """A sentence with all its lines, and those that belong to nothing before it.

    Attributes:
        lines: as they stand, without line ends; the blank line at its end with them.
        rows: which of the lines are words, from 0.
        cells: the columns of each word.
        number: of the first line in the file, from 1.
    """

    lines: list[str]
    rows: list[int]
    cells: list[list[str]]
    number: int

    def line_of(self, word: int) -> int:
        """Return the number of the line a word stands on, from 1."""
        return self.number + self.rows[word]

    def column(self, place: int) -> list[str]:
        """Return what stands in a column at each word."""
        return [cells[place] for cells in self.cells]


def read_blocks(
    path: str | Path, *, expected: Layout | None = None
) -> tuple[Layout, Iterator[Block]]:
    """Read a file of tagged sentences, or of sentences to be tagged.

    Args:
        path: the file, in UTF-8; "-" is standard input.
        expected: how the training file was divided. A file that is not divided so, nor has a column
            fewer, and has no TABs, is then read as a plain text, a sentence a line.

    Returns:
        the layout, and the blocks, read as they are asked for; all lines of the file stand in one
        of them, in order.

    Raises:
        FileError: a line with more or fewer columns than the others; it is named. What
            `read_chunks` refuses.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/a.conll").write_text("I\\tO\\nlike\\tO\\n\\nRome\\tB-city\\n")
        ...     layout, blocks = read_blocks(f"{folder}/a.conll")
        ...     [block.column(0) for block in blocks]
        [['I', 'like'], ['Rome']]
    """
    name = "standard input" if str(path) == "-" else str(path)
    return parse_blocks(read_chunks(path), name, expected=expected)


def parse_blocks(
    chunks: Iterable[str], name: str, *, expected: Layout | None = None
) -> tuple[Layout, Iterator[Block]]:
    """Read tagged sentences from a text that comes in pieces; see `read_blocks`."""
    lines = _lines(chunks)
    first = [line for _, line in zip(range(_SAMPLED), lines, strict=False)]
    layout = layout_of(first, expected)
    if layout is None:
        raise FileError(f"{name}: there is no word in it; a line is a word and its columns.")
    return layout, _blocks(layout, chain(first, lines), name)


def layout_of(lines: Sequence[str], expected: Layout | None = None) -> Layout | None:
    """Return how lines are divided, by the most of them; None where none holds a word."""
    filled = [line for line in lines if line.strip(" \t") and not line.startswith(_DOCUMENT)]
    if not filled:
        return None
    tab = 2 * sum("\t" in line for line in filled) > len(
        [line for line in filled if not line.startswith("# ")]
    )
    if tab:
        counts = Counter(line.count("\t") + 1 for line in filled if "\t" in line)
    else:
        counts = Counter(len(_CELL.findall(line)) for line in filled)
    width = counts.most_common(1)[0][0]
    if tab and width == 10:
        rows = [line for line in filled if line.count("\t") == 9]
        numbered = sum(bool(_ANY_ID.fullmatch(line.split("\t", 1)[0])) for line in rows)
        if 2 * numbered > len(rows):
            return Layout("conllu", True, 10)
    regular = len(counts) == 1 or (width > 1 and counts[width] > 0.9 * len(filled))
    if expected is not None and not tab:
        fits = width in (expected.width, expected.width - 1, 1) and not (expected.tab and width > 1)
        if not (fits and regular):
            return Layout("plain", False, 1)
    return Layout("columns", tab, width)


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split("\n")
        yield from lines
    if rest:
        yield rest


def _blocks(layout: Layout, lines: Iterable[str], name: str) -> Iterator[Block]:
    block, held = Block([], [], [], 1), None
    for number, line in enumerate(lines, start=1):
        ends = not line.strip(" \t")
        if not ends and not _is_remark(layout, line, bool(block.rows)):
            if layout.kind == "plain":
                ends = True
                block.cells.extend([word] for word in _CELL.findall(line))
                block.rows.extend([len(block.lines)] * len(block.cells))
            else:
                _take(layout, block, line, name, number)
        block.lines.append(line)
        if ends and block.rows:
            if held is not None:
                yield held
            block, held = Block([], [], [], number + 1), block
    if held is not None and not block.rows:
        held.lines.extend(block.lines)  # what stands behind the last sentence
        block = Block([], [], [], 1)
    if held is not None:
        yield held
    if block.lines:
        yield block


def _take(layout: Layout, block: Block, line: str, name: str, number: int) -> None:
    """Add a line of columns to a block."""
    cells = layout.cells(line)
    if len(cells) != layout.width:
        raise FileError(
            f"{name}, line {number}: {len(cells)} column(s) in {line[:60]!r}; the file has "
            f"{layout.width}, separated by {'TABs' if layout.tab else 'blanks'}."
        )
    if layout.kind == "conllu" and not _WORD_ID.fullmatch(cells[0]):
        if not _ANY_ID.fullmatch(cells[0]):
            raise FileError(
                f"{name}, line {number}: {cells[0][:40]!r} in the column of numbers; expected 3, "
                "3-4 or 5.1."
            )
        return
    if not cells[layout.words]:
        raise FileError(f"{name}, line {number}: the word is empty in {line[:60]!r}.")
    block.rows.append(len(block.lines))
    block.cells.append(cells)


def _is_remark(layout: Layout, line: str, within: bool) -> bool:
    """Whether a line is a comment or a mark of a document; a word may begin with # too."""
    if line.startswith(_DOCUMENT):
        return True
    if not line.startswith("#") or layout.kind == "plain":
        return False
    if layout.kind == "conllu" or layout.tab:
        return "\t" not in line
    return not within and len(_CELL.findall(line)) != layout.width
