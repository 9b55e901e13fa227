"""A copy task over 40 steps, learnt in windows of 8: without the carry, and with the exact one.

    python benchmarks/copy_carry.py [--cell simple|lru] [--updates N] [--seeds 3] [--random-input]
                                    [--out FILE.json] [--figure FILE.png]

Four of 8 symbols are shown, then 40 blanks, then four cues, under which the symbols are asked for:
48 steps, six windows of 8. The network is one layer of 64 units with a linear readout: the simple
network with orthogonal U, or the linear recurrent unit. 16 rows, Adam, the norm of the gradient
clipped at 1, one update a sequence. All that is asked for lies in the last window, 40 steps after
what it asks about, so a gradient that is cut at the window's edge knows nothing of it: chance is
1/8. Between the updates the weights stand still, so the exact carry yields the gradient of the
whole sequence. The whole sequence without windows is run beside, and must end like it.

The weights of the input start at 0. Where they start at random, the linear recurrent unit solves
the task in windows without a carry too: its slow units hold what came in, whatever they learn, and
the readout alone learns to decode it (`--random-input` shows it).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import elman
from elman.data.synthetic import copying
from elman.plots import style

SYMBOLS, KEPT, DELAY, WINDOW, ROWS, UNITS = 8, 4, 40, 8, 16, 64
PIECE = 25  # updates whose mean is a point of the curve
CELLS = {"simple": (2e-3, 1000), "lru": (3e-3, 400)}  # Adam's rate, and updates
METHODS = {
    "window 8, no carry": elman.BPTT(window=WINDOW),
    "window 8, exact carry": elman.BPTT(window=WINDOW, carry="exact"),
    "the whole sequence": elman.BPTT(),
}


def run(cell: str, method: str, seed: int, updates: int, zero: bool) -> dict:
    """Train once; the share of symbols that are right, and the nats, at each update."""
    torch.manual_seed(seed)
    layer = elman.Recurrent(cell, SYMBOLS + 2, UNITS, learning=METHODS[method])
    with torch.no_grad():
        if cell == "simple":
            nn.init.orthogonal_(layer.U_l0)
            layer.b_l0.zero_()
        for weight in layer.parameters():
            if zero and weight.shape == (UNITS, SYMBOLS + 2):
                weight.zero_()
    readout = nn.Linear(UNITS, SYMBOLS)
    parameters = [*layer.parameters(), *readout.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=CELLS[cell][0])
    generator, right, nats = torch.Generator().manual_seed(seed), [], []
    start = time.perf_counter()
    for _ in range(updates):
        tokens, targets = copying(ROWS, SYMBOLS, KEPT, DELAY, generator)
        out, _ = layer(F.one_hot(tokens, SYMBOLS + 2).float())
        scores = readout(out[-KEPT:])
        loss = F.cross_entropy(scores.flatten(0, 1), targets[-KEPT:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        nats.append(loss.item())
        right.append((scores.argmax(-1) == targets[-KEPT:]).float().mean().item())
    last = right[-max(1, updates // 10) :]
    return {
        "right": sum(last) / len(last),
        "curve": [statistics.mean(right[i : i + PIECE]) for i in range(0, updates, PIECE)],
        "nats": sum(nats[-len(last) :]) / len(last),
        "seconds": time.perf_counter() - start,
    }


def draw(runs: dict[str, dict], path: Path) -> None:
    """The share of right symbols along the updates, one line a run."""
    title = f"{KEPT} of {SYMBOLS} symbols, asked for {DELAY} blanks later"
    figure, axes = style.over_steps("", title)
    looks = zip(METHODS, (style.VERMILLION, style.BLUE, style.GREY), ("-", "-", ":"), strict=True)
    for method, colour, line in looks:
        for name, done in runs.items():
            if name.startswith(method):
                at = [PIECE * (n + 0.5) for n in range(len(done["curve"]))]
                label = method if name.endswith("seed 0") else None
                axes.plot(at, done["curve"], color=colour, linestyle=line, label=label)
    axes.axhline(1 / SYMBOLS, color="black", linewidth=0.8, linestyle="--", label="chance")
    axes.set(ylabel="symbols right", ylim=(0, 1.02))
    axes.legend(loc="center right", framealpha=0.9, edgecolor="none")
    style.save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=list(CELLS), default="simple")
    parser.add_argument("--updates", type=int, help="the cell's own number if not given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random-input", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    runs, updates = {}, given.updates or CELLS[given.cell][1]
    print("| learning | seed | symbols right | nats (chance log 8 = 2.08) | seconds |")
    print("|---|---|---|---|---|")
    for seed in range(given.seeds):
        for method in METHODS:
            done = runs[f"{method}, seed {seed}"] = run(
                given.cell, method, seed, updates, not given.random_input
            )
            print(
                f"| {method} | {seed} | {done['right']:.3f} | {done['nats']:.3f} | "
                f"{done['seconds']:.0f} |",
                flush=True,
            )
    print(f"Chance: {1 / SYMBOLS:.3f} right, {math.log(SYMBOLS):.3f} nats.")
    if given.out is not None:
        given.out.write_text(json.dumps(runs, indent=1) + "\n")
    if given.figure is not None:
        draw(runs, given.figure)


if __name__ == "__main__":
    main()
