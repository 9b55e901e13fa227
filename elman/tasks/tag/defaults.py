"""What is chosen for a model that tags where nothing was said: sizes, dropout, learning."""

from __future__ import annotations

from typing import Any

from elman.tasks.base import Budget
from elman.tasks.tag.corpus import Corpus
from elman.tasks.tag.options import TagOptions


def choose(corpus: Corpus, options: TagOptions) -> TagOptions:
    """Return the options with nothing left open."""
    words, spans = bool(corpus.words), corpus.labels.spans
    dropout = options.dropout
    chosen = {
        "scheme": corpus.labels.scheme,
        "inner_scheme": corpus.labels.inner_scheme,
        "crf": spans,
        "cell": "lstm",
        "hidden": 150,
        "layers": 1,
        "embedding": 100,
        "characters": 50 if words else 0,
        "character_embedding": 32,
        "affixes": 20 if words else 0,
        "dropout_input": dropout if dropout is not None else 0.5 if words else 0.2,
        "dropout_between": dropout if dropout is not None else 0.3,
        "dropout_output": dropout if dropout is not None else 0.5,
        "sentences": 32,
        "tokens": 4000,
        "longest": 1000,
        "min_count": 2,
        "unknown_rate": 0.25,
    }
    given = options.model_dump()
    fresh = {k: v for k, v in chosen.items() if given[k] is None or k in ("scheme",)}
    return options.model_copy(update=fresh)


def learning(corpus: Corpus, options: TagOptions, budget: Budget | None) -> dict[str, Any]:
    """Return the training options that are recommended."""
    return {
        "optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.05, "schedule": "cosine",
        "warmup": 0.02, "clip_norm": 1.0, "ema": 0.05, "precision": "32",
    }  # fmt: skip
