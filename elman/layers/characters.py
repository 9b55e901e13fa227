"""Words read letter by letter: one vector a word, from a bidirectional LSTM over its characters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.layers.dropins import LSTM


class CharacterReader(nn.Module):
    r"""Reads words as sequences of characters, in both directions, into one vector each.

    .. math::

        r_w = [\overrightarrow{h}_{n}; \overleftarrow{h}_{1}], \qquad
        h = LSTM(E_{c_1}, \ldots, E_{c_n})

    A word is read once however often it stands in a batch: give the distinct words, and take the
    rows of the result by number.

    Args:
        characters: how many are known, with 0 for padding.
        size: of the character vectors, ≥ 1.
        hidden: units of each direction, ≥ 1; a word's vector has twice as many.

    Attributes:
        output_size: entries of a word's vector.

    Shapes:
        characters: (words, longest), int64; lengths: (words,), int64, ≥ 1; returns (words,
        output_size). What stands behind a word's end is never read.

    Example:
        >>> reader = CharacterReader(30, 4, 5)
        >>> reader(torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.tensor([3, 1])).shape
        torch.Size([2, 10])

    Source: Ling et al. 2015, "Finding function in form"; Lample et al. 2016, section 4.1.
    """

    def __init__(self, characters: int, size: int, hidden: int):
        super().__init__()
        self.embedding = nn.Embedding(characters, size)
        self.recurrent = LSTM(size, hidden, bidirectional=True, batch_first=True)
        self.output_size = 2 * hidden
        with torch.no_grad():
            self.embedding.weight.normal_(std=size**-0.5)

    def forward(self, characters: Tensor, lengths: Tensor) -> Tensor:
        """Return the vectors of words, (words, output_size)."""
        _, (last, _) = self.recurrent(self.embedding(characters), lengths=lengths)
        return last.transpose(0, 1).flatten(1)
