"""The network that tags: words or vectors in, a score for every label at every step out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import elman.cells
from elman.equation import Cell
from elman.layers import GRU, LSTM, RNN, Recurrent
from elman.layers.characters import CharacterReader
from elman.layers.crf import CRF
from elman.layers.tokens import Kind, TokenVectors

_DROP_INS: dict[str, type[LSTM] | type[GRU] | type[RNN]] = {"lstm": LSTM, "gru": GRU}


class WordReader(nn.Module):
    r"""Words as vectors: their own, what their characters say, and what their ends and shape say.

    .. math::

        x_t = [E_{w_t};\ r_{w_t};\ F^1_{f_1(w_t)}; \ldots; F^7_{f_7(w_t)}]

    Args:
        words: size of the vocabulary.
        embedding: size of E; None is one-hot vectors.
        spelling: characters known, size of their vectors, units of their reader in each direction;
            no units, no reader.
        affixes: how many of each kind are known.
        affix_size: size of F; 0 is none.
    """

    def __init__(
        self,
        words: int,
        embedding: int | None,
        spelling: tuple[int, int, int],
        affixes: Sequence[int],
        affix_size: int,
    ):
        super().__init__()
        kind: Kind = "one-hot" if embedding is None else "learned"
        self.embedding = TokenVectors(words, embedding, kind)
        self.characters = CharacterReader(*spelling) if spelling[2] else None
        tables = [nn.Embedding(n, affix_size) for n in affixes if affix_size]
        self.affixes = nn.ModuleList(tables)
        spelled = self.characters.output_size if self.characters is not None else 0
        self.output_size = self.embedding.size + spelled + affix_size * len(self.affixes)
        with torch.no_grad():
            for table in tables:
                table.weight.normal_(std=max(affix_size, 1) ** -0.5)

    def forward(
        self, words: Tensor, places: Tensor, affixes: Tensor, characters: Tensor, lengths: Tensor
    ) -> Tensor:
        """Return vectors, (batch, time, output_size).

        Args:
            words: their numbers, (batch, time).
            places: which of the distinct words each is, (batch, time).
            affixes, characters, lengths: of the distinct words, as in `words.Distinct`.
        """
        parts = [self.embedding(words)]
        of_each = [table(affixes[:, k]) for k, table in enumerate(self.affixes)]
        if self.characters is not None:
            of_each.append(self.characters(characters, lengths))
        if of_each:
            parts.append(functional.embedding(places, torch.cat(of_each, 1)))
        return torch.cat(parts, 2)


class FrameReader(nn.Module):
    """Vectors of features, brought to mean 0 and deviation 1 of the training part.

    Args:
        features: entries of a vector.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.output_size = features

    def fit(self, frames: np.ndarray) -> None:
        """Take mean and deviation from the frames of the training part."""
        mean, scale = frames.mean(0, dtype=np.float64), frames.std(0, dtype=np.float64)
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(np.where(scale > 1e-6, scale, 1.0)))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the frames on the scale of training."""
        return (frames - self.mean) / self.scale


class TagModel(nn.Module):
    r"""Tells a label at every step of a sequence.

    .. math::

        h_t = [\overrightarrow{cell}(x)_t;\ \overleftarrow{cell}(x)_t], \qquad s_t = A h_t + b

    and p(y | x) is the softmax of s at each step by itself, or the CRF over all of them.

    Args:
        reader: of the words or frames.
        cell: of the recurrent layers.
        hidden: units in each direction.
        layers: recurrent layers.
        labels: how many.
        crf: whether labels are scored together.
        allowed: which label may follow which, for decoding; see `elman.layers.crf.CRF`.
        dropout: on the input, between layers and on the output; on input and output one mask a
            sequence.

    Source: Huang, Xu & Yu 2015; Lample et al. 2016; Plank, Søgaard & Goldberg 2016.
    """

    def __init__(
        self,
        reader: WordReader | FrameReader,
        cell: Cell,
        hidden: int,
        layers: int,
        labels: int,
        *,
        crf: bool = False,
        allowed: Sequence[Sequence[bool]] | None = None,
        dropout: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ):
        super().__init__()
        self.reader, self.cell = reader, cell
        self.recurrent = _recurrent(cell, reader.output_size, hidden, layers, dropout[1])
        self.output = nn.Linear(2 * hidden, labels)
        self.crf = CRF(labels, allowed) if crf else None
        self.dropout_input, _, self.dropout_output = dropout
        with torch.no_grad():
            self.output.bias.zero_()

    def forward(self, inputs: tuple[Tensor, ...], lengths: Tensor) -> Tensor:
        """Return the scores, (batch, time, labels); those behind a row's end mean nothing.

        Args:
            inputs: what the reader reads.
            lengths: of the rows, (batch,).
        """
        x = self._dropped(self.reader(*inputs), self.dropout_input)
        h = self.recurrent(x, lengths=lengths)[0]
        return self.output(self._dropped(h, self.dropout_output))

    def _dropped(self, x: Tensor, rate: float) -> Tensor:
        """Dropout with one mask a sequence, the same at every step."""
        if not self.training or not rate:
            return x
        mask = x.new_empty(x.shape[0], 1, x.shape[2]).bernoulli_(1 - rate)
        return x * mask.div_(1 - rate)

    def loss(self, inputs: tuple[Tensor, ...], lengths: Tensor, tags: Tensor) -> Tensor:
        """Return the mean −ln p of the labels, in nats a step; a label of −1 is not known."""
        scores = self(inputs, lengths)
        if self.crf is not None:
            return self.crf.loss(scores, tags, lengths)
        known = (tags >= 0).sum().clamp(min=1)
        flat = scores.float().flatten(0, 1)
        total = functional.cross_entropy(flat, tags.flatten(), ignore_index=-1, reduction="sum")
        return total / known

    @torch.no_grad()
    def cost(self, scores: Tensor, lengths: Tensor, tags: Tensor) -> float:
        """Return Σ −ln p of the labels of each step by itself, of scores; −1 is not known."""
        chances = self.probabilities(scores, lengths).clamp(min=1e-12)
        here = chances.gather(2, tags.clamp(min=0)[..., None])[..., 0].log()
        return float(-torch.where(tags >= 0, here, 0.0).sum())

    @torch.no_grad()
    def decode(self, scores: Tensor, lengths: Tensor) -> list[list[int]]:
        """Return the labels of each row: the best sequence of the CRF, or each step's best."""
        if self.crf is not None:
            return self.crf.decode(scores, lengths)
        rows = scores.argmax(2).tolist()
        return [row[:n] for row, n in zip(rows, lengths.tolist(), strict=True)]

    @torch.no_grad()
    def probabilities(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """Return the probability of each label at each step, (batch, time, labels)."""
        if self.crf is not None:
            return self.crf.marginals(scores, lengths)
        return scores.float().softmax(2)


def _recurrent(
    cell: Cell, size: int, hidden: int, layers: int, dropout: float
) -> LSTM | GRU | RNN | Recurrent:
    """The recurrent layers; an equation of torch.nn's gets its drop-in."""
    between = dropout if layers > 1 else 0.0
    for name, kind in _DROP_INS.items():
        if cell.graph == elman.cells.get(name).graph:
            return kind(size, hidden, layers, batch_first=True, dropout=between, bidirectional=True)
    return Recurrent(
        cell, size, hidden, layers, batch_first=True, dropout=between, bidirectional=True
    )
