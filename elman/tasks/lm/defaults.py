"""What is chosen where the user named nothing: from the data and the planned time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from elman.tasks.base import Budget

# Characters that the standard network (one LSTM layer of 512) learns in a minute on two CPU cores.
_TOKENS_PER_MINUTE = 2_200_000


@dataclass(frozen=True)
class Choice:
    """Chosen options of the model and recommended options of training, by their names."""

    model: dict[str, Any]
    training: dict[str, Any]
    reason: str


def choose(
    train_tokens: int,
    vocabulary: int,
    level: Literal["char", "word"],
    budget: Budget,
    *,
    fast: bool = True,
) -> Choice:
    """Choose what suits a text and a budget.

    Args:
        train_tokens: tokens of the training part.
        vocabulary: size of the vocabulary.
        level: "char" or "word".
        budget: the planned training.
        fast: whether the cell runs on torch's own kernel; others take about twice the time.
    """
    words = level == "word"
    window, streams = _shape(train_tokens, vocabulary)
    minutes = _minutes(train_tokens, window * streams, budget, fast)
    passes = minutes * _TOKENS_PER_MINUTE / max(1, train_tokens)
    hidden, layers = _size(train_tokens, minutes)
    dropout_input, dropout_output, decay = _regularisation(passes)
    if words:
        dropout_input = dropout_output = max(0.3, dropout_output)
    model = {
        "hidden": hidden,
        "layers": layers,
        "embedding": 256 if words else 64 if hidden >= 512 else 32,
        "tied": words,
        "residual": layers > 1,
        "dropout_input": dropout_input,
        "dropout_between": dropout_output if layers > 1 else 0.0,
        "dropout_output": dropout_output,
        "weight_dropout": 0.0,
        "output_norm": False,
        "window": window,
        "streams": streams,
    }
    training = {
        "optimizer": "muon",
        "lr": 3e-3 if words else 8e-3,
        "muon_lr": 0.05,
        "weight_decay": decay,
        "schedule": "cosine",
        "warmup": 0.02,
        "clip_norm": 1.0,
        "ema": 0.03,
    }
    reason = f"about {passes:.1f} passes over {train_tokens:,} tokens are planned"
    return Choice(model, training, reason)


def _shape(train_tokens: int, vocabulary: int) -> tuple[int, int]:
    """Window and streams: 64 by 64, less for short texts and for large vocabularies."""
    window = streams = 64
    while streams > 16 and window * streams * vocabulary > 40_000_000:
        streams //= 2
    while window > 16 and window * streams * vocabulary > 40_000_000:
        window //= 2
    # A pass should hold at least sixteen steps, so that a short text is not a single batch.
    while streams > 4 and 16 * window * streams > train_tokens:
        streams //= 2
    while window > 8 and 16 * window * streams > train_tokens:
        window //= 2
    return window, streams


def _minutes(train_tokens: int, tokens_per_step: int, budget: Budget, fast: bool) -> float:
    """Return the planned training in minutes of the standard network."""
    plans = [] if budget.minutes is None else [budget.minutes * (1.0 if fast else 0.5)]
    if budget.steps is not None:
        plans.append(budget.steps * tokens_per_step / _TOKENS_PER_MINUTE)
    if budget.epochs is not None:
        plans.append(budget.epochs * train_tokens / _TOKENS_PER_MINUTE)
    return min(plans, default=3.0)


def _size(train_tokens: int, minutes: float) -> tuple[int, int]:
    """Units and layers: as many as can be trained in the time, and as the text can bear."""
    by_time = 512 if minutes >= 0.5 else 256 if minutes >= 0.1 else 128
    by_text = 512 if train_tokens >= 200_000 else 256 if train_tokens >= 20_000 else 128
    return min(by_time, by_text), 1


def _regularisation(passes: float) -> tuple[float, float, float]:
    """Dropout before and after the recurrent layers, and weight decay.

    What is read once needs none; what is read often is otherwise learned by heart.
    """
    if passes < 3:
        return 0.0, 0.0, 0.1
    if passes < 12:
        return 0.1, 0.2, 0.05
    if passes < 25:
        return 0.1, 0.3, 0.1
    return 0.2, 0.5, 0.3
