"""Search: the likeliest sequences of a network that tells one token after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.errors import InputError

State = Any  # nested tuples of tensors, a row of each for every hypothesis; or None
Step = Callable[[Tensor, State], tuple[Tensor, State]]


class Hypothesis(NamedTuple):
    """One sequence that was found.

    Attributes:
        tokens: its tokens, without the start and the end.
        score: log_probability / lp, by which hypotheses are ranked.
        log_probability: ln p of its tokens and, where it ended, of the end.
        ended: whether it came to its end within the steps allowed.
    """

    tokens: list[int]
    score: float
    log_probability: float
    ended: bool


def penalty(length: float | Tensor, alpha: float) -> float | Tensor:
    r"""Return lp = ((5 + length) / 6)^alpha, which ln p is divided by; 1 where alpha is 0.

    Source: Wu et al. 2016, "Google's neural machine translation system", equation 14.

    Example:
        >>> penalty(1, 0.6), penalty(7, 1.0)
        (1.0, 2.0)
    """
    return ((5.0 + length) / 6.0) ** alpha


@torch.no_grad()
def beam_search(
    step: Step,
    state: State,
    *,
    start: Tensor,
    end: int,
    width: int = 5,
    most: int | Tensor = 100,
    length_penalty: float = 0.6,
) -> list[list[Hypothesis]]:
    r"""Find likely sequences for every row of a batch; the greedy one where the width is 1.

    Of each row the `width` likeliest beginnings are kept from step to step. Sequences y are ranked
    by

    .. math::

        s(y) = \frac{\ln p(y)}{lp(y)}, \qquad lp(y) = \frac{(5 + |y|)^\alpha}{(5 + 1)^\alpha},

    with |y| counting the end. A row is done when no beginning that is left can come before the
    best sequence found; ln p only falls, so that its ln p over the lp of the longest sequence
    allowed is a bound. A row's result does not depend on the other rows, but for rounding.

    Args:
        step: given the last token of every hypothesis, (hypotheses,), and their state, returns
            log-probabilities of the next, (hypotheses, tokens), and the next state.
        state: tensors in nested tuples, the first dimension of each (batch, ...), or None.
        start: the token each row begins with, (batch,), int64.
        end: the token that ends a sequence.
        width: beginnings kept, >= 1.
        most: tokens of a sequence at most, its end among them; of all rows, or of each, (batch,).
        length_penalty: alpha, >= 0; 0 ranks by ln p alone.

    Returns:
        for each row up to `width` hypotheses, the best first. Those that did not end within `most`
        tokens come only where none ended.

    Raises:
        InputError: a width or `most` below 1, or a negative alpha.

    Example:
        >>> table = torch.tensor([[0.1, 0.6, 0.3], [0.6, 0.3, 0.1], [1.0, 0.0, 0.0]]).log()
        >>> found = beam_search(lambda last, state: (table[last], state), None,
        ...                     start=torch.tensor([0]), end=0, width=2, most=9)
        >>> found[0][0].tokens, round(found[0][0].log_probability, 3)
        ([1], -1.022)
    """
    limits = torch.as_tensor(most, device=start.device).expand(len(start)).tolist()
    if width < 1 or length_penalty < 0 or (limits and min(limits) < 1):
        raise InputError(
            f"search: width {width}, length penalty {length_penalty}, most {most}; expected at "
            "least 1, 0 and 1."
        )
    rows = [_Row(i, width, limit, length_penalty) for i, limit in enumerate(limits)]
    alive, last, scores = list(rows), start, torch.zeros(len(start), 1, device=start.device)
    while alive:
        logs, state = step(last, state)
        logs = logs.float() if logs.dtype in (torch.bfloat16, torch.float16) else logs
        tokens = logs.shape[-1]
        total = scores.to(logs.dtype).unsqueeze(2) + logs.view(len(alive), -1, tokens)
        # Twice as many, so that `width` are left when some of them end.
        wanted = min(2 * width, total[0].numel())
        best, places = total.flatten(1).topk(wanted, dim=1)
        told, left, chosen, alive = _advance(alive, best, places, tokens, end, width)
        if alive:
            state = _select(state, torch.tensor(chosen, device=start.device))
            last = torch.tensor(told, device=start.device)
            scores = torch.tensor(left, device=start.device, dtype=logs.dtype)
    return [row.result() for row in rows]


class _Row:
    """The hypotheses of one row of the batch."""

    def __init__(self, number: int, width: int, most: int, alpha: float):
        self.number, self.width, self.most, self.alpha = number, width, most, alpha
        self.prefixes: list[list[int]] = [[]]
        self.ended: list[Hypothesis] = []
        self.cut: list[Hypothesis] = []

    def hypothesis(self, tokens: list[int], log: float, ended: bool) -> Hypothesis:
        length = len(tokens) + ended
        return Hypothesis(tokens, log / float(penalty(length, self.alpha)), log, ended)

    def advance(
        self, best: list[float], places: list[int], tokens: int, end: int
    ) -> list[tuple[int, int, float]]:
        """Go on by a step; return parent, token and ln p of the beginnings that are left."""
        left: list[tuple[int, int, float]] = []
        for log, place in zip(best, places, strict=True):
            if log == float("-inf"):
                break
            parent, token = divmod(place, tokens)
            if token == end:
                if len(left) < self.width:  # among the best `width` of this step
                    self.ended.append(self.hypothesis(self.prefixes[parent], log, True))
                if self.width == 1:
                    break
            elif len(left) < self.width:
                left.append((parent, token, log))
        self.prefixes = [[*self.prefixes[parent], token] for parent, token, _ in left]
        length = len(self.prefixes[0]) if left else 0
        if left and length >= self.most:
            self.cut = [
                self.hypothesis(p, log, False)
                for p, (_, _, log) in zip(self.prefixes, left, strict=True)
            ]
            return []
        if left and self.ended:
            bound = left[0][2] / float(penalty(self.most, self.alpha))
            if max(h.score for h in self.ended) >= bound:
                return []
        return left

    def result(self) -> list[Hypothesis]:
        found = sorted(self.ended or self.cut, key=lambda h: -h.score)
        return found[: self.width] or [Hypothesis([], 0.0, 0.0, False)]


def _advance(
    rows: list[_Row], best: Tensor, places: Tensor, tokens: int, end: int, width: int
) -> tuple[list[int], list[list[float]], list[int], list[_Row]]:
    """Let every row go on; return last tokens, ln p and places of what is left, and its rows."""
    last: list[int] = []
    scores: list[list[float]] = []
    chosen: list[int] = []
    alive: list[_Row] = []
    beams = 0 if not rows else len(rows[0].prefixes)
    for at, (row, logs, where) in enumerate(zip(rows, best.tolist(), places.tolist(), strict=True)):
        left = row.advance(logs, where, tokens, end)
        if not left:
            continue
        # A row with fewer beginnings than the width repeats its last one, never to be chosen.
        filled = left + [(*left[-1][:2], float("-inf"))] * (width - len(left))
        row.prefixes += [row.prefixes[-1]] * (width - len(left))
        last += [token for _, token, _ in filled]
        scores.append([log for *_, log in filled])
        chosen += [at * beams + parent for parent, *_ in filled]
        alive.append(row)
    return last, scores, chosen, alive


def _select(state: State, rows: Tensor) -> State:
    """The state of the chosen rows."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    return tuple(_select(part, rows) for part in state)
