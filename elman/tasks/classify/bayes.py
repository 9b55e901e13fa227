"""Multinomial naive Bayes over n-grams that are known by their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from elman.errors import FileError


class Found(NamedTuple):
    """Which known features stand in which texts: one entry a text and feature.

    Args:
        rows: the text, (entries,) int64, rising.
        places: the feature's place in the bag, (entries,) int64.
        times: how often, (entries,) float64.
        count: number of texts.
    """

    rows: np.ndarray
    places: np.ndarray
    times: np.ndarray
    count: int


class Bag:
    """Counts of features in the texts of classes.

    Args:
        features: their numbers, rising, (features,) uint64.
        counts: how often each stands in the texts of each class, (features, classes).
        rows: texts of each class, (classes,).

    Attributes:
        totals: sums of `counts`, (classes,).

    Raises:
        FileError: arrays that do not belong together.
    """

    def __init__(self, features: np.ndarray, counts: np.ndarray, rows: np.ndarray):
        fits = counts.ndim == 2 and counts.shape == (len(features), len(rows))
        if not fits or (len(features) > 1 and not bool((features[1:] > features[:-1]).all())):
            raise FileError("the counts of naive Bayes do not belong together.")
        self.features, self.counts = features, counts
        self.rows = rows.astype(np.float64)
        self.totals = counts.sum(axis=0, dtype=np.float64)

    def find(self, texts: Sequence[np.ndarray]) -> Found:
        """Look up the features of texts; those that the bag lacks are left out."""
        lengths = [len(text) for text in texts]
        rows = np.repeat(np.arange(len(texts)), lengths)
        flat = np.concatenate(texts) if len(texts) else np.zeros(0, np.uint64)
        known = max(len(self.features), 1)
        if len(self.features):
            places = np.minimum(np.searchsorted(self.features, flat), known - 1)
            there = self.features[places] == flat
            rows, places = rows[there], places[there]
        else:
            rows = places = np.zeros(0, np.int64)
        pairs, times = np.unique(rows * known + places, return_counts=True)
        return Found(pairs // known, pairs % known, times.astype(np.float64), len(texts))


def fit(texts: Sequence[np.ndarray], labels: np.ndarray, classes: int) -> Bag:
    """Count the features of texts.

    Args:
        texts: of each its features, uint64; a feature counts as often as it stands there.
        labels: of each its class, (texts,).
        classes: how many there are.
    """
    lengths = [len(text) for text in texts]
    flat = np.concatenate(texts) if len(texts) else np.zeros(0, np.uint64)
    features, place = np.unique(flat, return_inverse=True)
    of_class = np.repeat(np.asarray(labels, dtype=np.int64), lengths)
    counts = np.bincount(place * classes + of_class, minlength=len(features) * classes)
    table = counts.reshape(len(features), classes).astype(np.float32)
    return Bag(features, table, np.bincount(labels, minlength=classes))


def scores(
    bag: Bag, found: Found, smoothing: float, without: np.ndarray | None = None
) -> np.ndarray:
    r"""Return ln p(class) + ln p(text | class), up to a constant, of texts and classes.

    .. math::

        z_c = \ln n_c + \sum_{f \in text} \ln \frac{N_{fc} + s}{\sum_g N_{gc} + s V}

    with n texts of a class, N counts, s the smoothing and V features.

    Args:
        bag: the counts.
        found: features of the texts, by `Bag.find`.
        smoothing: s, > 0.
        without: of each text the class in which it was itself counted; it is taken out of the
            counts again, so that its scores are those of a bag that never saw it. Features that
            no other text has are then left out, as unknown ones are.

    Returns:
        (texts, classes) float64.

    Example:
        >>> texts = [np.array(text, np.uint64) for text in ([1, 2], [2], [2, 3])]
        >>> labels = np.array([0, 1, 0])
        >>> bag = fit(texts, labels, 2)
        >>> alone = scores(bag, bag.find(texts), 1.0, without=labels)
        >>> bool(alone[1, 0] > alone[1, 1])
        True

    Source: Wang & Manning 2012, "Baselines and bigrams: simple, good sentiment and topic
    classification", section 2.1; leaving a text out of the counts is our own addition.
    """
    counts = bag.counts[found.places].astype(np.float64)
    of_row, times, count = found.rows, found.times, found.count
    totals = np.broadcast_to(bag.totals, (count, counts.shape[1]))
    rows = np.broadcast_to(bag.rows, totals.shape)
    if without is not None:
        own = np.eye(counts.shape[1])[without]
        counts -= own[of_row] * times[:, None]
        totals = totals - own * _sums(of_row, times, count)[:, None]
        rows = rows - own
        others = counts.sum(axis=1) > 0.5
        counts, of_row, times = counts[others], of_row[others], times[others]
    shares = np.log(counts + smoothing) * times[:, None]
    above = np.stack([_sums(of_row, column, count) for column in shares.T], axis=1)
    below = np.log(totals + smoothing * max(len(bag.features), 1))
    prior = np.log(np.maximum(rows, smoothing))
    return prior + above - below * _sums(of_row, times, count)[:, None]


def _sums(of_row: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """The sum of the values of each row, (count,)."""
    return np.bincount(of_row, weights=values, minlength=count)
