"""A network with how sure its points are, and what it says of windows."""

from __future__ import annotations

import math
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from elman.tasks.forecast.base import KINDS, Forecaster, Window
from elman.tasks.forecast.measure import Told
from elman.tasks.forecast.outputs import Output, ends, pinball
from elman.tasks.forecast.windows import to


def module(kind: str) -> ModuleType:
    """Return the module of a kind of network."""
    return import_module(KINDS["recurrent" if kind == "auto" else kind])


class Network(nn.Module):
    """A forecaster, and by how much it was off on the validation part.

    Args:
        forecaster: the network proper.
        output: how its numbers are read.
        horizon: steps ahead whose errors are kept.

    Attributes:
        spread: quantiles of the error of points, (horizon, 2 · levels), by which points get
            intervals: those of the validation part (split conformal prediction, without its claim,
            since neighbouring windows are no independent draws).
    """

    spread: Tensor

    def __init__(self, forecaster: Forecaster, output: Output, horizon: int):
        super().__init__()
        self.forecaster, self.output = forecaster, output
        self.register_buffer("spread", torch.zeros(horizon, 2 * len(output.levels)))

    @property
    def like(self) -> Tensor:
        """A weight, whose device and number type windows must have."""
        return next(self.parameters())

    @torch.no_grad()
    def tell(self, window: Window, *, losses: bool = False) -> Told:
        """Return what it says of a batch, on the CPU."""
        moved = to(window, self.like)
        raw = self.forecaster(moved)
        middle = self.output.middle(raw)
        found = self.output.quantiles(raw)
        if found is None and middle.shape[1] <= len(self.spread):
            found = middle[..., None] + self.spread[: middle.shape[1]]
        each = self.output.losses(raw, moved.target).cpu() if losses else None
        return Told(middle.cpu(), None if found is None else found.cpu(), each)


def error_quantiles(errors: np.ndarray, levels: tuple[float, ...]) -> Tensor:
    """Return quantiles of errors (windows, H), NaN where unobserved: (H, 2 · levels)."""
    found = np.zeros((errors.shape[1], 2 * len(levels)))
    some = np.isfinite(errors).any(0)
    if some.any():
        found[some] = np.nanquantile(errors[:, some], ends(levels), axis=0).T
    return torch.from_numpy(found)


def told_of_points(
    middle: Tensor, spread: Tensor, deviation: Tensor, output: Output, target: Tensor
) -> Told:
    """Return points as a forecast with intervals and losses, by their errors elsewhere.

    Args:
        middle: (batch, H).
        spread: quantiles of the errors, (H, 2 · levels); fewer steps give no intervals.
        deviation: root mean square of the errors, (H,).
        output: what the losses are those of.
        target: (batch, H).
    """
    steps = middle.shape[1]
    if steps > len(spread):
        return Told(middle, None, (middle - target).square())
    found = middle[..., None] + spread[:steps]
    if output.kind == "gaussian":
        wide = deviation[:steps].clamp(min=1e-3)
        off = (target - middle) / wide
        losses = 0.5 * off.square() + wide.log() + 0.5 * math.log(2 * math.pi)
    elif output.kind == "quantile":
        every = torch.cat([middle[..., None], found], -1)
        losses = pinball(every, target, (0.5, *ends(output.levels)))
    else:
        losses = (middle - target).square()
    return Told(middle, found, losses)
