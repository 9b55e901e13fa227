"""The network that writes a text from a class or a vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.layers.decoder import Decoded, Decoder
from elman.tasks.caption.options import CaptionOptions


class CaptionModel(nn.Module):
    r"""Writes a text token by token, from a class k, a vector v of numbers, or both.

    .. math::

        u = L_k + V_2\, \mathrm{relu}(V_1 \tfrac{v - \mu}{\sigma} + b_1) + b_2, \qquad
        s_0 = \tanh(B u + b), \qquad s_t = cell([E_{y_{t-1}}; u], s_{t-1}), \qquad
        p(y_t | y_{<t}, u) = \mathrm{softmax}(A h_t + a)

    with the mean μ and the deviation σ of the training part; y_0 is the end of a text.

    Args:
        tokens: size of the lexicon.
        labels: number of classes, 0 for none.
        features: numbers of a vector, 0 for none.
        options: resolved.

    Source: Karpathy & Fei-Fei 2015, Vinyals et al. 2015 (a text from a picture's vector).
    Differs: the vector stands beside every token as well as in the initial state.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, tokens: int, labels: int, features: int, options: CaptionOptions):
        super().__init__()
        size, dropout = options.condition or 1, options.dropout or 0.0
        self.labels = nn.Embedding(labels, size) if labels else None
        self.encoder = None
        if features:
            self.encoder = nn.Sequential(
                nn.Dropout(dropout / 2), nn.Linear(features, 2 * size), nn.ReLU(),
                nn.Dropout(dropout), nn.Linear(2 * size, size),
            )  # fmt: skip
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.decoder = Decoder(
            tokens,
            options.hidden or 1,
            embedding=options.embedding or 1,
            cell=options.cell,
            layers=options.layers or 1,
            summary=size,
            condition=size,
            dropout=dropout,
        )

    def condition(self, labels: Tensor, vectors: Tensor) -> Tensor:
        """Return u, (rows, condition).

        Args:
            labels: (rows,), int64; not read where the model has no classes.
            vectors: (rows, features), float32; not read where it has none.
        """
        parts = []
        if self.labels is not None:
            parts.append(self.labels(labels))
        if self.encoder is not None:
            parts.append(self.encoder((vectors - self.mean) / self.deviation))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def forward(self, u: Tensor, tokens: Tensor, lengths: Tensor) -> Decoded:
        """Go over given tokens; what is told of the next are the features.

        Args:
            u: of `condition`.
            tokens: those before each step, (rows, time), int64, padded with 0.
            lengths: real steps of each row.
        """
        return self.decoder(tokens, self.decoder.begin(u), condition=u, lengths=lengths)
