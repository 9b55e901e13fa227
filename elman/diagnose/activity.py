"""What the units of a model do over a sequence: gates, states, and how much of them is stuck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elman.diagnose.gates import BOUNDS, activations, keepers
from elman.diagnose.watch import Place, watch
from elman.errors import InputError

# A value in the outer tenth of its range is near its bound: a logistic gate below 0.1 or above 0.9.
NEAR = 0.1


class Saturation(NamedTuple):
    """How much of a gate is near its bounds.

    Attributes:
        low: the share of values near the lower bound, 0 to 1; 0 where there is none.
        high: so near the upper bound.
        mean: of all values.
        stuck: the share of units that are near the same bound at every step and row.
    """

    low: float
    high: float
    mean: float
    stuck: float

    @property
    def share(self) -> float:
        """The share of values near either bound."""
        return self.low + self.high


class UnitShares(NamedTuple):
    """For each unit the share of steps near its lower and near its upper bound, (units,)."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Activity:
    """What one layer and direction did.

    Attributes:
        name: "layer 1", "layer 1 backwards", …
        states: every state by name, (time, batch, …).
        gates: so every value that a nonlinear function bounds.
        functions: by name of a gate its function ("sigmoid", "tanh", …).
        keeps: by name of a state the factor by which a gate keeps it, (time, batch, units).
        real: (time, batch), true at real steps.
    """

    name: str
    states: Mapping[str, Tensor]
    gates: Mapping[str, Tensor]
    functions: Mapping[str, str]
    keeps: Mapping[str, Tensor]
    real: Tensor

    def norms(self) -> dict[str, Tensor]:
        """‖s_t‖ of every state, (time, batch)."""
        return {
            name: value.reshape(*value.shape[:2], -1).norm(dim=-1)
            for name, value in self.states.items()
        }

    def saturation(self) -> dict[str, Saturation]:
        """How much of each gate is near its bounds, over all real steps."""
        return {
            name: _saturation(value[self.real], self.functions[name])
            for name, value in self.gates.items()
        }

    def unit_saturation(self, gate: str) -> UnitShares:
        """How often each unit of a gate is near its bounds, over all real steps."""
        return UnitShares(*_near(self.gates[gate][self.real].flatten(1), self.functions[gate]))


def activity(
    model: nn.Module,
    x: Tensor,
    *,
    state: Any = None,
    lengths: Tensor | Sequence[int] | None = None,
    resets: Tensor | None = None,
    inputs: Mapping[str, Tensor] | None = None,
) -> tuple[Activity, ...]:
    """Run a model and keep every state and gate of every layer at every step.

    Args:
        model, x, state, lengths, resets, inputs: as in `elman.diagnose.gradient_flow`.

    Returns:
        an `Activity` for each layer and direction, in the order of the sequence.

    Raises:
        InputError: no recurrent layer of Elman ran.

    Example:
        >>> import elman, torch
        >>> found = activity(elman.LSTM(2, 3), torch.randn(5, 1, 2))[0]
        >>> {name: tuple(v.shape) for name, v in found.states.items()}
        {'h': (5, 1, 3), 'c': (5, 1, 3)}
        >>> list(found.gates), list(found.keeps)
        (['i', 'f', 'g', 'o', 'tanh(c)'], ['c'])
    """
    run = watch(model, x, state, lengths=lengths, resets=resets, inputs=inputs)
    return tuple(activity_of(place) for place in run.places)


@torch.no_grad()
def activity_of(place: Place) -> Activity:
    """What a watched place did."""
    graph = place.graph
    found = activations(graph)
    gates = {a.name: place.series(a.node) for a in found}
    keeps = {}
    for keeper in keepers(graph):
        value = gates[keeper.activation.name]
        keeps[keeper.state] = 1 - value if keeper.turned else value
    names = [s.name for s in graph.states]
    states = zip(names, (place.in_order(s.detach()) for s in place.states), strict=True)
    functions = {a.name: a.op for a in found}
    return Activity(place.name, dict(states), gates, functions, keeps, place.real)


def saturation(
    model: nn.Module,
    x: Tensor,
    *,
    state: Any = None,
    lengths: Tensor | Sequence[int] | None = None,
    inputs: Mapping[str, Tensor] | None = None,
) -> dict[str, dict[str, Saturation]]:
    """Measure how much of each gate is near its bounds, where its gradient is small.

    Near is the outer tenth of the range: a logistic gate below 0.1 or above 0.9, a tanh beyond
    ±0.8; of relu, which has one bound, zero itself.

    Args:
        model, x, state, lengths, inputs: as in `elman.diagnose.gradient_flow`.

    Returns:
        by name of the place, by name of the gate, a `Saturation`.

    Example:
        >>> import elman, torch
        >>> found = saturation(elman.LSTM(2, 3), torch.zeros(5, 1, 2))
        >>> found["layer 1"]["f"].share
        0.0

    Source: Karpathy, Johnson & Fei-Fei 2015, "Visualizing and understanding recurrent networks",
    section 4.2 (gates below 0.1 and above 0.9).
    """
    found = activity(model, x, state=state, lengths=lengths, inputs=inputs)
    return {one.name: one.saturation() for one in found}


def _saturation(values: Tensor, function: str) -> Saturation:
    """Of values (rows, units)."""
    low, high = _near(values.flatten(1), function)
    stuck = (low == 1) | (high == 1)
    mean, share = float(values.double().mean()), float(stuck.double().mean())
    return Saturation(float(low.mean()), float(high.mean()), mean, share)


def _near(values: Tensor, function: str) -> tuple[Tensor, Tensor]:
    """For each unit the share of its values near the lower and near the upper bound."""
    low, high = BOUNDS[function]
    if low is not None and high is not None:
        near = NEAR * (high - low)
        below, above = values < low + near, values > high - near
    else:
        nowhere = torch.zeros_like(values, dtype=torch.bool)
        below = nowhere if low is None else values <= low
        above = nowhere if high is None else values >= high
    return below.double().mean(0), above.double().mean(0)


def unit_of(one: Activity, state: str, unit: int) -> Tensor:
    """One unit of a state over the sequence, (time, batch).

    Raises:
        InputError: no such state or unit.
    """
    if state not in one.states:
        raise InputError(f"{one.name} has no state {state!r}; there are {', '.join(one.states)}")
    values = one.states[state]
    values = values.reshape(*values.shape[:2], -1)
    if not 0 <= unit < values.shape[-1]:
        raise InputError(
            f"{one.name}: there is no unit {unit} in {state}; there are 0 to {values.shape[-1] - 1}"
        )
    return values[..., unit]
