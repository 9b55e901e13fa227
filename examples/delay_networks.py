"""What a delay network remembers, lag by lag, beside recurrent networks and a static one."""

from __future__ import annotations

import torch
from ledger import Claim, Part, Seen, curve, main
from torch import Tensor
from torch.nn import functional as F
from training import Network, fit

FAR, STEPS, DELAYS = 10, 30, 4
NETWORKS = {
    "static": ("tdnn", {"K": 0}),
    "delays to 4": ("tdnn", {"K": DELAYS}),
    "simple": ("simple", {}),
    "LSTM": ("lstm", {}),
}


def draw_batch(batch: int = 16) -> tuple[Tensor, Tensor]:
    """Random bits; asked at each step: the bits of 0 to 10 steps ago, and the parity of all."""
    bits = torch.randint(0, 2, (STEPS, batch))
    asked = torch.zeros(STEPS, batch, FAR + 1)
    for lag in range(FAR + 1):
        asked[lag:, :, lag] = bits[: STEPS - lag].float()
    return bits[..., None] * 2.0 - 1.0, asked


def parity_batch(batch: int = 32) -> tuple[Tensor, Tensor]:
    """Random bits and the parity of all so far, an automaton of two states."""
    bits = torch.randint(0, 2, (12, batch))
    return bits[..., None] * 2.0 - 1.0, (bits.cumsum(0) % 2)[..., None].float()


def loss(scores: Tensor, asked: Tensor) -> Tensor:
    late = FAR if asked.shape[-1] > 1 else 0  # before that, the far bits have not been yet
    return F.binary_cross_entropy_with_logits(scores[late:], asked[late:])


@torch.no_grad()
def accuracy(network: Network, draw, late: int) -> list[float]:
    x, asked = draw(200)
    return ((network(x) > 0) == (asked > 0.5))[late:].double().mean((0, 1)).tolist()


def measure(seed: int, full: bool) -> Seen:
    numbers, curves = {}, {}
    for name, (cell, hyper) in NETWORKS.items():
        network = Network(cell, 1, 32, FAR + 1, hyper=hyper)
        fit(network, draw_batch, loss, 280, rate=1e-2)
        curves[name] = accuracy(network, draw_batch, FAR)
        numbers[f"{name}: bits up to 4 steps ago right"] = min(curves[name][: DELAYS + 1])
        numbers[f"{name}: bits from 5 to 10 steps ago right"] = sum(curves[name][5:]) / 6
        automaton = Network(cell, 1, 32, 1, hyper=hyper)
        fit(automaton, parity_batch, loss, 280, rate=1e-2)
        (share,) = accuracy(automaton, parity_batch, DELAYS + 1)
        numbers[f"{name}: parity right, 6 to 12 bits"] = share
    return Seen(numbers, curves)


def draw(figure, seeds: list[Seen]) -> None:
    left, right = figure.subplots(1, 2)
    for place, name in enumerate(NETWORKS):
        curve(left, range(FAR + 1), [s.curves[name] for s in seeds], name, place)
        key = f"{name}: parity right, 6 to 12 bits"
        curve(right, [place - 0.3, place + 0.3], [[s.numbers[key]] * 2 for s in seeds], name, place)
    left.axvline(DELAYS + 0.5, color="grey", linewidth=0.8)
    left.set(xlabel="steps ago", ylabel="right", ylim=(0.4, 1.03), title="a bit of some steps ago")
    right.set(ylabel="right", ylim=(0.4, 1.03), title="parity of 6 to 12 bits")
    right.set_xticks(range(len(NETWORKS)), list(NETWORKS), fontsize=8)
    left.legend(fontsize=8)


CLAIM = Claim(
    words="A delay network fails beyond its K where a recurrent one does not; a static network "
    "cannot be an automaton.",
    source="Waibel et al. 1989; Elman 1990; Qiu 2020, sections 6.1 and 6.2",
    setting="32 units, random bits, 280 batches of 30 steps; parity: 280 batches of 12. "
    "Chance is 0.5.",
    parts=(
        Part("delays to 4: bits up to 4 steps ago right", "", above=0.98),
        Part("delays to 4: bits from 5 to 10 steps ago right", "", below=0.55),
        Part("simple: bits from 5 to 10 steps ago right", "", above=0.95),
        Part("LSTM: bits from 5 to 10 steps ago right", "", above=0.95),
        Part("static: bits from 5 to 10 steps ago right", "", below=0.55),
        Part("static: parity right, 6 to 12 bits", "", below=0.55),
        Part("delays to 4: parity right, 6 to 12 bits", "", below=0.55),
        Part("LSTM: parity right, 6 to 12 bits", "", above=0.95),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
