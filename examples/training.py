"""A network and a readout, trained on batches that a function draws: the loop of the examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import elman

Batch = tuple[Tensor, Tensor]


class Network(nn.Module):
    """A recurrent layer, and one linear readout of its output at every step."""

    def __init__(
        self,
        cell: str | elman.Cell,
        inputs: int,
        units: int,
        outputs: int,
        *,
        layers: int = 1,
        hyper: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.layer = elman.Recurrent(cell, inputs, units, num_layers=layers, hyper=hyper)
        self.readout = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.layer(x)[0])


def parameters(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(p.numel() for p in network.parameters())


def fit(
    network: nn.Module,
    draw: Callable[[], Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    rate: float = 3e-3,
    clip: float | None = 1.0,
) -> list[float]:
    """Train with Adam on drawn batches; the loss of each step."""
    weights: Sequence[Tensor] = [p for p in network.parameters() if p.requires_grad]
    adam = torch.optim.Adam(weights, lr=rate, foreach=True)
    losses = []
    for _ in range(steps):
        x, y = draw()
        adam.zero_grad()
        value = loss(network(x), y)
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(weights, clip)
        adam.step()
        losses.append(value.item())
    return losses


def at_every_step(scores: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy where a class is asked (it is −100 elsewhere)."""
    return nn.functional.cross_entropy(scores.flatten(0, 1), classes.flatten())


def at_the_end(scores: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the last output."""
    return (scores[-1] - target).square().mean()


def right(scores: Tensor, classes: Tensor) -> float:
    """The share of right answers where a class is asked."""
    asked = classes >= 0
    return (scores.argmax(-1)[asked] == classes[asked]).double().mean().item()


def one_hot(tokens: Tensor, classes: int) -> Tensor:
    """Tokens as the layer reads them."""
    return nn.functional.one_hot(tokens, classes).float()
