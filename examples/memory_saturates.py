"""How many numbers a state of some width still holds after reading more and more of them."""

from __future__ import annotations

import torch
from ledger import Claim, Part, Seen, curve, main
from torch import Tensor

import elman

WIDTHS = (8, 16, 32, 64)
ITEMS = (4, 8, 16, 32, 64, 128)
ROWS = 1500


def recalled(final: Tensor, items: Tensor) -> float:
    """Σ over items of the share of its variance that the best linear readout of the state gives.

    Fitted on one half of the rows by least squares with a ridge, counted on the other.
    """
    half = ROWS // 2
    h = torch.cat((final, torch.ones(ROWS, 1, dtype=final.dtype)), 1)
    gram = h[:half].T @ h[:half] + 1e-6 * half * torch.eye(h.shape[1], dtype=h.dtype)
    weights = torch.linalg.solve(gram, h[:half].T @ items[:half])
    error = (items[half:] - h[half:] @ weights).square().mean(0)
    return (1 - error / items[half:].var(0)).clamp(min=0).sum().item()


def network(kind: str, width: int) -> elman.Recurrent:
    """A network with random weights whose recurrent matrix is orthogonal (times 0.98)."""
    layer = elman.Recurrent("simple", 1, width, hyper={"f": "tanh"}, dtype=torch.float64)
    if kind == "h + g(x)":
        layer = elman.Recurrent("residual_input", 1, width, dtype=torch.float64)
    with torch.no_grad():
        layer.W_l0.normal_(std=0.1)
        layer.b_l0.normal_(std=0.1)
        if kind != "h + g(x)":
            torch.nn.init.orthogonal_(layer.U_l0)
            layer.U_l0.mul_(0.98)
    return layer


@torch.no_grad()
def measure(seed: int, full: bool) -> Seen:
    numbers, curves = {}, {}
    for kind, widths in (("simple", WIDTHS), ("h + g(x)", (64,))):
        for width in widths:
            layer, counts = network(kind, width), []
            for n in ITEMS:
                x = torch.rand(n, ROWS, 1, dtype=torch.float64) * 2 - 1
                counts.append(recalled(layer(x)[0][-1], x[..., 0].T))
            curves[f"{kind}, {width} units"] = counts
            if kind == "simple":
                few = ITEMS.index(width // 2)
                numbers[f"{width} units: share held of {width // 2} items"] = (
                    counts[few] * 2 / width
                )
                numbers[f"{width} units: items held of 128, over the width"] = counts[-1] / width
    numbers["items held of 128, 64 units over 8 units"] = (
        curves["simple, 64 units"][-1] / curves["simple, 8 units"][-1]
    )
    numbers["h + g(x), 64 units: items held of 128"] = curves["h + g(x), 64 units"][-1]
    return Seen(numbers, curves)


def draw(figure, seeds: list[Seen]) -> None:
    axes = figure.subplots()
    for place, name in enumerate(seeds[0].curves):
        curve(axes, ITEMS, [s.curves[name] for s in seeds], name, place)
    axes.plot(ITEMS, ITEMS, color="grey", linewidth=0.8, label="all of them")
    axes.set(xscale="log", yscale="log", xlabel="items read", ylabel="items a readout recovers")
    axes.set_xticks(ITEMS, [str(n) for n in ITEMS])
    axes.set_ylim(0.05, 150)
    axes.legend(fontsize=8)


CLAIM = Claim(
    words="The memory saturates: a state of some width holds so many items, however many are read.",
    source="Jaeger 2001, “Short term memory in echo state networks” (never more than the width); "
    "Qiu 2020, section 6.5",
    setting="Simple network with random weights (recurrent ones orthogonal, times 0.98), "
    "independent numbers read one a step, and the best linear readout of the last state; an "
    "item counts as the share of its variance that comes back.",
    parts=(
        *(Part(f"{w} units: share held of {w // 2} items", "", above=0.8) for w in WIDTHS),
        *(Part(f"{w} units: items held of 128, over the width", "", below=1.0) for w in WIDTHS),
        Part("items held of 128, 64 units over 8 units", "", above=3.0),
        Part("h + g(x), 64 units: items held of 128", "", below=2.0),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
