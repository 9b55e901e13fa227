"""How well the next item is told: recall among the first k, mean reciprocal rank, nats an item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elman.data.batches import in_order, pad
from elman.tasks.intervals import bootstrap
from elman.tasks.next.network import OFFSET, NextItemModel

KS = (1, 5, 10, 20)
# The columns of what a session adds: items judged, of these known ones, hits, 1/rank, nats.
_JUDGED, _KNOWN, _HITS, _MRR, _NATS = 0, 1, 2, 2 + len(KS), 3 + len(KS)
COLUMNS = 4 + len(KS)

_SESSIONS, _TOKENS = 256, 8192  # of a batch that is judged at once
_STEPS = 1024  # steps of long sessions taken at once
_MOST_SCORES = 1 << 23


def adds(ranks: np.ndarray, nats: np.ndarray) -> np.ndarray:
    """Return what judged items add to the sums, (items, sums).

    Args:
        ranks: of the item that came, 1 the first; 0 for one that is not known, which counts as
            missed and has no nats.
        nats: −ln p of it.
    """
    known = ranks > 0
    found = np.zeros((len(ranks), COLUMNS))
    found[:, _JUDGED], found[:, _KNOWN] = 1.0, known
    for column, k in enumerate(KS, _HITS):
        found[:, column] = known & (ranks <= k)
    found[known, _MRR] = 1.0 / ranks[known]
    found[known, _NATS] = nats[known]
    return found


def figures(sums: np.ndarray) -> dict[str, float]:
    """Return the measures of the sums over all sessions."""
    judged, known = max(sums[_JUDGED], 1.0), max(sums[_KNOWN], 1.0)
    recall = {f"recall@{k}": sums[c] / judged for c, k in enumerate(KS, _HITS)}
    nats = sums[_NATS] / known
    found = {**recall, "mrr": sums[_MRR] / judged, "nats_per_item": nats}
    found |= {"bits_per_item": nats / math.log(2), "judged": sums[_JUDGED]}
    return {name: float(value) for name, value in found.items()}


def measured(sums: np.ndarray) -> dict[str, Any]:
    """Return the measures of sessions, (sessions, sums); None for nats where no item is known."""
    found: dict[str, Any] = figures(sums.sum(0))
    if not sums[:, _KNOWN].any():
        found |= {"nats_per_item": None, "bits_per_item": None}
    return found


def intervals(sums: np.ndarray, seed: int = 0) -> dict[str, list[float] | None]:
    """Return the 95 % intervals of the measures, by the bootstrap over sessions.

    Args:
        sums: (sessions, sums).
        seed: of the draws.
    """
    above = {f"recall@{k}": (c, _JUDGED) for c, k in enumerate(KS, _HITS)}
    above |= {"mrr": (_MRR, _JUDGED), "nats_per_item": (_NATS, _KNOWN)}
    found: dict[str, list[float] | None] = {}
    for name, (top, bottom) in above.items():
        ends = bootstrap(sums[:, [top, bottom]], lambda s: s[:, 0] / s[:, 1], seed=seed)
        found[name] = list(ends) if all(map(math.isfinite, ends)) else None
    return found


def gain(ours: np.ndarray, theirs: np.ndarray) -> list[float] | None:
    """Return the 95 % interval of how much larger our mean reciprocal rank is, session by session.

    Args:
        ours, theirs: (sessions, sums), of the same sessions.

    Returns:
        the ends; None where there are fewer than two sessions.
    """
    if len(ours) < 2:
        return None
    both = np.stack([ours[:, _MRR] - theirs[:, _MRR], ours[:, _JUDGED]], 1)
    return list(bootstrap(both, lambda s: s[:, 0] / s[:, 1]))


@torch.no_grad()
def told(network: NextItemModel, sessions: Sequence[np.ndarray]) -> Any:
    """Yield, batch by batch, rows of sessions, places in them, and what was told there.

    Long sessions are read in pieces with the state carried on, so that memory does not grow with
    them.

    Returns:
        an iterator of (session numbers (n,), places (n,), vectors (n, embedding)); every place of
        every session comes once, those of one session in order.
    """
    device = network.bias.device
    lengths = np.array([len(session) for session in sessions])
    for rows in in_order(lengths, size=_SESSIONS, tokens=_TOKENS):
        state, first = None, 0
        while len(rows):
            pieces = [sessions[row][first : first + _STEPS] for row in rows]
            tokens, steps = (part.to(device) for part in pad(pieces))
            out, state = network(tokens, steps, state)
            real = torch.arange(tokens.shape[1], device=device) < steps[:, None]
            where = real.nonzero().cpu().numpy()
            yield rows[where[:, 0]], where[:, 1] + first, out[real]
            first += _STEPS
            going = lengths[rows] > first
            if going.any() and not going.all():
                state = _rows(state, torch.from_numpy(going).to(device))
            rows = rows[going]


def _rows(state: Any, kept: Tensor) -> Any:
    if isinstance(state, tuple):
        return tuple(_rows(part, kept) for part in state)
    return state[:, kept]


def score(network: NextItemModel, sessions: Sequence[np.ndarray]) -> np.ndarray:
    """Judge every item but the first of each session, given all before it.

    Args:
        network: in evaluation mode.
        sessions: numbers of the lexicon, each at least 2 items.

    Returns:
        the sums of each session, (sessions, sums).
    """
    sums = np.zeros((len(sessions), COLUMNS))
    ends = np.array([len(session) - 1 for session in sessions])
    for rows, places, vectors in told(network, sessions):
        inside = places < ends[rows]
        rows, places = rows[inside], places[inside]
        targets = [sessions[row][place + 1] for row, place in zip(rows, places, strict=True)]
        ranks, nats = rank(network, vectors[torch.from_numpy(inside)], np.array(targets, np.int64))
        np.add.at(sums, rows, adds(ranks, nats))
    return sums


@torch.no_grad()
def rank(
    network: NextItemModel, vectors: Tensor, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of each target among all items, and −ln p of it; 0 where it is not known.

    Of items with the same score that with the smaller number, the more frequent, comes first.
    """
    ranks, nats = np.zeros(len(targets), np.int64), np.zeros(len(targets))
    known = np.flatnonzero(targets >= OFFSET)
    for first in range(0, len(known), _MOST_SCORES // network.items + 1):
        some = known[first : first + _MOST_SCORES // network.items + 1]
        scores = network.scores(vectors[torch.from_numpy(some)])
        target = torch.from_numpy(targets[some] - OFFSET).to(scores.device)[:, None]
        own = scores.gather(1, target)
        before = torch.arange(network.items, device=scores.device) < target
        above = (scores > own) | ((scores == own) & before)
        ranks[some] = 1 + above.sum(1).cpu().numpy()
        loss = functional.cross_entropy(scores, target[:, 0], reduction="none")
        nats[some] = loss.double().cpu().numpy()
    return ranks, nats
