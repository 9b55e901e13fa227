"""Batching by length: sequences of like length together, so that little is padded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from elman.errors import InputError

_GRAIN = 12  # lengths within about a twelfth of each other change places from epoch to epoch


class Batches:
    """Which examples make up the batch of a step; a pure function of the seed and the step.

    In each epoch every example comes once. Examples are put in order of length, those of nearly
    the same length in random order, and cut into batches, which come in random order.

    Args:
        lengths: of the examples, (examples,), ≥ 0.
        size: examples of a batch, at most, ≥ 1.
        tokens: examples times longest length of a batch, at most; a longer example is alone. None
            is no limit.
        seed: of the order.

    Raises:
        InputError: no example, or a size or number of tokens below 1.

    Example:
        >>> batches = Batches([3, 9, 3, 8], size=2)
        >>> len(batches), sorted(sorted(batches.examples(s).tolist()) for s in (0, 1))
        (2, [[0, 2], [1, 3]])
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        *,
        size: int,
        tokens: int | None = None,
        seed: int = 0,
    ):
        self._lengths = _checked(lengths, size, tokens)
        self._seed = seed
        # The sorted lengths, and with them the cuts, are the same in every epoch.
        self._grains = _grain(self._lengths)
        order = np.argsort(self._grains, kind="stable")
        self._cuts = _cut(_largest_so_far(self._lengths[order], self._grains[order]), size, tokens)
        self._epoch, self._order, self._turns = -1, order, np.arange(len(self))

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return len(self._cuts) - 1

    def examples(self, step: int) -> np.ndarray:
        """Return the numbers of the examples of a step, counted over all epochs, int64."""
        epoch, at = divmod(step, len(self))
        if epoch != self._epoch:
            draw = np.random.default_rng([self._seed, epoch])
            mixed = draw.permutation(len(self._grains))
            self._order = mixed[np.argsort(self._grains[mixed], kind="stable")]
            self._turns, self._epoch = draw.permutation(len(self)), epoch
        turn = self._turns[at]
        return self._order[self._cuts[turn] : self._cuts[turn + 1]]


def _checked(lengths: Sequence[int] | np.ndarray, size: int, tokens: int | None) -> np.ndarray:
    found = np.asarray(lengths, dtype=np.int64)
    if not found.size:
        raise InputError("batches: there is no example to make a batch of.")
    if size < 1 or (tokens is not None and tokens < 1):
        raise InputError(f"batches: size {size} and tokens {tokens}; expected at least 1.")
    return found


def _grain(lengths: np.ndarray) -> np.ndarray:
    """Lengths made coarse: those within about a twelfth of each other are one."""
    short = lengths <= _GRAIN
    steps = np.floor(_GRAIN * np.log(np.maximum(lengths, 1) / _GRAIN)).astype(np.int64)
    return np.where(short, lengths, _GRAIN + 1 + np.maximum(steps, 0))


def _largest_so_far(lengths: np.ndarray, grains: np.ndarray) -> np.ndarray:
    """For examples in order of grain, the largest length that their grain has."""
    found = np.unique(grains, return_inverse=True)[1]
    largest = np.zeros(found.max() + 1, np.int64)
    np.maximum.at(largest, found, lengths)
    return largest[found]


def _cut(longest: np.ndarray, size: int, tokens: int | None) -> np.ndarray:
    """Where batches begin and end, of examples in order of length."""
    cuts, first = [0], 0
    while first < len(longest):
        end = min(first + size, len(longest))
        if tokens is not None:
            # in order of length, the last example of a batch is its longest
            wide = longest[first:end] * np.arange(1, end - first + 1)
            end = first + max(1, int(np.searchsorted(wide, tokens, side="right")))
        cuts.append(end)
        first = end
    return np.array(cuts)


def in_order(
    lengths: Sequence[int] | np.ndarray, *, size: int, tokens: int | None = None
) -> list[np.ndarray]:
    """Return every example once, in batches of like length, for judging and predicting.

    Args:
        lengths, size, tokens: as of `Batches`.

    Returns:
        the numbers of the examples of each batch; an empty list where there is none.

    Example:
        >>> [b.tolist() for b in in_order([3, 9, 2], size=2)]
        [[2, 0], [1]]
    """
    if not len(lengths):
        return []
    found = _checked(lengths, size, tokens)
    order = np.argsort(found, kind="stable")
    cuts = _cut(found[order], size, tokens)
    return [order[a:b] for a, b in pairwise(cuts)]


def pad(sequences: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Put sequences of different lengths into one tensor, zeros behind their ends.

    Args:
        sequences: of numbers, (time,), or of vectors, (time, features).

    Shapes:
        returns: (batch, longest) int64, or (batch, longest, features) float32; and the lengths,
        (batch,), int64.

    Example:
        >>> x, lengths = pad([np.array([5, 6]), np.array([7])])
        >>> x.tolist(), lengths.tolist()
        ([[5, 6], [7, 0]], [2, 1])
    """
    lengths = [len(sequence) for sequence in sequences]
    further = sequences[0].shape[1:]
    kind = torch.float32 if further else torch.int64
    padded = torch.zeros((len(sequences), max(lengths), *further), dtype=kind)
    view = padded.numpy()
    for row, sequence in enumerate(sequences):
        view[row, : lengths[row]] = sequence
    return padded, torch.tensor(lengths)
