"""A task small enough for the tests of training.

The text is a random walk over 12 letters, so there is something to learn; the model is torch.nn's
LSTM with dropout, so the random state matters.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from elman.errors import ElmanError
from elman.tasks.base import Carry, Task, TaskOptions
from elman.training import train

LETTERS = 12
STREAMS, WINDOW = 4, 8


class ToyOptions(TaskOptions):
    """Options of the toy."""

    hidden: int = 12
    dropout: float = 0.2


class ToyModel(nn.Module):
    """Embedding, LSTM, dropout, output layer."""

    def __init__(self, hidden: int, dropout: float):
        super().__init__()
        self.embed = nn.Embedding(LETTERS, 6)
        self.lstm = nn.LSTM(6, hidden)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, LETTERS)

    def forward(self, x: Tensor, state: Carry) -> tuple[Tensor, Carry]:
        out, state = self.lstm(self.embed(x), state)
        return self.head(self.drop(out)), state


class Toy(Task):
    """Predict the next letter of a random walk."""

    name: ClassVar[str] = "toy"
    metric: ClassVar[str] = "nats_per_char"

    def __init__(
        self,
        seed: int = 0,
        length: int = 600,
        recommended: dict[str, Any] | None = None,
        pause: float = 0.0,
    ):
        self.config, self.seed, self.pause = ToyOptions(), seed, pause
        random = np.random.default_rng(7)
        walk = np.cumsum(random.choice([-1, 1, 2], length)) % LETTERS
        self.train = torch.from_numpy(walk[: length * 9 // 10])
        self.valid = torch.from_numpy(walk[length * 9 // 10 :])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = ToyModel(self.config.hidden, self.config.dropout)
        self.recommended = recommended or {}
        self.fingerprint = "toy"
        self.steps_per_epoch = len(self.train) // (STREAMS * WINDOW)
        self.validations = 0
        self.blow_up_at: int | None = None

    def describe(self) -> list[str]:
        return ["toy: a random walk"]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        if self.pause:
            time.sleep(self.pause)
        starts = torch.arange(STREAMS) * (len(self.train) // STREAMS) + step * WINDOW
        at = (starts[None] + torch.arange(WINDOW + 1)[:, None]) % len(self.train)
        window = self.train[at]
        return window[:-1], window[1:]

    def start(self, step: int) -> Carry | None:
        if step % self.steps_per_epoch:
            return None
        like = self.model.head.weight
        zero = torch.zeros(1, STREAMS, self.config.hidden, dtype=like.dtype, device=like.device)
        return zero, zero.clone()

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        x, y = batch
        out, state = self.model(x, carry)
        loss = nn.functional.cross_entropy(out.flatten(0, 1).float(), y.flatten())
        if self.blow_up_at is not None and self.blow_up_at == self.steps_seen:
            loss = loss * torch.tensor(float("inf"))
        self.steps_seen += 1
        return loss, tuple(part.detach() for part in state), y.numel()

    steps_seen = 0

    def validate(self, limit: float | None = None) -> dict[str, float]:
        self.validations += 1
        assert not self.model.training
        text = self.valid if limit is None else self.valid[: max(3, int(limit * len(self.valid)))]
        out, _ = self.model(text[:-1, None], None)
        value = float(nn.functional.cross_entropy(out[:, 0].float(), text[1:]))
        return {"nats_per_char": value, "nats_per_token": value}

    def sample(self) -> str | None:
        torch.rand(3)  # draws on purpose: training must not notice
        return "abc"

    def baseline(self) -> dict[str, Any]:
        return {"name": "uniform", "nats_per_char": float(np.log(LETTERS)), "words": "uniform"}

    def verdict(self, metrics: Any) -> str:
        ahead = metrics["nats_per_char"] < np.log(LETTERS)
        return "the network is ahead" if ahead else "use the baseline"

    def metadata(self) -> dict[str, Any]:
        return {"hidden": self.config.hidden, "vocabulary": LETTERS}


def run(folder: Path, pause: float, options: dict[str, Any]) -> None:
    """Train in this process and leave it with the exit code of the command line."""
    try:
        train(Toy(pause=pause), run=folder, **options)
    except ElmanError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
