"""How near the approximations of the carry come to the exact gradient, on copying and adding.

    python benchmarks/credit_cosine.py [--seeds 3] [--steps 20000] [--out FILE.json]

The protocol is that of online_protocol.py. At every step with a target the gradient of the method
is held beside the exact one of the same network at the same moment: a second walk over the stream
with the exact carry, whose influence lived through the same weights (the exact shadow along the
method's own run). The cosine is that of the gradients of W, U and b as one vector. Every 250 steps
the mean of the last 200 cosines is recorded, and a run's figure is the mean of the last fifth of
the records: for copying the last 6,000 steps or so, for adding (200 targets in all) the whole run.
The public table has these figures over five seeds.

The gradient is the library's own at a window of one step, which is the published one: δᵀM̂_t, with δ
the loss by the state and M̂_t the approximated influence on that same state.

`rflo leak 0.9` is the public program's RFLO, written here from its formula, to see what that detail
does; it is none of the library's methods. With --out, runs that FILE.json holds are not run again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import online_protocol as protocol
import torch
from online_protocol import TASKS, Task, Walk
from torch import Tensor, nn
from torch.nn import functional as F

import elman

PUBLIC = {
    ("copy", "snap1"): 0.700,
    ("adding", "snap1"): 0.606,
    ("copy", "rflo"): 0.343,
    ("adding", "rflo"): 0.581,
    ("copy", "rflo leak 0.9"): 0.343,
    ("adding", "rflo leak 0.9"): 0.581,
    ("copy", "uoro"): 0.040,
    ("adding", "uoro"): 0.105,
}
EVERY = 250
LEAK = "rflo leak 0.9"


class FixedLeak:
    """The public program's RFLO: a trace that decays by 0.9 a step, whatever the network does."""

    def __init__(self, layer: elman.Recurrent, readout: nn.Linear, task: Task):
        self.layer, self.readout, self.task = layer, readout, task

    def step(self, x: Tensor, y: Tensor | None, new: bool) -> Tensor | None:
        """Take the steps of a piece; the gradient of W, U and b where there is a target."""
        W, U, b = (p.detach() for p in self.layer.parameters())
        if new:
            self.h = torch.zeros(x.shape[1], len(b))
            self.trace = torch.zeros(x.shape[1], len(b), x.shape[2] + len(b) + 1)
        for now in x:
            seen = torch.cat((now, self.h, torch.ones(len(now), 1)), 1)
            self.h = torch.tanh(now @ W.T + self.h @ U.T + b)
            self.trace = 0.9 * self.trace + (1 - self.h**2)[:, :, None] * seen[:, None]
        if y is None:
            return None
        h = self.h.clone().requires_grad_()
        (by_state,) = torch.autograd.grad(self.task.loss(self.readout(h), y), h)
        return flat(
            torch.einsum("bi,bij->ij", by_state, self.trace).split([x.shape[2], len(b), 1], 1)
        )


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as one vector."""
    return torch.cat([t.flatten() for t in tensors])


def learn(weights: list[Tensor], gradient: Tensor, rest: list[Tensor]) -> None:
    """Set the gradients of W, U and b from one vector, and those of the others as they are."""
    parts = gradient.split([w.numel() for w in weights[:3]])
    for weight, part in zip(weights, [*parts, *rest[3:]], strict=True):
        weight.grad = part.view(weight.shape)


def run(name: str, method: str, seed: int, steps: int) -> dict:
    """One run: the cosines along it, and what it learnt."""
    task = TASKS[name]
    layer, readout = protocol.network(task, seed)
    leak = FixedLeak(layer, readout, task) if method == LEAK else None
    walk = Walk(layer, readout, task, "rflo" if leak else method)
    shadow = Walk(layer, readout, task, "exact")
    optimiser = torch.optim.Adam(walk.weights, lr=protocol.RATE)
    cosines: list[float] = []
    losses, at, step = [], [], 0
    stream, start = task.stream(torch.Generator().manual_seed(seed)), time.perf_counter()
    while step < steps:
        piece = next(stream)
        step += len(piece.x)
        mine, exact = walk.step(*piece), shadow.step(*piece)
        by_leak = leak.step(*piece) if leak else None
        if mine is None or exact is None:
            continue
        gradient = flat(mine.gradient[:3]) if by_leak is None else by_leak
        true = flat(exact.gradient[:3])
        cosines.append(float(F.cosine_similarity(gradient, true, dim=0)))
        learn(walk.weights, gradient, mine.gradient)
        optimiser.step()
        losses.append(mine.loss)
        at.append(step - 1)
    seconds = time.perf_counter() - start
    tail = protocol.records(cosines, at, steps, EVERY)
    return {
        "task": name,
        "method": method,
        "seed": seed,
        "steps": steps,
        "cosine": statistics.mean(tail[-max(1, len(tail) // 5) :]),
        "cosine of all": statistics.mean(cosines),
        "loss of the last 200 targets": statistics.mean(losses[-200:]),
        "milliseconds a step": 1e3 * seconds / steps,
    }


def report(runs: dict[str, dict]) -> None:
    """Asked beside seen, as benchmarks/RESULTS.md has them."""
    print("\n| task | method | public | seen | each seed |")
    print("|---|---|---|---|---|")
    for (task, method), public in PUBLIC.items():
        each = [r["cosine"] for r in runs.values() if (r["task"], r["method"]) == (task, method)]
        if each:
            seeds = ", ".join(f"{e:.3f}" for e in each)
            print(f"| {task} | {method} | {public:.3f} | {statistics.mean(each):.3f} | {seeds} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument(
        "--tasks", nargs="+", choices=["copy", "adding"], default=["copy", "adding"]
    )
    methods = ["snap1", "rflo", LEAK, "uoro"]
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.steps < 2 * EVERY:
        parser.error(f"--steps is {given.steps}; the first record needs at least {2 * EVERY}")
    torch.set_num_threads(given.threads)
    runs = protocol.remembered(given.out)
    for seed in range(given.seeds):
        for task in given.tasks:
            for method in given.methods:
                name = f"{task}, {method}, seed {seed}, {given.steps} steps"
                if name not in runs:
                    runs[name] = run(task, method, seed, given.steps)
                    protocol.remember(given.out, runs)
                cosine, time_a_step = runs[name]["cosine"], runs[name]["milliseconds a step"]
                print(f"{name}: {cosine:.3f}, {time_a_step:.2f} ms", flush=True)
    report(runs)


if __name__ == "__main__":
    main()
