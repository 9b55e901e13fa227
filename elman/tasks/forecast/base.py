"""What a network that forecasts is: windows in, the next values out, behind one small protocol.

A kind of network is a module of this folder, named in `KINDS`, with two functions::

    settle(options: ForecastOptions, data: Data, budget: Budget) -> dict
        the options of its own that were left open, chosen from the training data
        (`elman.tasks.forecast.series.Data`); they become part of the configuration, so that
        settled options are settled again to themselves (lags, hidden, cell, ...)
    make(options: ForecastOptions, sizes: Sizes) -> Forecaster
        the network, of resolved options alone; called again when a model file is read
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor, nn

if TYPE_CHECKING:
    from elman.tasks.forecast.linear import Ridge

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "narx": "elman.tasks.forecast.narx",
        "tdnn": "elman.tasks.forecast.delay_network",
        "recurrent": "elman.tasks.forecast.recurrent",
        "encoder_decoder": "elman.tasks.forecast.encoder_decoder",
    }
)


class Window(NamedTuple):
    r"""A batch of pieces of series, everything scaled as in training; no value is NaN.

    With the origin t the last step whose y is known, L lags and H steps to tell:

    Attributes:
        y: (batch, L), the target at t−L+1 … t; holes are filled (see `elman.tasks.forecast.grid`).
        past: (batch, L, P), covariates known up to the origin, at the same steps.
        future: (batch, L + H, F), covariates known ahead, at t−L+1 … t+H. An input of a system that
            acts at once (u_t on y_t) is one of these.
        target: (batch, H), the target at t+1 … t+H, 0 where it is missing; not read by `forward`.
        observed: (batch, H), truth values: what of `target` is scored and learned from.
    """

    y: Tensor
    past: Tensor
    future: Tensor
    target: Tensor
    observed: Tensor


@dataclass(frozen=True)
class Sizes:
    """What a network must fit.

    Args:
        past: P, number of covariates known up to the origin.
        future: F, number of covariates known ahead.
        outputs: numbers told of a step: 1 a point, 2 mean and log deviation, or one a quantile.
    """

    past: int
    future: int
    outputs: int


class Forecaster(nn.Module, abc.ABC):
    """A network that reads windows and tells the steps behind them.

    Attributes:
        lags: L, steps it reads, >= 1; set by the constructor.
        any_length: whether `forward` can tell more or fewer steps than it was trained for, as many
            as ``window.target.shape[1]``; such a network is also measured one step ahead and,
            where all covariates are known ahead, in free run over a whole file.
        judged_in_free_run: whether the best weights are those with the least "free_run_rmse", over
            the whole validation part from its first `lags` values, and not over windows of the
            horizon; needs `any_length`.
    """

    any_length: ClassVar[bool] = False
    judged_in_free_run: bool = False
    lags: int

    def training_steps(self, horizon: int) -> int:
        """Return H of the windows to be trained on, where it is not the horizon itself."""
        return horizon

    def beginning_steps(self, horizon: int) -> int:
        """Return H of the windows that `begin` is given."""
        return self.training_steps(horizon)

    def begin(self, windows: Window) -> None:
        """Set weights from the data before training, such as a linear path by least squares.

        Called once on a new network, with all training windows (or, of very many, a part) of
        `beginning_steps`.
        """

    def take_linear(self, ridge: Ridge) -> None:
        """Begin a linear path as a direct ridge regression on the lags, where there is one.

        Called once on a new network, before `begin`.
        """

    def take_step(self, ridge: Ridge) -> None:
        """Begin a linear path that is used step after step as a ridge regression one step ahead.

        Called once on a new network of `any_length`, before `begin`.
        """

    def take_spread(self, spread: Tensor) -> None:
        """Begin what is told besides the middle, (H, outputs), at what fits errors of a ridge
        regression on the validation part; of `Output.begin`. Called once on a new network.
        """

    @abc.abstractmethod
    def forward(self, window: Window) -> Tensor:
        """Return (batch, H, outputs) in free run: of the target nothing behind the origin is read.

        H is ``window.target.shape[1]`` where `any_length`, else the horizon.
        """

    def learned(self, window: Window) -> Tensor:
        """Return what the loss is taken of, shaped as of `forward`, in training mode.

        A network that is shown the measured values between (series-parallel, teacher forcing)
        reads them here, from ``window.target``.
        """
        return self(window)

    @abc.abstractmethod
    def describe(self) -> str:
        """Say in one line what the network is made of."""

    def recommended(self) -> dict[str, Any]:
        """Return training options that suit this network, by the names of TrainingOptions."""
        return {}
