"""Elman: recurrent networks in which a cell is one equation, written once in plain torch.

The public names are those of `__all__`. Some of them, such as `train` and `load`, bring in what
they need when they are first used, so that `import elman` costs little more than `import torch`.
"""

from __future__ import annotations

import gc
import os
import sys

from elman import interrupts  # noqa: F401 (first: it watches over the imports of the command)

if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    # Before torch loads OpenMP: its waiting threads spin for a moment and then sleep, or a busy
    # machine slows tenfold. See docs/decisions/0006-threads-that-wait-sleep.md.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A collection of garbage now would walk over all of torch, for a fifth of the time of its import.
_collecting = gc.isenabled()
gc.disable()
try:
    from elman import cells
    from elman.equation import (
        Cell,
        average,
        block_diagonal,
        cell,
        child,
        delay,
        each,
        largest,
        linear,
        total,
    )
    from elman.errors import (
        ElmanError,
        EquationError,
        FileError,
        InputError,
        RunError,
        SizeError,
        TrainingStopped,
    )
    from elman.layers import (
        GRU,
        LSTM,
        RNN,
        Chain,
        GRUCell,
        LSTMCell,
        Network,
        Recurrent,
        RNNCell,
        Tree,
        convert,
        revert,
        symmetric_weights,
    )
    from elman.learning import BPTT, RTRL
finally:
    if _collecting:
        gc.enable()

if TYPE_CHECKING:
    from elman.diagnose import check
    from elman.layers.attention import Attention
    from elman.layers.crf import CRF
    from elman.layers.decoder import Decoder
    from elman.layers.search import beam_search
    from elman.online import OnlineLearner
    from elman.tasks import load
    from elman.training import train

__version__ = "0.1.0"

__all__ = [
    "BPTT",
    "CRF",
    "GRU",
    "LSTM",
    "RNN",
    "RTRL",
    "Attention",
    "Cell",
    "Chain",
    "Decoder",
    "ElmanError",
    "EquationError",
    "FileError",
    "GRUCell",
    "InputError",
    "LSTMCell",
    "Network",
    "OnlineLearner",
    "RNNCell",
    "Recurrent",
    "RunError",
    "SizeError",
    "TrainingStopped",
    "Tree",
    "average",
    "beam_search",
    "block_diagonal",
    "cell",
    "cells",
    "check",
    "child",
    "convert",
    "delay",
    "each",
    "largest",
    "linear",
    "load",
    "revert",
    "symmetric_weights",
    "total",
    "train",
]


def _pictures(folder: Path) -> list[str]:
    """The pictures that every run of `elman.train` ends with."""
    from elman import plots

    return plots.report(folder)


# What is imported when it is first asked for, and from where.
_LATER = {
    "Attention": "elman.layers.attention",
    "CRF": "elman.layers.crf",
    "Decoder": "elman.layers.decoder",
    "OnlineLearner": "elman.online",
    "beam_search": "elman.layers.search",
    "check": "elman.diagnose",
    "load": "elman.tasks",
    "train": "elman.training",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'elman' has no attribute {name!r}")
    module = import_module(_LATER[name])
    if name == "train":
        module.report_always(_pictures)
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
