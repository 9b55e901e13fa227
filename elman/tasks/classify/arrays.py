"""Labelled sequences of numbers from NumPy's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elman.data.arrays import read_named_arrays
from elman.errors import FileError

_SEQUENCES, _LABELS, _LENGTHS = ("x", "X"), ("y", "Y", "labels", "label"), ("lengths", "length")
_LAYOUT = (
    "expected x, (count, time, features) or (count, time), perhaps lengths, (count,), and y, "
    "(count,); or one array (time, features) a sequence, and y"
)


class Labelled(NamedTuple):
    """Sequences, (time, features) float32 each, and labels, "" where the file has none."""

    sequences: list[np.ndarray]
    labels: list[str]


def is_arrays(path: str | Path) -> bool:
    """Whether a file is NumPy's, by its name."""
    return Path(path).suffix.lower() in (".npy", ".npz")


def read_labelled(path: str | Path, label: str | None = None) -> Labelled:
    """Return the sequences of a file of NumPy with their labels.

    Args:
        path: an .npz with arrays x and y (and lengths, where x is padded), or with an array a
            sequence and y; or an .npy with x alone.
        label: a file .npy with the labels; of an .npz, the name of their array.

    Raises:
        FileError: arrays that do not belong together, a number that is NaN or infinite, with its
            sequence and step.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     x = np.zeros((2, 5, 3))
        ...     np.savez(f"{folder}/a.npz", x=x, y=["up", "down"], lengths=[5, 2])
        ...     found = read_labelled(f"{folder}/a.npz")
        >>> [s.shape for s in found.sequences], found.labels
        ([(5, 3), (2, 3)], ['up', 'down'])
    """
    arrays = dict(read_named_arrays(path))
    labels = _labels(arrays, path, label)
    lengths = _taken(arrays, _LENGTHS)
    whole = _taken(arrays, ("", *_SEQUENCES))
    if whole is not None:
        sequences = _cut(whole, lengths, path)
    else:
        sequences = [_of_time(array, f"{path}: {name}") for name, array in arrays.items()]
    if not sequences:
        raise FileError(f"{path}: holds no sequence; {_LAYOUT}.")
    if labels is not None and len(labels) != len(sequences):
        raise FileError(
            f"{path}: {len(sequences)} sequences and {len(labels)} labels; each needs one."
        )
    found = [_checked(s, f"{path}, sequence {i}") for i, s in enumerate(sequences)]
    wide = {s.shape[1] for s in found}
    if len(wide) > 1:
        raise FileError(f"{path}: sequences of {sorted(wide)} features; all need equally many.")
    return Labelled(found, [""] * len(found) if labels is None else labels)


def _taken(arrays: dict[str, np.ndarray], names: Sequence[str]) -> np.ndarray | None:
    return next((arrays.pop(name) for name in names if name in arrays), None)


def _labels(arrays: dict[str, np.ndarray], path: str | Path, label: str | None) -> list[str] | None:
    """The labels as text; those of whole numbers without a point."""
    if label is not None and is_arrays(label):
        found = next(iter(read_named_arrays(label).values()))
        path = label
    elif label is not None:
        if label not in arrays:
            names = ", ".join(map(repr, arrays))
            raise FileError(f"{path}: holds no array {label!r} (label); it holds {names}.")
        found = arrays.pop(label)
    else:
        taken = _taken(arrays, _LABELS)
        if taken is None:
            return None
        found = taken
    if found.ndim != 1 or found.dtype.kind not in "biufUS":
        raise FileError(
            f"{path}: labels are {found.dtype} of shape {found.shape}; expected (count,), of "
            "numbers or text."
        )
    if found.dtype.kind == "S":
        return [entry.decode("utf-8", "replace") for entry in found.tolist()]
    return [f"{entry:g}" if isinstance(entry, float) else str(entry) for entry in found.tolist()]


def _cut(whole: np.ndarray, lengths: np.ndarray | None, path: str | Path) -> list[np.ndarray]:
    """The sequences of one array, cut to their lengths."""
    if whole.dtype.kind not in "biuf" or whole.ndim not in (2, 3):
        raise FileError(f"{path}: x is {whole.dtype} of shape {whole.shape}; {_LAYOUT}.")
    every = whole[..., None] if whole.ndim == 2 else whole
    if lengths is None:
        return list(every)
    sizes = [int(n) for n in lengths.ravel().tolist()]
    if len(sizes) != len(every) or min(sizes) < 0 or max(sizes) > every.shape[1]:
        raise FileError(
            f"{path}: lengths are {len(sizes)} from {min(sizes)} to {max(sizes)}; expected "
            f"{len(every)} from 1 to {every.shape[1]}."
        )
    return [sequence[:size] for sequence, size in zip(every, sizes, strict=True)]


def _of_time(array: np.ndarray, place: str) -> np.ndarray:
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise FileError(f"{place}: is {array.dtype} of shape {array.shape}; {_LAYOUT}.")
    return array[:, None] if array.ndim == 1 else array


def _checked(sequence: np.ndarray, place: str) -> np.ndarray:
    if 0 in sequence.shape:
        raise FileError(f"{place}: is empty; every sequence needs a time step.")
    if not np.isfinite(sequence).all():
        at = np.argwhere(~np.isfinite(sequence))[0].tolist()
        raise FileError(f"{place}, time step {at[0]}, feature {at[1]}: is {sequence[tuple(at)]}.")
    return np.ascontiguousarray(sequence, dtype=np.float32)
