"""The linear model of a system, by least squares: y from its last values and from its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.errors import FileError, InputError
from elman.tasks.forecast.base import Window
from elman.tasks.forecast.free_run import bounded, inputs_of
from elman.tasks.forecast.lags import Order, table
from elman.tasks.forecast.series import Series


@dataclass(frozen=True)
class Arx:
    r"""A linear autoregressive model with outside inputs (ARX).

    .. math::

        \hat y_t = \sum_{k=1}^{n_a} a_k y_{t-k} + \sum_{k=n_k}^{n_k+n_b-1} b_k^\top u_{t-k} + d

    One step ahead the measured y stand on the right, in free run its own.

    Args:
        order: of the delays.
        weights: a, then b delay by delay, then d; (order.count(inputs) + 1,), float64.
    """

    order: Order
    weights: Tensor

    @property
    def name(self) -> str:
        """What it is called among the simple forecasts."""
        o = self.order
        if not o.inputs:
            return f"linear AR({o.outputs})"
        return f"linear ARX ({o.outputs}, {o.inputs}, {o.dead})"

    def tell(self, window: Window) -> Tensor:
        """Return the steps behind the origin in free run, (batch, H); of H = 1 it is one step.

        The window must reach back over ``order.reach`` steps.
        """
        order, steps, told = self.order, window.y.shape[1], window.target.shape[1]
        weights = self.weights.to(window.y)
        u = inputs_of(window)
        driven = weights[-1].expand(len(u), told)
        if order.inputs:
            own = weights[order.outputs : -1].view(order.inputs, -1)
            for j, k in enumerate(range(order.dead, order.dead + order.inputs)):
                driven = driven + u[:, steps - k : steps - k + told] @ own[j]
        back = weights[: order.outputs].flip(0)
        first = steps - order.outputs
        y = torch.cat([window.y[:, first:], torch.zeros_like(driven)], 1)
        for t in range(told):
            past = y[:, t : t + order.outputs]
            y[:, t + order.outputs] = past @ back + driven[:, t]
        return bounded(y[:, order.outputs :])

    def to_file(self) -> tuple[dict[str, Any], Tensor]:
        """Return plain values and the weights."""
        return {"order": str(self.order)}, self.weights

    @classmethod
    def from_file(cls, notes: Mapping[str, Any], weights: Tensor, where: str) -> Arx:
        """Return what `to_file` wrote.

        Raises:
            FileError: it did not.
        """
        try:
            order = Order(*(int(part) for part in str(notes["order"]).split(",")))
            if min(order.outputs, order.inputs, order.dead) < 0 or weights.ndim != 1:
                raise ValueError
            extra = len(weights) - 1 - order.outputs
            if extra < 0 or (extra % order.inputs if order.inputs else extra):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise FileError(f"{where}: the linear model in it cannot be read.") from None
        return cls(order, weights)


def fit_arx(series: Sequence[Series], order: Order) -> Arx:
    """Fit a linear model to one step ahead by least squares.

    Args:
        series: the training part, scaled; rows with missing values are left out.
        order: of the delays.

    Raises:
        InputError: no row has all its values.

    Example:
        >>> import numpy as np
        >>> y = 1 + 0.5 ** np.arange(12.0)
        >>> none = np.zeros((12, 0))
        >>> fit_arx([Series("y", 0, y, none, none)], Order(1)).weights.round(decimals=6)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    read, told = table(series, order)
    if not len(told):
        raise InputError(
            f"forecast: no step of the training part has all {order.reach} steps before it; give "
            "more data, or fewer lags."
        )
    rows = np.column_stack([read, np.ones(len(told))])
    found = np.linalg.lstsq(rows, told, rcond=None)[0]
    return Arx(order, torch.from_numpy(found))
