"""The delay network: layers that read the last values of what is below them, and no recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

import elman.cells
from elman.errors import InputError
from elman.layers import Recurrent
from elman.tasks.base import Budget
from elman.tasks.forecast import lengths
from elman.tasks.forecast.base import Sizes
from elman.tasks.forecast.linear import Features
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.recurrent import RecurrentForecaster
from elman.tasks.forecast.series import Data

_MOST_DELAYS = 8  # of a layer, where nothing is said


class Delays(nn.Module):
    r"""Layers of the cell `tdnn`, each with its own number of delays.

    .. math::

        h^l_t = \tanh\Big(\sum_{k=0}^{K_l} W^l_k h^{l-1}_{t-k} + b^l\Big), \qquad h^0 = x

    Args:
        inputs: features of x.
        hidden: units of a layer.
        delays: :math:`K_l` of each layer, >= 0.
        dropout: between layers, in training.

    Shapes:
        x: (batch, time, inputs); result: (batch, time, hidden), and None, as a layer has it.

    Source: Waibel et al. 1989, as the cell `tdnn`.
    """

    def __init__(self, inputs: int, hidden: int, delays: Sequence[int], dropout: float = 0.0):
        super().__init__()
        self.delays, self.dropout, self.hidden_size = tuple(delays), dropout, hidden
        self.layers = nn.ModuleList(
            Recurrent(
                elman.cells.get("tdnn").with_hyper(K=most), inputs if i == 0 else hidden, hidden,
                batch_first=True,
            )
            for i, most in enumerate(delays)
        )  # fmt: skip

    @property
    def reach(self) -> int:
        """Steps that the last output depends on."""
        return 1 + sum(self.delays)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Return the last layer's output at every step."""
        for i, layer in enumerate(self.layers):
            x = functional.dropout(x, self.dropout, self.training) if i else x
            x = layer(x)[0]
        return x, None


class DelayForecaster(RecurrentForecaster):
    """A delay network over the lags, with the head and the linear path of `RecurrentForecaster`.

    Args:
        sizes: covariates and outputs.
        delays: of each layer.
        lags, horizon: L >= 1 + the sum of all delays, and H.
        hidden: units of a layer.
        dropout: on what the layers tell, in training.
        features: of the linear path; None is none.
        anchor: whether values are read and told relative to the last.
    """

    def __init__(
        self,
        sizes: Sizes,
        delays: Sequence[int],
        *,
        lags: int,
        horizon: int,
        hidden: int,
        dropout: float,
        features: Features | None,
        anchor: bool,
    ):
        super().__init__(
            elman.cells.get("tdnn"),
            sizes,
            lags=lags,
            horizon=horizon,
            hidden=hidden,
            layers=1,
            dropout=dropout,
            features=features,
            anchor=anchor,
        )
        inputs = 1 + sizes.past + sizes.future
        self.delays = tuple(delays)
        # in the place of the one recurrent layer
        self.add_module("layer", Delays(inputs, hidden, delays, dropout))

    def describe(self) -> str:
        """Say what it is made of."""
        delays = ", ".join(f"0 to {k}" for k in self.delays)
        parts = [
            f"{len(self.delays)} layer(s) of {self.layer.hidden_size} units with delays {delays}, "
            f"{1 + sum(self.delays)} steps in all, and a dense head for all {self.horizon} steps "
            "ahead at once"
        ]
        if self.features is not None:
            parts.append(
                f"a linear path from {self.lags} steps beside it, begun by ridge regression"
            )
        if self.anchor:
            parts.append("values read and told relative to the last")
        return "; ".join(parts)


def read_delays(text: str) -> tuple[int, ...]:
    """Return the delays of each layer, as a user wrote them.

    Raises:
        InputError: no whole numbers >= 0.

    Example:
        >>> read_delays("2, 3")
        (2, 3)
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 0:
        raise InputError(
            f"forecast: delays is {text!r}; expected a whole number for each layer, such as 2,3."
        )
    return found


def settle(options: ForecastOptions, data: Data, budget: Budget) -> dict[str, Any]:
    """Choose delays and sizes.

    Raises:
        InputError: delays that are none, or a cell, which this network has of its own.
    """
    if options.cell is not None or options.hyper or options.layers is not None:
        raise InputError(
            "forecast: the layers of tdnn are those of delays, as in 2,3, and its cell is tdnn; "
            "leave cell, hyper and layers out."
        )
    lags = lengths.lags(options, data)
    if options.delays is None:
        first = min(_MOST_DELAYS, -(-(lags - 1) // 2))
        delays: tuple[int, ...] = (first, min(_MOST_DELAYS, lags - 1 - first))
    else:
        delays = read_delays(options.delays)
        lags = max(lags if options.lags in (None, "auto") else 1, 1 + sum(delays))
    rows = sum(len(s) for s in data.train)
    return {
        "lags": str(lags),
        "delays": ",".join(map(str, delays)),
        "hidden": options.hidden or (16 if rows < 2000 else 32),
        "dropout": 0.2 if options.dropout is None else options.dropout,
        "linear": True if options.linear is None else options.linear,
    }


def make(options: ForecastOptions, sizes: Sizes) -> DelayForecaster:
    """Make the network of settled options."""
    lags, horizon = int(options.lags or 1), options.horizon or 1
    features = Features.of(lags, horizon, sizes.past, sizes.future, bool(options.anchor))
    return DelayForecaster(
        sizes,
        read_delays(options.delays or "0"),
        lags=lags,
        horizon=horizon,
        hidden=options.hidden or 1,
        dropout=options.dropout or 0.0,
        features=features if options.linear else None,
        anchor=bool(options.anchor),
    )
