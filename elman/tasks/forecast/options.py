"""The options of a model of series."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from elman.tasks.base import TaskOptions

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class ForecastOptions(TaskOptions):
    """Options of a model that forecasts series; None leaves the choice to the data.

    Args:
        target: column to forecast; "a,b" are two series of a wide table. Found by its name ("y",
            "value") or as the only column of numbers; of several, each is a series.
        time: column of time stamps (dates or numbers), detected; without one, rows are steps.
        id: column that tells series apart in a long table, detected.
        past: columns "a,b" known up to the origin of a forecast only.
        future: columns "a,b" known ahead as well, such as a holiday, a price or the input of a
            system; their values stand in rows without target when a forecast is asked for.
        horizon: steps ahead to tell; 1 if not given.
        lags: steps read before the origin, "auto", or "a,b": of the target and of the inputs; narx
            also "a,b,d" with d steps before an input acts, and its "auto" is the linear model with
            the least corrected AIC.
        season: steps of a season, for the seasonal naive forecast and MASE; detected, 1 is none.
        model: "recurrent" reads the lags and tells all steps at once, "encoder_decoder" tells one
            after another from its own last, "narx" and "tdnn" are networks of delays; "auto" is
            recurrent.
        output: "point" (squared error), "quantile" (pinball loss) or "gaussian" (likelihood).
        levels: intervals in percent, "80,95".
        scaling: "standard" by each series' mean and deviation in training; "sqrt" or "log": the
            same of its root or logarithm, where large values vary more; "none"; "auto" chooses.
        anchor: whether windows are read and told relative to their last value; decided by a linear
            model on the validation part if not given.
        linear: whether a linear path from the lags stands beside the network, begun by ridge
            regression.
        cell: name of a cell, or its JSON.
        hyper: hyper-parameters of the cell by name.
        hidden: units of a layer.
        layers: recurrent layers, one on top of another.
        dropout: on what the recurrent layer tells.
        teacher_forcing: encoder_decoder: probability that a training window is told with the
            measured values fed between, instead of its own.
        delays: tdnn: delays of each layer, "2,3".
        training: narx: "open" (measured values fed), "closed" (its own), or "closed-after-open".
        window: narx in closed loop: steps of a training window, which begins from measured values
            and through which the gradient goes back.
        windows: windows of a batch.
        valid_fraction: share of each series, the last in time, for validation.
        valid_file: a file to validate on instead; it may go on where the training file ends.
    """

    target: str | None = None
    time: str | None = None
    id: str | None = None
    past: str | None = None
    future: str | None = None
    horizon: Count | None = None
    lags: str | None = None
    season: Count | None = None
    model: Literal["auto", "narx", "tdnn", "recurrent", "encoder_decoder"] = "auto"
    output: Literal["point", "quantile", "gaussian"] = "point"
    levels: str = "80,95"
    scaling: Literal["auto", "standard", "sqrt", "log", "none"] = "auto"
    anchor: bool | None = None
    linear: bool | None = None
    cell: str | dict[str, Any] | None = None
    hyper: dict[str, Any] = Field(default_factory=dict)
    hidden: Count | None = None
    layers: Count | None = None
    dropout: Rate | None = None
    teacher_forcing: Annotated[float, Field(ge=0, le=1)] = 0.0
    delays: str | None = None
    training: Literal["open", "closed", "closed-after-open"] | None = None
    window: Count | None = None
    windows: Count | None = None
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    valid_file: str | None = None
