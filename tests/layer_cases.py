"""Layers for the law tests: every cell in a stack, and the drop-ins."""

from __future__ import annotations

import torch
from cases import CELLS, SIZES, VARIANTS, Case

import elman

# Cells that read nothing but x; those with further inputs have tests of their own.
PLAIN = tuple(c for c in CELLS if len(c.graph.inputs) == 1)
DROPINS = ("LSTM", "GRU", "RNN")
FEW = tuple(
    c
    for c in (*CELLS, *VARIANTS)
    if c.id in ("lstm", "gru_cho", "narx", "tdnn", "lstm_projected", "peephole_lstm")
)


def layer_of(case: Case | str, num_layers: int = 2, **options) -> elman.Recurrent:
    """A double-precision layer with distinct random weights, on the reference if not said."""
    torch.manual_seed(3)
    options = {"dtype": torch.float64, "backend": "reference", **options}
    if isinstance(case, str):
        layer = getattr(elman, case)(SIZES["input"], SIZES["hidden"], num_layers, **options)
    else:
        layer = _recurrent(case, num_layers, options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.6 * torch.randn_like(parameter))
    return layer


def _recurrent(case: Case, num_layers: int, options: dict) -> elman.Recurrent:
    sizes = case.all_sizes
    further = {k: v for k, v in sizes.items() if k not in ("input", "hidden")}
    return elman.Recurrent(
        case.cell, sizes["input"], sizes["hidden"], num_layers, sizes=further, **options
    )


def total(*results: object) -> torch.Tensor:
    """A scalar that weighs every entry of all results differently."""
    tensors = flat(results)
    return sum((t * torch.cos(torch.arange(t.numel()).to(t)).view(t.shape)).sum() for t in tensors)


def flat(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for v in value for t in flat(v)]


def as_tuple(state) -> tuple[torch.Tensor, ...]:
    return (state,) if isinstance(state, torch.Tensor) else tuple(state)


def rows(state, start: int, stop: int):
    """Some rows of a state; states and delay lines both have the batch second."""
    picked = tuple(s[:, start:stop] for s in as_tuple(state))
    return picked[0] if len(picked) == 1 else picked


def gradients(layer, loss: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    """The gradients of the leaves and of all parameters, zeros where there is none."""
    wanted = [*leaves, *layer.parameters()]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
