"""Cures for vanishing and exploding gradients that are options of training.

What belongs to the start of a network stands here; the penalty on the flow of the gradient is
`elman.training.flow`, clipping `elman.training.optimise`.
"""

from __future__ import annotations

import torch
from torch import nn

from elman.errors import InputError
from elman.layers.base import RecurrentLayer
from elman.layers.initialise import chrono_, forget_bias_, identity_, orthogonal_, uniform_
from elman.training.options import TrainingOptions

_MATRICES = {"orthogonal": orthogonal_, "identity": identity_, "uniform": uniform_}
STARTS = ("recurrent_init", "forget_bias", "chrono")


def recurrent_layers(model: nn.Module) -> list[RecurrentLayer]:
    """Return the recurrent layers of a model that are Elman's."""
    return [module for module in model.modules() if isinstance(module, RecurrentLayer)]


def start(model: nn.Module, options: TrainingOptions) -> list[str]:
    """Start the recurrent layers of a new model as the options say, in place.

    The random numbers are drawn from `options.seed`; torch's own stay where they are.

    Returns:
        what was done, in words, one line each.

    Raises:
        InputError: there is no recurrent layer, or its cell has no such matrix or gate.
    """
    given = [name for name in STARTS if getattr(options, name) is not None]
    if not given:
        return []
    layers = recurrent_layers(model)
    if not layers:
        raise InputError(
            f"train: {given[0]} starts recurrent layers of Elman, and the model has none; "
            "elman.convert makes them of torch.nn's."
        )
    said = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        for layer in layers:
            if options.recurrent_init is not None:
                _MATRICES[options.recurrent_init](layer)
            if options.forget_bias is not None:
                forget_bias_(layer, options.forget_bias)
            if options.chrono is not None:
                chrono_(layer, options.chrono)
    if options.recurrent_init is not None:
        said.append(f"recurrent matrices start {options.recurrent_init}")
    if options.forget_bias is not None:
        said.append(f"gates that keep a state start with the bias {options.forget_bias:g}")
    if options.chrono is not None:
        said.append(f"gates start with memories of up to {options.chrono:g} steps")
    return said
