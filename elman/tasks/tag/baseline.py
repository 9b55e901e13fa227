"""The baseline of tagging: of a word its most frequent tag; of a frame, softmax regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elman.errors import FileError
from elman.tasks.tag.corpus import Corpus, Part

_MOST_FRAMES = 50_000
_ROUNDS = 60  # of the optimiser of softmax regression
_L2 = 1e-4
NAMES = ("most frequent tag of the word", "softmax regression on the frame")


class Baseline:
    """Labels without a look at the neighbours.

    Args:
        names: the labels as written.
        words: of each known word the number of its label; None for frames.
        common: the label of every other word.
        weight, bias: of softmax regression on frames, (labels, features) and (labels,).
    """

    def __init__(
        self,
        names: Sequence[str],
        words: dict[str, int] | None = None,
        common: int = 0,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ):
        self.names, self.words, self.common = tuple(names), words, common
        self.weight, self.bias = weight, bias
        self.name = NAMES[words is None]

    def labels(self, items: Sequence[str] | np.ndarray) -> list[str]:
        """Return the labels of a sequence."""
        if self.words is not None:
            return [self.names[self.words.get(word, self.common)] for word in items]
        frames = torch.as_tensor(np.asarray(items))
        scores = functional.linear(frames, self.weight, self.bias)  # type: ignore[arg-type]
        return [self.names[k] for k in scores.argmax(1).tolist()]

    def keep(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what `taken` makes it from again: plain JSON and tensors."""
        plain: dict[str, Any] = {"names": list(self.names), "common": self.common}
        if self.words is not None:
            told = torch.tensor(list(self.words.values()), dtype=torch.int32)
            return plain | {"words": list(self.words)}, {"told": told}
        return plain, {"weight": self.weight, "bias": self.bias}  # type: ignore[dict-item]

    @classmethod
    def taken(cls, plain: dict[str, Any], tensors: dict[str, Tensor], where: str) -> Baseline:
        """Return the baseline that was kept.

        Raises:
            FileError: what was read is none.
        """
        try:
            names, common = plain["names"], plain["common"]
            if "words" in plain:
                told = tensors["told"].tolist()
                words = dict(zip(plain["words"], told, strict=True))
                return cls(names, words, common)
            return cls(names, None, common, tensors["weight"], tensors["bias"])
        except (KeyError, TypeError, ValueError):
            raise FileError(f"{where}: it holds no baseline of tagging.") from None


def of_words(corpus: Corpus) -> Baseline:
    """The most frequent tag of each word of the training part; of other words, of all words.

    Words are compared as they are written. Of two tags as frequent the one that is more frequent
    on the whole is taken.
    """
    part, labels = corpus.train, corpus.seen
    known = part.labels >= 0
    pairs = part.items[known].astype(np.int64) * labels + part.labels[known]
    each, counts = np.unique(pairs, return_counts=True)
    order = np.lexsort((each % labels, -counts, each // labels))
    words, first = np.unique(each[order] // labels, return_index=True)
    told = (each[order] % labels)[first]
    table = {corpus.words[w]: int(k) for w, k in zip(words.tolist(), told.tolist(), strict=True)}
    # Labels are numbered by frequency, so the most frequent is 0.
    return Baseline(corpus.names[:labels], table, 0)


def of_frames(corpus: Corpus, seed: int = 0) -> Baseline:
    """Softmax regression of a frame's label on its own features."""
    part, labels = corpus.train, corpus.seen
    known = np.flatnonzero(part.labels >= 0)
    if len(known) > _MOST_FRAMES:
        known = np.sort(np.random.default_rng(seed).choice(known, _MOST_FRAMES, replace=False))
    x, y = torch.from_numpy(part.items[known]), torch.from_numpy(part.labels[known]).long()
    mean, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    x = (x - mean) / scale
    weight = torch.zeros(labels, x.shape[1], requires_grad=True)
    bias = torch.zeros(labels, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(functional.linear(x, weight, bias), y)
        loss = loss + _L2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[arg-type]
    own = weight.detach() / scale
    return Baseline(corpus.names[:labels], None, 0, own, bias.detach() - own @ mean)


def fit(corpus: Corpus, seed: int = 0) -> Baseline:
    """Fit the baseline that goes with a corpus to its training part."""
    return of_words(corpus) if corpus.words else of_frames(corpus, seed)


def items_of(corpus: Corpus, part: Part, row: int) -> Sequence[str] | np.ndarray:
    """The words or frames of a sequence."""
    found = part.items[part.offsets[row] : part.offsets[row + 1]]
    return [corpus.words[w] for w in found.tolist()] if corpus.words else found
