"""Telling the next item of sessions, as the training loop sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import Batches, pad
from elman.data.lexicon import UNKNOWN, Lexicon
from elman.data.parts import held_out, spread
from elman.equation import Cell
from elman.errors import InputError
from elman.tasks.base import Carry, Task
from elman.tasks.next.baseline import NAMES, Followers
from elman.tasks.next.defaults import tokens_of_a_batch
from elman.tasks.next.measure import figures, gain, score
from elman.tasks.next.network import OFFSET, NextItemModel
from elman.tasks.next.options import NextOptions
from elman.tasks.next.sessions import Sessions, read_sessions
from elman.tasks.next.trained import TrainedNext, against, as_baseline, better

_LEAST = 2  # items of a session from which something can be learned


@dataclass(frozen=True)
class Corpus:
    """Sessions to learn from and to be judged on, as numbers.

    Attributes:
        lexicon: the items.
        train, valid: sessions of at least 2 items.
        short: sessions left out because they have fewer.
        once: by number, whether an item was seen once in training.
        said: what was read.
        fingerprint: digest of the data.
    """

    lexicon: Lexicon
    train: list[np.ndarray]
    valid: list[np.ndarray]
    short: int
    once: np.ndarray
    said: str
    fingerprint: str


def read_corpus(files: Sequence[Any], options: NextOptions) -> tuple[Corpus, Sessions]:
    """Read sessions and divide them into parts.

    Raises:
        InputError: too few sessions or items, or what `read_sessions` says.
        FileError: what `read_sessions` says.
    """
    sessions = read_sessions(files, options)
    long = np.flatnonzero(sessions.lengths() >= _LEAST)
    short = len(sessions) + len(sessions.empty) - len(long)
    if not len(long):
        raise InputError(
            f"next: {len(sessions)} session(s), none of two items or more; what comes next is "
            f"learned from what came before. Read was {sessions.said}."
        )
    held = np.zeros(len(long), bool)
    if options.valid_file is None:
        named = sessions.layout.id is not None
        held = held_out([sessions.keys[i] if named else str(i) for i in long],
                        options.valid_fraction)  # fmt: skip
    train = long[~held]
    lexicon = sessions.count(train, options.min_count)
    if len(lexicon) - OFFSET < 2:
        raise InputError(
            f"next: {len(lexicon) - OFFSET} item(s) in the training part, and a model tells at "
            f"least two apart. Read was {sessions.said}."
        )
    numbers, digest = sessions.numbers(lexicon), _digest(sessions)
    valid = [numbers[i] for i in long[held]]
    if options.valid_file is not None:
        other = read_sessions([options.valid_file], told_by(sessions, options))
        valid = [part for part in other.numbers(lexicon) if len(part) >= _LEAST]
        short += len(other) + len(other.empty) - len(valid)
        digest.update(_digest(other).digest())
        if not valid:
            raise InputError(f"next: {options.valid_file}: no session of two items or more.")
    parts = [numbers[i] for i in train]
    counts = np.bincount(np.concatenate(parts), minlength=len(lexicon))
    corpus = Corpus(lexicon, parts, valid, short, counts == 1, sessions.said, digest.hexdigest())
    return corpus, sessions


def told_by(sessions: Sessions, options: NextOptions) -> NextOptions:
    """Return options in which the layout is what was found."""
    layout = sessions.layout
    found = {"layout": layout.kind, "separator": layout.separator, "id": layout.id,
             "text": layout.item, "target": None, "time": layout.time}  # fmt: skip
    return options.model_copy(update=found)


def _digest(sessions: Sessions) -> Any:
    digest = hashlib.sha256(sessions.codes.tobytes())
    digest.update(sessions.starts.tobytes())
    digest.update("\0".join([*sessions.distinct, "", *sessions.keys]).encode())
    return digest


def cut(sessions: Sequence[np.ndarray], window: int) -> list[np.ndarray]:
    """Cut long sessions into pieces of at most `window` items to be told; each goes on with the
    last item of the one before.

    Example:
        >>> [piece.tolist() for piece in cut([np.arange(6)], 2)]
        [[0, 1, 2], [2, 3, 4], [4, 5]]
    """
    return [s[a : a + window + 1] for s in sessions for a in range(0, len(s) - 1, window)]


class NextItem(Task):
    """Sessions, a network that tells their next item, and popularity and bigram beside it.

    Args:
        corpus: the sessions, divided.
        options: resolved.
        cell: that of the options.
        model: the network.
        pieces: of the training sessions.
        recommended: training options.
        seed: of weights and data order.
    """

    name = "next"
    metric = "nats_per_item"
    unit = "item"
    shared = True

    def __init__(
        self,
        corpus: Corpus,
        options: NextOptions,
        cell: Cell,
        model: NextItemModel,
        pieces: list[np.ndarray],
        *,
        recommended: dict[str, Any],
        seed: int,
    ):
        self.corpus, self.cell, self.pieces = corpus, cell, pieces
        self.config = self.options = options
        self.model = self.network = model
        self.recommended, self.seed = recommended, seed
        self.fingerprint = corpus.fingerprint
        self.batches = batches(pieces, options, len(corpus.lexicon), seed)
        self.steps_per_epoch = len(self.batches)
        self._judged: np.ndarray | None = None  # sums of the latest validation

    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each."""
        corpus, options = self.corpus, self.options
        where = options.valid_file or f"{options.valid_fraction:.0%}, chosen by their keys"
        weights = sum(weight.numel() for weight in self.model.parameters())
        lines = [
            f"sessions: {corpus.said}",
            f"sessions: {len(corpus.train):,} to train on ({sum(map(len, corpus.train)):,} items), "
            f"{len(corpus.valid):,} to validate on ({where}); {len(corpus.lexicon) - OFFSET:,} "
            f"distinct items",
        ]
        if corpus.short:
            lines.append(f"left out: {corpus.short:,} session(s) of fewer than two items")
        cuts = len(self.pieces) - len(corpus.train)
        if cuts:
            lines.append(
                f"long sessions are cut after {options.window} items in training ({cuts:,} cuts)"
            )
        return [
            *lines,
            f"model: {self.cell.name}, {options.layers} layer(s) of {options.hidden}, item vectors "
            f"of {options.embedding} at both ends, {weights:,} weights",
            f"training: at most {options.batch} sessions a batch, {self.steps_per_epoch:,} steps a "
            f"pass; dropout {options.dropout_input:g} in, {options.dropout_output:g} out",
        ]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return items, the items after them (−1 where not counted) and lengths."""
        examples = self.batches.examples(step)
        mine = self.mine(np.arange(len(examples)))
        chosen = [self.pieces[i] for i in examples[mine]]
        tokens, lengths = pad([piece[:-1] for piece in chosen])
        behind = pad([piece[1:] for piece in chosen])[0] - OFFSET
        # Drawn for the whole step, so that every process hides what one alone would.
        longest = max(len(self.pieces[i]) for i in examples) - 1
        draw = np.random.default_rng([self.seed, step]).random((len(examples), longest))
        hidden = draw[mine, : tokens.shape[1]] < self.options.unknown_rate
        tokens[torch.from_numpy(hidden & self.corpus.once[tokens.numpy()])] = UNKNOWN
        return tokens, behind.clamp(min=-1), lengths

    def start(self, step: int) -> Carry | None:
        """Return nothing: sessions carry nothing on."""
        return None

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean −ln p of the next items, nothing to carry, and their number."""
        tokens, targets, lengths = batch
        out, _ = self.network(tokens, lengths)
        counted = targets >= 0
        count = int(counted.sum())
        return self.network.loss(out[counted], targets[counted]) / max(count, 1), None, count

    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure recall among the first k, mean reciprocal rank and nats an item."""
        sums = score(self.network, self._valid(limit))
        self._judged = sums
        return figures(sums.sum(0))

    def _valid(self, limit: float | None = None) -> list[np.ndarray]:
        sessions = self.corpus.valid
        return [sessions[i] for i in spread(len(sessions), limit).tolist()]

    def sample(self) -> str | None:
        """Return a session of the validation part with what would come next."""
        training = self.model.training
        session = self.corpus.valid[0][:6]
        said = self.trained().tell([session], 3)[0]
        self.model.train(training)
        words = [self.corpus.lexicon.token(int(number)) for number in session]
        return f"{' '.join(words)} → {', '.join(item for item, _ in said)}"

    def trained(self) -> TrainedNext:
        """Return the model as users call it, in evaluation mode; it shares the weights."""
        return TrainedNext(self.network, self.corpus.lexicon, self.options, self.followers)

    @cached_property
    def followers(self) -> Followers:
        """What followed what in the training part."""
        return Followers.count_in(self.corpus.train, len(self.corpus.lexicon) - OFFSET)

    @cached_property
    def _baseline(self) -> dict[str, Any]:
        found = {
            name: figures(self.followers.judge(self.corpus.valid, name).sum(0)) for name in NAMES
        }
        return as_baseline(found)

    def baseline(self) -> dict[str, Any]:
        """Return popularity and bigram on the same split."""
        return self._baseline

    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say which is ahead, the network or the bigram."""
        name, sums = better(self._baseline), self._judged
        if sums is None or figures(sums.sum(0))["mrr"] != metrics["mrr"]:
            # the latest validation was not of the weights that are kept
            sums = score(self.network, self._valid())
        theirs = self.followers.judge(self.corpus.valid[: len(sums)], name)
        return against(metrics, {**self._baseline, "gain": gain(sums, theirs)})

    def keep_baseline(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return what followed what in training."""
        return {}, self.followers.keep()

    def metadata(self) -> dict[str, Any]:
        """Return configuration, items and equation, as plain JSON values."""
        return {
            "config": self.config.model_dump(),
            "items": self.corpus.lexicon.to_json(),
            "equation": self.cell.to_json(),
        }


def batches(pieces: Sequence[np.ndarray], options: NextOptions, tokens: int, seed: int) -> Batches:
    """Return the batches of an epoch."""
    lengths = [len(piece) - 1 for piece in pieces]
    most = tokens_of_a_batch(tokens)
    return Batches(lengths, size=options.batch or 1, tokens=most, seed=seed)
