"""Where sequences with labels come from: one kind of object for every kind of file."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elman.data.conll import Block, Layout, parse_blocks
from elman.errors import InputError
from elman.tasks.tag.options import TagOptions


@dataclass(slots=True)
class Example:
    """One sequence.

    Attributes:
        items: its words, or its frames as vectors, (time, features), float32.
        labels: of each, None where there is none.
        at: gives the place of an item in words, "a.conll, line 3".
        origin: what the source needs to write it again.
    """

    items: Sequence[str] | np.ndarray
    labels: Sequence[str | None]
    at: Callable[[int], str]
    origin: Any


class Source(abc.ABC):
    """A file of sequences, read as it is gone through.

    Attributes:
        name: of the file.
        said: in words, what the file is and which columns are used.
        settings: what a model must keep so that a new file is read in the same way, plain JSON.
        note: something to say about how the file was read; "" where there is nothing.
        of_words: whether items are words, else frames.
    """

    name: str
    said: str
    settings: dict[str, Any]
    note: str = ""
    of_words: bool = True

    @abc.abstractmethod
    def __iter__(self) -> Iterator[Example]:
        """Go through the sequences."""

    @abc.abstractmethod
    def filled(self, example: Example, labels: Sequence[str]) -> str:
        """Return the lines of a sequence with other labels, without the last line end."""


class ColumnSource(Source):
    """A file of columns, or CoNLL-U.

    Args:
        chunks: the text of the file in pieces.
        name: of the file.
        options: which columns hold words and labels.
        labelled: whether labels must be there.
        known: the settings of the training file, for a file that a trained model is given.
    """

    def __init__(
        self,
        chunks: Iterable[str],
        name: str,
        options: TagOptions,
        *,
        labelled: bool,
        known: Mapping[str, Any] | None = None,
    ):
        self.name = name
        known = known if known is not None and "tab" in known else None
        expected = None if known is None else Layout(known["kind"], known["tab"], known["width"])
        self.layout, self._blocks = parse_blocks(
            chunks, name, expected=expected if not labelled else None
        )
        layout = self.layout
        if expected is not None and layout.kind == "columns" and layout.width == 1:
            # Words alone: their tags are set apart from them as in the training file.
            self.layout = layout = Layout("columns", expected.tab, 1)
        same = known is None or layout.kind == known["kind"]
        if layout.kind == "plain":
            if expected is not None:
                self.layout = Layout("columns", expected.tab, 1)
            self.text, self.label = 0, 1
            self.note = f"{self.name}: read as plain sentences, one a line, words between blanks."
        else:
            self.text = self._place(options.text if same else None, layout.words, "text")
            self.label = self._label(options.label if same else None, labelled, same)
        self.settings = {"kind": layout.kind, "tab": layout.tab, "width": layout.width}
        names = layout.names
        self.said = f"{self.name}: {_KINDS[layout.kind]}, words in column {names[self.text]}" + (
            f", labels in {names[self.label]}" if self.label < layout.width else ""
        )
        self._open = layout.kind == "conllu" and names[self.label] == "upos"

    def _place(self, given: str | None, otherwise: int, what: str) -> int:
        if given is None:
            return otherwise
        return self.layout.column(given, what, self.name)

    def _label(self, given: str | None, labelled: bool, same: bool) -> int:
        layout = self.layout
        if layout.kind == "conllu":
            return self._place(given, 3, "label")
        if given is not None and given.isdecimal() and int(given) > layout.width and not labelled:
            return layout.width  # a file without the labels: they become one more column
        found = self._place(given, layout.width - 1, "label")
        if found == self.text:
            if not labelled:
                return layout.width
            raise InputError(
                f"{self.name}: there is no column of labels; its lines have {layout.width} "
                f"column(s), and {layout.names[found]} holds the words."
            )
        return found

    def __iter__(self) -> Iterator[Example]:
        width = self.layout.width
        for block in self._blocks:
            labels: Sequence[str | None] = [None] * len(block.rows)
            if self.label < width and len(block.rows) and self.label < len(block.cells[0]):
                none = ("_", "") if self._open else ("",)
                labels = [None if x in none else x for x in block.column(self.label)]
            place = self._at(block)
            yield Example(block.column(self.text) if block.rows else [], labels, place, block)

    def _at(self, block: Block) -> Callable[[int], str]:
        return lambda word: f"{self.name}, line {block.line_of(word)}"

    def filled(self, example: Example, labels: Sequence[str]) -> str:
        """Return a block's lines with these labels; comments and other columns as they stand."""
        block: Block = example.origin
        if self.note:  # a plain sentence becomes lines of columns
            gap = "\t" if self.layout.tab else " "
            lines = [f"{w}{gap}{x}" for w, x in zip(example.items, labels, strict=True)]
            return "\n".join([*lines, ""])
        lines = list(block.lines)
        for row, label in zip(block.rows, labels, strict=True):
            lines[row] = self.layout.with_cell(lines[row], self.label, label)
        return "\n".join(lines)


_KINDS = {
    "conllu": "CoNLL-U",
    "columns": "columns, a word a line",
    "plain": "plain text, a sentence a line",
}
