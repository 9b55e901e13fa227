"""Models of captions: build one from texts and what they tell of, restore one from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.data.lexicon import Lexicon
from elman.errors import FileError, InputError
from elman.tasks import model_file
from elman.tasks.base import Budget, parse_options
from elman.tasks.caption.baseline import Texts
from elman.tasks.caption.corpus import Meaning, read_corpus
from elman.tasks.caption.defaults import choose, training
from elman.tasks.caption.network import CaptionModel
from elman.tasks.caption.options import CaptionOptions
from elman.tasks.caption.task import Captioning, batches
from elman.tasks.caption.trained import TrainedCaption

__all__ = ["OPTIONS", "CaptionModel", "CaptionOptions", "Captioning", "TrainedCaption", "build",
           "restore"]  # fmt: skip

OPTIONS = CaptionOptions


def build(
    files: Sequence[str | Path],
    options: CaptionOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> Captioning:
    """Build a task of captions; see `elman.tasks.build`.

    Raises:
        InputError: an unknown option, column or cell, a bad value, too few texts.
        FileError: a file that holds no captions; the error has the line.
    """
    if not isinstance(options, CaptionOptions):
        options = parse_options(CaptionOptions, options or {}, "caption")
    files = [files] if isinstance(files, str | Path) else list(files)
    corpus, options = read_corpus(files, options)
    train, meaning = corpus.train, corpus.meaning
    longest = max(len(text) for text in train.tokens)
    tokens = sum(len(text) + 1 for text in train.tokens)
    chosen = choose(len(train.tokens), tokens, len(meaning.lexicon))
    chosen["most"] = longest + longest // 2 + 5
    chosen = {name: value for name, value in chosen.items() if getattr(options, name) is None}
    options = options.model_copy(update=chosen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CaptionModel(len(meaning.lexicon), len(meaning.classes), meaning.features, options)
    _scale(model, train)
    steps = len(batches(train, options, seed))
    recommended = training(options.cell, steps, budget or Budget())
    return Captioning(corpus, options, model, recommended=recommended, seed=seed)


def _scale(model: CaptionModel, train: Texts) -> None:
    """Give the model the mean and the deviation of the training vectors."""
    if train.vectors is None:
        return
    deviation = train.vectors.std(0, dtype=np.float64)
    # What hardly varies in training is not blown up.
    floor = 0.01 * deviation.max() or 1.0
    model.mean.copy_(torch.from_numpy(train.vectors.mean(0, dtype=np.float64)))
    model.deviation.copy_(torch.from_numpy(np.maximum(deviation, floor)))


def restore(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
) -> TrainedCaption:
    """Rebuild a trained model from the content of a model file, checking every part.

    Raises:
        FileError: something is missing, of a wrong type, or does not fit the rest.
    """
    if set(metadata) != {"config", "tokens", "classes", "features", "single"}:
        raise FileError(f"{where}: its metadata do not describe a model of captions.")
    classes, features = metadata["classes"], metadata["features"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise FileError(f"{where}: its classes are no list of names.")
    if type(features) is not int or features < 0 or not (classes or features):
        raise FileError(f"{where}: {features!r} numbers of a vector cannot be.")
    lexicon = Lexicon.from_json(metadata["tokens"], 1, where)
    try:
        options = parse_options(CaptionOptions, metadata["config"], f"{where}: config")
        sizes = (options.hidden, options.embedding, options.layers, options.condition)
        weights = sum(weight.numel() for weight in tensors.values())
        largest = max(*(s or 0 for s in sizes), len(lexicon), len(classes), features)
        if None in (*sizes, options.most) or largest > weights or options.level == "auto":
            raise FileError(f"{where}: its sizes do not fit its weights.")
        with torch.device("meta"):
            model = CaptionModel(len(lexicon), len(classes), features, options)
    except FileError:
        raise
    except InputError as error:
        raise FileError(f"{where}: {error}") from None
    model_file.fill(model, tensors, where)
    meaning = Meaning(lexicon, tuple(classes), features, options.level, bool(metadata["single"]))
    return TrainedCaption(model, meaning, options)
