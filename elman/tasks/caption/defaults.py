"""What is chosen where the user named nothing: sizes, dropout and training, from the data."""

from __future__ import annotations

import math
from typing import Any

from elman.tasks.base import Budget

TOKENS = 8192  # of a batch, padding included
_LEARNING = {
    "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "schedule": "cosine", "warmup": 0.05,
    "clip_norm": 1.0, "ema": 0.05, "precision": "32", "recurrent_init": "orthogonal",
}  # fmt: skip


def choose(texts: int, tokens: int, vocabulary: int) -> dict[str, Any]:
    """Choose the options of the model that suit so much data.

    Args:
        texts: of the training part.
        tokens: of them all.
        vocabulary: distinct tokens.
    """
    hidden = 64 if tokens < 10_000 else 128 if tokens < 50_000 else 256
    return {
        "hidden": hidden,
        "layers": 1,
        "embedding": 64 if vocabulary < 1000 else 128,
        "condition": 64,
        "dropout": 0.2,
        "batch": max(1, min(64, max(8, texts // 64), texts // 4)),
    }


def training(cell: str, steps_per_epoch: int, budget: Budget) -> dict[str, Any]:
    """Return what is recommended for training; few data need many passes and bear no more."""
    found: dict[str, Any] = dict(_LEARNING)
    if cell == "lstm":
        found["forget_bias"] = 1.0
    if budget.steps is None and budget.epochs is None:
        found["epochs"] = float(min(100, max(10, math.ceil(4000 / steps_per_epoch))))
    return found
