"""Sequences of vectors from NumPy's files: .npy and .npz, without pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from elman.data.reading import open_bytes
from elman.errors import FileError

_PIECE = 1 << 22  # numbers looked at at a time
_NUMBERS = "biuf"
_PICKLED = "its entries are Python objects; save an array of numbers for each sequence in an .npz."


def read_arrays(path: str | Path) -> list[np.ndarray]:
    """Return the sequences of a file of NumPy as float32 arrays, each (time, features).

    An array of three dimensions is (count, time, features), one of two a sequence, one of one a
    sequence of single numbers. An .npz holds such arrays under names; they come in its order.

    Args:
        path: a file .npy or .npz.

    Returns:
        the sequences; those of an .npy of float32 are views of the mapped file, not to be written.

    Raises:
        FileError: missing, damaged, holding objects, text, complex numbers, no numbers at all, or
            one that is NaN or infinite; its array and place are named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", walk=np.ones((5, 2)), run=np.zeros(3))
        ...     [array.shape for array in read_arrays(f"{folder}/a.npz")]
        [(5, 2), (3, 1)]
    """
    found: list[np.ndarray] = []
    for name, array in read_named_arrays(path).items():
        place = str(path) if name == "" else f"{path}: {name}"
        if array.dtype.kind not in _NUMBERS:
            raise FileError(f"{place}: expected numbers, got {array.dtype}.")
        if not 1 <= array.ndim <= 3 or 0 in array.shape:
            raise FileError(
                f"{place}: its shape is {array.shape}; expected (time, features) or "
                "(count, time, features), none of them 0."
            )
        _see_finite(array, place)
        if array.ndim == 1:
            array = array[:, None]
        every = array if array.ndim == 3 else [array]
        found.extend(sequence.astype(np.float32, copy=False) for sequence in every)
    return found


def read_named_arrays(path: str | Path) -> Mapping[str, np.ndarray]:
    """Return the arrays of a file of NumPy as they are, by name; that of an .npy is called "".

    Raises:
        FileError: missing, damaged, empty, or holding Python objects (they would run code).
    """
    path = Path(path)
    with open_bytes(path) as file:
        start = file.read(6)
    try:
        if start.startswith(b"PK"):
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: _member(archive, name, path) for name in archive.files}
            if not arrays:
                raise FileError(f"{path}: holds no array.")
            return arrays
        if start == b"\x93NUMPY":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, FileError):
            raise
        objects = "object" in str(error).lower()
        raise FileError(f"{path}: {_PICKLED if objects else f'damaged: {error}.'}") from None
    raise FileError(f"{path}: is no .npy or .npz file: it begins with {start!r}.")


def _member(archive: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        objects = "object" in str(error).lower()
        said = _PICKLED if objects else f"damaged: {error}."
        raise FileError(f"{path}: {name}: {said}") from None


def _see_finite(array: np.ndarray, place: str) -> None:
    """Name the first entry that is NaN or infinite, going through a mapped file in pieces."""
    if array.dtype.kind != "f":
        return
    step = max(1, _PIECE // max(1, array[0].size))
    for first in range(0, len(array), step):
        wrong = np.argwhere(~np.isfinite(array[first : first + step]))
        if len(wrong):
            at = wrong[0].copy()
            at[0] += first
            where = ", ".join(map(str, at.tolist()))
            raise FileError(f"{place}: entry [{where}] is {array[tuple(at)]}.")
