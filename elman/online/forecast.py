"""Forecasting a column of numbers: what a row becomes for the network, and its answer for us."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import nn

from elman.equation import Cell
from elman.errors import InputError
from elman.layers import Recurrent
from elman.learning import BPTT, RTRL
from elman.learning.space import in_words
from elman.online.learner import OnlineLearner
from elman.online.running import Mean, Moments
from elman.tasks.base import TaskOptions

_MOST = 10.0  # deviations: a spike must not drive every unit into saturation
_WINDOW = 16  # of truncated learning, where none is given


class ForecastOptions(TaskOptions):
    """How a column is forecast.

    Args:
        horizon: rows ahead, >= 1.
        cell: a cell's name, or a Cell.
        hidden: units of a layer, >= 1.
        layers: recurrent layers, >= 1.
        learning: "rtrl" (exact), its approximations "snap1", "rflo" and "uoro", or "truncated".
        window: rows learned from at a time, >= 1; 1 if not given, 16 where truncated.
        lr: learning rate of Adam, > 0.
        clip: longest gradient allowed, > 0.
        loss: "mse" or "huber".
        span: rows that the recent error is over, >= 1.
        seed: of the weights and of every random number, >= 0.
    """

    horizon: int = Field(1, ge=1, le=100_000)
    cell: str | Cell = "lstm"
    hidden: int = Field(32, ge=1)
    layers: int = Field(1, ge=1)
    learning: Literal["rtrl", "snap1", "rflo", "uoro", "truncated"] = "rtrl"
    window: int | None = Field(None, ge=1)
    lr: float = Field(3e-3, gt=0)
    clip: float = Field(1.0, gt=0)
    loss: Literal["mse", "huber"] = "mse"
    span: int = Field(1000, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)

    def method(self) -> BPTT:
        """The learning method."""
        if self.learning == "truncated":
            return BPTT(window=self.window or _WINDOW)
        carry = "exact" if self.learning == "rtrl" else self.learning
        return RTRL(carry) if self.window is None else BPTT(window=self.window, carry=carry)


class Forecast(NamedTuple):
    """What is known after a row; None where it is not known yet.

    Attributes:
        target: the row's value of the column, None where it is missing.
        prediction: of it, as it was made `horizon` rows before.
        next: the prediction made now, for the row `horizon` rows on.
        error: root mean squared error of the predictions, recently.
        nmse: mean squared error of all predictions over the variance of their targets.
        persistence_error, persistence_nmse: of the baseline, which says that the value stays.
    """

    target: float | None
    prediction: float | None
    next: float | None
    error: float | None
    nmse: float | None
    persistence_error: float | None
    persistence_nmse: float | None


class _Made(NamedTuple):
    """A prediction that waits for its target: the value then, and what the network's unit was."""

    prediction: float | None
    value: float | None
    unit: float


class Forecaster:
    r"""Forecasts the first column of rows, and learns from each row that comes.

    The network is given each column in deviations from its mean so far, and the last change of the
    first column. It answers with the change to come, in units of the changes so far:

    .. math::

        \hat y_{t+h} = y_t + u_t\, V(s_t), \qquad
        u_t^2 = \frac{1}{n}\sum_{k \le t} (y_k - y_{k-h})^2

    u is the error of the baseline, persistence, up to then, and the readout V begins at zero: at
    first the network is the baseline. It learns $(y_{t+h} - y_t)/u_t$ when $y_{t+h}$ comes. Nothing
    is ever taken from rows to come. A value that is missing stays the last one, and is neither
    learned nor counted.

    Args:
        columns: number of columns, the one to forecast first, >= 1.
        options: how.

    Attributes:
        learner: the network that learns.
        rows: rows so far.
        missing: values that were missing.
        squares, persistence: mean squared errors of the network and of the baseline.

    Raises:
        InputError: options that cannot be used.

    Example:
        >>> import math
        >>> forecaster = Forecaster(1, ForecastOptions(hidden=8, cell="gru", lr=0.01))
        >>> for t in range(600):
        ...     row = forecaster.step((20 + 3 * math.sin(t / 3),))
        >>> row.error < 0.5 * row.persistence_error
        True

    Source: persistence as the measure of a forecast: Theil 1966 (the coefficient U).
    """

    def __init__(self, columns: int, options: ForecastOptions):
        torch.manual_seed(options.seed)
        model = Recurrent(
            options.cell,
            columns + 1,
            options.hidden,
            options.layers,
            learning=options.method(),
        )
        readout = nn.Linear(model.output_size, 1)
        nn.init.zeros_(readout.weight)
        nn.init.zeros_(readout.bias)
        self.options, self._weight = options, model.learning_bytes(1)
        self.learner = OnlineLearner(
            model,
            readout,
            loss=options.loss,
            lr=options.lr,
            clip=options.clip,
            delay=options.horizon,
        )
        self.rows = self.missing = 0
        self._moments = [Moments() for _ in range(columns)]
        self._last: list[float | None] = [None] * columns
        self._steps = Mean(options.span)  # squares of changes from row to row
        self._made: deque[_Made] = deque()
        self._targets = Moments()
        self.squares, self.persistence = Mean(options.span), Mean(options.span)

    def step(self, values: Sequence[float | None]) -> Forecast:
        """Take in a row, learn from it, and predict.

        Args:
            values: of the columns; None where missing.
        """
        due = self._made.popleft() if len(self._made) == self.options.horizon else None
        target = values[0]
        learned = self._judge(due, target)
        out = float(self.learner.step(self._input(values), learned))
        if not math.isfinite(out):
            out = 0.0  # the learner begins anew when it learns from this
        value, unit = self._last[0], math.sqrt(self.persistence.overall)
        ahead = None if value is None else value + unit * out
        self._made.append(_Made(ahead, value, unit))
        self.rows += 1
        return Forecast(
            target,
            None if due is None else due.prediction,
            ahead,
            _root(self.squares),
            self._nmse(self.squares),
            _root(self.persistence),
            self._nmse(self.persistence),
        )

    def _judge(self, due: _Made | None, target: float | None) -> list[float] | None:
        """Count the errors of what was predicted for this row; what the network learns from it."""
        if due is None or due.value is None or due.prediction is None or target is None:
            return None
        change = target - due.value
        self._targets.take(target)
        self.squares.take((target - due.prediction) ** 2)
        self.persistence.take(change**2)
        return [change / due.unit] if due.unit else None

    def _input(self, values: Sequence[float | None]) -> list[float]:
        """The row as the network sees it."""
        before = self._last[0]
        found = []
        for place, moments in enumerate(self._moments):
            value = values[place]
            if value is None:
                self.missing += 1
                value = self._last[place]
            else:
                moments.take(value)
                self._last[place] = value
            found.append(0.0 if value is None else moments.standard(value, _MOST))
        now = self._last[0]
        change = 0.0 if now is None or before is None else now - before
        if values[0] is not None and before is not None:
            self._steps.take(change * change)
        unit = math.sqrt(self._steps.overall)
        return [*found, max(-_MOST, min(_MOST, change / unit)) if unit else 0.0]

    def _nmse(self, squares: Mean) -> float | None:
        variance = self._targets.variance
        return squares.overall / variance if variance else None

    def words(self) -> str:
        """The network in a sentence."""
        options, learner = self.options, self.learner
        cell = options.cell if isinstance(options.cell, str) else options.cell.name
        layers = "" if options.layers == 1 else f"{options.layers} layers of "
        weights = sum(w.numel() for w in learner.model.parameters())
        weight = self._weight
        held = f"; its influence on the state weighs {in_words(weight)}" if weight else ""
        return (
            f"{layers}{cell}, {options.hidden} units, {weights:,} weights below the readout; "
            f"{learner.learning.words()}{held}."
        )

    def verdict(self) -> str:
        """In words, whether the network or the baseline is ahead."""
        ours, theirs = _root(self.squares, overall=True), _root(self.persistence, overall=True)
        if ours is None or theirs is None:
            return "no prediction has met its target yet."
        if not theirs:
            return "the column never changed; there was nothing to forecast."
        recent = ""
        if self.squares.count > self.options.span:
            now, then = _root(self.squares), _root(self.persistence)
            recent = f" (over the last {self.options.span:,} or so: {now:.4g} against {then:.4g})"
        words = f"error {ours:.4g}, persistence {theirs:.4g}{recent}: "
        if self.squares.recent >= self.persistence.recent:
            return words + "persistence is as good or better; use that."
        ratio = math.sqrt(self.squares.recent / self.persistence.recent)
        return words + f"the network's recent error is {ratio:.0%} of persistence's."

    def state_dict(self) -> dict[str, Any]:
        """Everything but the learner's state, as plain JSON values."""
        return {
            "rows": self.rows,
            "missing": self.missing,
            "moments": [m.state_dict() for m in self._moments],
            "last": [*self._last],
            "steps": self._steps.state_dict(),
            "made": [list(made) for made in self._made],
            "targets": self._targets.state_dict(),
            "squares": self.squares.state_dict(),
            "persistence": self.persistence.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; the learner has a state of its own.

        Raises:
            InputError: another number of columns.
        """
        if len(state["last"]) != len(self._last):
            raise InputError(
                f"Forecaster: the state has {len(state['last'])} columns, not {len(self._last)}"
            )
        self.rows, self.missing = state["rows"], state["missing"]
        self._moments = [Moments.from_state_dict(m) for m in state["moments"]]
        self._last = [*state["last"]]
        self._steps = Mean.from_state_dict(state["steps"])
        self._made = deque(_Made(*made) for made in state["made"])
        self._targets = Moments.from_state_dict(state["targets"])
        self.squares = Mean.from_state_dict(state["squares"])
        self.persistence = Mean.from_state_dict(state["persistence"])


def _root(squares: Mean, overall: bool = False) -> float | None:
    if not squares.count:
        return None
    return math.sqrt(squares.overall if overall else squares.recent)
