"""Figures of graphs: Cora with its public split, and two puzzles of bAbI from 50 examples.

    nice -n 10 python benchmarks/graphs.py --data DIR cora babi

DIR holds the folder `cora` with features.tsv, edges.tsv, labels.tsv and splits.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from elman.data.graph_tasks import babi, rings, with_splits
from elman.data.graphs import GraphData, read_graphs
from elman.tasks.graph import build
from elman.training import train

BABI = {4: {"rounds": 1, "hidden": 8}, 15: {"rounds": 3, "hidden": 8}}


def run(files: list[str], data: GraphData, options: dict, training: dict, seed: int) -> dict:
    """Train one model and judge it on the test part."""
    with tempfile.TemporaryDirectory() as folder:
        task = build(files, options, seed=seed)
        result = train(
            task, run=Path(folder) / "run", quiet=True, seed=seed, reports=(), **training
        )
        found = result.model.evaluate(data)
        return {**found, "baseline": result.baseline["accuracy"], "best": result.steps}


def cora(folder: Path, seeds: int, options: dict, training: dict) -> None:
    """Test accuracy of the graph convolution on the public split."""
    data = read_graphs(folder)
    accuracies = []
    for seed in range(seeds):
        began = time.monotonic()
        found = run([str(folder)], data, options, training, seed)
        accuracies.append(100 * found["accuracy"])
        print(
            f"cora seed {seed}: test {accuracies[-1]:.1f}, validation "
            f"{100 * found['accuracy_val']:.1f}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    spread = statistics.stdev(accuracies) if seeds > 1 else 0.0
    print(f"cora: {statistics.mean(accuracies):.2f} ± {spread:.2f} ({seeds} seeds)", flush=True)


def puzzles(task: int, seeds: int, data_seed: int) -> None:
    """Test accuracy on 1,000 graphs from 50 examples, 50 more to validate on."""
    from elman.data.graphs import write_graphs

    data = with_splits(babi(task, 1100, seed=data_seed), 50, 50)
    accuracies = []
    with tempfile.TemporaryDirectory() as folder:
        write_graphs(data, folder)
        for seed in range(seeds):
            found = run([folder], data, BABI[task], {"lr": 0.02, "epochs": 80}, seed)
            accuracies.append(100 * found["accuracy"])
            print(
                f"bAbI {task} (data {data_seed}) seed {seed}: test {accuracies[-1]:.1f}, without "
                f"edges {100 * found['baseline']:.1f}",
                flush=True,
            )
    print(f"bAbI {task}: mean {statistics.mean(accuracies):.2f} ({seeds} seeds)", flush=True)


def molecules(seeds: int) -> None:
    """Test accuracy of the ring of six on 500 graphs, from 1,000."""
    from elman.data.graphs import write_graphs

    data = with_splits(rings(1700), 1000, 200)
    with tempfile.TemporaryDirectory() as folder:
        write_graphs(data, folder)
        for seed in range(seeds):
            options = {"cell": "message_passing", "rounds": 6, "hidden": 32, "graphs": 20}
            found = run([folder], data, options, {"epochs": 40}, seed)
            print(
                f"ring of six, seed {seed}: test {100 * found['accuracy']:.1f}, without edges "
                f"{100 * found['baseline']:.1f}",
                flush=True,
            )


def main() -> None:
    """Print the figures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="+", choices=("cora", "babi", "rings"))
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    if "babi" in given.what:
        for task in BABI:
            puzzles(task, given.seeds, 0)
    if "rings" in given.what:
        molecules(min(given.seeds, 3))
    if "cora" in given.what:
        if given.data is None:
            parser.error("cora needs --data DIR")
        cora(given.data / "cora", given.seeds, {}, {})


if __name__ == "__main__":
    main()
