"""A network built to explode, trained with and without clipping of the gradient's norm."""

from __future__ import annotations

import math

import torch
from exploding import descent, network, train
from ledger import COLOURS, Claim, Part, Seen, main

BATCHES = 600
WAYS = ("descent, not clipped", "descent, norm clipped to 1", "Adam, not clipped")


def measure(seed: int, full: bool) -> Seen:
    numbers, curves = {}, {}
    for way in WAYS:
        torch.manual_seed(seed)
        made = network()
        if way.startswith("Adam"):
            optimiser: torch.optim.Optimizer = torch.optim.Adam(made.parameters(), 3e-3)
        else:
            optimiser = descent(made)
        clip = 1.0 if "norm clipped" in way else math.inf
        losses, norms = train(made, optimiser, clip, BATCHES)
        finite = all(map(math.isfinite, (losses[-1], norms[-1])))
        numbers[f"{way}: finite to the end"] = float(finite)
        if finite:
            numbers[f"{way}: error at the end"] = sum(losses[-50:]) / 50
        curves[way] = losses
    numbers["norm of the first gradient"] = norms[0]
    return Seen(numbers, curves)


def draw(figure, seeds: list[Seen]) -> None:
    axes = figure.subplots()
    for place, way in enumerate(WAYS):
        for seed in seeds:
            losses = [v for v in seed.curves[way] if math.isfinite(v)]
            label = way if seed is seeds[0] else None
            axes.plot(losses, color=COLOURS[place], linewidth=0.7, label=label)
            if len(losses) < BATCHES:
                axes.plot(len(losses) - 1, losses[-1], "x", color=COLOURS[place], markersize=9)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set(yscale="log", xlabel="batch", ylabel="squared error")
    axes.set_title("× : the next value is not finite", fontsize=10)
    axes.legend(fontsize=8)


CLAIM = Claim(
    words="Clipping cures exploding gradients: a network built to explode meets NaN without it and "
    "trains with it.",
    source="Pascanu, Mikolov & Bengio 2013; Mikolov 2012",
    setting="32 rectified units, U = 1.1 I at the start, 50 steps, the sign of the first input is "
    "asked at the end (error 1 for always 0); gradient descent, rate 0.01, momentum 0.9; 600 "
    "batches of 32.",
    parts=(
        Part(
            "descent, not clipped: finite to the end",
            "the optimiser is gradient descent",
            below=0.5,
        ),
        Part(
            "descent, norm clipped to 1: finite to the end",
            "the optimiser is gradient descent",
            above=0.5,
        ),
        Part(
            "descent, norm clipped to 1: error at the end",
            "the optimiser is gradient descent",
            below=0.1,
            log=True,
        ),
        Part(
            "Adam, not clipped: finite to the end",
            "the optimiser is Adam (its step is bounded anyway; no NaN is met)",
            below=0.5,
        ),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
