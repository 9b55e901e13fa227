"""Writing texts from classes and vectors, as the training loop sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from elman.data.batches import Batches, pad
from elman.data.lexicon import UNKNOWN
from elman.data.parts import spread
from elman.tasks.base import Carry, Task
from elman.tasks.caption.baseline import Baseline, Texts
from elman.tasks.caption.corpus import Corpus
from elman.tasks.caption.defaults import TOKENS
from elman.tasks.caption.measure import against, conditions, difference, judged, nats_of, scaled
from elman.tasks.caption.network import CaptionModel
from elman.tasks.caption.options import CaptionOptions
from elman.tasks.caption.trained import TrainedCaption

_WRITTEN = 200  # texts written in a validation


class Captioning(Task):
    """Texts and what they are written from, a network, and n-grams or neighbours beside it.

    Args:
        corpus: the texts, divided.
        options: resolved.
        model: the network.
        recommended: training options.
        seed: of weights and data order.
    """

    name = "caption"
    metric = "nats_per_char"
    shared = True

    def __init__(
        self,
        corpus: Corpus,
        options: CaptionOptions,
        model: CaptionModel,
        *,
        recommended: dict[str, Any],
        seed: int,
    ):
        self.corpus = corpus
        self.config = self.options = options
        self.model = self.network = model
        self.recommended, self.seed = recommended, seed
        self.fingerprint = corpus.fingerprint
        self.batches = batches(corpus.train, options, seed)
        self.steps_per_epoch = len(self.batches)
        self._nats: np.ndarray | None = None  # of each text, of the latest validation

    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each."""
        options = self.options
        weights = sum(weight.numel() for weight in self.model.parameters())
        return [
            *self.corpus.said,
            f"model: {options.cell}, {options.layers} layer(s) of {options.hidden}, token vectors "
            f"of {options.embedding}, {options.condition} numbers from the class or vector in the "
            f"initial state and at each step, {weights:,} weights",
            f"training: at most {options.batch} texts a batch, {self.steps_per_epoch:,} steps a "
            f"pass; dropout {options.dropout:g}",
        ]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return tokens before each step, those to be told, lengths, classes and vectors."""
        examples = self.batches.examples(step)
        mine = self.mine(np.arange(len(examples)))
        train, end = self.corpus.train, self.corpus.meaning.end
        # Drawn for the whole step, so that every process takes for unknown what one alone would.
        draw = np.random.default_rng([self.seed, step]).random(
            (len(examples), max(len(train.tokens[i]) for i in examples))
        )
        texts = []
        for row in mine:
            text = train.tokens[examples[row]].copy()
            rare = self.corpus.once[text] & (draw[row, : len(text)] < self.options.unknown_rate)
            text[rare] = UNKNOWN
            texts.append(text)
        targets, lengths = pad([np.append(text, end) for text in texts])
        inputs, _ = pad([np.insert(text, 0, end) for text in texts])
        return (inputs, targets, lengths, *conditions(train.some(examples[mine])))

    def start(self, step: int) -> Carry | None:
        """Return nothing: texts carry nothing on."""
        return None

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean −ln p of the tokens, nothing to carry, and their number."""
        inputs, targets, lengths, labels, vectors = batch
        u = self.network.condition(labels, vectors)
        told = self.network(u, inputs, lengths)
        total, count = self.network.decoder.loss(told.features, targets, lengths)
        return total / count, None, count

    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure nats and bits a character, and the share of exact texts where one is right."""
        valid = self.corpus.valid
        rows = spread(len(valid.tokens), limit)
        some = valid.some(rows)
        self._nats = nats_of(self.network, some, self.corpus.meaning.end)
        nats = self._nats.sum()
        tokens = sum(len(text) + 1 for text in some.tokens)
        char = float(nats / self.corpus.characters[rows].sum())
        found = {"nats_per_token": float(nats / tokens), "nats_per_char": char,
                 "bits_per_char": char / math.log(2)}  # fmt: skip
        if self.corpus.meaning.single:
            first = rows[:_WRITTEN]
            written = self.trained().write(valid.some(first), width=1)
            right = [
                told.text == self.corpus.right[i] for i, told in zip(first, written, strict=True)
            ]
            found["exact"] = float(np.mean(right))
        return found

    def sample(self) -> str | None:
        """Return some written texts."""
        training = self.model.training
        valid = self.corpus.valid
        rows = np.linspace(0, len(valid.tokens) - 1, 4).astype(int)
        some = valid.some(rows)
        model = self.trained()
        texts = model.draw(some, temperature=0.7, top_p=1.0, seed=self.seed)
        self.model.train(training)
        names = self.corpus.meaning.classes
        if names and some.labels is not None:
            texts = [f"{names[k]}: {t}" for k, t in zip(some.labels, texts, strict=True)]
        return ", ".join(texts)

    def trained(self) -> TrainedCaption:
        """Return the model as users call it, in evaluation mode; it shares the weights."""
        return TrainedCaption(self.network, self.corpus.meaning, self.options)

    @cached_property
    def _fitted(self) -> Baseline:
        train, valid = (self._scaled(part) for part in (self.corpus.train, self.corpus.valid))
        meaning = self.corpus.meaning
        return Baseline.fit(train, valid, len(meaning.lexicon), meaning.end)

    def _scaled(self, texts: Texts) -> Texts:
        return scaled(self.network, texts)

    @cached_property
    def _baseline(self) -> dict[str, Any]:
        corpus = self.corpus
        valid = self._scaled(corpus.valid)
        return judged(self._fitted, valid, corpus.characters, corpus.right, corpus.meaning)

    def baseline(self) -> dict[str, Any]:
        """Return n-grams given the class, or the texts of the nearest vectors, on this split."""
        return self._baseline

    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say which is ahead, the network or the baseline."""
        corpus, nats = self.corpus, self._nats
        few = 0 if nats is None else len(nats)
        if nats is None or nats.sum() / corpus.characters[:few].sum() != metrics["nats_per_char"]:
            # the latest validation was not of the weights that are kept
            nats = nats_of(self.network, corpus.valid, corpus.meaning.end)
        rows = np.arange(len(nats))
        theirs = self._fitted.judge(self._scaled(corpus.valid.some(rows)))
        gain = difference(nats, theirs, corpus.characters[rows])
        return against(metrics, {**self._baseline, "gain": gain})

    def keep_baseline(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the baseline with the texts it counts in."""
        return self._fitted.keep()

    def metadata(self) -> dict[str, Any]:
        """Return configuration, tokens and classes, as plain JSON values."""
        meaning = self.corpus.meaning
        return {
            "config": self.config.model_dump(),
            "tokens": meaning.lexicon.to_json(),
            "classes": list(meaning.classes),
            "features": meaning.features,
            "single": meaning.single,
        }


def batches(texts: Texts, options: CaptionOptions, seed: int) -> Batches:
    """Return the batches of an epoch."""
    lengths = [len(text) + 1 for text in texts.tokens]
    return Batches(lengths, size=options.batch or 1, tokens=TOKENS, seed=seed)
