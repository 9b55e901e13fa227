"""What the recurrences h + g(x) and h + g(x, h) can compute, and whether they explode."""

from __future__ import annotations

import torch
from derivatives import last_by_first
from ledger import Claim, Part, Seen, curve, main
from torch import Tensor
from training import Network, at_every_step, fit, right

import elman

TRAINED, FAR = 12, (1, 5, 10, 20, 30, 40, 50, 60)


def parity(steps: int, batch: int = 32) -> tuple[Tensor, Tensor]:
    bits = torch.randint(0, 2, (steps, batch))
    return bits[..., None].float(), bits.cumsum(0) % 2


def order(batch: int = 64) -> tuple[Tensor, Tensor]:
    """Two marks, of kinds A and B, somewhere in 12 steps: which came first? Asked at the end."""
    x = torch.zeros(TRAINED, batch, 2)
    first, second = torch.rand(TRAINED, batch).topk(2, dim=0).indices.sort(0).values
    kind = torch.randint(0, 2, (batch,))
    rows = torch.arange(batch)
    x[first, rows, kind], x[second, rows, 1 - kind] = 1.0, 1.0
    asked = torch.full((TRAINED, batch), -100)
    asked[-1] = kind
    return x, asked


def growth(cell: str, hyper: dict) -> list[float]:
    """The largest singular value of ∂h_t/∂h_0 over random inputs, before training."""
    layer = elman.Recurrent(cell, 4, 32, hyper=hyper, dtype=torch.float64)
    x = torch.randn(FAR[-1], 4, dtype=torch.float64)
    return [torch.linalg.matrix_norm(last_by_first(layer, x[:t]), 2).item() for t in FAR]


NETWORKS = {
    "simple": ("simple", {}),
    "h + g(x)": ("residual_input", {}),
    "h + g(x, h)": ("residual", {}),
}
GROWTH = {
    "simple, tanh": ("simple", {}),
    "h + g(x)": ("residual_input", {}),
    "h + g(x, h), tanh": ("residual", {}),
    "h + g(x, h), relu": ("residual", {"g": "relu"}),
}


def measure(seed: int, full: bool) -> Seen:
    numbers, curves = {}, {}
    for name, (cell, hyper) in NETWORKS.items():
        network = Network(cell, 1, 16, 2, hyper=hyper)
        fit(network, lambda: parity(TRAINED), at_every_step, 650, rate=1.5e-2)
        numbers[f"{name}: parity right"] = _right(network, parity(TRAINED, 500))
        teller = Network(cell, 2, 16, 2, hyper=hyper)
        fit(teller, order, at_every_step, 150, rate=1e-2)
        numbers[f"{name}: order of two marks right"] = _right(teller, order(1000))
    for name, (cell, hyper) in GROWTH.items():
        curves[name] = growth(cell, hyper)
        numbers[f"{name}: ‖∂h_60/∂h_0‖"] = curves[name][-1]
    return Seen(numbers, curves)


@torch.no_grad()
def _right(network: Network, batch: tuple[Tensor, Tensor]) -> float:
    return right(network(batch[0]), batch[1])


def draw(figure, seeds: list[Seen]) -> None:
    left, middle = figure.subplots(1, 2, width_ratios=(1, 1.2))
    for place, name in enumerate(NETWORKS):
        keys = (f"{name}: parity right", f"{name}: order of two marks right")
        curve(left, (0, 1), [[s.numbers[k] for k in keys] for s in seeds], name, place)
    left.set_xticks((0, 1), ("parity", "which came first"))
    left.set(ylim=(0.4, 1.03), xlim=(-0.2, 1.2), ylabel="right", title="linear readout")
    left.legend(fontsize=8)
    for place, name in enumerate(GROWTH):
        curve(middle, FAR, [s.curves[name] for s in seeds], name, place, log=True)
    middle.set(xlabel="steps t", ylabel="‖∂h_t/∂h_0‖", title="before training")
    middle.legend(fontsize=8)


CLAIM = Claim(
    words="h + g(x) keeps every gradient and loses expressive power; h + g(x, h) has it back and "
    "can explode.",
    source="Qiu 2020, section 6.5",
    setting="16 units and a linear readout, 650 batches of training on parity after each of 12 "
    "bits, 150 on the order of two marks; derivatives: 32 units before training. Chance is 0.5.",
    parts=(
        Part("h + g(x): ‖∂h_60/∂h_0‖", "", above=0.999, below=1.001),
        Part("simple: parity right", "", above=0.9),
        Part("h + g(x): parity right", "", below=0.6),
        Part("simple: order of two marks right", "", above=0.9),
        Part("h + g(x): order of two marks right", "", below=0.6),
        Part("h + g(x, h): order of two marks right", "", above=0.9),
        Part("h + g(x, h): parity right", "", above=0.6),
        Part("h + g(x, h), relu: ‖∂h_60/∂h_0‖", "", above=1e3, log=True),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
