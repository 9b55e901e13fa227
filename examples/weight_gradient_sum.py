"""The gradient of the recurrent weights as the double sum over errors and times."""

from __future__ import annotations

import torch
from ledger import Claim, Part, Seen, main

import elman
from elman.diagnose import weight_terms

STEPS, UNITS = 30, 12


def error_in_lstm() -> float:
    """The same for a gate of an LSTM, its terms by `elman.diagnose.weight_terms`."""
    layer = elman.Recurrent("lstm", 3, UNITS, dtype=torch.float64)
    x = torch.randn(STEPS, 1, 3, dtype=torch.float64)
    terms = weight_terms(layer, x, "U_f", loss=lambda out, _: out.square().sum())
    loss = layer(x)[0].square().sum()
    (by_backward,) = torch.autograd.grad(loss, layer.U_f_l0)
    total = sum(terms.term(t, k) for t in range(STEPS) for k in range(t + 1))
    return ((total - by_backward).norm() / by_backward.norm()).item()


def measure(seed: int, full: bool) -> Seen:
    """The sum of all terms against the backward of Elman's kernel."""
    double = torch.float64
    layer = elman.Recurrent("simple", 3, UNITS, dtype=double)
    readout = torch.randn(STEPS, UNITS, dtype=double)
    x = torch.randn(STEPS, 1, 3, dtype=double)
    out, _ = layer(x)
    loss = (out[:, 0] * readout).sum()
    (by_backward,) = torch.autograd.grad(loss, layer.U_l0)

    with torch.no_grad():
        h = torch.cat((torch.zeros(1, UNITS, dtype=double), out[:, 0]))
        slope = 1 - h[1:].square()  # of tanh at z_t
        total = torch.zeros(UNITS, UNITS, dtype=double)
        sizes = torch.zeros(STEPS, STEPS, dtype=double)
        for t in range(STEPS):
            delta = slope[t] * readout[t]  # ∂L_t/∂z_t
            for k in range(t, -1, -1):
                term = torch.outer(delta, h[k])  # δ_{t,k} h_{k−1}ᵀ
                total += term
                sizes[t, k] = term.norm()
                if k:
                    delta = slope[k - 1] * (layer.U_l0.T @ delta)
        near = sum(sizes.diagonal(-lag).sum() for lag in range(5)) / sizes.sum()
    error = ((total - by_backward).norm() / by_backward.norm()).item()
    # Zero would be as good; the interval is taken on logarithms.
    numbers = {
        "relative error of the double sum": max(error, 1e-18),
        "relative error of the double sum, forget gate of an LSTM": max(error_in_lstm(), 1e-18),
        "share of the terms' norms at lags below 5": near.item(),
    }
    return Seen(numbers, {"sizes": sizes.tolist()})


def draw(figure, seeds: list[Seen]) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    sizes = torch.tensor([s.curves["sizes"] for s in seeds]).mean(0)
    shown = sizes.where(sizes > 0, torch.nan).log10().numpy()
    image = left.imshow(shown, origin="lower", cmap="viridis", aspect="auto")
    figure.colorbar(image, ax=left, label="log₁₀ of the term's norm")
    left.set(xlabel="k, where the weight was used", ylabel="t, where the error was made")
    by_lag = [sizes.diagonal(-lag).mean().item() for lag in range(STEPS - 1)]
    right.plot(range(STEPS - 1), by_lag, color="#0072B2")
    right.set(yscale="log", xlabel="lag t − k", ylabel="mean norm of a term")


CLAIM = Claim(
    words="∂L/∂U = Σ_t Σ_k δ_{t,k} h_{k−1}ᵀ: the gradient of the recurrent weights is a sum over "
    "all pairs of an error and an earlier use.",
    source="Werbos 1990; Qiu 2020, section 6.4",
    setting="Simple network, 12 units, 30 steps, float64; all 465 terms by two loops, and those of "
    "an LSTM's forget gate by elman.diagnose.weight_terms; against the backward of Elman's kernel.",
    parts=(
        Part(
            "relative error of the double sum",
            "it is computed in float64",
            below=1e-9,
            log=True,
        ),
        Part(
            "relative error of the double sum, forget gate of an LSTM",
            "it is computed in float64",
            below=1e-9,
            log=True,
        ),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
