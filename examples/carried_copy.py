"""A symbol copied after a wait longer than the window: without a carry, and with the exact one."""

from __future__ import annotations

import torch
from ledger import COLOURS, Claim, Part, Seen, main
from torch import Tensor
from training import Network, at_every_step, fit, one_hot, right

import elman
from elman.data.synthetic import copying

SYMBOLS = 4
# Name: whether it is cut into windows, what is carried, whether input weights start at 0.
WAYS = {
    "the whole sequence": (False, None, True),
    "window, no carry": (True, None, True),
    "window, exact carry": (True, "exact", True),
    "window, no carry, random start": (True, None, False),
}


def measure(seed: int, full: bool) -> Seen:
    delay, window, units, batches = (40, 8, 16, 900) if full else (8, 4, 12, 190)

    def draw_batch(rows: int = 32 if full else 16) -> tuple[Tensor, Tensor]:
        tokens, asked = copying(rows, SYMBOLS, 1, delay)
        return one_hot(tokens, SYMBOLS + 2), asked

    numbers, curves = {}, {}
    for name, (cut, carry, empty) in WAYS.items():
        torch.manual_seed(seed)
        network = Network("lstm", SYMBOLS + 2, units, SYMBOLS)
        with torch.no_grad():
            # Gates that stay open about as long as the wait (Tallec & Ollivier 2018).
            network.layer.b_f_l0.fill_(torch.tensor(float(delay)).log())
            for weight_name, weight in network.layer.named_parameters():
                if empty and weight_name.startswith("W_"):
                    weight.zero_()
        network.layer.set_learning(elman.BPTT(window=window if cut else None, carry=carry))
        curves[name] = fit(network, draw_batch, at_every_step, batches, rate=1e-2 if full else 2e-2)
        x, asked = draw_batch(500)
        with torch.no_grad():
            numbers[f"{name}: right"] = right(network(x), asked)
    return Seen(numbers, curves)


def draw(figure, seeds: list[Seen]) -> None:
    axes = figure.subplots()
    for place, name in enumerate(WAYS):
        for seed in seeds:
            width, style = (2.5, ":") if place == 0 else (0.9, "-")
            label = name if seed is seeds[0] else None
            losses = seed.curves[name]
            axes.plot(losses, style, color=COLOURS[place], linewidth=width, label=label)
    chance = torch.tensor(float(SYMBOLS)).log().item()
    axes.axhline(chance, color="grey", linewidth=0.8, label="chance")
    axes.set(xlabel="batch", ylabel="cross-entropy", ylim=(0, 1.3 * chance))
    axes.legend(fontsize=8)


EMPTY = "nothing is held by chance (input weights start at 0)"
CLAIM = Claim(
    words="Truncated back-propagation cannot learn what is farther away than its window; with the "
    "influence of the past carried forward exactly it can.",
    source="Schmidhuber 1992; Williams & Zipser 1989; Tallec & Ollivier 2018 (the gates' start)",
    setting="LSTM, 1 of 4 symbols, chance 0.25. In 20 seconds: asked after 8 steps, window 4, 12 "
    "units, 190 batches of 16. Full: after 40 steps, window 8, 16 units, 900 batches of 32. Forget "
    "gates start open about as long as the wait. Input weights start at 0, or at random: then the "
    "state holds the symbol by chance, and the readout alone learns to decode it. Weights change "
    "between batches only, so the carried gradient is that of the whole sequence.",
    parts=(
        Part("window, no carry: right", EMPTY, below=0.35),
        Part("window, exact carry: right", EMPTY, above=0.95),
        Part(
            "window, no carry, random start: right",
            "random weights hold the symbol by chance",
            below=0.35,
        ),
    ),
    measure=measure,
    draw=draw,
    full=True,
)

if __name__ == "__main__":
    main(CLAIM)
