"""Time stamps: read, and laid on an even grid, so that a series is one value a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from elman.errors import FileError, InputError

Kind = Literal["rows", "numbers", "time", "weekdays", "months"]
_DAY = 86_400_000_000  # microseconds
_NAMES = {_DAY * 7: "week", _DAY: "day", _DAY // 24: "hour", _DAY // 1440: "minute",
          1_000_000: "second", 1000: "millisecond"}  # fmt: skip
_FORMATS = ("%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y%m%d", "%b %Y", "%B %Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_MOST_HOLES = 30.0  # steps of the grid a row, beyond which stamps are no series


@dataclass(frozen=True)
class Grid:
    """An even grid of time: stamp of step k = origin + k · step, in the units of its kind.

    Args:
        kind: "rows" (no stamps), "numbers", "time" (microseconds since 1970), "weekdays" (days,
            Monday to Friday) or "months" (since 1970).
        step: of the grid, > 0: a number, microseconds, 1, or months.
        origin: stamp of step 0 in the same units.
        within: "months": the day of the month (31 is its last) and microseconds of the day;
            "weekdays": microseconds of the day.
    """

    kind: Kind
    step: float = 1
    origin: float = 0
    within: tuple[int, int] = (0, 0)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"kind": self.kind, "step": self.step, "origin": self.origin,
                "within": list(self.within)}  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "") -> Grid:
        """Return the grid that `to_json` wrote.

        Raises:
            FileError: it did not.
        """
        try:
            kind, step = value["kind"], value["step"]
            origin, (day, clock) = value["origin"], value["within"]
            if kind not in ("rows", "numbers", "time", "weekdays", "months") or not step > 0:
                raise ValueError
            if any(type(v) not in (int, float) for v in (step, origin, day, clock)):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise FileError(f"{where}: its grid of time cannot be read.") from None
        return cls(kind, step, origin, (day, clock))

    def words(self) -> str:
        """Return the step in words: "hour", "3 months", "weekday", "row"."""
        if self.kind == "rows":
            return "row"
        if self.kind == "weekdays":
            return "weekday"
        if self.kind == "numbers":
            return f"{self.step:g}"
        if self.kind == "months":
            many, name = (self.step / 12, "year") if self.step % 12 == 0 else (self.step, "month")
        else:
            size, name = next(
                ((s, n) for s, n in _NAMES.items() if self.step % s == 0), (1, "microsecond")
            )
            many = self.step / size
        return name if many == 1 else f"{many:g} {name}s"

    def places(self, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return of each stamp the nearest step, int64, and whether it is exactly there.

        Args:
            stamps: as of `read_stamps`.
        """
        if self.kind == "rows":
            return np.arange(len(stamps)), np.ones(len(stamps), bool)
        if self.kind == "months":
            month = stamps.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
            exact = (month - self.origin) / self.step
            steps = np.rint(exact).astype(np.int64)
            return steps, self.stamps(steps) == stamps
        if self.kind == "weekdays":
            days = stamps.astype("datetime64[us]").astype("datetime64[D]")
            first = np.datetime64(int(self.origin), "us").astype("datetime64[D]")
            rolled = np.busday_offset(days, 0, roll="backward")
            steps = np.busday_count(first, rolled).astype(np.int64)
            return steps, self.stamps(steps) == stamps
        exact = (stamps - self.origin) / self.step
        steps = np.rint(exact).astype(np.int64)
        return steps, np.abs(exact - steps) < 1e-3

    def stamps(self, steps: np.ndarray) -> np.ndarray:
        """Return the stamps of steps: microseconds since 1970, or numbers."""
        steps = np.asarray(steps)
        if self.kind == "months":
            day, clock = self.within
            month = (steps * int(self.step) + int(self.origin)).astype("datetime64[M]")
            last = (month + 1).astype("datetime64[D]") - 1
            days = np.minimum(month.astype("datetime64[D]") + (day - 1), last)
            return days.astype("datetime64[us]").astype(np.int64) + clock
        if self.kind == "weekdays":
            first = np.datetime64(int(self.origin), "us").astype("datetime64[D]")
            days = np.busday_offset(first, steps)
            return days.astype("datetime64[us]").astype(np.int64) + self.within[1]
        return steps * self.step + self.origin

    def written(self, step: int) -> str:
        """Return the stamp of a step as text: a date, a date with time, or a number."""
        stamp = self.stamps(np.array([step]))[0]
        if self.kind in ("rows", "numbers"):
            return f"{stamp:.12g}"
        text = str(np.datetime64(int(stamp), "us")).replace("T", " ")
        text = text.removesuffix(".000000")
        whole_days = self.kind == "months" and not self.within[1]
        whole_days |= self.kind == "weekdays" and not self.within[1]
        whole_days |= self.kind == "time" and not (self.step % _DAY or self.origin % _DAY)
        return text[:10] if whole_days else text


def read_stamps(
    texts: Sequence[str], where: str, place: Callable[[int], str] | None = None
) -> tuple[np.ndarray, bool]:
    """Read time stamps: numbers, ISO 8601 (a zone is taken to UTC), or a few other ways.

    Args:
        texts: of the rows.
        where: file and column, for errors.
        place: of each row, counted from 0, where it stands; None counts rows from 1.

    Returns:
        float64 numbers, or int64 microseconds since 1970; and whether they are dates.

    Raises:
        FileError: a stamp is missing or cannot be read, with its place; days and months that
            could be either.

    Example:
        >>> read_stamps(["1970-01-02", "1970-01-03 00:00:01"], "t.csv")
        (array([ 86400000000, 172801000000]), True)
        >>> read_stamps(["1700", "1701.5"], "t.csv")
        (array([1700. , 1701.5]), False)
    """
    place = place or (lambda row: f"row {row + 1}")
    for row, text in enumerate(texts):
        if not text.strip():
            raise FileError(f"{where}: the time stamp of {place(row)} is missing.")
    numbers = _numbers(texts)
    if numbers is not None:
        return numbers, False
    for read in (_iso_at_once, _iso_one_by_one):
        stamps = read(texts)
        if stamps is not None:
            return stamps, True
    return _other_formats(texts, where, place), True


def _numbers(texts: Sequence[str]) -> np.ndarray | None:
    if all(len(t) == 8 and t.isdigit() and t[:2] in ("19", "20") for t in texts):
        return None  # 20240131
    try:
        numbers = np.array(texts, dtype=np.float64)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _iso_at_once(texts: Sequence[str]) -> np.ndarray | None:
    if any(t[-1:] == "Z" or "+" in t or t.count("-") > 2 for t in texts):
        return None  # zones
    if not all(len(t) >= 7 and t[4] == "-" for t in texts):
        return None
    try:
        stamps = np.array([t.replace(" ", "T", 1) for t in texts], dtype="datetime64[us]")
    except ValueError:
        return None
    return None if np.isnat(stamps).any() else stamps.astype(np.int64)


def _microseconds(moment: datetime) -> int:
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _iso_one_by_one(texts: Sequence[str]) -> np.ndarray | None:
    try:
        return np.array([_microseconds(datetime.fromisoformat(t.strip())) for t in texts])
    except ValueError:
        return None


def _other_formats(texts: Sequence[str], where: str, place: Callable[[int], str]) -> np.ndarray:
    fits: dict[str, np.ndarray] = {}
    for form in (day + clock for day in _FORMATS for clock in _CLOCKS):
        try:
            fits[form] = np.array(
                [_microseconds(datetime.strptime(t.strip(), form)) for t in texts]
            )
        except ValueError:
            continue
    distinct = {tuple(v.tolist()) for v in fits.values()}
    if len(distinct) > 1:
        raise FileError(
            f"{where}: {texts[0]!r} may be read as {' or '.join(fits)}, and every row fits both; "
            "write dates as 2024-01-31."
        )
    if not fits:
        row, text = next(
            ((r, t) for r, t in enumerate(texts) if _iso_one_by_one([t]) is None), (0, texts[0])
        )
        raise FileError(
            f"{where}: the time stamp {text[:40]!r} of {place(row)} is no number and no date "
            "such as 2024-01-31 or 2024-01-31 13:00."
        )
    return next(iter(fits.values()))


def find_grid(groups: Sequence[np.ndarray], dates: bool, where: str) -> Grid:
    """Find the even grid on which stamps lie, or nearly lie: its step is the commonest difference.

    Args:
        groups: the stamps of each series.
        dates: whether they are microseconds since 1970.
        where: for errors.

    Raises:
        FileError: one stamp only, or stamps without any common step.
    """
    ordered = [np.unique(g) for g in groups]
    differences = np.concatenate([np.diff(g) for g in ordered])
    if not len(differences):
        raise FileError(f"{where}: every series has a single time stamp; there is no step in time.")
    every = np.unique(np.concatenate(ordered))
    if dates:
        found = _months(every, differences) or _weekdays(every, differences)
        if found is not None:
            return found
    step = _commonest(differences, dates)
    grid = Grid("time" if dates else "numbers", step, ordered[0][0].item())
    steps = sum((g[-1] - g[0]) / step + 1 for g in ordered)
    if steps > _MOST_HOLES * sum(map(len, ordered)):
        raise FileError(
            f"{where}: the commonest step of time is {grid.words()}, and {steps:,.0f} such steps "
            f"lie between the first and last of {sum(map(len, ordered)):,} stamps; the stamps "
            "are too irregular for a series. Bring them to an even step, or give an id column "
            "that tells series apart."
        )
    return grid


def _commonest(differences: np.ndarray, dates: bool) -> float:
    if dates:
        values, counts = np.unique(differences, return_counts=True)
        if counts.max() >= 0.3 * counts.sum():
            return int(values[counts.argmax()])
        middle = int(np.median(differences))  # of no step in common the middle one, made round
        unit = next((u for u in _NAMES if middle >= 2 * u), 1)
        return max(round(middle / unit), 1) * unit
    rounded = np.array([float(f"{d:.6g}") for d in np.unique(differences)])
    if len(rounded) > 1:
        whole = np.array([float(f"{d:.6g}") for d in differences])
        values, counts = np.unique(whole, return_counts=True)
        common = counts.max() >= 0.3 * counts.sum()
        return float(values[counts.argmax()] if common else np.median(whole))
    return float(rounded[0])


def _months(stamps: np.ndarray, differences: np.ndarray) -> Grid | None:
    """A grid of months, where all stamps are on one day of the month, or on its last."""
    if differences.min() < 27 * _DAY:
        return None
    moments = stamps.astype("datetime64[us]")
    months = moments.astype("datetime64[M]")
    days = moments.astype("datetime64[D]")
    day = (days - months.astype("datetime64[D]")).astype(np.int64) + 1
    clock = (moments - days).astype(np.int64)
    last = (months + 1).astype("datetime64[D]") - 1 == days
    if len(np.unique(clock)) > 1 or not (last.all() or len(np.unique(day)) == 1):
        return None
    number = months.astype(np.int64)
    step = int(np.gcd.reduce(np.diff(number)))
    within = (31 if last.all() and len(np.unique(day)) > 1 else int(day[0]), int(clock[0]))
    return Grid("months", step, int(number[0]), within)


def _weekdays(stamps: np.ndarray, differences: np.ndarray) -> Grid | None:
    """A grid of Mondays to Fridays, where days follow each other and no weekend is among them."""
    if (differences % _DAY).any() or len(stamps) < 10 or (differences == _DAY).mean() < 0.5:
        return None
    days = stamps.astype("datetime64[us]").astype("datetime64[D]")
    if not np.is_busday(days).all():
        return None
    clock = int(stamps[0] % _DAY)
    return Grid("weekdays", 1, int(stamps[0]), (0, clock))


def check_dates(dates: bool, grid: Grid, where: str) -> None:
    """See that stamps of a new file are of the kind that training had.

    Raises:
        InputError: numbers where dates were, or the other way round.
    """
    trained = grid.kind in ("time", "weekdays", "months")
    if dates != trained:
        kinds = {True: "dates", False: "numbers"}
        raise InputError(
            f"{where}: the time stamps are {kinds[dates]}; in training they were {kinds[trained]}."
        )
