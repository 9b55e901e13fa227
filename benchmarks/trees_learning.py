"""The sentiment treebank: a Tree-LSTM beside a sequential LSTM of equal width.

    python benchmarks/trees_learning.py --data DIR [--seeds 3] [--epochs 5] [--only tree spans]

DIR holds the trees of Socher et al. 2013 as train.txt, dev.txt and test.txt. Five classes, word
vectors that begin at random, one thread. The Tree-LSTM is what `elman train tree` trains with its
defaults. The LSTM reads each labelled span from left to right and its last state tells the label,
as in Tai et al. 2015, section 4.1; spans that begin at one word share its steps. Both see the same
labels in the same batches, with the same dropout, optimiser and schedule; of each run the weights
with the best root accuracy on dev.txt are judged, once, on test.txt.

Source of the data: Socher et al. 2013, "Recursive deep models for semantic compositionality over a
sentiment treebank". Tai, Socher & Manning 2015, tables 2 and 3, for published figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import elman
from elman.tasks import build
from elman.tasks.tree import TreeLabelling
from elman.tasks.tree.measure import measure


class SpanModel(nn.Module):
    """An LSTM over the words of each node's span; in and out as `TreeModel`."""

    def __init__(self, words: int, classes: int, hidden: int, embedding: int,
                 dropout_input: float, dropout_output: float):  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(words, embedding)
        self.lstm = elman.LSTM(embedding, hidden)
        self.output = nn.Linear(hidden, classes)
        self.dropout_input, self.dropout_output = dropout_input, dropout_output
        with torch.no_grad():
            self.embedding.weight.normal_(std=embedding**-0.5)
            self.output.bias.zero_()

    def forward(self, words: Tensor, parents: Tensor) -> Tensor:
        """Return the logits of every node, (nodes, classes)."""
        starts, lengths = spans(words.numpy(), parents.numpy())
        leaves = words[words >= 0]
        rows, row_of = np.unique(starts, return_inverse=True)
        most = np.zeros(len(rows), np.int64)
        np.maximum.at(most, row_of, lengths)
        places = torch.from_numpy(rows + np.arange(most.max())[:, None])
        places = places.clamp(max=len(leaves) - 1)
        x = functional.dropout(self.embedding(leaves), self.dropout_input, self.training)
        out, _ = self.lstm(x[places], lengths=torch.from_numpy(most))
        h = out[torch.from_numpy(lengths - 1), torch.from_numpy(row_of)]
        return self.output(functional.dropout(h, self.dropout_output, self.training))


def spans(words: np.ndarray, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first leaf of each node and the number of its leaves; nodes are numbered as they open."""
    leaf = (words >= 0).astype(np.int64)
    starts, lengths = np.cumsum(leaf) - leaf, leaf.copy()
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] >= 0:
            lengths[parents[node]] += lengths[node]
    return starts, lengths


class SpanLabelling(TreeLabelling):
    """The task of trees with the sequential network in the place of the tree's."""

    name = "spans"


def task_of(network: str, data: Path, seed: int) -> TreeLabelling:
    """The task, with the network that is asked for."""
    options = {"valid_file": str(data / "dev.txt")}
    task = build("tree", [data / "train.txt"], options, seed=seed)
    assert isinstance(task, TreeLabelling)
    if network == "tree":
        return task
    own, meaning = task.options, task.corpus.meaning
    torch.manual_seed(seed)
    model = SpanModel(
        len(meaning.words), len(meaning.classes), own.hidden or 1, own.embedding or 1,
        own.dropout_input or 0.0, own.dropout_output or 0.0,
    )  # fmt: skip
    return SpanLabelling(
        task.corpus,
        own,
        task.cell,
        model,
        recommended=task.recommended,
        seed=seed,  # type: ignore[arg-type]
    )


def trained(network: str, data: Path, seed: int, epochs: float, run: Path) -> dict[str, float]:
    """Train one network with one seed and judge it."""
    began, busy = time.monotonic(), time.process_time()
    task = task_of(network, data, seed)
    result = elman.train(
        task, run=run, epochs=epochs, seed=seed, quiet=True, overwrite=True, reports=[],
        validate_every=max(1, task.steps_per_epoch // 2),
    )  # fmt: skip
    trees = elman.data.trees.read_trees(data / "test.txt")
    found = measure(task.network.eval(), task.corpus.meaning, trees, "test.txt")
    return {
        "network": network, "seed": seed, "dev_root": result.metrics["root_accuracy"],
        "dev_node": result.metrics["node_accuracy"], "test_root": found["root_accuracy"],
        "test_node": found["node_accuracy"], "minutes": (time.monotonic() - began) / 60,
        "processor_minutes": (time.process_time() - busy) / 60,
    }  # fmt: skip


def main() -> None:
    """Train, and print each run and the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--only", nargs="+", choices=("tree", "spans"), default=["tree", "spans"])
    parser.add_argument("--runs", type=Path, help="where to leave the runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as aside:
        place = given.runs or Path(aside)
        for network in given.only:
            rows = []
            for seed in given.seeds:
                run = place / f"{network}-{seed}"
                rows.append(trained(network, given.data, seed, given.epochs, run))
                print(json.dumps(rows[-1]), flush=True)
            for key in ("test_root", "test_node"):
                values = [100 * row[key] for row in rows]
                print(f"{network} {key}: mean {statistics.mean(values):.1f} of "
                      f"{', '.join(f'{v:.1f}' for v in values)}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
