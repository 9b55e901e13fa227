"""What the pictures of a finished run need: forecasts of the validation part, and its errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from elman.tasks.forecast.corpus import Corpus
from elman.tasks.forecast.judge import Judge
from elman.tasks.forecast.windows import Windows

_SHOWN = 3  # windows
_HISTORY, _STEPS, _ERRORS = 200, 1000, 3000


@torch.no_grad()
def keepsake(judge: Judge, windows: Windows, corpus: Corpus, inputs: tuple[str, ...]) -> dict:
    """Return forecasts of some windows and the errors one step ahead, as plain values.

    Args:
        judge: of the network.
        windows: of the validation part.
        corpus: that they are of.
        inputs: names of the covariates that are known ahead.
    """
    chosen = np.unique(np.linspace(0, len(windows) - 1, _SHOWN + 2)[1:-1].round().astype(int))
    return {
        "forecasts": [_window(judge, windows, corpus, int(k)) for k in chosen],
        "residuals": _residuals(judge, windows, corpus, inputs),
    }


def _window(judge: Judge, windows: Windows, corpus: Corpus, number: int) -> dict[str, Any]:
    window = windows.window(np.array([number]))
    series = corpus.valid[int(windows.number[number])]
    origin, undo = int(windows.origin[number]), corpus.meaning.scale.undo
    told = judge.network.tell(judge.cut(window))
    steps = min(windows.horizon, _STEPS)
    levels = judge.levels
    found = {
        "series": series.name,
        "from": corpus.meaning.grid.written(series.first + origin + 1),
        "step": corpus.meaning.grid.words(),
        "history": _plain(series.y[max(0, origin + 1 - _HISTORY) : origin + 1]),
        "came": _plain(series.y[origin + 1 : origin + 1 + steps]),
        "told": _plain(undo(series.name, told.middle[0, :steps].numpy())),
        "low": {},
        "high": {},
    }
    if told.ends is not None:
        ends = undo(series.name, told.ends[0, :steps].numpy())
        for i, level in enumerate(levels):
            found["low"][f"{level:g}"] = _plain(ends[:, len(levels) - 1 - i])
            found["high"][f"{level:g}"] = _plain(ends[:, len(levels) + i])
    return found


def _residuals(
    judge: Judge, windows: Windows, corpus: Corpus, inputs: tuple[str, ...]
) -> dict[str, Any]:
    """The errors of the first step told, at origins that follow each other, of one series."""
    number = int(np.bincount(windows.number).argmax())
    mine = np.flatnonzero(windows.number == number)[-_ERRORS:]
    one = corpus.valid[number]
    first, last = int(windows.origin[mine[0]]), int(windows.origin[mine[-1]])
    errors = np.full(last - first + 1, np.nan)
    size = max(1, 200_000 // (windows.lags + windows.horizon))
    for start in range(0, len(mine), size):
        some = mine[start : start + size]
        window = windows.window(some)
        told = judge.network.tell(judge.cut(window)).middle[:, 0].double()
        off = torch.where(window.observed[:, 0], window.target[:, 0] - told, torch.nan)
        errors[windows.origin[some] - first] = off.numpy()
    steps = slice(first + 1, last + 2)
    values = {name: _plain(one.future[steps, i]) for i, name in enumerate(inputs)}
    return {"series": one.name, "errors": _plain(errors), "inputs": values}


def _plain(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, in six digits; what is missing is null."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values]
