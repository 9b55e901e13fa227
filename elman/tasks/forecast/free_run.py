"""How a network of delays is run: from measured values, and behind them on its own."""

from __future__ import annotations

import torch
from torch import Tensor

from elman.layers import Recurrent
from elman.tasks.forecast.base import Window


def inputs_of(window: Window) -> Tensor:
    """Return what acts on the output at every step of a window, (batch, L + H, inputs).

    What is known up to the origin only goes on with its last value behind it. Without any input it
    is one of zeros, since a cell reads something.
    """
    steps = window.y.shape[1] + window.target.shape[1]
    parts = [window.future]
    if window.past.shape[2]:
        last = window.past[:, -1:].expand(-1, steps - window.past.shape[1], -1)
        parts.insert(0, torch.cat([window.past, last], 1))
    if not any(part.shape[2] for part in parts):
        return window.y.new_zeros(len(window.y), steps, 1)
    return torch.cat(parts, 2)


def state_before(layer: Recurrent, window: Window, inputs: Tensor) -> tuple[Tensor, ...]:
    r"""Return the state of a cell of delays after the last known step: it has seen only measured.

    Args:
        layer: one layer of a cell whose one state is y, with delay lines of y and x.
        window: with L >= every delay.
        inputs: of `inputs_of`.

    Returns:
        y at t, (1, batch, 1), and the delay lines, latest first, (1, batch, depth, size).
    """
    y, steps = window.y, window.y.shape[1]
    state = [y[None, :, -1:]]
    for line in layer.cell.graph.lines:
        if line.kind == "input":
            before = inputs[:, steps - line.depth : steps]
        else:  # y at t is the state itself
            before = y[:, steps - 1 - line.depth : steps - 1, None]
        state.append(before.flip(1)[None])
    return tuple(part.contiguous() for part in state)


FARTHEST = 1e6  # deviations from the mean at which a free run that leaves all bounds is stopped


def bounded(told: Tensor) -> Tensor:
    """Return values within ±10⁶ deviations, for a run that grows without end has no other error."""
    return told.nan_to_num(FARTHEST, FARTHEST, -FARTHEST).clamp(-FARTHEST, FARTHEST)


def closed_loop(layer: Recurrent, window: Window) -> Tensor:
    r"""Return the steps behind the origin with every output fed back (parallel), (batch, H).

    .. math::

        \hat y_{t+h} = F(\hat y_{t+h-1}, …, \hat y_{t+1}, y_t, y_{t-1}, …;\; u_{t+h}, u_{t+h-1}, …)

    Of H = 1 it is one step ahead: all it reads is measured (series-parallel).
    """
    inputs = inputs_of(window)
    state = state_before(layer, window, inputs)
    x = inputs[:, window.y.shape[1] :]
    return layer(x, state if len(state) > 1 else state[0])[0][..., 0]
