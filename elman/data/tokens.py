"""From text, streamed, to token ids in a compact array; the array may lie on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Literal

import numpy as np

from elman.data.vocabulary import END, Level

MEMORY_BYTES = 1 << 30  # more ids than fit here are kept in a temporary file
_MARKED_UNKNOWN = " <unk> "


class TokenArray:
    """A growing array of ids in the smallest unsigned type that holds them.

    Beyond `memory_bytes` the ids go to an unnamed temporary file, and `finish` maps it.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES):
        self.memory_bytes = memory_bytes
        self.chunks: list[np.ndarray] = []
        self.largest = 0
        self.size = 0
        self.file: IO[bytes] | None = None

    def append(self, ids: np.ndarray) -> None:
        """Add ids (integers >= 0) at the end."""
        if not ids.size:
            return
        self.largest = max(self.largest, int(ids.max()))
        self.size += ids.size
        self.chunks.append(ids.astype(np.min_scalar_type(int(ids.max()))))
        if self.file is None and self.size * self._dtype().itemsize > self.memory_bytes:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the array)
        if self.file is not None:
            for chunk in self.chunks:
                self.file.write(chunk.astype(np.uint32).tobytes())
            self.chunks.clear()

    def _dtype(self) -> np.dtype:
        return np.min_scalar_type(self.largest)

    def finish(self) -> np.ndarray:
        """Return all ids, (tokens,), writable."""
        if self.file is not None:
            self.file.flush()
            ids = np.memmap(self.file, dtype=np.uint32, mode="r+", shape=(self.size,))
            self.file.close()  # the mapping holds the file
            return ids
        if not self.chunks:
            return np.zeros(0, self._dtype())
        result = np.concatenate([chunk.astype(self._dtype(), copy=False) for chunk in self.chunks])
        self.chunks.clear()
        return result


class Tokeniser:
    r"""Gives each distinct token an id in the order of appearance; the end of a line is 0.

    Args:
        level: "char" or "word".

    Example:
        >>> tokeniser = Tokeniser("word")
        >>> tokeniser.ids("a pear and a pear\n").tolist()
        [1, 2, 3, 1, 2, 0]
        >>> tokeniser.tokens
        ['\n', 'a', 'pear', 'and']
    """

    def __init__(self, level: Level):
        self.level: Level = level
        self.tokens: list[str] = [END]
        self._words: dict[str, int] = {END: 0}
        self._table = np.full(0x110000 if level == "char" else 0, -1, dtype=np.int32)
        self._table[10:11] = 0

    def ids(self, text: str) -> np.ndarray:
        """Return the ids of a piece of text; words must not be cut at its ends."""
        return self._characters(text) if self.level == "char" else self._split(text)

    def _characters(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids = self._table[points]
        if ids.size and ids.min() < 0:
            for point in np.unique(points[ids < 0]):
                self._table[point] = len(self.tokens)
                self.tokens.append(chr(point))
            ids = self._table[points]
        return ids

    def _split(self, text: str) -> np.ndarray:
        # NUL is refused by the reader, so it can stand for the end of a line while splitting.
        words = text.replace("\n", " \0 ").split()
        known = self._words
        known["\0"] = 0
        for word in dict.fromkeys(words):
            if word not in known:
                known[word] = len(self.tokens)
                self.tokens.append(word)
        return np.fromiter(map(known.__getitem__, words), dtype=np.int64, count=len(words))

    def read(self, chunks: Iterable[str], memory_bytes: int = MEMORY_BYTES) -> np.ndarray:
        """Return the ids of a text that comes in pieces, (tokens,)."""
        array = TokenArray(memory_bytes)
        for chunk in chunks if self.level == "char" else whole_lines(chunks):
            array.append(self.ids(chunk))
        return array.finish()

    def lengths(self) -> np.ndarray:
        """Return how many characters each token is; an end of a line is one."""
        return np.array([len(token) for token in self.tokens], dtype=np.int64)


def whole_lines(chunks: Iterable[str]) -> Iterator[str]:
    """Regroup pieces so that none ends within a line."""
    held: list[str] = []
    for chunk in chunks:
        cut = chunk.rfind("\n") + 1
        if cut:
            yield "".join([*held, chunk[:cut]])
            held = []
        held.append(chunk[cut:])
    if rest := "".join(held):
        yield rest


def detect_level(text: str) -> Literal["char", "word"]:
    """Choose the level for a text: words if it is marked up for them, else characters.

    A corpus in which rare words were already replaced by `<unk>` (Penn Treebank, WikiText) can
    only be meant for words; everything else is modelled by characters unless words are asked for.

    Example:
        >>> detect_level("the pear"), detect_level("the <unk> pear <unk> <unk> ")
        ('char', 'word')
    """
    return "word" if text.count(_MARKED_UNKNOWN) >= 2 else "char"
