"""What a network is held against: persistence, seasonal naive, ridge regression, linear ARX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.errors import FileError
from elman.tasks.forecast.base import Window
from elman.tasks.forecast.identify import Arx
from elman.tasks.forecast.linear import Features, Ridge
from elman.tasks.forecast.series import Series


@dataclass(frozen=True)
class Baselines:
    """Simple forecasts, fitted on the training part.

    Args:
        ridge: direct linear forecast.
        season: of the seasonal naive forecast; 1 is none.
        arx: linear model of one step, which goes on from its own values; beside networks of delays.
    """

    ridge: Ridge
    season: int
    arx: Arx | None = None

    def names(self) -> list[str]:
        """Return what each is called."""
        naive = [] if self.season == 1 else [f"seasonal naive ({self.season})"]
        linear = [] if self.arx is None else [self.arx.name]
        return ["persistence", *naive, f"ridge on {self.ridge.features.lags} lags", *linear]

    @property
    def lags(self) -> int:
        """Steps that windows must hold."""
        own = 1 if self.arx is None else self.arx.order.reach
        return max(self.ridge.features.lags, self.season, own)

    def tell(self, window: Window) -> list[Tensor]:
        """Return the forecasts in the order of `names`, each (batch, H).

        H is ``window.target.shape[1]``; beyond the steps it was fitted for, the ridge goes on from
        its own last values (as an ARX model in free run).
        """
        steps = window.target.shape[1]
        told = [window.y[:, -1:].expand(-1, steps)]
        if self.season > 1:
            at = torch.arange(steps) % self.season - self.season
            told.append(window.y[:, at + window.y.shape[1]])
        linear = [] if self.arx is None else [self.arx.tell(window)]
        return [*told, run_on(self.ridge, window), *linear]

    def to_file(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return plain values and tensors that `from_file` reads."""
        f = self.ridge.features
        notes = {
            "season": self.season,
            "strength": self.ridge.strength,
            "error": self.ridge.error,
            "features": [f.lags, f.anchor, f.past, f.future, f.ahead],
        }
        names = ("weights", "bias", "deviation")
        tensors = {name: getattr(self.ridge, name) for name in names}
        if self.arx is not None:
            notes["arx"], tensors["arx"] = self.arx.to_file()
        return notes, tensors

    @classmethod
    def from_file(
        cls, notes: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
    ) -> Baselines:
        """Return what `to_file` wrote.

        Raises:
            FileError: it did not.
        """
        try:
            features = Features(*notes["features"])
            weights, bias, deviation = (tensors[n] for n in ("weights", "bias", "deviation"))
            if (
                not weights.shape[1:] == bias.shape == deviation.shape
                or min(features.lags, notes["season"]) < 1
            ):
                raise ValueError
            numbers = (notes["strength"], notes["error"])
            ridge = Ridge(features, weights, bias, *numbers, deviation)
            own = Arx.from_file(notes["arx"], tensors["arx"], where) if "arx" in notes else None
            return cls(ridge, notes["season"], own)
        except (KeyError, TypeError, ValueError):
            raise FileError(f"{where}: the baselines in it cannot be read.") from None


def run_on(ridge: Ridge, window: Window) -> Tensor:
    """Return the forecast of as many steps as the window's target has, (batch, H)."""
    steps, fitted, lags = window.target.shape[1], ridge.weights.shape[1], window.y.shape[1]
    if steps <= fitted and (steps == fitted or not ridge.features.ahead):
        return ridge.tell(window)[:, :steps]
    y, told = window.y, []
    for first in range(0, steps, fitted):
        wanted = torch.arange(first, first + lags + fitted)
        future = window.future[:, wanted.clamp(max=window.future.shape[1] - 1)]
        past = window.past[:, (first + torch.arange(lags)).clamp(max=lags - 1)]
        piece = ridge.tell(Window(y, past, future, y[:, :0], y[:, :0].bool()))
        told.append(piece)
        y = torch.cat([y, piece], 1)[:, -lags:]
    return torch.cat(told, 1)[:, :steps]


def naive_errors(parts: Sequence[Series], season: int) -> dict[str, float]:
    """Return of each series the mean absolute error of the seasonal naive forecast in training.

    It is what MASE divides by (Hyndman & Koehler 2006); 0 where there is none.
    """
    found = {}
    for part in parts:
        off = np.abs(part.y[season:] - part.y[:-season]) if len(part) > season else np.zeros(0)
        off = off[np.isfinite(off)]
        found[part.name] = float(off.mean()) if len(off) else 0.0
    return found
