"""Memory for what a call needs and what it keeps for its backward, used again and again.

A sequence's worth of gates is tens of megabytes. The system gives such memory page by page, each
cleared at its first use, and takes it back when it is freed; that costs as much as the arithmetic.
So blocks of a mebibyte or more come from a store of blocks that were used before. A block is lent
to one tensor, and comes back when nothing refers to that tensor's memory any more.
"""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict, deque

import numpy as np
import torch
from torch import Tensor

# From this many bytes on a block is kept; as many bytes may lie unused at most.
SMALL, LIMIT = 1 << 20, 256 << 20
ALIGNED = 64
NUMPY = {torch.float32: np.float32, torch.float64: np.float64}

_free: OrderedDict[int, deque[np.ndarray]] = OrderedDict()


def empty(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Memory for a matrix, with whatever stands in it.

    Args:
        rows, columns: its size, ≥ 0.
        dtype: float32 or float64.

    Example:
        >>> empty(2, 3, torch.float32).shape
        torch.Size([2, 3])
    """
    return empty_of((rows, columns), dtype)


def empty_of(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for numbers of any shape, as `empty` gives it."""
    needed = math.prod(shape) * dtype.itemsize
    if needed < SMALL:
        return torch.empty(shape, dtype=dtype, device="cpu")
    size = _class(needed)
    block = _take(size)
    lent = block[:needed].view(NUMPY[dtype]).reshape(shape)
    finaliser = weakref.finalize(lent, _back, size, block)
    # The stubs do not say that this attribute is a property, and may be set.
    finaliser.atexit = False  # pyrefly: ignore[missing-attribute]
    return torch.from_numpy(lent)


def address(tensor: Tensor) -> int:
    """Where a tensor's memory begins; 0 where it has none."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


def free() -> int:
    """How many bytes lie unused."""
    return sum(size * len(blocks) for size, blocks in list(_free.items()))


def clear() -> None:
    """Give all that lies unused back to the system."""
    _free.clear()


def _class(needed: int) -> int:
    """A size not much larger, so that batches of many lengths share blocks."""
    step = 1 << max(needed.bit_length() - 4, 16)
    return -(-needed // step) * step


def _take(size: int) -> np.ndarray:
    blocks = _free.get(size)
    try:
        return blocks.pop() if blocks else _new(size)
    except IndexError:  # another thread was sooner
        return _new(size)


def _new(size: int) -> np.ndarray:
    memory = np.empty(size + ALIGNED, np.uint8)
    start = -memory.ctypes.data % ALIGNED
    return memory[start : start + size]


def _back(size: int, block: np.ndarray) -> None:
    """Keep a block that came back, and let go of those that were unused the longest."""
    _free.setdefault(size, deque()).append(block)
    _free.move_to_end(size)
    while free() > LIMIT:
        oldest = next(iter(_free))
        blocks = _free[oldest]
        if blocks:
            blocks.popleft()
        if not blocks:
            _free.pop(oldest, None)
