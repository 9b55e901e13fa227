"""Ctrl-C in the middle of a run: finish the step, save, stop; the second one stops at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from elman.errors import ElmanError


class Interrupted(ElmanError):
    """A run was stopped from outside (SIGINT or SIGTERM) and saved; the message says how to go on.

    Attributes:
        exit_code: as the shell has it for a program that the signal ended: 130 for SIGINT (Ctrl-C),
            143 for SIGTERM.
    """

    exit_code = 130

    def __init__(self, message: str, name: str = "SIGINT"):
        super().__init__(message)
        self.exit_code = 128 + signal.Signals[name]


class StopSignals:
    """While in use as a context, the first SIGINT or SIGTERM sets `received` to its name.

    The second raises KeyboardInterrupt where the program stands. Outside the main thread, where
    Python handles no signals, nothing is changed and nothing received.

    Args:
        apart: seconds between the first and the second, at least; whatever comes before is taken
            as the first one again. A launcher hands on what the terminal has sent already.
    """

    def __init__(self, apart: float = 0.0) -> None:
        self.received: str | None = None
        self._apart, self._at = apart, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._at = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._at >= self._apart:
            raise KeyboardInterrupt
