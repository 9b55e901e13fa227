"""A network built to explode, and a task that it can learn once its steps are bounded."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from training import Network, at_the_end

STEPS, UNITS = 50, 32


def network(gain: float = 1.1) -> Network:
    """Rectified units with U = gain · I: what is read grows by gain at every step."""
    made = Network("simple", 2, UNITS, 1, hyper={"f": "relu"})
    with torch.no_grad():
        made.layer.U_l0.copy_(gain * torch.eye(UNITS))
        made.layer.W_l0.normal_(std=0.1)
        made.layer.b_l0.zero_()
    return made


def first_sign(batch: int = 32) -> tuple[Tensor, Tensor]:
    """A marked ±1 at the first step, then noise: which was it? Always 0 has the error 1."""
    sign = torch.randint(0, 2, (batch, 1)) * 2.0 - 1.0
    x = torch.stack((0.3 * torch.randn(STEPS, batch), torch.zeros(STEPS, batch)), -1)
    x[0] = torch.cat((sign, torch.ones(batch, 1)), 1)
    return x, sign


def train(
    network: nn.Module, optimiser: torch.optim.Optimizer, clip: float, batches: int
) -> tuple[list[float], list[float]]:
    """Loss and norm of the gradient at each step, until one of them is not finite."""
    losses, norms = [], []
    for _ in range(batches):
        x, y = first_sign()
        optimiser.zero_grad()
        loss = at_the_end(network(x), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), clip)
        losses.append(loss.item())
        norms.append(norm.item())
        if not (math.isfinite(losses[-1]) and math.isfinite(norms[-1])):
            break
        optimiser.step()
    return losses, norms


def descent(network: nn.Module, decay: float = 0.0) -> torch.optim.Optimizer:
    """Gradient descent with momentum, and weight decay if asked."""
    return torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=decay)
