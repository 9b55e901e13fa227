"""How well a language model predicts a text: every token once, in parallel streams."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from elman.tasks.lm.network import LanguageModel, begin_anew, detached

STREAMS = 64
WARM = 256  # tokens of context that a stream reads before its first prediction
_LEAST = 512  # predictions a stream; shorter texts get fewer streams
_MOST_LOGITS = 1 << 23


@dataclass(frozen=True)
class Sum:
    """Sum of -ln p over `tokens` predicted tokens."""

    nats: float
    tokens: int


def negative_log_likelihood(
    model: LanguageModel, before: np.ndarray, text: np.ndarray, limit: float | None = None
) -> Sum:
    r"""Return the sum of -ln p(token | what stands before it) over a text.

    The text is cut into up to 64 streams of equal length (the last may be shorter), which are read
    in parallel. Each stream first reads the 256 tokens that stand before it (as many as there are),
    whose predictions are not counted; so every token is counted exactly once, and none without
    context but at the very beginning.

    Args:
        model: in evaluation mode.
        before: ids that precede the text, (tokens,), at least one.
        text: ids to predict, (tokens,).
        limit: fraction of each stream to measure, in (0, 1]; None is all.
    """
    streams = max(1, min(STREAMS, len(text) // _LEAST))
    length = -(-len(text) // streams)
    counted = length if limit is None else max(1, math.ceil(length * limit))
    before = np.asarray(before[-WARM:]).astype(np.int64)
    starts = len(before) + np.arange(streams) * length  # of the first target of each stream
    begin = np.maximum(0, WARM + 1 - starts)  # step at which a stream reads the first token of all
    with torch.inference_mode():
        return _run(model, before, text, starts, WARM + counted, begin)


def _tokens(before: np.ndarray, text: np.ndarray, where: np.ndarray) -> torch.Tensor:
    """The tokens at places of `before` and `text`, one after the other, as int64."""
    found = np.asarray(text[(where - len(before)).clip(0)]).astype(np.int64)
    early = where < len(before)
    found[early] = before[where[early]]
    return torch.from_numpy(found)


def _run(
    model: LanguageModel,
    before: np.ndarray,
    text: np.ndarray,
    starts: np.ndarray,
    time: int,
    begin: np.ndarray,
) -> Sum:
    """Run over `time` steps, of which the first WARM are not counted.

    Stream b predicts the tokens from `starts[b]` on in the steps from WARM on, and begins anew at
    step `begin[b]`. What is held at once is a piece of the text, so that it may be of any length.
    """
    device, streams, whole = model.device, len(starts), len(before) + len(text)
    piece = max(1, min(256, _MOST_LOGITS // (streams * model.tokens)))
    cuts = sorted({0, time, WARM, *begin.tolist(), *range(0, time, piece)})
    states, fresh, nats, tokens = None, None, 0.0, 0
    for a, b in itertools.pairwise(cuts):
        rows = begin == a
        if a > 0 and rows.any():
            fresh = model.fresh(streams) if fresh is None else fresh
            states = begin_anew(states, fresh, torch.from_numpy(rows).to(device))
        where = starts[None, :] + np.arange(a, b)[:, None] - WARM
        there = torch.from_numpy(where < whole).flatten().to(device)
        where = where.clip(1, whole - 1)
        logits, states = model(_tokens(before, text, where - 1).to(device), states)
        states = detached(states)
        if a >= WARM:
            targets = _tokens(before, text, where).to(device)
            loss = functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), reduction="none"
            )
            nats += float(loss[there].double().sum())
            tokens += int(there.sum())
    return Sum(nats, tokens)


def metrics(nats: float, tokens: int, characters: float) -> dict[str, float]:
    """Return the usual measures of a text from its total -ln p.

    Args:
        nats: total.
        tokens: predicted tokens, >= 1.
        characters: characters that the tokens stand for.
    """
    token, char = nats / tokens, nats / characters
    return {
        "nats_per_token": token,
        "bits_per_token": token / math.log(2),
        "nats_per_char": char,
        "bits_per_char": char / math.log(2),
        "perplexity": math.exp(min(token, 700.0)),
        "tokens": tokens,
    }


def notes(tokens: int, stand_ins: int, skipped: int) -> str:
    """Say what makes the figures of a text incomparable with another model's; "" if nothing does.

    Args:
        tokens: that were predicted.
        stand_ins: how many of them were `<unk>`.
        skipped: tokens of the text that were left out.
    """
    said = []
    if stand_ins:
        said.append(
            f"{stand_ins:,} of {tokens:,} tokens ({stand_ins / tokens:.2%}), rare or unseen in "
            f"training, were counted as <unk>, as validation and its Kneser-Ney baseline count "
            f"them; each pays once for all its characters, so per-character figures are not "
            f"comparable with a model that spells them out."
        )
    if skipped:
        said.append(
            f"{skipped:,} of {tokens + skipped:,} tokens were skipped and count nowhere; the "
            f"figures are of the rest, and not comparable with those of the whole text."
        )
    return " ".join(said)
