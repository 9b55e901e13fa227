"""How far the gradient reaches with activations that saturate and with those that do not."""

from __future__ import annotations

import torch
from derivatives import last_by_first
from exploding import first_sign
from ledger import Claim, Part, Seen, curve, main
from torch import nn
from training import Network, at_the_end, fit

import elman

UNITS, LAGS = 32, (1, 5, 10, 20, 30, 40, 50)
SETTINGS = {
    "logistic, orthogonal": ("sigmoid", "orthogonal", 1.0),
    "tanh, orthogonal": ("tanh", "orthogonal", 1.0),
    "relu, orthogonal": ("relu", "orthogonal", 1.0),
    "relu, identity": ("relu", "identity", 1.0),
    "relu, 1.1 · identity": ("relu", "identity", 1.1),
}


def start(layer: elman.Recurrent, kind: str, gain: float) -> None:
    with torch.no_grad():
        if kind == "identity":
            nn.init.eye_(layer.U_l0)
        else:
            nn.init.orthogonal_(layer.U_l0)
        layer.U_l0.mul_(gain)
        layer.W_l0.normal_(std=0.1)
        layer.b_l0.zero_()


def measure(seed: int, full: bool) -> Seen:
    numbers, curves = {}, {}
    for name, (f, kind, gain) in SETTINGS.items():
        layer = elman.Recurrent("simple", 2, UNITS, hyper={"f": f}, dtype=torch.float64)
        start(layer, kind, gain)
        squares = torch.zeros(len(LAGS), dtype=torch.float64)
        for _ in range(10):
            x = torch.randn(LAGS[-1], 2, dtype=torch.float64)
            squares += torch.stack([last_by_first(layer, x[:t]).square().sum() for t in LAGS])
        curves[name] = (squares / 10 / UNITS).sqrt().tolist()
        numbers[f"{name}: ‖∂h_50/∂h_0‖"] = max(curves[name][-1], 1e-40)
    for name in ("logistic, orthogonal", "tanh, orthogonal", "relu, identity"):
        f, kind, gain = SETTINGS[name]
        network = Network("simple", 2, UNITS, 1, hyper={"f": f})
        start(network.layer, kind, gain)
        fit(network, first_sign, at_the_end, 350)
        x, sign = first_sign(500)
        with torch.no_grad():
            told = (network(x)[-1] > 0) == (sign > 0)
        numbers[f"{name}: first sign right after 50 steps"] = told.double().mean().item()
    return Seen(numbers, curves)


def draw(figure, seeds: list[Seen]) -> None:
    axes = figure.subplots()
    for place, name in enumerate(SETTINGS):
        rows = [[max(v, 1e-40) for v in s.curves[name]] for s in seeds]
        curve(axes, LAGS, rows, name, place, log=True)
    axes.set(xlabel="steps t", ylabel="‖∂h_t/∂h_0‖ / √units", ylim=(1e-12, 1e4))
    axes.legend(fontsize=8)


IDENTITY, ORTHOGONAL = "U starts as the identity", "U starts orthogonal at random"
CLAIM = Claim(
    words="Activations that do not saturate cure vanishing gradients.",
    source="Le, Jaitly & Hinton 2015; Qiu 2020, section 6.5",
    setting="32 units, inputs N(0, 1), W from N(0, 0.01), no bias; root mean square of the "
    "singular values of ∂h_50/∂h_0 over 10 sequences, before training. Trained: 350 batches of the "
    "sign of the first of 50 inputs, Adam 0.003, norm clipped to 1; chance 0.5.",
    parts=(
        Part("logistic, orthogonal: ‖∂h_50/∂h_0‖", IDENTITY, below=1e-3, log=True),
        Part("relu, identity: ‖∂h_50/∂h_0‖", IDENTITY, above=0.1, log=True),
        Part("relu, identity: first sign right after 50 steps", IDENTITY, above=0.95),
        Part("relu, orthogonal: ‖∂h_50/∂h_0‖", ORTHOGONAL, above=0.1, log=True),
        Part(
            "relu, 1.1 · identity: ‖∂h_50/∂h_0‖",
            "U starts above the identity (it explodes)",
            below=10.0,
            log=True,
        ),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
