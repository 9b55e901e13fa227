"""The folder of a run: what is in it, how it comes to be, how its metrics are kept in step."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from elman.errors import FileError, RunError

_PARTS = (
    "config.yaml",
    "metrics.jsonl",
    "train.log",
    "checkpoints",
    "plots",
    "model.safetensors",
    "result.json",
    "baseline.safetensors",
    "keepsake.json",
    "data.txt",
    "data.jsonl",
)


class RunFolder:
    """Paths of a run's files.

    Attributes:
        path: the folder.
        config: everything the run was asked for and what was chosen, YAML.
        metrics: one JSON object a line.
        log: what was said, with the time.
        last: the latest checkpoint, from which the run goes on.
        best: the best weights so far, as a model file.
        model: the finished model.
        result: figures of the finished run, JSON; it is there when all is done.
        baseline: what the finished model was compared with, as a model file, if it can be kept.
        keepsake: what the task's pictures need, JSON.
        data: lines given from Python or standard input, kept so that the run can go on.
        rows: a table given from Python, likewise.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "train.log"
        self.last = self.path / "checkpoints" / "last.safetensors"
        self.best = self.path / "checkpoints" / "best.safetensors"
        self.model = self.path / "model.safetensors"
        self.result = self.path / "result.json"
        self.baseline = self.path / "baseline.safetensors"
        self.keepsake = self.path / "keepsake.json"
        self.data = self.path / "data.txt"
        self.rows = self.path / "data.jsonl"

    def holds_a_run(self) -> bool:
        """Return whether there is something of a run in the folder."""
        return any((self.path / part).exists() for part in _PARTS)

    def check_free(self, overwrite: bool) -> None:
        """See that a new run may be written here.

        Raises:
            RunError: there is a run and `overwrite` is false, or there are other things.
        """
        if not self.path.exists():
            above = next(folder for folder in self.path.absolute().parents if folder.exists())
            if not above.is_dir():
                raise RunError(f"{self.path} cannot be made: {above} is a file, not a folder.")
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path} is a file; a run needs a folder of its own.")
        if self.holds_a_run():
            if not overwrite:
                raise RunError(
                    f"{self.path} already holds a run; go on with it (resume), write over it "
                    "(overwrite), or name another folder (run)."
                )
            return
        others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
        if others:
            raise RunError(
                f"{self.path} is not empty and holds no run ({others[0]} is in it); name a folder "
                "that is new or empty."
            )

    def check_outside(self, files: Iterable[Path]) -> None:
        """See that nothing the new run is to read would be deleted with the old one.

        Raises:
            RunError: a file or folder is, or is within, what `create` takes away.
        """
        doomed = [place / part for place in _places(self.path) for part in _PARTS]
        for file in files:
            if not file.exists():
                continue
            inside = any(p.is_relative_to(old) for p in _places(file) for old in doomed)
            if inside or (self.path.exists() and file.samefile(self.path)):
                raise RunError(
                    f"{file} is inside {self.path}, which overwrite would empty before the run "
                    "begins; move it out of the folder, or name another folder (run)."
                )

    def create(self) -> None:
        """Make the folder, without what an older run left in it.

        Raises:
            RunError: the system does not allow it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for part in _PARTS:
                old = self.path / part
                if old.is_dir() and not old.is_symlink():
                    shutil.rmtree(old)
                else:
                    old.unlink(missing_ok=True)
            (self.path / "checkpoints").mkdir()
            (self.path / "plots").mkdir()
        except OSError as error:
            raise _not_made(self.path, error) from None

    def check_resumable(self) -> None:
        """See that the last checkpoint is there, unless the run was killed before the first one.

        Raises:
            RunError: the run has left traces of training, and no checkpoint to go on from.
        """
        if self.last.exists():
            return
        weights = [file for file in (self.model, self.best) if file.exists()]
        trained = self.metrics.exists() and self.metrics.stat().st_size > 0
        if weights or trained or self.result.exists():
            way = "a new run can begin with other weights or none"
            if weights:
                way = (
                    f"the weights are still in {weights[0]}, and a new run (another --run) can "
                    f"begin with them: --init-from {weights[0]} (init_from)"
                )
            raise RunError(
                f"{self.last} is missing, so this run cannot go on; nothing was changed; {way}."
            )

    def clear_leftovers(self) -> None:
        """Take away what a killed process had not finished writing."""
        for folder in (self.path, self.last.parent):
            for pattern in (".*.part", ".*.tmp"):
                for leftover in folder.glob(pattern):
                    leftover.unlink(missing_ok=True)


def _places(path: Path) -> tuple[Path, Path]:
    """Where a path points, links followed and not."""
    return Path(os.path.abspath(path)), path.resolve()


def _not_made(path: Path, error: OSError) -> RunError:
    why = (error.strerror or str(error)).lower()
    return RunError(f"{path} cannot be made: {why}; name another folder (run).")


def next_name(task: str, title: str, parent: Path | None = None) -> Path:
    """Make a new folder `runs/TASK-TITLE-001`, with the first number that is free.

    The folder is made at once, so two runs that start together never share one.

    Raises:
        RunError: the system does not allow it.
    """
    parent = Path("runs") if parent is None else parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_made(parent, error) from None
    slug = re.sub(r"[^\w.]+", "-", title).strip("-.").lower()[:40] or "run"
    number = 1
    while True:
        path = parent / f"{task}-{slug}-{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise _not_made(path, error) from None
        return path


def write_text(path: Path, text: str) -> None:
    """Write a small file aside, flush it to the disk, and rename it into place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names to the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class MetricsFile:
    """Rows of metrics, one JSON object a line, each handed to the system as it is written.

    Args:
        path: of the file; rows are added at its end.
    """

    def __init__(self, path: Path):
        self._file: TextIO = path.open("a", encoding="utf-8", newline="\n")

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Flush the rows to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def cut_metrics(path: Path, step: int) -> None:
    """Cut a metrics file back to its rows up to `step`.

    Rows up to a checkpoint were flushed to the disk before it. Whatever stands behind the first
    row that is past it, half-written, or unreadable came later, and goes.
    """
    if not path.exists():
        return
    data = path.read_bytes()
    kept = 0
    for line in data.splitlines(keepends=True):
        try:
            past = not line.endswith(b"\n") or json.loads(line)["step"] > step
        except (ValueError, TypeError, KeyError):
            past = True
        if past:
            break
        kept += len(line)
    if kept < len(data):
        with open(path, "r+b") as file:
            file.truncate(kept)
            os.fsync(file.fileno())


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a metrics file.

    Raises:
        FileError: the file is missing or a row cannot be read.
    """
    if not path.is_file():
        raise FileError(f"{path}: no such file.")
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError:
                raise FileError(f"{path}: line {number} is not a row of metrics.") from None


def now() -> str:
    """Return the time of day for the log."""
    return time.strftime("%Y-%m-%d %H:%M:%S")
