"""The baselines of the next item: the most popular, and what most often followed the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.errors import FileError
from elman.tasks.next.measure import adds
from elman.tasks.next.network import OFFSET

NAMES = ("popularity", "bigram")


class Followers:
    r"""How often each item came, and how often each followed each other one.

    With counts c and the discount D,

    .. math::

        p(y) = \frac{c(y) + \tfrac12}{\sum_z (c(z) + \tfrac12)}, \qquad
        p(y | x) = \frac{\max(c(x y) - D, 0)}{c(x)} + \frac{D\, |\{z: c(x z) > 0\}|}{c(x)}\, p(y),
        \qquad D = \frac{n_1}{n_1 + 2 n_2}

    where n_1 and n_2 are the numbers of pairs seen once and twice. After an item that nothing
    followed in training, p(y | x) = p(y).

    Args:
        popularity: c(y), (items,).
        last, next: the pairs that were seen, in order, (pairs,).
        count: how often, (pairs,).

    Source: absolute discounting, Ney, Essen & Kneser 1994.
    """

    def __init__(
        self, popularity: np.ndarray, last: np.ndarray, next: np.ndarray, count: np.ndarray
    ):
        self.popularity, self.last, self.next, self.count = popularity, last, next, count
        items = len(popularity)
        self.share = (popularity + 0.5) / (popularity + 0.5).sum()
        once, twice = (count == 1).sum(), (count == 2).sum()
        self.discount = float(once / (once + 2 * twice)) if once and twice else 0.5
        self._starts = np.searchsorted(last, np.arange(items + 1))
        total = np.zeros(items)
        np.add.at(total, last, count)
        kinds = np.diff(self._starts)
        self._total = total
        self._left = np.where(total > 0, self.discount * kinds / np.maximum(total, 1), 1.0)
        # In falling popularity, ties by number: the places of items, and their shares in order.
        order = np.argsort(-popularity, kind="stable")
        self._place = np.empty(items, np.int64)
        self._place[order] = np.arange(items)
        self._falling = -self.share[order]

    @classmethod
    def count_in(cls, sessions: Sequence[np.ndarray], items: int) -> Followers:
        """Count in sessions of numbers of the lexicon; what is not known follows nothing."""
        popularity = np.zeros(items, np.int64)
        packed = []
        for session in sessions:
            known = session[session >= OFFSET] - OFFSET
            np.add.at(popularity, known, 1)
            last, after = session[:-1] - OFFSET, session[1:] - OFFSET
            both = (last >= 0) & (after >= 0)
            packed.append(last[both] * items + after[both])
        pairs, count = np.unique(np.concatenate(packed), return_counts=True)
        return cls(popularity, pairs // items, pairs % items, count)

    def probabilities(self, last: int | None) -> np.ndarray:
        """Return p of every item, (items,), after the item `last`; None is popularity alone."""
        if last is None or last < 0:
            return self.share
        p = self._left[last] * self.share
        pairs = slice(self._starts[last], self._starts[last + 1])
        kept = np.maximum(self.count[pairs] - self.discount, 0)
        p[self.next[pairs]] += kept / max(self._total[last], 1)
        return p

    def rank(self, last: int | None, target: int) -> tuple[int, float]:
        """Return the rank of an item after another, and its p; ties go by popularity."""
        if last is None or last < 0:
            return int(self._place[target]) + 1, float(self.share[target])
        pairs = slice(self._starts[last], self._starts[last + 1])
        after, left = self.next[pairs], self._left[last]
        kept = np.maximum(self.count[pairs] - self.discount, 0) / max(self._total[last], 1)
        mine, place = left * self.share[target], int(self._place[target])
        at = int(np.searchsorted(after, target))
        above = place
        if at < len(after) and after[at] == target:
            mine = mine + kept[at]
            # Of the items that have but their popularity, those with a share above mine / left.
            above = int(np.searchsorted(self._falling, -mine / left))
        places = self._place[after]
        had = places < above
        p = left * self.share[after] + kept
        has = (p > mine) | ((p == mine) & (places < place))
        return 1 + int(above - had.sum() + has.sum()), float(mine)

    def judge(self, sessions: Sequence[np.ndarray], name: str) -> np.ndarray:
        """Return the sums of each session, as `elman.tasks.next.measure.score` has them."""
        known: dict[tuple[int | None, int], tuple[int, float]] = {}
        found = []
        for session in sessions:
            ranks, nats = np.zeros(len(session) - 1, np.int64), np.zeros(len(session) - 1)
            numbers = (session - OFFSET).tolist()
            for i, target in enumerate(numbers[1:]):
                if target < 0:
                    continue
                pair = (numbers[i] if name == "bigram" else None, target)
                if pair not in known:
                    known[pair] = self.rank(*pair)
                ranks[i], p = known[pair]
                nats[i] = -np.log(p)
            found.append(adds(ranks, nats).sum(0))
        return np.array(found)

    def keep(self) -> dict[str, Tensor]:
        """Return the counts as tensors."""
        parts = {name: getattr(self, name) for name in ("popularity", "last", "next", "count")}
        return {name: torch.from_numpy(part.astype(np.int64)) for name, part in parts.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Any], items: int, where: str) -> Followers:
        """Return what `keep` kept.

        Raises:
            FileError: something is missing or does not fit.
        """
        names = ("popularity", "last", "next", "count")
        parts = [tensors[name] for name in names if name in tensors]
        if len(parts) < 4 or any(p.ndim != 1 or p.dtype != torch.int64 for p in parts):
            raise FileError(f"{where}: its counts are missing or of a wrong kind.")
        popularity, last, after, count = (part.numpy() for part in parts)
        packed = last * items + after
        fits = len(popularity) == items and len(last) == len(after) == len(count)
        if not (
            fits
            and (np.diff(packed) > 0).all()
            and all(((part >= 0) & (part < items)).all() for part in (last, after))
            and (count > 0).all()
            and (popularity >= 0).all()
        ):
            raise FileError(f"{where}: its counts do not fit the items of the model.")
        return cls(popularity, last, after, count)
