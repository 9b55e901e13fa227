"""The labels of a model: as the file writes them, and as the network learns them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from elman.errors import FileError, InputError
from elman.tasks.tag.schemes import SCHEMES, Span, allowed, spans, written

MOST_LABELS = 5000


class Labels:
    """What the numbers of a model's labels stand for.

    Where labels are tags of spans, the network learns them in a scheme of its own, and its answers
    are written in the file's.

    Args:
        names: labels as in the training part, each once.
        scheme: of SCHEMES, or "none" where labels are no spans.
        inner_scheme: "bio" or "bioes".

    Attributes:
        inner: the labels that the network tells.
        spans: whether labels are tags of spans.

    Example:
        >>> labels = Labels(("O", "I-x"), "iob1", "bioes")
        >>> labels.inner
        ('O', 'B-x', 'I-x', 'E-x', 'S-x')
        >>> labels.numbers(["I-x", "I-x", "O", "I-x"]).tolist(), labels.written([1, 3, 0, 4])
        ([1, 3, 0, 4], ['I-x', 'I-x', 'O', 'I-x'])
    """

    def __init__(self, names: Sequence[str], scheme: str = "none", inner_scheme: str = "bioes"):
        self.names, self.scheme, self.inner_scheme = tuple(names), scheme, inner_scheme
        self.spans = scheme != "none"
        self.inner = self.names
        if self.spans:
            kinds = list(dict.fromkeys(span.type for name in names for span in spans([name])))
            letters = "BI" if inner_scheme == "bio" else "BIES"
            tails = ["" if kind == "_" else f"-{kind}" for kind in kinds]
            self.inner = ("O", *(letter + tail for tail in tails for letter in letters))
        self._numbers = {label: i for i, label in enumerate(self.inner)}
        self._seen = frozenset(self.names)

    def __contains__(self, label: object) -> bool:
        return label in self._seen

    def allowed(self) -> list[list[bool]] | None:
        """Return which label of the network may follow which; None where all may."""
        return allowed(self.inner, self.inner_scheme) if self.spans else None

    def numbers(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return the network's numbers of a sequence's labels; −1 for none, and for a new one."""
        inner: Iterable[str | None] = labels
        if self.spans:
            known = ["O" if label is None else label for label in labels]
            inner = written(spans(known), len(known), self.inner_scheme)
            inner = (None if a is None else b for a, b in zip(labels, inner, strict=True))
        found = (-1 if label is None else self._numbers.get(label, -1) for label in inner)
        return np.fromiter(found, dtype=np.int64, count=len(labels))

    def written(self, numbers: Sequence[int]) -> list[str]:
        """Return the network's labels of a sequence as the file writes them."""
        inner = [self.inner[number] for number in numbers]
        if not self.spans:
            return inner
        return written(spans(inner), len(inner), self.scheme)

    @staticmethod
    def spans_of(labels: Sequence[str | None]) -> list[Span]:
        """Return the spans that labels of a sequence mean; one without a label is outside."""
        return spans("O" if label is None else label for label in labels)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"names": list(self.names), "scheme": self.scheme, "inner": self.inner_scheme}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Labels:
        """What `to_json` wrote.

        Raises:
            FileError: it is something else.
        """
        good = (
            isinstance(value, Mapping)
            and set(value) == {"names", "scheme", "inner"}
            and isinstance(value["names"], list)
            and all(isinstance(name, str) for name in value["names"])
            and 1 <= len(set(value["names"])) == len(value["names"])
            and value["scheme"] in (*SCHEMES, "none")
            and value["inner"] in ("bio", "bioes")
        )
        if not good:
            raise FileError(f"{where}: its labels are not those of a model that tags.")
        return cls(value["names"], value["scheme"], value["inner"])


def check_count(names: Sequence[str], where: str) -> None:
    """See that labels can be learned.

    Raises:
        InputError: one label or none, or so many that they look like words or numbers.
    """
    if len(names) < 2:
        only = f", {names[0]!r}" if names else ""
        raise InputError(
            f"train tag: {len(names)} label(s) in {where}{only}; a model that tags needs at least "
            "2. Is it the right column (label)?"
        )
    if len(names) > MOST_LABELS:
        raise InputError(
            f"train tag: over {MOST_LABELS:,} different labels in {where}, such as {names[0]!r} "
            f"and {names[-1]!r}; is it the right column (label)?"
        )
