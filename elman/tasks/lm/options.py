"""The options of a language model, and the cell they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

import elman.cells
from elman.equation import Cell
from elman.errors import InputError
from elman.tasks.base import TaskOptions

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class LMOptions(TaskOptions):
    """Options of a language model; None leaves the choice to the data and the budget.

    Args:
        level: tokens: "char", "word", or "auto" (characters, unless rare words are marked as
            `<unk>` in the text).
        cell: name of a cell, a cell, or a cell's JSON.
        hyper: hyper-parameters of the cell by name.
        sizes: further sizes of the cell by name ("projection"); half of hidden where not named.
        hidden: units of a recurrent layer.
        layers: recurrent layers.
        embedding: size of the token vectors; 0 feeds one-hot vectors.
        tied: the output layer uses the token vectors as its weights. Where their size is not that
            of the last layer, a linear layer without bias stands between.
        residual: each recurrent layer but the first adds its input to its output.
        dropout: sets dropout_between and dropout_output where those are not named.
        dropout_input: dropout on the token vectors.
        dropout_between: dropout between recurrent layers.
        dropout_output: dropout before the output layer.
        recurrent_dropout: dropout on the states where they enter a product, one mask a window.
        weight_dropout: dropout on the matrices that multiply a state, one mask a window (Merity
            et al. 2018, "Regularizing and optimizing LSTM language models", section 2).
        zoneout: probability that a unit keeps its old state.
        layer_norm: layer norm of every product within the cell.
        output_norm: layer norm before the output layer.
        initial_state: "zeros" or "learned".
        window: tokens of one truncated window, after which the weights change.
        carry: what of the past is carried from window to window beside the states, so that credit
            reaches beyond the window: "exact" (the influence of every weight, the gradient of the
            whole stream), or its approximations "snap1", "rflo", "uoro"; nothing if not given.
        learning: in one word, how credit travels: "bptt" (windows, with or without a carry), "rtrl"
            (window 1 with carry exact), "snap1", "rflo" or "uoro" (window 1 with that carry).
        streams: parallel streams (the batch).
        restart: probability, for each stream and window, that the state is forgotten. On
            tiny-shakespeare it gained nothing, neither on running text nor on single sentences.
        min_count: tokens seen less often in training become `<unk>`.
        valid_fraction: share of the text, from its end, for validation.
        valid_file: a file to validate on instead.
    """

    level: Literal["char", "word", "auto"] = "auto"
    cell: str | dict[str, Any] | Cell = "lstm"
    hyper: dict[str, Any] = Field(default_factory=dict)
    sizes: dict[str, Count] = Field(default_factory=dict)
    hidden: Count | None = None
    layers: Count | None = None
    embedding: Annotated[int, Field(ge=0)] | None = None
    tied: bool | None = None
    residual: bool | None = None
    dropout: Rate | None = None
    dropout_input: Rate | None = None
    dropout_between: Rate | None = None
    dropout_output: Rate | None = None
    recurrent_dropout: Rate = 0.0
    weight_dropout: Rate | None = None
    zoneout: Rate = 0.0
    layer_norm: bool = False
    output_norm: bool | None = None
    initial_state: Literal["zeros", "learned"] = "zeros"
    window: Count | None = None
    carry: Literal["exact", "snap1", "rflo", "uoro"] | None = None
    learning: Literal["bptt", "rtrl", "snap1", "rflo", "uoro"] = "bptt"
    streams: Count | None = None
    restart: Annotated[float, Field(ge=0, le=1)] = 0.0
    min_count: Count | None = None
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    valid_file: str | None = None

    @field_validator("cell", mode="before")
    @classmethod
    def _known_kind(cls, value: object) -> object:
        if not isinstance(value, str | dict | Cell):
            raise ValueError("should be the name of a cell, a cell, or a cell's JSON")
        return value

    @field_validator("valid_file", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value


def settle_learning(options: LMOptions) -> LMOptions:
    """Return options whose `carry` and `window` are what `learning` stands for.

    Raises:
        InputError: `carry` or `window` says something else than `learning`.

    Example:
        >>> settled = settle_learning(LMOptions(learning="rtrl"))
        >>> settled.window, settled.carry
        (1, 'exact')
    """
    if options.learning == "bptt":
        return options
    carry: Any = "exact" if options.learning == "rtrl" else options.learning
    if options.carry not in (None, carry):
        raise InputError(
            f"learning={options.learning} carries {carry!r}, and carry is {options.carry!r}; leave "
            "one of them out."
        )
    if options.window not in (None, 1):
        raise InputError(
            f"learning={options.learning} learns after every token (window 1), and window is "
            f"{options.window}; for windows with the same credit say window={options.window} and "
            f"carry={carry}, without learning."
        )
    return options.model_copy(update={"carry": carry, "window": 1})


def find_cell(options: LMOptions) -> tuple[Cell, str | dict[str, Any]]:
    """Return the cell that options name, and the form in which a configuration keeps it.

    Returns:
        the cell with its hyper-parameters set; its name where it is one of Elman's cells, else its
        JSON, so that a model with somebody's own cell needs none of their code.

    Raises:
        InputError: an unknown name or hyper-parameter (the nearest known one is named).
        FileError: JSON that is no cell.
    """
    value = options.cell
    if isinstance(value, str):
        return _for_text(elman.cells.get(value).with_hyper(**options.hyper)), value
    cell = Cell.from_json(value) if isinstance(value, Mapping) else value
    cell = _for_text(cell.with_hyper(**options.hyper))
    if cell.name in elman.cells.names():
        known = elman.cells.get(cell.name).with_hyper(**options.hyper)
        if known.to_json() == cell.to_json():
            return cell, cell.name
    return cell, cell.to_json()


def _for_text(cell: Cell) -> Cell:
    """The cell, if text has all that it reads."""
    further = [i.name for i in cell.graph.inputs[1:]]
    if further:
        raise InputError(
            f"the cell {cell.name} reads {', '.join(further)} besides its input, and text has "
            "nothing to give it; use it from Python, elman.Recurrent(…)(x, inputs={…})"
        )
    return cell
