"""The network of a classifier: vectors, a recurrent layer, one vector for the whole, a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from elman.equation import Cell
from elman.layers import Recurrent
from elman.layers.tokens import Kind, TokenVectors

REACHES = (2, 3, 4, 5)  # steps that the units of a delay network look at
_FACTOR = 0.2  # of the log probabilities of naive Bayes, at the start


class Shape(NamedTuple):
    """Sizes of a network.

    Args:
        classes: number of labels, >= 1.
        tokens: size of the vocabulary; 0 where sequences are of numbers.
        width: size of the token vectors, or numbers a time step.
        kind: of the token vectors.
        pieces: number of vectors of pieces of words; 0 is none.
        hidden, layers: of the recurrent layer.
        bidirectional: whether it runs from both ends.
        pool: how its outputs become one vector.
        skip: whether the token vectors themselves stand beside the outputs that are pooled.
        members: recurrent networks over the same vectors, whose probabilities are averaged.
        delay_members: delay networks beside them.
        ngrams: n-grams that naive Bayes has counted; 0 is no naive Bayes.
    """

    classes: int
    tokens: int
    width: int
    kind: Kind
    pieces: int
    hidden: int
    layers: int
    bidirectional: bool
    pool: str
    skip: bool
    members: int
    delay_members: int
    ngrams: int


class Dropout(NamedTuple):
    """Shares that are dropped in training.

    Args:
        words: of whole tokens.
        input: of the numbers of the vectors.
        output: of the numbers of the pooled vector, and between layers.
        recurrent: of the state where it enters a product, one mask a sequence.
    """

    words: float = 0.0
    input: float = 0.0
    output: float = 0.0
    recurrent: float = 0.0


class Inputs(NamedTuple):
    """A batch of sequences; a part that the network has no use for has no elements.

    Args:
        x: tokens (batch, time) int64, or numbers (batch, time, features); zero behind the ends.
        lengths: (batch,), int64, >= 1.
        words: of each token its place among the batch's distinct words, (batch, time).
        pieces: numbers of the pieces of these words, one word after another.
        begins: where the pieces of each word begin.
        logs: log probabilities of naive Bayes, (batch, classes).
    """

    x: Tensor
    lengths: Tensor
    words: Tensor
    pieces: Tensor
    begins: Tensor
    logs: Tensor


def there(lengths: Tensor, time: int) -> Tensor:
    """Return which steps are real, (batch, time)."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


class Pool(nn.Module):
    r"""Makes one vector of the outputs of a sequence.

    "last" is the state after the last step (of each direction at its end), "mean" and "max" go over
    the real steps, "attention" is a mean with learned weights:

    .. math::

        \alpha_t = \mathrm{softmax}_t(u \cdot \tanh(V h_t + d)), \qquad v = \sum_t \alpha_t h_t

    Source: of the attention Yang et al. 2016, "Hierarchical attention networks for document
    classification", section 2.2.
    """

    def __init__(self, kind: str, size: int):
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.key, self.query = nn.Linear(size, size), nn.Linear(size, 1, bias=False)

    def forward(self, outputs: Tensor, last: Tensor, lengths: Tensor) -> Tensor:
        """Return (batch, size) of outputs (batch, time, size) and last states (batch, size)."""
        if self.kind == "last":
            return last
        if self.kind == "mean":
            return outputs.sum(1) / lengths.to(outputs)[:, None]
        past = ~there(lengths, outputs.shape[1])
        if self.kind == "max":
            return outputs.masked_fill(past[..., None], -torch.inf).amax(1)
        told = self.query(torch.tanh(self.key(outputs)))[..., 0]
        weights = told.masked_fill(past, -torch.inf).softmax(1)
        return (weights[..., None] * outputs).sum(1)


class Member(nn.Module):
    """One network from vectors to logits; what it pools over time is for the kinds of it to say."""

    def __init__(self, shape: Shape, size: int, dropout: Dropout):
        super().__init__()
        self.dropout, self.of_tokens = dropout, shape.tokens > 0
        self.output = nn.Linear(size, shape.classes)
        nn.init.zeros_(self.output.bias)
        self.factor = nn.Parameter(torch.tensor(_FACTOR)) if shape.ngrams else None

    def read(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return one vector of each sequence, (batch, size)."""
        raise NotImplementedError

    def forward(self, vectors: Tensor, inputs: Inputs) -> Tensor:
        """Return the logits, (batch, classes), of sequences of vectors, (batch, time, width)."""
        drop = self.dropout
        if self.training and drop.words and self.of_tokens:
            kept = torch.rand(vectors.shape[:2], device=vectors.device) >= drop.words
            vectors = vectors * kept[..., None]
        vectors = functional.dropout(vectors, drop.input, self.training)
        v = self.read(vectors, inputs.lengths)
        logits = self.output(functional.dropout(v, drop.output, self.training))
        if self.factor is not None:
            logits = logits + self.factor * inputs.logs
        return logits


class DelayMember(Member):
    r"""A delay network: units that look at a few steps at a time, the largest over time of each.

    .. math::

        h^K_t = \mathrm{relu}\Big(\sum_{k=0}^{K-1} W^K_k x_{t-k} + b^K\Big), \qquad
        v = [\max_t h^K_t]_K

    for each reach K, with windows that begin before the first step and end behind the last.

    Source: Waibel et al. 1989 (delay networks); Kim 2014, "Convolutional neural networks for
    sentence classification", equations 2 and 4 (reaches of words, the largest over time).
    """

    def __init__(self, shape: Shape, dropout: Dropout):
        super().__init__(shape, shape.hidden * len(REACHES), dropout)
        self.layers = nn.ModuleList(
            Recurrent("tdnn", shape.width, shape.hidden, hyper={"K": reach - 1, "f": "relu"},
                      batch_first=True)
            for reach in REACHES
        )  # fmt: skip

    def read(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return the largest of each unit over time; vectors behind the ends are not looked at."""
        past = ~there(lengths, vectors.shape[1])
        vectors = vectors.masked_fill(past[..., None], 0.0)
        further = functional.pad(vectors, (0, 0, 0, max(REACHES) - 1))
        found = []
        for reach, layer in zip(REACHES, self.layers, strict=True):
            outputs, _ = layer(further, lengths=lengths + reach - 1)
            found.append(outputs.amax(1))  # relu is never below the zeros behind the ends
        return torch.cat(found, 1)


class RecurrentMember(Member):
    """A recurrent network whose outputs, in one or both directions, are pooled."""

    def __init__(self, shape: Shape, cell: Cell, dropout: Dropout):
        skip = shape.skip and shape.pool != "last"
        layer = Recurrent(
            cell,
            shape.width,
            shape.hidden,
            shape.layers,
            bidirectional=shape.bidirectional,
            batch_first=True,
            dropout=dropout.output if shape.layers > 1 else 0.0,
            recurrent_dropout=dropout.recurrent,
        )
        size = layer.output_size + shape.width * skip
        super().__init__(shape, size, dropout)
        self.layer, self.skip = layer, skip
        self.pool = Pool(shape.pool, size)

    def read(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return the pooled outputs."""
        outputs, states = self.layer(vectors, lengths=lengths)
        state = states[0] if isinstance(states, tuple) else states
        last = torch.cat(list(state[-self.layer.directions :]), dim=-1)
        if self.skip:  # vectors behind the ends are zero, as outputs are
            outputs = torch.cat([outputs, vectors], dim=-1)
        pooled: Tensor = self.pool(outputs, last, lengths)
        return pooled


class ClassifyModel(nn.Module):
    r"""Tells the class of a sequence, as the mean of several networks.

    .. math::

        x_t = E_{w_t} + \frac{1}{|G_{w_t}|} \sum_{g \in G_{w_t}} S_g, \qquad
        h_{1:T} = layer(x_{1:T}), \qquad
        p_m = \mathrm{softmax}(A\, pool([h_t; x_t]_{1:T}) + b + \beta z), \qquad
        p = \frac1M \sum_m p_m

    with G the pieces of a word, where there are any, x in the pool where it is asked for, and z the
    log probabilities of naive Bayes on n-grams, where they are used. In training z is of counts
    without the very text, so that β is learned as it is needed for texts that were not seen. What
    a delay network among the members pools, `DelayMember` says.

    Args:
        shape: sizes.
        cell: of the recurrent layers.
        dropout: in training.
        counts: tensors of naive Bayes, kept beside the weights and not learned; None where they
            are not used or are to be filled in.

    Source: vectors beside the outputs, and their maximum, Lai et al. 2015, "Recurrent convolutional
    neural networks for text classification" (without its layer between); pieces of words
    Bojanowski et al. 2017, "Enriching word vectors with subword information".
    """

    def __init__(
        self,
        shape: Shape,
        cell: Cell,
        dropout: Dropout,
        counts: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        self.shape = shape
        self.vectors = self.pieces = None
        if shape.tokens:
            self.vectors = TokenVectors(shape.tokens, shape.width, shape.kind)
        if shape.pieces:
            self.pieces = nn.EmbeddingBag(shape.pieces, shape.width, mode="mean")
            nn.init.normal_(self.pieces.weight, std=shape.width**-0.5)
        self.members = nn.ModuleList(
            [RecurrentMember(shape, cell, dropout) for _ in range(shape.members)]
            + [DelayMember(shape, dropout) for _ in range(shape.delay_members)]
        )
        self.counts = None
        if shape.ngrams:
            self.counts = nn.Module()
            for name, tensor in (counts or _empty_counts(shape)).items():
                self.counts.register_buffer(name, tensor)

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the logits of every member, (members, batch, classes)."""
        vectors = self.embed(inputs)
        return torch.stack([member(vectors, inputs) for member in self.members])

    def embed(self, inputs: Inputs) -> Tensor:
        """Return the vectors that the recurrent layers read, (batch, time, width)."""
        if self.vectors is None:
            return inputs.x
        found = self.vectors(inputs.x)
        if self.pieces is not None:
            words = self.pieces(inputs.pieces, inputs.begins)
            real = there(inputs.lengths, inputs.x.shape[1])
            found = found + functional.embedding(inputs.words, words) * real[..., None]
        return found

    def log_probabilities(self, inputs: Inputs) -> Tensor:
        """Return ln p of every class, (batch, classes) float32."""
        return mean_of(self(inputs).float())


def mean_of(logits: Tensor) -> Tensor:
    """Return ln of the mean of the members' probabilities.

    Shapes:
        logits: (members, batch, classes). Returns (batch, classes).
    """
    members = torch.tensor(float(logits.shape[0]), device=logits.device)
    return logits.log_softmax(-1).logsumexp(0) - members.log()


def _empty_counts(shape: Shape) -> dict[str, Tensor]:
    return {
        "features": torch.empty(shape.ngrams, dtype=torch.int64),
        "counts": torch.empty(shape.ngrams, shape.classes),
        "rows": torch.empty(shape.classes, dtype=torch.float64),
    }
