"""The baseline of trees: naive Bayes on the bag of words and of pairs of words of a sentence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

SMOOTHINGS = (0.1, 0.3, 1.0)


class Bag(NamedTuple):
    """Naive Bayes: the logarithm of each class's share, and of each feature's in each class."""

    prior: dict[int, float]
    features: dict[int, dict[str, float]]
    unseen: dict[int, float]


def features(words: Sequence[str]) -> Iterable[str]:
    """Words and pairs of neighbouring words, each once."""
    lower = [word.lower() for word in words]
    return {*lower, *(f"{a} {b}" for a, b in pairwise(lower))}


def fit(sentences: Sequence[tuple[Sequence[str], int]], smoothing: float) -> Bag:
    """Multinomial naive Bayes with additive smoothing.

    Source: Wang & Manning 2012, "Baselines and bigrams: simple, good sentiment and topic
    classification", section 2.1 (binarised counts, unigrams and bigrams).
    """
    counts: dict[int, Counter[str]] = {}
    classes: Counter[int] = Counter()
    for words, label in sentences:
        classes[label] += 1
        counts.setdefault(label, Counter()).update(features(words))
    known = len({f for each in counts.values() for f in each})
    logs, unseen = {}, {}
    for label, each in counts.items():
        total = sum(each.values()) + smoothing * (known + 1)
        logs[label] = {f: math.log((n + smoothing) / total) for f, n in each.items()}
        unseen[label] = math.log(smoothing / total)
    whole = sum(classes.values())
    return Bag({c: math.log(n / whole) for c, n in classes.items()}, logs, unseen)


def tell(bag: Bag, words: Sequence[str]) -> int:
    """The likeliest class of a sentence."""
    found = features(words)

    def score(label: int) -> float:
        known, unseen = bag.features[label], bag.unseen[label]
        return bag.prior[label] + sum(known.get(f, unseen) for f in found)

    return max(bag.prior, key=score)


def baseline(
    train: Sequence[tuple[Sequence[str], int]], valid: Sequence[tuple[Sequence[str], int]]
) -> dict[str, Any]:
    """Naive Bayes on the same split, its smoothing the best on the validation part itself."""
    best = (-1.0, 0.0)
    for smoothing in SMOOTHINGS:
        bag = fit(train, smoothing)
        right = sum(tell(bag, words) == label for words, label in valid)
        best = max(best, (right / max(len(valid), 1), smoothing))
    accuracy, smoothing = best
    return {
        "name": "naive Bayes on words and pairs of words",
        "smoothing": smoothing,
        "root_accuracy": accuracy,
        "root_error": 1 - accuracy,
        "words": f"naive Bayes on words and pairs of words: {accuracy:.1%} of the roots right",
    }
