"""Where a kernel finds its parameters: in tensors of their own, or as rows of stacked ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
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
    return Parameters(tuple(parameters.values()), places_of(tuple(parameters)))


@cache
def places_of(names: tuple[str, ...]) -> Mapping[str, Source]:
    """The places of parameters that are tensors of their own, in the order of their names."""
    return {name: Source((i,), 0) for i, name in enumerate(names)}


@cache
def stacked(
    gates: tuple[tuple[str, str, str], ...],
    second: tuple[tuple[int, str], ...],
    projection: str | None,
    hidden: int,
    biased: bool,
    added: tuple[str, ...],
) -> Mapping[str, Source]:
    """Places in the tensors as torch.nn stacks them: W_ih, W_hh, b_ih and b_hh, a projection.

    Args:
        gates: for each gate in torch's order the names of W, U, and the bias.
        second: gates with the name of a bias that stands within the product of the state.
        projection: the name of the matrix that projects the output.
        hidden: rows of a gate.
        biased: whether there are the two biases.
        added: the names of parameters that follow, each a tensor of its own.
    """
    places, within = {}, dict(second)
    for i, (w, u, b) in enumerate(gates):
        row = i * hidden
        places[w], places[u] = Source((0,), row), Source((1,), row)
        if not biased:
            places[b] = Source((), 0)
            if i in within:
                places[within[i]] = Source((), 0)
        elif i in within:
            places[b], places[within[i]] = Source((2,), row), Source((3,), row)
        else:
            places[b] = Source((2, 3), row)
    count = 4 if biased else 2
    for name in (*(() if projection is None else (projection,)), *added):
        places[name] = Source((count,), 0)
        count += 1
    return places


def by_name(parameters: Parameters, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
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
