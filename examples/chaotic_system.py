"""A simple network that has become the Lorenz system: it runs free, on no input."""

from __future__ import annotations

import numpy as np
import torch
from ledger import Claim, Part, Seen, main

import elman
from elman.data.synthetic import lorenz

UNITS, WASH, TRAIN, FREE = 300, 200, 5000, 3000
STEP = 0.02
LYAPUNOV = 0.906  # the largest exponent of the system, per unit of time


def network(size: int) -> elman.Recurrent:
    """A simple network with random weights, its recurrent matrix of spectral radius 0.4."""
    layer = elman.Recurrent("simple", 3, size, dtype=torch.float64).requires_grad_(False)
    layer.W_l0.uniform_(-0.5, 0.5)
    layer.U_l0.normal_().mul_(torch.rand(size, size) < 10 / size)
    layer.U_l0.mul_(0.4 / torch.linalg.eigvals(layer.U_l0).abs().max())
    layer.b_l0.uniform_(-0.5, 0.5)
    return layer


def measure(seed: int, full: bool) -> Seen:
    draw = torch.Generator().manual_seed(seed)
    path = lorenz(WASH + TRAIN + FREE, interval=STEP, discard=500, generator=draw)
    mean, scale = path.mean(0, keepdim=True), path.std((0, 1), keepdim=True)
    x = (path - mean) / scale
    layer = network(UNITS)
    states, last = layer(x[: WASH + TRAIN - 1])
    # The readout V by least squares with a small ridge: h_t → x_{t+1}.
    h, target = states[WASH:, 0], x[WASH + 1 : WASH + TRAIN, 0]
    gram = h.T @ h + 1e-8 * len(h) * torch.eye(UNITS).double()
    readout = torch.linalg.solve(gram, h.T @ target).T
    # Its output fed back as the input is a network without input, U + W V in place of U.
    layer.U_l0.add_(layer.W_l0 @ readout)
    free, _ = layer(torch.zeros(FREE, 1, 3, dtype=torch.float64), last)
    told = torch.cat((last[:, 0], free[:, 0]))[:FREE] @ readout.T
    truth = x[WASH + TRAIN :, 0]
    error = (told - truth).norm(dim=-1) / truth.square().sum(-1).mean().sqrt()
    wrong = (error > 0.4).nonzero()
    steps = int(wrong[0]) if len(wrong) else FREE
    numbers = {
        "Lyapunov times until the error is 40 %": steps * STEP * LYAPUNOV,
        "distance between the distributions of z": _distance(told[:, 2], x[:, 0, 2]),
        "largest |x|, |y|, |z| over that of the system": (told.abs().max() / x.abs().max()).item(),
    }
    shown = told[: FREE // 2]
    return Seen(numbers, {"told": shown.tolist(), "truth": truth[: FREE // 2].tolist()})


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of the two distribution functions (Kolmogorov and Smirnov's)."""
    places = torch.cat((one, other)).sort().values
    levels = [torch.searchsorted(s.sort().values, places) / len(s) for s in (one, other)]
    return (levels[0] - levels[1]).abs().max().item()


def draw(figure, seeds: list[Seen]) -> None:
    top, bottom = figure.subfigures(1, 2, width_ratios=(1.4, 1))
    told, truth = (np.array(seeds[0].curves[key]) for key in ("told", "truth"))
    time = np.arange(len(told)) * STEP * LYAPUNOV
    all_axes = top.subplots(3, 1, sharex=True)
    for place, axes in enumerate(all_axes):
        axes.plot(time[:600], truth[:600, place], color="black", linewidth=1, label="Lorenz")
        axes.plot(time[:600], told[:600, place], color="#D55E00", linestyle="--", linewidth=1)
        axes.set_ylabel("xyz"[place])
    all_axes[-1].plot([], [], color="#D55E00", linestyle="--", label="network, free")
    all_axes[-1].legend(fontsize=7, loc="upper right")
    all_axes[-1].set_xlabel("Lyapunov times")
    axes = bottom.subplots()
    axes.plot(told[:, 0], told[:, 2], color="#D55E00", linewidth=0.5)
    axes.set(xlabel="x", ylabel="z", title="network, free")


CLAIM = Claim(
    words="A simple network can approximate any dynamical system, a chaotic one too.",
    source="Funahashi & Nakamura 1993; Schäfer & Zimmermann 2006; Jaeger & Haas 2004 (the method)",
    setting="Lorenz system, one step 0.02; 300 tanh units with random weights, readout by least "
    "squares on 5,000 steps and fed back, so that it is one simple network without input; 3,000 "
    "steps free. Chaos lets no model follow for ever: after that the distribution counts.",
    parts=(
        Part("Lyapunov times until the error is 40 %", "it is followed for some time", above=2.0),
        Part("distance between the distributions of z", "its climate is meant", below=0.1),
        Part("largest |x|, |y|, |z| over that of the system", "its climate is meant", below=1.2),
        Part("Lyapunov times until the error is 40 %", "it is followed for long", above=20.0),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
