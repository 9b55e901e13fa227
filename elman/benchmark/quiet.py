"""Whether other processes are at work while we time, where the system tells (Linux does).

A thread that has to wait for a core holds up all the others at every barrier: one busy process
beside us makes a layer with a barrier a step ten times slower, and one without hardly slower.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

# A system counts the time of its cores in hundredths of a second, so rounds are judged in blocks
# of this length at least. They are quiet where others took no more than this part of one core.
_BLOCK = 0.2
QUIET = 0.15


class Watch:
    """How many cores other processes keep busy from now on.

    Example:
        >>> watch = Watch()
        >>> cores = watch.others()
        >>> cores is None or cores >= 0
        True
    """

    def __init__(self) -> None:
        self._before = _seconds()

    def others(self) -> float | None:
        """Cores that others kept busy on average since the start, 0 for none; None if unknown."""
        after = _seconds()
        if self._before is None or after is None:
            return None
        elapsed, busy, own = (b - a for a, b in zip(self._before, after, strict=True))
        return max(0.0, (busy - own) / elapsed) if elapsed > 0 else 0.0


def _seconds() -> tuple[float, float, float] | None:
    """Seconds on the clock, seconds that all cores were busy, seconds of our own threads."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()
        user, nice, system, _, _, irq, softirq = (float(field) for field in line[1:8])
        busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    return time.perf_counter(), busy, time.process_time()


class Rounds:
    """Which rounds had the machine to themselves, judged in blocks.

    Attributes:
        cores: by round, the cores that others kept busy in its block; None where that is unknown.
    """

    def __init__(self) -> None:
        self.cores: list[float | None] = []
        self._open = 0
        self._start()

    def _start(self) -> None:
        self._watch, self._began = Watch(), time.perf_counter()

    def add(self) -> None:
        """One more round is over."""
        self._open += 1
        if time.perf_counter() - self._began >= _BLOCK:
            self.close()

    def close(self) -> None:
        """Judge the rounds since the last block."""
        self.cores += [self._watch.others()] * self._open
        self._open = 0
        self._start()

    def quiet(self) -> list[int]:
        """The rounds, by number, in which nobody else is known to have been at work."""
        return [i for i, cores in enumerate(self.cores) if cores is None or cores <= QUIET]


def mean(cores: Sequence[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [one for one in cores if one is not None]
    return sum(known) / len(known) if known else None
