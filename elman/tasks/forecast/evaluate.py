"""A backtest over rolling origins: the model beside the simple forecasts, on new data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elman.errors import InputError
from elman.tasks.forecast.baseline import Baselines
from elman.tasks.forecast.corpus import Meaning, free_runs
from elman.tasks.forecast.judge import Judge, best, gain, record, verdict
from elman.tasks.forecast.measure import Sums
from elman.tasks.forecast.network import Network
from elman.tasks.forecast.series import Series
from elman.tasks.forecast.windows import Windows

_FIGURES = ("rmse", "mae", "mse", "mase")
_MODES = (("one_step", "one-step"), ("free_run", "free run over all steps"))


def evaluate(
    network: Network,
    baselines: Baselines | None,
    meaning: Meaning,
    series: Sequence[Series],
    starts: Sequence[int],
    *,
    context: int,
    stride: int = 1,
    origins: int | None = None,
) -> dict[str, Any]:
    """Judge a network on series.

    Args:
        network, baselines, meaning: of the model.
        series: in their own units.
        starts: of each, the first step that is scored.
        context: steps that the model and the baselines read.
        stride: steps between origins.
        origins: at most so many of each series, evenly spread.

    Returns:
        "mode" in words, "rmse", "mae", "mse", "mase", "rmse_scaled" and "mse_scaled" (in deviations
        of training), "skill" (1 − RMSE / RMSE of persistence), "coverage" by level, "intervals" of
        these; "windows", "values"; "baseline", the best simple forecast on these data, and
        "baselines", all of them ("gain" of the best: the interval of its RMSE less that of the
        network); "one_step" and "free_run" with the same figures where the model
        can go on from its own values; "verdict".

    Raises:
        InputError: nothing to score.
    """
    horizon = len(network.spread)
    if stride < 1:
        raise InputError(f"evaluate: stride is {stride}; expected 1 or more.")
    scaled = [meaning.scale.apply(s) for s in series]
    windows = cut(scaled, starts, context, horizon, stride, origins)
    judge = Judge(network, baselines, meaning.units)
    found: dict[str, Any] = {"mode": mode(horizon), "horizon": horizon}
    found |= _judged(judge, judge.everything(windows), max(horizon // stride, 1), meaning.season)
    found["windows"] = len(windows)
    found["values"] = int(windows.count())
    if network.forecaster.any_length:
        found |= _other_modes(judge, scaled, starts, context, horizon, meaning)
    return found


def mode(horizon: int) -> str:
    """Return in words how forecasts are made.

    Example:
        >>> mode(1), mode(24)
        ('one-step', '24 steps ahead, in free run')
    """
    return "one-step" if horizon == 1 else f"{horizon} steps ahead, in free run"


def cut(
    scaled: Sequence[Series],
    starts: Sequence[int],
    context: int,
    horizon: int,
    stride: int,
    origins: int | None,
) -> Windows:
    """Return the windows of a backtest.

    Raises:
        InputError: there is none.
    """
    parts = [(start, len(s)) for s, start in zip(scaled, starts, strict=True)]
    windows = Windows(scaled, parts, context, horizon, stride=stride)
    if not len(windows):
        longest = max((end - start for start, end in parts), default=0)
        raise InputError(
            f"evaluate: there is no window to judge: at most {longest:,} steps to score, and the "
            f"horizon is {horizon:,}, with {context:,} steps read before where no context is given."
        )
    if origins is not None:
        windows.keep(origins)
    return windows


def _judged(judge: Judge, sums: Sequence[Sums], block: int, season: int) -> dict[str, Any]:
    """The figures of the model, and of the baselines below their names."""
    block = max(block, season)
    simple = dict(zip(judge.baselines.names(), sums[1:], strict=True)) if judge.baselines else {}
    persistence = next(iter(simple.values()), None)
    found = record(sums[0], block, persistence)
    if simple:
        every = {name: record(s, block, persistence) for name, s in simple.items()}
        name = best(every)
        found["baseline"] = {"name": name, **every[name]}
        found["baselines"] = every
        found["baseline"]["gain"] = ahead = gain(sums[0], simple[name], "rmse", block)
        found["verdict"] = verdict("rmse", found["rmse"], name, every[name]["rmse"], ahead)
    return found


def _other_modes(
    judge: Judge,
    scaled: Sequence[Series],
    starts: Sequence[int],
    context: int,
    horizon: int,
    meaning: Meaning,
) -> dict[str, Any]:
    found = {}
    if horizon > 1:
        windows = cut(scaled, starts, context, 1, 1, None)
        found["one_step"] = _judged(judge, judge.everything(windows), 1, meaning.season)
    runs = free_runs(scaled, starts, context) if not scaled[0].past.shape[1] else []
    if runs:
        sums = judge.free_run(runs)
        block = max(1, int(np.sqrt(len(sums[0].rows))))
        found["free_run"] = _judged(judge, sums, block, meaning.season)
        found["free_run"]["steps"] = len(sums[0].rows)
    return found


def in_words(metrics: Mapping[str, Any]) -> list[str]:
    """Say what `evaluate` found, in lines."""
    lines = [
        f"{metrics['mode']}: {metrics['windows']:,} windows, {metrics['values']:,} values scored",
        *_lines("this model", metrics),
    ]
    for name, other in metrics.get("baselines", {}).items():
        lines += _lines(name, other)
    for key, words in _MODES:
        if key in metrics:
            lines += [f"{words}:", *_lines("this model", metrics[key])]
            for name, other in metrics[key].get("baselines", {}).items():
                lines += _lines(name, other)
    modes = [(key, words) for key, words in _MODES if key in metrics]
    for part, words in ((metrics, metrics["mode"]), *((metrics[key], w) for key, w in modes)):
        if "verdict" in part:
            said = f"{words}: " if modes else ""
            lines += [*_difference(part), f"{said}{part['verdict']}"]
    return lines


def _difference(metrics: Mapping[str, Any]) -> list[str]:
    """How much better than the best simple forecast, with its interval."""
    baseline = metrics["baseline"]
    if baseline["gain"] is None:
        return []
    (low, high), by = baseline["gain"], baseline["rmse"] - metrics["rmse"]
    return [f"rmse below that of {baseline['name']} by {by:.4g} ({low:.4g} to {high:.4g})"]


def _lines(name: str, record: Mapping[str, Any]) -> list[str]:
    parts = []
    for key in _FIGURES:
        value = record.get(key)
        if value is None:
            continue
        low_high = record["intervals"].get(key)
        sure = f" ({low_high[0]:.4g}–{low_high[1]:.4g})" if low_high else ""
        parts.append(f"{key} {value:.4g}{sure}")
    if record.get("skill") is not None:
        parts.append(f"skill {record['skill']:.3f}")
    for level, share in (record.get("coverage") or {}).items():
        if share is not None:
            parts.append(f"{share:.1%} within the {level} % interval")
    return [f"  {name}: {'; '.join(parts)}"]
