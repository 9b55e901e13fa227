"""Online prediction of chaotic series: the normalised error with the exact carry and with SnAp-1.

    python benchmarks/online_chaos.py [--seeds 10] [--steps 15000] [--series euler|rk4] [--out FILE]

The protocol is that of online_protocol.py: the network predicts the next value, then learns from
it, at every step. The error of a step is the mean over the 8 rows; as each row has variance 1, it
is the normalised one. Every 500 steps the mean of the last 200 errors is recorded (a whole episode,
with its beginning from state 0), and a run's figure is the mean of the last five records; the table
has the mean and the spread over the seeds. With --out, runs that FILE holds are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import online_protocol as protocol
import torch
from online_protocol import METHODS, TASKS, Walk

PUBLIC = {
    ("mackey_glass", "exact"): 0.0180,
    ("mackey_glass", "snap1"): 0.0050,
    ("lorenz", "exact"): 0.0051,
    ("lorenz", "snap1"): 0.0024,
}
EVERY = 500


def run(series: str, how: str, carry: str, seed: int, steps: int) -> dict:
    """One run along one stream."""
    task = TASKS[f"{series} {how}"]
    walk = Walk(*protocol.network(task, seed), task, carry)
    optimiser = torch.optim.Adam(walk.weights, lr=protocol.RATE)
    errors, persistence, start = [], [], time.perf_counter()
    stream = task.stream(torch.Generator().manual_seed(seed))
    for x, y, new in itertools.islice(stream, steps):
        found = walk.step(x, y, new)
        if found is None or y is None:
            continue
        errors.append(found.loss)
        persistence.append(float(task.loss(x[0], y)))
        for weight, gradient in zip(walk.weights, found.gradient, strict=True):
            weight.grad = gradient
        optimiser.step()
    seconds = time.perf_counter() - start
    last = protocol.records(errors, list(range(steps)), steps, EVERY)[-5:]
    return {
        "series": series,
        "how": how,
        "carry": carry,
        "seed": seed,
        "steps": steps,
        "error": sum(last) / len(last),
        "error of the last third": statistics.mean(errors[-(steps // 3) :]),
        "persistence": statistics.mean(persistence),
        "milliseconds a step": 1e3 * seconds / steps,
    }


def report(runs: dict[str, dict], how: str) -> None:
    """Asked beside seen, as benchmarks/RESULTS.md has them."""
    print(
        "\n| series | carry | public | at most | seen | spread | median | last third | persistence "
        "| seeds | ms a step |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for (series, carry), public in PUBLIC.items():
        rows = [
            r for r in runs.values() if (r["series"], r["carry"], r["how"]) == (series, carry, how)
        ]
        if not rows:
            continue
        each = [r["error"] for r in rows]
        third = statistics.mean(r["error of the last third"] for r in rows)
        persistence = statistics.mean(r["persistence"] for r in rows)
        speed = statistics.median(r["milliseconds a step"] for r in rows)
        print(
            f"| {series} | {carry} | {public:.4f} | {1.5 * public:.4f} | "
            f"{statistics.mean(each):.4f} | {statistics.pstdev(each):.4f} | "
            f"{statistics.median(each):.4f} | {third:.4f} | {persistence:.4f} | {len(each)} | "
            f"{speed:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--series", choices=["euler", "rk4"], default="euler")
    parser.add_argument("--carry", nargs="+", choices=METHODS, default=["exact", "snap1"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    runs = protocol.remembered(given.out)
    for seed in range(given.seeds):
        for series in ("mackey_glass", "lorenz"):
            for carry in given.carry:
                name = f"{series}, {given.series}, {carry}, seed {seed}, {given.steps} steps"
                if name not in runs:
                    runs[name] = run(series, given.series, carry, seed, given.steps)
                    protocol.remember(given.out, runs)
                print(f"{name}: error {runs[name]['error']:.4f}", flush=True)
    report(runs, given.series)


if __name__ == "__main__":
    main()
