"""How near a method's gradient comes to the exact one, measured along a run of its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from elman.errors import InputError
from elman.learning.bptt import BPTT

Loss = Callable[[Tensor, Any], Tensor]
Pieces = Iterable[tuple[Tensor, Any]]


@dataclass(frozen=True)
class Fidelity:
    """What `fidelity` measured, a number for each piece of the run.

    Attributes:
        method, against: what was compared with what, in words.
        cosine: of the two gradients, all weights as one vector; NaN where one of them is zero.
        error: ‖g − g*‖ / ‖g*‖, with g* the gradient that was compared against; NaN where that is
            zero.
        loss: the loss of each piece.
        by_weight: the cosine of each weight's gradient alone, by name.
    """

    method: str
    against: str
    cosine: tuple[float, ...]
    error: tuple[float, ...]
    loss: tuple[float, ...]
    by_weight: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def mean_cosine(self, first: int = 0) -> float:
        """The mean over the pieces from `first` on that have one; NaN where none has."""
        return _mean(self.cosine[first:])

    def words(self) -> str:
        """The measurement in a sentence."""
        known = [c for c in self.cosine if not math.isnan(c)]
        start = f"{self.method}, against {self.against}, over {len(self.cosine)} pieces: "
        if not known:
            return start + "no piece had a gradient."
        return (
            f"{start}cosine {_mean(known):.3f} on average ({min(known):.3f} to {max(known):.3f}), "
            f"relative error {_mean(self.error):.3g}."
        )

    def data(self) -> dict[str, Any]:
        """The measurement as plain data, for JSON; what is not a number is None."""

        def plain(values: Sequence[float]) -> list[float | None]:
            return [None if math.isnan(v) else v for v in values]

        return {
            "method": self.method,
            "against": self.against,
            "cosine": plain(self.cosine),
            "error": plain(self.error),
            "loss": plain(self.loss),
            "by_weight": {name: plain(values) for name, values in self.by_weight.items()},
        }


def fidelity(
    layer: nn.Module,
    pieces: Pieces,
    loss: Loss,
    *,
    learning: BPTT | None = None,
    against: BPTT | None = None,
    optimizer: Optimizer | None = None,
    state: Any = None,
) -> Fidelity:
    r"""Measure a method's gradient beside an exact one, piece by piece along a run.

    Each piece is run once with the method and once by a shadow with the same weights, the same
    dropout masks and an influence of its own, and

    $$\cos = \frac{\langle g, g^* \rangle}{\|g\|\,\|g^*\|}, \qquad
    \mathrm{error} = \frac{\|g - g^*\|}{\|g^*\|}$$

    are taken over all weights of the layer. With an optimizer the weights move by the method's
    gradient. An influence that was carried under changing weights is then stale in both, and both
    are compared as they are; `against=elman.BPTT()` runs the whole past again with the present
    weights for each piece, which nothing stale is in, and takes time that grows with the run.

    Args:
        layer: a recurrent layer or `elman.Chain`; it is called as `layer(x, state)`.
        pieces: (x, target) in the order of the stream; x as the layer takes it, batched.
        loss: of the layer's output and a target; a readout may be in it.
        learning: the method; the layer's own if not given.
        against: what to compare with: `elman.BPTT(window, carry="exact")` with the method's window
            if not given, or `elman.BPTT()`.
        optimizer: of the layer's weights, and the readout's; None leaves them as they are.
        state: what the run begins with, in torch.nn's form.

    Returns:
        Fidelity: the figures, in words (`words()`) and as data (`data()`).

    Raises:
        InputError: the layer has no weights to learn, or no `learning`.

    Example:
        >>> import elman, torch
        >>> from elman.learning import fidelity
        >>> _ = torch.manual_seed(0)
        >>> layer = elman.Recurrent("indrnn", 3, 8, learning=elman.RTRL("snap1"))
        >>> run = [(torch.randn(1, 4, 3), torch.randn(1, 4, 8)) for _ in range(20)]
        >>> found = fidelity(layer, run, torch.nn.functional.mse_loss)
        >>> round(found.mean_cosine(), 3)
        1.0
    """
    method = _learning_of(layer) if learning is None else learning
    exact = BPTT(method.window, "exact") if against is None else against
    own = _with(layer, method)
    shadow = _with(layer, exact)
    weights = {n: p for n, p in layer.named_parameters() if p.requires_grad}
    if not weights:
        raise InputError("fidelity: the layer has no weight that requires a gradient")
    whole = exact.carry is None and exact.window is None
    runs = (_Run(own, state), _Run(shadow, state, whole=whole))
    measured = _Measured(list(weights))
    for x, target in pieces:
        with _same_draws() as again:
            value = loss(runs[0].forward(x), target)
            gradient = _gradient(value, weights.values(), keep=optimizer is not None)
            again()
            exact_gradient = _gradient(loss(runs[1].forward(x), target), weights.values())
        measured.add(gradient, exact_gradient, float(value.detach()))
        if optimizer is not None:
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return measured.result(method.words(), exact.words())


def _learning_of(layer: nn.Module) -> BPTT:
    learning = getattr(layer, "learning", None)
    if not isinstance(learning, BPTT):
        raise InputError(
            f"fidelity: {type(layer).__name__} has no `learning`; give a recurrent layer of Elman "
            "or an elman.Chain"
        )
    return learning


def _with(layer: nn.Module, learning: BPTT) -> nn.Module:
    """A copy of a layer with the very same weights, and another method."""
    _learning_of(layer)
    twin = copy.deepcopy(layer, {id(p): p for p in layer.parameters()})
    setter = getattr(twin, "set_learning", None)
    if setter is None:
        object.__setattr__(twin, "learning", learning)
    else:
        setter(learning)
    return twin


class _Run:
    """One method's run: its layer, and its state from piece to piece."""

    def __init__(self, layer: nn.Module, state: Any, *, whole: bool = False):
        self.layer, self.state, self.whole = layer, state, whole
        self.past: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of a piece."""
        if not self.whole:
            out, state = self.layer(x, self.state)
            self.state = _detached(state)
            return out
        self.past.append(x)
        axis = 1 if getattr(self.layer, "batch_first", False) else 0
        out, _ = self.layer(torch.cat(self.past, axis), self.state)
        return out.narrow(axis, out.shape[axis] - x.shape[axis], x.shape[axis])


def _detached(state: Any) -> Any:
    """A state without the gradient of its window; what a carry holds has none."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple):
        parts = [_detached(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


class _same_draws:
    """Lets two runs draw the same random numbers; afterwards the generator is where the first run
    left it."""

    def __enter__(self) -> Callable[[], None]:
        self.before, self.after = torch.get_rng_state(), None

        def again() -> None:
            self.after = torch.get_rng_state()
            torch.set_rng_state(self.before)

        return again

    def __exit__(self, *error: object) -> None:
        if self.after is not None:
            torch.set_rng_state(self.after)


def _gradient(value: Tensor, weights: Iterable[Tensor], *, keep: bool = False) -> list[Tensor]:
    given = list(weights)
    found = torch.autograd.grad(
        value, given, allow_unused=True, retain_graph=keep, materialize_grads=True
    )
    return [g.detach() for g in found]


class _Measured:
    """The figures as they come."""

    def __init__(self, names: list[str]):
        self.names = names
        self.cosine: list[float] = []
        self.error: list[float] = []
        self.loss: list[float] = []
        self.by_weight: dict[str, list[float]] = {name: [] for name in names}

    def add(self, gradient: list[Tensor], exact: list[Tensor], loss: float) -> None:
        one = torch.cat([g.flatten() for g in gradient]).double()
        other = torch.cat([g.flatten() for g in exact]).double()
        self.cosine.append(_cosine(one, other))
        length = float(other.norm())
        self.error.append(float((one - other).norm()) / length if length else math.nan)
        self.loss.append(loss)
        for name, a, b in zip(self.names, gradient, exact, strict=True):
            self.by_weight[name].append(_cosine(a.flatten().double(), b.flatten().double()))

    def result(self, method: str, against: str) -> Fidelity:
        by_weight = {name: tuple(values) for name, values in self.by_weight.items()}
        return Fidelity(
            method, against, tuple(self.cosine), tuple(self.error), tuple(self.loss), by_weight
        )


def _cosine(one: Tensor, other: Tensor) -> float:
    scale = float(one.norm() * other.norm())
    return float(one @ other) / scale if scale else math.nan


def _mean(values: Iterable[float]) -> float:
    known = list(_known(values))
    return sum(known) / len(known) if known else math.nan


def _known(values: Iterable[float]) -> Iterator[float]:
    return (v for v in values if not math.isnan(v))
