"""Compiled kernels on disk, so that a cell is compiled once a machine and not once a program.

An entry is object code: whoever can write into the folder decides what our process runs. So the
folder must be the user's own and closed to the writing of others, and so must every entry in it;
what is not is left alone. The checksum of an entry finds damage (a full disk, a torn copy), it is
no protection against somebody who may write there.

The folder is `$ELMAN_CACHE`, or `elman/kernels` in the place that the system has for caches.
`ELMAN_CACHE=off`, or empty, keeps nothing on disk. Nothing that goes wrong here is an error: the
kernel is compiled again, and one warning a process says why.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"ElmanKrn"
_FORMAT = 1
_SUFFIX = ".kernel"
_ASIDE = ".aside-"
# Magic, format, the key's digest, the payload's digest, the payload's length, the machine's length.
_HEAD = struct.Struct("<8sI32s32sQI")
_LARGEST = 64 * 2**20  # no kernel is near it; a length above it is damage
LIMIT = 256 * 2**20
_ABANDONED = 3600.0  # seconds after which a file written aside has no writer any more

_warned = False


@dataclass(frozen=True)
class Entry:
    """A kernel on disk: its file, its size in bytes, and when it was last used (epoch seconds)."""

    path: Path
    size: int
    used: float


def _warn(message: str) -> None:
    """Say once a process what is wrong with the cache; the rest is silent."""
    global _warned
    if _warned:
        return
    _warned = True
    warnings.warn(f"Cache of compiled kernels: {message}", RuntimeWarning, stacklevel=2)


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("elman")
    except PackageNotFoundError:  # run from its sources, which `_sources` tells apart
        return ""


@functools.cache
def _sources() -> str:
    """A digest of the code that emits kernels, so that a changed emitter finds no old kernels."""
    digest = hashlib.sha256()
    equation = Path(__file__).parents[2] / "equation"
    for folder in (Path(__file__).parent, equation):
        for file in sorted(folder.glob("*.py")):
            with suppress(OSError):
                digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def digest(key: str, functions: Sequence[str], machine: str, compiler: str) -> bytes:
    """The name of a kernel: a hash of all that its object code depends on.

    Args:
        key: what is computed, for instance the graph as JSON with the number type.
        functions: the names that the object must define.
        machine: the processor, as `Machine.describe` says it.
        compiler: the compiler, its version and settings.

    Returns:
        32 bytes.

    Example:
        >>> digest("a", ["f"], "plain", "llvm") == digest("b", ["f"], "plain", "llvm")
        False
    """
    parts = (str(_FORMAT), _version(), _sources(), compiler, machine, *functions, key)
    hashed = hashlib.sha256()
    for part in parts:
        text = part.encode()
        hashed.update(struct.pack("<Q", len(text)) + text)
    return hashed.digest()


def _place() -> Path | None:
    """Where the folder is to be; None where the cache is turned off."""
    chosen = os.environ.get("ELMAN_CACHE")
    if chosen is not None and chosen.strip().lower() in ("", "off"):
        return None
    try:
        if chosen is not None:
            return Path(chosen).expanduser()
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA")
            caches = Path(base) if base else Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            caches = Path.home() / "Library" / "Caches"
        else:
            base = os.environ.get("XDG_CACHE_HOME")
            # The XDG specification wants a path that is not absolute to be ignored.
            caches = Path(base) if base and os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError as error:  # a user without a home
        _warn(f"{error}; nothing is kept. Set ELMAN_CACHE to a folder, or to 'off'")
        return None
    return caches / "elman" / "kernels"


def _not_ours(status: os.stat_result) -> str:
    """Why a file or folder is not the user's own, in words; "" if it is."""
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}, not to you"
    if os.name != "nt" and status.st_mode & 0o022:
        return f"may be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _folder(*, make: bool) -> Path | None:
    """The folder if it is there (or can be made) and is the user's own, else None."""
    folder = _place()
    if folder is None:
        return None
    try:
        if make:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not make:
            return None
        _warn(f"{folder} cannot be used ({error.strerror or error}); kernels are compiled anew")
        return None
    if stat.S_ISLNK(status.st_mode):
        reason = "is a link"
    elif not stat.S_ISDIR(status.st_mode):
        reason = "is not a folder"
    else:
        reason = _not_ours(status)
    if reason:
        _warn(
            f"{folder} {reason}, and kernels are code that we would run; it is not used. Make it a "
            "folder of your own with mode 0700, or set ELMAN_CACHE to one"
        )
        return None
    return folder


def _contents(path: Path) -> bytes | None:
    """The bytes of an entry that is a plain file of the user's own; None if there is none."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        # O_NONBLOCK: a pipe put in its place would make us wait for ever.
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("is not a plain file")
        if reason := _not_ours(status):
            raise OSError(reason)
        if status.st_size > _LARGEST:
            raise OSError(f"has {status.st_size} bytes, more than any kernel")
        return file.read()


def _payload(contents: bytes, digest: bytes, machine: str) -> bytes:
    """The object code of an entry; ValueError where anything about it does not fit."""
    if len(contents) < _HEAD.size:
        raise ValueError("is cut short")
    magic, version, key, checksum, length, described = _HEAD.unpack_from(contents)
    if magic != _MAGIC or version != _FORMAT:
        raise ValueError("is not a kernel of this format")
    start = _HEAD.size + described
    if len(contents) != start + length:
        raise ValueError("is cut short or too long")
    if key != digest:
        raise ValueError("is another kernel")
    if contents[_HEAD.size : start] != machine.encode():
        raise ValueError("is for another processor")
    payload = contents[start:]
    if hashlib.sha256(payload).digest() != checksum:
        raise ValueError("is damaged (its checksum differs)")
    return payload


def read(digest: bytes, machine: str) -> bytes | None:
    """The object code kept under a digest.

    Args:
        digest: from `digest`, 32 bytes.
        machine: the processor, as `Machine.describe` says it.

    Returns:
        The bytes as they were written; None where there are none, or none that can be trusted
        (said in one warning a process).
    """
    folder = _folder(make=False)
    if folder is None:
        return None
    path = folder / f"{digest.hex()}{_SUFFIX}"
    try:
        contents = _contents(path)
        if contents is None:
            return None
        payload = _payload(contents, digest, machine)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        _warn(f"{path}: {reason}; the kernel is compiled anew")
        return None
    with suppress(OSError):
        os.utime(path)  # the order of use, also where the file system keeps no time of access
    return payload


def write(digest: bytes, machine: str, payload: bytes) -> bool:
    """Keep object code under a digest; other processes see all of it or nothing.

    Args:
        digest: from `digest`, 32 bytes.
        machine: the processor, as `Machine.describe` says it.
        payload: the object code.

    Returns:
        Whether it was kept; where not, one warning a process says why.
    """
    folder = _folder(make=True)
    if folder is None:
        return False
    text = machine.encode()
    head = _HEAD.pack(
        _MAGIC, _FORMAT, digest, hashlib.sha256(payload).digest(), len(payload), len(text)
    )
    try:
        _put(folder, f"{digest.hex()}{_SUFFIX}", head + text + payload)
    except OSError as error:
        _warn(f"{folder} cannot be written ({error.strerror or error}); kernels are compiled anew")
        return False
    _trim(folder)
    return True


def _put(folder: Path, name: str, contents: bytes) -> None:
    """Write aside, flush, rename: a reader never sees a part, and the last of two writers wins."""
    # mkstemp makes the file with mode 0600 and a name that nobody else has.
    descriptor, aside = tempfile.mkstemp(prefix=_ASIDE, dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(descriptor)
        os.replace(aside, folder / name)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise


def _list(folder: Path) -> list[Entry]:
    """The entries of a folder, the longest unused first; others may be deleting meanwhile."""
    found = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found.append(Entry(path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: entry.used)


def _trim(folder: Path) -> None:
    """Keep the folder below its limit, and clear what a killed process left aside."""
    kept = _list(folder)
    total = sum(entry.size for entry in kept)
    for entry in kept:
        if total <= LIMIT:
            break
        total -= entry.size
        with suppress(OSError):
            entry.path.unlink()
    for path in folder.glob(f"{_ASIDE}*"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > _ABANDONED:
                path.unlink()


def folder() -> Path | None:
    """The folder in use; None where the cache is off, or the folder is not the user's own."""
    return _folder(make=False)


def entries() -> list[Entry]:
    """The kernels on disk, the longest unused first; none where there is no folder."""
    here = _folder(make=False)
    return [] if here is None else _list(here)


def clear() -> int:
    """Delete all kernels on disk.

    Returns:
        How many were deleted. Programs that run now keep what they have loaded.
    """
    count = 0
    for entry in entries():
        with suppress(OSError):
            entry.path.unlink()
            count += 1
    return count
