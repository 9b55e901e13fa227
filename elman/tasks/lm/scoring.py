"""The probability of sentences under a language model, and which is likelier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from elman.data import Vocabulary
from elman.errors import InputError
from elman.tasks.lm.network import LanguageModel

_MOST_LOGITS = 1 << 22
_BATCH = 64


@dataclass(frozen=True)
class Score:
    r"""The probability of one sentence.

    Attributes:
        sentence: as it was given.
        tokens: its tokens, the end mark "\n" last if it was counted; unseen ones as `<unk>`.
        per_token: ln p of each token, given those before it.
        log_prob: their sum, ln P.
        perplexity: exp(-ln P / tokens).
        unseen: tokens of the sentence that training did not hold.
    """

    sentence: str
    tokens: tuple[str, ...]
    per_token: tuple[float, ...]
    unseen: tuple[str, ...] = ()

    @property
    def log_prob(self) -> float:
        return math.fsum(self.per_token)

    @property
    def perplexity(self) -> float:
        return math.exp(min(-self.log_prob / max(1, len(self.tokens)), 700.0))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "sentence": self.sentence,
            "log_prob": self.log_prob,
            "perplexity": self.perplexity,
            "tokens": list(self.tokens),
            "per_token": list(self.per_token),
            "unseen": list(self.unseen),
        }


def score(
    network: LanguageModel,
    vocabulary: Vocabulary,
    sentences: Sequence[str],
    known: Sequence[np.ndarray],
    unseen: Sequence[tuple[str, ...]],
    finished: bool,
) -> list[Score]:
    """Score sentences in batches of similar length; arguments as in `TrainedLM.score`."""
    end = [vocabulary.end] if finished else []
    targets = [np.concatenate([ids, end]).astype(np.int64) for ids in known]
    result: list[Score | None] = [None] * len(targets)
    order = sorted(range(len(targets)), key=lambda i: len(targets[i]))
    for a in range(0, len(order), _BATCH):
        rows = order[a : a + _BATCH]
        values = _log_probabilities(network, [targets[i] for i in rows], vocabulary.end)
        for i, per_token in zip(rows, values, strict=True):
            tokens = tuple(vocabulary.tokens[t] for t in targets[i])
            result[i] = Score(sentences[i], tokens, tuple(per_token.tolist()), unseen[i])
    return [item for item in result if item is not None]


@torch.inference_mode()
def _log_probabilities(
    network: LanguageModel, targets: list[np.ndarray], end: int
) -> list[np.ndarray]:
    longest = max(len(row) for row in targets)
    if longest == 0:
        return [np.zeros(0) for _ in targets]
    text = np.full((longest + 1, len(targets)), end, dtype=np.int64)
    for b, row in enumerate(targets):
        text[1 : len(row) + 1, b] = row
    tokens = torch.from_numpy(text).to(network.device)
    piece = max(1, _MOST_LOGITS // (len(targets) * network.tokens))
    states, values = None, []
    for a in range(0, longest, piece):
        b = min(a + piece, longest)
        logits, states = network(tokens[a:b], states)
        # In double precision, so that the probabilities of a step sum to one to 1e-15.
        log_p = logits.double().log_softmax(-1)
        values.append(log_p.gather(-1, tokens[a + 1 : b + 1, :, None])[..., 0].cpu().numpy())
    table = np.concatenate(values)
    return [table[: len(row), b] for b, row in enumerate(targets)]


@dataclass(frozen=True)
class Comparison:
    """Which of several sentences is likelier.

    Attributes:
        order: indices of the sentences, the likeliest first.
        log_factors: for each sentence, ln of how many times likelier the likeliest is.
        words: the same in words, one line for each sentence but the likeliest.
    """

    order: tuple[int, ...]
    log_factors: tuple[float, ...]
    words: tuple[str, ...]


def compare(scores: Sequence[Score]) -> Comparison:
    """Say which sentence is likelier, and by what factor.

    Raises:
        InputError: fewer than two scores.

    Example:
        >>> pear = Score("a pear", ("a", "pear"), (-1.0, -2.0))
        >>> pair = Score("a pair", ("a", "pair"), (-1.0, -4.5))
        >>> compare([pair, pear]).words
        ("'a pear' is 12.2 times as likely as 'a pair'.",)
    """
    if len(scores) < 2:
        raise InputError(f"compare: {len(scores)} sentence; at least two are needed.")
    order = sorted(range(len(scores)), key=lambda i: -scores[i].log_prob)
    best = scores[order[0]]
    logs = tuple(best.log_prob - item.log_prob for item in scores)
    words = tuple(_times(best.sentence, scores[i].sentence, logs[i]) for i in order[1:])
    return Comparison(tuple(order), logs, words)


def _times(best: str, other: str, log_factor: float) -> str:
    if log_factor < 5e-4:
        return f"{best!r} and {other!r} are equally likely."
    if log_factor < math.log(1e4):
        factor = f"{math.exp(log_factor):.3g}"
        factor = factor if "e" not in factor else f"{math.exp(log_factor):.0f}"
    else:
        factor = f"10^{log_factor / math.log(10):.1f}"
    return f"{best!r} is {factor} times as likely as {other!r}."
