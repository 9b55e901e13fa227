"""What weight decay does to a network built to explode."""

from __future__ import annotations

import math
import statistics

import torch
from exploding import descent, network, train
from ledger import Claim, Part, Seen, curve, main

DECAYS = (0.0, 0.003, 0.03, 0.3)
BATCHES = 450


def measure(seed: int, full: bool) -> Seen:
    numbers: dict[str, float] = {}
    errors, norms = [], []
    for decay in DECAYS:
        torch.manual_seed(seed)
        made = network()
        _, alone = train(made, descent(made, decay), math.inf, 20)
        numbers[f"decay {decay:g} alone: finite after 20 batches"] = float(math.isfinite(alone[-1]))
        torch.manual_seed(seed)
        made = network()
        losses, seen = train(made, descent(made, decay), 1.0, BATCHES)
        errors.append(statistics.fmean(losses[-50:]))
        norms.append(statistics.median(seen[20:120]))
        numbers[f"decay {decay:g} and clipping: error at the end"] = errors[-1]
        numbers[f"decay {decay:g} and clipping: gradient over that without decay"] = (
            norms[-1] / norms[0]
        )
    return Seen(numbers, {"errors": errors, "norms": norms})


def draw(figure, seeds: list[Seen]) -> None:
    left, right = figure.subplots(1, 2)
    for axes, key, label in (
        (left, "norms", "norm of the gradient, batches 20 to 120"),
        (right, "errors", "error at the end (1: nothing learned)"),
    ):
        curve(
            axes, range(len(DECAYS)), [s.curves[key] for s in seeds], "with clipping", 0, log=True
        )
        axes.set_xticks(range(len(DECAYS)), [f"{d:g}" for d in DECAYS])
        axes.set(xlabel="weight decay", ylabel=label)


ALONE, BESIDE = "it stands alone", "it stands beside clipping"
CLAIM = Claim(
    words="Weight decay cures exploding gradients.",
    source="Qiu 2020, section 6.5; Pascanu, Mikolov & Bengio 2013",
    setting="The network and task of the claim on clipping; decay λ adds λθ to the gradient. "
    "Alone: 20 batches without clipping; beside: 450 batches with the norm clipped to 1.",
    parts=(
        *(
            Part(f"decay {d:g} alone: finite after 20 batches", ALONE, above=0.5)
            for d in DECAYS[1:]
        ),
        Part(
            "decay 0.03 and clipping: gradient over that without decay",
            f"{BESIDE} (it shrinks the gradient)",
            below=1.0,
            log=True,
        ),
        Part(
            "decay 0.003 and clipping: error at the end",
            f"{BESIDE} and is weak (it still learns)",
            below=0.1,
            log=True,
        ),
        Part(
            "decay 0.3 and clipping: error at the end",
            f"{BESIDE} and is strong (it forgets)",
            below=0.1,
            log=True,
        ),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
