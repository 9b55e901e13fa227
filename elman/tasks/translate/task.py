"""Translation as the training loop sees it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import Batches, in_order
from elman.data.parts import spread
from elman.tasks.base import Carry, Task
from elman.tasks.translate import measure
from elman.tasks.translate.corpus import Corpus
from elman.tasks.translate.memory import MOST_PAIRS, NAME, TranslationMemory
from elman.tasks.translate.network import TranslationModel
from elman.tasks.translate.options import TranslateOptions
from elman.tasks.translate.trained import Bounds, TrainedTranslation

_TRANSLATED = 300  # pairs of the validation part that are translated for BLEU
_SHOWN = 2


class Translation(Task):
    """Pairs, a network that translates, and a translation memory to be held against.

    Args:
        corpus: the pairs, divided.
        options: resolved.
        model: the network.
        recommended: training options.
        seed: of weights and data order.
    """

    name = "translate"
    metric = "nats_per_token"
    unit = "token"
    shared = True

    def __init__(
        self,
        corpus: Corpus,
        options: TranslateOptions,
        model: TranslationModel,
        *,
        recommended: dict[str, Any],
        seed: int,
    ):
        self.corpus = corpus
        self.config = self.options = options
        self.model = self.network = model
        self.recommended, self.seed = recommended, seed
        self.fingerprint = corpus.fingerprint
        self.batches = Batches(
            corpus.train.lengths(), size=options.pairs or 1, tokens=options.tokens, seed=seed
        )
        self.steps_per_epoch = len(self.batches)
        self.bounds = Bounds.of(corpus.train)
        self._tokenizer = measure.tokenizer_of(
            corpus.valid.texts(np.arange(min(1000, len(corpus.valid))))[1]
        )

    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each."""
        corpus, options = self.corpus, self.options
        train, columns = corpus.train, corpus.train.pairs.columns
        named = "" if columns is None else f"; {columns[0]!r} into {columns[1]!r}"
        sides = []
        for name, units, side in zip(
            ("source", "target"), corpus.units, (train.source, train.target), strict=True
        ):
            kind = {"char": "characters", "word": "words", "bpe": "parts of words (bpe)"}
            mean = float(side.lengths[train.rows].mean())
            sides.append(f"{name}: {len(units):,} {kind[units.level]}, {mean:.1f} a text")
        weights = sum(w.numel() for w in self.model.parameters())
        attention = "no" if options.attention == "none" else options.attention
        fed = f", own output fed back {options.feed_back:g}" if options.feed_back else ""
        return [
            f"{train.pairs.words}{named}",
            *corpus.notes,
            f"pairs: {len(train):,} to learn from, {len(corpus.valid):,} to validate on",
            "; ".join(sides),
            f"network: {options.cell} of {options.hidden} in {options.layers} layer(s), encoder in "
            f"both directions, {attention} attention, vectors of {options.embedding}"
            f"{' tied to the output' if options.tied else ''}, dropout {options.dropout:g}; "
            f"{weights:,} weights",
            f"batches of up to {options.pairs} pairs and {options.tokens:,} tokens, "
            f"{self.steps_per_epoch:,} an epoch; smoothing {options.smoothing:g}{fed}",
        ]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return sources, decoder inputs and targets of some pairs, with their lengths."""
        return self.corpus.train.batch(self.mine(self.batches.examples(step)))

    def start(self, step: int) -> Carry | None:
        """Return nothing: pairs carry nothing on."""
        return None

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean loss of the targets' tokens, smoothed, and their number."""
        source, lengths, inputs, targets, steps = batch
        told = self.network(source, lengths, inputs, steps, self.options.feed_back)
        total, count = self.network.decoder.loss(
            told.features, targets, steps, self.options.smoothing or 0.0
        )
        return total / count, None, count

    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure −ln p of a token, and BLEU, chrF and the exact share of greedy translations."""
        valid = self.corpus.valid
        rows = spread(len(valid), limit)
        lengths, total, count = valid.lengths()[rows], 0.0, 0
        place = self.network.vectors.weight.device
        with torch.no_grad():
            for some in in_order(lengths, size=256, tokens=2 * (self.options.tokens or 1)):
                batch = tuple(t.to(place) for t in valid.batch(rows[some]))
                source, lengths_of, inputs, targets, steps = batch
                told = self.network(source, lengths_of, inputs, steps)
                loss, number = self.network.decoder.loss(told.features, targets, steps)
                total, count = total + float(loss), count + number
        found = {"nats_per_token": total / count}
        texts, right = self._few(rows)
        scores = measure.measure(
            self.trained().translate(texts, beam=1), right, tokenizer=self._tokenizer,
            intervals=False,
        )  # fmt: skip
        return found | {name: scores[name] for name in ("bleu", "chrf", "exact")}

    def beside_the_metric(self, metrics: Mapping[str, float]) -> str:
        """Return BLEU and chrF of the translated few."""
        return f"  BLEU {metrics['bleu']:.1f}, chrF {metrics['chrf']:.1f}"

    def _few(self, rows: np.ndarray) -> tuple[list[str], list[str]]:
        """Sources and targets of a few of the validation's rows."""
        few = np.unique(np.linspace(0, len(rows) - 1, min(_TRANSLATED, len(rows))).astype(np.int64))
        return self.corpus.valid.texts(rows[few])

    def sample(self) -> str | None:
        """Return pairs of the validation part and how the model translates them."""
        places = np.linspace(0, len(self.corpus.valid) - 1, 2 * _SHOWN + 1).astype(np.int64)
        texts, _ = self.corpus.valid.texts(np.unique(places[1::2]))
        training = self.model.training
        told = self.trained().translate(texts, beam=1)
        self.model.train(training)
        return " | ".join(f"{a} → {b}" for a, b in zip(texts, told, strict=True))

    def trained(self) -> TrainedTranslation:
        """Return the model as users call it, in evaluation mode; it shares the weights."""
        return TrainedTranslation(
            self.network, self.corpus.units, self.options, self.bounds, self._tokenizer
        )

    @cached_property
    def _memory(self) -> TranslationMemory:
        train = self.corpus.train
        rows = np.linspace(0, len(train) - 1, min(len(train), MOST_PAIRS)).round()
        return TranslationMemory(*train.texts(rows.astype(np.int64)))

    @cached_property
    def _baseline(self) -> dict[str, Any]:
        texts, right = self._few(np.arange(len(self.corpus.valid)))
        scores = measure.measure(
            self._memory.answer(texts), right, tokenizer=self._tokenizer, intervals=False
        )
        said = f"BLEU {scores['bleu']:.1f}, chrF {scores['chrf']:.1f}, {scores['exact']:.1%} exact"
        return {
            "name": NAME,
            **{name: scores[name] for name in ("bleu", "chrf", "exact")},
            "words": f"{NAME} (the likest source of training, its target): {said}",
        }

    def baseline(self) -> dict[str, Any]:
        """Return the translation memory's figures on the validation part."""
        return self._baseline

    def keep_baseline(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the translation memory itself."""
        return self._memory.kept()

    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say which is ahead in BLEU, the network or the translation memory."""
        return TrainedTranslation.compare(metrics, self._baseline)

    def metadata(self) -> dict[str, Any]:
        """Return configuration, units and bounds, as plain JSON values."""
        return {
            "config": self.config.model_dump(),
            "vocabulary": {
                name: units.to_json()
                for name, units in zip(("source", "target"), self.corpus.units, strict=True)
            },
            "bounds": list(self.bounds),
            "tokenizer": self._tokenizer,
        }
