"""Writing with a model of captions: the likeliest texts, and drawn ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elman.data.lexicon import PADDING, UNKNOWN
from elman.layers.search import Hypothesis, beam_search
from elman.tasks.caption.network import CaptionModel

_BANNED = [PADDING, UNKNOWN]


@torch.no_grad()
def likeliest(
    model: CaptionModel, u: Tensor, *, end: int, width: int, most: int, length_penalty: float
) -> list[list[Hypothesis]]:
    """Return the likeliest texts for each row of u, the best first, found by beam search."""

    def step(last: Tensor, state: Any) -> tuple[Tensor, Any]:
        here, before = state
        scores, after, _ = model.decoder.step(last, before, None, here)
        logs = scores.float().log_softmax(1)
        logs[:, _BANNED] = float("-inf")
        return logs, (here, after)

    start = torch.full((len(u),), end, device=u.device)
    return beam_search(
        step, (u, model.decoder.begin(u)), start=start, end=end, width=width, most=most,
        length_penalty=length_penalty,
    )  # fmt: skip


@torch.no_grad()
def drawn(
    model: CaptionModel,
    u: Tensor,
    *,
    end: int,
    most: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> list[list[int]]:
    """Draw a text for each row of u, token by token.

    Args:
        model: in evaluation mode.
        u: (rows, condition).
        end: number of the end.
        most: tokens of a text, at most.
        temperature: by which scores are divided, >= 0; 0 takes the likeliest.
        top_p: draw from the fewest tokens that have this share of the probability, in (0, 1].
        seed: of the draws.
    """
    draw = torch.Generator().manual_seed(seed)
    state = model.decoder.begin(u)
    last = torch.full((len(u),), end, device=u.device)
    texts: list[list[int]] = [[] for _ in range(len(u))]
    going = torch.ones(len(u), dtype=torch.bool)
    for _ in range(most):
        scores, state, _ = model.decoder.step(last, state, None, u)
        scores = scores.double().cpu()
        scores[:, _BANNED] = float("-inf")
        if temperature == 0:
            chosen = scores.argmax(1)
        else:
            p = _nucleus((scores / temperature).softmax(1), top_p)
            chosen = torch.multinomial(p, 1, generator=draw)[:, 0]
        going &= chosen != end
        if not going.any():
            break
        for row in going.nonzero()[:, 0].tolist():
            texts[row].append(int(chosen[row]))
        last = chosen.to(u.device)
    return texts


def _nucleus(p: Tensor, share: float) -> Tensor:
    """Set to 0 what is beyond the fewest tokens that have the share.

    Source: Holtzman et al. 2020, "The curious case of neural text degeneration".
    """
    if share >= 1:
        return p
    falling, places = p.sort(dim=1, descending=True)
    before = falling.cumsum(1) - falling
    falling = falling.masked_fill(before >= share, 0.0)
    return torch.zeros_like(p).scatter_(1, places, falling)
