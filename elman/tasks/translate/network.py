"""The network that translates: an encoder in both directions, and a decoder that attends to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from elman.layers.decoder import Decoded, Decoder, Memory, State, recurrent
from elman.tasks.translate.options import TranslateOptions


class TranslationModel(nn.Module):
    """Encoder and decoder.

    Args:
        source: number of units of the source.
        target: of the target.
        options: resolved.
    """

    def __init__(self, source: int, target: int, options: TranslateOptions):
        super().__init__()
        hidden, width = options.hidden or 2, options.embedding or 1
        half, layers, dropout = hidden // 2, options.layers or 1, options.dropout or 0.0
        cell = options.cell or "lstm"
        self.vectors = nn.Embedding(source, width, padding_idx=0)
        nn.init.normal_(self.vectors.weight, std=width**-0.5)
        with torch.no_grad():
            self.vectors.weight[0] = 0
        between: Any = dropout if layers > 1 else 0
        self.encoder = recurrent(
            cell, width, half, num_layers=layers, dropout=between, bidirectional=True
        )
        self.dropout = nn.Dropout(dropout)
        self.decoder = Decoder(
            target, hidden, embedding=width, cell=cell, layers=layers, summary=2 * half,
            memory=2 * half, dropout=dropout, tied=bool(options.tied),
            attention=None if options.attention == "none" else options.attention,
        )  # fmt: skip

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[State, Memory | None]:
        """Return the decoder's first state and what it attends to.

        Shapes:
            source: (batch, time), int64. lengths: (batch,).
        """
        out, state = self.encoder(self.dropout(self.vectors(source)), lengths=lengths)
        last = state if isinstance(state, Tensor) else state[0]
        summary = torch.cat([last[-2], last[-1]], 1)
        memory = None
        if self.decoder.attention is not None:
            memory = self.decoder.remember(self.dropout(out), lengths)
        return self.decoder.begin(summary), memory

    def forward(
        self,
        source: Tensor,
        lengths: Tensor,
        inputs: Tensor,
        steps: Tensor,
        feed_back: float = 0.0,
    ) -> Decoded:
        """Return what the decoder tells over the steps of given inputs; see `Decoder`."""
        state, memory = self.encode(source, lengths)
        if feed_back:
            return self.decoder.fed_back(inputs, feed_back, state, memory)
        told: Decoded = self.decoder(inputs, state, memory, lengths=steps)
        return told
