"""A forecast of a stream from its first line to its last, kept so that it can go on."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from elman.data.lines import Lines
from elman.data.rows import Bad, Rows
from elman.equation import Cell
from elman.errors import FileError, InputError, RunError
from elman.online import output as out
from elman.online.forecast import Forecast, Forecaster, ForecastOptions
from elman.online.learner import read
from elman.tasks.base import parse_options
from elman.training.device import own_settings
from elman.training.signals import Interrupted, StopSignals

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STATE = "online.safetensors"
_PATIENCE = 0.25  # seconds to wait for a line before looking for a signal
_SAVE_SECONDS = 60.0  # a slow stream is saved as often as this
_NO_ROWS = 100  # bad lines in a row, from the first on, that mean a wrong column
_SAID = 10  # warnings in full

_STAYS = "The last one stays in its place; further ones are counted, and not said."

Say = Callable[[str], None]


@dataclass(frozen=True)
class Where:
    """What is read and written.

    Args:
        source: a file; "-" is standard input; None is that on a new run, and the run's on resume.
        output: a file; None is standard output.
        run: folder in which the state is kept; None keeps none.
        every: lines between two savings, >= 1.
        strict: whether a bad line is an error.
        resume: go on with the run in `run`.
        overwrite: a run in the folder, and the output file, may be replaced.
        columns: names of the columns of a CSV without a header.
    """

    source: str | None = None
    output: str | None = None
    run: str | None = None
    every: int = 10_000
    strict: bool = False
    resume: bool = False
    overwrite: bool = False
    columns: Sequence[str] | None = None


@dataclass
class Counts:
    """Lines so far: all of them, rows of numbers, and bad ones."""

    lines: int = 0
    rows: int = 0
    bad: int = 0


def forecast(
    target: str | None,
    features: Sequence[str] | str,
    given: dict[str, Any],
    where: Where,
    say: Say,
) -> Forecaster:
    """Forecast a column of a stream, line after line, until it ends or a signal comes.

    Args:
        target: name of the column; may be None on resume.
        features: further columns that are read, or "all".
        given: options of `ForecastOptions` by name.
        where: what is read and written.
        say: is told what was found, what is wrong, and how it went.

    Returns:
        Forecaster: as it stands at the end.

    Raises:
        InputError: options or columns that cannot be used; a bad line where it is strict.
        FileError: the source, the output or the saved state cannot be read or written.
        RunError: a folder or file that holds something already, or nothing to resume.
        Interrupted: SIGINT or SIGTERM came; the state is saved where there is a run.
    """
    with StopSignals() as signals, ExitStack() as opened:
        make = _resumed if where.resume else _begun
        stream = make(target, features, given, where, say, opened)
        opened.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)  # a network this small is slower on more
        opened.enter_context(own_settings(stream.options.seed, True))
        return stream.walk(signals)


def _begun(
    target: str | None,
    features: Sequence[str] | str,
    given: dict[str, Any],
    where: Where,
    say: Say,
    opened: ExitStack,
) -> _Stream:
    """A stream from its first line."""
    if target is None:
        raise InputError("online forecast: name the column to forecast (--target).")
    options = parse_options(ForecastOptions, given, "online forecast")
    where = replace(where, source=where.source or "-")
    _check(where)
    lines = opened.enter_context(Lines(where.source or "-"))
    if where.run is not None:
        _make_folder(Path(where.run), where.overwrite, opened)
    keep = 0 if where.overwrite else None
    output = _output(where.output, keep, opened)
    rows = Rows(target, features, lines.name, where.columns)
    return _Stream(options, where, rows, lines, output, say)


def _resumed(
    target: str | None,
    features: Sequence[str] | str,
    given: dict[str, Any],
    where: Where,
    say: Say,
    opened: ExitStack,
) -> _Stream:
    """A stream from where it was saved."""
    if where.run is None:
        raise InputError("online forecast: --resume needs the folder of the run (--run).")
    if where.overwrite:
        raise InputError("online forecast: --resume goes on with a run; --overwrite begins one.")
    state = Path(where.run) / STATE
    if not state.exists():
        raise RunError(f"{state}: there is no such file, so there is nothing to resume.")
    _alone(state.parent, opened)
    notes = read(state)[0]["notes"]
    options = _same_options(notes["options"], given)
    _same_columns(notes["rows"]["names"], target, features)
    source = _absolute(where.source) if where.source else notes["source"]
    output = _absolute(where.output) if where.output else notes["output"]
    where = replace(where, source=source, output=output)
    _check(where)
    start, held = 0, b""
    if source == notes["source"]:
        start = notes["offset"]
        held = base64.b64decode(notes["held"])
    lines = opened.enter_context(Lines(source, start, held))
    same = output == notes["output"]
    to = _output(output, notes["written"] if same else None, opened)
    rows = Rows(notes["rows"]["names"][0], (), lines.name)
    rows.load_state_dict(notes["rows"])
    return _Stream(options, where, rows, lines, to, say, notes, headed=same)


class _Stream:
    """The loop over lines, and all that it keeps."""

    def __init__(
        self,
        options: ForecastOptions,
        where: Where,
        rows: Rows,
        lines: Lines,
        output: out.Output,
        say: Say,
        notes: dict[str, Any] | None = None,
        headed: bool = False,
    ):
        self.options, self._where = options, where
        self._rows, self._lines, self._output, self._say = rows, lines, output, say
        self._notes, self._headed = notes, headed
        self._counts = Counts(**notes["counts"]) if notes else Counts()
        self._forecaster: Forecaster | None = None
        self._saved_at, self._saved_lines = time.monotonic(), self._counts.lines

    def walk(self, signals: StopSignals) -> Forecaster:
        """Line after line, until the source ends or a signal comes."""
        if self._notes is not None:
            self._take_up(self._notes)
        try:
            while signals.received is None:
                line = self._lines.read(_PATIENCE)
                if line is not None:
                    self._take(line)
                elif self._lines.ended:
                    break
                if self._due():
                    self._save()
        except BrokenPipeError:
            self._save()
            raise
        if signals.received is not None:
            self._save(b"" if self._lines.returns else self._lines.held())
            raise Interrupted(self._stopped(signals.received), signals.received)
        if self._forecaster is None:
            raise self._nothing()
        self._save()
        self._say(self._summary())
        return self._forecaster

    # A line.

    def _take(self, line: bytes) -> None:
        """What the line holds, what is forecast from it, what is written."""
        found = self._rows.take(line)
        self._counts.lines += 1
        if found is None:
            return
        if isinstance(found, Bad):
            self._warn(found.why)
            self._write(None)
            return
        self._counts.rows += 1
        forecaster = self._forecaster or self._begin()
        whole = not forecaster.missing
        made = forecaster.step(found.values)
        if whole and forecaster.missing:
            self._say(f"note: {self._here()}: a value is missing. {_STAYS}")
        self._write(made)

    def _write(self, made: Forecast | None) -> None:
        kind, delimiter = self._rows.kind, self._rows.delimiter
        line = out.row(kind, delimiter, self._rows.number, made)
        if not self._headed:
            self._headed = True
            line = out.header(kind, delimiter) + line
        self._output.write(line)

    def _here(self) -> str:
        return f"{self._lines.name}, line {self._rows.number}"

    def _warn(self, why: str) -> None:
        if self._where.strict:
            raise InputError(f"{self._here()}: {why}.")
        counts = self._counts
        counts.bad += 1
        if counts.bad <= _SAID:
            self._say(f"warning: {self._here()} was skipped: {why}.")
        if counts.bad == _SAID:
            self._say("warning: further lines that are skipped are counted, and not said.")
        if not counts.rows and counts.bad == _NO_ROWS:
            raise InputError(
                f"{self._here()}: none of the first {_NO_ROWS} rows can be used ({why}). Is "
                f"{self._rows.target!r} a column of numbers?"
            )

    # The network.

    def _begin(self) -> Forecaster:
        """Make the network, when the columns are known."""
        rows, options = self._rows, self.options
        self._forecaster = Forecaster(len(rows.names), options)
        others = ", ".join(rows.others[:8]) + (", …" if len(rows.others) > 8 else "")
        unread = f" (not read: {others}; --features takes them in)" if others else ""
        ahead = "one row" if options.horizon == 1 else f"{options.horizon} rows"
        self._say(f"forecasting {rows.target} {ahead} ahead from {', '.join(rows.names)}{unread}.")
        self._say(self._forecaster.words())
        return self._forecaster

    def _take_up(self, notes: dict[str, Any]) -> None:
        """Bring network and figures to where they were saved."""
        self._forecaster = Forecaster(len(self._rows.names), self.options)
        self._forecaster.learner.load(_state_of(self._where))
        self._forecaster.load_state_dict(notes["forecaster"])
        if self.options.lr != notes["options"]["lr"]:
            self._forecaster.learner.lr = self.options.lr
        ahead = len(self._lines.held())
        first = f"; {ahead:,} bytes that were read ahead come first" if ahead else ""
        self._say(f"going on after line {self._rows.number:,} of {self._lines.name}{first}.")

    # What is kept.

    def _due(self) -> bool:
        lines = self._counts.lines - self._saved_lines
        late = lines and time.monotonic() - self._saved_at >= _SAVE_SECONDS
        return bool(lines >= self._where.every or late)

    def _save(self, held: bytes = b"") -> None:
        """Keep everything, if there is a place and something to keep."""
        self._saved_at, self._saved_lines = time.monotonic(), self._counts.lines
        if self._where.run is None or self._forecaster is None:
            return
        written = self._output.sync()  # first, so that the state never points past the output
        notes = {
            "options": _plain(self.options),
            "rows": self._rows.state_dict(),
            "forecaster": self._forecaster.state_dict(),
            "counts": asdict(self._counts),
            "source": _absolute(self._where.source or "-"),
            "offset": self._lines.offset,
            "held": base64.b64encode(held).decode(),
            "output": None if self._where.output is None else _absolute(self._where.output),
            "written": written,
        }
        self._forecaster.learner.save(_state_of(self._where), notes)

    # What is said at the end.

    def _summary(self) -> str:
        counts, forecaster = self._counts, self._forecaster
        parts = [f"{counts.lines:,} lines", f"{counts.rows:,} rows"]
        if counts.bad:
            parts.append(f"{counts.bad:,} skipped")
        if forecaster is not None and forecaster.missing:
            parts.append(f"{forecaster.missing:,} values missing")
        verdict = "" if forecaster is None else f" {forecaster.verdict()}"
        return f"{', '.join(parts)}.{verdict}"

    def _stopped(self, signal: str) -> str:
        line = f"stopped by {signal} after line {self._rows.number:,}"
        if self._where.run is None or self._forecaster is None:
            return f"{line}; nothing is kept (--run DIR would). {self._summary()}"
        go_on = f"{self._summary()} Go on: --run {self._where.run} --resume"
        ahead = b"" if self._lines.returns else self._lines.held()
        if not ahead:
            return f"{line}, and saved. {go_on}"
        next_byte = self._lines.offset + len(ahead) + 1
        return (
            f"{line}, and saved with what was read ahead. {go_on}, and the pipe from its byte "
            f"{next_byte:,} on (tail -c +{next_byte} of the same data)"
        )

    def _nothing(self) -> InputError:
        name, lines = self._lines.name, self._counts.lines
        if not lines:
            return FileError(f"{name}: is empty (0 bytes).")
        skipped = f", {self._counts.bad} of them skipped" if self._counts.bad else ""
        return FileError(f"{name}: {lines} lines{skipped}, and no row of numbers among them.")


# -- what is asked for -------------------------------------------------------------------------


def _check(where: Where) -> None:
    """See that the places do not fall together."""
    if where.every < 1:
        raise InputError(f"online forecast: --every is {where.every}; expected a number >= 1.")
    source, output = Path(where.source or "-"), Path(where.output or "-")
    if where.output and source.exists() and output.exists() and source.samefile(output):
        raise InputError(f"online forecast: {output} is read and written at once.")


def _make_folder(run: Path, overwrite: bool, opened: ExitStack) -> None:
    if run.is_dir():
        _alone(run, opened)
    if (run / STATE).exists() and not overwrite:
        raise RunError(
            f"{run} already holds a run; go on with it (--resume), write over it (--overwrite), or "
            "name another folder (--run)."
        )
    there = run.is_dir()
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / STATE).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{run} cannot be made a folder: {error.strerror or error}.") from None
    if not there:
        _alone(run, opened)


def _alone(run: Path, opened: ExitStack) -> None:
    """Hold a run's folder until the end, so that no second process writes its state.

    The system lets go of it with the process, however that ends. Where it knows no such locks
    (Windows, some network disks) nothing is held.

    Raises:
        RunError: another process holds it.
    """
    if fcntl is None:
        return
    try:
        folder = os.open(run, os.O_RDONLY)
    except OSError:
        return
    opened.callback(os.close, folder)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(
            f"{run}: another process is at work on this run; stop it first, or name another folder "
            "(--run)."
        ) from None
    except OSError:
        return


def _state_of(where: Where) -> Path:
    return Path(where.run or ".") / STATE


def _output(path: str | None, keep: int | None, opened: ExitStack) -> out.Output:
    """Where lines go; of a file `keep` bytes stay, None says that there must be none."""
    if path is None:
        return out.ToScreen()
    output = out.ToFile(Path(path), keep)
    opened.callback(output.close)
    return output


def _absolute(path: str) -> str:
    """A path that holds wherever the run goes on."""
    return path if path == "-" else str(Path(path).absolute())


def _plain(options: ForecastOptions) -> dict[str, Any]:
    values = options.model_dump()
    cell = options.cell
    return {**values, "cell": cell.to_json() if isinstance(cell, Cell) else cell}


def _same_options(saved: dict[str, Any], given: dict[str, Any]) -> ForecastOptions:
    """The options of a run that goes on; only the learning rate may be another.

    Raises:
        InputError: an option that is given and differs.
    """
    asked = parse_options(ForecastOptions, given, "online forecast")
    for name in given:
        new, old = _plain(asked)[name], saved[name]
        if new != old and name != "lr":
            raise InputError(
                f"online forecast: --{name} is {new!r}, but the run was begun with {old!r}; leave "
                "it out, or begin another run."
            )
    cell = saved["cell"]
    cell = Cell.from_json(cell) if isinstance(cell, dict) else cell
    rate = {"lr": asked.lr} if "lr" in given else {}
    return parse_options(ForecastOptions, {**saved, "cell": cell, **rate}, "the saved run")


def _same_columns(names: list[str], target: str | None, features: Sequence[str] | str) -> None:
    if target not in (None, names[0]):
        raise InputError(
            f"online forecast: --target is {target!r}, but the run forecasts {names[0]!r}."
        )
    asked = [f for f in ([] if isinstance(features, str) else features) if f != names[0]]
    if asked and asked != names[1:]:
        had = ", ".join(names[1:]) or "none"
        raise InputError(
            f"online forecast: --features is {', '.join(asked)}, but the run was begun with {had}."
        )
