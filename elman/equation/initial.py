"""How a parameter starts: initialisers by name, so that a model file can carry them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import init as torch_init

from elman.equation.graph import Initialiser
from elman.errors import InputError, nearest


def _uniform(tensor: Tensor, hidden: int) -> None:
    bound = 1 / math.sqrt(hidden)
    torch_init.uniform_(tensor, -bound, bound)


def _identity(tensor: Tensor, hidden: int) -> None:
    if tensor.dim() != 2:
        raise InputError(f"'identity' starts a matrix; this parameter has shape {(*tensor.shape,)}")
    torch_init.eye_(tensor)


def _orthogonal(tensor: Tensor, hidden: int) -> None:
    if tensor.dim() != 2:
        raise InputError(
            f"'orthogonal' starts a matrix; this parameter has shape {(*tensor.shape,)}"
        )
    torch_init.orthogonal_(tensor)


def _xavier_uniform(tensor: Tensor, hidden: int) -> None:
    if tensor.dim() == 2:
        torch_init.xavier_uniform_(tensor)
    else:
        _uniform(tensor, hidden)


def _unit(tensor: Tensor, hidden: int) -> None:
    torch_init.uniform_(tensor, 0.0, 1.0)


INITIALISERS: dict[str, Callable[[Tensor, int], object]] = {
    "uniform": _uniform,
    "unit": _unit,
    "identity": _identity,
    "orthogonal": _orthogonal,
    "xavier_uniform": _xavier_uniform,
    "zeros": lambda tensor, hidden: tensor.zero_(),
    "ones": lambda tensor, hidden: tensor.fill_(1.0),
    "normal": lambda tensor, hidden: tensor.normal_(std=0.001),
}


# "uniform(-1, 1)", with limits of its own.
BETWEEN = re.compile(r"uniform\((-?\d+(?:\.\d+)?), (-?\d+(?:\.\d+)?)\)")


def check_initialiser(name: str, init: Initialiser) -> Initialiser:
    """Return `init` if it is a known initialiser or a finite number; else raise InputError."""
    if isinstance(init, str):
        between = BETWEEN.fullmatch(init)
        ordered = between is not None and float(between[1]) <= float(between[2])
        if init not in INITIALISERS and not ordered:
            raise InputError(
                f"{name}: {init!r} is no initialiser.{nearest(init, INITIALISERS)} There are: "
                f"{', '.join(INITIALISERS)}, uniform(low, high), or a number"
            )
        return init
    number = isinstance(init, (int, float)) and not isinstance(init, bool)
    if not number or not abs(init) <= 1e30:
        raise InputError(
            f"{name}: an initialiser is a name or a finite number up to 1e30; got {init!r}"
        )
    return float(init)


@torch.no_grad()
def initialise(tensor: Tensor, init: Initialiser, hidden: int) -> None:
    """Fill `tensor` in place as `init` says, from torch's random numbers.

    "uniform" is torch.nn's U(−1/√hidden, 1/√hidden), "unit" is U(0, 1), "xavier_uniform" Glorot &
    Bengio 2010 eq. 16, "normal" has deviation 0.001 (Le et al. 2015), a number is a constant.

    Example:
        >>> weight = torch.empty(2, 2)
        >>> initialise(weight, "identity", hidden=2)
        >>> weight.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if isinstance(init, str):
        between = BETWEEN.fullmatch(init)
        if between:
            tensor.uniform_(float(between[1]), float(between[2]))
        else:
            INITIALISERS[init](tensor, hidden)
    else:
        torch_init.constant_(tensor, init)
