"""NARX: the next output of the last outputs and inputs, trained on measured or own outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import elman.cells
from elman.equation import cell, delay
from elman.errors import InputError
from elman.layers import Recurrent
from elman.tasks.base import Budget
from elman.tasks.forecast import lags
from elman.tasks.forecast.base import Forecaster, Sizes, Window
from elman.tasks.forecast.free_run import bounded, closed_loop
from elman.tasks.forecast.identify_open import fit_open
from elman.tasks.forecast.lags import Order
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.series import Data

_MANY = 2000  # rows of training from which data are plenty
_LONG, _PART = 200, 3  # steps of a window in closed loop, at most, and parts of the rows at least
_FEW_EPOCHS, _POLISH, _MOST_STEPS = 300.0, 20.0, 100_000
_PACE = 10.0  # by which the width of intervals learns faster than the weights
_START = 0.25  # deviation of what goes into a hidden unit, where the data have deviation 1


@cell(family="delay", sizes={"y": "output"})
def narx_beside_arx(p, x, y, *, first=0, Kx=2, Ky=2, f=torch.tanh):
    """NARX whose hidden units add what a linear model leaves.

        ℓₜ = Σₖ B_k xₜ₋ₖ + Σₖ A_k yₜ₋ₖ + d,    k = first … Kx for x, 1 … Ky for y
        aₜ = Σₖ W_k xₜ₋ₖ + Σₖ U_k yₜ₋ₖ + b
        yₜ = ℓₜ + V (aₜ − f(aₜ))

    With f = tanh a unit is a³/3 for small a, so that the linear part is ℓ's, and goes on straight
    for large a: beyond the data the network comes close to a linear one.

    Source: Lin, Horne, Tiňo & Giles 1996 as the cell `narx`; the linear path and the unit a − f(a)
    are ours.
    """
    a, ell = p.b, p.d
    for k in range(first, Kx + 1):
        a = a + p["W", k] @ delay(x, k)
        ell = ell + p["B", k] @ delay(x, k)
    for k in range(1, Ky + 1):
        a = a + p["U", k] @ delay(y, k)
        ell = ell + p["A", k] @ delay(y, k)
    return ell + p.V @ (a - f(a))


class Narx(Forecaster):
    """A cell of delays whose state is the forecast itself, fed with measured or own values.

    Args:
        order: of the delays.
        sizes: covariates, all of them inputs, and outputs.
        hidden: units.
        linear: whether a linear path stands beside the units (`narx_beside_arx`); if not it is the
            catalogue's `narx`.
        training: "open", "closed" or "closed-after-open".
        window: steps of a training window in closed loop.
        horizon: steps that are told.

    Source: series-parallel (open) and parallel (closed) training as in Narendra & Parthasarathy
    1990, "Identification and control of dynamical systems using neural networks".
    """

    any_length = True

    def __init__(
        self,
        order: Order,
        sizes: Sizes,
        *,
        hidden: int,
        linear: bool,
        training: str,
        window: int,
        horizon: int,
    ):
        super().__init__()
        self.order, self.linear, self.training_mode = order, linear, training
        self.lags, self.inputs = order.reach, sizes.past + sizes.future
        self.window = 1 if training == "open" else max(window, horizon)
        self.judged_in_free_run = bool(
            training != "open" and sizes.future and not sizes.past and self.window >= _LONG
        )
        last = order.dead + order.inputs - 1
        if linear:
            own = narx_beside_arx.with_hyper(first=order.dead, Kx=last, Ky=order.outputs)
        else:
            own = elman.cells.get("narx").with_hyper(Kx=max(last, 0), Ky=order.outputs)
        self.layer = Recurrent(
            own, max(self.inputs, 1), hidden, sizes={"output": 1}, batch_first=True
        )
        if linear:
            self._start(hidden)
        self._rows = _MANY  # of training; `begin` knows
        if sizes.outputs > 1:
            self.spread = nn.Parameter(torch.zeros(self.window, sizes.outputs - 1))

    def _start(self, hidden: int) -> None:
        """Draw the weights into the units; they add nothing yet."""
        size = _START / max(self.order.count(self.inputs), 1) ** 0.5
        with torch.no_grad():
            for name, weight in self.layer.named_parameters():
                if name[0] in "WU":
                    weight.normal_(std=size)
                elif name[0] == "b":
                    weight.normal_(std=_START)
                else:
                    weight.zero_()

    def weight(self, name: str) -> Tensor:
        """Return a weight of the cell by the equation's name, such as "A_1"."""
        return getattr(self.layer, f"{name}_l0")

    def training_steps(self, horizon: int) -> int:
        """Return the steps of a training window: one in open loop."""
        return self.window

    def take_spread(self, spread: Tensor) -> None:
        """Begin intervals as wide as the errors of ridge regression; beyond them as the last."""
        if hasattr(self, "spread"):
            at = torch.arange(len(self.spread)).clamp(max=len(spread) - 1)
            with torch.no_grad():
                self.spread.copy_(spread[at, 1:] / _PACE)

    def beginning_steps(self, horizon: int) -> int:
        """Return 1: the linear path and the open loop are fitted to one step."""
        return 1

    def begin(self, windows: Window) -> None:
        """Set the linear path by least squares, and fit all of it in open loop if that is asked."""
        self._rows = len(windows.y)
        if self.linear:
            self._take_least_squares(windows)
        if self.training_mode != "closed":
            fit_open(self, windows)

    def _take_least_squares(self, windows: Window) -> None:
        read, told = self.rows(windows)
        ones = torch.ones(len(read), 1, dtype=read.dtype)
        rows = torch.cat([read, ones], 1)
        found = torch.linalg.lstsq(rows, told[:, None], driver="gelsd").solution[:, 0]
        path = len(read.T)
        theta = self.as_vector()
        theta[-path:], theta[-path - 1] = found[:path], found[path]
        self.take_vector(theta)

    def _places(self) -> list[list[Tensor]]:
        """The weights in the order of `OpenLoop`; those that stand side by side in one list."""
        delays = [("U", "A", k) for k in range(1, self.order.outputs + 1)]
        delays += [("W", "B", k) for k in self.taps]
        into = [self.weight(f"{name}_{k}") for name, _, k in delays]
        path = [self.weight(f"{name}_{k}") for _, name, k in delays] if self.linear else []
        rest = [[self.weight(name)] for name in ("b", "V", "d")]
        return [into, *rest, *([path] if path else [])]

    def as_vector(self) -> Tensor:
        """Return the weights as one vector in the order of `OpenLoop`, in float64."""
        parts = [
            torch.cat([w.detach().double().reshape(len(w), -1) for w in side], 1).flatten()
            for side in self._places()
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def take_vector(self, theta: Tensor) -> None:
        """Set the weights from such a vector."""
        first = 0
        for side in self._places():
            rows = len(side[0])
            width = sum(weight.numel() for weight in side) // rows
            block = theta[first : first + rows * width].view(rows, width)
            widths = [weight.numel() // rows for weight in side]
            for weight, part in zip(side, block.split(widths, 1), strict=True):
                weight.copy_(part.view(weight.shape))
            first += rows * width

    @property
    def taps(self) -> range:
        """The delays of the inputs that are read."""
        return range(self.order.dead, self.order.dead + self.order.inputs)

    def rows(self, windows: Window) -> tuple[Tensor, Tensor]:
        """Return what is read for the first step of windows, and that step, in float64.

        Shapes:
            (rows, order.count(inputs)), with the delays of y first, then input by delay; (rows,).
        """
        steps = windows.y.shape[1]
        u = torch.cat([windows.past, windows.past[:, -1:]], 1)
        u = torch.cat([u, windows.future[:, : steps + 1]], 2)
        delays = [windows.y[:, steps - k, None] for k in range(1, self.order.outputs + 1)]
        delays += [u[:, steps - k] for k in self.taps]
        seen = windows.observed[:, 0]
        return torch.cat(delays, 1)[seen].double(), windows.target[seen, 0].double()

    def forward(self, window: Window) -> Tensor:
        """Return (batch, H, outputs) in free run; of H = 1 it is one step ahead.

        Where nothing is learned, a run that leaves all bounds is told as ±10⁶ deviations.
        """
        told = closed_loop(self.layer, window)[..., None]
        told = told if self.training else bounded(told)
        if not hasattr(self, "spread"):
            return told
        at = torch.arange(told.shape[1], device=told.device).clamp(max=len(self.spread) - 1)
        return torch.cat([told, (_PACE * self.spread[at]).expand(len(told), -1, -1)], 2)

    def describe(self) -> str:
        """Say what it is made of."""
        o, hidden = self.order, self.layer.hidden_size
        read = [f"y at delays 1 to {o.outputs}"] if o.outputs else []
        if self.inputs and o.inputs:
            last = self.taps[-1]
            at = f"delay {o.dead}" if o.inputs == 1 else f"delays {o.dead} to {last}"
            read.append(f"{self.inputs} input(s) at {at}")
        units = f"{hidden} units a − tanh a" if self.linear else f"{hidden} units tanh a"
        beside = " beside a linear path that begins as least squares" if self.linear else ""
        how = "open loop (series-parallel: measured values fed), begun by Levenberg–Marquardt"
        if self.training_mode != "open":
            first = "open loop by Levenberg–Marquardt, then in " * (self.training_mode != "closed")
            how = (
                f"{first}closed loop (parallel: its own values fed), through {self.window} steps "
                "from measured ones"
            )
        return f"{' and '.join(read)}; {units}{beside}; trained in {how}"

    def recommended(self) -> dict[str, Any]:
        """Return training options."""
        chosen: dict[str, Any] = {
            "optimizer": "adam", "lr": 3e-3, "schedule": "cosine", "warmup": 0.01,
            "clip_norm": 1.0, "precision": "64",
        }  # fmt: skip
        if self._rows < _MANY and self.training_mode == "open":  # it is fitted already
            return chosen | {"lr": 1e-4, "epochs": _POLISH, "validate_every": 5}
        if self._rows < _MANY:  # more steps only learn the noise
            return chosen | {"lr": 2e-3, "epochs": _FEW_EPOCHS, "validate_every": 20}
        return chosen | {"epochs": float(_MOST_STEPS * 64 // self._rows + 1)}


def settle(options: ForecastOptions, data: Data, budget: Budget) -> dict[str, Any]:
    """Choose lags by an information criterion on linear models, units, and how to train.

    Raises:
        InputError: lags that are none, or options that do not go together.
    """
    if options.cell is not None or options.hyper:
        raise InputError(
            "forecast: narx is an equation of its own, so cell and hyper are not for it; with "
            "linear false it is the catalogue's cell narx."
        )
    inputs = data.train[0].past.shape[1] + data.train[0].future.shape[1]
    given = options.lags not in (None, "auto")
    order = (
        Order.read(str(options.lags), inputs)
        if given
        else lags.choose(data.train, season=data.season).order
    )
    if not order.outputs:
        raise InputError(
            f"forecast: lags {order} reads no past value of the target, so there is nothing to "
            "feed back; use tdnn for a network of the inputs alone."
        )
    linear = True if options.linear is None else options.linear
    if not linear and order.dead:  # the catalogue's cell reads every input from delay 0
        order = Order(order.outputs, order.inputs + order.dead)
    horizon, rows = options.horizon or 1, sum(len(s) for s in data.train)
    training = options.training or ("closed" if inputs or horizon > 1 else "open")
    if training == "open" and options.output != "point" and horizon > 1:
        raise InputError(
            f"forecast: trained in open loop it knows only how sure one step is, and the horizon "
            f"is {horizon}; with output {options.output} train it closed."
        )
    many = rows >= _MANY
    # what nothing known ahead drives is not told beyond the horizon
    driven = data.train[0].future.shape[1] and not data.train[0].past.shape[1]
    chosen = {
        "lags": str(order),
        "hidden": options.hidden or (16 if many else 4 if training == "open" else 8),
        "linear": linear,
        "training": training,
        "window": options.window or (min(_LONG, max(rows // _PART, 1)) if driven else horizon),
    }
    if options.windows is None:
        chosen["windows"] = (1024 if training == "open" else 64) if many else 256
    return chosen


def make(options: ForecastOptions, sizes: Sizes) -> Narx:
    """Make the network of settled options."""
    return Narx(
        Order.read(options.lags or "1", sizes.past + sizes.future),
        sizes,
        hidden=options.hidden or 1,
        linear=bool(options.linear),
        training=options.training or "open",
        window=options.window or 1,
        horizon=options.horizon or 1,
    )
