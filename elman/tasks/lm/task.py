"""Language modelling as a task: what the training loop sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from elman.data import UNKNOWN, Corpus, Streams
from elman.equation import Cell
from elman.learning.space import in_words
from elman.tasks.base import Carry, Task
from elman.tasks.lm import kneser_ney, measure
from elman.tasks.lm.network import LanguageModel, begin_anew, detached
from elman.tasks.lm.options import LMOptions
from elman.tasks.lm.shares import rows_of, united
from elman.tasks.lm.trained import TrainedLM

_SAMPLE = 120  # tokens


class LanguageModelling(Task):
    """A text, a network that predicts its next token, and Kneser-Ney to be held against.

    Args:
        corpus: the text, split.
        options: resolved.
        cell: the cell of the options.
        model: the network.
        recommended: training options.
        reason: in words, what the choices rest on.
        seed: seed of weights and data order.
    """

    name = "lm"
    metric = "nats_per_char"
    shared = True

    def __init__(
        self,
        corpus: Corpus,
        options: LMOptions,
        cell: Cell,
        model: LanguageModel,
        *,
        recommended: dict[str, Any],
        reason: str,
        seed: int,
    ):
        self.corpus, self.cell = corpus, cell
        self.config = self.options = options
        self.model = self.network = model
        self.recommended, self.reason, self.seed = recommended, reason, seed
        self.carries = options.carry is not None
        self.vocabulary = corpus.vocabulary
        self.fingerprint = corpus.fingerprint
        self.validation_units = len(corpus.valid)
        self.streams = Streams(
            corpus.train,
            options.streams or 1,
            options.window or 1,
            restart=options.restart,
            seed=seed,
        )
        self.steps_per_epoch = self.streams.steps_per_epoch

    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each."""
        corpus, options, level = self.corpus, self.options, self.vocabulary.level
        kind = "characters" if level == "char" else "words"
        where = options.valid_file or f"the last {options.valid_fraction:.0%} of the text"
        lines = [
            f"text: {len(corpus.train):,} {kind} to train on, {len(corpus.valid):,} to validate "
            f"on ({where}), vocabulary {len(self.vocabulary):,}"
        ]
        if self.vocabulary.unknown is not None:
            lines.append(
                f"{UNKNOWN} stands for {corpus.train_unknown:,} {kind} of training (seen fewer "
                f"than {corpus.min_count} times) and {corpus.valid_unknown:,} of validation"
            )
        weights = sum(weight.numel() for weight in self.model.parameters())
        tokens = f"vectors of {options.embedding}" if options.embedding else "one-hot"
        lines += [
            f"model: {self.cell.name}, {options.layers} layer(s) of {options.hidden}, {tokens}, "
            f"{weights:,} weights",
            f"training: {options.streams} streams, windows of {options.window}, "
            f"{self.steps_per_epoch:,} steps a pass; dropout {options.dropout_input:g} in, "
            f"{options.dropout_between:g} between, {options.dropout_output:g} out, "
            f"{options.weight_dropout:g} on recurrent weights",
            f"planned: {self.reason}",
        ]
        if self.carries:
            size = self.network.influence_bytes(options.streams or 1)
            lines.append(
                f"learning: credit carried from window to window ({options.carry}); the influence "
                f"of {options.streams} streams takes {in_words(size)}, twice while a window learns"
            )
        if level == "word" and np.mean(np.asarray(corpus.train[:100_000]) == 0) > 0.4:
            lines.append(
                "note: many lines hold only one word; a text without spaces (such as Chinese) is "
                "better modelled by characters"
            )
        return lines

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, targets (time, batch) and the streams that begin anew (batch,)."""
        return self.streams.batch(step, self._rows())

    def _rows(self) -> np.ndarray:
        """The streams of this process."""
        return self.mine(np.arange(self.streams.streams))

    def start(self, step: int) -> Carry | None:
        """Return the states before the text at step 0; after that they are carried for ever."""
        return detached(self.network.fresh(len(self._rows()))) if step == 0 else None

    def divide(self, carry: Carry) -> Carry:
        """Return the states and the influence of this process's streams."""
        alone = self.world == 1 or carry is None
        return carry if alone else rows_of(carry, self._rows())

    def unite(self, parts: Sequence[Carry]) -> Carry:
        """Return the states and the influence of all streams, of those of every process."""
        there = [part for part in parts if part is not None]  # before the first step is nothing
        return united(there) if len(there) > 1 else parts[0]

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean -ln p of the targets, the next carry, and the number of targets."""
        inputs, targets, anew = batch
        if self.carries and self.model.training:
            logits, states = self.network.learn(inputs, carry, anew)
        else:
            if bool(anew.any()):
                carry = begin_anew(carry, self.network.fresh(inputs.shape[1]), anew)
            logits, states = self.network(inputs, carry)
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return loss, detached(states), targets.numel()

    def exact(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry]:
        """Return the loss with exact credit for the whole stream; see `Task.exact`."""
        inputs, targets, anew = batch
        carry = self.network.fresh(inputs.shape[1]) if carry is None else carry
        logits, carry = self.network.learn(inputs, detached(carry), anew, exact=True)
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return loss, detached(carry)

    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure the validation part; see `measure.negative_log_likelihood` for how."""
        corpus = self.corpus
        total = measure.negative_log_likelihood(self.network, self._before(), corpus.valid, limit)
        characters = corpus.valid_chars * total.tokens / len(corpus.valid)
        return measure.metrics(total.nats, total.tokens, characters)

    def _before(self) -> np.ndarray:
        if self.corpus.follows:
            return self.corpus.train[-measure.WARM :]
        return np.array([self.vocabulary.end])

    def sample(self) -> str:
        """Return a short text that the model writes."""
        training = self.model.training
        text = self.trained().generate(length=_SAMPLE, temperature=0.8, seed=self.seed)[0]
        self.model.train(training)
        return text

    def trained(self) -> TrainedLM:
        """Return the model as users call it, in evaluation mode; it shares the weights."""
        return TrainedLM(self.network, self.vocabulary)

    @cached_property
    def _baseline(self) -> kneser_ney.Baseline:
        corpus = self.corpus
        size = len(self.vocabulary)
        return kneser_ney.baseline(corpus.train, corpus.valid, size, corpus.follows)

    def baseline(self) -> dict[str, Any]:
        """Return Kneser-Ney on the same tokens and split, its best order up to 6.

        Of a very long text it learns from the last part, which its name says, and is judged on the
        first part of the validation part ("validated_part").
        """
        found, corpus = self._baseline, self.corpus
        nats = found.nats_per_token * found.tokens
        characters = corpus.valid_chars * found.tokens / len(corpus.valid)
        measured = measure.metrics(nats, found.tokens, characters)
        name = f"Kneser-Ney of order {found.order}"
        words = (
            f"Kneser-Ney (interpolated, modified) of order {found.order}, the best of orders 1 to "
            f"{len(found.by_order)} on the validation part itself"
        )
        if found.trained_on < len(corpus.train):
            name += f" of {found.trained_on:,} tokens"
            words += f", from the last {found.trained_on:,} tokens of the training part"
        part = found.tokens / len(corpus.valid)
        words += f", judged on its first {found.tokens:,} tokens" if part < 1 else ""
        return {
            "name": name,
            "words": f"{words}: {measured['nats_per_char']:.3f} nats a character",
            "validated_part": part,
            "order": found.order,
            "nats_per_token_by_order": list(found.by_order),
            **measured,
        }

    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say which is ahead, the network or Kneser-Ney, and what to use."""
        baseline = self.baseline()
        name, theirs, ours = baseline["name"], baseline[self.metric], metrics[self.metric]
        gap = abs(theirs - ours)
        figures = f"{ours:.3f} against {theirs:.3f} nats a character"
        if gap < 5e-4:
            return f"{figures}: level with {name}, which is the simpler of the two."
        if ours < theirs:
            return f"{figures}: this model is ahead of {name} by {gap:.3f}."
        return (
            f"{figures}: {name} is ahead by {gap:.3f}. Use the baseline, train longer, or find "
            f"more text."
        )

    def metadata(self) -> dict[str, Any]:
        """Return configuration, vocabulary and equation, as plain JSON values."""
        return {
            "config": self.config.model_dump(),
            "vocabulary": self.vocabulary.to_json(),
            "equation": self.cell.to_json(),
        }
