"""From text, streamed, to token ids in a compact array; the array may lie on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Literal

import numpy as np

from elman.data.vocabulary import END, Level

MEMORY_BYTES = 1 << 28  # more ids than fit here are kept in a temporary file
_MARKED_UNKNOWN = " <unk> "
_FEW = 1 << 16  # ids of pieces that are put together before they are kept
_UNSEEN = 255
_BLOCK = 1 << 22  # ids rewritten at a time


class TokenArray:
    """A growing array of ids in the smallest unsigned type that holds them.

    Beyond `memory_bytes` the ids go to an unnamed temporary file, and `finish` maps it, shared, so
    that they take room on the disk (in the system's folder for temporary files: TMPDIR) and not in
    memory.

    Args:
        memory_bytes: of ids that may be kept in memory, >= 0.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES):
        self.memory_bytes = memory_bytes
        self.size = 0
        self._kind = np.dtype(np.uint8)
        self._pieces: list[np.ndarray] = []  # not yet put together
        self._waiting = 0  # ids in them
        self._chunks: list[np.ndarray] = []
        self._file: IO[bytes] | None = None

    def append(self, ids: np.ndarray) -> None:
        """Add ids (integers >= 0) at the end."""
        if not ids.size:
            return
        self.size += ids.size
        self._waiting += ids.size
        self._pieces.append(ids.astype(np.min_scalar_type(int(ids.max()))))
        if self._waiting >= _FEW:
            self._keep()

    def _keep(self) -> None:
        """Put the waiting pieces together, and into the file where there are too many."""
        if not self._pieces:
            return
        chunk = np.concatenate(self._pieces)
        self._pieces, self._waiting = [], 0
        wider = np.promote_types(self._kind, chunk.dtype)
        if self._file is not None and wider != self._kind:
            self._file = _rewritten(self._file, self._kind, wider)
        self._kind = wider
        self._chunks.append(chunk)
        if self._file is None and self.size * wider.itemsize > self.memory_bytes:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the array)
        if self._file is not None:
            for chunk in self._chunks:
                self._file.write(np.ascontiguousarray(chunk, wider).data)
            self._chunks.clear()

    def finish(self) -> np.ndarray:
        """Return all ids, (tokens,), writable."""
        self._keep()
        if self._file is not None:
            self._file.flush()
            ids = np.memmap(self._file, dtype=self._kind, mode="r+", shape=(self.size,))
            self._file.close()  # the mapping holds the file
            return ids
        result = np.empty(self.size, self._kind)
        at = 0
        for chunk in self._chunks:
            result[at : at + chunk.size] = chunk
            at += chunk.size
        self._chunks.clear()
        return result


def _rewritten(file: IO[bytes], kind: np.dtype, wider: np.dtype) -> IO[bytes]:
    """A temporary file with the numbers of another one in a wider type; the other is closed."""
    new = tempfile.TemporaryFile()  # noqa: SIM115
    file.seek(0)
    while data := file.read(_BLOCK * kind.itemsize):
        new.write(np.frombuffer(data, kind).astype(wider).data)
    file.close()
    return new


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
        # The first 255 ids of ASCII once more, small enough for a quick look.
        self._ascii = np.full(128, _UNSEEN, dtype=np.uint8)

    def ids(self, text: str) -> np.ndarray:
        """Return the ids of a piece of text; words must not be cut at its ends."""
        return self._characters(text) if self.level == "char" else self._split(text)

    def _characters(self, text: str) -> np.ndarray:
        if text.isascii():
            quick = self._ascii.take(np.frombuffer(text.encode("ascii"), dtype=np.uint8))
            if quick.size and quick.max() < _UNSEEN:
                return quick
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids = self._table[points]
        if ids.size and ids.min() < 0:
            for point in np.unique(points[ids < 0]):
                self._table[point] = len(self.tokens)
                self.tokens.append(chr(point))
            known = self._table[:128]
            self._ascii = np.where((known < 0) | (known > _UNSEEN), _UNSEEN, known).astype(np.uint8)
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
