"""The direct forecaster: a recurrent layer reads the window, a head tells all steps at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import elman.cells
from elman.equation import Cell
from elman.layers import Recurrent
from elman.tasks.base import Budget
from elman.tasks.forecast import lengths
from elman.tasks.forecast.base import Forecaster, Sizes, Window
from elman.tasks.forecast.linear import Features, Ridge
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.series import Data

_AHEAD = 16  # units that mix the state with what is known ahead


class RecurrentForecaster(Forecaster):
    r"""A recurrent layer over the lags, and beside it a linear path from them.

    With :math:`b = y_t` where windows are read relative to their last value (else 0), and
    :math:`u` all that is known of past and future:

    .. math::

        x_k = (y_k - b,\; past_k,\; future_k), \qquad s = \mathrm{layer}(x_{t-L+1}, …, x_t), \qquad
        \hat y_{t+h} = b + w_h^\top u + c_h + (A s + d)_h + V \tanh(B s + C\, future_{t+h})

    The last term is there with covariates that are known ahead. A and V begin as 0.

    Args:
        cell: of the layer.
        sizes: covariates and outputs.
        lags, horizon: L and H.
        hidden, layers: of the recurrent layer.
        dropout: on s, in training.
        features: of the linear path; None is none.
        anchor: whether b is the last value.

    Source: a linear path beside the recurrent one, Lai et al. 2018 (LSTNet); the last value taken
    off and added again, Zeng et al. 2023 (NLinear).
    """

    def __init__(
        self,
        cell: Cell,
        sizes: Sizes,
        *,
        lags: int,
        horizon: int,
        hidden: int,
        layers: int,
        dropout: float,
        features: Features | None,
        anchor: bool,
    ):
        super().__init__()
        self.lags, self.horizon, self.outputs = lags, horizon, sizes.outputs
        self.anchor, self.dropout, self.features = anchor, dropout, features
        inputs = 1 + sizes.past + sizes.future
        self.layer = Recurrent(cell, inputs, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, horizon * sizes.outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if features is not None:
            count = features.count(horizon, sizes.past, sizes.future)
            self.linear = nn.Linear(count, horizon)
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        if sizes.future:
            self.state = nn.Linear(hidden, _AHEAD)
            self.ahead = nn.Linear(sizes.future, _AHEAD, bias=False)
            self.mixed = nn.Linear(_AHEAD, sizes.outputs, bias=False)
            nn.init.zeros_(self.mixed.weight)

    def take_linear(self, ridge: Ridge) -> None:
        """Begin the linear path as a ridge regression."""
        if self.features is not None:
            with torch.no_grad():
                self.linear.weight.copy_(ridge.weights.T)
                self.linear.bias.copy_(ridge.bias)

    def take_spread(self, spread: Tensor) -> None:
        """Begin intervals as wide as the errors of that regression."""
        with torch.no_grad():
            self.head.bias.copy_(spread.flatten())

    def forward(self, window: Window) -> Tensor:
        """Return (batch, H, outputs)."""
        last = window.y[:, -1:] if self.anchor else torch.zeros_like(window.y[:, -1:])
        y = (window.y - last)[..., None]
        read = torch.cat([y, window.past, window.future[:, : self.lags]], 2)
        state = self.layer(read)[0][:, -1]
        state = functional.dropout(state, self.dropout, self.training)
        told = self.head(state).unflatten(1, (self.horizon, self.outputs))
        if window.future.shape[2]:
            ahead = self.ahead(window.future[:, self.lags :])
            told = told + self.mixed(torch.tanh(self.state(state)[:, None] + ahead))
        middle = told[..., 0] + last
        if self.features is not None:
            middle = middle + self.linear(self.features.read(window))
        return torch.cat([middle[..., None], told[..., 1:]], 2)

    def describe(self) -> str:
        """Say what it is made of."""
        size = self.layer
        parts = [
            f"{size.num_layers} layer(s) of {size.hidden_size} {size.cell.name} units over "
            f"{self.lags} steps, and a dense head for all {self.horizon} steps ahead at once"
        ]
        if self.features is not None:
            parts.append("a linear path from the lags beside it, begun by ridge regression")
        if self.anchor:
            parts.append("values read and told relative to the last")
        return "; ".join(parts)

    def recommended(self) -> dict[str, Any]:
        """Return training options."""
        return {
            "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1, "schedule": "cosine",
            "warmup": 0.05, "clip_norm": 1.0, "ema": 0.05, "precision": "32",
        }  # fmt: skip


def settle(options: ForecastOptions, data: Data, budget: Budget) -> dict[str, Any]:
    """Choose lags and sizes."""
    windows = sum(len(s) for s in data.train)
    return {
        "lags": str(lengths.lags(options, data)),
        "cell": options.cell or "lstm",
        "hidden": options.hidden or (16 if windows < 2000 else 32),
        "layers": options.layers or 1,
        "dropout": 0.2 if options.dropout is None else options.dropout,
        "linear": True if options.linear is None else options.linear,
    }


def make(options: ForecastOptions, sizes: Sizes) -> RecurrentForecaster:
    """Make the network of settled options."""
    given = options.cell or "lstm"
    cell = Cell.from_json(given) if isinstance(given, dict) else elman.cells.get(given)
    lags, horizon = int(options.lags or 1), options.horizon or 1
    features = Features.of(lags, horizon, sizes.past, sizes.future, bool(options.anchor))
    return RecurrentForecaster(
        cell.with_hyper(**options.hyper),
        sizes,
        lags=lags,
        horizon=horizon,
        hidden=options.hidden or 1,
        layers=options.layers or 1,
        dropout=options.dropout or 0.0,
        features=features if options.linear else None,
        anchor=bool(options.anchor),
    )
