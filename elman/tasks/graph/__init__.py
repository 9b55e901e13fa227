"""Models of graphs: build one from tables, restore one from a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import elman.cells
from elman.data.graph_tables import ROLES, sort_files
from elman.data.graphs import GraphData, read_graphs
from elman.equation import Cell, hyper_as_data
from elman.equation.neighbours import divide, gathers
from elman.errors import FileError, InputError
from elman.tasks import model_file
from elman.tasks.base import Budget, parse_options
from elman.tasks.graph.meaning import Meaning, kind_of_features, meaning_of
from elman.tasks.graph.network import GraphModel, convolves
from elman.tasks.graph.options import GraphOptions
from elman.tasks.graph.task import GraphLabelling
from elman.tasks.graph.trained import Told, TrainedGraph

__all__ = [
    "OPTIONS",
    "GraphLabelling",
    "GraphModel",
    "GraphOptions",
    "Told",
    "TrainedGraph",
    "build",
    "files_of",
    "restore",
]

OPTIONS = GraphOptions
# One graph: as Kipf & Welling 2017, section 5.2, but for 64 units, which are better on validation
# than 16. Many graphs: found on the shipped generators.
_ONE = {"optimizer": "adam", "lr": 0.01, "schedule": "constant", "warmup": 0.0, "clip_norm": 0.0,
        "precision": "32", "epochs": 200.0}  # fmt: skip
_MANY = {"optimizer": "adam", "lr": 5e-3, "schedule": "cosine", "warmup": 0.02, "clip_norm": 1.0,
         "precision": "32", "epochs": 300.0}  # fmt: skip
_ROUNDS = 5
_WIDEST = 64


def files_of(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the tables that some files and folders stand for.

    Raises:
        FileError: a folder without tables, a file that is none of them.
    """
    return list(sort_files(files).values())


def build(
    files: Sequence[str | Path],
    options: GraphOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> GraphLabelling:
    """Build a task of graphs; see `elman.tasks.build`.

    Raises:
        InputError: an unknown option or cell, a bad value, too few labels.
        FileError: tables that are no graphs; the error has file and line.
    """
    if not isinstance(options, GraphOptions):
        options = parse_options(GraphOptions, options or {}, "graphs")
    data = _read(files, options)
    cell, named, hyper = _cell(options, data)
    typed = any(i.varies == "edge" and i.dims for i in cell.graph.inputs)
    directed = data.directed if options.directed is None else options.directed
    kind = options.features or kind_of_features(data)
    meaning = meaning_of(data, kind, directed, options.normalise, back=typed)
    convolution, few = convolves(cell), data.single
    chosen = {"cell": named, "hyper": hyper, "directed": directed, "features": kind}
    options = _filled(options, meaning, convolution, few).model_copy(update=chosen)
    last = None
    if convolution and "f" in cell.hyper and meaning.target == "node":
        last = cell.with_hyper(f="linear")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(meaning, options, cell, last)
    recommended = dict(_ONE if few else _MANY)
    if budget is not None and (budget.steps is not None or budget.epochs is not None):
        del recommended["epochs"]
    parts = _parts(data, options.valid_fraction)
    return GraphLabelling(
        data, meaning, parts, options, cell, last, model, recommended=recommended, seed=seed
    )


def _filled(options: GraphOptions, meaning: Meaning, convolution: bool, few: bool) -> GraphOptions:
    """The options with sizes chosen where none were given; `few` says that there is one graph."""
    wide = _WIDEST if few else min(max(meaning.width, 16), _WIDEST)
    chosen = {
        "target": meaning.target,
        "hidden": options.hidden or wide,
        "layers": options.layers or (2 if convolution else 1),
        "rounds": options.rounds or (1 if convolution else 2 if few else _ROUNDS),
        "dropout": (0.5 if few else 0.0) if options.dropout is None else options.dropout,
        "decay": (5e-4 if few else 0.0) if options.decay is None else options.decay,
        "graphs": options.graphs or 10,
    }
    return options.model_copy(update=chosen)


def _read(files: Sequence[str | Path], options: GraphOptions) -> GraphData:
    named: dict[str, str | Path] = dict(sort_files(files))
    for role in ROLES:
        given = getattr(options, f"{role}_file")
        if given is not None:
            named[role] = given
    data = read_graphs(named, target=options.target)
    if data.target is None:
        raise FileError(
            f"{data.name}: there are no labels to learn from; give a table labels.tsv "
            "(node or graph, and its label)."
        )
    return data


def _parts(data: GraphData, valid_fraction: float) -> dict[str, tuple[int, ...]]:
    """Labelled nodes or graphs by part; where no splits say, some drawn by lot for validation."""
    if data.single or data.target != "node":
        known = {i for i, label in enumerate(data.labels) if label is not None}
    else:
        known = {int(g) for g, label in zip(data.graph_of, data.labels, strict=True)
                 if label is not None}  # fmt: skip
    parts = {part: tuple(i for i in numbers if i in known) for part, numbers in data.splits.items()}
    train, valid = parts.get("train", tuple(sorted(known))), parts.get("val")
    if valid is None:
        order = np.random.default_rng(0).permutation(len(train))
        held = max(1, round(len(train) * valid_fraction))
        taken = {train[i] for i in order[:held]}
        valid = tuple(i for i in train if i in taken)
        train = tuple(i for i in train if i not in taken)
    if not train or not valid:
        raise InputError(
            f"train graph: {len(known):,} label(s) leave {len(train):,} to train on and "
            f"{len(valid):,} to validate on; give more."
        )
    return {**parts, "train": train, "val": valid}


def _cell(options: GraphOptions, data: GraphData) -> tuple[Cell, str | dict[str, Any], dict]:
    """The cell, as a configuration keeps it, and its hyper-parameters."""
    given = options.cell
    if isinstance(given, Mapping):
        cell = Cell.from_json(given).with_hyper(**options.hyper)
        named: str | dict[str, Any] = cell.to_json()
        hyper: dict[str, Any] = {}
    else:
        own = "graph_convolution" if data.single else "message_passing"
        named = given or ("gated_graph_typed" if data.types else own)
        cell = elman.cells.get(named).with_hyper(**options.hyper)
        hyper = hyper_as_data(cell.hyper)
    if not gathers(cell.graph) or divide(cell.graph).arity:
        raise InputError(
            f"train graph: {cell.name} is no cell of graphs; those are "
            f"{', '.join(elman.cells.names('graphs'))}"
        )
    further = [i.name for i in cell.graph.inputs[1:] if i.varies != "edge"]
    if further:
        raise InputError(
            f"train graph: {cell.name} reads {further[0]} beside x at every node, and there is no "
            "table of it."
        )
    return cell, named, hyper


def _model(meaning: Meaning, options: GraphOptions, cell: Cell, last: Cell | None) -> GraphModel:
    hidden = options.hidden or 1
    return GraphModel(
        meaning.width,
        len(meaning.classes),
        len(meaning.types),
        cell,
        hidden,
        layers=options.layers or 1,
        rounds=options.rounds or 1,
        target=meaning.target,
        pool=options.pool,
        dropout=options.dropout or 0.0,
        last=last,
    )


def restore(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> TrainedGraph:
    """Rebuild a trained model from the content of a model file, checking every part.

    Raises:
        FileError: something is missing, of a wrong type, or does not fit the rest.
    """
    if set(metadata) != {"config", "vocabulary", "equation", "last"}:
        raise FileError(f"{where}: its metadata do not describe a model of graphs.")
    meaning = Meaning.from_json(metadata["vocabulary"], where)
    try:
        options = parse_options(GraphOptions, metadata["config"], f"{where}: config")
        cell = Cell.from_json(metadata["equation"])
        last = None if metadata["last"] is None else Cell.from_json(metadata["last"])
        numbers = sum(weight.numel() for weight in tensors.values())
        if max(options.hidden or 0, options.layers or 0, options.rounds or 0) > max(numbers, 1):
            raise FileError(f"{where}: its sizes do not fit its weights.")
        with torch.device("meta"):
            model = _model(meaning, options, cell, last)
    except FileError:
        raise
    except InputError as error:
        raise FileError(f"{where}: {error}") from None
    model_file.fill(model, tensors, where)
    return TrainedGraph(model, meaning)
