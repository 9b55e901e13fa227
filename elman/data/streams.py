"""Parallel streams over one long text, for training through truncated windows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from elman.errors import InputError


class Streams:
    r"""Cuts a long text into batches of windows whose rows continue from batch to batch.

    Stream b of B begins at token :math:`\lfloor b N / B \rfloor` and reads on, around the end of
    the text, for ever; batch s holds tokens :math:`sT, \dots, sT + T` of every stream: the inputs
    are all but the last, the targets all but the first. So a state carried from batch to batch has
    seen everything before, after N / (B T) batches every token was read once, and, as N is rarely
    a multiple of B T, windows are cut elsewhere in every pass.

    Args:
        ids: the text, (N,), N > window.
        streams: number of rows B, >= 1.
        window: tokens a row and batch T, >= 1.
        restart: probability, for each row and batch, that the state is to be forgotten.
        seed: seed of the restarts, >= 0.

    Raises:
        InputError: the text is shorter than one window.

    Example:
        >>> streams = Streams(np.arange(10), streams=2, window=3)
        >>> x, y, fresh = streams.batch(0)
        >>> x.T.tolist(), y.T.tolist(), streams.steps_per_epoch
        ([[0, 1, 2], [5, 6, 7]], [[1, 2, 3], [6, 7, 8]], 1)
    """

    def __init__(
        self, ids: np.ndarray, streams: int, window: int, *, restart: float = 0.0, seed: int = 0
    ):
        if len(ids) <= window:
            raise InputError(
                f"the training text has {len(ids)} tokens, fewer than one window ({window} and the "
                f"next); give more text or a smaller window."
            )
        self.ids, self.streams, self.window = ids, streams, window
        self.restart, self.seed = restart, seed
        self.starts = np.arange(streams) * len(ids) // streams
        self.steps_per_epoch = max(1, len(ids) // (streams * window))

    def batch(
        self, step: int, rows: np.ndarray | slice = slice(None)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, targets (time, batch) and which rows begin anew (batch,), for one step.

        Args:
            step: counted from 0.
            rows: the streams that are wanted; all if not given.
        """
        at = self.starts[rows] + step * self.window
        where = (at[None, :] + np.arange(self.window + 1)[:, None]) % len(self.ids)
        tokens = torch.from_numpy(self.ids[where].astype(np.int64))
        random = np.random.default_rng([self.seed, step]).random(self.streams)
        return tokens[:-1], tokens[1:], torch.from_numpy(random[rows] < self.restart)
