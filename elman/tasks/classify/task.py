"""Telling the class of sequences, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elman.data.batches import Batches
from elman.data.lexicon import Lexicon
from elman.data.parts import spread
from elman.equation import Cell
from elman.tasks.base import Carry, Task
from elman.tasks.classify import measure
from elman.tasks.classify.baseline import Bayes
from elman.tasks.classify.logistic import Logistic
from elman.tasks.classify.meaning import Meaning
from elman.tasks.classify.network import ClassifyModel, Inputs
from elman.tasks.classify.options import ClassifyOptions
from elman.tasks.classify.prepare import Part
from elman.tasks.classify.trained import TrainedClassify, tell, verdict

_BATCH_TOKENS = 20_000  # of a batch, padding among them, at most


class Classify(Task):
    """Sequences with classes, a network that tells them, and a baseline to be held against.

    Args:
        train, valid: the two parts.
        meaning: classes, vocabulary, scaling.
        options: resolved.
        cell: of the recurrent layers.
        model: the network.
        baseline: tuned.
        columns: where files have what, by which a trained model reads others.
        lines: what to say before training.
        fingerprint: of the data.
        recommended: training options.
        seed: of weights and data order.
    """

    name = "classify"
    metric = "error"
    unit = "sequence"
    shared = True

    def __init__(
        self,
        train: Part,
        valid: Part,
        meaning: Meaning,
        options: ClassifyOptions,
        cell: Cell,
        model: ClassifyModel,
        *,
        baseline: Bayes | Logistic,
        columns: Mapping[str, Any],
        lines: list[str],
        fingerprint: str,
        recommended: dict[str, Any],
        seed: int,
    ):
        self.train, self.valid, self.meaning, self.cell = train, valid, meaning, cell
        self.config = self.options = options
        self.model = self.network = model
        self.columns, self._lines, self._against = dict(columns), lines, baseline
        self.fingerprint, self.recommended, self.seed = fingerprint, recommended, seed
        self.batches = Batches(
            train.lengths, size=options.batch or 1, tokens=_BATCH_TOKENS, seed=seed
        )
        self.steps_per_epoch = len(self.batches)
        self.classes = len(meaning.classes)
        self._once = _seen_once(train, meaning.lexicon) if options.unknown_rate else None

    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each."""
        return self._lines

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return classes and inputs of a step's sequences."""
        chosen = self.mine(self.batches.examples(step))
        sequences = [self.train.sequences[i] for i in chosen]
        hidden = logs = None
        if self._once is not None and self.meaning.lexicon is not None:
            hidden = [self._hidden(step, int(i), s) for i, s in zip(chosen, sequences, strict=True)]
        if self.meaning.bag is not None:
            logs = self._training_logs(chosen, sequences)
        labels = torch.from_numpy(self.train.labels[chosen])
        return (labels, *self.meaning.inputs(sequences, hidden, logs))

    def _hidden(self, step: int, example: int, tokens: Sequence[str]) -> np.ndarray:
        """Which tokens of an example are read as unknown: some of those that stand there once."""
        if self.meaning.lexicon is None or self._once is None:
            return np.zeros(len(tokens), bool)
        numbers = self.meaning.lexicon.numbers(tokens or [""])
        rare = self._once[numbers]
        if rare.any():
            epoch = step // self.steps_per_epoch
            draw = np.random.default_rng([self.seed, epoch, example]).random(len(numbers))
            rare &= draw < self.options.unknown_rate
        return rare

    def _training_logs(self, chosen: np.ndarray, sequences: Sequence[Any]) -> np.ndarray:
        """Log probabilities by naive Bayes without the very texts, where these were counted."""
        against = self._against
        if not isinstance(against, Bayes):
            return self.meaning.logs(sequences)
        last = max(len(against.rows) - 1, 0)
        places = np.minimum(np.searchsorted(against.rows, chosen), last)
        counted = against.rows[places] == chosen
        logs = against.alone[places]
        if not counted.all():
            rest = np.flatnonzero(~counted)
            logs[rest] = self.meaning.logs([sequences[i] for i in rest.tolist()])
        return logs

    def start(self, step: int) -> Carry | None:
        """Return nothing: sequences carry nothing on."""
        return None

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean −ln p over sequences and members, nothing to carry, and their number."""
        labels, inputs = batch[0], Inputs(*batch[1:])
        logits = self.network(inputs).float()
        weights = None if self._weights is None else self._weights.to(logits.device)
        total = functional.cross_entropy(
            logits.flatten(0, 1),
            labels.repeat(len(logits)),
            weight=weights,
            reduction="sum",
            label_smoothing=self.options.smoothing or 0.0,
        )
        return total / (len(labels) * len(logits)), None, len(labels)

    @cached_property
    def _weights(self) -> Tensor | None:
        """Weights of the classes, one on the mean over the examples."""
        if self.options.class_weights == "none":
            return None
        counts = np.bincount(self.train.labels, minlength=self.classes)
        return torch.tensor(len(self.train.labels) / (self.classes * counts), dtype=torch.float32)

    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure accuracy, macro-F1 and −ln p on the validation part."""
        rows = spread(len(self.valid.labels), limit)
        logs = tell(self.network, self.meaning, [self.valid.sequences[i] for i in rows.tolist()])
        labels = self.valid.labels[rows]
        known = labels >= 0
        true = np.where(known, labels, self.classes)
        found = measure.figures(true, logs.argmax(1), self.classes)
        nats = -logs[known, labels[known]].mean() if known.any() else 0.0
        return {"error": 1 - found["accuracy"], **found, "nats_per_sequence": float(nats)}

    def sample(self) -> str | None:
        """Return one sequence of the validation part that the model is least sure of."""
        if self.meaning.reading is None:
            return None
        some = self.valid.sequences[:50]
        logs = tell(self.network, self.meaning, some)
        doubt = int(logs.max(1).argmin())
        told = self.meaning.classes[int(logs[doubt].argmax())]
        share = float(np.exp(logs[doubt].max()))
        space = "" if self.meaning.reading.level == "char" else " "
        return f"{space.join(some[doubt])[:200]} → {told} ({share:.0%})"

    def trained(self) -> TrainedClassify:
        """Return the model as users call it, in evaluation mode; it shares the weights."""
        model = TrainedClassify(self.network, self.meaning, self.columns)
        model.against = self._against
        return model

    @cached_property
    def _baseline(self) -> dict[str, Any]:
        told = self._against.scores(self.valid.sequences).argmax(1)
        true = np.where(self.valid.labels >= 0, self.valid.labels, self.classes)
        found = measure.figures(true, told, self.classes)
        return {
            "name": self._against.name,
            **found,
            "error": 1 - found["accuracy"],
            "words": f"{self._against.name}: {found['accuracy']:.1%} right, macro-F1 "
            f"{found['macro_f1']:.3f}",
        }

    def baseline(self) -> dict[str, Any]:
        """Return naive Bayes, or for numbers logistic regression, on the same split."""
        return self._baseline

    def keep_baseline(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the baseline as a trained model needs it."""
        return self._against.keep()

    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say which is ahead on the validation part."""
        return verdict(metrics["accuracy"], self._baseline["accuracy"], self._against.name)

    def metadata(self) -> dict[str, Any]:
        """Return configuration, vocabulary, classes, columns and equation as plain JSON values."""
        return {
            "config": self.config.model_dump(),
            "equation": self.cell.to_json(),
            "columns": self.columns,
            **self.meaning.to_json(),
        }

    def keepsake(self) -> dict[str, Any] | None:
        """Return the confusion matrix of the validation part, for its picture."""
        logs = tell(self.network, self.meaning, self.valid.sequences)
        known = self.valid.labels >= 0
        table = measure.confusion(self.valid.labels[known], logs[known].argmax(1), self.classes)
        return {"classes": list(self.meaning.classes), "confusion": table.tolist()}


def _seen_once(train: Part, lexicon: Lexicon | None) -> np.ndarray | None:
    """Which tokens stand once in the training part, (tokens,) bool."""
    if lexicon is None:
        return None
    counts = np.zeros(len(lexicon), np.int64)
    for tokens in train.sequences:
        np.add.at(counts, lexicon.numbers(tokens), 1)
    found = counts == 1
    found[:2] = False
    return found
