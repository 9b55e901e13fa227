"""The two ways in which a network of delays is run: measured values fed, or its own."""

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


def closed_loop(layer: Recurrent, window: Window) -> Tensor:
    """Return the steps behind the origin with every output fed back (parallel), (batch, H)."""
    inputs = inputs_of(window)
    state = state_before(layer, window, inputs)
    x = inputs[:, window.y.shape[1] :]
    return layer(x, state if len(state) > 1 else state[0])[0][..., 0]


def open_loop(layer: Recurrent, window: Window) -> Tensor:
    """Return each step behind the origin from the measured ones before it (series-parallel).

    Every step is a window of its own, so the depth of the computation does not grow with H.

    Shapes:
        result: (batch, H).
    """
    steps, told = window.y.shape[1], window.target.shape[1]
    y = torch.cat([window.y, window.target], 1).unfold(1, steps, 1)[:, :told]
    inputs = inputs_of(window).unfold(1, steps + 1, 1).transpose(2, 3)
    every = Window(
        y.flatten(0, 1),
        y.new_zeros(y.shape[0] * told, steps, 0),
        inputs.flatten(0, 1),
        y.new_zeros(y.shape[0] * told, 1),
        torch.ones(y.shape[0] * told, 1, dtype=torch.bool),
    )
    return closed_loop(layer, every).view(-1, told)
