"""How well a model labels trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional

from elman.data.trees import LabelledTree
from elman.tasks.tree.corpus import Meaning
from elman.tasks.tree.network import Batch, TreeModel

_JUDGED = 100  # trees judged at once


def parts(trees: Sequence[LabelledTree]) -> Iterator[Sequence[LabelledTree]]:
    """Trees in pieces that are judged at once."""
    for first in range(0, len(trees), _JUDGED):
        yield trees[first : first + _JUDGED]


@torch.no_grad()
def measure(
    network: TreeModel, meaning: Meaning, trees: Sequence[LabelledTree], where: str = ""
) -> dict[str, float]:
    """The share of labels that are right, at the roots and at all labelled nodes."""
    right, seen, roots_right, roots, nats = 0, 0, 0, 0, 0.0
    for part in parts(trees):
        batch: Batch = meaning.batch(part, where)
        logits = network(batch.words, batch.parents).float()
        told = logits.argmax(1)
        known, root = batch.labels >= 0, batch.parents < 0
        good = (told == batch.labels) & known
        right, seen = right + int(good.sum()), seen + int(known.sum())
        roots_right += int((good & root).sum())
        roots += int((known & root).sum())
        nats += float(
            functional.cross_entropy(logits, batch.labels, ignore_index=-1, reduction="sum")
        )
    accuracy = roots_right / max(roots, 1)
    return {
        "root_accuracy": accuracy,
        "root_error": 1 - accuracy,
        "node_accuracy": right / max(seen, 1),
        "nats_per_node": nats / max(seen, 1),
        "trees": len(trees),
        "labelled_roots": roots,
        "labelled_nodes": seen,
    }
