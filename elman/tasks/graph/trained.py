"""A trained model of graphs: what users call to label and to evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from elman.data.graphs import GraphData, read_graphs
from elman.tasks.graph.meaning import Meaning
from elman.tasks.graph.measure import labelled, measure, pieces
from elman.tasks.graph.network import GraphModel, chosen, log_probabilities

Files = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


class Told(NamedTuple):
    """What a model says of a node or graph: its class or chosen node, and how likely that is."""

    graph: str
    node: str
    label: str
    probability: float


class TrainedGraph:
    """A model of graphs with what its numbers mean, as `elman.load` returns it.

    Attributes:
        network: the torch module, in evaluation mode.
        meaning: its features, types of edges and labels.

    Example:
        >>> import tempfile
        >>> from elman.data.graph_tasks import babi
        >>> from elman.data.graphs import write_graphs
        >>> from elman.tasks import build
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_graphs(babi(15, 20), folder)
        ...     task = build("graph", [folder], {"hidden": 4})
        >>> model = task.trained()
        >>> told = model.predict(babi(15, 1, seed=9))
        >>> len(told), told[0].label in babi(15, 1, seed=9).nodes
        (1, True)
    """

    task = "graph"

    def __init__(self, network: GraphModel, meaning: Meaning):
        self.network, self.meaning = network.eval(), meaning

    @torch.no_grad()
    def predict(self, graphs: Files | GraphData) -> list[Told]:
        """Return the class of every node or graph, or the chosen node of every graph.

        Args:
            graphs: a folder or files, as `elman.data.graphs.read_graphs` takes them, or what it
                gave; labels in them are not read.

        Raises:
            FileError: what `read_graphs` refuses; types of edges that training had not.
        """
        data, target = self._data(graphs), self.meaning.target
        batch = self.meaning.batch(data, labels=False)
        told: list[Told] = []
        numbers = range(len(data.graphs))
        first = data.first_nodes.tolist()
        at = 0
        for piece in pieces(data, batch, numbers, target):
            logs = log_probabilities(self.network(piece).float(), piece, target)
            best, certain = chosen(logs, piece, target)
            for place, likely in zip(best.tolist(), certain.exp().tolist(), strict=True):
                if target == "node":
                    graph, node = data.graphs[data.graph_of[at]], data.nodes[at]
                    label = self.meaning.classes[place]
                else:
                    graph, node = data.graphs[at], ""
                    label = self.meaning.classes[place] if target == "graph" else ""
                told.append(Told(graph, node, label, likely))
                at += 1
            if target == "selection":
                begin = at - len(best)
                base = first[begin]
                for k, place in enumerate(best.tolist()):
                    told[begin + k] = told[begin + k]._replace(label=data.nodes[base + place])
        return told

    def answers(self, path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the class of each node or graph, or the chosen node of each graph.

        Args:
            path: a folder of tables; labels in it are not read.

        Returns:
            a row of a table (graph and node as far as there are any, label, probability between
            tabs), and the same by name.
        """
        for told in self.predict(path):
            names = [name for name in (told.graph, told.node) if name]
            row = "\t".join([*names, told.label, f"{told.probability:.4f}"])
            yield row, {name: value for name, value in told._asdict().items() if value != ""}

    def evaluate(self, graphs: Files | GraphData) -> dict[str, Any]:
        """Measure the model on labelled graphs.

        Where splits say which nodes or graphs are the test, the figures are of those, and the
        others' accuracy stands beside; else they are of all that have a label.

        Returns:
            "accuracy", "error", "nats_per_label", "labels" (their number), "part", and the
            accuracy of every part, "accuracy_train" and so on.

        Raises:
            FileError: a file cannot be read, or has a label that training had not.
        """
        data, target = self._data(graphs), self.meaning.target
        batch = self.meaning.batch(data)
        parts = dict(data.splits)
        part = "test" if parts.get("test") else "all"
        places = parts.get("test") or labelled(data, batch)
        found: dict[str, Any] = measure(self.network, data, batch, places, target)
        found["part"] = part
        for name, numbers in parts.items():
            judged = measure(self.network, data, batch, numbers, target)
            found[f"accuracy_{name}"] = judged["accuracy"]
        return found

    @staticmethod
    def in_words(metrics: Mapping[str, Any]) -> list[str]:
        """Say what `evaluate` found, in lines."""
        of = "of the test part" if metrics["part"] == "test" else "that there are"
        lines = [f"{metrics['labels']:,} labels {of}: {metrics['accuracy']:.1%} right",
                 f"{metrics['nats_per_label']:.4f} nats a label"]  # fmt: skip
        others = [f"{name.removeprefix('accuracy_')} {value:.1%}" for name, value in metrics.items()
                  if name.startswith("accuracy_")]  # fmt: skip
        return [*lines, *([f"by part: {', '.join(others)}"] if others else [])]

    def _data(self, graphs: Files | GraphData) -> GraphData:
        if isinstance(graphs, GraphData):
            return graphs
        return read_graphs(graphs, target=self.meaning.target)
