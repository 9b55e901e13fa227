"""Forecasting, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.tasks.base import Carry, Task
from elman.tasks.forecast.base import Window
from elman.tasks.forecast.baseline import Baselines
from elman.tasks.forecast.columns import Columns
from elman.tasks.forecast.corpus import Corpus
from elman.tasks.forecast.judge import Judge, gain, verdict
from elman.tasks.forecast.keep import keepsake
from elman.tasks.forecast.measure import Sums
from elman.tasks.forecast.network import Network, error_quantiles
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.trained import TrainedForecast
from elman.tasks.forecast.windows import to

METRICS = {"point": "rmse", "gaussian": "nats_per_value", "quantile": "pinball"}
_MOST_ERRORS = 4_000_000


class Forecasting(Task):
    """Series, a network that tells how they go on, and simple forecasts to be held against.

    Args:
        corpus: the series, divided and scaled.
        options: resolved.
        network: the network.
        baselines: fitted to the same part.
        recommended: training options.
        seed: of weights and data order.
    """

    name = "forecast"
    metric = "rmse"
    unit = "value"
    shared = True

    def __init__(
        self,
        corpus: Corpus,
        options: ForecastOptions,
        network: Network,
        baselines: Baselines,
        *,
        recommended: dict[str, Any],
        seed: int,
    ):
        self.corpus, self.baselines = corpus, baselines
        self.config = self.options = options
        self.model = self.network = network
        self.recommended, self.seed = recommended, seed
        self.fingerprint = corpus.fingerprint
        forecaster, horizon = network.forecaster, options.horizon or 1
        self.windows = corpus.train_windows(forecaster.lags, forecaster.training_steps(horizon))
        self.judge = Judge(network, baselines, corpus.units)
        self.valid = corpus.valid_windows(max(forecaster.lags, baselines.lags), horizon)
        several = len(corpus.meaning.scale.y) > 1
        self.metric = METRICS[options.output]
        if forecaster.judged_in_free_run:
            self.metric = "free_run_rmse"
        elif self.metric == "rmse" and several:
            self.metric = "rmse_scaled"
        self.size = min(options.windows or 1, len(self.windows))
        self.steps_per_epoch = -(-len(self.windows) // self.size)
        self._order = (-1, np.zeros(0, np.int64))
        # of the latest validation: the windows, and the model's sums on them
        self._judged: tuple[np.ndarray, Sums] | None = None
        self._best: list[Sums] = []  # of the best simple forecast, on all windows

    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each."""
        options, corpus = self.options, self.corpus
        weights = sum(weight.numel() for weight in self.model.parameters())
        ridge = self.baselines.ridge
        season = (
            f"a season of {self.baselines.season}" if self.baselines.season > 1 else "no season"
        )
        return [
            *corpus.notes,
            f"windows: {len(self.windows):,} to train on, {len(self.valid):,} to validate on "
            f"({corpus.valid_words}), {self.network.forecaster.lags} steps read, "
            f"{options.horizon} told; {season}",
            f"ridge: strength {ridge.strength:g} by the validation part, root mean squared error "
            f"there {ridge.error**0.5:.4f} deviations",
            f"model: {options.model}: {self.network.forecaster.describe()}; {weights:,} weights",
            f"training: {options.output} output, {self.size} windows a batch, "
            f"{self.steps_per_epoch:,} steps a pass, dropout {options.dropout or 0:g}",
        ]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return the parts of a batch of windows."""
        epoch, at = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            draw = np.random.default_rng([self.seed, epoch])
            self._order = (epoch, draw.permutation(len(self.windows)))
        chosen = self.mine(self._order[1][at * self.size : (at + 1) * self.size])
        return tuple(to(self.windows.window(chosen), self.network.like.cpu()))

    def start(self, step: int) -> Carry | None:
        """Return nothing: windows carry nothing on."""
        return None

    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean loss of a value, nothing to carry, and the number of values."""
        window = Window(*batch)
        told = self.network.forecaster.learned(window)
        loss, count = self.network.output.loss(told.float(), window.target.float(), window.observed)
        return loss, None, count

    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure the model on the windows of the validation part, and how far off points are."""
        chosen = self._chosen(limit)
        errors: list[np.ndarray] = []
        sums = self.judge.model(self.valid, chosen, errors)
        self._judged = (chosen, sums)
        with torch.no_grad():
            found = error_quantiles(np.concatenate(errors)[:: self._thin(chosen)], self.levels)
            self.network.spread.copy_(found)
        metrics = {k: v for k, v in sums.total().items() if v is not None}
        metrics = {k: v for k, v in metrics.items() if not k.startswith("coverage")}
        if self.options.output != "point":
            metrics[METRICS[self.options.output]] = metrics["loss"]
        metrics.setdefault("loss", metrics["mse_scaled"])
        if self.network.forecaster.judged_in_free_run:
            free = self.judge.free_run(self.corpus.valid_free_run(self.network.forecaster.lags))
            metrics["free_run_rmse"] = free[0].total()["rmse"] or 0.0
        return metrics

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of the intervals, in percent."""
        return self.network.output.levels

    def _chosen(self, limit: float | None) -> np.ndarray:
        every = np.arange(len(self.valid))
        if limit is None or limit >= 1:
            return every
        count = max(1, round(limit * len(every)))
        return every[np.unique(np.linspace(0, len(every) - 1, count).astype(np.int64))]

    def _thin(self, chosen: np.ndarray) -> int:
        return max(1, len(chosen) * self.valid.horizon // _MOST_ERRORS)

    def sample(self) -> str | None:
        """Return the first steps told of the last validation window, beside what came."""
        last = np.array([len(self.valid) - 1])
        window = self.valid.window(last)
        name = self.valid.names[int(self.valid.number[last[0]])]
        undo = self.corpus.meaning.scale.undo
        with torch.no_grad():
            told = undo(name, self.network.tell(self.judge.cut(window)).middle[0].numpy())
        came = undo(name, window.target[0].numpy())
        few = list(zip(told.tolist(), came.tolist(), strict=True))[:6]
        return f"{name}: told (came) " + "  ".join(f"{a:.4g} ({b:.4g})" for a, b in few)

    def trained(self) -> TrainedForecast:
        """Return the model as users call it, in evaluation mode; it shares the weights."""
        model = TrainedForecast(self.network, self.options, self.corpus.meaning)
        model.baselines = self.baselines
        model.tail = self.corpus.tail(model.context)
        return model

    @cached_property
    def _baseline(self) -> dict[str, Any]:
        key = METRICS[self.options.output]
        all_sums = self.judge.baselines_on(self.valid)
        free = {}
        if self.network.forecaster.judged_in_free_run:
            windows = self.corpus.valid_free_run(self.network.forecaster.lags)
            free = dict(zip(self.baselines.names(), self.judge.free_run(windows)[1:], strict=True))
        every = []
        for name, sums in zip(self.baselines.names(), all_sums, strict=True):
            total = sums.total()
            total[key] = total["rmse"] if key == "rmse" else total["loss"]
            if name in free:
                total["free_run_rmse"] = free[name].total()["rmse"]
            every.append((name, {k: v for k, v in total.items() if v is not None}))
        name, best = min(every, key=lambda pair: pair[1][self.metric])
        number = self.baselines.names().index(name)
        self._best = [free[name] if name in free else all_sums[number]]
        words = f"{self.metric.replace('_', ' ')} of simple forecasts: " + "; ".join(
            f"{n} {t[self.metric]:.4g}" for n, t in every
        )
        return {"name": name, **{k: v for k, v in best.items() if k != "loss"},
                "words": words}  # fmt: skip

    def baseline(self) -> dict[str, Any]:
        """Return the best of persistence, the seasonal naive forecast and ridge regression."""
        return self._baseline

    def keep_baseline(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the baselines, and the ends of the series, after which new data may come."""
        return self.trained().to_file()

    def keepsake(self) -> dict[str, Any]:
        """Return forecasts of some validation windows, and the errors one step ahead."""
        names = Columns.of(self.options).future
        return keepsake(self.judge, self.valid, self.corpus, names)

    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say which is ahead on the validation part."""
        key = self.metric
        name, theirs = self._baseline["name"], self._baseline[key]
        return verdict(key.replace("_", " "), metrics[key], name, theirs, self._gain(metrics))

    def _gain(self, metrics: Mapping[str, float]) -> list[float] | None:
        """The interval of how much larger the metric of the best simple forecast is."""
        key, (theirs,) = self.metric, self._best
        if self.network.forecaster.judged_in_free_run:
            windows = self.corpus.valid_free_run(self.network.forecaster.lags)
            ours = self.judge.free_run(windows)[0]
            return gain(ours, theirs, "rmse", max(1, int(np.sqrt(len(ours.rows)))))
        key = key if key in ("rmse", "rmse_scaled") else "loss"
        chosen, ours = self._judged or (self._chosen(None), None)
        if ours is None or ours.total()[key] != metrics[self.metric]:
            # the latest validation was not of the weights that are kept
            ours = self.judge.model(self.valid, chosen, [])
        theirs = Sums(theirs.rows[chosen], theirs.levels, theirs.losses)
        block = max(self.valid.horizon, self.corpus.meaning.season)
        return gain(ours, theirs, key, block)

    def metadata(self) -> dict[str, Any]:
        """Return configuration, grid of time and scales, as plain JSON values."""
        return {"config": self.config.model_dump(), **self.corpus.meaning.to_json()}
