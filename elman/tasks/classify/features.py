"""The n-grams of a text as numbers of 64 bits, made a text at a time without a loop over them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio, odd
_SHIFT = np.uint64(29)
EDGE = "\u0002"  # before the first and after the last token


@lru_cache(maxsize=1 << 18)
def _number(token: str) -> int:
    """A token as a number of 64 bits that is the same on every machine."""
    data = token.encode("utf-8", "surrogatepass")
    return zlib.crc32(data) | zlib.crc32(data[::-1], 0x5BD1E995) << 32


def _mixed(numbers: np.ndarray) -> np.ndarray:
    numbers = (numbers ^ (numbers >> _SHIFT)) * _FACTOR
    return numbers ^ (numbers >> _SHIFT)


def ngrams(tokens: Sequence[str], order: int, *, edges: bool = False) -> np.ndarray:
    """Return the n-grams of a text, n from 1 to `order`, as numbers of 64 bits.

    Two different n-grams have the same number about once in 2⁶⁴ pairs.

    Args:
        tokens: words or characters.
        order: longest n-gram, >= 1.
        edges: whether the ends of the text count as tokens (in n-grams of two and more).

    Returns:
        uint64, those of one token first.

    Example:
        >>> len(ngrams(["to", "be", "or", "not", "to", "be"], 2))
        11
        >>> a, b = ngrams(["a", "b"], 2), ngrams(["b", "a"], 2)
        >>> bool(a[0] == b[1]), bool(a[2] == b[2])
        (True, False)
    """
    single = np.array([_number(token) for token in tokens], dtype=np.uint64)
    found = [_mixed(single)]
    if edges:
        edge = np.array([_number(EDGE)], dtype=np.uint64)
        single = np.concatenate([edge, single, edge])
    grams = _mixed(single)
    for n in range(2, order + 1):
        if len(single) < n:
            break
        grams = _mixed(grams[:-1] + np.uint64(n)) + single[n - 1 :]
        grams = _mixed(grams)
        found.append(grams)
    return np.concatenate(found)
