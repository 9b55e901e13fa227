"""How well classes are told: accuracy, macro-F1, the confusion matrix, and how sure these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from elman.tasks.intervals import bootstrap

_MOST_CELLS = 50_000_000  # of the table that macro-F1's interval needs


def macro_f1(right: np.ndarray, told: np.ndarray, true: np.ndarray) -> np.ndarray:
    r"""Return the mean over classes of F1 = 2 right / (told + true).

    A class that neither stands in the data nor is told does not count.

    Args:
        right, told, true: numbers of examples by class, (..., classes).

    Example:
        >>> float(macro_f1(np.array([2, 0, 0]), np.array([3, 0, 0]), np.array([2, 1, 0])))
        0.4
    """
    total = told + true
    f1 = np.where(total > 0, 2 * right / np.maximum(total, 1), 0.0)
    return f1.sum(-1) / np.maximum((total > 0).sum(-1), 1)


def confusion(true: np.ndarray, told: np.ndarray, classes: int) -> np.ndarray:
    """Return how many of each true class (rows) were told as each class (columns)."""
    return np.bincount(true * classes + told, minlength=classes * classes).reshape(classes, classes)


def figures(true: np.ndarray, told: np.ndarray, classes: int) -> dict[str, float]:
    """Return "accuracy" and "macro_f1".

    Args:
        true: classes of the examples, >= 0; numbers from `classes` on are classes that the model
            does not know, and always wrong.
        told: what the model says, in [0, classes).
        classes: that the model knows.
    """
    size = max(classes, int(true.max(initial=-1)) + 1)
    table = confusion(true, told, size)
    f1 = macro_f1(np.diag(table), table.sum(0), table.sum(1))
    return {"accuracy": float((true == told).mean()), "macro_f1": float(f1)}


def intervals(true: np.ndarray, told: np.ndarray, classes: int) -> dict[str, list[float] | None]:
    """Return the 95 % intervals of the figures; None where there are too many classes for it.

    Args:
        true, told, classes: as of `figures`.
    """
    right = (true == told).astype(np.float64)
    found: dict[str, list[float] | None] = {
        "accuracy": list(bootstrap(right, lambda s: s[:, 0] / len(right))), "macro_f1": None,
    }  # fmt: skip
    size = max(classes, int(true.max(initial=-1)) + 1)
    if 3 * size * len(true) <= _MOST_CELLS:
        of = np.eye(size)
        sums = np.concatenate([of[true] * right[:, None], of[told], of[true]], axis=1)

        def statistic(s: np.ndarray) -> np.ndarray:
            return macro_f1(s[:, :size], s[:, size : 2 * size], s[:, 2 * size :])

        found["macro_f1"] = list(bootstrap(sums, statistic))
    return found


def ahead(true: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """Return the 95 % interval of the difference of two accuracies on the same examples."""
    difference = (ours == true).astype(np.float64) - (theirs == true)
    return list(bootstrap(difference, lambda s: s[:, 0] / len(difference)))


def by_class(true: np.ndarray, told: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return precision, recall, F1 and number of examples of each class."""
    table = confusion(true, told, len(names))
    found = {}
    for i, name in enumerate(names):
        right, said, there = int(table[i, i]), int(table[:, i].sum()), int(table[i].sum())
        found[name] = {
            "precision": right / said if said else 0.0,
            "recall": right / there if there else 0.0,
            "f1": 2 * right / (said + there) if said + there else 0.0,
            "count": there,
        }
    return found
