"""Timing several calls beside each other: in turns, so that all of them see the same machine.

One after the other, a machine that slows down half-way would favour whoever went first. A ratio is
taken within each round and then its median, so that what slows a whole round cancels.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from elman.benchmark import quiet

Call = Callable[[], object]
Key = TypeVar("Key", str, tuple[str, str])

# A call much shorter than this is timed several at once, or the clock and the caches of whoever
# went before would be measured.
_BURST = 4e-3
_MOST_IN_BURST = 64
_WARM = 4
_LONG = 0.1
_ROUNDS = (5, 400)
# Where too few rounds had the machine to themselves there are more, up to so many times the time.
_LONGER = 3.0
# Settings this much slower than a peer's fastest in the trial leave; the others stay to the end.
_NEAR = 1.2


@dataclass(frozen=True)
class Spread:
    """A median between its quartiles.

    Example:
        >>> Spread.of([4.0, 1.0, 2.0, 3.0, 5.0])
        Spread(low=2.0, median=3.0, high=4.0)
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one or more values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)

    @classmethod
    def of_ratios(cls, over: Sequence[float], under: Sequence[float]) -> Spread:
        """The spread of `over[i] / under[i]`, round by round."""
        return cls.of([a / b for a, b in zip(over, under, strict=True)])

    def inverse(self) -> Spread:
        """The spread of one over the values."""
        return Spread(1 / self.high, 1 / self.median, 1 / self.low)


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean of the logarithms; what is right for ratios.

    Example:
        >>> geometric_mean([0.5, 2.0])
        1.0
    """
    return math.exp(statistics.fmean(map(math.log, values)))


@dataclass(frozen=True)
class Timed(Generic[Key]):
    """What came of calls in turns.

    Attributes:
        seconds: of one call, by name, one entry a round.
        others: cores that other processes kept busy during these rounds; None if unknown.
        left_out: rounds that do not count, since others were at work.
    """

    seconds: dict[Key, list[float]]
    others: float | None
    left_out: int


def in_turns(
    calls: Mapping[Key, Call],
    *,
    rounds: int | None = None,
    seconds: float = 3.0,
    seed: int = 0,
) -> Timed[Key]:
    """Time calls in turns: A B C, then C A B, in another random order each round.

    Each is called a few times before anything counts. In a round every call has one turn; a call
    of less than a few milliseconds is made several times in its turn, after one that does not
    count, and the mean of these is its time in the round.

    Rounds during which other processes took a core are left out, for all calls alike, where at
    least five others remain; without `rounds` it goes on a while to find them.

    Args:
        calls: what to time, by name.
        rounds: how many rounds, ≥ 1; None for as many as fit into `seconds`, at least five.
        seconds: time for the rounds, where they are not given.
        seed: of the order.

    Example:
        >>> found = in_turns({"a": lambda: sum(range(9)), "b": lambda: None}, rounds=3)
        >>> [len(times) for times in found.seconds.values()]
        [3, 3]
    """
    bursts = {name: _burst(_warmed(call)) for name, call in calls.items()}
    found: dict[Key, list[float]] = {name: [] for name in calls}
    order, numbers, watched = list(calls), random.Random(seed), quiet.Rounds()
    with _no_collecting():
        began, done = time.perf_counter(), 0
        while _goes_on(done, rounds, time.perf_counter() - began, seconds, watched):
            numbers.shuffle(order)
            for name in order:
                found[name].append(_turn(calls[name], bursts[name]))
            watched.add()
            done += 1
        watched.close()
    kept = watched.quiet()
    if len(kept) < _ROUNDS[0]:
        kept = list(range(done))
    return Timed(
        {name: [times[i] for i in kept] for name, times in found.items()},
        quiet.mean([watched.cores[i] for i in kept]),
        done - len(kept),
    )


def _goes_on(
    done: int, rounds: int | None, spent: float, seconds: float, watched: quiet.Rounds
) -> bool:
    """Whether there is one more round."""
    least, most = _ROUNDS if rounds is None else (rounds, rounds)
    if done < least or done >= most:
        return done < least
    if spent < seconds:
        return True
    return spent < _LONGER * seconds and len(watched.quiet()) < least


def near_fastest(settings: Mapping[str, Call], *, turns: int = 2, seed: int = 0) -> dict[str, Call]:
    """The settings of one peer that may be its fastest, by a short trial.

    Args:
        settings: the calls of the peer, by setting.
        turns: turns of each in the trial.

    Returns:
        those whose best turn is within a fifth of the best of all.
    """
    if len(settings) == 1:
        return dict(settings)
    tried = in_turns(settings, rounds=turns, seed=seed).seconds
    best = min(min(times) for times in tried.values())
    return {name: call for name, call in settings.items() if min(tried[name]) <= _NEAR * best}


def _warmed(call: Call) -> float:
    """Call it a few times, a long one only twice; the shortest time in seconds."""
    _seconds(call)  # this one may compile
    second = _seconds(call)
    return second if second > _LONG else min(second, *(_seconds(call) for _ in range(_WARM - 2)))


def _burst(seconds: float) -> int:
    return max(1, min(_MOST_IN_BURST, math.ceil(_BURST / max(seconds, 1e-9))))


def _turn(call: Call, burst: int) -> float:
    if burst == 1:
        return _seconds(call)
    call()
    began = time.perf_counter()
    for _ in range(burst):
        call()
    return (time.perf_counter() - began) / burst


def _seconds(call: Call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@contextmanager
def _no_collecting() -> Iterator[None]:
    """No collection of garbage falls into somebody's turn."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
