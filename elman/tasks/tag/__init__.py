"""Models that tag sequences: build one from tagged sequences, restore one from a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import elman.cells
from elman.data.wordvectors import table_of
from elman.equation import Cell, hyper_as_data
from elman.equation.neighbours import gathers
from elman.errors import FileError, InputError
from elman.tasks import model_file
from elman.tasks.base import Budget, parse_options
from elman.tasks.tag import defaults
from elman.tasks.tag.corpus import read_corpus
from elman.tasks.tag.labels import Labels
from elman.tasks.tag.network import FrameReader, TagModel, WordReader
from elman.tasks.tag.options import TagOptions
from elman.tasks.tag.task import Tagging
from elman.tasks.tag.trained import TrainedTag
from elman.tasks.tag.words import Vocabulary

__all__ = ["OPTIONS", "TagModel", "TagOptions", "Tagging", "TrainedTag", "build", "restore"]

OPTIONS = TagOptions


def build(
    files: Sequence[str | Path],
    options: TagOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> Tagging:
    """Build a task of tagging; see `elman.tasks.build`.

    Raises:
        InputError: an unknown option, cell or column, a bad value, too few sequences or labels.
        FileError: a file that cannot be read as tagged sequences; the error has the line.
    """
    if not isinstance(options, TagOptions):
        options = parse_options(TagOptions, options or {}, "tag")
    files = [files] if isinstance(files, str | Path) else list(files)
    corpus = read_corpus(files, options)
    options = defaults.choose(corpus, options)
    cell, named, hyper = _cell(options)
    options = options.model_copy(update={"cell": named, "hyper": hyper})
    vocabulary, features = None, 0
    if corpus.words:
        vocabulary = Vocabulary.count(corpus.counts(), options.min_count or 1)
    else:
        features = corpus.train.items.shape[1]
    table, said = _pretrained(options, vocabulary)
    if table is not None:
        options = options.model_copy(update={"embedding": table.shape[1]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(options, cell, corpus.labels, vocabulary, features)
    if table is not None and isinstance(model.reader, WordReader):
        model.reader.embedding.begin(torch.from_numpy(table))
    if isinstance(model.reader, FrameReader):
        model.reader.fit(corpus.train.items)
    task = Tagging(corpus, options, model, vocabulary, recommended={}, seed=seed, said=said)
    task.recommended = defaults.learning(corpus, budget, task.steps_per_epoch)
    return task


def _pretrained(
    options: TagOptions, vocabulary: Vocabulary | None
) -> tuple[np.ndarray | None, str]:
    """Vectors of the words from a file, if one is named, and what is said of them."""
    if options.vectors is None:
        return None, ""
    if vocabulary is None or options.one_hot:
        what = "sequences of vectors have no words" if vocabulary is None else "one-hot is not"
        raise InputError(f"train tag: pretrained vectors are of words, and {what}; leave one out.")
    return table_of(options.vectors, vocabulary.words)


def _cell(options: TagOptions) -> tuple[Cell, str | dict[str, Any], dict[str, Any]]:
    """The cell, as a configuration keeps it, and its hyper-parameters."""
    if isinstance(options.cell, Mapping):
        cell = Cell.from_json(options.cell).with_hyper(**options.hyper)
        named: str | dict[str, Any] = cell.to_json()
        hyper: dict[str, Any] = {}
    else:
        named = options.cell or "lstm"
        cell = elman.cells.get(named).with_hyper(**options.hyper)
        hyper = hyper_as_data(cell.hyper)
    if gathers(cell.graph) or len(cell.graph.inputs) > 1:
        raise InputError(f"train tag: {cell.name} is no cell of plain sequences; see elman cells.")
    return cell, named, hyper


def _model(
    options: TagOptions, cell: Cell, labels: Labels, vocabulary: Vocabulary | None, features: int
) -> TagModel:
    reader: WordReader | FrameReader = FrameReader(features)
    if vocabulary is not None:
        reader = WordReader(
            len(vocabulary.words),
            None if options.one_hot else options.embedding or 1,
            (len(vocabulary.characters), options.character_embedding or 1, options.characters or 0),
            [len(lexicon) for lexicon in vocabulary.affixes],
            options.affixes or 0,
        )
    dropout = (options.dropout_input, options.dropout_between, options.dropout_output)
    return TagModel(
        reader,
        cell,
        options.hidden or 1,
        options.layers or 1,
        len(labels.inner),
        crf=bool(options.crf),
        allowed=labels.allowed(),
        dropout=(dropout[0] or 0.0, dropout[1] or 0.0, dropout[2] or 0.0),
    )


def restore(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> TrainedTag:
    """Rebuild a trained model from the content of a model file, checking every part.

    Raises:
        FileError: something is missing, of a wrong type, or does not fit the rest.
    """
    expected = {"config", "vocabulary", "features", "labels", "settings", "equation"}
    if set(metadata) != expected or not isinstance(metadata["settings"], Mapping):
        raise FileError(f"{where}: its metadata do not describe a model that tags.")
    labels = Labels.from_json(metadata["labels"], where)
    vocabulary, features = None, metadata["features"]
    if metadata["vocabulary"] is not None:
        vocabulary = Vocabulary.from_json(metadata["vocabulary"], where)
    weights = sum(weight.numel() for weight in tensors.values())
    try:
        options = parse_options(TagOptions, metadata["config"], f"{where}: config")
        cell = Cell.from_json(metadata["equation"])
        sizes = (options.hidden, options.layers, options.embedding, features or 1)
        if not all(isinstance(size, int) and 1 <= size <= weights for size in sizes):
            raise FileError(f"{where}: its sizes do not fit its weights.")
        with torch.device("meta"):
            model = _model(options, cell, labels, vocabulary, features or 1)
    except FileError:
        raise
    except InputError as error:
        raise FileError(f"{where}: {error}") from None
    model_file.fill(model, tensors, where)
    return TrainedTag(model, labels, vocabulary, options, metadata["settings"])
