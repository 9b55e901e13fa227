"""Models of trees: build one from bracketed trees, restore one from a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import elman.cells
from elman.equation import Cell, hyper_as_data
from elman.equation.neighbours import divide, gathers
from elman.errors import FileError, InputError
from elman.tasks import model_file
from elman.tasks.base import Budget, parse_options
from elman.tasks.tree.corpus import Meaning, read_corpus
from elman.tasks.tree.network import TreeModel
from elman.tasks.tree.options import TreeOptions
from elman.tasks.tree.task import TreeLabelling
from elman.tasks.tree.trained import Labelled, TrainedTree

__all__ = ["OPTIONS", "Labelled", "TrainedTree", "TreeLabelling", "TreeModel", "TreeOptions",
           "build", "restore"]  # fmt: skip

OPTIONS = TreeOptions

_LEARNING = {
    "optimizer": "adamw", "lr": 5e-3, "weight_decay": 0.2, "schedule": "cosine", "warmup": 0.02,
    "clip_norm": 1.0, "ema": 0.03, "precision": "32",
}  # fmt: skip
# More only learns the training trees by heart; of few trees the steps are too few before.
_MOST_EPOCHS, _ENOUGH_STEPS = 5, 1700


def build(
    files: Sequence[str | Path],
    options: TreeOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> TreeLabelling:
    """Build a task of trees; see `elman.tasks.build`.

    Raises:
        InputError: an unknown option or cell, a bad value, too few trees.
        FileError: a file that holds no trees; the error has line and column.
    """
    if not isinstance(options, TreeOptions):
        options = parse_options(TreeOptions, options or {}, "trees")
    files = [files] if isinstance(files, str | Path) else list(files)
    corpus = read_corpus(
        files,
        binary=options.labels == "binary",
        min_count=options.min_count or 1,
        valid_file=options.valid_file,
        valid_fraction=options.valid_fraction,
    )
    cell, named, hyper = _cell(options, corpus.arity)
    dropout = options.dropout
    chosen = {
        "cell": named,
        "hyper": hyper,
        "hidden": options.hidden or 150,
        "embedding": options.embedding or 150,
        "min_count": options.min_count or 1,
        "trees": options.trees or 25,
        "dropout_input": _first(options.dropout_input, dropout, 0.5),
        "dropout_output": _first(options.dropout_output, dropout, 0.3),
    }
    options = options.model_copy(update=chosen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(len(corpus.meaning.words), len(corpus.meaning.classes), options, cell)
    recommended = dict(_LEARNING)
    if budget is None or (budget.steps is None and budget.epochs is None):
        per_epoch = -(-len(corpus.train) // (options.trees or 1))
        recommended["epochs"] = float(max(_MOST_EPOCHS, -(-_ENOUGH_STEPS // per_epoch)))
    return TreeLabelling(corpus, options, cell, model, recommended=recommended, seed=seed)


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _cell(options: TreeOptions, arity: int) -> tuple[Cell, str | dict[str, Any], dict[str, Any]]:
    """The cell, as a configuration keeps it, and its hyper-parameters."""
    given = options.cell
    if isinstance(given, Mapping):
        cell = Cell.from_json(given).with_hyper(**options.hyper)
        named: str | dict[str, Any] = cell.to_json()
        hyper: dict[str, Any] = {}
    else:
        named = given or ("nary_tree_lstm" if arity <= 2 else "child_sum_tree_lstm")
        cell = elman.cells.get(named)
        own = {"arity": max(arity, 1)} if "arity" in cell.hyper else {}
        cell = cell.with_hyper(**(own | options.hyper))
        hyper = hyper_as_data(cell.hyper)
    if not gathers(cell.graph):
        raise InputError(
            f"train tree: {cell.name} is a cell of sequences; those of trees are "
            f"{', '.join(elman.cells.names('trees'))}"
        )
    places = divide(cell.graph).arity
    if places and places < arity:
        raise InputError(
            f"train tree: a node has {arity} children, and {cell.name} has places for {places}; "
            f"give hyper arity={arity}, or the cell child_sum_tree_lstm"
        )
    return cell, named, hyper


def _model(words: int, classes: int, options: TreeOptions, cell: Cell) -> TreeModel:
    return TreeModel(
        words,
        classes,
        cell,
        options.hidden or 1,
        options.embedding or 1,
        direction=options.direction,
        dropout_input=options.dropout_input or 0.0,
        dropout_output=options.dropout_output or 0.0,
    )


def restore(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> TrainedTree:
    """Rebuild a trained model from the content of a model file, checking every part.

    Raises:
        FileError: something is missing, of a wrong type, or does not fit the rest.
    """
    if set(metadata) != {"config", "vocabulary", "classes", "equation"}:
        raise FileError(f"{where}: its metadata do not describe a model of trees.")
    lists = (metadata["vocabulary"], metadata["classes"])
    for entries in lists:
        if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
            raise FileError(f"{where}: its vocabulary or its labels are no list of words.")
    words, classes = map(tuple, lists)
    try:
        options = parse_options(TreeOptions, metadata["config"], f"{where}: config")
        cell = Cell.from_json(metadata["equation"])
        largest = max(options.hidden or 0, options.embedding or 0, len(words), len(classes))
        if min(options.hidden or 0, options.embedding or 0) < 1 or largest > sum(
            weight.numel() for weight in tensors.values()
        ):
            raise FileError(f"{where}: its sizes do not fit its weights.")
        with torch.device("meta"):
            model = _model(len(words), len(classes), options, cell)
    except FileError:
        raise
    except InputError as error:
        raise FileError(f"{where}: {error}") from None
    model_file.fill(model, tensors, where)
    return TrainedTree(model, Meaning(words, classes, options.labels == "binary"))
