"""A trained classifier: what users call to predict and to evaluate."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import in_order
from elman.errors import InputError
from elman.tasks.classify import measure
from elman.tasks.classify.baseline import Bayes, taken
from elman.tasks.classify.corpus import Examples
from elman.tasks.classify.credit import Decided, coloured, decided
from elman.tasks.classify.logistic import Logistic
from elman.tasks.classify.meaning import Meaning
from elman.tasks.classify.network import ClassifyModel
from elman.tasks.classify.plain import STDIN, is_plain, lines_of, on_disk
from elman.tasks.classify.prepare import cleaned, read_like
from elman.tasks.intervals import in_words

_JUDGED, _JUDGED_TOKENS = 128, 40_000  # sequences and tokens judged at once
_PART = 4096  # rows read ahead by `answers`
_SHOWN = 5


@torch.no_grad()
def tell(network: ClassifyModel, meaning: Meaning, sequences: Sequence[Any]) -> np.ndarray:
    """Return ln p of every class, (sequences, classes) float64, in evaluation mode.

    Args:
        network: its mode is left as it was.
        meaning: of its numbers.
        sequences: tokens, or scaled numbers, as `Meaning.sequence` returns them.
    """
    training = network.training
    network.eval()
    device = next(network.parameters()).device
    logs = np.zeros((len(sequences), len(meaning.classes)))
    lengths = [max(len(sequence), 1) for sequence in sequences]
    for chosen in in_order(lengths, size=_JUDGED, tokens=_JUDGED_TOKENS):
        inputs = meaning.inputs([sequences[i] for i in chosen])
        inputs = type(inputs)(*(part.to(device) for part in inputs))
        logs[chosen] = network.log_probabilities(inputs).double().cpu().numpy()
    network.train(training)
    return logs


class TrainedClassify:
    """A classifier with its vocabulary, as `elman.load` returns it.

    Attributes:
        network: the torch module, in evaluation mode.
        meaning: classes, vocabulary, scaling.
        columns: of the data it was trained on.
        against: the baseline, where it was kept.

    Example:
        >>> import tempfile
        >>> from elman.tasks import build
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = "".join(f"good\\ta fine {i}\\nbad\\tdull stuff {i}\\n" for i in range(30))
        ...     _ = Path(f"{folder}/a.tsv").write_text(rows)
        ...     task = build("classify", [f"{folder}/a.tsv"], {"hidden": 4, "members": 1})
        >>> model = task.trained()
        >>> said = model.predict(["a fine film", "stuff"])
        >>> [row["label"] in ("good", "bad") for row in said]
        [True, True]
    """

    task = "classify"

    def __init__(self, network: ClassifyModel, meaning: Meaning, columns: Mapping[str, Any]):
        self.network, self.meaning, self.columns = network.eval(), meaning, dict(columns)
        self.against: Bayes | Logistic | None = None

    def take_baseline(
        self, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
    ) -> None:
        """Take the baseline that the run kept, so that `evaluate` can compare.

        Raises:
            FileError: it is none of this model's.
        """
        self.against = taken(metadata, tensors, len(self.meaning.classes), where)

    # -- answers -----------------------------------------------------------------------------

    def predict(self, data: Any) -> list[dict[str, Any]]:
        """Return the class of each sequence.

        Args:
            data: a path (see `answers`), a list of texts, a list of dictionaries or a table with
                Arrow's C interface with the columns of the training data, or a list of arrays
                (time, features). A label, where there is one, is not read.

        Returns:
            for each a dictionary of "label", its "probability", and "probabilities" of all classes.

        Raises:
            InputError: data of another kind than the model's.
            FileError: a file that cannot be read.
        """
        return [record for _, record in self._records(self._examples(data, "predict"))]

    def answers(self, path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield for each sequence of a file a line and a dictionary, as `predict` returns them.

        Args:
            path: a file of the kind that was trained on, with or without labels; for texts also a
                file with a text a line. "-" is standard input.

        Returns:
            the line has label, probability and text (on a terminal coloured by what decided), with
            TABs between.
        """
        examples = self._examples(str(path), "predict")
        reading = self.meaning.reading
        in_colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        for i, (line, record) in enumerate(self._records(examples)):
            if reading is None:
                yield line, record
                continue
            text = " ".join(examples.data[i].split())
            if in_colour and text:
                space = " " if reading.level == "word" else ""
                text = coloured(decided(self, text), space)
            yield f"{line}\t{text}", record

    def _records(self, examples: Examples) -> Iterator[tuple[str, dict[str, Any]]]:
        names = self.meaning.classes
        for first in range(0, len(examples), _PART):
            some = examples.data[first : first + _PART]
            logs = tell(self.network, self.meaning, [self.meaning.sequence(s) for s in some])
            for i, row in enumerate(np.exp(logs)):
                best = int(row.argmax())
                record: dict[str, Any] = {"label": names[best], "probability": float(row[best])}
                record["probabilities"] = dict(zip(names, row.tolist(), strict=True))
                if isinstance(some[i], str) and not some[i].strip():
                    place = examples.place(first + i)
                    record["note"] = f"{place}: the text is empty, and read as one unknown token"
                yield f"{names[best]}\t{row[best]:.3f}", record

    def _examples(self, data: Any, where: str, *, labels: bool = False) -> Examples:
        """Read data of any kind that `predict` and `evaluate` take."""
        if isinstance(data, str | Path):
            with on_disk(str(data)) as path:
                if not labels and is_plain(path, self.columns):
                    return _given(lines_of(path), STDIN if data == "-" else str(data))
                return self._checked(read_like([path], self.columns, where, labels=labels))
        if isinstance(data, Sequence) and not len(data):
            raise InputError(f"{where}: the list of data is empty.")
        if isinstance(data, Sequence) and not labels:
            if isinstance(data[0], str) and self.meaning.reading is not None:
                return _given(data)
            if isinstance(data[0], np.ndarray) and self.meaning.reading is None:
                return self._checked(_given([np.asarray(a, np.float32) for a in data]))
        given = list(data) if isinstance(data, Sequence) else data
        return self._checked(read_like(given, self.columns, where, labels=labels))

    def _checked(self, examples: Examples) -> Examples:
        """See that sequences of numbers have the features that were trained on."""
        if self.meaning.centre is not None:
            needed = len(self.meaning.centre)
            for i, sequence in enumerate(examples.data):
                if sequence.ndim != 2 or sequence.shape[1] != needed or not len(sequence):
                    raise InputError(
                        f"{examples.place(i)}: a sequence of shape {sequence.shape}; expected "
                        f"(time, {needed})."
                    )
        return examples

    def tell(self, sequences: Sequence[Any]) -> np.ndarray:
        """Return ln p of every class, (sequences, classes), of what `Meaning.sequence` returns."""
        return tell(self.network, self.meaning, sequences)

    def examples(self, data: Any) -> Examples:
        """Return what `predict` would read of data of any kind that it takes."""
        return self._examples(data, "predict")

    def decided(self, data: str | np.ndarray) -> Decided:
        """Return the class of one sequence and what it owes to each token or time step.

        Args:
            data: a text, or an array (time, features); see `elman.tasks.classify.credit.decided`.
        """
        return decided(self, data)

    # -- measuring ---------------------------------------------------------------------------

    def evaluate(self, data: Any) -> dict[str, Any]:
        """Measure the model, and the baseline beside it, on labelled data.

        A label that training had not counts as wrong, and is named. Rows without a label or without
        a text are left out, and named.

        Args:
            data: a path, a list of paths, a list of dictionaries, or a table with Arrow's C
                interface.

        Returns:
            "accuracy", "macro_f1", "nats_per_sequence", "sequences", "by_class" (precision, recall,
            F1 and count), "intervals" (95 %, by the bootstrap over sequences), "baseline" (the same
            figures of the baseline), "ahead" (the difference of the accuracies with its interval),
            "verdict" in words; "unseen" and "note" where something was odd.

        Raises:
            InputError: data without labels, or of another kind.
            FileError: a file that cannot be read.
        """
        examples = self._examples(data, "evaluate", labels=True)
        examples, notes = cleaned(examples)
        sequences = [self.meaning.sequence(d) for d in examples.data]
        labels = self.meaning.labels(examples.labels)
        unseen = sorted({n for n, k in zip(examples.labels, labels, strict=True) if k < 0})
        names = [*self.meaning.classes, *unseen]
        place = {name: i for i, name in enumerate(names)}
        true = np.array([place[name] for name in examples.labels])
        logs = tell(self.network, self.meaning, sequences)
        told, known = logs.argmax(1), labels >= 0
        nats = -logs[known, labels[known]].mean() if known.any() else None
        found: dict[str, Any] = {
            "sequences": len(sequences),
            **measure.figures(true, told, len(self.meaning.classes)),
            "nats_per_sequence": None if nats is None else float(nats),
            "intervals": measure.intervals(true, told, len(self.meaning.classes)),
            "by_class": measure.by_class(true, told, names),
        }
        if unseen:
            shown = ", ".join(map(repr, unseen[:_SHOWN])) + " …" * (len(unseen) > _SHOWN)
            count = int((~known).sum())
            notes.append(f"training had no class {shown}: {count:,} of the rows, counted as wrong")
            found["unseen"] = unseen
        if notes:
            found["note"] = "; ".join(notes)
        return found | self._compared(true, told, sequences, found["accuracy"])

    def _compared(
        self, true: np.ndarray, told: np.ndarray, sequences: Sequence[Any], accuracy: float
    ) -> dict[str, Any]:
        """The baseline's figures on the same data, and who is ahead."""
        if self.against is None:
            return {"baseline": None, "verdict": "No baseline was kept with this model."}
        classes = len(self.meaning.classes)
        theirs = self.against.scores(sequences).argmax(1)
        figures = measure.figures(true, theirs, classes)
        baseline = {"name": self.against.name, **figures,
                    "intervals": measure.intervals(true, theirs, classes)}  # fmt: skip
        ahead = {"accuracy": accuracy - figures["accuracy"],
                 "interval": measure.ahead(true, told, theirs)}  # fmt: skip
        said = verdict(accuracy, figures["accuracy"], self.against.name)
        return {"baseline": baseline, "ahead": ahead, "verdict": said}

    @staticmethod
    def in_words(metrics: Mapping[str, Any]) -> list[str]:
        """Say what `evaluate` found, in lines."""
        lines = [f"{metrics['sequences']:,} sequences", _line("this model", metrics)]
        baseline = metrics["baseline"]
        if baseline is not None:
            lines.append(_line(baseline["name"], baseline))
            low, high = metrics["ahead"]["interval"]
            lines.append(
                f"difference: {100 * metrics['ahead']['accuracy']:+.1f} points "
                f"({100 * low:+.1f} to {100 * high:+.1f})"
            )
        return [*lines, metrics["verdict"]]

    def vectors(self) -> tuple[tuple[str, ...], Tensor]:
        """Return the known tokens and their learned vectors, (tokens, size), pieces added.

        Raises:
            InputError: a model of numbers, or of one-hot vectors.
        """
        lexicon = self.meaning.lexicon
        table = self.network.vectors
        if lexicon is None or table is None or table.kind != "learned":
            raise InputError("this model has no learned token vectors.")
        first = len(lexicon.tokens) - len(lexicon.to_json())
        tokens, weights = lexicon.tokens[first:], table.weight.detach()[first:]
        if self.network.pieces is not None:
            inputs = self.meaning.inputs([[token] for token in tokens])
            with torch.no_grad():
                weights = self.network.embed(inputs)[:, 0]
        return tokens, weights


def _given(data: Sequence[Any], file: str = "") -> Examples:
    """Examples of a list in memory, or of the lines of a file."""

    def place(i: int) -> str:
        return f"{file}, line {i + 1}" if file else f"entry {i}"

    return Examples(data, [""] * len(data), place, file or "the data given", "")


def _line(name: str, metrics: Mapping[str, Any]) -> str:
    sure = metrics["intervals"]
    accuracy = in_words(metrics["accuracy"], sure["accuracy"])
    f1 = f"{metrics['macro_f1']:.3f}"
    if sure["macro_f1"] is not None:
        f1 = in_words(metrics["macro_f1"], sure["macro_f1"], ".3f")
    return f"{name}: {accuracy} right, macro-F1 {f1}"


def verdict(ours: float, theirs: float, name: str) -> str:
    """Say which of two accuracies is ahead, and what to use.

    Example:
        >>> verdict(0.8, 0.9, "naive Bayes on words")
        '80.0% right against 90.0%: naive Bayes on words is ahead. Use the baseline.'
    """
    figures = f"{ours:.1%} right against {theirs:.1%}"
    if ours > theirs:
        return f"{figures}: this model is ahead of {name}."
    if ours == theirs:
        return f"{figures}: {name} is level. Use the baseline."
    return f"{figures}: {name} is ahead. Use the baseline."
