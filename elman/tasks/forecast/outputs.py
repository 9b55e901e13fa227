"""What a network tells of a step: a point, a normal distribution, or quantiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from elman.errors import InputError

_LEAST_DEVIATION = 1e-3  # of a scaled series


def read_levels(text: str) -> tuple[float, ...]:
    """Return the levels of intervals, in percent, from the least.

    Raises:
        InputError: no number between 0 and 100.

    Example:
        >>> read_levels("95,80")
        (80.0, 95.0)
    """
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not (found[0] > 0 and found[-1] < 100):
        raise InputError(
            f"forecast: levels is {text!r}; expected percentages between 0 and 100, as in 80,95."
        )
    return tuple(found)


def ends(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Return the probabilities at the ends of central intervals, rising.

    Example:
        >>> ends((80.0, 95.0))
        (0.025, 0.1, 0.9, 0.975)
    """
    lower = [round(0.5 - level / 200, 6) for level in reversed(levels)]
    return (*lower, *(round(1 - p, 6) for p in reversed(lower)))


@dataclass(frozen=True)
class Output:
    r"""How the numbers of a step are read: (…, size), of which the first is the middle.

    "point" is :math:`\hat y`; "gaussian" :math:`\mu, s` with deviation softplus(s); "quantile" the
    median m and a number for each end, outwards; the ends are
    :math:`m \pm \sum \mathrm{softplus}`, so that quantiles never cross.

    Args:
        kind: "point", "gaussian" or "quantile".
        levels: of intervals, in percent.
    """

    kind: str
    levels: tuple[float, ...]

    @property
    def size(self) -> int:
        """Numbers of a step."""
        return {"point": 1, "gaussian": 2}.get(self.kind, 1 + 2 * len(self.levels))

    def begin(self, deviation: Tensor) -> Tensor:
        """Return numbers to begin with, (H, size): errors about 0, normal, of deviations (H,)."""
        deviation = deviation.clamp(min=2 * _LEAST_DEVIATION)
        told = torch.zeros(len(deviation), self.size, dtype=deviation.dtype)
        if self.kind == "gaussian":
            told[:, 1] = _before_softplus(deviation - _LEAST_DEVIATION)
        elif self.kind == "quantile":
            upper = torch.tensor(ends(self.levels), dtype=deviation.dtype)[len(self.levels) :]
            z = math.sqrt(2) * torch.erfinv(2 * upper - 1)
            wide = torch.diff(z, prepend=z.new_zeros(1)) * deviation[:, None]
            told[:, 1:] = _before_softplus(wide).repeat(1, 2)
        return told

    def middle(self, told: Tensor) -> Tensor:
        """Return the point, the mean or the median."""
        return told[..., 0]

    def quantiles(self, told: Tensor) -> Tensor | None:
        """Return the ends of the intervals, (…, 2 · levels), rising; None of points."""
        if self.kind == "point":
            return None
        if self.kind == "gaussian":
            deviation = functional.softplus(told[..., 1]) + _LEAST_DEVIATION
            probability = torch.tensor(ends(self.levels), dtype=told.dtype, device=told.device)
            z = math.sqrt(2) * torch.erfinv(2 * probability - 1)
            return told[..., :1] + deviation[..., None] * z
        count = len(self.levels)
        wide = functional.softplus(told[..., 1:])
        up = told[..., :1] + wide[..., :count].cumsum(-1)
        down = told[..., :1] - wide[..., count:].cumsum(-1)
        return torch.cat([down.flip(-1), up], -1)

    def loss(self, told: Tensor, target: Tensor, observed: Tensor) -> tuple[Tensor, int]:
        r"""Return the mean loss of a value and the number of values.

        Squared error; :math:`-\ln p`; or pinball, twice the mean over all quantiles q of
        :math:`\max(q (y-\hat y), (q-1)(y-\hat y))`, which is the absolute error at q = ½.
        """
        count = int(observed.sum())
        weight = observed.to(told.dtype)
        return (self.losses(told, target) * weight).sum() / max(count, 1), count

    def losses(self, told: Tensor, target: Tensor) -> Tensor:
        """Return the loss of every value, shaped as `target`."""
        if self.kind == "point":
            return (told[..., 0] - target).square()
        if self.kind == "gaussian":
            deviation = functional.softplus(told[..., 1]) + _LEAST_DEVIATION
            z = (target - told[..., 0]) / deviation
            return 0.5 * z.square() + deviation.log() + 0.5 * math.log(2 * math.pi)
        found = self.quantiles(told)
        if found is None:
            raise InputError("forecast: points have no quantiles.")
        return pinball(torch.cat([told[..., :1], found], -1), target, (0.5, *ends(self.levels)))


def _before_softplus(value: Tensor) -> Tensor:
    """The number of which `value` is the softplus."""
    return value + torch.log(-torch.expm1(-value))


def pinball(quantiles: Tensor, target: Tensor, probabilities: tuple[float, ...]) -> Tensor:
    """Return twice the mean pinball loss over quantiles.

    Shapes:
        quantiles: (…, quantiles); target and result: (…).

    Example:
        >>> pinball(torch.tensor([[1.0]]), torch.tensor([3.0]), (0.5,))
        tensor([2.])
    """
    p = torch.tensor(probabilities, dtype=target.dtype, device=target.device)
    off = target[..., None] - quantiles
    return 2 * torch.maximum(p * off, (p - 1) * off).mean(-1)
