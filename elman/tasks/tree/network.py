"""The network of a model of trees: word vectors at the leaves, a cell, a label at every node."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from elman.equation import Cell
from elman.layers import Tree


class Batch(NamedTuple):
    """Trees one after another.

    Attributes:
        words: of each node its word's number, −1 at inner nodes; (nodes,), int64.
        parents: of each node, −1 of roots; (nodes,), int64.
        labels: of each node its class, −1 where there is none; (nodes,), int64.
    """

    words: Tensor
    parents: Tensor
    labels: Tensor


class TreeModel(nn.Module):
    r"""Tells a label at every node of a tree.

    .. math::

        x_v = E_{w_v} \text{ at leaves, else } 0, \qquad
        s_v = cell(x_v, \{s_u : u \text{ child of } v\}), \qquad
        p(y_v) = \mathrm{softmax}(A h_v + b)

    Args:
        words: size of the vocabulary.
        classes: number of labels.
        cell: of the nodes.
        hidden, embedding: sizes.
        direction: of the tree layer.
        dropout_input, dropout_output: on word vectors and on states, in training.

    Source: Tai, Socher & Manning 2015, section 4.1.
    """

    def __init__(
        self,
        words: int,
        classes: int,
        cell: Cell,
        hidden: int,
        embedding: int,
        *,
        direction: str = "up",
        dropout_input: float = 0.0,
        dropout_output: float = 0.0,
    ):
        super().__init__()
        self.embedding = nn.Embedding(words, embedding)
        self.tree = Tree(cell, embedding, hidden, direction=direction)
        self.output = nn.Linear(self.tree.output_size, classes)
        self.dropout_input, self.dropout_output = dropout_input, dropout_output
        with torch.no_grad():
            self.embedding.weight.normal_(std=embedding**-0.5)
            self.output.bias.zero_()

    def forward(self, words: Tensor, parents: Tensor) -> Tensor:
        """Return the logits of every node, (nodes, classes)."""
        leaf = words >= 0
        x = self.embedding.weight.new_zeros(len(words), self.embedding.embedding_dim)
        vectors = functional.dropout(self.embedding(words[leaf]), self.dropout_input, self.training)
        x = x.index_put((leaf.nonzero()[:, 0],), vectors)
        h = self.tree(x, parents)[0]
        return self.output(functional.dropout(h, self.dropout_output, self.training))
