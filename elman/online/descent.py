"""Optimisers for many small steps: all weights as one vector, so that a step is a few operations.

torch's optimisers ask more of Python at each step than a small network asks of the processor; a
stream makes a step for every line. Any of them can be used all the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from elman.errors import InputError, nearest

NAMES = ("adam", "sgd")


class Descent(Protocol):
    """What changes weights by a gradient."""

    @property
    def lr(self) -> float:
        """The learning rate, which may be set."""
        ...

    @lr.setter
    def lr(self, value: float) -> None: ...

    def step(self, gradient: Tensor) -> None:
        """Change the weights; `gradient` is of all of them, one after another."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it remembers: tensors and numbers by name."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what another one did."""
        ...


class SGD:
    r"""Gradient descent with momentum: v ← μ v + g, w ← w − η v.

    Args:
        weights: changed in place.
        lr: η, > 0.
        momentum: μ, in [0, 1).
    """

    def __init__(self, weights: Sequence[Tensor], lr: float, momentum: float = 0.0):
        self._weights = _Weights(weights)
        self.lr, self.momentum = lr, momentum
        self._velocity = self._weights.zeros()

    def step(self, gradient: Tensor) -> None:
        if self.momentum:
            gradient = self._velocity.mul_(self.momentum).add_(gradient)
        torch.mul(gradient, -self.lr, out=self._weights.change)
        self._weights.add()

    def state_dict(self) -> dict[str, Any]:
        return {"velocity": self._velocity, "lr": self.lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._velocity.copy_(state["velocity"])
        self.lr = state["lr"]


class Adam:
    r"""Adam: w ← w − η m̂ / (√v̂ + ε), with m̂ and v̂ the running means of g and g², made unbiased.

    Args:
        weights: changed in place.
        lr: η, > 0.
        betas: how slowly the two means move, each in [0, 1).
        epsilon: ε, > 0.

    Source: Kingma & Ba 2015.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ):
        self._weights = _Weights(weights)
        self.lr, self._betas, self._epsilon, self._count = lr, betas, epsilon, 0
        self._mean, self._square = self._weights.zeros(), self._weights.zeros()

    def step(self, gradient: Tensor) -> None:
        self._count += 1
        first, second = self._betas
        self._mean.lerp_(gradient, 1.0 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
        # The two corrections are numbers, so they go into the step and into ε.
        scale = math.sqrt(1.0 - second**self._count)
        step = self.lr * scale / (1.0 - first**self._count)
        change = self._weights.change
        torch.sqrt(self._square, out=change).add_(self._epsilon * scale)
        torch.div(self._mean, change, out=change).mul_(-step)
        self._weights.add()

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean, "square": self._square, "count": self._count, "lr": self.lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        self._count, self.lr = state["count"], state["lr"]


class Foreign:
    """One of torch's own optimisers, given a gradient instead of finding it on the weights.

    Args:
        optimizer: made with these weights, and no others.
        weights: in the order of the gradient.
    """

    def __init__(self, optimizer: Optimizer, weights: Sequence[Tensor]):
        self._optimizer, self._weights = optimizer, [*weights]
        self._sizes = [w.numel() for w in weights]

    @property
    def lr(self) -> float:
        """The rate of the first group."""
        return float(self._optimizer.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = value

    def step(self, gradient: Tensor) -> None:
        for weight, part in zip(self._weights, gradient.split(self._sizes), strict=True):
            weight.grad = part.view(weight.shape)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {str(k): v for k, v in self._optimizer.state_dict()["state"].items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        groups = self._optimizer.state_dict()["param_groups"]
        numbered = {int(k): v for k, v in state.items()}
        self._optimizer.load_state_dict({"state": numbered, "param_groups": groups})


def descent_of(optimizer: str | Optimizer, weights: Sequence[Tensor], lr: float) -> Descent:
    """What changes the weights, by a name of `NAMES` or as one of torch.optim.

    Raises:
        InputError: no such name, or an optimiser of other weights.
    """
    if isinstance(optimizer, Optimizer):
        held = {id(w) for group in optimizer.param_groups for w in group["params"]}
        if held != {id(w) for w in weights}:
            raise InputError(
                "OnlineLearner: the optimiser holds other weights than model and readout; make it "
                "with the parameters of both that require a gradient"
            )
        return Foreign(optimizer, weights)
    if optimizer == "adam":
        return Adam(weights, lr)
    if optimizer == "sgd":
        return SGD(weights, lr)
    raise InputError(
        f"OnlineLearner: optimizer is {optimizer!r}; expected one of {', '.join(NAMES)}, or one of "
        f"torch.optim.{nearest(str(optimizer), NAMES)}"
    )


class _Weights:
    """Several tensors that are changed as one vector."""

    def __init__(self, weights: Sequence[Tensor]):
        self._weights = [*weights]
        sizes = [w.numel() for w in weights]
        # One memory for every change, cut into the weights' shapes once and for all.
        self.change = weights[0].new_zeros(sum(sizes))
        parts = zip(self.change.split(sizes), weights, strict=True)
        self._parts = [part.view(weight.shape) for part, weight in parts]

    def zeros(self) -> Tensor:
        return torch.zeros_like(self.change)

    @torch.no_grad()
    def add(self) -> None:
        """Add `change` to the weights."""
        torch._foreach_add_(self._weights, self._parts)
