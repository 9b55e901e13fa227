"""A trained model that tags: what users call to tag new sequences and to evaluate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import in_order, pad
from elman.data.lexicon import UNKNOWN
from elman.errors import InputError
from elman.tasks.intervals import in_words
from elman.tasks.tag.baseline import Baseline
from elman.tasks.tag.labels import Labels
from elman.tasks.tag.measure import Score, of_interest
from elman.tasks.tag.network import FrameReader, TagModel, WordReader
from elman.tasks.tag.opening import open_source
from elman.tasks.tag.options import TagOptions
from elman.tasks.tag.schemes import breaks
from elman.tasks.tag.sources import Example, Source
from elman.tasks.tag.words import Vocabulary

_READ = 512  # sequences read before they are tagged, like lengths together
_STEPS = 8000  # tagged at once, with padding

Items = Sequence[str] | np.ndarray


class Tagged(NamedTuple):
    """What a model says of one sequence: labels as in the training file, and how surely."""

    labels: list[str]
    probabilities: list[float]


class TrainedTag:
    """A model that tags, with its vocabulary, as `elman.load` returns it.

    Attributes:
        network: the torch module, in evaluation mode.
        labels: what its labels stand for.
        vocabulary: of words; None where it reads frames.

    Example:
        >>> import tempfile
        >>> from elman.tasks import build
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lines = [f"see\\tO\\n{city}\\tB-city\\n" for city in ("Rome", "Oslo", "Bern")]
        ...     _ = Path(f"{folder}/a.conll").write_text("\\n".join(lines))
        ...     task = build("tag", [f"{folder}/a.conll"], {"hidden": 4, "embedding": 3})
        >>> said = task.trained().predict(["I see Rome"])[0]
        >>> said["words"], len(said["tags"])
        (['I', 'see', 'Rome'], 3)
    """

    task = "tag"

    def __init__(
        self,
        network: TagModel,
        labels: Labels,
        vocabulary: Vocabulary | None,
        options: TagOptions,
        settings: Mapping[str, Any],
    ):
        self.network, self.labels, self.vocabulary = network.eval(), labels, vocabulary
        self.options, self.settings = options, dict(settings)
        self.held_against: Baseline | None = None

    def take_baseline(
        self, metadata: dict[str, Any], tensors: dict[str, Tensor], where: str
    ) -> None:
        """Take the baseline that the run has kept.

        Raises:
            FileError: it is none of tagging.
        """
        self.held_against = Baseline.taken(metadata, tensors, where)

    # -- tagging -----------------------------------------------------------------------------

    def tag(self, sequences: Sequence[Items]) -> list[Tagged]:
        """Tag sequences of words, or of frames.

        Args:
            sequences: lists of words, or arrays (time, features).

        Returns:
            of each its labels, and the probability of each label at its step.

        Raises:
            InputError: words for a model of frames or the other way round, or frames of another
                size.
        """
        found: list[Tagged] = [Tagged([], []) for _ in sequences]
        filled = [k for k, items in enumerate(sequences) if len(items)]
        for group in in_order([len(sequences[k]) for k in filled], size=_READ, tokens=_STEPS):
            rows = [filled[k] for k in group.tolist()]
            for k, told in zip(rows, self._tag([sequences[k] for k in rows]), strict=True):
                found[k] = told
        return found

    @torch.no_grad()
    def _tag(self, rows: Sequence[Items]) -> Iterator[Tagged]:
        inputs, lengths = self._inputs(rows)
        scores = self.network(inputs, lengths).float()
        chances = self.network.probabilities(scores, lengths)
        for row, told in enumerate(self.network.decode(scores, lengths)):
            sure = chances[row, torch.arange(len(told)), torch.tensor(told)]
            yield Tagged(self.labels.written(told), sure.clamp(0, 1).tolist())

    def _inputs(self, rows: Sequence[Items]) -> tuple[tuple[Tensor, ...], Tensor]:
        """What the network reads of sequences, and their lengths."""
        if self.vocabulary is None:
            frames, lengths = pad([self._frames(row) for row in rows])
            return (frames,), lengths
        for row in rows:
            if isinstance(row, np.ndarray):
                raise InputError("tag: this model reads words; vectors came.")
        numbers, lengths = pad([self.vocabulary.numbers(row) for row in rows])
        each: dict[str, int] = {}
        places = [np.array([each.setdefault(w, len(each)) for w in row]) for row in rows]
        return (numbers, pad(places)[0], *self.vocabulary.distinct(list(each))), lengths

    def _frames(self, row: Items) -> np.ndarray:
        reader = self.network.reader
        expected = reader.output_size if isinstance(reader, FrameReader) else 0
        found = row if isinstance(row, np.ndarray) else np.zeros(0)
        if found.ndim != 2 or found.shape[-1] != expected:
            what = f"an array of shape {found.shape}" if isinstance(row, np.ndarray) else "words"
            raise InputError(
                f"tag: this model reads vectors of {expected} numbers, (time, {expected}); "
                f"{what} came."
            )
        return found

    def predict(self, data: Any) -> list[dict[str, Any]]:
        """Tag sequences; labels that data have are not read.

        Args:
            data: a path; a list of sentences, words between blanks; a list of dictionaries with
                the columns of training; or a table with Arrow's interface.

        Returns:
            of each sequence what `elman predict --json` prints: "words", "tags", "probabilities",
            and where labels are spans "spans", each with "type", "start", "end" (from 0, the end
            not within) and "text"; of frames "labels" and "probabilities".

        Raises:
            FileError, InputError: data that cannot be read.
        """
        if isinstance(data, list | tuple) and data and all(isinstance(e, str) for e in data):
            rows = [entry.split() for entry in data]
            return [self._record(r, t) for r, t in zip(rows, self.tag(rows), strict=True)]
        source = open_source(data, self.options, labelled=False, known=self.settings)
        return [
            self._record(example.items, told)
            for part in _parts(self._checked(source))
            for example, told in self._told(part)
        ]

    def answers(self, path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each sequence in the file's format with the model's labels, and as a record.

        What else stands in the file stays as it is; line ends become those of the system.

        Args:
            path: a file of the kind that the model was trained on, with or without labels; plain
                sentences, one a line; "-" is standard input.

        Raises:
            FileError: the file cannot be read so.
        """
        source = open_source(path, self.options, labelled=False, known=self.settings)
        extra = {"note": source.note} if source.note else {}
        for part in _parts(self._checked(source)):
            for example, told in self._told(part):
                record = self._record(example.items, told) | extra
                yield source.filled(example, told.labels), record

    def _checked(self, source: Source) -> Source:
        if source.of_words != (self.vocabulary is not None):
            ours, theirs = ("words", "vectors") if self.vocabulary else ("vectors", "words")
            raise InputError(f"{source.name}: it holds {theirs}; this model reads {ours}.")
        return source

    def _told(self, part: list[Example]) -> Iterator[tuple[Example, Tagged]]:
        try:
            yield from zip(part, self.tag([e.items for e in part]), strict=True)
        except InputError as error:
            raise InputError(f"{part[0].at(0)}: {error}") from None

    def _record(self, items: Items, told: Tagged) -> dict[str, Any]:
        record: dict[str, Any] = {}
        if self.vocabulary is not None:
            record["words"] = list(items)
        record["labels" if self.vocabulary is None else "tags"] = told.labels
        record["probabilities"] = [round(p, 6) for p in told.probabilities]
        if self.labels.spans:
            record["spans"] = [
                {"type": s.type, "start": s.start, "end": s.end}
                | ({} if self.vocabulary is None else {"text": " ".join(items[s.start : s.end])})
                for s in self.labels.spans_of(told.labels)
            ]
        return record

    # -- judging -----------------------------------------------------------------------------

    def evaluate(self, data: Any) -> dict[str, Any]:
        """Measure the model on tagged sequences.

        Args:
            data: a path or paths, a list of dictionaries, or a table with Arrow's interface.

        Returns:
            "accuracy", and of spans "span_f1", "span_precision", "span_recall", "spans" and
            "by_type"; "intervals" at 95 %, by the bootstrap over sequences; "baseline", the same of
            the most frequent tag of a word; "verdict"; the numbers of sequences, tokens, and of
            words that training had not, with the "accuracy_unseen" on these.

        Raises:
            FileError, InputError: data that cannot be read, or have no labels.
        """
        ours, theirs = Score(self.labels.spans), Score(self.labels.spans)
        new: dict[str, str] = {}
        broken: list[str] = []
        unseen = [0, 0]
        many = isinstance(data, list | tuple) and data and isinstance(data[0], str | Path)
        for entry in data if many else [data]:
            source = open_source(entry, self.options, known=self.settings)
            for part in _parts(self._checked(source)):
                for example, told in self._told(part):
                    self._count(example, told, ours, theirs, new, unseen)
                    broken += self._broken(example)
        figures = ours.figures()
        judged = int(ours.table()[:, 1].sum())
        if not judged:
            raise InputError("evaluate: nothing in the data has a label, so nothing can be judged.")
        unit = "frames" if self.vocabulary is None else "tokens"
        found = {"sequences": len(ours.sums), unit: judged, **figures}
        if self.labels.spans:
            found["by_type"] = ours.by_type()
        if self.held_against is not None and self.vocabulary is not None:
            found["unseen_words"] = unseen[1]
            found["accuracy_unseen"] = unseen[0] / unseen[1] if unseen[1] else None
        found["intervals"] = ours.intervals()
        if self.held_against is not None:
            found["baseline"] = {
                "name": self.held_against.name,
                **theirs.figures(),
                "intervals": theirs.intervals(),
            }
            found["verdict"] = self._verdict(found)
        else:
            found["baseline"] = None
            found["verdict"] = "No baseline was kept with this model."
        if broken:
            found["note"] = (
                f"{len(broken):,} tag(s) break the scheme {self.labels.scheme}, the first in "
                f"{broken[0]}; spans are read as conlleval reads them"
            )
        if new:
            label, at = next(iter(new.items()))
            more = f" and {len(new) - 1} more" if len(new) > 1 else ""
            said = (
                f"{at}: the label {label!r}{more} was not seen in training; what has it counts as "
                "wrong."
            )
            found["note"] = f"{found['note']}. {said}" if broken else said
        return found

    def _broken(self, example: Example) -> list[str]:
        """Where the tags of a sentence break their scheme."""
        if not self.labels.spans:
            return []
        tags = ["O" if label is None else label for label in example.labels]
        return [
            f"{example.at(k)}: {tags[k]} {f'after {tags[k - 1]}' if k else 'at the begin'}"
            for k in breaks(tags, self.labels.scheme)
        ]

    def _count(
        self,
        example: Example,
        told: Tagged,
        ours: Score,
        theirs: Score,
        new: dict[str, str],
        unseen: list[int],
    ) -> None:
        """Count one sequence for the model and for the baseline."""
        ours.add(example.labels, told.labels)
        for k, label in enumerate(example.labels):
            if label is not None and label not in self.labels and label not in new:
                new[label] = example.at(k)
        base = self.held_against
        if base is None:
            return
        theirs.add(example.labels, base.labels(example.items))
        if base.words is not None:
            for word, one, other in zip(example.items, example.labels, told.labels, strict=True):
                if word not in base.words and one is not None:
                    unseen[0] += one == other
                    unseen[1] += 1

    def vectors(self) -> tuple[tuple[str, ...], Tensor]:
        """Return the known words, in small letters, and their learned vectors, (words, size).

        Raises:
            InputError: a model of frames, or of one-hot vectors.
        """
        reader = self.network.reader
        if self.vocabulary is None or not isinstance(reader, WordReader):
            raise InputError("this model reads vectors, and has none of its own.")
        if reader.embedding.kind != "learned":
            raise InputError("this model has no learned word vectors, but one-hot ones.")
        first = UNKNOWN + 1
        return self.vocabulary.words.tokens[first:], reader.embedding.weight.detach()[first:]

    def _verdict(self, found: Mapping[str, Any]) -> str:
        key = of_interest(self.labels.spans)
        ours, theirs = found[key], found["baseline"][key]
        name = found["baseline"]["name"]
        if ours <= theirs:
            return f"The {name} is level or ahead ({theirs:.1%}): use the baseline."
        low = found["intervals"].get(key, [ours])[0]
        high = found["baseline"]["intervals"].get(key, [theirs, theirs])[1]
        sure = "ahead of" if low > high else "ahead of, within the intervals of,"
        return f"This model is {sure} the {name} ({theirs:.1%})."

    @staticmethod
    def in_words(metrics: Mapping[str, Any]) -> list[str]:
        """Say what `evaluate` found, in lines."""
        unit = "tokens" if "tokens" in metrics else "frames"
        lines = [f"{metrics['sequences']:,} sequences, {metrics[unit]:,} {unit}"]

        def figure(key: str, of: Mapping[str, Any]) -> str:
            ends = of["intervals"].get(key)
            return f"{of[key]:.1%}" if ends is None else in_words(of[key], tuple(ends))

        keys = {"accuracy": "accuracy"} | ({"span_f1": "span F1"} if "span_f1" in metrics else {})
        base = metrics.get("baseline")
        for key, name in keys.items():
            beside = "" if base is None else f"; {base['name']} {figure(key, base)}"
            lines.append(f"{name}: {figure(key, metrics)}{beside}")
        if "span_f1" in metrics:
            lines.append(
                f"spans: precision {metrics['span_precision']:.1%}, recall "
                f"{metrics['span_recall']:.1%}, of {metrics['spans']:,}"
            )
            for kind, of in metrics["by_type"].items():
                lines.append(f"  {kind}: F1 {of['f1']:.1%} of {of['spans']:,}")
        if metrics.get("accuracy_unseen") is not None:
            lines.append(
                f"words not seen in training: {metrics['accuracy_unseen']:.1%} right of "
                f"{metrics['unseen_words']:,}"
            )
        return [*lines, metrics["verdict"]]


def _parts(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Sequences in pieces that are tagged at once, in order."""
    walk = iter(examples)
    while part := list(islice(walk, _READ)):
        yield part
