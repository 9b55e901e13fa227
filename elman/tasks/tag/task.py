"""Tagging as the training loop sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import Batches, in_order, pad
from elman.data.parts import spread
from elman.tasks.base import Carry, Task
from elman.tasks.tag import baseline
from elman.tasks.tag.corpus import Corpus, Part
from elman.tasks.tag.measure import Score, of_interest
from elman.tasks.tag.network import FrameReader, TagModel, WordReader
from elman.tasks.tag.options import TagOptions
from elman.tasks.tag.trained import TrainedTag
from elman.tasks.tag.words import Vocabulary, WordTable

_JUDGED = 8000  # steps judged at once, with padding
_MOST_DRAWN = 200  # labels of a matrix of what is told as what
_TIE = 1e-6  # of −ln p that is added to the error, so that it decides only between equals


class Tagging(Task):
    """Tagged sequences, a network that tags, and the most frequent tags to be held against.

    Args:
        corpus: the sequences, divided.
        options: resolved.
        model: the network.
        vocabulary: of words; None for frames.
        recommended: training options.
        seed: of weights and data order.
        said: of pretrained vectors, in words.
    """

    name = "tag"
    unit = "label"
    shared = True

    def __init__(
        self,
        corpus: Corpus,
        options: TagOptions,
        model: TagModel,
        vocabulary: Vocabulary | None,
        *,
        recommended: dict[str, Any],
        seed: int,
        said: str = "",
    ):
        self._said_of_vectors = said
        self.metric = "span_error" if corpus.labels.spans else "tag_error"
        self.corpus, self.vocabulary = corpus, vocabulary
        self.config = self.options = options
        self.model = self.network = model
        self.recommended, self.seed = recommended, seed
        self.fingerprint = corpus.fingerprint
        self._table = None
        if vocabulary is not None:
            counts = corpus.counts()
            each = [counts[word] for word in corpus.words]
            self._table = WordTable(vocabulary, corpus.words, each)
        self._tags = _inner(corpus, corpus.train)
        self._pieces = _cut(corpus.train.offsets, options.longest or 1)
        lengths = np.diff(self._pieces, axis=1)[:, 0]
        self.batches = Batches(
            lengths, size=options.sentences or 1, tokens=options.tokens, seed=seed
        )
        self.steps_per_epoch = len(self.batches)

    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each."""
        corpus, options, labels = self.corpus, self.options, self.corpus.labels
        names = corpus.names[: corpus.seen]
        where = options.valid_file or f"{options.valid_fraction:.0%} of them, by hash"
        kind = (
            f"spans in {labels.scheme}, learned in {labels.inner_scheme}: " if labels.spans else ""
        )
        new = len(corpus.names) - corpus.seen
        unit = "word" if corpus.words else "frame"
        lines = [
            *corpus.said,
            f"{len(corpus.train):,} sequences to train on ({len(corpus.train.labels):,} {unit}s), "
            f"{len(corpus.valid):,} to validate on ({len(corpus.valid.labels):,}; {where})",
            f"{len(names)} labels, {kind}{', '.join(names[:12])}{' …' * (len(names) > 12)}"
            + (f"; {new} more in the validation part only, which count as wrong" if new else ""),
        ]
        weights = sum(weight.numel() for weight in self.model.parameters())
        reader = self.network.reader
        vectors = f"vectors of {reader.output_size}"
        if isinstance(reader, WordReader):
            vectors = (
                f"words: {reader.embedding.cost()}; characters "
                f"2 × {options.characters}, affixes {options.affixes}"
            )
        if self._said_of_vectors:
            lines.append(self._said_of_vectors)
        output = "CRF" if options.crf else "each label by itself"
        lines.append(
            f"model: {vectors}; {options.layers} × {self.network.cell.name} of "
            f"2 × {options.hidden}; {output}; {weights:,} weights"
        )
        lines.append(
            f"training: at most {options.sentences} sequences and {options.tokens:,} {unit}s a "
            f"batch, {self.steps_per_epoch:,} steps a pass; dropout {options.dropout_input:g} in, "
            f"{options.dropout_output:g} out"
        )
        if len(self._pieces) > len(corpus.train):
            lines.append(
                f"sequences of more than {options.longest:,} {unit}s are learned from in pieces "
                f"({len(self._pieces):,} in all)"
            )
        return lines

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return labels, lengths, and what the network reads, of a step's sequences."""
        chosen = self.mine(self.batches.examples(step))
        epoch = step // self.steps_per_epoch
        spans = [self._pieces[k] for k in chosen.tolist()]
        tags, lengths = pad([self._tags[a:b] for a, b in spans])
        inside = torch.arange(tags.shape[1]) < lengths[:, None]
        tags = torch.where(inside, tags, -1)
        items = [self.corpus.train.items[a:b] for a, b in spans]
        if self._table is None:
            return tags, lengths, pad(items)[0]
        rate = self.options.unknown_rate or 0.0
        numbers = [
            self._table.hidden(found, rate, np.random.default_rng([self.seed, epoch, int(k)]))
            for found, k in zip(items, chosen, strict=True)
        ]
        return tags, lengths, pad(numbers)[0], *self._read(items)

    def _read(self, items: list[np.ndarray]) -> tuple[Tensor, ...]:
        """Places of words among the distinct ones, and what is read of these."""
        each, places = np.unique(np.concatenate(items), return_inverse=True)
        cuts = np.cumsum([len(found) for found in items])[:-1]
        return pad(np.split(places, cuts))[0], *self._table.distinct(each)  # type: ignore[union-attr]

    def start(self, step: int) -> Carry | None:
        """Return nothing: sequences carry nothing on."""
        return None

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean −ln p of the labels, nothing to carry, and the number of labels."""
        tags, lengths, *inputs = batch
        loss = self.network.loss(tuple(inputs), lengths, tags)
        count = lengths.sum() if self.network.crf is not None else (tags >= 0).sum()
        return loss, None, int(count)

    def _judged(self, part: Part, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """Scores of sequences of a part, in groups of like length: rows, scores, lengths."""
        device = next(self.model.parameters()).device
        for group in in_order(part.lengths[rows], size=512, tokens=_JUDGED):
            chosen = rows[group]
            items = [part.items[part.offsets[r] : part.offsets[r + 1]] for r in chosen.tolist()]
            inputs: tuple[Tensor, ...] = (pad(items)[0],)
            if self._table is not None:
                known = [self._table.numbers[found] for found in items]
                inputs = (pad(known)[0], *self._read(items))
            lengths = torch.from_numpy(part.lengths[chosen]).to(device)
            scores = self.network(tuple(x.to(device) for x in inputs), lengths)
            yield chosen, scores.float(), lengths

    def _score(self, part: Part, rows: np.ndarray) -> tuple[Score, float]:
        """Count what the network says of sequences of a part; and the mean −ln p."""
        score, nats, steps = Score(self.corpus.labels.spans), 0.0, 0
        inner, corpus = _inner(self.corpus, part), self.corpus
        for chosen, scores, lengths in self._judged(part, rows):
            spans = [(part.offsets[r], part.offsets[r + 1]) for r in chosen.tolist()]
            tags, sizes = pad([inner[a:b] for a, b in spans])
            inside = torch.arange(tags.shape[1]) < sizes[:, None]
            tags = torch.where(inside, tags, -1).to(scores.device)
            nats += self.network.cost(scores, lengths, tags)
            steps += int((tags >= 0).sum())
            for row, found in zip(chosen, self.network.decode(scores, lengths), strict=True):
                score.add(corpus.texts(part, row), corpus.labels.written(found))
        return score, nats / max(steps, 1)

    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure the share of labels that are right, and F1 of spans."""
        rows = spread(len(self.corpus.valid), limit)
        with torch.no_grad():
            score, nats = self._score(self.corpus.valid, rows)
        figures = score.figures()
        best = figures[of_interest(score.spans)]
        # Of weights that are as often right, those that are surer of it are the better ones.
        error = 1 - best + _TIE * min(nats, 1.0)
        return {self.metric: error, "nats_per_label": nats, **figures}

    def keepsake(self) -> dict[str, Any] | None:
        """Return which label is told as which, on the validation part."""
        part, names = self.corpus.valid, self.corpus.names[: self.corpus.seen]
        if len(names) > _MOST_DRAWN:
            return None
        training = self.model.training
        self.model.eval()
        table = np.zeros((len(names), len(names)), dtype=np.int64)
        numbers = {name: k for k, name in enumerate(names)}
        with torch.no_grad():
            for chosen, scores, lengths in self._judged(part, np.arange(len(part))):
                told = self.network.decode(scores, lengths)
                for row, found in zip(chosen, told, strict=True):
                    written = self.corpus.labels.written(found)
                    for one, other in zip(self.corpus.texts(part, row), written, strict=True):
                        if one in numbers and other in numbers:
                            table[numbers[one], numbers[other]] += 1
        self.model.train(training)
        return {"classes": list(names), "confusion": table.tolist()}

    def sample(self) -> str | None:
        """Return a sentence of the validation part as the model tags it."""
        if self.vocabulary is None:
            return None
        training = self.model.training
        part = self.corpus.valid
        row = int(np.argmin(np.abs(part.lengths - 10)))
        words = baseline.items_of(self.corpus, part, row)
        said = self.trained().predict([" ".join(words)])[0]["tags"]  # type: ignore[arg-type]
        self.model.train(training)
        return " ".join(f"{word}/{tag}" for word, tag in zip(words, said, strict=False))

    def trained(self) -> TrainedTag:
        """Return the model as users call it, in evaluation mode; it shares the weights."""
        return TrainedTag(
            self.network, self.corpus.labels, self.vocabulary, self.options, self.corpus.settings
        )

    @cached_property
    def _fitted(self) -> baseline.Baseline:
        return baseline.fit(self.corpus, self.seed)

    @cached_property
    def _baseline(self) -> dict[str, Any]:
        score, corpus = Score(self.corpus.labels.spans), self.corpus
        for row in range(len(corpus.valid)):
            items = baseline.items_of(corpus, corpus.valid, row)
            score.add(corpus.texts(corpus.valid, row), self._fitted.labels(items))
        figures = score.figures()
        best = of_interest(score.spans)
        return {
            "name": self._fitted.name,
            self.metric: 1 - figures[best],
            **figures,
            "words": f"{self._fitted.name}: {best} {figures[best]:.1%}",
        }

    def baseline(self) -> dict[str, Any]:
        """Return the most frequent tag of each word, on the same split."""
        return self._baseline

    def keep_baseline(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return what applies the baseline to new data."""
        return self._fitted.keep()

    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say which is ahead, the network or the most frequent tag."""
        key = of_interest(self.corpus.labels.spans)
        ours, theirs = metrics[key], self._baseline[key]
        figures = f"{key} {ours:.1%} against {theirs:.1%}"
        if ours > theirs:
            return f"{figures}: this model is ahead of the {self._fitted.name}."
        return (
            f"{figures}: the {self._fitted.name} is level or ahead. Use the baseline, or train "
            "longer."
        )

    def metadata(self) -> dict[str, Any]:
        """Return configuration, vocabulary, labels and equation, as plain JSON values."""
        reader = self.network.reader
        return {
            "config": self.config.model_dump(),
            "vocabulary": None if self.vocabulary is None else self.vocabulary.to_json(),
            "features": reader.output_size if isinstance(reader, FrameReader) else None,
            "labels": self.corpus.labels.to_json(),
            "settings": self.corpus.settings,
            "equation": self.network.cell.to_json(),
        }


def _inner(corpus: Corpus, part: Part) -> np.ndarray:
    """The network's labels of a part, (steps,), int64; −1 where there is none or it is new."""
    found = np.full(len(part.labels), -1, dtype=np.int64)
    if not corpus.labels.spans:
        return np.where(part.labels < corpus.seen, part.labels, -1).astype(np.int64)
    for row in range(len(part)):
        first, end = part.offsets[row], part.offsets[row + 1]
        found[first:end] = corpus.labels.numbers(corpus.texts(part, row))
    return found


def _cut(offsets: np.ndarray, longest: int) -> np.ndarray:
    """Begin and end of pieces of at most `longest` steps, (pieces, 2)."""
    pieces: list[tuple[int, int]] = []
    for first, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        count = -(-(end - first) // longest)
        edges = [first + round(k * (end - first) / count) for k in range(count + 1)]
        pieces.extend(pairwise(edges))
    return np.array(pieces, dtype=np.int64)
