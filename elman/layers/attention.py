"""Attention: each query's weighted mean of keys, weighed by how well the two fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.errors import InputError, SizeError, nearest
from elman.layers.checks import check_lengths

KINDS = ("multiplicative", "additive")


class Attention(nn.Module):
    r"""Global attention: a mean of the keys for each query, of all queries at once.

    With queries q and keys k,

    .. math::

        e_{ij} = q_i^\top W k_j \text{ (multiplicative)}, \qquad
        e_{ij} = v^\top \tanh(W_q q_i + W_k k_j) \text{ (additive)}, \qquad
        a_{ij} = \frac{\exp e_{ij}}{\sum_l \exp e_{il}}, \qquad c_i = \sum_j a_{ij} k_j,

    the sums over the keys within the row's length.

    Args:
        query_size: features of a query, >= 1.
        key_size: features of a key, >= 1.
        kind: "multiplicative" or "additive".
        size: units of the additive score; `query_size` if not given.

    Shapes:
        queries: (batch, queries, query_size). keys: (batch, keys, key_size). lengths: (batch,).
        context: (batch, queries, key_size). weights: (batch, queries, keys), each row's sum 1.

    Raises:
        InputError: an unknown kind, or a size below 1.
        SizeError: shapes that do not fit, or a row without a key.

    Example:
        >>> attention = Attention(3, 4)
        >>> context, weights = attention(torch.randn(2, 5, 3), torch.randn(2, 6, 4), [6, 1])
        >>> context.shape, weights[1, 0].tolist()
        (torch.Size([2, 5, 4]), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0])

    Source: Luong, Pham & Manning 2015, "Effective approaches to attention-based neural machine
    translation" (global attention, the score "general"); Bahdanau, Cho & Bengio 2015 (the additive
    score).
    """

    def __init__(
        self, query_size: int, key_size: int, kind: str = "multiplicative", size: int | None = None
    ):
        super().__init__()
        if kind not in KINDS:
            raise InputError(
                f"Attention: kind is {kind!r}; there are {KINDS}.{nearest(str(kind), KINDS)}"
            )
        width = query_size if size is None or kind == "multiplicative" else size
        if min(query_size, key_size, width) < 1:
            raise InputError(
                f"Attention: sizes are {query_size}, {key_size} and {width}; expected at least 1."
            )
        self.kind, self.query_size, self.key_size = kind, query_size, key_size
        self.of_key = nn.Linear(key_size, width, bias=False)
        if kind == "additive":
            self.of_query = nn.Linear(query_size, width)
            self.score = nn.Linear(width, 1, bias=False)

    def project(self, keys: Tensor) -> Tensor:
        """Return what the scores need of the keys; computed once where queries come one by one."""
        if keys.dim() != 3 or keys.shape[2] != self.key_size:
            raise SizeError(
                f"Attention: keys have shape {tuple(keys.shape)}; expected (batch, keys, "
                f"{self.key_size})."
            )
        return self.of_key(keys)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        lengths: Tensor | list[int] | None = None,
        projected: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return each query's mean of the keys, and the weights.

        Args:
            queries, keys: as above.
            lengths: keys of each row that count, from the first, 1 to keys; None is all.
            projected: `project(keys)`, where it is there already.
        """
        if projected is None:
            projected = self.project(keys)
        if queries.dim() != 3 or queries.shape[2] != self.query_size or len(queries) != len(keys):
            raise SizeError(
                f"Attention: queries have shape {tuple(queries.shape)}; expected ({len(keys)}, "
                f"queries, {self.query_size})."
            )
        if self.kind == "additive":
            together = self.of_query(queries).unsqueeze(2) + projected.unsqueeze(1)
            scores = self.score(torch.tanh(together)).squeeze(3)
        else:
            scores = queries @ projected.transpose(1, 2)
        if lengths is not None:
            size, time = keys.shape[:2]
            real = torch.arange(time, device=keys.device) < check_lengths(
                "Attention", lengths, time, size, keys.device
            ).unsqueeze(1)
            scores = scores.masked_fill(~real.unsqueeze(1), float("-inf"))
        weights = torch.softmax(scores.to(keys.dtype), 2)
        return weights @ keys, weights
