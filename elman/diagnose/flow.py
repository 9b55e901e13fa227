"""How much of each error reaches back to each step: the matrix ‖δ_{t,k}‖."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elman.diagnose.backward import Arrived
from elman.diagnose.gates import pre_activations
from elman.diagnose.sweep import Loss, step_losses, sweep
from elman.diagnose.watch import Place, watch
from elman.errors import InputError

# Of the lag where the mean gradient falls below these parts of what it is at lag 0.
E_FOLD, PERCENT = math.exp(-1), 0.01
# Above this multiple of lag 0 a gradient explodes.
EXPLODES = 100.0


class Decay(NamedTuple):
    """How a gradient changes with its lag, the number of steps that it has come back.

    Attributes:
        mean: for each lag the mean of ‖δ_{t,t−lag}‖ over all t and rows.
        e_fold: the first lag at which the mean is below 1/e of lag 0; None if there is none.
        horizon: so with 1 %, the effective horizon.
        explodes: the first lag at which it is above 100 times lag 0.
        rate: the factor of one step, fitted to ln mean over the lags that at least half of the
            steps have; NaN where there is nothing to fit.
    """

    mean: Tensor
    e_fold: int | None
    horizon: int | None
    explodes: int | None
    rate: float

    @property
    def word(self) -> str:
        """What became of it: vanishing, exploding, steady, or none where no error arrives."""
        if not float(self.mean[0]):
            return "none"
        if self.explodes is not None or not math.isfinite(float(self.mean.sum())):
            return "exploding"
        return "steady" if self.horizon is None else "vanishing"


@dataclass(frozen=True)
class PlaceFlow:
    """The gradient flow of one layer and direction.

    Attributes:
        name: "layer 1", "layer 1 backwards", …
        backwards: whether the layer runs from the end, so that gradients go to later steps.
        gates: by name of a pre-activation, ‖∂L_t/∂z_k‖ as (batch, t, k).
        states: by name of a state, ‖∂L_t/∂s_k‖ for the state as it is carried on from step k, and
            as the output of step k where it is that.
        inputs: ‖∂L_t/∂x_k‖ of what this layer reads.
        real: (batch, time), true at real steps.
    """

    name: str
    backwards: bool
    gates: Mapping[str, Tensor]
    states: Mapping[str, Tensor]
    inputs: Tensor
    real: Tensor

    @property
    def whole(self) -> Tensor:
        """‖δ_{t,k}‖ of all pre-activations together, (batch, t, k)."""
        parts = self.gates or self.states  # an equation without products has its states
        return torch.stack([v**2 for v in parts.values()]).sum(0).sqrt()

    def of(self, what: str | None = None) -> Tensor:
        """The norms of a gate, of a state, of "inputs", or of all gates (None), (batch, t, k).

        Raises:
            InputError: no such gate or state.
        """
        if what is None:
            return self.whole
        if what == "inputs":
            return self.inputs
        for group in (self.gates, self.states):
            if what in group:
                return group[what]
        known = [*self.gates, *self.states, "inputs"]
        raise InputError(f"{self.name} has no {what!r}; there are {', '.join(known)}")

    def matrix(self, what: str | None = None) -> Tensor:
        """The mean over the rows of a batch, (t, k); steps past a row's end count as zero."""
        return self.of(what).mean(0)

    def decay(self, what: str | None = None) -> Decay:
        """How the gradient changes with the lag t − k (k − t in a layer that runs backwards).

        Args:
            what: see `of`.
        """
        norms = self.of(what)
        losses, steps = norms.shape[1:]
        if losses != steps:
            raise InputError(
                f"{self.name}: {losses} losses over {steps} steps have no lag; read `matrix`"
            )
        # A loss that depends on nothing here (of all steps but the last, say) has no part in it.
        some = (norms != 0).any(2) & self.real
        there = some.unsqueeze(2) & self.real.unsqueeze(1)
        if self.backwards:
            norms, there = norms.transpose(1, 2), there.transpose(1, 2)
        sums, counts = [], []
        for lag in range(steps):
            along = there.diagonal(-lag, 1, 2)
            sums.append(torch.where(along, norms.diagonal(-lag, 1, 2), 0.0).sum())
            counts.append(along.sum())
        mean = torch.stack(sums) / torch.stack(counts).clamp(min=1)
        longest = int((torch.stack(counts) > 0).sum())
        return _decay(mean[: max(longest, 1)])


@dataclass(frozen=True)
class Flow:
    """The gradient flow through a model.

    Attributes:
        places: one for each layer and direction, from below to above.
        losses: L_t of each step, the sum over the rows, (time,).
    """

    places: tuple[PlaceFlow, ...]
    losses: Tensor = field(repr=False)

    def __getitem__(self, place: int | str) -> PlaceFlow:
        """A place by its number or its name."""
        if isinstance(place, int):
            return self.places[place]
        found = {p.name: p for p in self.places}
        if place not in found:
            raise InputError(f"there is no place {place!r}; there are {', '.join(found)}")
        return found[place]


def gradient_flow(
    model: nn.Module,
    x: Tensor,
    targets: Any = None,
    loss: Loss | None = None,
    *,
    state: Any = None,
    lengths: Tensor | Sequence[int] | None = None,
    resets: Tensor | None = None,
    inputs: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Flow:
    r"""Measure how much of the error of each step reaches back to each step.

    .. math:: \delta_{t,k} = \partial L_t / \partial z_k

    with the pre-activations z (the sums of products before a gate or a nonlinear function), for
    all t and k by one sweep: the forward run once, then all L_t back through it as one batch.

    Args:
        model: a recurrent layer of Elman, or any torch module that calls some; it runs in
            evaluation, whatever its mode, and a learning window does not cut the flow.
        x: what the model is called with; for a layer the sequence.
        targets: for each step what `loss` compares with, indexed by step; None gives None.
        loss: `loss(out_t, target_t)` is L_t, a number for each row or their sum; out_t is
            (batch, size). If not given, L_t is a random projection of out_t, other at each step
            and row, with N(0, 1) weights.
        state, lengths, resets, inputs: those of the layer's call.
        seed: of the random projections.

    Shapes:
        each matrix of norms: (batch, t, k), zero where L_t does not depend on step k.

    Returns:
        Flow: a `PlaceFlow` for each layer and direction.

    Raises:
        InputError: no recurrent layer ran, the losses are no numbers of the steps.

    Example:
        >>> import elman, torch
        >>> flow = gradient_flow(elman.RNN(2, 16), torch.randn(60, 1, 2))
        >>> flow[0].matrix("h").shape, flow[0].decay().word
        (torch.Size([60, 60]), 'vanishing')

    Source: Hochreiter 1991; Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013,
    "On the difficulty of training recurrent neural networks" (the norms of ∂L_t/∂z_k by lag).
    """
    run = watch(model, x, state, lengths=lengths, resets=resets, inputs=inputs)
    batch_first = bool(getattr(model, "batch_first", False))
    losses = step_losses(run, targets, loss, batch_first=batch_first, seed=seed)
    norms = [_Norms(place, len(losses)) for place in run.places]
    sweep(run, losses, norms)
    return Flow(tuple(n.flow() for n in norms), losses.detach())


class _Norms:
    """The norms of a place's cotangents, gathered while they pass: (loss, time, batch) each."""

    def __init__(self, place: Place, losses: int):
        self.place, self.sums = place, pre_activations(place.graph)
        self.roots = {z.cotangent for z in self.sums}
        shape = losses, place.time, place.batch
        self.gates = {z.name: place.out.new_zeros(shape) for z in self.sums}
        self.states = {s.name: place.out.new_zeros(shape) for s in place.graph.states}
        self.inputs = place.out.new_zeros(shape)

    def see(self, first: int, arrived: Arrived) -> None:
        step = arrived.step
        rows = slice(first + arrived.losses.start, first + arrived.losses.stop)
        for z in self.sums:
            self.gates[z.name][rows, step] = _norm(arrived.values[z.cotangent])
        graph = self.place.graph
        for state, node in zip(graph.states, graph.new_states, strict=True):
            total = arrived.states[state.name]
            if node == graph.output:
                total = total + arrived.out
            self.states[state.name][rows, step] = _norm(total)

    def take(self, losses: slice, x: Tensor | None) -> None:
        if x is not None:
            self.inputs[losses] = x.norm(dim=-1)

    def flow(self) -> PlaceFlow:
        place = self.place

        def ordered(norms: Tensor) -> Tensor:
            # The place's time goes first to be turned, and comes last in the end.
            return place.in_order(norms.permute(1, 2, 0)).permute(1, 2, 0)

        real = place.real.T
        gates = {name: ordered(v) for name, v in self.gates.items()}
        states = {name: ordered(v) for name, v in self.states.items()}
        return PlaceFlow(place.name, place.turned, gates, states, ordered(self.inputs), real)


def _norm(cotangent: Tensor) -> Tensor:
    """Over the units: (loss, batch, …) to (loss, batch)."""
    return cotangent.flatten(2).norm(dim=-1) if cotangent.dim() > 2 else cotangent.abs()


def _decay(mean: Tensor) -> Decay:
    first = float(mean[0])
    part = mean / first if first else torch.full_like(mean, math.nan)

    def lag(found: Tensor) -> int | None:
        places = found.nonzero().flatten()
        return int(places[0]) if len(places) else None

    half = part[: max(2, (len(part) + 1) // 2)]
    there = (half > 0) & half.isfinite()
    rate = math.nan
    if int(there.sum()) > 1:
        lags = torch.arange(len(half), dtype=torch.float64, device=half.device)[there]
        logs = half[there].double().log()
        lags = lags - lags.mean()
        rate = math.exp(float((lags @ (logs - logs.mean())) / (lags @ lags)))
    grows = lag((part > EXPLODES) | ~part.isfinite()) if first else None
    return Decay(mean, lag(part < E_FOLD), lag(part < PERCENT), grows, rate)
