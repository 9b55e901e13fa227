"""Forecasts of series: build a model from tables, restore one from a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elman.errors import FileError, InputError
from elman.tasks import model_file
from elman.tasks.base import Budget, parse_options
from elman.tasks.forecast import lengths
from elman.tasks.forecast.base import Forecaster, Sizes
from elman.tasks.forecast.baseline import Baselines
from elman.tasks.forecast.columns import split
from elman.tasks.forecast.corpus import Corpus, Meaning, read_corpus
from elman.tasks.forecast.identify import Arx, fit_arx
from elman.tasks.forecast.lags import Order, choose
from elman.tasks.forecast.linear import Features, Ridge, fit
from elman.tasks.forecast.network import Network, module
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.outputs import Output, read_levels
from elman.tasks.forecast.task import Forecasting
from elman.tasks.forecast.trained import TrainedForecast
from elman.tasks.forecast.windows import to

__all__ = ["OPTIONS", "ForecastOptions", "Forecaster", "Forecasting", "TrainedForecast",
           "build", "restore"]  # fmt: skip

OPTIONS = ForecastOptions

_MOST_BEGUN_WITH = 20_000_000  # values of the windows that a network is begun with
_ANCHOR_MARGIN = 0.9  # by which reading values as they are must be better than relative ones


def build(
    files: Sequence[str | Path],
    options: ForecastOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> Forecasting:
    """Build a task of series; see `elman.tasks.build`.

    Raises:
        InputError: an unknown option, column or cell, a bad value, too little data.
        FileError: a file that holds no series; the error names the line.
    """
    if not isinstance(options, ForecastOptions):
        options = parse_options(ForecastOptions, options or {}, "forecast")
    files = [files] if isinstance(files, str | Path) else list(files)
    corpus, options = _settled(files, options, budget or Budget())
    sizes, horizon = _sizes(options), options.horizon or 1
    simple, path = _ridges(corpus, options, sizes)
    options = options.model_copy(update={"anchor": path.features.anchor})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(options, sizes)
    forecaster = network.forecaster
    step = _step(options, corpus, sizes) if forecaster.any_length else None
    _begin(network, corpus, horizon, path, step)
    windows = len(corpus.train_windows(forecaster.lags, forecaster.training_steps(horizon)))
    if options.windows is None:
        options = options.model_copy(update={"windows": 32 if windows < 4000 else 64})
    own = _arx(options, corpus, sizes)
    baselines = Baselines(simple, corpus.meaning.season, own, step if horizon > 1 else None)
    recommended = forecaster.recommended()
    if budget is None or (budget.steps is None and budget.epochs is None):
        recommended.setdefault("epochs", _epochs(options, windows))
    return Forecasting(corpus, options, network, baselines, recommended=recommended, seed=seed)


def _settled(
    files: Sequence[str | Path], options: ForecastOptions, budget: Budget
) -> tuple[Corpus, ForecastOptions]:
    """Read the series, and choose what was left open but for what needs a fit."""
    read_levels(options.levels)
    kind = "recurrent" if options.model == "auto" else options.model
    options = options.model_copy(update={"model": kind, "horizon": options.horizon or 1})
    corpus = read_corpus(files, options)
    found = {
        **corpus.loaded.columns.options(),
        "season": corpus.meaning.season,
        "scaling": corpus.meaning.scale.kind,
    }
    options = options.model_copy(update=found)
    settled = module(kind).settle(options, corpus.data, budget)
    return corpus, ForecastOptions.model_validate({**options.model_dump(), **settled})


def _begin(network: Network, corpus: Corpus, horizon: int, path: Ridge, step: Ridge | None) -> None:
    """Give a new network what is fitted to the data before training."""
    forecaster = network.forecaster
    forecaster.take_linear(path)
    forecaster.take_spread(network.output.begin(path.deviation))
    if step is not None:
        forecaster.take_step(step)
    if type(forecaster).begin is not Forecaster.begin:
        first = corpus.train_windows(forecaster.lags, forecaster.beginning_steps(horizon))
        every = max(1, len(first) * (forecaster.lags + first.horizon) // _MOST_BEGUN_WITH)
        forecaster.begin(to(first.window(slice(None, None, every)), network.like))


def _step(options: ForecastOptions, corpus: Corpus, sizes: Sizes) -> Ridge:
    """Fit ridge regression one step ahead, on the target and on what is known ahead."""
    lags = lengths.lags(options, corpus.data)
    features = Features.of(lags, 1, 0, sizes.future, bool(options.anchor))
    return fit(corpus.train_windows(lags, 1), corpus.valid_windows(lags, 1), features)


def _arx(options: ForecastOptions, corpus: Corpus, sizes: Sizes) -> Arx | None:
    """Fit the linear model of one step that stands beside a network of delays."""
    if options.model not in ("narx", "tdnn"):
        return None
    train = corpus.data.train
    if options.model == "narx":
        order = Order.read(options.lags or "1", sizes.past + sizes.future)
    else:
        order = choose(train, season=corpus.meaning.season).order
    return fit_arx(train, order)


def _epochs(options: ForecastOptions, windows: int) -> float:
    """Passes that are enough: beside a linear path little is left to learn, and soon by heart."""
    passes, steps = (4, 500) if options.linear else (16, 2000)
    per_pass = -(-windows // (options.windows or 1))
    return float(max(passes, -(-steps // per_pass)))


def _sizes(options: ForecastOptions) -> Sizes:
    output = Output(options.output, read_levels(options.levels))
    return Sizes(len(split(options.past)), len(split(options.future)), output.size)


def _network(options: ForecastOptions, sizes: Sizes) -> Network:
    """Make the network of settled options."""
    output = Output(options.output, read_levels(options.levels))
    forecaster = module(options.model).make(options, sizes)
    return Network(forecaster, output, options.horizon or 1)


def _ridges(corpus: Corpus, options: ForecastOptions, sizes: Sizes) -> tuple[Ridge, Ridge]:
    """Fit ridge regression to values as they are and to values relative to the last.

    Returns:
        the better of the two by the validation part, a baseline; and that for a linear path, which
        is the relative one unless the other is better by a tenth: the level of most series drifts,
        and a validation part shows only little of that.
    """
    lags, horizon = lengths.lags(options, corpus.data), options.horizon or 1
    train, valid = corpus.train_windows(lags, horizon), corpus.valid_windows(lags, horizon)
    plain, relative = (
        fit(train, valid, Features.of(lags, horizon, sizes.past, sizes.future, anchor))
        for anchor in (False, True)
    )
    anchored = options.anchor
    if anchored is None:
        anchored = plain.error >= _ANCHOR_MARGIN * relative.error
    simple = min(plain, relative, key=lambda ridge: ridge.error)
    return simple, relative if anchored else plain


def restore(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
) -> TrainedForecast:
    """Rebuild a trained model from the content of a model file, checking every part.

    Raises:
        FileError: something is missing, of a wrong type, or does not fit the rest.
    """
    if set(metadata) != {"config", "grid", "series", "past", "future", "season", "scaling"}:
        raise FileError(f"{where}: its metadata do not describe a model of series.")
    meaning = Meaning.from_json(metadata, where)
    try:
        options = parse_options(ForecastOptions, metadata["config"], f"{where}: config")
        sizes = _sizes(options)
        held = sum(weight.numel() for weight in tensors.values())
        if max(options.hidden or 0, options.horizon or 0, len(meaning.scale.past)) > held:
            raise FileError(f"{where}: its sizes do not fit its weights.")
        if (len(meaning.scale.past), len(meaning.scale.future)) != (sizes.past, sizes.future):
            raise FileError(f"{where}: its covariates do not fit its scales.")
        with torch.device("meta"):
            network = _network(options, sizes)
    except FileError:
        raise
    except InputError as error:
        raise FileError(f"{where}: {error}") from None
    model_file.fill(network, tensors, where)
    return TrainedForecast(network, options, meaning)
