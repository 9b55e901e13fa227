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
from elman.tasks.forecast.linear import Ridge
from elman.tasks.forecast.series import Series


@dataclass(frozen=True)
class Baselines:
    """Simple forecasts, fitted on the training part.

    Args:
        ridge: direct linear forecast.
        season: of the seasonal naive forecast; 1 is none.
        arx: linear model of one step, which goes on from its own values; beside networks of delays.
        step: ridge regression of one step, for other numbers of steps than `ridge` tells, which
            also goes on from its own values; None where `ridge` is that.
    """

    ridge: Ridge
    season: int
    arx: Arx | None = None
    step: Ridge | None = None

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

        H is ``window.target.shape[1]``; for another H than it was fitted for, the ridge is one of a
        single step that goes on from its own values (as an ARX model in free run).
        """
        steps = window.target.shape[1]
        told = [window.y[:, -1:].expand(-1, steps)]
        if self.season > 1:
            at = torch.arange(steps) % self.season - self.season
            told.append(window.y[:, at + window.y.shape[1]])
        linear = [] if self.arx is None else [self.arx.tell(window)]
        direct = steps == self.ridge.weights.shape[1]
        ridge = self.ridge if direct or self.step is None else self.step
        return [*told, run_on(ridge, window), *linear]

    def to_file(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return plain values and tensors that `from_file` reads."""
        notes: dict[str, Any] = {"season": self.season}
        tensors: dict[str, Tensor] = {}
        for name in ("ridge", "step"):
            ridge = getattr(self, name)
            if ridge is not None:
                notes[name], found = ridge.to_file()
                tensors |= {f"{name}.{key}": value for key, value in found.items()}
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
            ridges = {
                name: Ridge.from_file(
                    notes[name],
                    {key: tensors[f"{name}.{key}"] for key in ("weights", "bias", "deviation")},
                )
                for name in ("ridge", "step")
                if name in notes
            }
            if type(notes["season"]) is not int or notes["season"] < 1:
                raise ValueError
            own = Arx.from_file(notes["arx"], tensors["arx"], where) if "arx" in notes else None
            return cls(ridges["ridge"], notes["season"], own, ridges.get("step"))
        except (KeyError, TypeError, ValueError):
            raise FileError(f"{where}: the baselines in it cannot be read.") from None


def run_on(ridge: Ridge, window: Window) -> Tensor:
    """Return the forecast of as many steps as the window's target has, (batch, H)."""
    steps, fitted, lags = window.target.shape[1], ridge.weights.shape[1], window.y.shape[1]
    if steps == fitted:
        return ridge.tell(window)
    y, told = window.y, []
    for first in range(0, steps, fitted):
        # what the last piece tells too much is cut off, whatever stands in what it reads ahead
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
