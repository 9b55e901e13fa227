"""Labelling the nodes of trees, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elman.data.trees import LabelledTree
from elman.equation import Cell
from elman.tasks.base import Carry, Task
from elman.tasks.tree import baseline
from elman.tasks.tree.corpus import Corpus
from elman.tasks.tree.measure import measure
from elman.tasks.tree.network import TreeModel
from elman.tasks.tree.options import TreeOptions
from elman.tasks.tree.trained import TrainedTree


class TreeLabelling(Task):
    """Trees, a network that labels their nodes, and naive Bayes to be held against.

    Args:
        corpus: the trees, divided.
        options: resolved.
        cell: that of the options.
        model: the network.
        recommended: training options.
        seed: of weights and data order.
    """

    name = "tree"
    metric = "root_error"
    unit = "node"
    shared = True

    def __init__(
        self,
        corpus: Corpus,
        options: TreeOptions,
        cell: Cell,
        model: TreeModel,
        *,
        recommended: dict[str, Any],
        seed: int,
    ):
        self.corpus, self.cell = corpus, cell
        self.config = self.options = options
        self.model = self.network = model
        self.recommended, self.seed = recommended, seed
        self.fingerprint = corpus.fingerprint
        self.trees = min(options.trees or 1, len(corpus.train))
        self.steps_per_epoch = -(-len(corpus.train) // self.trees)

    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each."""
        corpus, options, meaning = self.corpus, self.options, self.corpus.meaning
        nodes = sum(len(tree.parents) for tree in corpus.train)
        where = options.valid_file or f"the last {options.valid_fraction:.0%}"
        weights = sum(weight.numel() for weight in self.model.parameters())
        return [
            f"trees: {len(corpus.train):,} to train on ({nodes:,} nodes, at most {corpus.arity} "
            f"children), {len(corpus.valid):,} to validate on ({where}); labels "
            f"{', '.join(meaning.classes[:10])}{' …' * (len(meaning.classes) > 10)}; vocabulary "
            f"{len(meaning.words):,}",
            f"model: {self.cell.name}, {options.hidden} units, {options.direction}, word vectors "
            f"of {options.embedding}, {weights:,} weights",
            f"training: {self.trees} trees a batch, {self.steps_per_epoch:,} steps a pass, "
            f"{'every labelled node' if options.nodes == 'all' else 'the root alone'}; dropout "
            f"{options.dropout_input:g} in, {options.dropout_output:g} out",
        ]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return words, parents and labels of the nodes of a step's trees."""
        epoch, at = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.corpus.train))
        chosen = order[at * self.trees : (at + 1) * self.trees]
        mine = self.mine(np.arange(len(chosen)))
        batch = self.corpus.meaning.batch([self.corpus.train[chosen[i]] for i in mine])
        draw = np.random.default_rng([self.seed, epoch, at])
        ends = np.cumsum([len(self.corpus.train[i].words) for i in chosen])
        drawn = np.split(draw.random(ends[-1]), ends[:-1])  # for all, so that a share sees the same
        hidden = np.concatenate([drawn[i] for i in mine]) < self.options.unknown_rate
        rare = np.isin(batch.words.numpy(), list(self.corpus.once))
        batch.words[torch.from_numpy(hidden & rare)] = 0
        return tuple(batch)

    def start(self, step: int) -> Carry | None:
        """Return nothing: trees carry nothing on."""
        return None

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean −ln p of the labels, nothing to carry, and the number of labels."""
        words, parents, labels = batch
        if self.options.nodes == "root":
            labels = torch.where(parents < 0, labels, -1)
        logits = self.network(words, parents).float()
        count = int((labels >= 0).sum())
        loss = functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        return loss / max(count, 1), None, count

    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure the share of labels that are right, at roots and at all nodes."""
        trees = self.corpus.valid
        if limit is not None:
            trees = trees[: max(1, round(limit * len(trees)))]
        return measure(self.network, self.corpus.meaning, trees)

    def sample(self) -> str | None:
        """Return one tree of the validation part as the model labels it."""
        training = self.model.training
        text = self.trained().predict(self.corpus.valid[:1])[0]
        self.model.train(training)
        return text

    def trained(self) -> TrainedTree:
        """Return the model as users call it, in evaluation mode; it shares the weights."""
        return TrainedTree(self.network, self.corpus.meaning)

    def _sentences(self, trees: Sequence[LabelledTree]) -> list[tuple[list[str], int]]:
        label = self.corpus.meaning.label
        pairs = ((t.leaves, label(t.labels[0], f"line {t.line}")) for t in trees)
        return [(words, found) for words, found in pairs if found >= 0]

    @cached_property
    def _baseline(self) -> dict[str, Any]:
        return baseline.baseline(
            self._sentences(self.corpus.train), self._sentences(self.corpus.valid)
        )

    def baseline(self) -> dict[str, Any]:
        """Return naive Bayes on the bags of words, on the same split."""
        return self._baseline

    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say which is ahead at the roots, the network or naive Bayes."""
        theirs, ours = self._baseline["root_accuracy"], metrics["root_accuracy"]
        figures = f"{ours:.1%} of the roots right against {theirs:.1%}"
        if ours > theirs:
            return f"{figures}: this model is ahead of naive Bayes on the bag of words."
        return f"{figures}: naive Bayes is level or ahead. Use the baseline, or train longer."

    def metadata(self) -> dict[str, Any]:
        """Return configuration, vocabulary, labels and equation, as plain JSON values."""
        meaning = self.corpus.meaning
        return {
            "config": self.config.model_dump(),
            "vocabulary": list(meaning.words),
            "classes": list(meaning.classes),
            "equation": self.cell.to_json(),
        }
