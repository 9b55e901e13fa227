"""The encoder-decoder: one layer reads the window, a second tells step after step from its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import elman.cells
from elman.equation import Cell
from elman.errors import InputError
from elman.layers import Recurrent
from elman.tasks.base import Budget
from elman.tasks.forecast import lengths
from elman.tasks.forecast.base import Forecaster, Sizes, Window
from elman.tasks.forecast.linear import Features, Ridge
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.series import Data


class EncoderDecoder(Forecaster):
    r"""Two recurrent layers: what the first has read is the state that the second begins with.

    With :math:`b = y_t` where windows are read relative to their last value (else 0):

    .. math::

        s_t = \mathrm{encoder}(x_{t-L+1}, …, x_t), \qquad x_k = (y_k - b,\; past_k,\; future_k)

        s_{t+h} = \mathrm{decoder}\big(s_{t+h-1},\; (\hat y_{t+h-1} - b,\; 0,\;
        future_{t+h})\big), \qquad \hat y_{t+h} = b_h + w^\top u_{t+h} + A s_{t+h} + d

    with :math:`\hat y_t = y_t`; :math:`b_h` is the value before, :math:`\hat y_{t+h-1}` (0 where
    windows are not read relative to their last value), and :math:`u_{t+h}` the L values before and
    what is known ahead at these steps and at t+h: a linear path. Each step is fed what was told of
    the step before (in free run). In training, windows drawn with the probability `teacher_forcing`
    are fed what was measured.

    Args:
        cell: of both layers.
        sizes: covariates and outputs.
        lags: L.
        hidden, layers: of each.
        dropout: on the decoder's output, in training.
        anchor: whether b is the last value.
        teacher_forcing: in [0, 1].
        linear: whether there is the linear path, w.

    Source: Sutskever, Vinyals & Le 2014; teacher forcing, Williams & Zipser 1989.
    """

    any_length = True

    def __init__(
        self,
        cell: Cell,
        sizes: Sizes,
        *,
        lags: int,
        hidden: int,
        layers: int,
        dropout: float,
        anchor: bool,
        teacher_forcing: float,
        linear: bool,
    ):
        super().__init__()
        self.lags, self.anchor, self.dropout = lags, anchor, dropout
        self.teacher_forcing = teacher_forcing
        inputs = 1 + sizes.past + sizes.future
        self.encoder = Recurrent(cell, inputs, hidden, num_layers=layers, batch_first=True)
        self.decoder = Recurrent(cell, inputs, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, sizes.outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.features = Features.of(lags, 1, 0, sizes.future, anchor) if linear else None
        if self.features is not None:
            self.linear = nn.Linear(self.features.count(1, 0, sizes.future), 1)
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    @property
    def _features(self) -> Features:
        if self.features is None:
            raise InputError("forecast: this encoder-decoder has no linear path.")
        return self.features

    def take_step(self, ridge: Ridge) -> None:
        """Begin the linear path as a ridge regression."""
        if self.features is not None:
            with torch.no_grad():
                self.linear.weight.copy_(ridge.weights.T)
                self.linear.bias.copy_(ridge.bias)

    def take_spread(self, spread: Tensor) -> None:
        """Begin intervals at those of the middle of the horizon."""
        with torch.no_grad():
            self.head.bias.copy_(spread[len(spread) // 2])

    def forward(self, window: Window) -> Tensor:
        """Return (batch, H, outputs) in free run."""
        return self._run(window, None, None)

    def learned(self, window: Window) -> Tensor:
        """Return what is learned of: in free run, or with measured values fed."""
        if not self.teacher_forcing:
            return self(window)
        # what was not measured cannot be fed: the value before it stands for it
        measured = _held(window)
        if self.teacher_forcing >= 1:
            state, last = self._read(window)
            before = torch.cat([window.y, measured[:, :-1]], 1)
            return self._tell(window, slice(None), before, last, state)[0]
        forced = torch.rand(len(measured), 1, device=measured.device) < self.teacher_forcing
        return self._run(window, measured, forced)

    def _run(self, window: Window, measured: Tensor | None, forced: Tensor | None) -> Tensor:
        """Tell step after step; where `forced`, (batch, 1), what was measured is fed."""
        state, last = self._read(window)
        before, told = window.y, []
        for step in range(window.target.shape[1]):
            out, state = self._tell(window, slice(step, step + 1), before, last, state)
            told.append(out)
            fed = out[:, :, 0]
            if measured is not None and forced is not None:
                fed = torch.where(forced, measured[:, step : step + 1], fed)
            before = torch.cat([before[:, 1:], fed], 1)
        return torch.cat(told, 1)

    def _read(self, window: Window) -> tuple[Any, Tensor]:
        last = window.y[:, -1:] if self.anchor else torch.zeros_like(window.y[:, -1:])
        y = (window.y - last)[..., None]
        read = torch.cat([y, window.past, window.future[:, : self.lags]], 2)
        return self.encoder(read)[1], last

    def _tell(
        self, window: Window, steps: slice, before: Tensor, last: Tensor, state: Any
    ) -> tuple[Tensor, Any]:
        """Tell some steps at once, from the values before them, (batch, L − 1 + steps)."""
        fed = before[:, self.lags - 1 :]
        ahead = window.future[:, self.lags :][:, steps]
        unknown = fed.new_zeros(*fed.shape, window.past.shape[2])
        x = torch.cat([(fed - last)[..., None], unknown, ahead], 2)
        out, state = self.decoder(x, state)
        told = self.head(functional.dropout(out, self.dropout, self.training))
        middle = told[..., 0]
        if self.anchor:
            middle = middle + fed
        if self.features is not None:
            middle = middle + self._linear(window, steps, before)
        return torch.cat([middle[..., None], told[..., 1:]], 2), state

    def _linear(self, window: Window, steps: slice, before: Tensor) -> Tensor:
        """The linear path of some steps, (batch, steps)."""
        y = before.unfold(1, self.lags, 1)
        first = steps.start or 0
        end = first + self.lags + y.shape[1]
        future = window.future[:, first:end].unfold(1, self.lags + 1, 1).transpose(2, 3)
        pieces = (y.flatten(0, 1), window.past.new_zeros(y.shape[0] * y.shape[1], self.lags, 0),
                  future.flatten(0, 1))  # fmt: skip
        none = pieces[0][:, :0]
        read = self._features.read(Window(*pieces, none, none.bool()))
        return self.linear(read).view(y.shape[:2])

    def describe(self) -> str:
        """Say what it is made of."""
        layer = self.encoder
        forced = f", {self.teacher_forcing:.0%} of the windows fed measured values in training"
        linear = "" if self.features is None else "; a linear path from the lags beside it"
        return (
            f"an encoder of {layer.num_layers} layer(s) of {layer.hidden_size} {layer.cell.name} "
            f"units over {self.lags} steps, and a decoder of the same size that is fed its own "
            f"last value{forced if self.teacher_forcing else ''}{linear}"
        )

    def recommended(self) -> dict[str, Any]:
        """Return training options."""
        return {
            "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1, "schedule": "cosine",
            "warmup": 0.05, "clip_norm": 1.0, "ema": 0.05, "precision": "32",
        }  # fmt: skip


def _held(window: Window) -> Tensor:
    """The measured target, a hole filled with the value before it."""
    steps = torch.arange(window.target.shape[1], device=window.target.device)
    last = torch.where(window.observed, steps, -1).cummax(1).values
    measured = window.target.gather(1, last.clamp(min=0))
    return torch.where(last < 0, window.y[:, -1:], measured)


def settle(options: ForecastOptions, data: Data, budget: Budget) -> dict[str, Any]:
    """Choose lags and sizes."""
    steps = sum(len(s) for s in data.train)
    return {
        "lags": str(lengths.lags(options, data)),
        "cell": options.cell or "lstm",
        "hidden": options.hidden or (16 if steps < 1000 else 32),
        "layers": options.layers or 1,
        "dropout": 0.0 if options.dropout is None else options.dropout,
        "linear": True if options.linear is None else options.linear,
    }


def make(options: ForecastOptions, sizes: Sizes) -> EncoderDecoder:
    """Make the network of settled options."""
    given = options.cell or "lstm"
    cell = Cell.from_json(given) if isinstance(given, dict) else elman.cells.get(given)
    return EncoderDecoder(
        cell.with_hyper(**options.hyper),
        sizes,
        lags=int(options.lags or 1),
        hidden=options.hidden or 1,
        layers=options.layers or 1,
        dropout=options.dropout or 0.0,
        anchor=bool(options.anchor),
        teacher_forcing=options.teacher_forcing,
        linear=bool(options.linear),
    )
