"""Telling the class of a sequence: build a task from tables or arrays, restore a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import elman.cells
from elman.data.lexicon import Lexicon
from elman.data.wordvectors import table_of
from elman.equation import Cell, hyper_as_data
from elman.equation.neighbours import gathers
from elman.errors import FileError, InputError
from elman.tasks import model_file
from elman.tasks.base import Budget, parse_options
from elman.tasks.classify import baseline, defaults, logistic
from elman.tasks.classify.baseline import Bayes, bag_of, tensors_of
from elman.tasks.classify.logistic import Logistic
from elman.tasks.classify.meaning import Meaning
from elman.tasks.classify.network import ClassifyModel, Dropout, Shape
from elman.tasks.classify.options import ClassifyOptions
from elman.tasks.classify.prepare import Divided, Part, checked_columns, divide
from elman.tasks.classify.sequences import read_as, reading_of, scaled
from elman.tasks.classify.task import Classify
from elman.tasks.classify.texts import Reading
from elman.tasks.classify.trained import TrainedClassify

__all__ = ["OPTIONS", "Classify", "ClassifyModel", "ClassifyOptions", "TrainedClassify", "build",
           "restore"]  # fmt: skip

OPTIONS = ClassifyOptions
_MOST_WORDS = 200_000  # of a vocabulary
_FIELDS = {"config", "equation", "columns", "classes"}
_OF_TEXTS, _OF_NUMBERS = {"reading", "vocabulary"}, {"centre", "spread"}


def build(
    files: Sequence[str | Path],
    options: ClassifyOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> Classify:
    """Build a task that tells classes; see `elman.tasks.build`.

    Raises:
        InputError: an unknown option, cell or column, a bad value, fewer than two classes.
        FileError: a file that cannot be read; its line is named.
    """
    if not isinstance(options, ClassifyOptions):
        options = parse_options(ClassifyOptions, options or {}, "classify")
    files = [files] if isinstance(files, str | Path) else list(files)
    data = divide(files, options)
    if isinstance(data.train.data[0], str):
        return _of_texts(data, options, budget or Budget(), seed)
    return _of_numbers(data, options, budget or Budget(), seed)


def _of_texts(data: Divided, options: ClassifyOptions, budget: Budget, seed: int) -> Classify:
    """Build a task of texts."""
    labels = Meaning(data.classes).labels(data.train.labels)
    reading, why = reading_of(options, data.train.data, labels, len(data.classes))
    meaning = Meaning(data.classes, reading)
    sequences, lengths = read_as(data.train.data, meaning.sequence)
    train = Part(sequences, labels, lengths)
    valid = _valid_part(data, meaning)
    facts = defaults.Facts(reading.level, len(labels), len(data.classes), int(lengths.sum()))
    options = defaults.choose(options.model_copy(update=_resolved(reading)), facts, budget)
    lexicon = Lexicon.count(sequences, min_count=options.min_count or 1, most=_MOST_WORDS)
    if not lexicon.to_json():
        raise InputError("train classify: no token comes as often as min_count; make it less.")
    meaning.lexicon, meaning.pieces = lexicon, options.pieces or 0
    against = baseline.tune(
        train.sequences, train.labels, valid.sequences, valid.labels, facts.classes, reading.level
    )
    if options.ngrams:
        meaning.counting, meaning.bag = against.counting, against.bag
    given = _pretrained(options, lexicon)
    if given is not None:
        options = options.model_copy(update={"embedding": given[0].shape[1]})
    lines = [*data.lines, _said_of_reading(reading, why, lexicon)]
    lines += [] if given is None else [given[1]]
    return _task(
        data, train, valid, meaning, options, facts, against, lines, budget, seed,
        None if given is None else given[0],
    )  # fmt: skip


def _of_numbers(data: Divided, options: ClassifyOptions, budget: Budget, seed: int) -> Classify:
    """Build a task of sequences of numbers."""
    for name in ("vectors", "one_hot", "pieces", "ngrams", "embedding"):
        if getattr(options, name):
            raise InputError(f"train classify: {name} is for texts, and these are numbers.")
    cut = slice(options.longest)
    centre, spread = scaled([sequence[cut] for sequence in data.train.data])
    meaning = Meaning(data.classes, centre=centre, spread=spread, longest=options.longest)
    labels = meaning.labels(data.train.labels)
    sequences, lengths = read_as(data.train.data, meaning.sequence)
    train, valid = Part(sequences, labels, lengths), _valid_part(data, meaning)
    facts = defaults.Facts("numbers", len(labels), len(data.classes), int(lengths.sum()))
    options = defaults.choose(options, facts, budget)
    against = logistic.tune(sequences, labels, valid.sequences, valid.labels, len(data.classes))
    return _task(
        data, train, valid, meaning, options, facts, against, list(data.lines), budget, seed, None
    )


def _valid_part(data: Divided, meaning: Meaning) -> Part:
    sequences, lengths = read_as(data.valid.data, meaning.sequence)
    return Part(sequences, meaning.labels(data.valid.labels), lengths)


def _resolved(reading: Reading) -> dict[str, Any]:
    """The options that a way of reading comes from."""
    return {
        "level": reading.level,
        "split": reading.split,
        "case": "lower" if reading.lower else "keep",
        "digits": reading.digits,
    }


def _said_of_reading(reading: Reading, why: str, lexicon: Lexicon) -> str:
    if reading.level == "char":
        what = "characters"
    elif reading.split == "blanks":
        what = "words between blanks"
    else:
        what = "words and punctuation"
    case = "capitals as small letters" if reading.lower else "capitals kept"
    digits = "; digits read as 0" if reading.digits else ""
    cut = f"; the first {reading.longest:,} of a text" if reading.longest else ""
    return f"tokens: {what}, {case}{why}{digits}{cut}; vocabulary {len(lexicon.to_json()):,}"


def _pretrained(options: ClassifyOptions, lexicon: Lexicon) -> tuple[np.ndarray, str] | None:
    """Vectors from a file, for the words of the lexicon that it has; zero for the others."""
    if options.vectors is None:
        return None
    if options.one_hot:
        raise InputError("train classify: one-hot vectors cannot be pretrained; leave one out.")
    return table_of(options.vectors, lexicon)


def _task(
    data: Divided,
    train: Part,
    valid: Part,
    meaning: Meaning,
    options: ClassifyOptions,
    facts: defaults.Facts,
    against: Bayes | Logistic,
    lines: list[str],
    budget: Budget,
    seed: int,
    pretrained: np.ndarray | None,
) -> Classify:
    """Make the network and the task."""
    cell, named, hyper = _cell(options)
    options = options.model_copy(update={"cell": named, "hyper": hyper})
    counts = tensors_of(meaning.bag) if meaning.bag is not None else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(meaning, options, cell, counts)
        if pretrained is not None and model.vectors is not None:
            model.vectors.begin(torch.from_numpy(pretrained))
    task = Classify(
        train,
        valid,
        meaning,
        options,
        cell,
        model,
        baseline=against,
        columns=data.columns,
        lines=lines,
        fingerprint=data.fingerprint,
        recommended={},
        seed=seed,
    )
    task.recommended.update(defaults.training(facts, budget))
    lines += defaults.in_words(options, facts, model, task.steps_per_epoch)
    return task


def _cell(options: ClassifyOptions) -> tuple[Cell, str | dict[str, Any], dict[str, Any]]:
    """The cell, as a configuration keeps it, and its hyper-parameters."""
    given = options.cell
    if isinstance(given, Mapping):
        cell = Cell.from_json(given).with_hyper(**options.hyper)
        named: str | dict[str, Any] = cell.to_json()
        hyper: dict[str, Any] = {}
    else:
        named = given or "lstm"
        cell = elman.cells.get(named).with_hyper(**options.hyper)
        hyper = hyper_as_data(cell.hyper)
    if gathers(cell.graph):
        raise InputError(
            f"train classify: {cell.name} is a cell of trees or graphs; elman cells lists those of "
            "sequences."
        )
    return cell, named, hyper


def _model(
    meaning: Meaning,
    options: ClassifyOptions,
    cell: Cell,
    counts: Mapping[str, Tensor] | None,
) -> ClassifyModel:
    tokens = 0 if meaning.lexicon is None else len(meaning.lexicon)
    width = len(meaning.centre) if meaning.centre is not None else options.embedding or 1
    shape = Shape(
        classes=len(meaning.classes),
        tokens=tokens,
        width=tokens if options.one_hot else width,
        kind="one-hot" if options.one_hot else "learned",
        pieces=meaning.pieces,
        hidden=options.hidden or 1,
        layers=options.layers or 1,
        bidirectional=bool(options.bidirectional),
        pool=options.pool or "last",
        skip=bool(options.skip),
        members=options.members or 1,
        delay_members=options.delay_members or 0,
        ngrams=0 if counts is None else len(counts["features"]),
    )
    dropout = Dropout(
        options.dropout_words or 0.0,
        options.dropout_input or 0.0,
        options.dropout_output or 0.0,
        options.dropout_recurrent or 0.0,
    )
    return ClassifyModel(shape, cell, dropout, counts)


def restore(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
) -> TrainedClassify:
    """Rebuild a trained model from the content of a model file, checking every part.

    Raises:
        FileError: something is missing, of a wrong type, or does not fit the rest.
    """
    fields = set(metadata) - {"counting"}
    if fields not in (_FIELDS | _OF_TEXTS, _FIELDS | _OF_NUMBERS):
        raise FileError(f"{where}: its metadata do not describe a classifier.")
    counts = {
        name.removeprefix("counts."): tensor
        for name, tensor in tensors.items()
        if name.startswith("counts.")
    }
    try:
        options = parse_options(ClassifyOptions, metadata["config"], f"{where}: config")
        cell = Cell.from_json(metadata["equation"])
        meaning = Meaning.from_json(metadata, options, where)
        columns = checked_columns(metadata["columns"], where)
        _see_sizes(options, meaning, tensors, counts, where)
        if counts:
            meaning.bag = bag_of(counts)
        with torch.device("meta"):
            model = _model(meaning, options, cell, counts or None)
    except InputError as error:
        raise FileError(str(error) if where in str(error) else f"{where}: {error}") from None
    model_file.fill(model, tensors, where)
    return TrainedClassify(model, meaning, columns)


def _see_sizes(
    options: ClassifyOptions,
    meaning: Meaning,
    tensors: Mapping[str, Tensor],
    counts: Mapping[str, Tensor],
    where: str,
) -> None:
    """See that nothing is built that is larger than the file.

    Raises:
        FileError: sizes that the weights do not bear out, or counts that are missing.
    """
    held = sum(weight.numel() for weight in tensors.values())
    tokens = 0 if meaning.lexicon is None else len(meaning.lexicon)
    largest = max(options.hidden or 0, options.pieces or 0, tokens, len(meaning.classes),
                  options.layers or 0, options.members or 0,
                  options.delay_members or 0)  # fmt: skip
    if min(options.hidden or 0, options.layers or 0, options.members or 0) < 1 or largest > held:
        raise FileError(f"{where}: its sizes do not fit its weights.")
    if bool(counts) != (meaning.counting is not None):
        raise FileError(f"{where}: its n-grams and what is said of them do not fit.")
