"""Levenberg–Marquardt on one-step errors: the open loop is a small feed-forward network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elman.tasks.forecast.base import Window

if TYPE_CHECKING:
    from elman.tasks.forecast.narx import Narx

_MOST_STEPS = 200
_MOST_CELLS = 10_000_000  # of the Jacobian
_ENOUGH = 1e-6  # relative gain of a step below which it ends
_PATIENCE = 5  # such steps in a row, since each changes how much weights are held
_FLATTEST, _STEEPEST = 1e-9, 1e10  # of the damping
_LOOSEST, _TIGHTEST = 1e-6, 1e8  # of what holds the weights


@dataclass
class OpenLoop:
    r"""The weights of a NARX network as one vector, and what one step is of them.

    .. math::

        \hat y = A r + d + V (a - f(a)), \quad a = W r + b
        \qquad\text{or}\qquad \hat y = V f(a) + d

    Args:
        values: p, numbers in r.
        hidden: units.
        linear: which of the two it is.
    """

    values: int
    hidden: int
    linear: bool

    def sizes(self) -> list[int]:
        """Return the lengths of W, b, V, d, and A where there is one."""
        p, h = self.values, self.hidden
        return [h * p, h, h, 1, *([p] if self.linear else [])]

    def _parts(self, theta: Tensor) -> tuple[Tensor, ...]:
        w, *rest = theta.split(self.sizes())
        return (w.view(self.hidden, self.values), *rest)

    def tell(self, theta: Tensor, read: Tensor) -> Tensor:
        """Return one step for every row of `read`, (rows,)."""
        w, b, v, d, *path = self._parts(theta)
        a = read @ w.T + b
        unit = a - torch.tanh(a) if self.linear else torch.tanh(a)
        told = unit @ v + d
        return told + read @ path[0] if path else told

    def jacobian(self, theta: Tensor, read: Tensor) -> Tensor:
        """Return the derivatives of `tell`, (rows, weights)."""
        w, b, v, _, *_ = self._parts(theta)
        bent = torch.tanh(read @ w.T + b)
        a = read @ w.T + b
        unit, slope = (a - bent, bent.square()) if self.linear else (bent, 1 - bent.square())
        by_a = slope * v
        one = torch.ones(len(read), 1, dtype=read.dtype)
        by_w = (by_a[:, :, None] * read[:, None, :]).flatten(1)
        return torch.cat([by_w, by_a, unit, one, *([read] if self.linear else [])], 1)


class _Fit:
    """Where a fit stands: the weights, how much each group is held, how sure the data are."""

    def __init__(self, network: OpenLoop, theta: Tensor, read: Tensor, told: Tensor):
        self.network, self.theta, self.read, self.told = network, theta, read, told
        w, b, v, *path = network.sizes()
        sizes = torch.tensor([w, b, v, sum(path)])
        self.group = torch.repeat_interleave(torch.arange(4), sizes)
        self.about = torch.where(self.group == 3, theta, 0.0)  # what weights are held to
        self.alpha = torch.full((4,), 0.01, dtype=theta.dtype)
        self.damping = 0.005
        mean = float((told - network.tell(theta, read)).square().mean())
        self.beta = 1.0 / max(mean, 1e-12)

    def cost(self, theta: Tensor) -> float:
        off = self.told - self.network.tell(theta, self.read)
        held = self.alpha[self.group] * (theta - self.about).square()
        return float(self.beta * off.square().sum() + held.sum())

    def step(self) -> float:
        """Take a step, if one lowers the cost, and return the relative gain."""
        off = self.told - self.network.tell(self.theta, self.read)
        jacobian = self.network.jacobian(self.theta, self.read)
        alpha = self.alpha[self.group]
        square = self.beta * jacobian.T @ jacobian + torch.diag(alpha)
        slope = self.beta * jacobian.T @ off - alpha * (self.theta - self.about)
        across = torch.diag(square.diagonal())
        before = self.cost(self.theta)
        while self.damping < _STEEPEST:
            found = self.theta + torch.linalg.solve(square + self.damping * across, slope)
            after = self.cost(found)
            if after < before:
                self.theta, self.damping = found, max(self.damping / 5, _FLATTEST)
                self._weigh()
                return (before - after) / max(abs(before), 1e-300)
            self.damping *= 5
        return 0.0

    def _weigh(self) -> None:
        """Set how much each group is held, and how sure the data are, by the evidence."""
        jacobian = self.network.jacobian(self.theta, self.read)
        square = self.beta * jacobian.T @ jacobian + torch.diag(self.alpha[self.group])
        spread = torch.linalg.inv(square).diagonal()
        known = torch.zeros_like(self.alpha)
        known.index_add_(0, self.group, 1.0 - self.alpha[self.group] * spread)
        size = torch.zeros_like(self.alpha)
        size.index_add_(0, self.group, (self.theta - self.about).square())
        self.alpha = (known / size.clamp_min(1e-12)).clamp(_LOOSEST, _TIGHTEST)
        left = float((self.told - self.network.tell(self.theta, self.read)).square().sum())
        free = max(len(self.told) - float(known.sum()), 1.0)
        self.beta = min(free / max(left, 1e-12), 1e12)


def levenberg_marquardt(
    network: OpenLoop, theta: Tensor, read: Tensor, told: Tensor, steps: int = _MOST_STEPS
) -> Tensor:
    r"""Return weights that fit one step, held as the evidence for them says.

    With e the errors, J their derivatives and w₀ what the weights are held to (0 those of the
    units; d and the linear path to where they begin, the least-squares model), a step solves

    .. math::

        (\beta J^\top J + \mathrm{diag}(\alpha) + \mu D)\, \Delta
            = \beta J^\top e - \alpha (w - w_0),
        \qquad D = \mathrm{diag}(\beta J^\top J + \alpha)

    with the damping μ five times smaller after a gain and larger after none. Each of the four
    groups W, b, V and (d, A) has its own α. After a step
    :math:`\alpha = \gamma / |w - w_0|^2` for each and :math:`\beta = (n - \sum\gamma) / |e|^2`,
    where γ is the number of a group's weights that the data determine. A network that the data give
    no reason for thus falls back to the linear model.

    Args:
        network: what is fitted.
        theta: weights to begin with, float64.
        read: (rows, values), float64.
        told: (rows,), float64.
        steps: at most.

    Source: Foresee & Hagan 1997, "Gauss-Newton approximation to Bayesian learning"; groups after
    MacKay 1992.
    """
    fit = _Fit(network, theta, read, told)
    small = 0
    for _ in range(steps):
        small = small + 1 if fit.step() < _ENOUGH else 0
        if small > _PATIENCE:
            break
    return fit.theta


def fit_open(narx: Narx, windows: Window) -> None:
    """Fit a network in open loop, from the weights it has."""
    read, told = narx.rows(windows)
    network = OpenLoop(read.shape[1], narx.layer.hidden_size, narx.linear)
    thin = max(1, len(read) * sum(network.sizes()) // _MOST_CELLS)
    found = levenberg_marquardt(network, narx.as_vector(), read[::thin], told[::thin])
    narx.take_vector(found)
