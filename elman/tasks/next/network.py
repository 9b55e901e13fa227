"""The network of the next item: item vectors, recurrent layers, and the same vectors again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import elman.cells
from elman.data.lexicon import PADDING
from elman.equation import Cell
from elman.layers import GRU, LSTM, Recurrent
from elman.layers.readout import token_loss

State = Any  # a tensor or a tuple of tensors, each (layers, batch, ...)
OFFSET = 2  # padding and <unk> are no answers

# Cells whose equation is torch.nn's: these layers run on its kernel.
_EXACT = {"lstm": LSTM, "gru": GRU}


class NextItemModel(nn.Module):
    r"""Tells what comes next in a session.

    .. math::

        h_t = cell(E_{w_t}, h_{t-1}), \qquad
        p(w_{t+1} = i | w_1 \ldots w_t) = \mathrm{softmax}(E P h_t + b)_i

    with the item vectors E at both ends, and P a matrix where their size is not that of the state.

    Args:
        tokens: size of the lexicon, items + 2.
        cell: of the recurrent layers.
        hidden, layers, embedding: sizes.
        dropout_input, dropout_output: on item vectors and on states, in training; one mask for all
            steps of a session (Gal & Ghahramani 2016).

    Source: Hidasi et al. 2016, "Session-based recommendations with recurrent neural networks"
    (GRU4Rec). Differs: cross-entropy over all items, shared vectors, padded sessions with lengths.
    """

    def __init__(
        self,
        tokens: int,
        cell: Cell,
        hidden: int,
        layers: int,
        embedding: int,
        *,
        dropout_input: float = 0.0,
        dropout_output: float = 0.0,
    ):
        super().__init__()
        self.items = tokens - OFFSET
        self.embedding = nn.Embedding(tokens, embedding, padding_idx=PADDING)
        self.recurrent = recurrent(cell, embedding, hidden, layers, dropout_output)
        size = self.recurrent.output_size
        self.bridge = nn.Linear(size, embedding, bias=False) if size != embedding else None
        self.bias = nn.Parameter(torch.zeros(self.items))
        self.dropout_input, self.dropout_output = dropout_input, dropout_output
        with torch.no_grad():
            self.embedding.weight.normal_(std=embedding**-0.5)
            self.embedding.weight[PADDING].zero_()

    def forward(self, tokens: Tensor, lengths: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return what each step says of the next item, and the state after the last real step.

        Args:
            tokens: (batch, time), int64, padded with 0.
            lengths: real steps of each row, >= 1.
            state: as it was returned before; None begins anew.

        Returns:
            vectors to be compared with those of the items, (batch, time, embedding); state.
        """
        x = locked_dropout(self.embedding(tokens), self.dropout_input, self.training)
        out, state = self.recurrent(x, state, lengths=lengths)
        out = locked_dropout(out, self.dropout_output, self.training)
        return out if self.bridge is None else self.bridge(out), state

    def scores(self, told: Tensor) -> Tensor:
        """Return the logits of all items, (..., items), from what `forward` told."""
        logits = functional.linear(told, self.embedding.weight[OFFSET:], self.bias)
        return logits if logits.dtype == torch.float64 else logits.float()

    def loss(self, told: Tensor, items: Tensor) -> Tensor:
        """Return the summed −ln p of items, (places,), from what was told, (places, embedding)."""
        return token_loss(told, self.embedding.weight[OFFSET:], self.bias, items)


def recurrent(
    cell: Cell, size: int, hidden: int, layers: int, dropout: float
) -> LSTM | GRU | Recurrent:
    """Make a batch-first stack of a cell; the equations of torch.nn get its drop-ins."""
    between = dropout if layers > 1 else 0.0
    for name, kind in _EXACT.items():
        if cell.graph == elman.cells.get(name).graph:
            layer = kind(size, hidden, layers, batch_first=True, dropout=between)
            _initialise(layer)
            return layer
    return Recurrent(cell, size, hidden, layers, batch_first=True, dropout=between)


@torch.no_grad()
def _initialise(layer: LSTM | GRU) -> None:
    """Orthogonal recurrent matrices a gate; biases 0, those of forget gates 1."""
    hidden = layer.hidden_size
    for depth in range(layer.num_layers):
        for gate in layer.get_parameter(f"weight_hh_l{depth}").split(hidden):
            nn.init.orthogonal_(gate)
        for name in (f"bias_ih_l{depth}", f"bias_hh_l{depth}"):
            nn.init.zeros_(layer.get_parameter(name))
        if isinstance(layer, LSTM):
            layer.get_parameter(f"bias_ih_l{depth}")[hidden : 2 * hidden] = 1.0


def locked_dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout on (batch, time, size) with one mask for all steps of a row."""
    if not (rate and training):
        return x
    return x * functional.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), rate)
