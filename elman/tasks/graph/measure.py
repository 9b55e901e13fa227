"""How well a model tells the labels of graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from elman.data.graphs import GraphData
from elman.tasks.graph.meaning import Batch, chosen_graphs
from elman.tasks.graph.network import GraphModel, chosen, log_probabilities, nats

_JUDGED = 200  # graphs judged at once


def pieces(data: GraphData, batch: Batch, graphs: Sequence[int], target: str) -> Iterator[Batch]:
    """Some graphs in pieces that are judged at once; a single graph is one piece."""
    if data.single:
        yield batch
        return
    for first in range(0, len(graphs), _JUDGED):
        yield chosen_graphs(data, batch, graphs[first : first + _JUDGED], target)


def only(batch: Batch, places: Sequence[int]) -> Batch:
    """A batch of one graph in which only the labels of some nodes are asked for."""
    targets = torch.full_like(batch.targets, -1)
    wanted = torch.as_tensor(places, dtype=torch.long)
    targets[wanted] = batch.targets[wanted]
    return batch._replace(targets=targets)


def labelled(data: GraphData, batch: Batch) -> list[int]:
    """The nodes of one graph, or those of many graphs, that have a label."""
    known = batch.targets >= 0
    if len(known) != len(data.graphs) and not data.single:
        known = torch.bincount(batch.graph[known], minlength=len(data.graphs)) > 0
    return known.nonzero()[:, 0].tolist()


@torch.no_grad()
def measure(
    network: GraphModel, data: GraphData, batch: Batch, places: Sequence[int], target: str
) -> dict[str, float]:
    """The share of labels that are right, of some nodes of one graph or of some of many graphs."""
    if data.single:
        batch = only(batch, places)
    right, seen, total = 0, 0, 0.0
    for piece in pieces(data, batch, places, target):
        piece = Batch(*(t.to(next(network.parameters()).device) for t in piece))
        logs = log_probabilities(network(piece).float(), piece, target)
        told = chosen(logs, piece, target)[0]
        known = piece.targets >= 0
        right += int((told == piece.targets)[known].sum())
        cost, count = nats(logs, piece, target)
        total, seen = total + float(cost), seen + count
    return figures(right, seen, total)


def figures(right: int, seen: int, total: float) -> dict[str, float]:
    """Accuracy, its complement, and nats a label."""
    accuracy = right / max(seen, 1)
    return {
        "accuracy": accuracy,
        "error": 1 - accuracy,
        "nats_per_label": total / max(seen, 1),
        "labels": seen,
    }
