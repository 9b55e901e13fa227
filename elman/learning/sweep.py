"""A window's values, and many cotangents back through it at once.

The forward values of a window have the axes (time, batch, …). Cotangents have one axis more behind
the batch, (time, batch, basis, …): all of a basis share the values, so that a Jacobian costs one
walk back over time whatever its number of rows. Everything here is without autograd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor

from elman.backends.call import Carried as Kept
from elman.equation.adjoint import Adjoint, adjoint
from elman.equation.graph import Graph
from elman.errors import InputError


@cache
def adjoint_of(graph: Graph) -> Adjoint:
    """The adjoint of a step, derived once."""
    return adjoint(graph)


@dataclass(frozen=True)
class Values:
    """The values of a step's nodes at all steps of a window, for one layer.

    Attributes:
        backward: the adjoint of the step.
        nodes: for each node of `backward` that does not depend on a cotangent its value:
            (time, batch, …) for what changes from step to step, (1, batch, …) for what belongs to
            a sequence, no lead axes for what depends on parameters alone, numbers for constants.
        carried: what the window began with, states and then delay lines, (batch, …) each.
        lengths, resets: as in `elman.backends.call.Call`; a length may be 0 for a row that had
            ended before.
    """

    backward: Adjoint
    nodes: list[Any]
    carried: Kept
    time: int
    lengths: Tensor | None = None
    resets: Tensor | None = None


class Pair(NamedTuple):
    """A product a = W v of a step: W's cotangent is Σ over time of `cotangent` `vector`ᵀ.

    Attributes:
        weight: the node of W, which depends on parameters alone.
        cotangent: ā, (time, batch, basis, rows).
        vector: v, (time, batch, columns); of a bilinear product u ⊗ v as one vector.
    """

    weight: int
    cotangent: Tensor
    vector: Tensor


@dataclass(frozen=True)
class Pulled:
    """What cotangents become on their way back through a window.

    Attributes:
        carried: of what the window began with, states and then delay lines, (batch, basis, …).
        fresh: of what resets put there, in the same order; None without resets.
        x: of the input, (time, batch, basis, input); None where the step does not read it.
        pairs: one for each product.
        vectors: for each other node that depends on parameters alone its summands,
            (time, batch, basis, …), to be summed over time.
    """

    carried: Kept
    fresh: Kept | None
    x: Tensor | None
    pairs: tuple[Pair, ...]
    vectors: Mapping[int, Tensor]


def window_values(
    graph: Graph,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    carried: Kept,
    *,
    states: tuple[Tensor, ...] | None = None,
    fresh: Kept | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    extras: Mapping[str, Tensor] | None = None,
) -> Values:
    """The values of all steps of a window.

    Args:
        graph: one step of a layer.
        parameters: a tensor for each parameter of the graph, by name.
        x: (time, batch, input).
        carried: what the window begins with, states and then delay lines, (batch, …) each.
        states: every state after each step, each (time, batch, …), if they are known; else they
            are computed here, step by step.
        fresh: what `carried` becomes at a reset; needed with `resets`.
        lengths: real steps of each row, (batch,), 0 for a row that had ended before the window.
        resets: true where a segment of a row begins, (time, batch).
        extras: the further inputs by name, (time, batch, …) for those of a step and (batch, …)
            for those of a sequence.
    """
    raise InputError("window_values is not built yet")


def pull(
    values: Values, out: Tensor | None = None, last: Kept | None = None, *, basis: int | None = None
) -> Pulled:
    """Many cotangents at once, back through a window.

    Args:
        values: of the window.
        out: cotangents of the outputs, (time, batch, basis, size); None for zeros.
        last: cotangents of what the window carries on, states and then delay lines,
            (batch, basis, …) each, at each row's own last real step; None for zeros.
        basis: how many cotangents, where neither says it.

    Returns:
        Pulled: their pull-back to the window's start, its inputs, and its weights.
    """
    raise InputError("pull is not built yet")
