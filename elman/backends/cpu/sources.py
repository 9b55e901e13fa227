"""Where a kernel finds its parameters: in tensors of their own, or as rows of stacked ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor


class Source(NamedTuple):
    """A parameter: rows of a tensor from `row` on; of two tensors, of their sum; of none, zeros."""

    tensors: tuple[int, ...]
    row: int


class Parameters(NamedTuple):
    """The tensors that hold a cell's parameters, and the place of each parameter by name."""

    tensors: tuple[Tensor, ...]
    places: Mapping[str, Source]


def own(parameters: Mapping[str, Tensor]) -> Parameters:
    """Parameters that are tensors of their own.

    Example:
        >>> import torch
        >>> own({"b": torch.zeros(2)}).places["b"]
        Source(tensors=(0,), row=0)
    """
    places = {name: Source((i,), 0) for i, name in enumerate(parameters)}
    return Parameters(tuple(parameters.values()), places)


def stacked(
    tensors: Sequence[Tensor],
    gates: Sequence[tuple[str, str, str]],
    second: Mapping[int, str],
    projection: str | None,
    hidden: int,
) -> Parameters:
    """Parameters as torch.nn stacks them: W_ih, W_hh, with biases b_ih and b_hh, and a projection.

    Args:
        tensors: the stacked tensors, with or without the two biases.
        gates: for each gate in torch's order the names of W, U, and the bias.
        second: by gate, the name of the bias that stands within the product of the state.
        projection: the name of the matrix that projects the output.
        hidden: rows of a gate.
    """
    biased = len(tensors) - (projection is not None) == 4
    places = {}
    for i, (w, u, b) in enumerate(gates):
        row = i * hidden
        places[w], places[u] = Source((0,), row), Source((1,), row)
        if not biased:
            places[b] = Source((), 0)
            if i in second:
                places[second[i]] = Source((), 0)
        elif i in second:
            places[b], places[second[i]] = Source((2,), row), Source((3,), row)
        else:
            places[b] = Source((2, 3), row)
    if projection is not None:
        places[projection] = Source((len(tensors) - 1,), 0)
    return Parameters(tuple(tensors), places)


def by_name(
    parameters: Parameters, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Each parameter as a tensor of its own, under autograd."""
    named = {}
    for name, (tensors, row) in parameters.places.items():
        shape = shapes[name]
        if not tensors:
            named[name] = parameters.tensors[0].new_zeros(shape)
            continue
        parts = [parameters.tensors[i] for i in tensors]
        if shape and parts[0].shape[0] != shape[0]:
            parts = [part[row : row + shape[0]] for part in parts]
        named[name] = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return named
