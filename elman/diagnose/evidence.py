"""What was measured of one layer, as the figures that advice speaks of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from elman.diagnose.activity import Activity, Saturation
from elman.diagnose.flow import Decay
from elman.diagnose.gates import keepers
from elman.diagnose.jacobians import Spectrum
from elman.equation import Graph
from elman.equation.graph import STATE
from elman.layers.gates import state_matrices

SATURATED = 0.25  # share of a gate's values near its bounds from which it is told
OPEN = 0.9  # a gate below this forgets within a few steps


@dataclass(frozen=True)
class Evidence:
    """What was measured of one layer and direction.

    Attributes:
        graph: its step.
        decay: how its gradient falls with the lag.
        doing: its states and gates.
        spectrum: of its steps; None where they are not finite.
        needed: the lag over which something must be learned.
    """

    graph: Graph
    decay: Decay
    doing: Activity
    spectrum: Spectrum | None
    needed: int

    @property
    def stateless(self) -> bool:
        """Whether no step reads what an earlier one made."""
        return STATE not in self.graph.levels or not any(
            self.graph.levels[i] == STATE for i in (self.graph.output, *self.graph.new_states)
        )

    @property
    def largest(self) -> float:
        """The largest mean gradient, over that at lag 0."""
        return float((self.decay.mean / self.decay.mean[0]).max())

    @property
    def stretch(self) -> float:
        """The median of the largest singular values of a step's Jacobian."""
        return float(self.spectrum.singular[..., 0].median()) if self.spectrum else math.nan

    @property
    def radius(self) -> float:
        """The median of its spectral radii."""
        return float(self.spectrum.radius.median()) if self.spectrum else math.nan

    @property
    def keeps(self) -> dict[str, float]:
        """The mean by which each gated state is kept."""
        real = self.doing.real
        return {name: float(value[real].mean()) for name, value in self.doing.keeps.items()}

    @property
    def keepers(self) -> dict[str, str]:
        """The name of the gate that keeps each gated state."""
        return {k.state: k.activation.name for k in keepers(self.graph)}

    @property
    def open(self) -> dict[str, float]:
        """The share of values above 0.9 of the gate that keeps each gated state."""
        real = self.doing.real
        return {n: float((v[real] > OPEN).double().mean()) for n, v in self.doing.keeps.items()}

    @property
    def saturations(self) -> dict[str, tuple[str, Saturation]]:
        """The function and the saturation of every gate, by name."""
        functions = self.doing.functions
        return {n: (functions[n], s) for n, s in self.doing.saturation().items()}

    @property
    def saturated(self) -> dict[str, tuple[str, Saturation]]:
        """The gates of which much is near the bounds, those that keep a state left out."""
        keep = set(self.keepers.values())
        return {
            n: (f, s)
            for n, (f, s) in self.saturations.items()
            if s.share >= SATURATED and n not in keep and f in ("tanh", "sigmoid", "hardsigmoid")
        }

    @property
    def matrices(self) -> str:
        """The names of the matrices that multiply the state."""
        return ", ".join(state_matrices(self.graph))

    @property
    def functions(self) -> dict[str, str]:
        """The functions of the gates, each with the last gate that has it."""
        return {function: name for name, function in self.doing.functions.items()}

    def share(self, function: str) -> float:
        """The largest share of saturated values of a function."""
        return max(s.share for f, s in self.saturations.values() if f == function)
