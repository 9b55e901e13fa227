"""Advice in words: whether gradients vanish or explode, from which lag, why, and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from elman.diagnose.activity import Activity, Saturation, activity
from elman.diagnose.flow import Decay, Flow, gradient_flow
from elman.diagnose.gates import keepers
from elman.diagnose.jacobians import Spectrum, spectrum
from elman.diagnose.sweep import Loss
from elman.diagnose.watch import watch
from elman.equation import Graph
from elman.equation.graph import STATE
from elman.errors import InputError
from elman.layers.gates import state_matrices

_JACOBIANS = 16  # steps whose spectrum is looked at
_SATURATED = 0.25  # share of a gate's values near its bounds from which it is told
_OPEN = 0.7  # what a forget bias of 1 gives, nearly
_KEEPS = 0.9  # a gate below this mean forgets within a few steps


class Cure(NamedTuple):
    """Something to try.

    Attributes:
        option: of `elman train`.
        words: what it does here, with the measured reason.
    """

    option: str
    words: str


@dataclass(frozen=True)
class Advice:
    """What to think of one layer and direction.

    Attributes:
        place: its name.
        word: "vanishing", "exploding", "steady", or "none" where no error reaches it.
        lag: the lag from which it is so; None where it is steady.
        found: sentences that say what was measured.
        cures: what to try, the most fitting first.
    """

    place: str
    word: str
    lag: int | None
    found: tuple[str, ...]
    cures: tuple[Cure, ...]

    def lines(self) -> list[str]:
        """The advice as lines of text."""
        lag = "" if self.lag is None else f" from lag {self.lag}"
        lines = [f"{self.place}: {self.word}{lag}", *(f"  {sentence}" for sentence in self.found)]
        return lines + [f"  try {cure.option}: {cure.words}" for cure in self.cures]

    def to_json(self) -> dict[str, Any]:
        """The advice as plain data."""
        return {
            "place": self.place,
            "word": self.word,
            "lag": self.lag,
            "found": list(self.found),
            "cures": [cure._asdict() for cure in self.cures],
        }


def advice(
    model: nn.Module,
    x: Tensor,
    targets: Any = None,
    loss: Loss | None = None,
    *,
    state: Any = None,
    lengths: Tensor | Sequence[int] | None = None,
    inputs: Mapping[str, Tensor] | None = None,
    needed: int | None = None,
    seed: int = 0,
) -> tuple[Advice, ...]:
    """Say of each layer whether gradients vanish or explode in it, why, and what to try.

    Vanishing is a mean ‖∂L_t/∂z_k‖ below 1 % of that at lag 0 before the longest lag, exploding
    one above 100 times that. The reasons are measured: how far a step shrinks or stretches the
    state (`spectrum`), how long the gates keep it, how many values are saturated (`activity`).

    Args:
        model, x, targets, loss, state, lengths, inputs, seed: as in
            `elman.diagnose.gradient_flow`.
        needed: the lag over which something must be learned, in steps; the length of x if not
            given.

    Returns:
        an `Advice` for each layer and direction. The cures are options of `elman train`.

    Example:
        >>> import elman, torch
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch...>
        >>> (found,) = advice(elman.RNN(4, 32), torch.randn(100, 2, 4))
        >>> found.word, found.cures[0].option
        ('vanishing', '--recurrent-init orthogonal')

    Source: the cures: Pascanu, Mikolov & Bengio 2013 (clipping, the penalty on the flow); Saxe,
    McClelland & Ganguli 2014 (orthogonal); Le, Jaitly & Hinton 2015 (identity and relu); Gers,
    Schmidhuber & Cummins 2000 (forget bias); Tallec & Ollivier 2018 (chrono); Hochreiter &
    Schmidhuber 1997 (gates).
    """
    run = watch(model, x, state, lengths=lengths, inputs=inputs)
    flow = gradient_flow(
        model, x, targets, loss, state=state, lengths=lengths, inputs=inputs, seed=seed
    )
    doing = activity(model, x, state=state, lengths=lengths, inputs=inputs)
    try:
        spectra = spectrum(model, x, state=state, inputs=inputs, most=_JACOBIANS)
    except InputError:  # the state overflows; the flow says so
        spectra = None
    return advise(flow, doing, spectra, [p.graph for p in run.places], needed=needed)


def advise(
    flow: Flow,
    doing: Sequence[Activity],
    spectra: Sequence[Spectrum] | None,
    graphs: Sequence[Graph],
    *,
    needed: int | None = None,
) -> tuple[Advice, ...]:
    """The advice of what was measured before.

    Args:
        flow: of `gradient_flow`.
        doing: of `activity`, place by place.
        spectra: of `spectrum`, or None.
        graphs: the step of each place.
        needed: as in `advice`.
    """
    found = []
    for number, place in enumerate(flow.places):
        case = _Case(
            graphs[number],
            place.decay(),
            doing[number],
            None if spectra is None else spectra[number],
            needed or place.real.shape[1] - 1,
        )
        found.append(case.advice(place.name))
    return tuple(found)


@dataclass(frozen=True)
class _Case:
    """What was measured of one place."""

    graph: Graph
    decay: Decay
    doing: Activity
    spectrum: Spectrum | None
    needed: int

    def advice(self, place: str) -> Advice:
        word = self.decay.word
        found = [self.flow_words(), *self.step_words(), *self.gate_words(), *self.squash_words()]
        lag = {"vanishing": self.decay.horizon, "exploding": self.decay.explodes}.get(word)
        cures: list[Cure] = []
        if word == "exploding":
            cures = self.against_exploding()
        elif word == "vanishing" and (lag or 0) < self.needed:
            cures = self.against_vanishing()
        return Advice(place, word, lag, tuple(found), tuple(cures))

    # -- what was measured, in sentences --

    def flow_words(self) -> str:
        mean, decay, last = self.decay.mean, self.decay, len(self.decay.mean) - 1
        if decay.word == "none":
            return "no error reaches this layer"
        if not last:
            return "one step is too few to see how far an error reaches"
        rate = f"× {decay.rate:.3g} a step" if math.isfinite(decay.rate) else "at no steady rate"
        if decay.word == "exploding":
            return (
                f"the mean gradient is above 100 times that of lag 0 from lag {decay.explodes} on "
                f"({rate}; {float(mean[0]):.2g} at lag 0)"
            )
        part = float(mean[last] / mean[0])
        if decay.word == "vanishing":
            fold = "" if decay.e_fold is None else f"below 1/e of lag 0 from lag {decay.e_fold}, "
            return (
                f"the mean gradient is {fold}below 1 % from lag {decay.horizon} ({rate}); "
                f"{f'{part:.1g}' if part else 'nothing'} of it is left at lag {last}"
            )
        return (
            f"the mean gradient at lag {last} is {part:.2g} of that at lag 0 ({rate}): it neither "
            "vanishes nor explodes over these steps"
        )

    def step_words(self) -> list[str]:
        if self.stateless:
            return ["nothing is carried from step to step but what a delay line holds"]
        if self.spectrum is None:
            return ["its Jacobian is not finite"]
        return [
            f"one step multiplies changes of the state by up to {self.stretch:.3g} (median of the "
            f"largest singular value of ∂s_t/∂s_t-1); its spectral radius is {self.radius:.3g} "
            "(median)"
        ]

    def gate_words(self) -> list[str]:
        found = []
        for state, value in self.keeps.items():
            name = self.keepers[state]
            half = math.log(0.5) / math.log(value) if 0 < value < 1 else math.inf
            found.append(
                f"gate {name} keeps {100 * value:.0f} % of {state} a step on average: half is gone "
                f"after {half:.2g} step{'s' if half != 1 else ''}"
            )
        return found

    def squash_words(self) -> list[str]:
        return [
            f"{100 * s.share:.0f} % of the values of {name} ({function}) are near its bounds, "
            "where its slope is small"
            + (f"; {100 * s.stuck:.0f} % of its units never leave one" if s.stuck else "")
            for name, (function, s) in self.saturated.items()
        ]

    # -- what to try --

    def against_vanishing(self) -> list[Cure]:
        if self.stateless:
            return [Cure("--cell lstm (or gru)", "a state goes back further than a delay line")]
        cures = []
        for state, value in self.keeps.items():
            if value < _KEEPS:
                name, bias = self.keepers[state], 1 if value < _OPEN else 3
                cures.append(
                    Cure(
                        f"--chrono {self.needed}",
                        f"spreads the memories of gate {name}, now {100 * value:.0f} % a step, "
                        f"over times up to {self.needed} steps",
                    )
                )
                cures.append(
                    Cure(
                        f"--forget-bias {bias}",
                        f"opens gate {name} at the start, so that it keeps "
                        f"{100 / (1 + math.exp(-bias)):.0f} % of {state} a step",
                    )
                )
        ungated = not self.keeps
        matrices = ", ".join(state_matrices(self.graph))
        if matrices and ungated:
            because = f"the radius {self.radius:.3g}" if self.spectrum else "the decay"
            cures.append(
                Cure(
                    "--recurrent-init orthogonal",
                    f"starts {matrices} orthogonal, which shrinks nothing, against {because}",
                )
            )
        if ungated and "tanh" in self.functions:
            share = self.share("tanh")
            cures.append(
                Cure(
                    "--cell irnn",
                    "another activation: relu has slope 1 where it is open, and the recurrent "
                    f"matrix starts at the identity ({100 * share:.0f} % of tanh's values are "
                    "saturated here)",
                )
            )
        elif ungated and "relu" in self.functions and state_matrices(self.graph):
            cures.append(
                Cure("--recurrent-init identity", "lets open relu units keep what they have")
            )
        if ungated:
            cures += [
                Cure(
                    "--cell lstm (or gru)",
                    "a gate can keep the state, which here loses a factor of "
                    f"{1 / self.decay.rate:.2g} at every step"
                    if 0 < self.decay.rate < 1
                    else "a gate can keep the state",
                ),
                Cure(
                    "--cell residual",
                    "the residual form h + g(x, h) passes the old state on as it is; it can "
                    "explode, so keep --clip-norm",
                ),
            ]
        cures.append(
            Cure(
                "--flow-penalty 0.1",
                "holds the length of the gradient from step to step while the network learns",
            )
        )
        return cures

    def against_exploding(self) -> list[Cure]:
        cures = [
            Cure(
                "--clip-norm 1",
                f"bounds the step that such a gradient makes, which is {self.largest:.2g} times as "
                "long as at lag 0; it does not touch the cause",
            )
        ]
        matrices = ", ".join(state_matrices(self.graph))
        if matrices:
            because = f", against the radius {self.radius:.3g}" if self.spectrum else ""
            words = f"starts {matrices} orthogonal, which stretches nothing{because}"
            cures.append(Cure("--recurrent-init orthogonal", words))
        cures.append(
            Cure(
                "--flow-penalty 0.1",
                "holds the length of the gradient from step to step while the network learns",
            )
        )
        if not self.functions.keys() & {"tanh", "sigmoid"}:
            cures.append(
                Cure(
                    "--cell simple",
                    "another activation: tanh bounds a state that nothing bounds here",
                )
            )
        if not self.keeps:
            cures.append(
                Cure("--cell lstm (or gru)", "its state is kept by a gate, of at most 1, a step")
            )
        return cures

    # -- figures --

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
        return float(self.spectrum.singular[..., 0].median()) if self.spectrum else math.nan

    @property
    def radius(self) -> float:
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
    def saturations(self) -> dict[str, tuple[str, Saturation]]:
        functions = self.doing.functions
        return {n: (functions[n], s) for n, s in self.doing.saturation().items()}

    @property
    def saturated(self) -> dict[str, tuple[str, Saturation]]:
        """The gates of which much is near the bounds, those that keep a state left out."""
        keep = set(self.keepers.values())
        return {
            n: (f, s)
            for n, (f, s) in self.saturations.items()
            if s.share >= _SATURATED and n not in keep and f in ("tanh", "sigmoid", "hardsigmoid")
        }

    @property
    def functions(self) -> dict[str, str]:
        return {function: name for name, function in self.doing.functions.items()}

    def share(self, function: str) -> float:
        """The largest share of saturated values of a function."""
        return max(s.share for f, s in self.saturations.values() if f == function)
