"""What is chosen where the user named nothing: from the data and the planned time.

The rules were found on real text (tiny-shakespeare whole and cut to 20,000 characters, as
characters and as words) on two cores, one change at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from elman.tasks.base import Budget

_SPEED = 1.65e11  # floating-point operations a second and thread, of a whole training step
_MOST_THREADS = 8  # small recurrent networks gain little from more
_SPEED_GPU = 1e13
_SLOWER = 0.5  # speed of cells without a kernel of torch's, against those with one
_LARGE = 1000  # a vocabulary beyond this is treated as one of words
_TOKENS_A_WEIGHT = 5.0  # read over the whole training
_MOST_WEIGHTS_UNTIMED = 4e6
_MINUTES = 5.0  # if no budget is given


@dataclass(frozen=True)
class Choice:
    """Chosen options of the model and recommended options of training, by their names."""

    model: dict[str, Any]
    training: dict[str, Any]
    reason: str


@dataclass(frozen=True)
class _Plan:
    """What a budget buys: weights that can be trained well, tokens read, minutes at usual speed."""

    weights: float
    operations: float | None
    tokens: float | None
    minutes: float


def choose(
    train_tokens: int,
    vocabulary: int,
    level: Literal["char", "word"],
    budget: Budget,
    *,
    fast: bool = True,
) -> Choice:
    r"""Choose what suits a text and a budget.

    A step costs about 6 operations for each weight and token. With P weights and D tokens read
    in all, the best use of a given time was found near D = 5 P; so
    :math:`P = \sqrt{\text{operations} / 30}`, within what the text can bear (4 weights a token).
    Regularisation grows with the number of passes over the text.

    Args:
        train_tokens: tokens of the training part.
        vocabulary: size of the vocabulary.
        level: "char" or "word".
        budget: the planned training.
        fast: whether the cell runs on torch's own kernel.
    """
    large = level == "word" or vocabulary > _LARGE
    embedding = 256 if large else 64 if train_tokens >= 100_000 else 32
    plan = _plan(train_tokens, budget, fast)
    layers, hidden = _size(plan, train_tokens, vocabulary, embedding, large)
    weights = _weights(layers, hidden, embedding, vocabulary, tied=large)
    read = plan.tokens if plan.operations is None else plan.operations / (6 * weights)
    passes = (read or 0.0) / train_tokens
    most = 45.0 if train_tokens < 200_000 else 40.0
    enough = passes > most and budget.steps is None and budget.epochs is None
    passes = min(passes, most) if enough else passes
    planned = math.inf if budget.steps is not None else passes * train_tokens
    window, streams = _batch(train_tokens, planned, layers, large)
    if budget.steps is not None:
        passes = min(passes, budget.steps * window * streams / train_tokens)
    model = {
        "hidden": hidden,
        "layers": layers,
        "embedding": embedding,
        "tied": large,
        "residual": False,
        "output_norm": False,
        "window": window,
        "streams": streams,
        **_dropout(passes, layers, large),
    }
    training: dict[str, Any] = {
        "optimizer": "muon",
        "lr": 3e-3 if large else 8e-3,
        "muon_lr": 0.06 if passes < 4 else 0.05,
        "weight_decay": 0.1 if passes < 20 else 0.2,
        "schedule": "cosine",
        "warmup": 0.02,
        "clip_norm": 1.0,
        "ema": 0.03,
    }
    reason = f"about {passes:.2g} passes over {train_tokens:,} tokens"
    if enough:
        training["epochs"] = most
        reason += "; more would not help a text of this length, so the run ends there"
    return Choice(model, training, reason)


def _plan(train_tokens: int, budget: Budget, fast: bool) -> _Plan:
    """Turn a budget into what can be trained; without minutes, keep to a moderate size."""
    tokens = []
    if budget.epochs is not None:
        tokens.append(budget.epochs * train_tokens)
    if budget.steps is not None:
        tokens.append(budget.steps * 4096.0)
    minutes = budget.minutes
    if minutes is None and not tokens:
        minutes = _MINUTES
    usual = 120 * _SPEED  # operations of a minute on two threads
    if minutes is None:
        read = min(tokens)
        weights = min(read / _TOKENS_A_WEIGHT, _MOST_WEIGHTS_UNTIMED)
        return _Plan(weights, None, read, 6 * weights * read / usual)
    operations = 60 * minutes * _speed() * (1.0 if fast else _SLOWER)
    weights = math.sqrt(operations / (6 * _TOKENS_A_WEIGHT))
    if tokens:
        weights = min(weights, min(tokens) / _TOKENS_A_WEIGHT)
    return _Plan(weights, operations, None, operations / usual)


def _speed() -> float:
    if torch.cuda.is_available():
        return _SPEED_GPU
    return _SPEED * min(torch.get_num_threads(), _MOST_THREADS)


def _size(
    plan: _Plan, train_tokens: int, vocabulary: int, embedding: int, large: bool
) -> tuple[int, int]:
    """Layers and units: solve 4 (2 layers - 1) h² + (4 embedding + outputs) h = weights."""
    if large:
        units = 256 if plan.minutes < 2 else 384 if plan.minutes < 10 else 512
        return (1 if plan.minutes < 10 else 2), min(units, _rounded(train_tokens / 100))
    weights = min(plan.weights, max(0.4e6, 4.0 * train_tokens))
    layers = 2 if weights > 2.2e6 else 1
    a, b = 4 * (2 * layers - 1), 4 * embedding + vocabulary
    return layers, _rounded((math.sqrt(b * b + 4 * a * weights) - b) / (2 * a))


def _rounded(units: float) -> int:
    return int(min(max(round(units / 64) * 64, 128), 1536))


def _weights(layers: int, hidden: int, embedding: int, vocabulary: int, tied: bool) -> int:
    recurrent = 4 * (2 * layers - 1) * hidden**2 + 4 * embedding * hidden
    outputs = (vocabulary + hidden) * embedding if tied else vocabulary * hidden
    return recurrent + outputs


def _batch(train_tokens: int, read: float, layers: int, large: bool) -> tuple[int, int]:
    """Window and streams: kernels like many rows, but a text needs some hundreds of steps."""
    window = 35 if large else 64
    while window > 8 and train_tokens < 16 * window:
        window //= 2
    streams = 32 if large else 64 if layers == 1 else 128
    while streams > 4 and train_tokens / streams < 8 * window:
        streams //= 2
    while streams > 8 and read / (streams * window) < 400:
        streams //= 2
    return window, streams


def _dropout(passes: float, layers: int, large: bool) -> dict[str, float]:
    """Nothing for what is read once; the more often it is read, the more."""
    strength = min(1.0, math.log2(max(passes, 1.0)) / 5)
    strength = max(strength, 0.4) if large else strength
    return {
        "dropout_input": round((0.4 if large else 0.2) * strength, 2),
        "dropout_between": round(0.4 * strength, 2) if layers > 1 else 0.0,
        "dropout_output": round(0.5 * strength, 2),
        "weight_dropout": round(0.3 * max(0.0, strength - 0.8) / 0.2, 2),
    }


_EXACT = {"hidden": 64, "layers": 1, "embedding": 16, "tied": False, "streams": 8}
# The influence moves on at every token, and not once a window.
_EXACT_BY_TOKEN = {"hidden": 32, "layers": 1, "embedding": 16, "tied": False, "streams": 4}
_APPROXIMATE = {"hidden": 256, "layers": 1, "embedding": 64, "tied": False, "streams": 16}


def under_carry(choice: Choice, carry: str, window: int | None) -> Choice:
    """Change a choice into one for learning with a carry.

    The exact influence has hidden · weights entries for each stream, the approximations one or two
    a weight; so networks are small and streams few. Weights that are dropped anew in every window
    have no influence that could be carried.

    Args:
        choice: for learning without one.
        carry: "exact", "snap1", "rflo" or "uoro".
        window: tokens of a window as named, or None; with 1 the weights change at every token.
    """
    exact = _EXACT_BY_TOKEN if window == 1 else _EXACT
    sizes: dict[str, Any] = dict(exact if carry == "exact" else _APPROXIMATE)
    sizes["hidden"] = min(sizes["hidden"], choice.model["hidden"])
    sizes["streams"] = min(sizes["streams"], choice.model["streams"])
    model = choice.model | sizes | {"weight_dropout": 0.0, "dropout_between": 0.0}
    rate = 1e-3 if window == 1 else 3e-3
    training = choice.training | {"optimizer": "adamw", "lr": rate, "precision": "32"}
    training = {name: value for name, value in training.items() if name != "muon_lr"}
    reason = f"{choice.reason}; a small network and few streams, because of what is carried"
    return Choice(model, training, reason)
