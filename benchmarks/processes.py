"""Two processes against one on the same global batch: the first hundred losses of every task.

    python benchmarks/processes.py --data DIR [--only lm classify ...] [--processes 2]

DIR is the shared data folder. Each task is trained for 100 steps by one process and by several
under torchrun (gloo), with the same seed, small networks, and without dropout, whose masks differ
by process; everything else is the default. The figure is the largest relative difference of a
step's loss. A row that reads more than 1e-5 is marked.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

STEPS = 100
PLAIN: dict[str, Any] = {
    "steps": STEPS,
    "seed": 0,
    "device": "cpu",
    "precision": "32",
    "validate_every": STEPS,
    "quiet": True,
    "reports": (),
}


def lines(source: Path, target: Path, count: int) -> Path:
    """The first lines of a file."""
    with open(source, encoding="utf-8", newline="\n") as text, open(target, "w") as out:
        out.writelines(islice(text, count))
    return target


def sentences(source: Path, target: Path, count: int) -> Path:
    """The first sentences of a CoNLL-U file."""
    parts = source.read_text(encoding="utf-8").split("\n\n")[:count]
    target.write_text("\n\n".join(parts) + "\n\n", encoding="utf-8")
    return target


def names(source: Path, target: Path, count: int) -> Path:
    """So many names of each nationality."""
    with open(target, "w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(["name", "nationality"])
        for file in sorted(source.glob("*.txt")):
            found = file.read_text(encoding="utf-8").split()
            table.writerows([name, file.stem] for name in found[:count])
    return target


Make = Callable[[Path, Path], Path]
DEMO = Path(__file__).parent.parent / "elman" / "demo_data"
SMALL = {"hidden": 32}
# Each task: how its file is made of the data, and its options.
CASES: dict[str, tuple[Make, dict[str, Any]]] = {
    "lm": (
        lambda data, place: lines(data / "tiny-shakespeare/input.txt", place / "a.txt", 8000),
        {**SMALL, "window": 32, "streams": 9},
    ),
    "classify": (
        lambda data, place: lines(data / "trec/train.tsv", place / "a.tsv", 1500),
        {**SMALL, "label": "1", "text": "3", "batch": 17},
    ),
    "tag": (
        lambda data, place: sentences(data / "ud-ewt/dev.conllu", place / "a.conllu", 400),
        {**SMALL, "label": "upos", "sentences": 9},
    ),
    "translate": (
        lambda data, place: lines(data / "eng-fra/dev.tsv", place / "a.tsv", 1000),
        {**SMALL, "embedding": 16, "pairs": 9, "feed_back": 0.0},
    ),
    "forecast": (
        lambda data, place: lines(data / "ett/ETTh1.csv", place / "a.csv", 2000),
        {**SMALL, "target": "OT", "horizon": 6},
    ),
    "caption": (
        lambda data, place: names(data / "names", place / "a.csv", 60),
        {**SMALL, "text": "name", "label": "nationality", "batch": 9},
    ),
    "next": (lambda data, place: DEMO / "outfits.csv", {**SMALL, "batch": 9}),
    "tree": (
        lambda data, place: lines(data / "sst/dev.txt", place / "a.txt", 300),
        {**SMALL, "trees": 9},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--worker", nargs=3, metavar=("TASK", "FILE", "RUN"), help="for itself")
    given = parser.parse_args()
    if given.worker:
        work(*given.worker)
        return
    print(f"| task | processes | first {STEPS} losses: largest relative difference | seconds |")
    print("|---|---|---|---|")
    worst = 0.0
    for task in given.only:
        worst = max(worst, row(task, given.data, given.processes))
    sys.exit(worst > 1e-5)


def row(task: str, data: Path, processes: int) -> float:
    """Train a task both ways and print how far its losses are apart."""
    with tempfile.TemporaryDirectory() as place:
        file = CASES[task][0](data, Path(place))
        seconds, losses = [], []
        for count in (1, processes):
            run, began = Path(place) / f"run-{count}", time.monotonic()
            launch(count, data, task, file, run)
            seconds.append(time.monotonic() - began)
            text = (run / "metrics.jsonl").read_text(encoding="utf-8")
            rows = [json.loads(line) for line in text.splitlines()]
            losses.append([r["loss"] for r in rows if r["kind"] == "train"])
    if not len(losses[0]) == len(losses[1]) == STEPS:
        sys.exit(f"{task}: {len(losses[0])} and {len(losses[1])} losses; expected {STEPS}")
    gap = max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(*losses, strict=True))
    mark = "" if gap <= 1e-5 else " **more than 1e-5**"
    times = f"{seconds[0]:.0f}, {seconds[1]:.0f}"
    print(f"| {task} | {processes} | {gap:.1e}{mark} | {times} |", flush=True)
    return gap


def launch(count: int, data: Path, task: str, file: Path, run: Path) -> None:
    """Start the processes and wait for them."""
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={count}", "--"]
    own = [__file__, "--data", str(data), "--worker", task, str(file), str(run)]
    command = [sys.executable, *(torchrun if count > 1 else []), *own]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{task}: exit code {done.returncode}\n{done.stderr[-3000:]}")


def work(task: str, file: str, run: str) -> None:
    """Train in this process, or beside others, as torchrun says."""
    import elman
    from elman import tasks

    dropout = {n: 0.0 for n in tasks.options_of(task).model_fields if n.startswith("dropout")}
    elman.train(task, Path(file), run=run, **PLAIN, **dropout, **CASES[task][1])


if __name__ == "__main__":
    main()
