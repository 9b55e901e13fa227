"""Reading text files as UTF-8, in chunks, with errors that name the file, byte and line."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from elman.errors import FileError, nearest

CHUNK_BYTES = 1 << 20
# Control characters that no text holds, but for the white space and the escapes of terminals.
_CONTROL = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f]")
_CONTROLS = bytes(b for b in range(256) if _CONTROL.match(bytes([b])))
_CONTROL_SHARE = 0.02
_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_MAGIC = {
    b"\x1f\x8b": "a gzip file: unpack it first",
    b"PK\x03\x04": "a zip file: unpack it first",
    b"%PDF": "a PDF: export its text first",
}


def read_chunks(path: str | Path, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
    r"""Yield the text of a file piece by piece, so that it may be larger than memory.

    The bytes are UTF-8. A byte-order mark is dropped, each CRLF becomes "\n", and a final "\n" is
    added where there is none.

    Args:
        path: a file; "-" is standard input.
        chunk_bytes: bytes read at a time, >= 4.

    Returns:
        an iterator over non-empty strings; their concatenation is the text.

    Raises:
        FileError: the file is missing, a folder, empty, binary, or not UTF-8. The message names
            the file and, where it applies, the byte and the line of the first offence.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.txt"
        ...     _ = file.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
        ...     "".join(read_chunks(file))
        'one\ntwo\n'
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        with open_bytes(path) as stream:
            yield from _decode(stream, name, chunk_bytes)
    except OSError as error:
        raise FileError(f"{name}: cannot be read: {error.strerror or error}.") from None


def read_text(path: str | Path) -> str:
    """Return the whole text of a file; see `read_chunks` for what is accepted."""
    return "".join(read_chunks(path))


def open_bytes(path: str | Path) -> IO[bytes]:
    """Open a file to read its bytes; "-" is standard input.

    Raises:
        FileError: the file is missing or a folder.
    """
    if str(path) == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False) if _real_stdin() else sys.stdin.buffer
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path}: is a folder; name the text files in it.")
    if not path.exists():
        raise FileError(f"{path}: there is no such file.{nearest(path.name, _beside(path), 0.75)}")
    return path.open("rb")


def _beside(path: Path) -> list[str]:
    """Names of the files in the folder of a path, none where it cannot be listed."""
    try:
        return [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return []


def _real_stdin() -> bool:
    try:
        return sys.stdin.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False  # replaced by an object in memory


def _decode(stream: IO[bytes], name: str, chunk_bytes: int) -> Iterator[str]:
    """Decode `stream`; `offset` is the position in the file of the first byte of `data`."""
    offset, line, pending, held, last = 0, 1, b"", "", ""
    while True:
        chunk = stream.read(chunk_bytes)
        data = pending + chunk
        if offset == 0:
            if not data:
                raise FileError(f"{name}: is empty (0 bytes).")
            refuse_known_formats(data, name)
        _refuse_binary(data, name, offset)
        try:
            text, used = codecs.utf_8_decode(data, "strict", not chunk)
        except UnicodeDecodeError as error:
            at, line = offset + error.start, line + data.count(b"\n", 0, error.start)
            raise FileError(
                f"{name}: not UTF-8 at byte {at} (0x{data[error.start]:02x}: {error.reason}), in "
                f"line {line}; convert it, for instance with iconv -f LATIN1 -t UTF-8."
            ) from None
        if offset == 0:
            text = text.removeprefix("\ufeff")
        offset += used
        line += data.count(b"\n", 0, used)
        pending = data[used:]
        text = held + text
        held = "\r" if chunk and text.endswith("\r") else ""  # its "\n" may follow
        text = text.removesuffix(held)
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if text:
            last = text[-1]
            yield text
        if not chunk:
            break
    if not last:
        raise FileError(f"{name}: is empty (a byte-order mark and no text).")
    if last != "\n":
        yield "\n"


def refuse_known_formats(data: bytes, name: str) -> None:
    """Refuse what begins as UTF-16, an archive or a PDF does, and say what to do.

    Raises:
        FileError: it is one of these.
    """
    for mark, encoding in _BOMS.items():
        if data.startswith(mark):
            raise FileError(
                f"{name}: not UTF-8 at byte 0: it begins with the mark of {encoding}; "
                f"convert it, for instance with iconv -f {encoding} -t UTF-8."
            )
    for mark, what in _MAGIC.items():
        if data.startswith(mark):
            raise FileError(f"{name}: binary at byte 0: it is {what}.")


def _refuse_binary(data: bytes, name: str, offset: int) -> None:
    """Refuse a NUL byte anywhere, and a chunk of which too much is control characters."""
    nul = data.find(b"\0")
    if nul >= 0:
        raise FileError(f"{name}: binary: a NUL at byte {offset + nul}; expected UTF-8 text.")
    if len(data.translate(None, _CONTROLS)) == len(data):
        return
    first = _CONTROL.search(data)
    if first is None:
        return
    found = len(_CONTROL.findall(data))
    if found > max(3, _CONTROL_SHARE * len(data)):
        raise FileError(
            f"{name}: binary: {found} control characters in {len(data)} bytes, the first at byte "
            f"{offset + first.start()}; expected UTF-8 text."
        )
