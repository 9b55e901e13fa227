"""Models that translate: build one from pairs of texts, restore one from a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elman.errors import FileError, InputError
from elman.tasks import model_file
from elman.tasks.base import Budget, parse_options
from elman.tasks.translate.corpus import read_corpus
from elman.tasks.translate.defaults import learning, settle
from elman.tasks.translate.network import TranslationModel
from elman.tasks.translate.options import TranslateOptions
from elman.tasks.translate.task import Translation
from elman.tasks.translate.trained import Alignment, Bounds, TrainedTranslation
from elman.tasks.translate.units import Units

__all__ = ["OPTIONS", "Alignment", "TrainedTranslation", "TranslateOptions", "Translation",
           "TranslationModel", "build", "restore"]  # fmt: skip

OPTIONS = TranslateOptions


def build(
    files: Sequence[str | Path],
    options: TranslateOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> Translation:
    """Build a task of translation; see `elman.tasks.build`.

    Raises:
        InputError: an unknown option or cell, a bad value, too few pairs.
        FileError: files that hold no pairs, or of different numbers of lines.
    """
    if not isinstance(options, TranslateOptions):
        options = parse_options(TranslateOptions, options or {}, "translate")
    files = [files] if isinstance(files, str | Path) else list(files)
    budget = budget or Budget()
    corpus, options = read_corpus(files, options)
    units = (len(corpus.units[0]), len(corpus.units[1]))
    train = corpus.train
    sizes = (len(train), int(train.lengths().sum()))
    options = settle(options, sizes=sizes, units=units, budget=budget)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TranslationModel(*units, options)
    recommended = learning(options, units)
    return Translation(corpus, options, model, recommended=recommended, seed=seed)


def restore(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
) -> TrainedTranslation:
    """Rebuild a trained model from the content of a model file, checking every part.

    Raises:
        FileError: something is missing, of a wrong type, or does not fit the rest.
    """
    if set(metadata) != {"config", "vocabulary", "bounds", "tokenizer"}:
        raise FileError(f"{where}: its metadata do not describe a model that translates.")
    vocabulary, bounds = metadata["vocabulary"], metadata["bounds"]
    if not isinstance(vocabulary, dict) or set(vocabulary) != {"source", "target"}:
        raise FileError(f"{where}: its vocabulary does not have two sides.")
    if metadata["tokenizer"] not in ("13a", "zh", "char"):
        raise FileError(f"{where}: its tokenizer is not one that BLEU has here.")
    if not _are_bounds(bounds):
        raise FileError(f"{where}: its bounds are no two positive numbers.")
    units = tuple(Units.from_json(vocabulary[side], where) for side in ("source", "target"))
    try:
        options = parse_options(TranslateOptions, metadata["config"], f"{where}: config")
        largest = max(options.hidden or 0, options.embedding or 0, *map(len, units))
        layers = options.layers or 0
        if min(options.hidden or 0, options.embedding or 0, layers) < 1 or largest * layers > sum(
            weight.numel() for weight in tensors.values()
        ):
            raise FileError(f"{where}: its sizes do not fit its weights.")
        with torch.device("meta"):
            model = TranslationModel(len(units[0]), len(units[1]), options)
    except FileError:
        raise
    except InputError as error:
        raise FileError(f"{where}: {error}") from None
    model_file.fill(model, tensors, where)
    if options.tied:
        model.decoder.output.weight = model.decoder.vectors.weight
    return TrainedTranslation(
        model, (units[0], units[1]), options, Bounds(*bounds), metadata["tokenizer"]
    )


def _are_bounds(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    ratio, longest = value
    return isinstance(ratio, float | int) and ratio > 0 and isinstance(longest, int) and longest > 0
