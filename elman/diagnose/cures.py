"""Which cures to try for a gradient that vanishes or explodes, each with the measured reason."""

from __future__ import annotations

import math
from typing import NamedTuple

from elman.diagnose.evidence import OPEN, Evidence

_BIAS_OF_ONE = 0.7  # what a forget bias of 1 keeps, nearly


class Cure(NamedTuple):
    """Something to try.

    Attributes:
        option: of `elman train`.
        words: what it does here, with the measured reason.
    """

    option: str
    words: str


def against_vanishing(case: Evidence) -> list[Cure]:
    """Cures for a gradient that vanishes, the most fitting first.

    Gates come first where the cell has one that keeps its state, and is not open. Where it has
    none, the recurrent matrix, the activation, and then other cells.
    """
    if case.stateless:
        return [Cure("--cell lstm (or gru)", "a state goes back further than a delay line")]
    if case.keeps:
        cures = _gates(case)
    elif "sigmoid" in case.functions:  # gates of another kind, with no bias that keeps a state
        words = "its forget gate has a bias that --forget-bias and --chrono can set"
        cures = [*_start(case), Cure("--cell lstm (or gru)", words)]
    else:
        cures = [*_start(case), *_activation(case), *_cells(case)]
    return [*cures, _penalty()]


def against_exploding(case: Evidence) -> list[Cure]:
    """Cures for a gradient that explodes, the most fitting first."""
    clipping = Cure(
        "--clip-norm 1",
        f"bounds the step that such a gradient makes, which is {case.largest:.2g} times as long as "
        "at lag 0; it does not touch the cause",
    )
    cures = [clipping]
    if case.matrices:
        because = f", against the radius {case.radius:.3g}" if case.spectrum else ""
        words = f"starts {case.matrices} orthogonal, which stretches nothing{because}"
        cures.append(Cure("--recurrent-init orthogonal", words))
    cures.append(_penalty())
    if not case.functions.keys() & {"tanh", "sigmoid"}:
        words = "another activation: tanh bounds a state that nothing bounds here"
        cures.append(Cure("--cell simple", words))
    if not case.keeps:
        words = "its state is kept by a gate, of at most 1, a step"
        cures.append(Cure("--cell lstm (or gru)", words))
    return cures


def _gates(case: Evidence) -> list[Cure]:
    """Longer memories for the gates that keep a state."""
    cures = []
    for state, value in case.keeps.items():
        if value >= OPEN:
            continue
        name, bias = case.keepers[state], 1 if value < _BIAS_OF_ONE else 3
        words = (
            f"spreads the memories of gate {name}, now {100 * value:.0f} % a step, over times up "
            f"to {case.needed} steps"
        )
        cures.append(Cure(f"--chrono {case.needed}", words))
        kept = 100 / (1 + math.exp(-bias))
        words = f"opens gate {name} at the start, so that it keeps {kept:.0f} % of {state} a step"
        cures.append(Cure(f"--forget-bias {bias}", words))
    return cures


def _start(case: Evidence) -> list[Cure]:
    """A recurrent matrix that shrinks nothing."""
    if not case.matrices:
        return []
    because = f"the radius {case.radius:.3g}" if case.spectrum else "the decay"
    words = f"starts {case.matrices} orthogonal, which shrinks nothing, against {because}"
    return [Cure("--recurrent-init orthogonal", words)]


def _activation(case: Evidence) -> list[Cure]:
    """A slope of one."""
    if "tanh" in case.functions:
        words = (
            "another activation: relu has slope 1 where it is open, and the recurrent matrix "
            f"starts at the identity ({100 * case.share('tanh'):.0f} % of tanh's values are "
            "saturated here)"
        )
        return [Cure("--cell irnn", words)]
    if "relu" in case.functions and case.matrices:
        return [Cure("--recurrent-init identity", "lets open relu units keep what they have")]
    return []


def _cells(case: Evidence) -> list[Cure]:
    """Other cells, whose state is kept or passed on."""
    rate = case.decay.rate
    lost = f", which here loses a factor of {1 / rate:.2g} at every step" if 0 < rate < 1 else ""
    words = (
        "the residual form h + g(x, h) passes the old state on as it is; it can explode, so keep "
        "--clip-norm"
    )
    return [
        Cure("--cell lstm (or gru)", f"a gate can keep the state{lost}"),
        Cure("--cell residual", words),
    ]


def _penalty() -> Cure:
    words = "holds the length of the gradient from step to step while the network learns"
    return Cure("--flow-penalty 0.1", words)
