"""A trained model of captions: what users call to let it write and to measure it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from elman.data.lexicon import UNKNOWN
from elman.errors import InputError, nearest
from elman.tasks.caption.baseline import Baseline, Texts
from elman.tasks.caption.corpus import Meaning
from elman.tasks.caption.likeness import compare
from elman.tasks.caption.measure import (
    against,
    conditions,
    figures,
    judged,
    nats_of,
    scaled,
)
from elman.tasks.caption.network import CaptionModel
from elman.tasks.caption.options import CaptionOptions
from elman.tasks.caption.rows import Rows, read_rows
from elman.tasks.caption.writing import drawn, likeliest
from elman.tasks.intervals import in_words

_ROWS = 64  # written at once
_MOST_WRITTEN = 1000  # texts written in an evaluation


class Written(NamedTuple):
    """A text and its probability given the class or vector."""

    text: str
    probability: float


class TrainedCaption:
    """A model of captions, as `elman.load` returns it.

    Attributes:
        network: the torch module, in evaluation mode.
        meaning: its tokens and classes.
        options: with the columns of the files it was trained on.
        baseline: where it was kept.

    Example:
        >>> import tempfile
        >>> from elman.tasks import build
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/a.csv").write_text("label,text\\n" + "1,one\\n2,two\\n" * 20)
        ...     task = build("caption", [f"{folder}/a.csv"], {"hidden": 4})
        >>> model = task.trained()
        >>> said = model.predict([{"label": "1"}, {"label": "2"}])
        >>> [sorted(row) for row in said][0]
        ['label', 'probability', 'text']
        >>> len(model.generate("1", count=3, seed=1))
        3
    """

    task = "caption"

    def __init__(self, network: CaptionModel, meaning: Meaning, options: CaptionOptions):
        self.network, self.meaning, self.options = network.eval(), meaning, options
        self.baseline: Baseline | None = None

    def take_baseline(
        self, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
    ) -> None:
        """Take what `Captioning.keep_baseline` kept.

        Raises:
            FileError: it does not fit the model.
        """
        size, end = len(self.meaning.lexicon), self.meaning.end
        self.baseline = Baseline.of(metadata, tensors, size, end, where)

    # -- writing -----------------------------------------------------------------------------

    def predict(self, data: Any) -> list[dict[str, Any]]:
        """Write the likeliest text for every row.

        Args:
            data: a file with the columns of training but the texts, a list of dicts, or an object
                with Arrow's C interface.

        Returns:
            for each row a dict of "label" (where there are classes), "text" and "probability".

        Raises:
            FileError: data that cannot be read, a class that training had not; the line is named.
            InputError: a column that is missing.
        """
        rows = self._rows(data, answered=False)
        found = []
        for row, told in enumerate(self.write(self._texts(rows))):
            record: dict[str, Any] = {}
            if rows.labels is not None and self.meaning.classes:
                record["label"] = rows.labels[row]
            found.append({**record, "text": told.text, "probability": told.probability})
        return found

    def answers(self, path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the likeliest text for each row of a file, and the same as plain values.

        Args:
            path: a file with the columns of training but the texts; "-" is standard input.

        Returns:
            the text, behind its class and a tab where there are classes; and a dict as of
            `predict`.
        """
        for record in self.predict(path):
            label = f"{record['label']}\t" if "label" in record else ""
            yield f"{label}{record['text']}", record

    def write(self, texts: Texts, width: int | None = None) -> list[Written]:
        """Return the likeliest text for each row, by beam search."""
        found = []
        for part in _parts(texts):
            u = self.network.condition(*(p.to(self.network.mean.device) for p in conditions(part)))
            best = likeliest(
                self.network, u, end=self.meaning.end, width=width or self.options.beam,
                most=self.options.most or 1, length_penalty=self.options.length_penalty,
            )  # fmt: skip
            found += [
                Written(self.meaning.text(row[0].tokens), math.exp(row[0].log_probability))
                for row in best
            ]
        return found

    def draw(self, texts: Texts, *, temperature: float, top_p: float, seed: int) -> list[str]:
        """Return a drawn text for each row."""
        u = self.network.condition(*(p.to(self.network.mean.device) for p in conditions(texts)))
        numbers = drawn(
            self.network, u, end=self.meaning.end, most=self.options.most or 1,
            temperature=temperature, top_p=top_p, seed=seed,
        )  # fmt: skip
        return [self.meaning.text(row) for row in numbers]

    def generate(
        self,
        label: str | None = None,
        vector: Sequence[float] | None = None,
        *,
        count: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """Draw texts for a class, a vector, or both; the same seed gives the same texts.

        Args:
            label: a class of training.
            vector: numbers as in training.
            count: how many texts, >= 1.
            temperature: below 1 plays safe, 0 takes the likeliest token each time; >= 0.
            top_p: draw from the fewest tokens that have this share of the probability, in (0, 1].
            seed: of the draws, >= 0.

        Raises:
            InputError: a class that training had not, a value out of range, or a class or vector
                too many or too few.
        """
        if count < 1 or seed < 0 or not 0 <= temperature < math.inf or not 0 < top_p <= 1:
            raise InputError(
                f"generate: count {count}, seed {seed}, temperature {temperature}, top_p {top_p}; "
                "expected at least 1, 0 and 0, and a share above 0 and up to 1."
            )
        labels, vectors = self._condition(label, vector)
        texts = Texts(
            [np.zeros(0, np.int64)] * count,
            None if labels is None else labels.repeat(count),
            None if vectors is None else vectors[None].repeat(count, 0),
        )
        return self.draw(texts, temperature=temperature, top_p=top_p, seed=seed)

    def _condition(
        self, label: str | None, vector: Sequence[float] | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        classes, features = self.meaning.classes, self.meaning.features
        if (label is None) == bool(classes) or (vector is None) == bool(features):
            needs = [f"a class (label), one of {', '.join(classes[:20])}"] if classes else []
            needs += [f"a vector of {features} numbers"] if features else []
            raise InputError(f"generate: this model writes from {' and '.join(needs)}.")
        if label is not None and label not in classes:
            raise InputError(
                f"generate: the class {label!r} is not among those of training, "
                f"{', '.join(classes[:20])}.{nearest(label, classes)}"
            )
        numbers = None if vector is None else np.asarray(vector, np.float32)
        if numbers is not None and (numbers.shape != (features,) or not np.isfinite(numbers).all()):
            raise InputError(
                f"generate: a vector of shape {numbers.shape}; expected {features} finite numbers."
            )
        return (None if label is None else np.array([classes.index(label)])), numbers

    def vectors(self) -> tuple[list[str], Tensor]:
        """Return the tokens behind the marks, and their learned vectors, (tokens, embedding)."""
        first = self.meaning.end + 1
        weight = self.network.decoder.vectors.weight.detach()
        return list(self.meaning.lexicon.tokens[first:]), weight[first:]

    # -- measuring ---------------------------------------------------------------------------

    def evaluate(self, data: Any) -> dict[str, Any]:
        """Measure the model on rows with their texts.

        Args:
            data: files of the kind it was trained on, or what `predict` takes.

        Returns:
            "nats_per_char" and "bits_per_char" given the class or vector (the end of a text counts
            as a character), "captions", "characters", "unknown" tokens, and, where each has one
            right text, "exact" (the share of likeliest texts that are it) and "chrf" (0 to 100), of
            at most 1,000 rows; "intervals", and, where the baseline was kept, "baseline" and
            "verdict".

        Raises:
            FileError: a file that cannot be read, a class that training had not.
            InputError: a column that is missing.
        """
        rows = self._rows(data, answered=True)
        texts, right = self._texts(rows), rows.texts or []
        characters = self.meaning.characters(right)
        nats = nats_of(self.network, texts, self.meaning.end)
        first = np.arange(min(len(right), _MOST_WRITTEN))
        compared = None
        if self.meaning.single:
            written = [told.text for told in self.write(texts.some(first))]
            compared = compare(written, right[: len(first)])
        found: dict[str, Any] = {
            "captions": len(right),
            "characters": int(characters.sum()),
            "unknown": int(sum((text == UNKNOWN).sum() for text in texts.tokens)),
            **figures(nats, characters, compared),
        }
        if self.baseline is not None:
            others = scaled(self.network, texts)
            found["baseline"] = judged(
                self.baseline, others, characters, right, self.meaning, (nats, compared)
            )
            found["verdict"] = against(found, found["baseline"])
        else:
            found["note"] = "no baseline was kept with this model, so it is held against nothing"
        return found

    @staticmethod
    def in_words(metrics: Mapping[str, Any]) -> list[str]:
        """Say what `evaluate` found, in lines."""
        ends, baseline = metrics["intervals"], metrics.get("baseline", {})
        lines = [f"{metrics['captions']:,} texts, {metrics['characters']:,} characters with ends"]
        if metrics["unknown"]:
            lines.append(f"{metrics['unknown']:,} tokens not in training, counted as <unk>")
        forms = {"nats_per_char": ".3f", "bits_per_char": ".3f", "exact": ".1%", "chrf": ".1f"}
        for name, form in forms.items():
            if name in metrics:
                line = f"{name.replace('_', ' ')}: {in_words(metrics[name], ends[name], form)}"
                if baseline:
                    line += f"; {baseline['name']} {baseline[name]:{form}}"
                lines.append(line)
        return [*lines, baseline["words"], metrics["verdict"]] if baseline else lines

    def _rows(self, data: Any, *, answered: bool) -> Rows:
        return read_rows(data, self.options, answered=answered)

    def _texts(self, rows: Rows) -> Texts:
        return self.meaning.texts(rows)


def _parts(texts: Texts) -> Iterator[Texts]:
    """Rows in pieces that are written at once."""
    for first in range(0, texts.rows(), _ROWS):
        yield texts.some(np.arange(first, min(first + _ROWS, texts.rows())))
