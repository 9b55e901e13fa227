"""The adding problem over 200 steps: gated networks, the IRNN, and a tanh network side by side.

    python benchmarks/adding_problem.py [--networks lstm gru irnn tanh] [--seeds 0 1 2]
        [--minutes 10] [--out adding.json]

Each network reads 200 numbers, two of them marked, and is asked for the sum at the end; whoever
always answers 1 has the mean squared error 0.167. Adam, batches of 50, gradients clipped to norm 1,
a learning rate that stands for a while and then falls along a cosine to zero. A run ends after its
updates or its minutes. The error is that on 2,000 sequences never learned from, after the last
update. Of the tanh network `elman.diagnose.advice` then says why it learned nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import elman
from elman.data.synthetic import adding
from elman.diagnose import advice
from elman.layers.base import RecurrentLayer
from elman.layers.initialise import chrono_

STEPS, BATCH, HELD_OUT = 200, 50, 2000
BASELINE = 0.167
ASKED = 0.005


@dataclass(frozen=True)
class Setting:
    """A network and how it is trained.

    Attributes:
        make: the recurrent layer, of 2 inputs.
        words: what it is.
        rate: learning rate at the start.
        updates: batches learned from.
        stands: part of the updates before the rate begins to fall.
        solved: whether the error is asked to be below `ASKED` (else it is asked not to be).
    """

    make: Callable[[], RecurrentLayer]
    words: str
    rate: float
    updates: int
    stands: float = 0.0
    solved: bool = True


SETTINGS = {
    "lstm": Setting(
        lambda: chrono_(elman.LSTM(2, 64), STEPS), "LSTM, 64 units, chrono 200", 5e-3, 2000
    ),
    "gru": Setting(lambda: elman.GRU(2, 64), "GRU, 64 units", 5e-3, 2000),
    "irnn": Setting(
        lambda: elman.Recurrent("irnn", 2, 64), "IRNN, 64 units", 1e-3, 15000, stands=0.7
    ),
    "tanh": Setting(
        lambda: elman.RNN(2, 64), "tanh network, 64 units", 1e-3, 6000, stands=0.7, solved=False
    ),
}


class Adder(nn.Module):
    """A recurrent layer and a linear readout of its last step."""

    def __init__(self, layer: RecurrentLayer):
        super().__init__()
        self.layer = layer
        self.readout = nn.Linear(layer.output_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.layer(x)[0][-1])


@dataclass
class Seen:
    """What came of one run."""

    network: str
    words: str
    seed: int
    error: float
    updates: int
    minutes: float
    processor_minutes: float
    below_at: int | None
    asked: str
    reached: bool
    advice: str = ""


def learn(name: str, seed: int, minutes: float) -> tuple[Adder, Seen]:
    """Train one network and measure it."""
    setting = SETTINGS[name]
    torch.manual_seed(seed)
    model = Adder(setting.make())
    draw = torch.Generator().manual_seed(seed + 1)
    held_out = adding(HELD_OUT, STEPS, torch.Generator().manual_seed(1_000_003))
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.rate)
    began, spent, below_at, update = time.monotonic(), time.process_time(), None, 0
    for update in range(1, setting.updates + 1):
        for group in optimizer.param_groups:
            group["lr"] = setting.rate * factor((update - 1) / setting.updates, setting.stands)
        x, y = adding(BATCH, STEPS, draw)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if below_at is None and update % 100 == 0 and error_on(model, held_out) < ASKED:
            below_at = update
        if time.monotonic() - began > 60 * minutes:
            break
    error = error_on(model, held_out)
    took, busy = (time.monotonic() - began) / 60, (time.process_time() - spent) / 60
    reached = (error < ASKED) == setting.solved
    asked = f"{'<' if setting.solved else 'not <'} {ASKED}"
    words = setting.words
    return model, Seen(name, words, seed, error, update, took, busy, below_at, asked, reached)


def factor(progress: float, stands: float) -> float:
    """What the learning rate is multiplied by."""
    falling = max(0.0, progress - stands) / (1 - stands)
    return 0.5 * (1 + math.cos(math.pi * falling))


def advice_of(model: Adder, seed: int) -> str:
    """What the inspection says of the error's way back, were the sum asked at every step."""
    x, y = adding(8, STEPS, torch.Generator().manual_seed(seed + 2))

    def loss(out: Tensor, target: Tensor) -> Tensor:
        return (model.readout(out) - target).square().sum(-1)

    found = advice(model.layer, x, [y] * STEPS, loss)
    return "\n".join(line for place in found for line in place.lines())


@torch.no_grad()
def error_on(model: Adder, data: tuple[Tensor, Tensor]) -> float:
    """The mean squared error."""
    return float(nn.functional.mse_loss(model(data[0]), data[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of each run, at most")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    rows = []
    print(f"adding, {STEPS} steps; always 1: {BASELINE}; {torch.get_num_threads()} threads")
    print(
        "| network | asked | seen | seed | updates | below 0.005 at | minutes | of the processor |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.networks:
        for seed in arguments.seeds:
            model, seen = learn(name, seed, arguments.minutes)
            if not SETTINGS[name].solved:
                seen.advice = advice_of(model, seed)
            rows.append(seen)
            print(
                f"| {seen.words} | {seen.asked} | {seen.error:.5f} | {seed} | {seen.updates} "
                f"| {seen.below_at or '–'} | {seen.minutes:.1f} | {seen.processor_minutes:.1f} |",
                flush=True,
            )
    for row in rows:
        if row.advice:
            print(f"{row.words}, seed {row.seed}, after {row.updates} updates:\n{row.advice}")
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
