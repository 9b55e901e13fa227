"""Models of the next item: build one from sessions, restore one from a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import elman.cells
from elman.data.lexicon import Lexicon
from elman.equation import Cell, hyper_as_data
from elman.equation.neighbours import gathers
from elman.errors import FileError, InputError
from elman.tasks import model_file
from elman.tasks.base import Budget, parse_options
from elman.tasks.next.defaults import choose, training
from elman.tasks.next.network import OFFSET, NextItemModel
from elman.tasks.next.options import NextOptions
from elman.tasks.next.task import NextItem, batches, cut, read_corpus, told_by
from elman.tasks.next.trained import TrainedNext

__all__ = ["OPTIONS", "NextItem", "NextItemModel", "NextOptions", "TrainedNext", "build",
           "restore"]  # fmt: skip

OPTIONS = NextOptions


def build(
    files: Sequence[str | Path],
    options: NextOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> NextItem:
    """Build a task of the next item; see `elman.tasks.build`.

    Raises:
        InputError: an unknown option, column or cell, a bad value, too few sessions or items.
        FileError: a file that holds no sessions; the error has the line.
    """
    if not isinstance(options, NextOptions):
        options = parse_options(NextOptions, options or {}, "next")
    files = [files] if isinstance(files, str | Path) else list(files)
    cell, named, hyper = _cell(options)
    corpus, sessions = read_corpus(files, options)
    options = told_by(sessions, options)
    events = sum(len(session) - 1 for session in corpus.train)
    chosen = choose(events, len(corpus.lexicon) - OFFSET, len(corpus.train))
    if options.dropout is not None:
        chosen |= {"dropout_input": options.dropout, "dropout_output": options.dropout}
    chosen = {name: value for name, value in chosen.items() if getattr(options, name) is None}
    options = options.model_copy(update={**chosen, "cell": named, "hyper": hyper})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(len(corpus.lexicon), options, cell)
    pieces = cut(corpus.train, options.window or 1)
    steps = len(batches(pieces, options, len(corpus.lexicon), seed))
    recommended = training(steps, len(corpus.lexicon) - OFFSET, budget or Budget())
    return NextItem(corpus, options, cell, model, pieces, recommended=recommended, seed=seed)


def _cell(options: NextOptions) -> tuple[Cell, str | dict[str, Any], dict[str, Any]]:
    """The cell, as a configuration keeps it, and its hyper-parameters."""
    given = options.cell
    if isinstance(given, Mapping):
        cell = Cell.from_json(given).with_hyper(**options.hyper)
        named: str | dict[str, Any] = cell.to_json()
        hyper: dict[str, Any] = {}
    else:
        cell, named = elman.cells.get(given).with_hyper(**options.hyper), given
        hyper = hyper_as_data(cell.hyper)
    if gathers(cell.graph) or len(cell.graph.inputs) > 1:
        raise InputError(
            f"next: {cell.name} is no cell of sequences with one input; those are "
            "listed by elman cells"
        )
    return cell, named, hyper


def _model(tokens: int, options: NextOptions, cell: Cell) -> NextItemModel:
    return NextItemModel(
        tokens,
        cell,
        options.hidden or 1,
        options.layers or 1,
        options.embedding or 1,
        dropout_input=options.dropout_input or 0.0,
        dropout_output=options.dropout_output or 0.0,
    )


def restore(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> TrainedNext:
    """Rebuild a trained model from the content of a model file, checking every part.

    Raises:
        FileError: something is missing, of a wrong type, or does not fit the rest.
    """
    if set(metadata) != {"config", "items", "equation"}:
        raise FileError(f"{where}: its metadata do not describe a model of the next item.")
    lexicon = Lexicon.from_json(metadata["items"], where=where)
    try:
        options = parse_options(NextOptions, metadata["config"], f"{where}: config")
        cell = Cell.from_json(metadata["equation"])
        sizes = (options.hidden, options.embedding, options.layers)
        weights = sum(weight.numel() for weight in tensors.values())
        if None in sizes or max(*(s or 0 for s in sizes), len(lexicon)) > weights:
            raise FileError(f"{where}: its sizes do not fit its weights.")
        with torch.device("meta"):
            model = _model(len(lexicon), options, cell)
    except FileError:
        raise
    except InputError as error:
        raise FileError(f"{where}: {error}") from None
    model_file.fill(model, tensors, where)
    return TrainedNext(model, lexicon, options)
