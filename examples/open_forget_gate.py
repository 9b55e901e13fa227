"""The derivative of the last memory cell by the first, with forget gates that are open."""

from __future__ import annotations

import torch
from derivatives import last_by_first
from ledger import Claim, Part, Seen, curve, main

import elman

UNITS, STEPS = 16, (2, 5, 10, 20, 30, 40, 60, 80, 100)


def distance(cell: str, bias: float | None, sees: bool) -> list[float]:
    """‖∂c_t/∂c_0 − I‖ (largest singular value) after some steps; `sees`: whether gates see h."""
    layer = elman.Recurrent(cell, 4, UNITS, dtype=torch.float64)
    with torch.no_grad():
        for name, value in layer.named_parameters():
            if name.startswith("U_") and not sees:
                value.zero_()
        if bias is not None:
            layer.b_f_l0.fill_(bias)
    x, one = torch.randn(STEPS[-1], 4).double(), torch.eye(UNITS).double()
    away = (last_by_first(layer, x[:t], state=1) - one for t in STEPS)
    return [torch.linalg.matrix_norm(each, 2).item() for each in away]


SETTINGS = {
    "forget gate open, gates do not see h": ("lstm", 40.0, False),
    "forget gate open, gates see h": ("lstm", 40.0, True),
    "no forget gate (1997), gates see h": ("lstm_1997", None, True),
    "forget bias 1, gates do not see h": ("lstm", 1.0, False),
}


def measure(seed: int, full: bool) -> Seen:
    curves = {name: distance(*setting) for name, setting in SETTINGS.items()}
    return Seen({name: c[-1] for name, c in curves.items()}, curves)


def draw(figure, seeds: list[Seen]) -> None:
    for axes, sees in zip(
        figure.subplots(1, 2), ("gates see h", "gates do not see h"), strict=True
    ):
        names = [name for name in SETTINGS if name.endswith(sees)]
        for place, name in enumerate(names):
            rows = [s.curves[name] for s in seeds]
            curve(
                axes, STEPS, rows, name.removesuffix(f", {sees}"), place, log=sees == "gates see h"
            )
        axes.set(xlabel="step t", ylabel="‖∂c_t/∂c_0 − I‖", title=sees)
        axes.legend(fontsize=8)
    axes.set_ylim(-0.05, 1.2)


CLAIM = Claim(
    words="An open forget gate makes ∂c_T/∂c_0 = I: the memory cell neither forgets nor fades.",
    source="Hochreiter & Schmidhuber 1997 (the constant error carousel); Gers et al. 2000",
    setting="LSTM of 16 units, 100 steps, float64, weights as they start; the whole derivative, "
    "through the gates too.",
    parts=(
        Part(
            "forget gate open, gates do not see h",
            "the gates do not see h (the path along c alone)",
            below=1e-9,
        ),
        Part("forget gate open, gates see h", "the gates see h", below=0.1, log=True),
        Part("no forget gate (1997), gates see h", "the gates see h", below=0.1, log=True),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
