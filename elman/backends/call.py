"""One call of one cell over time, as every backend and every way of learning receives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

Carried = tuple[Tensor, ...]


@dataclass(frozen=True)
class Call:
    """What one layer and direction is asked to compute; time runs forwards here.

    Attributes:
        x: (time, batch, input), zeros past a row's end.
        carried: states, each (batch, size), then delay lines, each (batch, depth, size).
        fresh: what `carried` becomes at a reset; needed with `resets`.
        lengths: real steps of each row, (batch,), or None for all.
        resets: true where a segment of a row begins, (time, batch).
        step_extras: further inputs of each step by name, (time, batch, size).
        sequence_extras: further inputs of a whole sequence by name, (batch, size).
        return_states: whether every state at every step is wanted.
        backwards: walk each row from its end to its start, with results in the order of time. Only
            our kernels are asked so; for the others time is turned around first.
    """

    x: Tensor
    carried: Carried
    fresh: Carried | None = None
    lengths: Tensor | None = None
    resets: Tensor | None = None
    step_extras: Mapping[str, Tensor] = field(default_factory=dict)
    sequence_extras: Mapping[str, Tensor] = field(default_factory=dict)
    return_states: bool = False
    backwards: bool = False


@dataclass(frozen=True)
class Result:
    """Outputs (time, batch, size), zero past a row's end; what is carried on; all states."""

    out: Tensor
    carried: Carried
    states: tuple[Tensor, ...] | None = None


Runner = Callable[[Call], Result]
