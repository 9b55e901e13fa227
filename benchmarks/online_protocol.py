"""Online learning, one step at a time, as sonaradarcn/sketched-rtrl publishes it: the facts of it.

Read from the repository's README, run_m3.py, skrtrl/{tasks,cells,train,baselines}.py and the result
files (the first round, results/m3 and results/ts). What follows is in our words and our code.

The network: h_t = tanh(W x_t + U h_{t-1} + b) with 64 units; W and U start uniform in ±1/8, b at 0;
above it one linear layer as torch starts it. 8 streams side by side, the loss is their mean. Adam
with its defaults and a rate of 0.001, one update at every step that has a target; float32, no
clipping, no decay. At the start of an episode state and influence are 0.

The tasks: copying 5 of 8 symbols over 40 blanks (one-hot of 10, 50 steps an episode, 5 targets,
cross-entropy); adding over 100 steps (one target, at the end, squared error). The series: the next
value of Mackey–Glass or of x of Lorenz, of which each row is brought to mean 0 and variance 1 over
its whole length (20,129 values), the first 64 left out; an episode is 200 steps. Mackey–Glass is
integrated by Euler's rule with a step of 1, so that the delay of 17 is one of 16 in effect, from a
random history in [1.2, 1.4); Lorenz by Euler's rule with a step of 0.01, every second value kept,
from (1, 1, 1) and a tenth of normal noise, after 100 steps. `--series rk4` takes
`elman.data.synthetic` instead.

Public RFLO is e ← 0.9 e + ∂h_t/∂θ|immediate, although this network has no leak of 0.9 (nor any).
Murray 2019 has the leak of the network there, and so has `carry="rflo"`: here it is 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import elman
from elman.data.synthetic import adding, copying, lorenz, mackey_glass

UNITS, ROWS, RATE = 64, 8, 1e-3
LENGTH, SKIPPED, EPISODE = 20_129, 64, 200
METHODS = ("exact", "snap1", "rflo", "uoro")


class Piece(NamedTuple):
    """Some steps (time, batch, features), the target of the last, whether an episode begins.

    Without a target nothing is asked for in any of them, and no weight changes.
    """

    x: Tensor
    y: Tensor | None
    new: bool


@dataclass(frozen=True)
class Task:
    """A stream of pieces and its loss."""

    inputs: int
    outputs: int
    stream: Callable[[Generator], Iterator[Piece]]
    loss: Callable[[Tensor, Tensor], Tensor]


def copying_stream(generator: Generator) -> Iterator[Piece]:
    """Episodes of the copying problem without end."""
    while True:
        tokens, targets = copying(ROWS, 8, 5, 40, generator)
        x = F.one_hot(tokens, 10).float()
        yield Piece(x[:45], None, True)
        for t in range(45, 50):
            yield Piece(x[t : t + 1], targets[t], False)


def adding_stream(generator: Generator) -> Iterator[Piece]:
    """Episodes of the adding problem without end."""
    while True:
        x, y = adding(ROWS, 100, generator)
        yield Piece(x[:99], None, True)
        yield Piece(x[99:], y, False)


def series_stream(series: Tensor) -> Iterator[Piece]:
    """The next value of a normalised series (time, batch, 1), in episodes."""
    series = ((series - series.mean(0)) / series.std(0)).float()
    for n, t in enumerate(range(SKIPPED, len(series) - 1)):
        yield Piece(series[t : t + 1], series[t + 1], n % EPISODE == 0)


def mackey_glass_euler(generator: Generator) -> Tensor:
    """The public stream: Euler's rule, see above."""
    past = (1.2 + 0.2 * torch.rand(18, ROWS, generator=generator)).double().numpy()
    values = list(past)
    for _ in range(LENGTH):
        x, delayed = values[-1], values[-17]
        values.append(x + 0.2 * delayed / (1 + delayed**10) - 0.1 * x)
    return torch.from_numpy(np.stack(values[18:])).unsqueeze(-1)


def lorenz_euler(generator: Generator) -> Tensor:
    """The public stream: Euler's rule, see above; x alone."""
    state = (1 + 0.1 * torch.randn(3, ROWS, generator=generator)).double().numpy()
    values = []
    for _ in range(100 + 2 * LENGTH):
        x, y, z = state
        state = state + 0.01 * np.stack((10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z))
        values.append(state[0])
    return torch.from_numpy(np.stack(values[100::2])).unsqueeze(-1)


SERIES = {
    ("mackey_glass", "euler"): mackey_glass_euler,
    ("mackey_glass", "rk4"): lambda g: mackey_glass(LENGTH, batch=ROWS, generator=g),
    ("lorenz", "euler"): lorenz_euler,
    ("lorenz", "rk4"): lambda g: lorenz(LENGTH, batch=ROWS, generator=g)[..., :1],
}
TASKS = {
    "copy": Task(10, 8, copying_stream, F.cross_entropy),
    "adding": Task(2, 1, adding_stream, F.mse_loss),
} | {
    f"{name} {how}": Task(1, 1, lambda g, make=make: series_stream(make(g)), F.mse_loss)
    for (name, how), make in SERIES.items()
}


def network(task: Task, seed: int) -> tuple[elman.Recurrent, nn.Linear]:
    """The network of the protocol; the same weights for each method of one seed."""
    torch.manual_seed(seed)
    layer = elman.Recurrent("simple", task.inputs, UNITS)
    bound = UNITS**-0.5
    with torch.no_grad():
        layer.W_l0.uniform_(-bound, bound)
        layer.U_l0.uniform_(-bound, bound)
        layer.b_l0.zero_()
    return layer, nn.Linear(UNITS, task.outputs)


class Found(NamedTuple):
    """A loss, its gradient by weight, and its gradient by the layer's output (batch, units)."""

    loss: float
    gradient: list[Tensor]
    by_output: Tensor


class Walk:
    """A layer on a stream, its state and its influence carried from step to step.

    Steps in which nothing is asked for go through the layer as one window, the others one by one.
    As the weights stand still between two targets, that is the same for the carries that draw no
    random signs (to rounding), and a fifth of the time.

    Args:
        layer: whose weights learn.
        readout: what stands above it.
        task: whose loss is differentiated.
        carry: the method, see `elman.BPTT`.
    """

    def __init__(self, layer: elman.Recurrent, readout: nn.Linear, task: Task, carry: str):
        window = 1 if carry == "uoro" else None
        self.layer = elman.Recurrent(
            "simple", task.inputs, UNITS, learning=elman.BPTT(window=window, carry=carry)
        )
        for name, weight in layer.named_parameters():
            setattr(self.layer, name, weight)  # the same tensors, not copies
        self.readout, self.task, self.state = readout, task, None
        self.weights = [*layer.parameters(), *readout.parameters()]

    def step(self, x: Tensor, y: Tensor | None, new: bool) -> Found | None:
        """Take the steps of a piece; what was found where there is a target."""
        # With gradients in any case: the influence moves on although nothing is asked for.
        out, self.state = self.layer(x, None if new else self.state)
        if y is None:
            return None
        loss = self.task.loss(self.readout(out[-1]), y)
        gradient = torch.autograd.grad(loss, [*self.weights, out])
        return Found(loss.item(), list(gradient[:-1]), gradient[-1][-1])


def records(values: list[float], at: list[int], steps: int, every: int) -> list[float]:
    """Every so many steps, the mean of the last 200 values that there are by then."""
    kept, place = [], 0
    for step in range(0, steps, every):
        while place < len(at) and at[place] <= step:
            place += 1
        if place:
            last = values[max(0, place - 200) : place]
            kept.append(sum(last) / len(last))
    return kept


def remembered(path: Path | None) -> dict[str, dict]:
    """The runs that an earlier call has written, by name."""
    return json.loads(path.read_text()) if path is not None and path.exists() else {}


def remember(path: Path | None, runs: dict[str, dict]) -> None:
    """Write the runs so far, so that a call that was broken off goes on."""
    if path is not None:
        path.write_text(json.dumps(runs, indent=1) + "\n")
