"""Translating: search over a trained network, many sources at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import in_order, pad
from elman.data.lexicon import PADDING, UNKNOWN
from elman.layers.decoder import Memory
from elman.layers.search import Hypothesis, beam_search
from elman.tasks.translate.corpus import sources
from elman.tasks.translate.network import TranslationModel
from elman.tasks.translate.units import END, START

_PAIRS, _TOKENS = 64, 8192  # of a batch of the search


def search(
    model: TranslationModel,
    numbers: Sequence[np.ndarray],
    *,
    beam: int,
    length_penalty: float,
    ratio: float,
    longest: int,
) -> list[list[Hypothesis]]:
    """Return hypotheses of every source, the best first.

    Args:
        model: in evaluation mode.
        numbers: units of the sources.
        beam, length_penalty: see `elman.layers.search.beam_search`.
        ratio: units of a target to one of its source, at most; a few more are always allowed.
        longest: units of a target, at most.
    """
    found: list[list[Hypothesis]] = [[]] * len(numbers)
    lengths = np.array([len(n) + 1 for n in numbers])
    for rows in in_order(lengths, size=max(1, _PAIRS // beam * 4), tokens=_TOKENS):
        padded, real = sources([numbers[r] for r in rows])
        told = _search(model, padded, real, beam, length_penalty, ratio, longest)
        for row, hypotheses in zip(rows.tolist(), told, strict=True):
            found[row] = hypotheses
    return found


@torch.no_grad()
def _search(
    model: TranslationModel,
    padded: Tensor,
    lengths: Tensor,
    beam: int,
    length_penalty: float,
    ratio: float,
    longest: int,
) -> list[list[Hypothesis]]:
    place = model.vectors.weight.device
    padded, lengths = padded.to(place), lengths.to(place)
    state, memory = model.encode(padded, lengths)
    memory_of = _Memories(memory)
    never = [PADDING, START] + ([UNKNOWN] if memory is None else [])

    def step(last: Tensor, state):
        rows, own = state
        scores, own, _ = model.decoder.step(last, own, memory_of(rows, len(last)))
        scores = scores.float() if scores.dtype is torch.bfloat16 else scores
        scores[:, never] = float("-inf")
        return scores.log_softmax(1), (rows, own)

    rows = torch.arange(len(padded), device=place)
    most = (lengths * ratio).long().clamp(max=longest - 10) + 10
    return beam_search(
        step, (rows, state), start=torch.full_like(rows, START), end=END, width=beam,
        most=most, length_penalty=length_penalty,
    )  # fmt: skip


class _Memories:
    """The memory of the rows that are still searched; cut down when one is done."""

    def __init__(self, memory: Memory | None):
        self._memory, self._now, self._rows = memory, memory, -1

    def __call__(self, rows: Tensor, count: int) -> Memory | None:
        if self._memory is None or self._now is None:
            return None
        own = torch.unique_consecutive(rows)
        if len(own) != self._rows:
            lengths = self._memory.lengths
            self._now = Memory(
                self._memory.keys[own],
                self._memory.projected[own],
                None if lengths is None else lengths[own],
            )
            self._rows = len(own)
        return self._now


@torch.no_grad()
def alignments(
    model: TranslationModel, numbers: Sequence[np.ndarray], told: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Return where a decoder looked while it told something, each (told + 1, source + 1).

    The last row is that of the end, the last column that of the source's end.

    Args:
        model: with attention, in evaluation mode.
        numbers: units of the sources.
        told: units of the targets.
    """
    place, found = model.vectors.weight.device, [np.zeros((0, 0))] * len(numbers)
    lengths = [max(len(n), len(t)) + 1 for n, t in zip(numbers, told, strict=True)]
    for rows in in_order(lengths, size=_PAIRS, tokens=_TOKENS):
        source, real = (t.to(place) for t in sources([numbers[r] for r in rows]))
        inputs, steps = pad([np.array([START, *told[r]]) for r in rows])
        weights = model(source, real, inputs.to(place), steps.to(place)).weights
        for at, row in enumerate(rows.tolist()):
            found[row] = weights[at, : steps[at], : real[at]].float().cpu().numpy()
    return found
