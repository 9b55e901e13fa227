"""The derivative of a layer's last state by its first."""

from __future__ import annotations

import torch
from torch import Tensor

import elman


def last_by_first(layer: elman.Recurrent, x: Tensor, state: int = 0) -> Tensor:
    """∂s_T/∂s_0 for one state of a single layer, (units, units), from inputs (time, features).

    Row i is one backward pass from unit i; all rows run as one batch of the same sequence. The
    other states start at zero and are held fixed there.
    """
    units, many = layer.hidden_size, len(layer.cell.states) > 1
    start = [
        torch.zeros(1, units, units, dtype=x.dtype, requires_grad=place == state)
        for place in range(len(layer.cell.states))
    ]
    _, last = layer(x.unsqueeze(1).expand(-1, units, -1), tuple(start) if many else start[0])
    chosen = last[state] if many else last
    (jacobian,) = torch.autograd.grad(chosen[0].diagonal().sum(), start[state])
    return jacobian[0]
