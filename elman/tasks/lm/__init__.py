"""Language models: build one from text, restore one from a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elman.data import Corpus, Vocabulary, read_corpus
from elman.equation import Cell, hyper_as_data
from elman.errors import FileError, InputError
from elman.tasks import model_file
from elman.tasks.base import Budget, parse_options
from elman.tasks.lm.defaults import Choice, choose, under_carry
from elman.tasks.lm.network import LanguageModel, has_drop_in
from elman.tasks.lm.options import LMOptions, find_cell, settle_learning
from elman.tasks.lm.scoring import Comparison, Score, compare
from elman.tasks.lm.task import LanguageModelling
from elman.tasks.lm.trained import TrainedLM

__all__ = [
    "OPTIONS",
    "Comparison",
    "LMOptions",
    "LanguageModel",
    "LanguageModelling",
    "Score",
    "TrainedLM",
    "build",
    "compare",
    "restore",
]

OPTIONS = LMOptions


def build(
    files: Sequence[str | Path],
    options: LMOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> LanguageModelling:
    """Build a language model's task; see `elman.tasks.build`.

    Args:
        files: text files, joined in order; "-" is standard input.
        options: an LMOptions or its values by name; what is None is chosen.
        budget: how much training is planned.
        seed: seed of the initial weights and of the data order.

    Raises:
        InputError: an unknown option or cell, a bad value, a text shorter than one window.
        FileError: a file cannot be read as text.
    """
    if not isinstance(options, LMOptions):
        options = parse_options(LMOptions, options or {}, "language model")
    options = settle_learning(options)
    files = [files] if isinstance(files, str | Path) else list(files)
    cell, named = find_cell(options)
    corpus = read_corpus(
        files,
        level=options.level,
        valid_file=options.valid_file,
        valid_fraction=options.valid_fraction,
        min_count=options.min_count,
    )
    choice = choose(
        len(corpus.train),
        len(corpus.vocabulary),
        corpus.vocabulary.level,
        budget or Budget(),
        fast=has_drop_in(cell, options),
    )
    if options.carry is not None:
        choice = under_carry(choice, options.carry, options.window)
    options = _resolve(options, choice, corpus, named)
    model = _new_model(len(corpus.vocabulary), options, cell, seed)
    model.check_room(options.streams or 1)
    return LanguageModelling(
        corpus,
        options,
        cell,
        model,
        recommended=choice.training,
        reason=choice.reason,
        seed=seed,
    )


def _resolve(
    options: LMOptions, choice: Choice, corpus: Corpus, named: str | dict[str, Any]
) -> LMOptions:
    by_default = dict(choice.model)
    if options.dropout is not None:
        by_default |= dict.fromkeys(("dropout_between", "dropout_output"), options.dropout)
    chosen: dict[str, Any] = {
        name: value for name, value in by_default.items() if getattr(options, name) is None
    }
    if chosen.get("tied") and options.embedding == 0:
        chosen["tied"] = False  # one-hot vectors were asked for; there is nothing to share
    chosen["level"] = corpus.vocabulary.level
    chosen["min_count"] = corpus.min_count
    chosen["cell"] = named
    # A cell's own JSON has its hyper-parameters in it.
    chosen["hyper"] = hyper_as_data(options.hyper) if isinstance(named, str) else {}
    resolved = options.model_copy(update=chosen)
    if resolved.tied and resolved.embedding == 0:
        raise InputError("tied: the output layer cannot share one-hot vectors; name an embedding.")
    return resolved


def _new_model(tokens: int, options: LMOptions, cell: Cell, seed: int) -> LanguageModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(tokens, options, cell)


def restore(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> TrainedLM:
    """Rebuild a trained model from the content of a model file, checking every part.

    Args:
        metadata: as `LanguageModelling.metadata` gave it.
        tensors: weights by name.
        where: the file, for errors.

    Raises:
        FileError: something is missing, of a wrong type, or does not fit the rest.
    """
    if set(metadata) != {"config", "vocabulary", "equation"}:
        raise FileError(f"{where}: its metadata do not describe a language model.")
    try:
        options = parse_options(LMOptions, metadata["config"], f"{where}: config")
        vocabulary = Vocabulary.from_json(metadata["vocabulary"])
        cell = Cell.from_json(metadata["equation"])
        _check_sizes(options, vocabulary, tensors, where)
        with torch.device("meta"):
            model = LanguageModel(len(vocabulary), options, cell)
    except FileError:
        raise
    except InputError as error:
        raise FileError(f"{where}: {error}") from None
    model_file.fill(model, tensors, where)
    return TrainedLM(model, vocabulary)


def _check_sizes(
    options: LMOptions, vocabulary: Vocabulary, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Refuse sizes beyond the weights in the file before anything is built from them."""
    weights = sum(weight.numel() for weight in tensors.values())
    sizes = (options.hidden, options.layers, options.embedding, len(vocabulary))
    if None in sizes or options.level == "auto" or options.level != vocabulary.level:
        raise FileError(f"{where}: its configuration leaves open what must be decided.")
    if max(size or 0 for size in sizes) > weights:
        raise FileError(f"{where}: {weights} weights are too few for the sizes it names.")
