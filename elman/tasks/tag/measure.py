"""How well sequences are tagged: accuracy, and F1 of exact spans as conlleval counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from elman.tasks.intervals import bootstrap
from elman.tasks.tag.labels import Labels

_SUMS = 5  # right and judged labels; right, told and true spans
_TYPES = 200  # of spans, that are told one by one


class Score:
    """Counts over sequences, and the figures they make.

    Args:
        spans: whether labels are tags of spans.

    Example:
        >>> score = Score(spans=True)
        >>> score.add(["B-x", "I-x", "O"], ["B-x", "O", "O"])
        >>> score.add(["B-y"], ["B-y"])
        >>> found = score.figures()
        >>> found["accuracy"], found["span_f1"]
        (0.75, 0.5)
    """

    def __init__(self, spans: bool):
        self.spans = spans
        self.sums: list[tuple[int, int, int, int, int]] = []
        self.right: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.true: Counter[str] = Counter()

    def add(self, gold: Sequence[str | None], told: Sequence[str]) -> None:
        """Count a sequence: its own labels (None is not judged), and those it was given."""
        judged = sum(label is not None for label in gold)
        right = sum(one == other for one, other in zip(gold, told, strict=True))
        if not self.spans:
            self.sums.append((right, judged, 0, 0, 0))
            return
        ours = set(Labels.spans_of(told))
        theirs = set(Labels.spans_of(gold))
        both = ours & theirs
        self.right.update(span.type for span in both)
        self.told.update(span.type for span in ours)
        self.true.update(span.type for span in theirs)
        self.sums.append((right, judged, len(both), len(ours), len(theirs)))

    def table(self) -> np.ndarray:
        """The counts of each sequence, (sequences, 5)."""
        return np.array(self.sums, dtype=np.float64).reshape(-1, _SUMS)

    def figures(self) -> dict[str, Any]:
        """Return "accuracy", and of spans "span_f1", "span_precision", "span_recall", "spans"."""
        whole = self.table().sum(0)
        found: dict[str, Any] = {"accuracy": float(_accuracy(whole))}
        if self.spans:
            _, _, right, told, true = whole
            found |= {
                "span_f1": float(_f1(whole)),
                "span_precision": float(right / told) if told else 0.0,
                "span_recall": float(right / true) if true else 0.0,
                "spans": int(true),
            }
        return found

    def by_type(self) -> dict[str, dict[str, float | int]]:
        """Return precision, recall, F1 and count of the spans of each type."""
        found: dict[str, dict[str, float | int]] = {}
        for kind in sorted(self.true | self.told)[:_TYPES]:
            right, told, true = self.right[kind], self.told[kind], self.true[kind]
            found[kind] = {
                "precision": right / told if told else 0.0,
                "recall": right / true if true else 0.0,
                "f1": 2 * right / (told + true),
                "spans": true,
            }
        return found

    def intervals(self) -> dict[str, list[float]]:
        """Return the 95 % intervals of accuracy and F1, by the bootstrap over sequences."""
        table = self.table()
        figures = {"accuracy": _accuracy} | ({"span_f1": _f1} if self.spans else {})
        found = {name: bootstrap(table, figure) for name, figure in figures.items()}
        return {name: list(ends) for name, ends in found.items() if np.isfinite(ends).all()}


def _accuracy(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], 0.0)


def _f1(sums: np.ndarray) -> np.ndarray:
    """2 right / (told + true), which is 0 where there is neither, as conlleval has it."""
    both = sums[..., 3] + sums[..., 4]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(both > 0, 2 * sums[..., 2] / both, 0.0)


def span_f1(gold: Iterable[Sequence[str]], told: Iterable[Sequence[str]]) -> float:
    """Return the F1 of exact spans over sentences, their tags read as conlleval reads them.

    .. math::

        F_1 = \\frac{2\\,|told \\cap gold|}{|told| + |gold|}

    Args:
        gold: tags of each sentence.
        told: tags it was given, of the same lengths.

    Returns:
        F1 from 0 to 1; 0 where neither has a span.

    Example:
        >>> span_f1([["B-x", "O", "B-y"]], [["B-x", "O", "O"]])
        0.6666666666666666
    """
    score = Score(spans=True)
    for one, other in zip(gold, told, strict=True):
        score.add(one, other)
    return score.figures()["span_f1"]


def of_interest(spans: bool) -> str:
    """The name of the figure by which models are told apart."""
    return "span_f1" if spans else "accuracy"
