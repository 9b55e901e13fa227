"""A linear-chain conditional random field: labels of a sequence scored together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elman.errors import InputError, SizeError

# A score no path survives, small enough to be added a few times in float32 without becoming −∞.
_NEVER = -1e30


class CRF(nn.Module):
    r"""Scores a sequence of labels by what stands at each step and by which label follows which.

    .. math::

        score(x, y) = b_{y_1} + \sum_t s_{t, y_t} + \sum_{t > 1} A_{y_{t-1}, y_t} + e_{y_T}, \qquad
        \ln p(y \mid x) = score(x, y) - \ln \sum_{y'} \exp score(x, y')

    The sum over all sequences is the forward algorithm, its gradient the forward-backward
    algorithm, and the best sequence Viterbi's; each is one walk over time for the whole batch.

    Args:
        labels: how many there are, ≥ 1.
        allowed: which label may follow which, (labels + 1, labels + 1): row i and column j say
            whether j may follow i; the last row is the begin and the last column the end of a
            sequence. In decoding what is not allowed never comes out, unless nothing is possible
            otherwise. Learning counts all sequences, those of a scheme's breakers too.

    Attributes:
        transitions: A, (labels, labels), from row to column.
        begins, ends: b and e, (labels,).

    Shapes:
        scores: (batch, time, labels), float; tags: (batch, time), int64, −1 where a label is not
        known; lengths: (batch,), int64, ≥ 1. What stands behind a sequence's end is never read.

    Raises:
        InputError: a table of another shape, or one that leaves no sequence.
        SizeError: shapes that do not fit each other; a length out of range.

    Example:
        >>> crf = CRF(2, allowed=[[True, False, True], [True, True, True], [True, True, True]])
        >>> scores = torch.tensor([[[0.0, -1.0], [0.0, 2.0], [0.0, 0.5]]])
        >>> crf.decode(scores, torch.tensor([3]))
        [[1, 1, 1]]
        >>> crf.loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]), torch.tensor([2])).item()
        0.6931471824645996

    Source: Lafferty, McCallum & Pereira 2001; as the output of a recurrent network, Huang, Xu & Yu
    2015, "Bidirectional LSTM-CRF models for sequence tagging".
    """

    def __init__(self, labels: int, allowed: Sequence[Sequence[bool]] | None = None):
        super().__init__()
        if labels < 1:
            raise InputError(f"CRF: {labels} labels; expected at least 1.")
        self.labels = labels
        self.transitions = nn.Parameter(torch.zeros(labels, labels))
        self.begins = nn.Parameter(torch.zeros(labels))
        self.ends = nn.Parameter(torch.zeros(labels))
        # No weight but a fixed fact about the labels: on the CPU and in no file, so that a model
        # made without memory and then filled has it too.
        table = torch.ones(labels + 1, labels + 1, dtype=torch.bool, device="cpu")
        if allowed is not None:
            table = torch.tensor(allowed, dtype=torch.bool, device="cpu")
        if table.shape != (labels + 1, labels + 1):
            raise InputError(
                f"CRF: allowed has shape {tuple(table.shape)}; {labels} labels with begin and end "
                f"need {(labels + 1, labels + 1)}."
            )
        if not (table[-1, :-1] & table[:-1, -1]).any():
            raise InputError("CRF: allowed leaves no sequence of one step.")
        self.may_follow = table

    def loss(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean over steps of −ln p of the labels, in nats.

        Where labels are not known, it is −ln of the probability of all sequences that agree with
        the known ones.

        Returns:
            Σ −ln p over the sequences, divided by Σ lengths; a tensor without dimensions.
        """
        self._check(scores, lengths)
        if tags.shape != scores.shape[:2]:
            raise SizeError(f"CRF: tags {tuple(tags.shape)} for scores {tuple(scores.shape)}.")
        whole = self._partition(scores, lengths)
        inside = torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]
        if bool(((tags < 0) & inside).any()):
            chosen = torch.arange(self.labels, device=tags.device) == tags[..., None]
            ruled_out = ~(chosen | (tags < 0)[..., None])
            ours = self._partition(scores.masked_fill(ruled_out, _NEVER), lengths)
        else:
            ours = self._score(scores, tags.clamp(min=0), lengths, inside)
        return (whole - ours).sum() / lengths.sum()

    def _score(self, scores: Tensor, tags: Tensor, lengths: Tensor, inside: Tensor) -> Tensor:
        """The score of one sequence of labels a row, (batch,)."""
        here = scores.gather(2, tags[..., None])[..., 0]
        between = self.transitions[tags[:, :-1], tags[:, 1:]]
        last = tags.gather(1, lengths[:, None] - 1)[:, 0]
        zero = scores.new_zeros(())
        return (
            torch.where(inside, here, zero).sum(1)
            + torch.where(inside[:, 1:], between, zero).sum(1)
            + self.begins[tags[:, 0]]
            + self.ends[last]
        )

    def _partition(self, scores: Tensor, lengths: Tensor) -> Tensor:
        return _Partition.apply(_full(scores), self.transitions, self.begins, self.ends, lengths)

    @torch.no_grad()
    def marginals(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """Return the probability of each label at each step, (batch, time, labels), 0 behind ends.

        Labels that break the rules of `allowed` are ruled out, as in `decode`.
        """
        self._check(scores, lengths)
        transitions, begins, ends = self._ruled()
        with torch.enable_grad():
            leaf = _full(scores).detach().requires_grad_()
            whole = _Partition.apply(leaf, transitions, begins, ends, lengths)
            (found,) = torch.autograd.grad(whole.sum(), leaf)
        return found

    def _ruled(self) -> tuple[Tensor, Tensor, Tensor]:
        """The weights, so low where something is not allowed that nothing else is chosen."""
        table = self.may_follow.to(self.transitions.device)
        return (
            self.transitions.masked_fill(~table[:-1, :-1], _NEVER),
            self.begins.masked_fill(~table[-1, :-1], _NEVER),
            self.ends.masked_fill(~table[:-1, -1], _NEVER),
        )

    @torch.no_grad()
    def decode(self, scores: Tensor, lengths: Tensor) -> list[list[int]]:
        """Return the most probable allowed labels of each sequence, by Viterbi's algorithm."""
        self._check(scores, lengths)
        transitions, begins, ends = self._ruled()
        scores, steps = _full(scores), lengths.tolist()
        best, time = begins + scores[:, 0], max(steps)
        came = torch.empty(time, *best.shape, dtype=torch.int32)
        finals = best + ends
        by_column = transitions.t().contiguous()
        done = lengths == 1
        last = torch.where(done, finals.argmax(1), 0)
        for t in range(1, time):
            best, where = (best[:, None, :] + by_column).max(2)
            # Subtracting the largest keeps float32 precise over very long sequences.
            best = best - best.max(1, keepdim=True).values + scores[:, t]
            came[t] = where
            last = torch.where(lengths == t + 1, (best + ends).argmax(1), last)
        return _trace(came, last, steps)

    def _check(self, scores: Tensor, lengths: Tensor) -> None:
        if scores.ndim != 3 or scores.shape[2] != self.labels or not scores.shape[1]:
            raise SizeError(
                f"CRF: scores have shape {tuple(scores.shape)}; expected (batch, time, "
                f"{self.labels}) with at least one step."
            )
        if lengths.shape != scores.shape[:1] or bool(
            ((lengths < 1) | (lengths > scores.shape[1])).any()
        ):
            raise SizeError(
                f"CRF: lengths {lengths.tolist()[:8]} for scores {tuple(scores.shape)}; expected "
                "one of 1 to time for each row."
            )

    def extra_repr(self) -> str:
        return f"labels={self.labels}"


def _full(scores: Tensor) -> Tensor:
    """Scores in float32 at least, so that sums over long sequences stay precise."""
    return scores if scores.dtype == torch.float64 else scores.float()


def _trace(came: Tensor, last: Tensor, lengths: Sequence[int]) -> list[list[int]]:
    """Follow the best predecessors back from the last labels."""
    time, batch = len(came), len(lengths)
    found = torch.zeros(time, batch, dtype=torch.int64)
    ends = torch.tensor(lengths)
    at = last
    for t in range(time - 1, -1, -1):
        at = torch.where(ends == t + 1, last, at)
        found[t] = at
        if t:
            at = came[t].gather(1, at[:, None])[:, 0].long()
    rows = found.t().tolist()
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


class _Partition(torch.autograd.Function):
    """ln Σ exp score over all sequences of labels, and its gradient, the marginals.

    The largest of each row is taken off at every step, and the marginals are brought to the sum 1
    at every step, so that float32 is as good for a hundred thousand steps as for ten.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, scores: Tensor, transitions: Tensor, begins: Tensor, ends: Tensor, lengths: Tensor
    ) -> Tensor:
        (batch, _, labels), time = scores.shape, int(lengths.max())
        by_column = transitions.t().contiguous()
        steps = scores.transpose(0, 1)
        alphas = scores.new_empty(time, batch, labels)
        taken = torch.zeros(time, batch, dtype=torch.float64, device=scores.device)
        here = begins + steps[0]
        for t in range(time):
            if t:
                here = torch.logsumexp(alphas[t - 1][:, None, :] + by_column, 2) + steps[t]
            largest = here.amax(1, keepdim=True)
            torch.sub(here, largest, out=alphas[t])
            taken[t] = largest[:, 0]
        rows = torch.arange(batch, device=scores.device)
        ctx.save_for_backward(alphas, scores, transitions, ends, lengths)
        last = torch.logsumexp(alphas[lengths - 1, rows] + ends, 1)
        return (last + taken.cumsum(0)[lengths - 1, rows]).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        alphas, scores, transitions, ends, lengths = ctx.saved_tensors
        time, batch, labels = alphas.shape
        steps, weight = scores.transpose(0, 1), grad[:, None]
        of_ends, of_transitions = torch.zeros_like(ends), torch.zeros_like(transitions)
        of_scores = torch.zeros_like(scores)
        beta, later = ends.expand(batch, labels), None
        for t in range(time - 1, -1, -1):
            at_end = (lengths == t + 1)[:, None]
            if t + 1 < time:
                later = transitions + (steps[t + 1] + beta)[:, None, :]
                beta = torch.where(at_end, ends, torch.logsumexp(later, 2))
            both = alphas[t] + beta
            whole = torch.logsumexp(both, 1, keepdim=True)
            inside = (lengths > t)[:, None]
            here = torch.where(inside, both - whole, -torch.inf).exp() * weight
            of_scores[:, t] = here
            of_ends += torch.where(at_end, here, 0).sum(0)
            if later is not None:  # of each pair of labels at t and t + 1
                pair = (alphas[t] - whole)[:, :, None] + later
                going_on = (lengths > t + 1)[:, None, None]
                pair = torch.where(going_on, pair, -torch.inf).exp()
                of_transitions += (pair * weight[:, :, None]).sum(0)
            beta = beta - beta.amax(1, keepdim=True)
        return of_scores, of_transitions, of_scores[:, 0].sum(0), of_ends, None
