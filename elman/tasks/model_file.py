"""The model file: one safetensors file with weights, metadata as JSON, and a checksum.

Nothing in it is ever executed: tensors are numbers, the metadata is JSON, and a cell travels as
its equation.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from elman.errors import FileError, InputError

FORMAT = 1
MOST_HEADER_BYTES = 100_000_000  # the limit of safetensors itself
MOST_DEPTH = 64  # of nested JSON
_CLEAR = "0" * 64
_KEYS = {"elman_format", "elman_task", "elman_metadata", "elman_checksum"}
_MARK = b'"elman_checksum":"'


def write(
    path: str | Path, task: str, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a model file so that at every moment `path` holds the old file or the new one.

    The file is written beside `path`, flushed to disk and renamed. The checksum is the SHA-256 of
    the whole file with 64 zeros in the checksum's own place.

    Args:
        path: where to write; a file there is replaced.
        task: name of the task ("lm").
        metadata: plain JSON values (finite numbers only).
        tensors: weights by name; each is written in full, also where two share memory.

    Raises:
        InputError: metadata that is no JSON.
        FileError: the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(f"{folder}/m.safetensors", "lm", {"hidden": 2}, {"b": torch.zeros(2)})
        ...     read(f"{folder}/m.safetensors")
        ('lm', {'hidden': 2}, {'b': tensor([0., 0.])})
    """
    path = Path(path)
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the metadata are not plain JSON: {error}.") from None
    notes = {
        "elman_format": str(FORMAT),
        "elman_task": task,
        "elman_metadata": text,
        "elman_checksum": _CLEAR,
    }
    alone = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    data = _in_order(safetensors.torch.save(alone, metadata=notes))
    at = _checksum_place(data, path)
    digest = hashlib.sha256(data).hexdigest().encode()
    _replace(path, b"".join([data[:at], digest, data[at + 64 :]]))


def _in_order(data: bytes) -> bytes:
    """The file with its header's entries sorted, so that the same model is the same bytes.

    The library writes the metadata in an order that changes from run to run.
    """
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.dumps(
        json.loads(data[8:end]), sort_keys=True, ensure_ascii=False, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[end:]


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise FileError(f"{path}: cannot be written: {error.strerror or error}.") from None


def read(path: str | Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Read a model file, or say in one line why it is none.

    Args:
        path: a file written by `write`.

    Returns:
        the task's name, the metadata, and the tensors by name, on the CPU.

    Raises:
        FileError: the file is missing, a folder, cut short, altered in any byte, of a newer
            version, or not a model file of Elman.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = "there is no such file" if not path.exists() else error.strerror or str(error)
        raise FileError(f"{path}: {reason}.") from None
    notes = _header_notes(data, path)
    at = _checksum_place(data, path)
    clear = hashlib.sha256(data[:at])
    clear.update(_CLEAR.encode())
    clear.update(memoryview(data)[at + 64 :])
    if clear.hexdigest().encode() != data[at : at + 64]:
        raise FileError(
            f"{path}: damaged or altered: its checksum does not agree with its content."
        )
    if notes["elman_format"] != str(FORMAT):
        raise FileError(
            f"{path}: model file format {notes['elman_format']}; this version reads {FORMAT}; "
            f"a newer Elman is needed."
        )
    metadata = _json(notes["elman_metadata"], path)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise FileError(f"{path}: damaged: {_one_line(error)}.") from None
    return notes["elman_task"], metadata, tensors


def _header_notes(data: bytes, path: Path) -> dict[str, str]:
    """Return the notes in the header of a safetensors file, all of them strings."""
    if len(data) < 8:
        raise FileError(f"{path}: {len(data)} bytes are no model file; was it cut short?")
    (size,) = struct.unpack("<Q", data[:8])
    if not data[8:9] == b"{" or size > MOST_HEADER_BYTES:
        raise FileError(f"{path}: not a model file (it does not begin as safetensors do).")
    if size > len(data) - 8:
        raise FileError(f"{path}: cut short: its header needs {size} bytes of {len(data) - 8}.")
    header = _json(data[8 : 8 + size], path)
    notes = header.pop("__metadata__", None)
    if not isinstance(notes, dict) or set(notes) != _KEYS:
        raise FileError(f"{path}: no model of Elman: its header does not hold Elman's keys.")
    if not all(isinstance(value, str) for value in notes.values()):
        raise FileError(f"{path}: damaged: its notes are not text.")
    ends = [entry["data_offsets"][1] for entry in header.values() if _is_entry(entry)]
    if len(ends) != len(header):
        raise FileError(f"{path}: damaged: its header does not describe tensors.")
    if (held := len(data) - 8 - size) != (needed := max(ends, default=0)):
        raise FileError(f"{path}: cut short or altered: {held} bytes of weights, not {needed}.")
    return notes


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    ends = entry.get("data_offsets")
    return isinstance(ends, list) and len(ends) == 2 and all(type(end) is int for end in ends)


def _json(text: str | bytes, path: Path) -> dict[str, Any]:
    """Parse JSON that must be an object, not nested deeply, of finite numbers."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: damaged: {_one_line(error)}.") from None
    if not isinstance(value, dict) or _deeper(value, MOST_DEPTH):
        raise FileError(f"{path}: damaged: its metadata are not as Elman writes them.")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _deeper(value: object, most: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return most == 0 or any(_deeper(item, most - 1) for item in inner)


def _checksum_place(data: bytes, path: Path) -> int:
    end = 8 + struct.unpack("<Q", data[:8])[0]
    at = data.find(_MARK, 8, end)
    if at < 0 or data.find(_MARK, at + 1, end) >= 0:
        raise FileError(f"{path}: no model of Elman, or altered: no single checksum in its header.")
    return at + len(_MARK)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def fill(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a model without memory the weights of a file, every one of its shape, to be trained on.

    Raises:
        FileError: a weight is missing, too many, or of another shape; it is named.
    """
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise FileError(
                f"{where}: weight {name!r} is {found.get(name, 'missing')}; this model needs "
                f"{expected.get(name, 'no such weight')}."
            )
    model.load_state_dict(dict(tensors), assign=True)
    for weight in model.parameters():
        weight.requires_grad_(True)
