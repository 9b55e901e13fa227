"""Interpolated modified Kneser-Ney: the n-gram model every language model is held against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from elman.errors import InputError
from elman.learning import space

MOST_TOKENS = 30_000_000  # of training text; beyond it the last part is used
MOST_PREDICTED = 10_000_000  # of validation text; beyond it the first part is used
_BYTES = 250  # of memory a training token, at most
_LEAST = 100_000  # tokens that are counted wherever the memory ends
BLOCK = 1 << 20  # tokens predicted at a time
_FALLBACK = np.array([0.5, 1.0, 1.5])  # discounts where the counts give none


@dataclass(frozen=True)
class _Counts:
    """Counts of the n-grams of one order, discounted: the terms of one interpolation step."""

    count: np.ndarray  # of each n-gram; 0 where it does not count
    total: np.ndarray  # by context: the sum of its counts
    back: np.ndarray  # by context: the share left to the lower order
    discount: np.ndarray  # of a count 1, 2, and 3 or more


class KneserNey:
    r"""N-gram model with interpolated, modified Kneser-Ney smoothing.

    .. math::

        p_k(w | u) = \frac{\max(c_k(u w) - D_k(c_k(u w)), 0)}{\sum_v c_k(u v)}
                     + \gamma_k(u)\, p_{k-1}(w | u'), \qquad
        \gamma_k(u) = \frac{\sum_{i=1}^{3} D_{k,i} N_i(u \bullet)}{\sum_v c_k(u v)}

    u' is u without its first token and p_0 is uniform over the vocabulary. At the highest order c
    is the number of occurrences; below it, the number of distinct tokens that stand before the
    n-gram. A context never seen leaves everything to the lower order. The discounts of each order,

    .. math::

        D_i = i - (i + 1) \frac{n_1}{n_1 + 2 n_2} \frac{n_{i+1}}{n_i}, \quad i = 1, 2, 3

    with n_i the number of n-grams counted i times (3: three or more), fall back to 0.5, 1 and 1.5
    where they are undefined or outside (0, i]. On the last tenth of tiny-shakespeare, order 6,
    this gives 1.523 nats a character; the same model with the one discount n_1 / (n_1 + 2 n_2)
    of the original Kneser-Ney for every count gives 1.558.

    Args:
        ids: training text, (tokens,), ids from 0 to `vocabulary` - 1.
        vocabulary: number of tokens V.
        order: highest order, >= 1; any lower order can be asked for later.

    Raises:
        InputError: no training text, or an order below 1.

    Example:
        >>> model = KneserNey(np.array([0, 1, 2, 0, 1, 0, 1, 2]), vocabulary=3, order=2)
        >>> p = model.distribution([1])
        >>> int(p.argmax()), round(float(p.sum()), 9)
        (2, 1.0)

    Source: Chen & Goodman 1998, "An empirical study of smoothing techniques for language
    modeling", section 3 (modified Kneser-Ney, equations 22 to 26). Differs: the text is one
    stream, so contexts run across the ends of lines; the unigrams are interpolated with the
    uniform distribution; the fallback discounts are those of Heafield et al. 2013 (KenLM).
    """

    def __init__(self, ids: np.ndarray, vocabulary: int, order: int = 6):
        if order < 1 or not len(ids):
            raise InputError(f"Kneser-Ney: order {order}, {len(ids)} tokens; at least 1 of each.")
        self.vocabulary, self.order = vocabulary, min(order, len(ids))
        ids = np.asarray(ids).astype(np.int64)
        self._keys: list[np.ndarray] = []  # by order: sorted (context id, last token) packed
        self._top: list[_Counts] = []  # occurrences
        self._lower: list[_Counts] = []  # distinct tokens before
        grams = np.zeros(len(ids) + 1, dtype=np.int64)
        sizes = [1]  # how many n-grams of order 0, 1, ... were seen
        for k in range(1, self.order + 1):
            shorter = grams
            packed = shorter[: len(ids) - k + 1] * vocabulary + ids[k - 1 :]
            keys, first, grams, count = np.unique(
                packed, return_index=True, return_inverse=True, return_counts=True
            )
            if k > 1:
                before = np.bincount(shorter[first + 1], minlength=len(self._keys[-1]))
                self._lower.append(_discounted(self._keys[-1] // vocabulary, before, sizes[k - 2]))
            self._top.append(_discounted(keys // vocabulary, count, sizes[k - 1]))
            self._keys.append(keys)
            sizes.append(len(keys))

    def log_probabilities(
        self, ids: np.ndarray, *, start: int = 0, order: int | None = None
    ) -> np.ndarray:
        """Return ln p of each token from `start` on, given all tokens before it.

        Args:
            ids: text, (tokens,); the tokens before `start` are context only.
            start: first token to predict.
            order: order of the model, 1 to the one it was built for; None is the highest.

        Returns:
            float64, (tokens - start,).
        """
        order = self._checked(order)
        ids = np.asarray(ids).astype(np.int64)
        ids = ids[max(0, start - order + 1) :]
        start = min(start, order - 1)
        p = np.full(len(ids) - start, 1 / self.vocabulary)
        context = np.zeros(len(ids), dtype=np.int64)  # id of the k - 1 tokens before each token
        for k in range(1, order + 1):
            entry = self._find(k, context, ids)
            p = self._mix(k, k == order, context[start:], entry[start:], p)
            context = np.concatenate([[-1], entry[:-1]])
        return np.log(p)

    def by_order(self, ids: np.ndarray, *, start: int = 0) -> np.ndarray:
        """Return what `log_probabilities` does for every order from 1 on, (order, tokens - start).

        Args:
            ids, start: as there.
        """
        ids = np.asarray(ids).astype(np.int64)[max(0, start - self.order + 1) :]
        start = min(start, self.order - 1)
        p = np.full(len(ids) - start, 1 / self.vocabulary)
        context = np.zeros(len(ids), dtype=np.int64)
        found = np.empty((self.order, len(p)))
        for k in range(1, self.order + 1):
            entry = self._find(k, context, ids)
            found[k - 1] = np.log(self._mix(k, True, context[start:], entry[start:], p))
            if k < self.order:
                p = self._mix(k, False, context[start:], entry[start:], p)
            context = np.concatenate([[-1], entry[:-1]])
        return found

    def distribution(self, context: np.ndarray | list[int], order: int | None = None) -> np.ndarray:
        """Return the probabilities of all tokens after a context, (vocabulary,)."""
        order = self._checked(order)
        tokens = np.arange(self.vocabulary)
        p = np.full(self.vocabulary, 1 / self.vocabulary)
        for k in range(1, min(order, len(context) + 1) + 1):
            row = np.zeros(1, dtype=np.int64)
            for j, token in enumerate(context[len(context) - k + 1 :], start=1):
                row = self._find(j, row, np.array([token]))
            rows = np.repeat(row, self.vocabulary)
            p = self._mix(k, k == order, rows, self._find(k, rows, tokens), p)
        return p

    def _checked(self, order: int | None) -> int:
        order = self.order if order is None else order
        if not 1 <= order <= self.order:
            raise InputError(f"Kneser-Ney: order is {order}; this model has 1 to {self.order}.")
        return order

    def _find(self, k: int, context: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Return the id of each n-gram of order k, -1 where it was never seen."""
        keys = self._keys[k - 1]
        packed = np.where(context < 0, -1, context * self.vocabulary + token)
        at = np.searchsorted(keys, packed)
        at[at == len(keys)] = 0
        return np.where(keys[at] == packed, at, -1)

    def _mix(
        self, k: int, top: bool, context: np.ndarray, entry: np.ndarray, below: np.ndarray
    ) -> np.ndarray:
        counts = (self._top if top else self._lower)[k - 1]
        total = np.where(context < 0, 0, counts.total[context])
        seen = total > 0
        count = np.where(entry < 0, 0, counts.count[entry])
        kept = np.maximum(count - counts.discount[np.minimum(count, 3)], 0)
        mixed = kept / np.where(seen, total, 1) + counts.back[context] * below
        return np.where(seen, mixed, below)


def _discounted(context: np.ndarray, count: np.ndarray, contexts: int) -> _Counts:
    """Discount the counts of one order; `context` is the id of each n-gram's context."""
    discount = _discounts(np.bincount(np.minimum(count, 5), minlength=5)[1:5])
    kind = np.minimum(count, 3)
    total = np.bincount(context, weights=count, minlength=contexts)
    left = np.bincount(context, weights=discount[kind], minlength=contexts)
    back = left / np.where(total > 0, total, 1)
    return _Counts(count.astype(np.int32), total, back, discount)


def _discounts(n: np.ndarray) -> np.ndarray:
    """Return the discounts of counts 0 to 3 from n_1, ..., n_4."""
    result = np.concatenate([[0.0], _FALLBACK])
    if n[0] + 2 * n[1] == 0:
        return result
    share = n[0] / (n[0] + 2 * n[1])
    for i in (1, 2, 3):
        if n[i - 1] > 0:
            value = i - (i + 1) * share * n[i] / n[i - 1]
            if 0 < value <= i:
                result[i] = value
    return result


@dataclass(frozen=True)
class Baseline:
    """What Kneser-Ney reaches on a validation part.

    Attributes:
        order: the best order.
        nats_per_token: mean of -ln p under that order.
        by_order: the same for every order from 1 on.
        tokens: number of tokens predicted, the first of the validation part.
        trained_on: number of training tokens used, the last.
    """

    order: int
    nats_per_token: float
    by_order: tuple[float, ...]
    tokens: int
    trained_on: int


def baseline(train: np.ndarray, valid: np.ndarray, vocabulary: int, follows: bool) -> Baseline:
    """Train on one part, choose the best order up to 6 on the other, and report it.

    The order is chosen on the very part it is reported on, which favours the baseline slightly. Of
    a long text, the end of the training part and the beginning of the validation part are used, so
    that neither memory nor time grows without end.

    Args:
        train, valid: ids, (tokens,).
        vocabulary: number of tokens.
        follows: whether `valid` directly follows `train`, so that its first tokens have a context.
    """
    train, valid = train[-_affordable() :], valid[:MOST_PREDICTED]
    model = KneserNey(train, vocabulary)
    before = train[-(model.order - 1) :] if follows and model.order > 1 else train[:0]
    sums = np.zeros(model.order)
    for i in range(0, len(valid), BLOCK):
        text = np.concatenate([before, valid[i : i + BLOCK]])
        sums -= model.by_order(text, start=len(before)).sum(axis=1)
        before = text[-(model.order - 1) :] if model.order > 1 else text[:0]
    means = sums / len(valid)
    best = int(means.argmin())
    return Baseline(
        order=best + 1,
        nats_per_token=float(means[best]),
        by_order=tuple(means.tolist()),
        tokens=len(valid),
        trained_on=len(train),
    )


def _affordable() -> int:
    """Return how many tokens there is memory for, a round number, at most `MOST_TOKENS`."""
    there = space.room(torch.device("cpu"))
    if there is None or there >= MOST_TOKENS * _BYTES:
        return MOST_TOKENS
    least = max(_LEAST, there // _BYTES)
    unit = 10 ** (len(str(least)) - 1)
    return least // unit * unit
