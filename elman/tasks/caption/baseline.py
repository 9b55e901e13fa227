"""The baselines of captions: n-grams given the class, and the texts of the nearest vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elman.errors import FileError
from elman.tasks.lm.kneser_ney import KneserNey

ORDERS = 6
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the class's own n-grams
NEIGHBOURS = (1, 3, 10, 30)
BACKED_OFF = (0.5, 0.2, 0.05, 0.01, 1e-3)  # share left to the n-grams
MOST_KEPT = 20_000  # vectors
MOST_TOKENS = 2_000_000  # of texts
_PIECE = 512  # rows compared at once


class Texts(NamedTuple):
    """Texts as numbers, and what they are written from.

    Attributes:
        tokens: of each text, without its end.
        labels: (texts,), int64, −1 for a class that is not known; or None.
        vectors: (texts, features), scaled, float32; or None.
    """

    tokens: Sequence[np.ndarray]
    labels: np.ndarray | None
    vectors: np.ndarray | None

    def rows(self) -> int:
        """Return how many there are, where there may be no tokens but what is written from."""
        given = self.labels if self.labels is not None else self.vectors
        return len(self.tokens if given is None else given)

    def some(self, rows: np.ndarray) -> Texts:
        """Return some of the rows."""
        return Texts(
            [self.tokens[row] for row in rows.tolist()] if self.tokens else [],
            None if self.labels is None else self.labels[rows],
            None if self.vectors is None else self.vectors[rows],
        )


class NGrams:
    r"""Interpolated Kneser-Ney on the texts of each class, mixed with that on all of them.

    .. math:: p(y_t | u, k) = \lambda\, p_k(y_t | u) + (1 - \lambda)\, p(y_t | u)

    with k the class and u the tokens before. Each text begins after a mark of its own for every
    place of the longest context, so that no context reaches into another text.

    Args:
        texts: to count in.
        tokens: size of the lexicon.
        end: number that ends a text.
    """

    def __init__(self, texts: Texts, tokens: int, end: int):
        self.tokens, self.end = tokens, end
        self._all = self._of(texts.tokens)
        self._by_class: dict[int, KneserNey] = {}
        if texts.labels is not None:
            for label in np.unique(texts.labels):
                own = texts.some(np.flatnonzero(texts.labels == label))
                self._by_class[int(label)] = self._of(own.tokens)

    def _stream(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        marks = np.arange(self.tokens, self.tokens + ORDERS - 1)
        parts = [part for text in texts for part in (marks, text, [self.end])]
        return np.concatenate(parts).astype(np.int64)

    def _of(self, texts: Sequence[np.ndarray]) -> KneserNey:
        # The marks again behind the last text, so that it counts as every other does.
        stream = self._stream(texts)
        stream = np.append(stream, stream[: ORDERS - 1])
        return KneserNey(stream, self.tokens + ORDERS - 1, ORDERS)

    def probabilities(self, texts: Texts, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return p of every token given the class, p without it, and the text of each token."""
        stream = self._stream(texts.tokens)
        real = stream < self.tokens
        ends = np.cumsum([len(text) + ORDERS for text in texts.tokens])
        of = np.searchsorted(ends, np.arange(len(stream)), side="right")
        plain = np.exp(self._all.log_probabilities(stream, order=min(order, self._all.order)))
        given = plain.copy()
        if texts.labels is not None:
            for label in np.unique(texts.labels):
                model = self._by_class.get(int(label))
                if model is None:
                    continue
                rows = np.flatnonzero(texts.labels == label)
                own = self._stream(texts.some(rows).tokens)
                logs = model.log_probabilities(own, order=min(order, model.order))
                given[np.isin(of, rows)] = np.exp(logs)
        return given[real], plain[real], of[real]

    def nats(self, texts: Texts, order: int, weight: float) -> np.ndarray:
        """Return −ln p of each text, its end included, (texts,)."""
        given, plain, of = self.probabilities(texts, order)
        logs = np.log(weight * given + (1 - weight) * plain)
        return -np.bincount(of, weights=logs, minlength=len(texts.tokens))


class Baseline:
    r"""What the network is held against, fitted on the training part.

    Where there are vectors, the texts of the nearest training vectors come first:

    .. math:: p(y | v) = (1 - \epsilon)\, \frac{|\{i \in N_k(v) : y_i = y\}|}{k}
              + \epsilon\, p_{n\text{-}gram}(y)

    Args:
        texts: of the training part; of very many the last are used.
        tokens, end: as of `NGrams`.
        order: of the n-grams.
        weights: λ for each order, from 1 on.
        neighbours, backed_off: k and ε.
    """

    def __init__(
        self,
        texts: Texts,
        tokens: int,
        end: int,
        *,
        order: int = 2,
        weights: Sequence[float] = (0.5,) * ORDERS,
        neighbours: int = 1,
        backed_off: float = 0.5,
    ):
        self.texts, self.tokens, self.end = texts, tokens, end
        self.order, self.weights = order, tuple(weights)
        self.neighbours, self.backed_off = neighbours, backed_off

    @classmethod
    def fit(cls, train: Texts, valid: Texts, tokens: int, end: int) -> Baseline:
        """Choose order, weights, k and ε on the validation part itself, which favours it a bit."""
        found = cls(_last(train), tokens, end)
        best = []
        for order in range(1, ORDERS + 1):
            p, q, _ = found.ngrams.probabilities(valid, order)
            weights = WEIGHTS if valid.labels is not None else WEIGHTS[:1]
            best.append(min((-float(np.log(w * p + (1 - w) * q).sum()), w) for w in weights))
        found.weights = tuple(weight for _, weight in best)
        found.order = int(np.argmin([nats for nats, _ in best])) + 1
        if valid.vectors is not None:
            trials = [(k, e) for k in NEIGHBOURS for e in BACKED_OFF]
            found.neighbours, found.backed_off = min(
                trials, key=lambda t: float(found.judge(valid, *t).sum())
            )
        return found

    def name(self) -> str:
        """Return what it is called."""
        given = " given the class" if self.texts.labels is not None else ""
        ngrams = f"{self.order}-gram{given}"
        if self.texts.vectors is None:
            return ngrams
        return f"texts of the {self.neighbours} nearest, backed off to {ngrams}"

    @cached_property
    def ngrams(self) -> NGrams:
        """The n-grams, counted when they are first needed."""
        return NGrams(self.texts, self.tokens, self.end)

    @cached_property
    def _same(self) -> dict[bytes, int]:
        """A number for each distinct text."""
        found: dict[bytes, int] = {}
        for text in self.texts.tokens:
            found.setdefault(text.astype(np.int64).tobytes(), len(found))
        return found

    @cached_property
    def _which(self) -> np.ndarray:
        return np.array([self._same[t.astype(np.int64).tobytes()] for t in self.texts.tokens])

    def judge(
        self, texts: Texts, neighbours: int | None = None, backed_off: float | None = None
    ) -> np.ndarray:
        """Return −ln p of each text, its end included, (texts,)."""
        nats = self._by_ngrams(texts)
        if texts.vectors is None or self.texts.vectors is None:
            return nats
        k = neighbours or self.neighbours
        e = self.backed_off if backed_off is None else backed_off
        keys = [text.astype(np.int64).tobytes() for text in texts.tokens]
        mine = np.array([self._same.get(key, -1) for key in keys])
        near = self._which[self._near(texts)[:, :k]]
        share = (near == mine[:, None]).mean(1)
        return -np.log((1 - e) * share + e * np.exp(-nats))

    def _by_ngrams(self, texts: Texts) -> np.ndarray:
        weight = self.weights[self.order - 1] if texts.labels is not None else 0.0
        return self.ngrams.nats(texts, self.order, weight)

    def _near(self, texts: Texts) -> np.ndarray:
        """Return the nearest training rows of each row, nearest first."""
        if texts.vectors is None or self.texts.vectors is None:
            raise ValueError("there are no vectors")
        there = torch.from_numpy(self.texts.vectors)
        k = min(max(NEIGHBOURS), len(there))
        found = []
        for part in torch.from_numpy(texts.vectors).split(_PIECE):
            distance = (there * there).sum(1) - 2 * part @ there.T
            if texts.labels is not None and self.texts.labels is not None:
                rows = torch.from_numpy(texts.labels[sum(map(len, found)) :][: len(part)])
                other = rows[:, None] != torch.from_numpy(self.texts.labels)
                distance = distance + other * 1e6
            found.append(distance.topk(k, dim=1, largest=False).indices.numpy())
        return np.concatenate(found)

    def tell(self, texts: Texts) -> list[np.ndarray]:
        """Return the text of most of the nearest vectors, or the most frequent of the class."""
        if texts.vectors is not None and self.texts.vectors is not None:
            near = self._near(texts)[:, : self.neighbours]
            chosen = [Counter(self._which[row].tolist()).most_common(1)[0][0] for row in near]
        else:
            chosen = [self._usual.get(int(k), self._usual[-1]) for k in _labels(texts)]
        firsts = {which: i for i, which in reversed(list(enumerate(self._which.tolist())))}
        return [self.texts.tokens[firsts[which]] for which in chosen]

    @cached_property
    def _usual(self) -> dict[int, int]:
        """The most frequent text of each class, −1 of all."""
        found = {-1: Counter(self._which.tolist()).most_common(1)[0][0]}
        labels = _labels(self.texts)
        for label in np.unique(labels):
            own = self._which[labels == label].tolist()
            found[int(label)] = Counter(own).most_common(1)[0][0]
        return found

    def keep(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return it as plain JSON values and tensors."""
        tensors = {
            "tokens": torch.from_numpy(np.concatenate(self.texts.tokens).astype(np.int32)),
            "lengths": torch.tensor([len(text) for text in self.texts.tokens]),
        }
        for name in ("labels", "vectors"):
            if (part := getattr(self.texts, name)) is not None:
                tensors[name] = torch.from_numpy(part)
        names = ("order", "neighbours", "backed_off")
        return {
            **{name: getattr(self, name) for name in names},
            "weights": [*self.weights],
        }, tensors

    @classmethod
    def of(
        cls, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], size: int, end: int,
        where: str,
    ) -> Baseline:  # fmt: skip
        """Return what `keep` kept.

        Raises:
            FileError: something is missing or does not fit.
        """
        try:
            flat, lengths = tensors["tokens"].numpy(), tensors["lengths"].numpy()
            fits = lengths.min() >= 0 and lengths.sum() == len(flat)
            fits = fits and flat.min() >= 0 and flat.max() < size
            further = {n: tensors[n].numpy() for n in ("labels", "vectors") if n in tensors}
            fits = fits and all(len(part) == len(lengths) for part in further.values())
            chosen = {
                "order": int(metadata["order"]),
                "weights": [float(weight) for weight in metadata["weights"]],
                "neighbours": int(metadata["neighbours"]),
                "backed_off": float(metadata["backed_off"]),
            }
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{where}: it holds no baseline of captions ({error}).") from None
        fits = fits and 1 <= chosen["order"] <= ORDERS == len(chosen["weights"])
        if not fits or not all(0 <= weight <= 1 for weight in chosen["weights"]):
            raise FileError(f"{where}: its parts do not fit each other.")
        texts = np.split(flat.astype(np.int64), np.cumsum(lengths)[:-1])
        found = Texts(texts, further.get("labels"), further.get("vectors"))
        return cls(found, size, end, **chosen)


def _labels(texts: Texts) -> np.ndarray:
    return texts.labels if texts.labels is not None else np.full(len(texts.tokens), -1)


def _last(texts: Texts) -> Texts:
    """Return the last texts, of which there are not more than can be kept."""
    count = len(texts.tokens) if texts.vectors is None else min(len(texts.tokens), MOST_KEPT)
    sizes = np.cumsum([len(text) for text in reversed(texts.tokens)])
    count = min(count, max(1, int(np.searchsorted(sizes, MOST_TOKENS, side="right"))))
    return texts.some(np.arange(len(texts.tokens) - count, len(texts.tokens)))
