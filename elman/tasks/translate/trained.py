"""A trained model that translates: what users call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from elman.data.lexicon import UNKNOWN
from elman.errors import InputError
from elman.tasks.intervals import in_words
from elman.tasks.translate import decode, measure
from elman.tasks.translate.corpus import Part
from elman.tasks.translate.memory import NAME, TranslationMemory
from elman.tasks.translate.network import TranslationModel
from elman.tasks.translate.options import TranslateOptions
from elman.tasks.translate.pairs import Pairs, line_by_line, read_pairs, read_sources
from elman.tasks.translate.units import FIRST, Units

_AT_ONCE = 1024  # texts translated together
_SHOWN = (("bleu", "BLEU", ".1f"), ("chrf", "chrF", ".1f"), ("exact", "exact", ".1%"))


class Bounds(NamedTuple):
    """How long a translation may become.

    Attributes:
        ratio: units of the target to one of the source, at most.
        longest: units of a target, at most.
    """

    ratio: float
    longest: int

    @classmethod
    def of(cls, part: Part) -> Bounds:
        """Bounds with room above what was seen in training."""
        source = part.source.lengths[part.rows] + 1
        target = part.target.lengths[part.rows] + 1
        ratio = float(np.quantile(target / source, 0.999))
        return cls(round(1.2 * max(ratio, 0.1), 3), int(1.5 * target.max()) + 12)


class TrainedTranslation:
    """A model that translates, as `elman.load` returns it.

    Attributes:
        network: the torch module, in evaluation mode.
        units: of source and target.
        options: it was trained with.

    Example:
        >>> import tempfile
        >>> from elman.tasks import build
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/a.tsv").write_text("1+1\\t2\\n2+1\\t3\\n" * 20)
        ...     task = build("translate", [f"{folder}/a.tsv"], {"hidden": 4, "embedding": 3})
        >>> type(task.trained().translate(["1+2"])[0]).__name__
        'str'
    """

    task = "translate"

    def __init__(
        self,
        network: TranslationModel,
        units: tuple[Units, Units],
        options: TranslateOptions,
        bounds: Bounds,
        tokenizer: str,
    ):
        self.network, self.units, self.options = network.eval(), units, options
        self.bounds, self.tokenizer = bounds, tokenizer
        self._memory: TranslationMemory | None = None

    # -- translating -------------------------------------------------------------------------

    def translate(
        self, texts: Iterable[str], *, beam: int | None = None, length_penalty: float | None = None
    ) -> list[str]:
        """Return the likeliest translation of each text that the search finds.

        Args:
            texts: sources.
            beam: beginnings that the search keeps, >= 1; 1 is greedy. As trained if not given.
            length_penalty: alpha, >= 0.
        """
        return [told for told, _ in self._told(texts, beam, length_penalty)]

    def _told(
        self, texts: Iterable[str], beam: int | None = None, length_penalty: float | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Translations and what is known of them, a thousand texts at a time."""
        texts = iter(texts)
        while some := list(islice(texts, _AT_ONCE)):
            numbers = list(self.units[0].numbers(some))
            found = decode.search(
                self.network,
                numbers,
                beam=beam or self.options.beam,
                length_penalty=self.options.length_penalty
                if length_penalty is None
                else length_penalty,
                ratio=self.bounds.ratio,
                longest=self.bounds.longest,
            )
            best = [hypotheses[0] for hypotheses in found]
            copied = self._copied(some, numbers, [h.tokens for h in best])
            for row, (text, own, hypothesis) in enumerate(zip(some, numbers, best, strict=True)):
                told = self.units[1].text(hypothesis.tokens, copied.get(row)) if len(own) else ""
                record: dict[str, Any] = {
                    "source": text,
                    "translation": told,
                    "log_probability": hypothesis.log_probability,
                    "score": hypothesis.score,
                }
                if note := self._doubt(text, own, hypothesis.ended):
                    record["note"] = note
                yield told, record

    def _copied(
        self, texts: Sequence[str], numbers: Sequence[np.ndarray], told: Sequence[list[int]]
    ) -> dict[int, list[str]]:
        """For translations with an unknown unit, the piece of the source most looked at there.

        Source: Luong et al. 2015, "Addressing the rare word problem in neural machine translation".
        """
        rows = [row for row, tokens in enumerate(told) if UNKNOWN in tokens]
        if not rows or self.network.decoder.attention is None:
            return {}
        seen = decode.alignments(self.network, [numbers[r] for r in rows], [told[r] for r in rows])
        found = {}
        for row, weights in zip(rows, seen, strict=True):
            pieces = [*self.units[0].pieces(texts[row]), ""]
            found[row] = [pieces[at] for at in weights[:-1].argmax(1).tolist()]
        return found

    def _doubt(self, text: str, numbers: np.ndarray, ended: bool) -> str:
        """Words for a translation that is not to be trusted; "" where there is nothing to say."""
        shown = repr(text if len(text) <= 30 else f"{text[:30]}…")
        if not len(numbers):
            return "a source is empty, and so is its translation"
        if unknown := int((numbers == UNKNOWN).sum()):
            return f"{shown}: {unknown} of its {len(numbers)} units were not seen in training"
        if not ended:
            return f"{shown}: its translation did not end within {self.bounds.longest} units"
        return ""

    def answers(self, path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the translation of each text of a file, and the same as plain values.

        Args:
            path: lines of text, or a table with the source in the column it was trained on; "-" is
                standard input.

        Returns:
            the translation, and a dict of "source", "translation", "log_probability" (nats) and
            "score"; "note" where there is a doubt.
        """
        yield from self._told(self.read(path))

    def predict(self, data: Any) -> list[dict[str, Any]]:
        """Return for each text what `answers` gives.

        Args:
            data: texts, a path, dictionaries, or a table with Arrow's C interface.
        """
        return [record for _, record in self._told(self.read(data))]

    def read(self, data: Any) -> Sequence[str]:
        """Return the sources of data of any kind that `predict` takes."""
        return read_sources(data, self.options.text)

    def alignment(self, text: str, translation: str | None = None) -> Alignment:
        """Return where the decoder looks in a source while it tells a translation.

        Args:
            text: the source.
            translation: told; the model's own if not given.

        Raises:
            InputError: the model has no attention.
        """
        if self.network.decoder.attention is None:
            raise InputError("this model was trained without attention, so there is none to show.")
        translation = self.translate([text])[0] if translation is None else translation
        source, target = (
            next(units.numbers([side]))
            for units, side in zip(self.units, (text, translation), strict=True)
        )
        weights = decode.alignments(self.network, [source], [target.tolist()])[0]
        pieces = [
            [*units.pieces(side), "</s>"]
            for units, side in zip(self.units, (text, translation), strict=True)
        ]
        return Alignment(pieces[0], pieces[1], weights)

    def vectors(self) -> tuple[list[str], Tensor]:
        """Return units of the source that begin a word (all, of characters) and their vectors.

        Shapes:
            vectors: (units, embedding).
        """
        names = self.units[0].lexicon.tokens
        rows = [row for row, name in enumerate(names) if row >= FIRST and name.startswith(" ")]
        if self.units[0].level == "char":
            rows = list(range(FIRST, len(names)))
        weight = self.network.vectors.weight.detach()
        return [names[row].strip() or "␣" for row in rows], weight[rows]

    # -- measuring ---------------------------------------------------------------------------

    def take_baseline(
        self, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
    ) -> None:
        """Take the translation memory that was kept beside the model."""
        self._memory = TranslationMemory.of_kept(metadata, tensors, where)

    def evaluate(self, files: Any) -> dict[str, Any]:
        """Measure the model on pairs.

        Args:
            files: as in training: a table, two files line by line, or rows in memory.

        Returns:
            "bleu", "chrf", "exact", "signature", "intervals", "by_length", "sentences"; "baseline"
            with the same of the translation memory, and "verdict".

        Raises:
            FileError, InputError: as `elman.tasks.translate.pairs.read_pairs`; no pair.
        """
        if isinstance(files, list) and len(files) == 1 and isinstance(files[0], str | Path):
            files = files[0]
        pairs = self._pairs(files)
        source, right = list(pairs.source), list(pairs.target or ())
        sides = zip(source, right, strict=True)
        there = [row for row, (a, b) in enumerate(sides) if a.strip() and b.strip()]
        left = len(source) - len(there)
        source, right = [source[r] for r in there], [right[r] for r in there]
        found = measure.measure(
            self.translate(source), right, tokenizer=self.tokenizer, sources=source
        )
        if left:
            found["note"] = f"{left} pair(s) with an empty side are left out"
        if self._memory is not None:
            theirs = measure.measure(self._memory.answer(source), right, tokenizer=self.tokenizer)
            kept = {name: theirs[name] for name in ("bleu", "chrf", "exact", "intervals")}
            found["baseline"] = {"name": NAME, **kept}
            found["verdict"] = self.compare(found, theirs)
        else:
            found["baseline"] = None
            found["verdict"] = "No baseline was kept with this model."
        return found

    def _pairs(self, files: Any) -> Pairs:
        """Pairs to measure on, in the columns of training where the data have them."""
        names = (self.options.text, self.options.target)
        if line_by_line(files):
            names = (None, None)
        return read_pairs(files, *names, where="evaluate")

    @staticmethod
    def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
        """Say which is ahead, the network or the translation memory."""
        either = ours["bleu"] or theirs["bleu"]
        key, name, scale = ("bleu", "BLEU", 1) if either else ("exact", "percent exact", 100)
        figures = f"{name} {scale * ours[key]:.1f} against {scale * theirs[key]:.1f}"
        if ours[key] > theirs[key]:
            return f"{figures}: this model is ahead of the {NAME}."
        return f"{figures}: the {NAME} is level or ahead. Use the baseline, or train longer."

    @staticmethod
    def in_words(metrics: Mapping[str, Any]) -> list[str]:
        """Say what `evaluate` found, in lines."""
        spans = metrics["intervals"]
        lines = [f"{metrics['sentences']:,} pairs"]
        for key, name, form in _SHOWN:
            lines.append(f"{name}: {in_words(metrics[key], tuple(spans[key]), form)}")
        for row in metrics["by_length"]:
            unit = "words" if "words" in row else "characters"
            lines.append(
                f"  {row[unit]} {unit}: {row['sentences']:,} pairs, BLEU {row['bleu']:.1f}, "
                f"{row['exact']:.1%} exact"
            )
        if theirs := metrics.get("baseline"):
            lines.append(
                f"{theirs['name']}: BLEU {theirs['bleu']:.1f}, chrF {theirs['chrf']:.1f}, "
                f"{theirs['exact']:.1%} exact"
            )
        return [*lines, metrics["verdict"], metrics["signature"]]


class Alignment(NamedTuple):
    """Where a decoder looked.

    Attributes:
        source: units of the source, and its end.
        target: units of the translation, and its end.
        weights: (target, source), each row's sum 1.
    """

    source: list[str]
    target: list[str]
    weights: np.ndarray
