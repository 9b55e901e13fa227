"""The series of a run: read, divided in time, scaled by what is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from elman.errors import FileError, InputError
from elman.tasks.forecast import lengths
from elman.tasks.forecast.baseline import naive_errors
from elman.tasks.forecast.columns import Loaded, check_known, load
from elman.tasks.forecast.grid import Grid
from elman.tasks.forecast.lags import steadier
from elman.tasks.forecast.measure import Units
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.series import Data, Scale, Series
from elman.tasks.forecast.windows import Windows

_FEWEST = 3  # values of a series that can be learned from
_WIDEST_GAP = 24  # steps between one file and the next that are filled; more would be guesses


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a model of series stand for.

    Args:
        grid: of time.
        scale: of each series and covariate.
        naive: mean absolute error of the seasonal naive forecast of each series in training.
        season: of that; 1 is none.
    """

    grid: Grid
    scale: Scale
    naive: dict[str, float]
    season: int

    @property
    def units(self) -> Units:
        """What turns scaled errors into errors."""
        return Units(self.scale, self.naive)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "grid": self.grid.to_json(),
            "series": {n: [m, d, self.naive[n]] for n, (m, d) in self.scale.y.items()},
            "past": self.scale.past.tolist(),
            "future": self.scale.future.tolist(),
            "season": self.season,
            "scaling": self.scale.kind,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> Meaning:
        """Return what `to_json` wrote.

        Raises:
            FileError: it did not.
        """
        try:
            entries = {str(n): tuple(map(float, v)) for n, v in value["series"].items()}
            if not entries or any(len(v) != 3 or v[1] <= 0 for v in entries.values()):
                raise ValueError
            past, future = (np.array(value[k], dtype=np.float64).reshape(-1, 2)
                            for k in ("past", "future"))  # fmt: skip
            if type(value["season"]) is not int or value["season"] < 1:
                raise ValueError
            if value["scaling"] not in ("standard", "sqrt", "log", "none"):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            raise FileError(f"{where}: its scales of series cannot be read.") from None
        own = {n: (m, d) for n, (m, d, _) in entries.items()}
        scale = Scale(own, past, future, value["scaling"])
        grid = Grid.from_json(value["grid"], where)
        return cls(grid, scale, {n: v[2] for n, v in entries.items()}, value["season"])


@dataclass(frozen=True)
class Corpus:
    """Series to learn from and to be judged on.

    Args:
        train: the training part of each series, in its own units.
        valid: the validation part of each, with what stands before it.
        valid_from: of each of `valid`, the first step that is judged.
        valid_words: where the validation part comes from.
        meaning: scales and grid.
        loaded: columns, notes.
        fingerprint: of the data.
    """

    train: list[Series]
    valid: list[Series]
    valid_from: list[int]
    valid_words: str
    meaning: Meaning
    loaded: Loaded
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    @property
    def units(self) -> Units:
        """What turns scaled errors into errors."""
        return self.meaning.units

    @cached_property
    def data(self) -> Data:
        """The same scaled, for the choice of a network."""
        scale = self.meaning.scale
        return Data(
            tuple(scale.apply(s) for s in self.train),
            tuple(scale.apply(s) for s in self.valid),
            tuple(self.valid_from),
            scale,
            self.meaning.season,
        )

    def train_windows(self, lags: int, horizon: int) -> Windows:
        """Return all windows of the training part.

        Raises:
            InputError: there is none.
        """
        parts = [(0, len(s)) for s in self.train]
        found = Windows(self.data.train, parts, lags, horizon)
        if not len(found):
            longest = max(len(s) for s in self.train)
            raise InputError(
                f"forecast: no series is long enough: the longest has {longest:,} steps to train "
                f"on, and a window tells {horizon:,}. Give more data or a smaller horizon."
            )
        return found

    def valid_windows(self, lags: int, horizon: int) -> Windows:
        """Return all windows of the validation part; of a short one those that it cuts off."""
        parts = [(start, len(s)) for s, start in zip(self.valid, self.valid_from, strict=True)]
        for whole in (True, False):
            found = Windows(self.data.valid, parts, lags, horizon, whole=whole)
            if len(found):
                return found
        raise InputError(
            f"forecast: the validation part ({self.valid_words}) has no step to be judged on; give "
            "more data, or a valid_file that is longer."
        )

    def valid_free_run(self, lags: int) -> list[Windows]:
        """Return the whole validation part of each series as one window."""
        return free_runs(self.data.valid, self.valid_from, lags)

    def tail(self, steps: int) -> list[Series]:
        """Return the ends of the series, after which new data may come."""
        ends = {s.name: s for s in (*self.train, *self.valid)}
        return [s.part(max(0, len(s) - steps), len(s)) for s in ends.values()]


def free_runs(series: Sequence[Series], starts: Sequence[int], lags: int) -> list[Windows]:
    """Return the part of each scaled series from a step on as one window, if it can be begun."""
    found = []
    for one, start in zip(series, starts, strict=True):
        first = max(start, lags)
        known = np.flatnonzero(np.isfinite(one.y[first - 1 : -1]))
        if len(known):
            first += int(known[0])
            found.append(Windows([one], [(first, len(one))], lags, len(one) - first))
    return found


def read_corpus(files: Sequence[str | Path], options: ForecastOptions) -> Corpus:
    """Read series, divide them in time and scale them.

    Raises:
        FileError: a file that cannot be read as series.
        InputError: too little data.
    """
    loaded = load(list(files), options)
    horizon = options.horizon or 1
    notes = list(loaded.notes)
    whole = [t for t in map(trimmed, loaded.series) if np.isfinite(t.y).sum() >= _FEWEST]
    if len(whole) < len(loaded.series):
        lost = len(loaded.series) - len(whole)
        notes.append(f"series: {lost:,} have fewer than {_FEWEST} values and are left out")
    digest = loaded.fingerprint
    settled = options.model_copy(update=loaded.columns.options())
    if options.valid_file is None:
        train, valid, starts, words = _divided(whole, horizon, options.valid_fraction, notes)
    else:
        train, valid, starts, words, digest = _with_file(whole, loaded, settled, notes, horizon)
    notes += _constant(train)
    season = options.season or lengths.season(train, loaded.grid)
    scale = Scale.of(train, _scaling(train, options.scaling, notes))
    meaning = Meaning(loaded.grid, scale, naive_errors(train, season), season)
    return Corpus(train, valid, starts, words, meaning, loaded, digest, notes)


def trimmed(series: Series) -> Series:
    """Return a series from its first value to its last."""
    known = np.flatnonzero(np.isfinite(series.y))
    return series.part(int(known[0]), int(known[-1]) + 1) if len(known) else series.part(0, 0)


def _divided(
    whole: list[Series], horizon: int, fraction: float, notes: list[str]
) -> tuple[list[Series], list[Series], list[int], str]:
    """Divide each series in time."""
    train, valid, starts, short = [], [], [], 0
    for one in whole:
        cut = len(one) - max(round(len(one) * fraction), horizon)
        if cut < max(_FEWEST, horizon + 1):
            short += 1
            continue
        train.append(trimmed(one.part(0, cut)))
        valid.append(one)
        starts.append(cut)
    if not train:
        longest = max((len(s) for s in whole), default=0)
        raise InputError(
            f"forecast: the longest series has {longest:,} steps; with a horizon of {horizon:,} at "
            f"least {max(2 * horizon + 1, horizon + _FEWEST):,} are needed, to learn and to judge. "
            "Give more data or a smaller horizon."
        )
    if short:
        notes.append(
            f"series: {short:,} of {len(whole):,} are too short for a horizon of {horizon:,} and "
            "are left out"
        )
    return train, valid, starts, f"the last {fraction:.0%} of each series in time"


def _with_file(
    whole: list[Series], loaded: Loaded, options: ForecastOptions, notes: list[str], horizon: int
) -> tuple[list[Series], list[Series], list[int], str, str]:
    """Validate on a file, which may go on where training ends."""
    file = str(options.valid_file)
    other = load(file, options, grid=loaded.grid, where="valid_file")
    known = {s.name: s for s in whole}
    check_known(other.series, list(known), file)
    valid, starts, after = [], [], 0
    for one in map(trimmed, other.series):
        joined, start = continued(known[one.name], one, loaded.grid)
        after += start > 0
        valid.append(joined)
        starts.append(start)
    if not whole:
        raise InputError("forecast: no series has enough values to learn from.")
    notes += [f"{file}: {note}" for note in other.notes[2:]]
    going_on = f", which goes on where training ends in {after:,} series" if after else ""
    digest = hashlib.sha256(f"{loaded.fingerprint} {other.fingerprint}".encode()).hexdigest()
    return whole, valid, starts, f"{file}{going_on}", digest


def continued(before: Series, after: Series, grid: Grid) -> tuple[Series, int]:
    """Join a series and one that comes later, if time says so; and where the later one begins.

    Without a time column nothing says so, and the later one stands alone, as it does where it
    begins before the other ends, or long after.
    """
    gap = after.first - (before.first + len(before))
    if grid.kind == "rows" or gap < 0 or gap > _WIDEST_GAP:
        return after, 0
    empty = np.full(gap, np.nan)

    def join(name: str) -> np.ndarray:
        one, other = getattr(before, name), getattr(after, name)
        hole = np.full((gap, *one.shape[1:]), np.nan)
        return np.concatenate([one, hole, other])

    y = np.concatenate([before.y, empty, after.y])
    joined = Series(after.name, before.first, y, join("past"), join("future"))
    return joined, len(before) + gap


def _scaling(train: Sequence[Series], asked: str, notes: list[str]) -> str:
    """How the target is scaled; a root or logarithm that is chosen is said."""
    if asked != "auto":
        return asked
    found = steadier(train)
    if found != "standard":
        what = {"sqrt": "their square roots", "log": "their logarithms"}[found]
        notes.append(
            f"scaling: the values spread the more the larger they are, so the model is of {what} "
            "(scaling standard leaves them as they are); forecasts and errors are of the values"
        )
    return found


def _constant(train: Sequence[Series]) -> list[str]:
    flat = [s.name for s in train if np.nanmax(s.y) == np.nanmin(s.y)]
    if not flat:
        return []
    names = ", ".join(flat[:5]) + (" …" if len(flat) > 5 else "")
    return [
        f"series: {len(flat):,} never change in training ({names}); there is nothing to scale by, "
        "so they are only centred"
    ]
