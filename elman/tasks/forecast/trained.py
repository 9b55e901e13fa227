"""A trained model of series: what users call to forecast and to evaluate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.errors import FileError, InputError
from elman.tasks.forecast.base import Window
from elman.tasks.forecast.baseline import Baselines
from elman.tasks.forecast.columns import Columns, check_known, load, named
from elman.tasks.forecast.corpus import Meaning, continued, trimmed
from elman.tasks.forecast.evaluate import evaluate, in_words
from elman.tasks.forecast.grid import check_dates, read_stamps
from elman.tasks.forecast.network import Network
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.series import Series


@dataclass(frozen=True)
class Forecast:
    """How one series goes on.

    Attributes:
        name: its id.
        stamps: time stamps of the steps, as text.
        yhat: (steps,), in the units of the series.
        low, high: by level in percent, (steps,); empty where the model has no intervals.
        history: (time,), the values before, NaN where missing.
    """

    name: str
    stamps: list[str]
    yhat: np.ndarray
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    history: np.ndarray


class TrainedForecast:
    """A model of series with its scales, as `elman.load` returns it.

    Attributes:
        network: the torch module, in evaluation mode.
        options: it was trained with.
        meaning: grid of time and scales.
        baselines: simple forecasts kept with it; None of a run that has not ended.
        tail: the ends of the series of training, after which new data may come.

    Example:
        >>> import math, pathlib, tempfile
        >>> from elman.tasks import build
        >>> rows = "".join(f"{t},{math.sin(t / 4):.4f}\\n" for t in range(200))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "a.csv")
        ...     _ = file.write_text("ds,y\\n" + rows)
        ...     model = build("forecast", [file], {"horizon": 3, "hidden": 4}).trained()
        ...     told = model.predict(file)
        >>> [row["ds"] for row in told]
        ['200', '201', '202']
        >>> abs(told[0]["yhat"] - math.sin(50)) < 0.05
        True
    """

    task = "forecast"

    def __init__(self, network: Network, options: ForecastOptions, meaning: Meaning):
        self.network, self.options, self.meaning = network.eval(), options, meaning
        self.baselines: Baselines | None = None
        self.tail: list[Series] = []

    @property
    def context(self) -> int:
        """Steps that are read before a forecast, by the model and the baselines."""
        theirs = 1 if self.baselines is None else self.baselines.lags
        return max(self.network.forecaster.lags, theirs)

    # -- what is kept with a run ------------------------------------------------------------

    def to_file(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return baselines and the ends of the series as plain values and tensors."""
        if self.baselines is None:
            raise InputError("forecast: this model has no baselines to keep.")
        notes, tensors = self.baselines.to_file()
        ends = [[s.name, s.first, len(s)] for s in self.tail]
        for part in ("y", "past", "future"):
            joined = np.concatenate([getattr(s, part) for s in self.tail])
            tensors[f"tail_{part}"] = torch.from_numpy(joined)
        return {"baselines": notes, "tail": ends}, tensors

    def take_baseline(
        self, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
    ) -> None:
        """Take what `to_file` wrote.

        Raises:
            FileError: it did not.
        """
        try:
            self.baselines = Baselines.from_file(metadata["baselines"], tensors, where)
            parts = [tensors[f"tail_{part}"].numpy() for part in ("y", "past", "future")]
            self.tail, first = [], 0
            for name, place, length in metadata["tail"]:
                cut = slice(first, first + length)
                self.tail.append(Series(name, place, *(part[cut] for part in parts)))
                first += length
            if first != len(parts[0]):
                raise ValueError
        except (KeyError, TypeError, ValueError, IndexError):
            raise FileError(f"{where}: the ends of the series in it cannot be read.") from None

    # -- reading ----------------------------------------------------------------------------

    def read(self, data: Any, context: Any = None, where: str = "forecast") -> list[Series]:
        """Read series of new data, known to training, in their own units.

        Args:
            data: a path, paths, a list of dicts, or an object with Arrow's interface.
            context: data of the steps before, of the same kind.
            where: for errors.

        Raises:
            FileError: data that cannot be read.
            InputError: columns or series that training had not.
        """
        files = [data] if context is None else [context, data]
        parts = [load(f, self.options, grid=self.meaning.grid, where=where).series for f in files]
        for part in parts:
            check_known(part, list(self.meaning.scale.y), named(data))
        if context is None:
            return parts[0]
        before = {s.name: s for s in parts[0]}
        return [
            continued(before[s.name], s, self.meaning.grid)[0] if s.name in before else s
            for s in parts[1]
        ]

    def with_tail(self, series: Series) -> tuple[Series, int]:
        """Put the end of training before a series that goes on there; and where that begins."""
        ends = {s.name: s for s in self.tail}
        if series.name not in ends:
            return series, 0
        return continued(ends[series.name], series, self.meaning.grid)

    def step_of(self, stamp: str, where: str) -> int:
        """Return the step on the grid of time that a stamp of the user is.

        Raises:
            FileError: it cannot be read.
            InputError: a number for a date, or the other way round.
        """
        stamps, dates = read_stamps([stamp], where)
        grid = self.meaning.grid
        if grid.kind == "rows":
            return int(stamps[0]) - 1
        check_dates(dates, grid, where)
        return int(grid.places(stamps)[0][0])

    # -- forecasts --------------------------------------------------------------------------

    @torch.no_grad()
    def forecasts(self, data: Any, horizon: int | None = None) -> list[Forecast]:
        """Return how each series of some data goes on behind its last value.

        Rows behind it without a value of the target give covariates that are known ahead.

        Args:
            data: as of `read`.
            horizon: steps to tell, up to that of training (more where the model can); None is that.

        Raises:
            FileError: data that cannot be read; covariates that are needed and missing.
            InputError: unknown series, too long a horizon, a series without any value.
        """
        steps = self._steps(horizon)
        found = []
        for one in self.read(data, where="predict"):
            known = np.flatnonzero(np.isfinite(one.y))
            if not len(known):
                raise InputError(f"predict: the series {one.name!r} has no value to go on from.")
            joined, start = self.with_tail(one)
            found.append(self._forecast(joined, start + int(known[-1]), steps))
        return found

    def _steps(self, horizon: int | None) -> int:
        trained = self.options.horizon or 1
        steps = horizon or trained
        if steps > trained and not self.network.forecaster.any_length:
            raise InputError(
                f"predict: a horizon of {steps} was asked for; this model tells {trained} steps. "
                "Train one with that horizon."
            )
        return steps

    def _forecast(self, series: Series, origin: int, steps: int) -> Forecast:
        window = self.window(series, origin, steps)
        told = self.network.tell(window)
        undo = self.meaning.scale.undo
        yhat = undo(series.name, told.middle[0, :steps].numpy())
        low, high = {}, {}
        levels = self.network.output.levels
        if told.ends is not None:
            ends = undo(series.name, told.ends[0, :steps].numpy())
            for i, level in enumerate(levels):
                low[f"{level:g}"] = ends[:, len(levels) - 1 - i]
                high[f"{level:g}"] = ends[:, len(levels) + i]
        places = range(series.first + origin + 1, series.first + origin + 1 + steps)
        stamps = [self.meaning.grid.written(place) for place in places]
        return Forecast(series.name, stamps, yhat, low, high, series.y[: origin + 1])

    def window(self, series: Series, origin: int, steps: int) -> Window:
        """Return the scaled window whose last known value stands at `origin`, as a batch of one.

        Raises:
            FileError: a covariate that must be known ahead is missing.
        """
        lags = self.network.forecaster.lags
        trained = self.options.horizon or 1
        told = steps if self.network.forecaster.any_length else trained
        self._check_ahead(series, origin, steps)
        scaled = self.meaning.scale.apply(series)
        before = scaled.part(0, origin + 1).filled()
        ahead = scaled.filled().future
        at = np.arange(origin - lags + 1, origin + 1 + told)
        back = np.clip(at[:lags], 0, None)
        if len(ahead):
            ahead = ahead[np.clip(at, 0, len(ahead) - 1)]
        parts = (before.y[back], before.past[back], ahead, np.zeros(told), np.zeros(told, bool))
        return Window(*(torch.from_numpy(part)[None] for part in parts))

    def _check_ahead(self, series: Series, origin: int, steps: int) -> None:
        names = Columns.of(self.options).future
        for column, name in enumerate(names):
            values = series.future[origin + 1 : origin + 1 + steps, column]
            known = np.isfinite(values)
            if len(values) < steps or not known.all():
                at = int(known.argmin()) if not known.all() else len(values)
                stamp = self.meaning.grid.written(series.first + origin + 1 + at)
                raise FileError(
                    f"predict: {name} must be known ahead, and of series {series.name!r} it has no "
                    f"value at {stamp}; add rows with it, {self.options.target} left empty, for "
                    f"{steps} steps behind the last value."
                )

    def rows(self, data: Any, horizon: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield a row a step: unique_id, ds, yhat, and lo-80, hi-80 and so on by level."""
        for told in self.forecasts(data, horizon):
            for i, stamp in enumerate(told.stamps):
                row: dict[str, Any] = {"unique_id": told.name, "ds": stamp}
                row["yhat"] = float(told.yhat[i])
                for level in told.low:
                    row[f"lo-{level}"] = float(told.low[level][i])
                    row[f"hi-{level}"] = float(told.high[level][i])
                yield row

    def predict(self, data: Any, horizon: int | None = None) -> list[dict[str, Any]]:
        """Return the next steps of each series, a dict a step; see `rows` and `forecasts`."""
        return list(self.rows(data, horizon))

    def answers(
        self, path: Any, horizon: int | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the next steps of each series as lines of CSV, and the same by name.

        Args:
            path: a file, or "-" for standard input.
            horizon: steps to tell; None is that of training.

        Raises:
            FileError, InputError: as of `forecasts`.
        """
        for i, row in enumerate(self.rows(path, horizon)):
            values = [v if isinstance(v, str) else f"{v:.6g}" for v in row.values()]
            line = ",".join(_cell(v) for v in values)
            first = "" if i else ",".join(row) + "\n"
            if not i and horizon and not any(key.startswith("lo-") for key in row):
                row["note"] = (
                    f"no intervals: how far off points are was measured up to "
                    f"{len(self.network.spread)} step(s) ahead"
                )
            yield first + line, row

    # -- evaluation -------------------------------------------------------------------------

    def evaluate(
        self,
        files: Any,
        *,
        context: Any = None,
        start: str | None = None,
        stride: int = 1,
        origins: int | None = None,
    ) -> dict[str, Any]:
        """Measure the model over rolling origins, beside the simple forecasts.

        Every step of the data from `start` on is told from all origins before it. The steps before
        are read and not scored: those of `context`, those of the data before `start`, and the end
        of the training data where time says that the data go on there. Where nothing stands
        before, the first steps of the data are read and not scored.

        Args:
            files: as of `read`.
            context: data of the steps before.
            start: time stamp of the first step that is scored.
            stride: steps between origins, >= 1.
            origins: no more than so many origins of each series, evenly spread.

        Returns:
            figures by name; see `elman.tasks.forecast.evaluate.evaluate`; and a "note" where steps
            were known in training, or no baseline was kept.

        Raises:
            FileError: data that cannot be read.
            InputError: unknown series, or nothing that could be scored.
        """
        given = [trimmed(one) for one in self.read(files, None, "evaluate")]
        if context is None:
            parts = [self.with_tail(one) for one in given]
        else:
            parts = self._after(context, given, named(files))
        if start is not None:
            step = self.step_of(start, "evaluate: from")
            parts = [(s, max(b, step - s.first)) for s, b in parts]
        found = evaluate(
            self.network,
            self.baselines,
            self.meaning,
            [s for s, _ in parts],
            [b for _, b in parts],
            context=self.context,
            stride=stride,
            origins=origins,
        )
        notes = self._overlap(parts)
        if self.baselines is None:
            notes.append("no baseline was kept with this model, so it is held against nothing")
        return {**found, "note": "; ".join(notes)} if notes else found

    def _overlap(self, parts: Sequence[tuple[Series, int]]) -> list[str]:
        """Say that steps to be scored were in training or validation, where time tells."""
        ends = {s.name: s.first + len(s) for s in self.tail}
        seen = [s.name for s, begin in parts if s.first + begin < ends.get(s.name, -math.inf)]
        if self.meaning.grid.kind == "rows" or not seen:
            return []
        last = self.meaning.grid.written(ends[seen[0]] - 1)
        which = f" (series {seen[0]})" if len(ends) > 1 else ""
        return [
            f"steps up to {last}{which} were known when the model was trained, so these are no "
            "figures of a test; --from scores later ones alone"
        ]

    def _after(
        self, context: Any, series: Sequence[Series], where: str
    ) -> list[tuple[Series, int]]:
        before = {s.name: s for s in map(trimmed, self.read(context, None, "context"))}
        found = []
        for one in series:
            joined, begin = one, 0
            if one.name in before:
                joined, begin = continued(before[one.name], one, self.meaning.grid)
                if not begin:
                    raise InputError(
                        f"evaluate: {where} does not go on where the context ends, in series "
                        f"{one.name!r}; is the order of the files right, and is there a time "
                        "column?"
                    )
            found.append((joined, begin))
        return found

    @staticmethod
    def in_words(metrics: Mapping[str, Any]) -> list[str]:
        """Say what `evaluate` found, in lines."""
        return in_words(metrics)


def _cell(text: str) -> str:
    if any(mark in text for mark in ',"\n\r'):
        return '"' + text.replace('"', '""') + '"'
    return text
