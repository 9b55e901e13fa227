"""The carry of parallel streams, divided among processes and put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from elman.learning import Carried
from elman.tasks.base import Carry


def rows_of(carry: Carry, rows: np.ndarray) -> Carry:
    """Return the part of a carry that belongs to some of its streams.

    Args:
        carry: states, (1, batch, ...), and influences, (batch, ...), in nested tuples.
        rows: numbers of the streams.

    Example:
        >>> rows_of((torch.arange(4.0).view(1, 4, 1),), np.array([1, 3]))[0].flatten().tolist()
        [1.0, 3.0]
    """
    chosen = torch.from_numpy(rows)

    def choose(parts: Sequence[Tensor], batch: int) -> Tensor:
        return parts[0].index_select(batch, chosen.to(parts[0].device)).clone()

    return _over([carry], choose, 1)


def united(parts: Sequence[Carry]) -> Carry:
    """Return the carry of all streams; part r of n holds the streams r, r + n, r + 2 n, ...

    Example:
        >>> whole = torch.arange(5.0).view(1, 5, 1)
        >>> united([whole[:, 0::2], whole[:, 1::2]]).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """

    def weave(pieces: Sequence[Tensor], batch: int) -> Tensor:
        count = sum(piece.shape[batch] for piece in pieces)
        shape = list(pieces[0].shape)
        shape[batch] = count
        whole = pieces[0].new_empty(shape)
        for rank, piece in enumerate(pieces):
            rows = torch.arange(rank, count, len(pieces), device=piece.device)
            whole.index_copy_(batch, rows, piece)
        return whole

    return _over(parts, weave, 1)


def _over(
    carries: Sequence[Carry], make: Callable[[Sequence[Tensor], int], Tensor], batch: int
) -> Carry:
    """Apply `make` to the tensors that stand at the same place, with the axis of their batch."""
    first = carries[0]
    if isinstance(first, Carried):
        states = _over([c.states for c in carries], make, 1)
        return Carried(states, _over([c.influence for c in carries], make, 0))
    if isinstance(first, tuple):
        places = zip(*carries, strict=True)
        return tuple(_over(place, make, batch) for place in places)
    return make(carries, batch)
