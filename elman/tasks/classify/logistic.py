"""Logistic regression on the means and deviations of sequences of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elman.errors import FileError

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
_ITERATIONS = 100


def summary(sequence: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation over time of each feature, (2 · features,).

    Example:
        >>> summary(np.array([[1.0, 0.0], [3.0, 0.0]])).tolist()
        [2.0, 0.0, 1.0, 0.0]
    """
    wide = sequence.astype(np.float64)
    return np.concatenate([wide.mean(axis=0), wide.std(axis=0)])


class Logistic:
    r"""Tells the class of a sequence from what its numbers are like on the whole.

    .. math::

        z = A \frac{v - \mu}{\sigma} + b, \qquad
        \min_{A, b} \; \frac1n \sum -\ln \mathrm{softmax}(z)_y + \rho \lVert A \rVert^2

    with v the means and deviations, standardised on the training part.

    Args:
        centre, spread: mean and deviation of v on the training part, (2 · features,).
        weight, bias: A (classes, 2 · features) and b (classes,).
    """

    name = "logistic regression on means and deviations"

    def __init__(self, centre: Tensor, spread: Tensor, weight: Tensor, bias: Tensor):
        self.centre, self.spread, self.weight, self.bias = centre, spread, weight, bias

    def scores(self, data: Sequence[np.ndarray]) -> np.ndarray:
        """Return logits, (sequences, classes)."""
        v = torch.from_numpy(np.stack([summary(sequence) for sequence in data]))
        return (((v - self.centre) / self.spread) @ self.weight.T + self.bias).numpy()

    def keep(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return plain metadata and tensors from which `taken` makes it again."""
        tensors = {"centre": self.centre, "spread": self.spread, "weight": self.weight}
        return {"kind": "logistic"}, tensors | {"bias": self.bias}

    @classmethod
    def taken(cls, tensors: Mapping[str, Tensor], classes: int, where: str) -> Logistic:
        """Return what `keep` wrote down.

        Raises:
            FileError: a tensor is missing, or they do not belong together.
        """
        parts = [tensors.get(name) for name in ("centre", "spread", "weight", "bias")]
        there = [part.double() for part in parts if part is not None]
        fits = len(there) == 4 and there[2].shape == (classes, len(there[0]))
        if not fits or there[1].shape != there[0].shape or there[3].shape != (classes,):
            raise FileError(f"{where}: holds no baseline of this classifier.")
        return cls(*there)


def tune(
    train: Sequence[np.ndarray], labels: np.ndarray, valid: Sequence[np.ndarray],
    valid_labels: np.ndarray, classes: int,
) -> Logistic:  # fmt: skip
    """Return the regression whose ridge tells most of the validation part right."""
    v = torch.from_numpy(np.stack([summary(sequence) for sequence in train]))
    centre, spread = v.mean(0), v.std(0, unbiased=False)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    target = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    found = []
    for ridge in RIDGES:
        weight, bias = _solve((v - centre) / spread, target, classes, ridge)
        model = Logistic(centre, spread, weight, bias)
        right = int((model.scores(valid).argmax(1) == valid_labels).sum())
        found.append((right, ridge, model))
    return max(found, key=lambda entry: entry[:2])[2]


def _solve(v: Tensor, target: Tensor, classes: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Minimise by L-BFGS; the problem has one minimum."""
    weight = torch.zeros(classes, v.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )

    def loss() -> Tensor:
        search.zero_grad()
        value = functional.cross_entropy(v @ weight.T + bias, target)
        value = value + ridge * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)
    return weight.detach(), bias.detach()
