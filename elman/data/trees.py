"""Trees in brackets, with a label at every node and words at the leaves: `(3 (2 A) (4 film))`.

A tree may go over several lines, and a line may hold several trees. Tokens end at a blank, a tab, a
line's end or a bracket, so that other spaces of Unicode may stand within a word. Nodes are numbered
as they open, a tree's root first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from elman.data.reading import read_chunks
from elman.errors import FileError

_TOKEN = re.compile(r"[()]|[^() \t\n]+")
_ESCAPES = {"-LRB-": "(", "-RRB-": ")"}
MOST_NODES = 10_000_000  # of one tree


@dataclass
class LabelledTree:
    """One tree.

    Attributes:
        labels: of each node, as written; None where there is none.
        words: of each leaf; None at inner nodes.
        parents: of each node, −1 of the root.
        line: of the file where it begins, counted from 1.
    """

    labels: list[str | None]
    words: list[str | None]
    parents: list[int]
    line: int = 1

    @property
    def leaves(self) -> list[str]:
        """The sentence."""
        return [word for word in self.words if word is not None]

    def __str__(self) -> str:
        """The tree in brackets, as it is read."""
        children: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                children[parent].append(node)
        pieces: list[str] = []
        waiting: list[int | str] = [0]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                pieces.append(item)
                continue
            label = self.labels[item]
            pieces.append(("" if not pieces else " ") + "(" + (label or ""))
            word = self.words[item]
            if word is not None:
                pieces.append(" " + word.replace("(", "-LRB-").replace(")", "-RRB-"))
            waiting.append(")")
            waiting.extend(reversed(children[item]))
        return "".join(pieces).strip()


def read_trees(path: str | Path) -> list[LabelledTree]:
    """Read all trees of a file.

    Args:
        path: a file of bracketed trees in UTF-8; "-" is standard input.

    Raises:
        FileError: brackets that do not match, a word beside children or outside of a tree, an
            empty tree, no tree at all; with line and column. What `read_chunks` refuses.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.txt"
        ...     _ = file.write_text("(3 (2 A) (4 fine))\\n")
        ...     trees = read_trees(file)
        >>> trees[0].parents, trees[0].leaves
        ([-1, 0, 0], ['A', 'fine'])
    """
    name = "standard input" if str(path) == "-" else str(path)
    found = list(parse_trees(read_chunks(path), name))
    if not found:
        raise FileError(f"{name}: there is no tree in it; a tree is (label (label word) …).")
    return found


def parse_trees(chunks: Iterable[str], name: str) -> Iterator[LabelledTree]:
    """Trees of a text that comes in pieces; see `read_trees`."""
    reader = _Reader(name)
    for number, line in enumerate(_lines(chunks), start=1):
        for match in _TOKEN.finditer(line):
            tree = reader.take(match[0], number, match.start() + 1)
            if tree is not None:
                yield tree
    reader.close()


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split("\n")
        yield from lines
    if rest:
        yield rest


class _Reader:
    """The tree in the making."""

    def __init__(self, name: str):
        self.name = name
        self._begin()

    def _begin(self) -> None:
        self.tree = LabelledTree([], [], [])
        self.open: list[tuple[int, int, int]] = []  # node, line, column
        self.children: list[int] = []
        self.fresh = False  # whether the last token was an opening bracket

    def take(self, token: str, line: int, column: int) -> LabelledTree | None:
        """Read one token; the tree, if it ends one."""
        if token == "(":
            self._opened(line, column)
        elif token == ")":
            return self._closed(line, column)
        else:
            self._word(token, line, column)
        return None

    def _opened(self, line: int, column: int) -> None:
        tree = self.tree
        node = len(tree.parents)
        if not self.open:
            tree.line = line
        else:
            parent = self.open[-1][0]
            if tree.words[parent] is not None:
                self._fail(line, column, f"a bracket opens after the word {tree.words[parent]!r}; "
                           "a node has a word or children, not both")  # fmt: skip
            self.children[parent] += 1
        tree.parents.append(self.open[-1][0] if self.open else -1)
        tree.labels.append(None)
        tree.words.append(None)
        self.children.append(0)
        self.open.append((node, line, column))
        self.fresh = True
        if node >= MOST_NODES:
            self._fail(line, column, f"the tree has over {MOST_NODES:,} nodes")

    def _word(self, token: str, line: int, column: int) -> None:
        if not self.open:
            self._fail(line, column, f"{token[:40]!r} stands outside of a tree")
        node, tree = self.open[-1][0], self.tree
        if self.fresh:
            tree.labels[node], self.fresh = token, False
        elif self.children[node]:
            self._fail(line, column, f"the word {token[:40]!r} stands beside children; put it into "
                       "brackets of its own")  # fmt: skip
        elif tree.words[node] is not None:
            self._fail(line, column, f"a second word {token[:40]!r} in one leaf; give each word "
                       "brackets of its own")  # fmt: skip
        else:
            tree.words[node] = _ESCAPES.get(token, token)

    def _closed(self, line: int, column: int) -> LabelledTree | None:
        if not self.open:
            self._fail(line, column, "a bracket closes that was never opened")
        node, tree = self.open.pop()[0], self.tree
        if tree.words[node] is None and not self.children[node]:
            word = tree.labels[node]
            if word is None:
                self._fail(line, column, "an empty tree, ()")
            # A leaf without a label: (word).
            tree.labels[node], tree.words[node] = None, _ESCAPES.get(word, word)
        self.fresh = False
        if self.open:
            return None
        self._begin()
        return tree

    def close(self) -> None:
        if self.open:
            _, line, column = self.open[-1]
            self._fail(line, column, f"{len(self.open)} bracket(s) that open here or before are "
                       "never closed")  # fmt: skip

    def _fail(self, line: int, column: int, what: str) -> NoReturn:
        raise FileError(f"{self.name}, line {line}, column {column}: {what}.")
