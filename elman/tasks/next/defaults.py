"""What is chosen where the user named nothing: sizes, dropout and training, from the data."""

from __future__ import annotations

import math
from typing import Any

from elman.tasks.base import Budget

TOKENS = 4096  # of a batch, padding included
_MANY = 2000  # items
_MOST_SCORES = 1 << 25  # numbers in the scores of one batch
_LEARNING = {
    "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "schedule": "cosine", "warmup": 0.05,
    "clip_norm": 1.0, "ema": 0.05, "precision": "32",
}  # fmt: skip


def choose(events: int, items: int, sessions: int) -> dict[str, Any]:
    """Choose the options of the model that suit so much data.

    Args:
        events: items to be told in the training part.
        items: distinct ones.
        sessions: pieces of sessions to train on.
    """
    hidden = 64 if events < 10_000 else 128 if events < 100_000 else 256
    strong = events < 1_000_000
    return {
        "hidden": hidden,
        "layers": 1,
        "embedding": min(hidden, max(16, 8 * math.ceil(items / 8))),
        "dropout_input": 0.1,
        "dropout_output": 0.5 if strong else 0.25,
        "batch": max(
            1, min(16 if events < 20_000 else 32 if events < 100_000 else 64, sessions // 8)
        ),
        "window": 128,
    }


def tokens_of_a_batch(items: int) -> int:
    """Return how many places a batch may have, so that the scores of all items fit."""
    return max(256, min(TOKENS, _MOST_SCORES // max(items, 1)))


def training(steps_per_epoch: int, items: int, budget: Budget) -> dict[str, Any]:
    """Return what is recommended for training; few data need many passes and bear no more."""
    found: dict[str, Any] = dict(_LEARNING)
    if items > _MANY:
        # Most of the time goes into the scores: on 15,000 lemmas half of it in all, at equal loss.
        found["precision"] = "auto"
    if budget.steps is None and budget.epochs is None:
        found["epochs"] = float(min(60, max(10, math.ceil(1500 / steps_per_epoch))))
    return found
