"""Advice in words: whether gradients vanish or explode, from which lag, why, and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from elman.diagnose.activity import Activity, activity
from elman.diagnose.cures import Cure, against_exploding, against_vanishing
from elman.diagnose.evidence import OPEN, Evidence
from elman.diagnose.flow import Flow, gradient_flow
from elman.diagnose.jacobians import Spectrum, spectrum
from elman.diagnose.sweep import Loss
from elman.diagnose.watch import watch
from elman.equation import Graph
from elman.errors import InputError

_JACOBIANS = 16  # steps whose spectrum is looked at


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
        case = Evidence(
            graphs[number],
            place.decay(),
            doing[number],
            None if spectra is None else spectra[number],
            needed or place.real.shape[1] - 1,
        )
        found.append(_advice(case, place.name))
    return tuple(found)


def _advice(case: Evidence, place: str) -> Advice:
    word = case.decay.word
    found = [_flow_words(case), *_step_words(case), *_gate_words(case), *_squash_words(case)]
    lag = {"vanishing": case.decay.horizon, "exploding": case.decay.explodes}.get(word)
    cures: list[Cure] = []
    if word == "exploding":
        cures = against_exploding(case)
    elif word == "vanishing" and (lag or 0) < case.needed:
        cures = against_vanishing(case)
    return Advice(place, word, lag, tuple(found), tuple(cures))


def _flow_words(case: Evidence) -> str:
    mean, decay, last = case.decay.mean, case.decay, len(case.decay.mean) - 1
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


def _step_words(case: Evidence) -> list[str]:
    if case.stateless:
        return ["nothing is carried from step to step but what a delay line holds"]
    if case.spectrum is None:
        return ["its Jacobian is not finite"]
    return [
        f"one step multiplies changes of the state by up to {case.stretch:.3g} (median of the "
        f"largest singular value of ∂s_t/∂s_t-1); its spectral radius is {case.radius:.3g} "
        "(median)"
    ]


def _gate_words(case: Evidence) -> list[str]:
    found = []
    for state, value in case.keeps.items():
        name = case.keepers[state]
        half = math.log(0.5) / math.log(value) if 0 < value < 1 else math.inf
        found.append(
            f"gate {name} keeps {100 * value:.0f} % of {state} a step on average, by which half is "
            f"gone after {half:.2g}; {100 * case.open[state]:.0f} % of its values are above {OPEN}"
        )
    return found


def _squash_words(case: Evidence) -> list[str]:
    return [
        f"{100 * s.share:.0f} % of the values of {name} ({function}) are near its bounds, "
        "where its slope is small"
        + (f"; {100 * s.stuck:.0f} % of its units never leave one" if s.stuck else "")
        for name, (function, s) in case.saturated.items()
    ]
