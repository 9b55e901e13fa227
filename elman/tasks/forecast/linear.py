"""Ridge regression on windows: a baseline, and what the linear path of a network begins as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.errors import InputError
from elman.tasks.forecast.base import Window
from elman.tasks.forecast.windows import Windows

_STRENGTHS = 10.0 ** np.arange(-2.0, 7.0)
_MOST_CELLS = 20_000_000  # of the tables that are solved
_MOST_FEATURES = 3000


@dataclass(frozen=True)
class Features:
    """What of a window a linear model reads.

    Args:
        lags: L of the windows.
        anchor: whether values of the target are read and told relative to the last.
        past, future: the latest steps, up to the origin, of covariates that are read.
        ahead: whether what is known ahead is read behind the origin too.
    """

    lags: int
    anchor: bool
    past: int
    future: int
    ahead: bool

    @classmethod
    def of(cls, lags: int, horizon: int, past: int, future: int, anchor: bool) -> Features:
        """Return features of windows with so many covariates, not too many in all."""
        ahead = future * horizon <= _MOST_FEATURES // 2
        room = _MOST_FEATURES - lags - (future * horizon if ahead else 0)
        reach = max(1, min(lags, room // max(past + future, 1)))
        return cls(lags, anchor, reach if past else 0, reach if future else 0, ahead)

    def count(self, horizon: int, past: int, future: int) -> int:
        """Return how many there are."""
        ahead = horizon * future if self.ahead else 0
        return self.lags + self.past * past + self.future * future + ahead

    def read(self, window: Window) -> Tensor:
        """Return them, (batch, features)."""
        y = window.y[:, window.y.shape[1] - self.lags :]
        last = y[:, -1:] if self.anchor else torch.zeros_like(y[:, -1:])
        steps = window.y.shape[1]
        past = window.past[:, steps - self.past : steps]
        end = window.future.shape[1] if self.ahead else steps
        future = window.future[:, steps - self.future : end]
        return torch.cat([y - last, past.flatten(1), future.flatten(1)], 1)

    def base(self, window: Window) -> Tensor:
        """Return what is added to what is told, (batch, 1)."""
        return window.y[:, -1:] if self.anchor else torch.zeros_like(window.y[:, -1:])


@dataclass(frozen=True)
class Ridge:
    r"""A direct linear forecast: of each of H steps ahead its own weights on the same features.

    .. math::

        \hat y_{t+h} = b_h + w_h^\top x_t, \qquad
        (w_h, b_h) = \arg\min \sum_t (y_{t+h} - b_h - w_h^\top x_t)^2 + \lambda |w_h|^2

    Args:
        features: x.
        weights: (features, H), float64.
        bias: (H,), float64.
        strength: λ.
        error: mean squared error on the validation windows.
        deviation: root of that by step, (H,), float64; 1 where nothing is known.
    """

    features: Features
    weights: Tensor
    bias: Tensor
    strength: float
    error: float
    deviation: Tensor

    def tell(self, window: Window) -> Tensor:
        """Return (batch, H)."""
        x = self.features.read(window)
        weights, bias = self.weights.to(x), self.bias.to(x)
        return self.features.base(window) + x @ weights + bias

    def to_file(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return plain values and tensors."""
        f = self.features
        notes = {
            "strength": self.strength,
            "error": self.error,
            "features": [f.lags, f.anchor, f.past, f.future, f.ahead],
        }
        return notes, {n: getattr(self, n) for n in ("weights", "bias", "deviation")}

    @classmethod
    def from_file(cls, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Ridge:
        """Return what `to_file` wrote.

        Raises:
            KeyError, TypeError, ValueError: it did not.
        """
        features = Features(*notes["features"])
        weights, bias, deviation = (tensors[n] for n in ("weights", "bias", "deviation"))
        if weights.shape[1:] != bias.shape or bias.shape != deviation.shape or features.lags < 1:
            raise ValueError
        return cls(features, weights, bias, notes["strength"], notes["error"], deviation)


def fit(train: Windows, valid: Windows, features: Features) -> Ridge:
    """Fit a ridge regression, its strength the best on the validation windows.

    Raises:
        InputError: no window to learn from.
    """
    x, y, known = _table(train, features)
    if not known.any():
        raise InputError("forecast: no window of the training part has a target to learn from.")
    judged = _table(valid, features)
    paths = _paths(x, y, known)
    errors = [_error(weights, bias, judged) for weights, bias in paths]
    at = int(np.argmin(errors))
    weights, bias = map(torch.from_numpy, paths[at])
    deviation = torch.from_numpy(_deviation(*paths[at], judged))
    return Ridge(features, weights, bias, float(_STRENGTHS[at]), errors[at], deviation)


def _table(windows: Windows, features: Features) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, targets less the base, and what of them is known, of windows or an even part."""
    wide = features.lags * 4 + windows.horizon
    step = max(1, -(-len(windows) * wide // _MOST_CELLS))
    window = windows.window(slice(None, None, step))
    x, base = features.read(window), features.base(window)
    return x.numpy(), (window.target - base).numpy(), window.observed.numpy()


def _paths(x: np.ndarray, y: np.ndarray, known: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and bias for each strength; steps ahead that miss values are fitted each alone."""
    whole = known.all(0)
    groups = [np.flatnonzero(whole)] if whole.any() else []
    groups += [np.array([h]) for h in np.flatnonzero(~whole & known.any(0))]
    paths = [(np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1])) for _ in _STRENGTHS]
    for steps in groups:
        rows = known[:, steps[0]]
        read, told = x[rows], y[np.ix_(rows, steps)]
        mean_x, mean_y = read.mean(0), told.mean(0)
        centred = read - mean_x
        values, vectors = np.linalg.eigh(centred.T @ centred)
        turned = vectors.T @ (centred.T @ (told - mean_y))
        for strength, (weights, bias) in zip(_STRENGTHS, paths, strict=True):
            found = vectors @ (turned / (np.maximum(values, 0.0) + strength)[:, None])
            weights[:, steps] = found
            bias[steps] = mean_y - mean_x @ found
    return paths


def _error(weights: np.ndarray, bias: np.ndarray, judged: tuple[np.ndarray, ...]) -> float:
    x, y, known = judged
    if not known.any():
        return float(np.square(weights).sum())  # nothing to choose by: the smallest weights
    return float(np.square(x @ weights + bias - y)[known].mean())


def _deviation(weights: np.ndarray, bias: np.ndarray, judged: tuple[np.ndarray, ...]) -> np.ndarray:
    x, y, known = judged
    square = np.where(known, np.square(x @ weights + bias - y), 0.0).sum(0)
    count = known.sum(0)
    return np.where(count > 0, np.sqrt(square / np.maximum(count, 1)), 1.0)
