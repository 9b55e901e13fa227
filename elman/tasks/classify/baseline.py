"""The baselines: naive Bayes on n-grams, and for numbers a logistic regression."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.errors import FileError
from elman.tasks.classify.bayes import Bag, fit, scores
from elman.tasks.classify.features import ngrams
from elman.tasks.classify.logistic import Logistic

SMOOTHINGS = (0.03, 0.1, 0.3, 1.0)
_ORDERS = {"word": (1, 2, 3), "char": (2, 3, 4, 5, 6)}
_MOST_TOKENS = 2_000_000  # of the texts whose n-grams are counted
Tokens = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Counting:
    """Which n-grams of a text are counted.

    Args:
        order: longest n-gram.
        level: of words each n-gram counts once a text; of characters as often as it stands there,
            and the ends of the text are characters.
        smoothing: added to every count.
    """

    order: int
    level: str
    smoothing: float

    def features(self, tokens: Sequence[str]) -> np.ndarray:
        """Return the features of a text, uint64."""
        if self.level == "char":
            return ngrams(tokens, self.order, edges=True)
        return np.unique(ngrams(tokens, self.order))

    @property
    def name(self) -> str:
        """What the baseline is called."""
        what = "word" if self.level == "word" else "character"
        grams = f"{what} n-grams of 1 to {self.order}" if self.order > 1 else f"{what}s"
        return f"naive Bayes on {grams}"


class Bayes:
    """Naive Bayes over the n-grams of texts, tuned.

    Attributes:
        counting: which n-grams, and the smoothing.
        bag: their counts.
        rows: the training texts that were counted, rising.
        alone: of each of them its log probabilities by a bag that never saw it, (rows, classes)
            float32. Both are empty where it was not tuned here.
    """

    def __init__(
        self,
        counting: Counting,
        bag: Bag,
        rows: np.ndarray | None = None,
        alone: np.ndarray | None = None,
    ):
        self.counting, self.bag = counting, bag
        self.rows = np.zeros(0, np.int64) if rows is None else rows
        self.alone = np.zeros((0, len(bag.rows)), np.float32) if alone is None else alone

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.counting.name

    def scores(self, tokens: Tokens) -> np.ndarray:
        """Return log probabilities up to a constant a text, centred, (texts, classes) float32."""
        found = self.bag.find([self.counting.features(text) for text in tokens])
        return centred(scores(self.bag, found, self.counting.smoothing))

    def keep(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return plain metadata and tensors from which `taken` makes it again."""
        counting = self.counting
        metadata = {"kind": "bayes", "order": counting.order, "level": counting.level,
                    "smoothing": counting.smoothing}  # fmt: skip
        return metadata, tensors_of(self.bag)


def tensors_of(bag: Bag) -> dict[str, Tensor]:
    """Return the arrays of a bag as tensors; features as int64 of the same bits."""
    return {
        "features": torch.from_numpy(bag.features.view(np.int64).copy()),
        "counts": torch.from_numpy(np.ascontiguousarray(bag.counts, dtype=np.float32)),
        "rows": torch.from_numpy(bag.rows.astype(np.float64)),
    }


def bag_of(tensors: Mapping[str, Tensor]) -> Bag:
    """Return the bag that `tensors_of` took apart.

    Raises:
        FileError: a tensor is missing, or they do not belong together.
    """
    try:
        features, counts, rows = (tensors[name].numpy() for name in ("features", "counts", "rows"))
    except KeyError as error:
        raise FileError(f"the counts of naive Bayes lack {error.args[0]!r}.") from None
    return Bag(features.view(np.uint64), counts, rows)


def centred(logs: np.ndarray) -> np.ndarray:
    """Return scores less their mean over the classes, float32."""
    return (logs - logs.mean(axis=1, keepdims=True)).astype(np.float32)


def tune(
    train: Tokens, labels: np.ndarray, valid: Tokens, valid_labels: np.ndarray,
    classes: int, level: str,
) -> Bayes:  # fmt: skip
    """Return naive Bayes with the order and smoothing that tell most texts right.

    Those of the training part are judged by the counts of all others, those of the validation part
    by the counts of the training part. Of more than two million tokens an even share of the texts
    is counted.

    Args:
        train, valid: tokens of the texts.
        labels, valid_labels: their classes; −1 is none of them.
        classes: number of classes.
        level: "word" or "char".
    """
    rows = spread(sum(map(len, train)), len(train), _MOST_TOKENS)
    texts, labels = [train[i] for i in rows.tolist()], labels[rows]
    held = spread(sum(map(len, valid)), len(valid), _MOST_TOKENS)
    others, valid_labels = [valid[i] for i in held.tolist()], valid_labels[held]
    best: tuple[float, Bayes] | None = None
    for order in _ORDERS[level]:
        counting = Counting(order, level, 1.0)
        features = [counting.features(text) for text in texts]
        bag = fit(features, labels, classes)
        found = bag.find(features)
        found_held = bag.find([counting.features(text) for text in others])
        for smoothing in SMOOTHINGS:
            alone = scores(bag, found, smoothing, without=labels)
            right = float((alone.argmax(1) == labels).sum())
            right += float((scores(bag, found_held, smoothing).argmax(1) == valid_labels).sum())
            if best is None or right > best[0]:
                tuned = Counting(order, level, smoothing)
                best = (right, Bayes(tuned, bag, rows, centred(alone)))
    if best is None:
        raise AssertionError  # there are orders and smoothings
    return best[1]


def spread(size: float, count: int, most: float) -> np.ndarray:
    """Return so many of `count` places, evenly spread, as have at most `most` of the whole size.

    Example:
        >>> spread(100, 10, 50).tolist(), spread(9, 3, 50).tolist()
        ([0, 2, 4, 6, 8], [0, 1, 2])
    """
    step = max(1, math.ceil(size / most))
    return np.arange(0, count, step)


def accuracy_alone(tokens: Tokens, labels: np.ndarray, classes: int, level: str) -> float:
    """Share of texts that naive Bayes on all others tells right, to compare ways of reading."""
    counting = Counting(2 if level == "word" else 4, level, 0.3)
    features = [counting.features(text) for text in tokens]
    bag = fit(features, labels, classes)
    told = scores(bag, bag.find(features), counting.smoothing, without=labels).argmax(1)
    return float((told == labels).mean())


def taken(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], classes: int, where: str
) -> Bayes | Logistic:
    """Return the baseline that `keep` wrote down.

    Raises:
        FileError: it is none, or of another number of classes.
    """
    if metadata.get("kind") == "logistic":
        return Logistic.taken(tensors, classes, where)
    order, level, smoothing = (metadata.get(name) for name in ("order", "level", "smoothing"))
    good = isinstance(order, int) and 1 <= order <= 100 and level in _ORDERS
    if metadata.get("kind") != "bayes" or not good or not isinstance(smoothing, float):
        raise FileError(f"{where}: holds no baseline of a classifier.")
    bag = bag_of(tensors)
    if bag.counts.shape[1] != classes or not smoothing > 0:
        raise FileError(f"{where}: its counts are of other classes than the model's.")
    return Bayes(Counting(order, str(level), smoothing), bag)
