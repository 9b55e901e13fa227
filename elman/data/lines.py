"""Lines of a file or of standard input, one by one as they arrive, in constant memory."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from types import TracebackType
from typing import IO

from elman.data.reading import open_bytes
from elman.errors import FileError

MOST_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16


class TooLong(bytes):
    """The beginning of a line of more than `MOST_LINE_BYTES` bytes; the rest of it was dropped."""


class Lines:
    r"""The lines of a source, each as soon as its end has come.

    A line ends with "\n". What stands behind the last one is a line too, once the source has
    ended. Waiting for a line can be bounded in time, so that whoever reads can do something else,
    such as answer a signal.

    Args:
        source: a file; "-" is standard input.
        start: byte of a file to begin at, ≥ 0; a pipe stands where it stands.
        held: bytes that had been read ahead before an earlier stop; they come first.

    Attributes:
        name: what to call the source in messages.
        ended: the source has ended and every line was given.
        offset: bytes of the source up to the end of the line given last.
        returns: whether a place in it can be gone back to: it is a file, and no pipe.

    Raises:
        FileError: the file is missing, a folder, or shorter than `start`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.csv"
        ...     _ = file.write_bytes(b"y\r\n1\n2")
        ...     with Lines(file) as lines:
        ...         [lines.read() for _ in range(4)], lines.offset, lines.ended
        ([b'y', b'1', b'2', None], 6, True)
    """

    def __init__(self, source: str | Path, start: int = 0, held: bytes = b""):
        self.name = "standard input" if str(source) == "-" else str(source)
        self.offset, self.ended = start, False
        self._file = open_bytes(source)
        self._handle = _handle_of(self._file)
        self.returns = str(source) != "-" and Path(source).is_file()
        if start and self.returns:
            self._go_to(start)
        self._buffer, self._at, self._searched = held, 0, 0
        self._drained = self._dropping = False
        self._head = b""

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the source."""
        self._file.close()

    def read(self, seconds: float | None = None) -> bytes | None:
        """The next line without its end; None where there is none.

        Args:
            seconds: the longest to wait, ≥ 0; None waits for ever.

        Returns:
            bytes | None: None after the last line, when `ended` is true, and where no line came
            within the time. A line of more than `MOST_LINE_BYTES` comes as a `TooLong`.

        Raises:
            FileError: the source cannot be read.
        """
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end >= 0:
                return self._take(end, end + 1)
            self._searched = len(self._buffer)
            if self._searched - self._at > MOST_LINE_BYTES:
                self._drop()
            if self._drained:
                self.ended = self._at == len(self._buffer) and not self._dropping
                return None if self.ended else self._take(self._searched, self._searched)
            if not self._more(seconds):
                return None

    def held(self) -> bytes:
        """What was read ahead and not given yet."""
        return self._buffer[self._at :]

    def _take(self, end: int, after: int) -> bytes | None:
        line = self._buffer[self._at : end]
        self.offset += after - self._at
        self._at = self._searched = after
        if self._dropping:
            self._dropping = False
            return TooLong(self._head)
        line = line[:-1] if line.endswith(b"\r") else line
        return TooLong(line[:80]) if len(line) > MOST_LINE_BYTES else line

    def _drop(self) -> None:
        """Let go of a line that is too long, but for its beginning."""
        if not self._dropping:
            self._dropping, self._head = True, self._buffer[self._at : self._at + 80]
        self.offset += len(self._buffer) - self._at
        self._buffer, self._at, self._searched = b"", 0, 0

    def _more(self, seconds: float | None) -> bool:
        """Read what is there into the buffer; whether there was something, or the end."""
        try:
            if self._handle is None:
                chunk = self._file.readline(_CHUNK_BYTES)
            elif _arrives(self._handle, seconds):
                chunk = os.read(self._handle, _CHUNK_BYTES)
            else:
                return False
        except OSError as error:
            raise FileError(f"{self.name}: cannot be read: {error.strerror or error}.") from None
        self._drained = not chunk
        rest = self._buffer[self._at :]
        self._searched -= self._at
        self._buffer, self._at = rest + chunk, 0
        return True

    def _go_to(self, start: int) -> None:
        size = self._file.seek(0, os.SEEK_END)
        if size < start:
            self._file.close()
            raise FileError(
                f"{self.name}: has {size:,} bytes, but {start:,} of them were read before; this is "
                "another file, or it was cut. Begin a new run with another folder (--run)."
            )
        self._file.seek(start)


def _handle_of(file: IO[bytes]) -> int | None:
    """What the system knows a file by; None for an object in memory."""
    try:
        return file.fileno()
    except (OSError, AttributeError):
        return None


def _arrives(handle: int, seconds: float | None) -> bool:
    """Whether bytes, or the end, are there within the time."""
    if sys.platform == "win32":  # which can wait for sockets only
        return True
    return bool(select.select([handle], [], [], seconds)[0])
