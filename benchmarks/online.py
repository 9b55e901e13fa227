"""`elman online forecast` on a long stream: does its memory grow, and does it go on exactly?

    python benchmarks/online.py --lines 1000000

A series is made from a seed and written as a CSV. One run reads it to its end. Another is stopped
by SIGTERM at half of it and resumed, killed by SIGKILL at three quarters and resumed. What both
wrote must be the same bytes. The resident memory of the first is read from /proc while it runs (so
on Linux only). Asked and seen are printed side by side; the exit code is 1 where something falls
short.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import math
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

SETTLED = 10_000  # lines after which the memory must not grow
MOST_GROWTH = 0.01


def main() -> int:
    """Run both streams, and print what was asked beside what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=int, default=50_000, help="rows of the series (50,000)")
    parser.add_argument("--every", type=int, default=10_000, help="lines between savings (10,000)")
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--learning", default="rtrl")
    parser.add_argument("--seed", type=int, default=0, help="of the series")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        folder = asked.folder or Path(aside)
        folder.mkdir(parents=True, exist_ok=True)
        write_series(folder / "series.csv", asked.lines, asked.seed)
        model = ["--cell", asked.cell, "--hidden", asked.hidden, "--learning", asked.learning]
        return measure(folder, asked.lines, ["--every", asked.every], model)


def write_series(path: Path, rows: int, seed: int) -> None:
    """A Mackey–Glass series in noise, and a second column: the time of day as a wave."""
    draw, step, delay = random.Random(seed), 0.1, 170
    past = [1.2] * (delay + 1)
    with path.open("w", encoding="utf-8") as file:
        file.write("line,y,hour\n")
        for t in range(rows):
            for _ in range(10):
                late = past.pop(0)
                past.append(past[-1] + step * (0.2 * late / (1 + late**10) - 0.1 * past[-1]))
            y = past[-1] + 0.02 * draw.gauss(0, 1)
            file.write(f"{t},{y:.6f},{math.sin(2 * math.pi * t / 288):.4f}\n")


def measure(folder: Path, lines: int, saving: list, model: list) -> int:
    """Both streams at once: one a core."""
    new = ["--target", "y", "--features", "hour", "--input", folder / "series.csv", *model, *saving]
    broken = threading.Thread(target=run_broken, args=(folder, lines, new, saving))
    broken.start()
    whole = Stream(folder / "whole", new, folder / "whole.csv")
    whole.watch()
    broken.join()
    return report(folder, lines, whole)


def run_broken(folder: Path, lines: int, new: list, saving: list) -> None:
    """Stopped at a half, killed at three quarters, and resumed each time."""
    run, output = folder / "broken", folder / "broken.csv"
    Stream(run, new, output).watch(lambda at: at >= lines // 2, signal.SIGTERM)
    Stream(run, ["--resume", *saving]).watch(
        lambda at: at >= 3 * lines // 4, signal.SIGKILL, output
    )
    Stream(run, ["--resume", *saving]).watch()


class Stream:
    """One process of `elman online forecast`.

    Attributes:
        settled: resident bytes when it had written `SETTLED` lines.
        most: the most resident bytes after that.
        seconds: that it ran.
    """

    def __init__(self, run: Path, arguments: list, output: Path | None = None):
        to = ["--output", output] if output else []
        words = ["-m", "elman", "online", "forecast", "--run", run, *arguments, *to, "-q"]
        self.output, self.settled, self.most = output, 0, 0
        self._began = time.monotonic()
        self._process = subprocess.Popen([sys.executable, *map(str, words)])

    def watch(
        self,
        until: Callable[[int], bool] = lambda at: False,
        end: signal.Signals = signal.SIGTERM,
        output: Path | None = None,
    ) -> None:
        """Look at its memory until it ends, or send a signal when it has come far enough."""
        output = self.output or output
        while self._process.poll() is None:
            time.sleep(0.05)
            at = 0 if output is None else last_line(output)
            if until(at):
                self._process.send_signal(end)
                break
            if at >= SETTLED:
                now = resident(self._process.pid)
                self.settled = self.settled or now
                self.most = max(self.most, now)
        code = self._process.wait()
        self.seconds = time.monotonic() - self._began
        if code not in (0, 130, -signal.SIGKILL):
            raise SystemExit(f"elman online forecast ended with {code}")


def last_line(path: Path) -> int:
    """The number of the line that a file of results was written up to."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 400))
            whole = file.read().rpartition(b"\n")[0]
    except FileNotFoundError:
        return 0
    first = whole.rpartition(b"\n")[2].partition(b",")[0]
    return int(first) if first.isdigit() else 0


def resident(process: int) -> int:
    """Bytes of memory that a process holds; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def report(folder: Path, lines: int, whole: Stream) -> int:
    """Print asked beside seen; 1 where something falls short."""
    same = filecmp.cmp(folder / "whole.csv", folder / "broken.csv", shallow=False)
    growth = whole.most / whole.settled - 1 if whole.settled else math.nan
    last = (folder / "whole.csv").read_text().splitlines()[-1].split(",")
    rows = [
        ("lines", f"{lines:,}", f"{int(last[0]) - 1:,}", int(last[0]) == lines + 1),
        (f"memory after line {SETTLED:,}", "+1 % at most",
         f"+{100 * growth:.2f} % of {whole.settled / 2**20:.0f} MiB", growth < MOST_GROWTH),
        ("stopped, killed, resumed", "the same bytes", "same" if same else "DIFFERENT", same),
        ("a line, with another run beside", "about 0.5 ms",
         f"{1000 * whole.seconds / lines:.2f} ms", None),
        ("NMSE, persistence's", "-", f"{last[5]}, {last[7]}", None),
    ]  # fmt: skip
    for what, wanted, seen, good in rows:
        mark = "" if good is None else "yes" if good else "NO"
        print(f"{what:34s} {wanted:18s} {seen:28s} {mark}")
    seen = {"lines": lines, "growth": growth, "same": same, "seconds": whole.seconds}
    (folder / "seen.json").write_text(json.dumps(seen) + "\n")
    return int(not all(good is not False for *_, good in rows))


if __name__ == "__main__":
    sys.exit(main())
