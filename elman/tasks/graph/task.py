"""Labels of nodes or graphs, or a chosen node, as the training loop sees them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from elman.data.graphs import GraphData
from elman.equation import Cell
from elman.tasks.base import Carry, Task
from elman.tasks.graph import baseline
from elman.tasks.graph.meaning import BACK, Batch, Meaning, chosen_graphs
from elman.tasks.graph.measure import measure, only
from elman.tasks.graph.network import GraphModel, log_probabilities, nats
from elman.tasks.graph.options import GraphOptions
from elman.tasks.graph.trained import TrainedGraph


class GraphLabelling(Task):
    """Graphs, a network, and logistic regression without the edges to be held against.

    Args:
        data: the graphs.
        meaning: what their numbers stand for.
        parts: numbers of labelled nodes or graphs to train and to validate on.
        options: resolved.
        cell, last: those of the network.
        model: the network.
        recommended: training options.
        seed: of weights and data order.
    """

    name = "graph"
    metric = "nats_per_label"
    unit = "label"

    def __init__(
        self,
        data: GraphData,
        meaning: Meaning,
        parts: Mapping[str, tuple[int, ...]],
        options: GraphOptions,
        cell: Cell,
        last: Cell | None,
        model: GraphModel,
        *,
        recommended: dict[str, Any],
        seed: int,
    ):
        self.data, self.meaning, self.parts = data, meaning, parts
        self.cell, self.last = cell, last
        self.config = self.options = options
        self.model = self.network = model
        self.recommended, self.seed = recommended, seed
        self.fingerprint = data.fingerprint()
        self.whole = meaning.batch(data)
        self.graphs = min(options.graphs or 1, len(parts["train"]))
        self.shared = not data.single  # the nodes of one graph are not apart
        self.steps_per_epoch = 1 if data.single else -(-len(parts["train"]) // self.graphs)

    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each."""
        data, meaning, options = self.data, self.meaning, self.options
        target = {"node": "classes of nodes", "graph": "classes of graphs",
                  "selection": "one chosen node a graph"}[meaning.target]  # fmt: skip
        sizes = {part: len(numbers) for part, numbers in self.parts.items()}
        degree = np.bincount(data.edges.ravel(), minlength=len(data.nodes))
        alone = int((degree == 0).sum())
        unlabelled = sum(label is None for label in data.labels)
        kind = f"{len(meaning.numbers)} numbers" if meaning.numbers else (
            f"sets of {len(meaning.features):,} ids" if meaning.features else "none")  # fmt: skip
        arrows = "directed" if meaning.directed else "undirected"
        back = ", and back as types of their own" * any(t.startswith(BACK) for t in meaning.types)
        weights = sum(weight.numel() for weight in self.model.parameters())
        graphs = "one graph" if data.single else f"{len(data.graphs):,} graphs"
        return [
            f"graphs: {graphs}, {len(data.nodes):,} nodes ({alone:,} without an edge), "
            f"{len(data.edges):,} {arrows} edges{back}; features: {kind}",
            f"labels: {target}"
            + f", {', '.join(meaning.classes[:10])}{' …' * (len(meaning.classes) > 10)}"
            * bool(meaning.classes)
            + f"; {sizes['train']:,} to train on, {sizes['val']:,} to validate on"
            + f", {sizes.get('test', 0):,} kept apart for evaluate" * ("test" in sizes)
            + f"; {unlabelled:,} without a label" * bool(unlabelled),
            f"model: {self.cell.name}, {options.layers} layer(s) of {options.rounds} round(s), "
            f"{options.hidden} units, dropout {options.dropout:g}, {weights:,} weights",
            self.network.explain().replace("\n", " "),
        ]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return the one graph, or a step's graphs, as numbers."""
        train = self.parts["train"]
        if self.data.single:
            return tuple(self._learned)
        epoch, at = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(train))
        picked = [train[i] for i in self.mine(order[at * self.graphs : (at + 1) * self.graphs])]
        return tuple(chosen_graphs(self.data, self.whole, picked, self.meaning.target))

    @cached_property
    def _learned(self) -> Batch:
        return only(self.whole, self.parts["train"])

    def start(self, step: int) -> Carry | None:
        """Return nothing: graphs carry nothing on."""
        return None

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean −ln p of the labels, nothing to carry, and the number of labels."""
        graphs = Batch(*batch)
        logits = self.network(graphs).float()
        logs = log_probabilities(logits, graphs, self.meaning.target)
        cost, count = nats(logs, graphs, self.meaning.target)
        loss = cost / max(count, 1)
        if self.options.decay:
            # Its gradient counts and its value does not: losses are told without penalties.
            penalty = self.options.decay * self.network.penalty()
            loss = loss + (penalty - penalty.detach())
        return loss, None, count

    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure the share of labels that are right, and nats a label."""
        places = self.parts["val"]
        if limit is not None:
            places = places[: max(1, round(limit * len(places)))]
        return measure(self.network, self.data, self.whole, places, self.meaning.target)

    def sample(self) -> str | None:
        """Return what the model says of the first nodes or graphs of the validation part."""
        return None

    def trained(self) -> TrainedGraph:
        """Return the model as users call it, in evaluation mode; it shares the weights."""
        return TrainedGraph(self.network, self.meaning)

    @cached_property
    def _baseline(self) -> dict[str, Any]:
        target = self.meaning.target
        train, valid = (
            only(self.whole, self.parts[part])
            if self.data.single
            else chosen_graphs(self.data, self.whole, self.parts[part], target)
            for part in ("train", "val")
        )
        return baseline.baseline(train, valid, len(self.meaning.classes), target)

    def baseline(self) -> dict[str, Any]:
        """Return logistic regression on the features alone, on the same split."""
        return self._baseline

    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say which is ahead, the network or the features without the edges."""
        theirs, ours = self._baseline["accuracy"], metrics["accuracy"]
        said = f"{ours:.1%} of the labels right against {theirs:.1%}"
        if ours > theirs:
            return f"{said}: this model is ahead of the features without the graph."
        return (
            f"{said}: the features without the graph are level or ahead. Use the baseline, or "
            "train longer."
        )

    def metadata(self) -> dict[str, Any]:
        """Return configuration, what numbers mean, and equations, as plain JSON values."""
        return {
            "config": self.config.model_dump(),
            "vocabulary": self.meaning.to_json(),
            "equation": self.cell.to_json(),
            "last": None if self.last is None else self.last.to_json(),
        }
