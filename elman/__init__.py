"""Elman: recurrent networks in which a cell is one equation, written once in plain torch.

The public names are those of `__all__`. `check`, `train` and `load` bring in what they need when
they are first used, so that `import elman` costs little more than `import torch`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from elman import cells
from elman.equation import Cell, block_diagonal, cell, delay, linear
from elman.errors import (
    ElmanError,
    EquationError,
    FileError,
    InputError,
    RunError,
    SizeError,
    TrainingStopped,
)
from elman.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell, convert, revert
from elman.learning import BPTT

if TYPE_CHECKING:
    from elman.diagnose import check
    from elman.tasks import load
    from elman.training import train

__version__ = "0.1.0"

__all__ = [
    "BPTT",
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "ElmanError",
    "EquationError",
    "FileError",
    "GRUCell",
    "InputError",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "RunError",
    "SizeError",
    "TrainingStopped",
    "block_diagonal",
    "cell",
    "cells",
    "check",
    "convert",
    "delay",
    "linear",
    "load",
    "revert",
    "train",
]

_LATER = {"check": "elman.diagnose", "load": "elman.tasks", "train": "elman.training"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'elman' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
