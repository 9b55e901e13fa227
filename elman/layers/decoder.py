"""A decoder: tells a sequence token by token, each from those before and from what was read."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elman.errors import InputError, SizeError
from elman.layers.attention import Attention
from elman.layers.base import RecurrentLayer
from elman.layers.checks import check_lengths
from elman.layers.dropins import GRU, LSTM, RNN
from elman.layers.readout import token_loss
from elman.layers.recurrent import Recurrent

DROP_INS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
State = tuple[Tensor, ...]


class Memory(NamedTuple):
    """What a decoder attends to: keys (batch, keys, size), what scores need of them, lengths."""

    keys: Tensor
    projected: Tensor
    lengths: Tensor | None


class Decoded(NamedTuple):
    """What a decoder computes over some steps.

    Attributes:
        features: (batch, time, size), from which `Decoder.logits` tells the next token.
        state: after the last step, tensors of (batch, layers, hidden).
        weights: of attention, (batch, time, keys); None without attention.
    """

    features: Tensor
    state: State
    weights: Tensor | None


def recurrent(cell: str, input_size: int, hidden: int, **options: Any) -> RecurrentLayer:
    """Return a batch-first recurrent layer: the drop-in of that name, or `elman.Recurrent`."""
    if cell in DROP_INS:
        return DROP_INS[cell](input_size, hidden, batch_first=True, **options)
    return Recurrent(cell, input_size, hidden, batch_first=True, **options)


class Decoder(nn.Module):
    r"""A recurrent layer over token vectors, attention after it, and an output layer.

    .. math::

        h_t = F(h_{t-1}, [E y_{t-1}; u]), \qquad h_0 = \tanh(B s + b), \qquad
        f_t = \tanh(C [h_t; a_t] + d), \qquad p(y_t) = \mathrm{softmax}(W f_t + w)

    with s a summary of what was read, u a condition that stands at each step, and a the mean of
    the memory that attention finds for h. What is not asked for is left out; f is h where there is
    neither attention nor tying. Since attention stands after the recurrence, all steps of given
    tokens (teacher forcing) are one call of the recurrent kernel.

    Args:
        tokens: of the vocabulary, >= 1; number 0 pads.
        hidden: units of the recurrent layer, >= 1.
        embedding: size of the token vectors; `hidden` if not given.
        cell: "lstm", "gru", "rnn", or the name of any cell whose states are of the hidden size.
        layers: of the stack, >= 1.
        summary: size of s; 0 starts at the layer's own initial state.
        condition: size of u; 0 is none.
        memory: size of the keys; needed with attention.
        attention: "multiplicative", "additive" or None.
        dropout: on the token vectors, between layers, and on f.
        tied: whether W is E; then f has the size of the vectors.

    Raises:
        InputError: attention without a memory, or a cell whose states have another size.

    Example:
        >>> decoder = Decoder(9, 6, summary=4, memory=5, attention="additive")
        >>> memory = decoder.remember(torch.randn(2, 3, 5), torch.tensor([3, 2]))
        >>> state = decoder.begin(torch.randn(2, 4))
        >>> told = decoder(torch.tensor([[1, 4], [1, 7]]), state, memory)
        >>> decoder.logits(told.features).shape, told.weights.shape
        (torch.Size([2, 2, 9]), torch.Size([2, 2, 3]))

    Source: Sutskever, Vinyals & Le 2014; Luong, Pham & Manning 2015 (attention after the
    recurrence, without input feeding); Press & Wolf 2017 (tying).
    """

    def __init__(
        self,
        tokens: int,
        hidden: int,
        *,
        embedding: int | None = None,
        cell: str = "lstm",
        layers: int = 1,
        summary: int = 0,
        condition: int = 0,
        memory: int = 0,
        attention: str | None = None,
        dropout: float = 0.0,
        tied: bool = False,
    ):
        super().__init__()
        width = hidden if embedding is None else embedding
        if min(tokens, hidden, width, layers) < 1 or min(summary, condition, memory) < 0:
            raise InputError(
                "Decoder: tokens, hidden, embedding and layers must be at least 1; summary, "
                "condition and memory at least 0."
            )
        if attention is not None and not memory:
            raise InputError("Decoder: attention needs the size of the keys (memory).")
        self.vectors = nn.Embedding(tokens, width, padding_idx=0)
        layer = recurrent(
            cell, width + condition, hidden, num_layers=layers, dropout=dropout if layers > 1 else 0
        )
        self.layer = layer
        self.hidden, self.layers, self.condition, self.summary = hidden, layers, condition, summary
        graph = layer.cell.graph
        if any(s.dims != graph.states[0].dims for s in graph.states):
            raise InputError(f"Decoder: the states of {cell} differ in size; take another cell.")
        self.states = len(graph.states)
        self.bridge = nn.Linear(summary, self.states * layers * hidden) if summary else None
        size = width if tied else hidden
        self.attention = Attention(hidden, memory, attention) if attention else None
        read = hidden + (memory if attention else 0)
        self.combine = nn.Linear(read, size) if attention or size != hidden else None
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, tokens)
        nn.init.normal_(self.vectors.weight, std=width**-0.5)
        nn.init.zeros_(self.output.bias)
        with torch.no_grad():
            self.vectors.weight[0] = 0
        if tied:
            self.output.weight = self.vectors.weight

    # -- what is read ------------------------------------------------------------------------

    def begin(self, summary: Tensor) -> State:
        """Return the initial state from what was read.

        Shapes:
            summary: (batch, summary); each state: (batch, layers, hidden).
        """
        if self.bridge is None:
            raise InputError("Decoder: it was built without a summary, so it has no map of one.")
        states = torch.tanh(self.bridge(summary).to(summary.dtype))
        parts = states.view(len(summary), self.states, self.layers, self.hidden)
        return tuple(parts.unbind(1))

    def remember(self, keys: Tensor, lengths: Tensor | None = None) -> Memory:
        """Return a memory to attend to; keys are (batch, keys, memory), lengths (batch,)."""
        if self.attention is None:
            raise InputError("Decoder: it was built without attention, so it has no memory.")
        return Memory(keys, self.attention.project(keys), lengths)

    # -- telling -----------------------------------------------------------------------------

    def forward(
        self,
        inputs: Tensor,
        state: State | None = None,
        memory: Memory | None = None,
        condition: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Decoded:
        """Go over all steps of given tokens.

        Args:
            inputs: the token before each step, (batch, time), int64.
            state: of `begin`, or of the steps before; None is the layer's own beginning.
            memory: of `remember`.
            condition: (batch, condition).
            lengths: steps of each row, from the first, that count, (batch,); features beyond
                are not meant for use.
        """
        given = self.dropout(self.vectors(inputs))
        if self.condition:
            if condition is None or condition.shape != (len(inputs), self.condition):
                found = None if condition is None else tuple(condition.shape)
                raise SizeError(
                    f"Decoder: condition has shape {found}; expected ({len(inputs)}, "
                    f"{self.condition})."
                )
            beside = condition.unsqueeze(1).expand(-1, inputs.shape[1], -1)
            given = torch.cat([given, beside.to(given.dtype)], 2)
        out, after = self.layer(given, _to_layer(state), lengths=lengths)
        features, weights = self._read(out, memory)
        return Decoded(self.dropout(features), _from_layer(after), weights)

    def _read(self, out: Tensor, memory: Memory | None) -> tuple[Tensor, Tensor | None]:
        """The features of outputs, (batch, time, hidden), and the weights of attention."""
        weights = None
        if self.attention is not None:
            if memory is None:
                raise InputError("Decoder: it attends to a memory, and none was given.")
            keys = memory.keys
            # Several hypotheses of a row stand one after another and share its keys.
            queries = out.reshape(len(keys), -1, out.shape[2])
            found, weights = self.attention(queries, keys, memory.lengths, memory.projected)
            found = found.reshape(*out.shape[:2], -1)
            weights = weights.reshape(*out.shape[:2], -1)
            out = torch.cat([out, found.to(out.dtype)], 2)
        if self.combine is not None:
            out = torch.tanh(self.combine(out))
        return out, weights

    def logits(self, features: Tensor) -> Tensor:
        """Return scores of all tokens, (..., tokens), from features, (..., size)."""
        return self.output(features)

    def loss(
        self, features: Tensor, targets: Tensor, lengths: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, int]:
        """Return the summed loss of the real steps in nats, and their number.

        Args:
            features: of `forward`, (batch, time, size).
            targets: the right token of each step, (batch, time), int64.
            lengths: real steps of each row, (batch,), 1 to time.
            smoothing: see `elman.layers.readout.token_loss`.
        """
        size, time = targets.shape
        lengths = check_lengths("Decoder", lengths, time, size, targets.device)
        real = torch.arange(time, device=targets.device) < lengths.unsqueeze(1)
        chosen = real.flatten().nonzero().squeeze(1)
        rows = features.flatten(0, 1).index_select(0, chosen)
        right = targets.flatten().index_select(0, chosen)
        output = self.output
        return token_loss(rows, output.weight, output.bias, right, smoothing), len(chosen)

    def step(
        self,
        tokens: Tensor,
        state: State | None = None,
        memory: Memory | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, State, Tensor | None]:
        """Go on by one token.

        Args:
            tokens: the token before, (hypotheses,).
            state: of the hypotheses.
            memory, condition: of their rows; each row's hypotheses stand one after another.

        Returns:
            scores of the next token, (hypotheses, tokens); the state; weights of attention,
            (hypotheses, keys), or None.
        """
        if condition is not None and len(condition) != len(tokens):
            condition = condition.repeat_interleave(len(tokens) // len(condition), 0)
        told = self(tokens.unsqueeze(1), state, memory, condition)
        weights = None if told.weights is None else told.weights.squeeze(1)
        return self.logits(told.features.squeeze(1)), told.state, weights

    def fed_back(
        self,
        inputs: Tensor,
        share: float,
        state: State | None = None,
        memory: Memory | None = None,
        condition: Tensor | None = None,
    ) -> Decoded:
        """Go step by step, some of the given tokens replaced by the network's own likeliest.

        Args:
            inputs: the right token before each step, (batch, time); the first is never replaced.
            share: probability of each of the others to be replaced, in [0, 1].
            state, memory, condition: as in `forward`.

        Source: Bengio et al. 2015, "Scheduled sampling for sequence prediction".
        """
        features, weights, told = [], [], inputs[:, :1]
        for t in range(inputs.shape[1]):
            now = self(told, state, memory, condition)
            state = now.state
            features.append(now.features)
            weights.append(now.weights)
            if t + 1 < inputs.shape[1]:
                with torch.no_grad():
                    own = self.logits(now.features).argmax(2)
                    drawn = torch.rand(own.shape, device=own.device) < share
                told = torch.where(drawn, own, inputs[:, t + 1 : t + 2])
        together = None if self.attention is None else torch.cat(weights, 1)
        return Decoded(torch.cat(features, 1), state or (), together)


def _to_layer(state: State | None) -> Any:
    """States in the form of the layers: one tensor, or several, each (layers, batch, hidden)."""
    if state is None:
        return None
    parts = tuple(s.transpose(0, 1).contiguous() for s in state)
    return parts[0] if len(parts) == 1 else parts


def _from_layer(state: Any) -> State:
    parts = (state,) if isinstance(state, Tensor) else state
    return tuple(s.transpose(0, 1) for s in parts)
