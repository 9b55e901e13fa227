"""The split into training and validation, by what the examples say and not where they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from elman.errors import InputError


def held_out(keys: Iterable[str | bytes], fraction: float, seed: int = 0) -> np.ndarray:
    """Choose the examples of the validation part; equal keys stay on one side.

    An example is held out if a hash of its key, as a number in [0, 1), lies below the fraction. So
    a text that stands twice in a file is never both learned from and judged on, and the choice is
    the same on every machine and does not change for old examples when new ones are added.

    Args:
        keys: what identifies each example, such as its text.
        fraction: share of the keys to hold out, in (0, 1).
        seed: of the hash, ≥ 0.

    Returns:
        True for examples held out, (examples,).

    Raises:
        InputError: a fraction out of range, or fewer than two different keys.

    Example:
        >>> held_out(["a", "b", "a", "d"], 0.4).tolist()
        [True, False, True, False]
    """
    if not 0 < fraction < 1:
        raise InputError(f"valid_fraction is {fraction}; expected a number between 0 and 1.")
    places = np.fromiter((_place(key, seed) for key in keys), dtype=np.float64)
    found = places < fraction
    if not len(places) or places.min() == places.max():
        raise InputError(
            f"{len(places)} example(s), all alike, cannot be divided into training and validation; "
            "give more data, or a valid_file."
        )
    if not found.any():
        found = places == places.min()
    elif found.all():
        found = places != places.max()
    return found


_FEWEST = 200  # examples that are always judged, if there are as many


def spread(count: int, share: float | None) -> np.ndarray:
    """Choose examples evenly over a part, whose order may be by class or by length.

    Args:
        count: examples of the part, ≥ 0.
        share: of them, in (0, 1]; None is all. 200 are taken in any case, if there are as many.

    Returns:
        their numbers, rising, int64.

    Example:
        >>> spread(3, None).tolist(), len(spread(1000, 0.5)), spread(1000, 0.5)[:3].tolist()
        ([0, 1, 2], 500, [0, 2, 4])
    """
    size = count if share is None else min(count, max(round(share * count), _FEWEST))
    return np.linspace(0, max(count - 1, 0), size).round().astype(np.int64)


def _place(key: str | bytes, seed: int) -> float:
    data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    digest = hashlib.blake2b(data, digest_size=8, salt=seed.to_bytes(16, "little"))
    return (int.from_bytes(digest.digest(), "little") >> 11) * 2.0**-53
