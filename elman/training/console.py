"""What a run says: a bar where a person watches, plain lines elsewhere, the log always."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from elman.training.folder import now

if TYPE_CHECKING:
    from rich.progress import Progress

_EVERY = 0.25  # seconds between two pictures of the bar


class Console:
    """Says lines to train.log and, unless quiet, to standard error, with a bar on a terminal.

    Nothing goes to standard output. The bar is drawn from the loop, at most four times a second:
    no thread runs beside the training.

    Args:
        log: path of train.log; lines are added at its end. None keeps none.
        quiet: say nothing on the screen.
    """

    def __init__(self, log: Path | None, quiet: bool):
        self.quiet = quiet
        self._log: TextIO | None = log.open("a", encoding="utf-8") if log else None
        self._bar: Progress | None = None
        self._drawn = 0.0
        if not quiet and sys.stderr.isatty():
            self._bar = _make_bar()
            self._task = self._bar.add_task("", total=1.0, text="")

    def say(self, line: str = "") -> None:
        """Say one line, or several joined by line ends."""
        self.log(line)
        if self.quiet:
            return
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def log(self, line: str) -> None:
        """Put a line into train.log only."""
        if self._log:
            for part in line.split("\n"):
                self._log.write(f"{now()}  {part}\n")
            self._log.flush()

    def start(self) -> None:
        """Show the bar, where there is one."""
        if self._bar:
            self._bar.start()

    def due(self) -> bool:
        """Return whether the bar wants a new picture."""
        return self._bar is not None and time.monotonic() - self._drawn >= _EVERY

    def draw(self, progress: float, text: str) -> None:
        """Draw the bar with a text beside it."""
        if self._bar:
            self._drawn = time.monotonic()
            self._bar.update(self._task, completed=progress, text=text)
            self._bar.refresh()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def close(self) -> None:
        """Take the bar away and close the log."""
        self.stop()
        if self._log:
            self._log.close()
            self._log = None


def _make_bar() -> Progress:
    """Make the bar; rich is loaded only here."""
    import rich.console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.percentage:3.0f}%"),
        BarColumn(bar_width=8),
        TextColumn("{task.fields[text]}", markup=False),
        console=rich.console.Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def duration(seconds: float) -> str:
    """Write a time in words that fit it.

    Example:
        >>> duration(7.2), duration(75), duration(7384)
        ('7 s', '1:15', '2:03:04')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def amount(number: float) -> str:
    """Write a large number in three digits.

    Example:
        >>> amount(950), amount(48213), amount(2.5e6)
        ('950', '48.2k', '2.5M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def bits(nats: float) -> float:
    """Return nats as bits."""
    return nats / math.log(2.0)


def figure(value: float | None, digits: int = 4) -> str:
    """Return a loss with so many decimals, or as a power of ten where it is absurdly large.

    Example:
        >>> figure(1.23456), figure(1.23456, 2), figure(1e30)
        ('1.2346', '1.23', '1e+30')
    """
    value = math.nan if value is None else value
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.4g}"


def judgement(
    metric: str, loss: float | None, value: float, speed: float, unit: str = "token"
) -> str:
    """Return a validation in words.

    Args:
        metric: name of the task's metric.
        loss: recent loss of training, if there is one.
        value: of the metric.
        speed: units a second.
        unit: what the loss of training is a mean over.

    Example:
        >>> judgement("nats_per_char", 1.5, 1.25, 2000)
        'loss 1.5000  validation 1.2500 nats/char (1.803 bits)  2k tokens/s'
    """
    text = "" if loss is None else f"loss {figure(loss)}  "
    text += f"validation {figure(value)} {metric.replace('nats_per_', 'nats/').replace('_', ' ')}"
    if metric.startswith("nats_per_"):
        text += f" ({figure(bits(value), 3)} bits)"
    return f"{text}  {amount(speed)} {unit}s/s"
