"""A run from beginning to end: new or resumed, trained, judged beside its baseline, kept."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from elman import tasks
from elman.errors import ElmanError, FileError, InputError, RunError, nearest
from elman.tasks import model_file
from elman.tasks.base import Budget, Task
from elman.training import checkpoint, config
from elman.training.config import DataFile, RunConfig
from elman.training.console import Console, duration, figure
from elman.training.device import make_fabric, own_settings
from elman.training.folder import RunFolder, cut_metrics, next_name, write_text
from elman.training.loop import Loop
from elman.training.options import (
    BUDGET,
    RESUMABLE,
    TrainingOptions,
    budget,
    check,
    divide,
    resolve,
)
from elman.training.signals import Interrupted, StopSignals

Data = str | Path | Iterable[str | Path]
Report = Callable[[Path], Sequence[str]]


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        model: the trained model, as `elman.load` gives it, with the best weights by validation.
        run: the run's folder.
        metrics: of these weights on the validation part.
        baseline: figures of the baseline on the same split.
        verdict: in words, which of the two is ahead.
        steps: optimiser steps made.
        seconds: that the training took, over all its sittings.
        ended: why it ended ("3 minutes", "500 steps", "no gain in 5 validations").
        validated_part: the part of the validation text that the metrics are on; less than 1 only
            where all of it would have taken a timed run too long. The baseline is on all of it.
    """

    model: Any
    run: Path
    metrics: dict[str, float]
    baseline: dict[str, Any] = field(default_factory=dict)
    verdict: str = ""
    steps: int = 0
    seconds: float = 0.0
    ended: str = ""
    validated_part: float = 1.0


_ALWAYS: list[Report] = []


def report_always(report: Report) -> None:
    """Call `report` after every run that is given no reports of its own."""
    if report not in _ALWAYS:
        _ALWAYS.append(report)


def train(
    task: str | Task,
    data: Data | None = None,
    *,
    run: str | Path | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    reports: Sequence[Report] | None = None,
    **options: Any,
) -> Result:
    """Train a model on data and leave everything about it in a run folder.

    The options are those of the command line, by the same names: the budget (`minutes`, `steps`,
    `epochs`), `seed`, `optimizer`, `lr` and the rest of `elman.training.TrainingOptions`, and the
    task's own (`cell`, `hidden`, `layers` and the rest of `elman.tasks.lm.LMOptions`). What is not
    given is chosen from the data and the budget, said, and kept in `config.yaml`.

    A run with `steps` or `epochs` gives the same bits each time on one machine, whether or not it
    was interrupted or killed and resumed. When a resumed run is given a larger budget, the learning
    rate takes the place on the longer schedule that belongs to its step (or its time); a finished
    run, whose rate had come to its end, thus begins to learn again.

    Args:
        task: name of a task, "lm", or a `Task` already built.
        data: a path, paths, or lines of text. None for a task already built, and on resume.
        run: folder of the run; None makes `runs/TASK-NAME-001`, with the first free number.
        resume: go on with the run in `run`, exactly. Needs nothing else; the budget, `lr`,
            `muon_lr`, `clip_norm`, `clip_value`, `patience` and the two intervals may be changed.
        init_from: a run folder or model file whose weights the new run begins with, and only those.
        overwrite: a run in the folder may be replaced.
        quiet: say nothing on the screen; `train.log` has it all.
        reports: called with the run's folder when it is finished; the lines they return are said.
            If not given, those of `report_always`: with `elman.train`, the run's pictures.
        options: options by name; None is as if not given.

    Returns:
        the trained model, where it is, and how good it is.

    Raises:
        InputError: an option that is not known or cannot be used.
        FileError: data, a model file or a checkpoint that cannot be read; data that changed.
        RunError: a folder that holds a run already, or none to resume.
        TrainingStopped: a loss that is no longer finite; the last good checkpoint is kept.
        Interrupted: SIGINT or SIGTERM came; the run is saved.
    """
    began = time.monotonic()
    given_task, given = divide(options, _task_fields(task))
    check(given)
    if resume and (init_from is not None or overwrite):
        other = "overwrite" if overwrite else "init_from"
        raise InputError(f"train: resume goes on with a run as it is; {other} begins a new one.")
    if resume:
        setup = _resume(task, data, run, given_task, given, quiet)
    else:
        setup = _begin(task, data, run, given_task, given, init_from, overwrite, quiet)
    try:
        return _train(setup, began, _ALWAYS if reports is None else reports)
    except ElmanError as error:
        setup.console.stop()
        setup.console.log(str(error))
        raise
    finally:
        setup.console.close()


def _task_fields(task: str | Task) -> Collection[str] | None:
    """Return the names of a task's options; none for a task that is already built."""
    if isinstance(task, Task):
        return ()
    if task != "lm":
        return None  # such a task there is not, which `tasks.build` says best
    from elman.tasks.lm.options import LMOptions

    return LMOptions.model_fields


@dataclass
class _Setup:
    """What a run needs to start: built anew, or found in its folder."""

    task: Task
    options: TrainingOptions
    folder: RunFolder
    console: Console
    resumed: bool = False
    extended: RunConfig | None = None  # with options that were changed on resume


# -- beginning -------------------------------------------------------------------------------


def _begin(
    task: str | Task,
    data: Data | None,
    run: str | Path | None,
    given_task: dict[str, Any],
    given: dict[str, Any],
    init_from: str | Path | None,
    overwrite: bool,
    quiet: bool,
) -> _Setup:
    """Build the task, then make the folder; when something is wrong, nothing has changed."""
    name = task if isinstance(task, str) else task.name
    files, text = ([], None) if isinstance(task, Task) else _data_files(data)
    if run is not None:
        RunFolder(run).check_free(overwrite)
        RunFolder(run).check_outside(_read_files(files, given_task, init_from))
    weights = None if init_from is None else _read_weights(Path(init_from))
    said = "standard input" if str(data) == "-" else "the lines given"
    built = _build(task, files, text, given_task, given, said)
    options = resolve(given, built.recommended)
    if weights is not None:
        _start_from(built, *weights)
    title = files[0].stem if files else name
    folder = RunFolder(next_name(name, title) if run is None else run)
    fingerprints = [config.fingerprint(file) for file in files]
    if text is not None:
        fingerprints = [config.fingerprint_text(folder.data, text)]
    configuration = _configuration(built, fingerprints, options)
    folder.create()
    if text is not None:
        folder.data.write_bytes(text)
    config.write(folder.config, configuration)
    console = Console(folder.log, quiet)
    for line in built.describe():
        console.say(line)
    console.say(_describe(options))
    return _Setup(built, options, folder, console)


def _build(
    task: str | Task,
    files: Sequence[Path],
    text: bytes | None,
    given_task: dict[str, Any],
    given: dict[str, Any],
    said: str,
) -> Task:
    """Build a task from files, or from a text, which errors call what was `said`."""
    if isinstance(task, Task):
        return task
    limits, seed = budget(given), given.get("seed", 0)
    if text is None:
        return _build_from(task, files, given_task, limits, seed)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "data.txt"
        file.write_bytes(text)
        try:
            return _build_from(task, [file], given_task, limits, seed)
        except (FileError, InputError) as error:
            if str(file) not in str(error):
                raise
            raise type(error)(str(error).replace(str(file), said)) from None


def _build_from(
    task: str,
    files: Sequence[str | Path],
    options: Mapping[str, Any],
    limits: Budget,
    seed: int,
) -> Task:
    """Build a task; a model that does not fit into memory is said to be too large, and how large.

    Raises:
        InputError: there is not enough memory.
    """

    def build() -> Task:
        return tasks.build(task, files, options, budget=limits, seed=seed)

    try:
        return build()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        with torch.device("meta"):  # shapes without weights
            weights = sum(weight.numel() for weight in build().model.parameters())
        raise InputError(
            f"train: this model would have {weights:,} weights, {_memory(4 * weights)} in float32 "
            f"and about {_memory(16 * weights)} to train, and the memory is not there; choose a "
            "smaller one (hidden, layers, embedding)."
        ) from None


def _memory(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.0f} TB"


def _read_files(
    files: Sequence[Path], options: Mapping[str, Any], init_from: str | Path | None
) -> list[Path]:
    """Return all that a new run is to read."""
    further = [entry for entry in (options.get("valid_file"), init_from) if entry is not None]
    return [*files, *(Path(entry) for entry in further if isinstance(entry, str | Path))]


def _data_files(data: Data | None) -> tuple[list[Path], bytes | None]:
    """Return the files of data, or else the text itself; a list is all files or all lines."""
    if data is None:
        raise InputError("train: name the data: a path, paths, or lines of text.")
    if isinstance(data, str | Path):
        if str(data) == "-":
            return [], sys.stdin.buffer.read()
        return [Path(data)], None
    entries = list(data)
    if not entries:
        raise InputError("train: the list of data is empty.")
    wrong = [entry for entry in entries if not isinstance(entry, str | Path)]
    if wrong:
        raise InputError(f"train: data are paths or lines, got {type(wrong[0]).__name__}.")
    if any(isinstance(entry, Path) or _looks_like_a_path(entry) for entry in entries):
        return [Path(entry) for entry in entries], None
    return [], "".join(f"{str(entry).rstrip()}\n" for entry in entries).encode()


def _looks_like_a_path(entry: str) -> bool:
    if "\n" in entry or len(entry) > 255:
        return False
    return Path(entry).is_file() or (entry.endswith(".txt") and " " not in entry)


def _configuration(task: Task, data: Sequence[DataFile], options: TrainingOptions) -> RunConfig:
    own = config.plain(task.config)
    also = [own["valid_file"]] if own.get("valid_file") else []
    return RunConfig(
        format=config.FORMAT,
        elman=_version(),
        task=task.name,
        data=list(data),
        also=[config.fingerprint(file) for file in also],
        options=own,
        training=options,
    )


def _version() -> str:
    try:
        return version("elman")
    except PackageNotFoundError:
        return "unknown"


def _describe(options: TrainingOptions) -> str:
    limits = [f"{getattr(options, name):g} {name}" for name in BUDGET if getattr(options, name)]
    rates = f"lr {options.lr:g}"
    if options.optimizer == "muon":
        rates += f" (matrices {options.muon_lr:g})"
    parts = [
        f"training: {', at most '.join(limits) or '0 steps'}",
        f"{options.optimizer}, {rates}, {options.schedule}",
        f"precision {options.precision} on {options.device}",
        f"seed {options.seed}",
    ]
    return "; ".join(parts)


def _read_weights(path: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Read the weights and metadata of a run folder or model file."""
    if path.is_dir():
        folder = RunFolder(path)
        found = [file for file in (folder.model, folder.best) if file.exists()]
        if not found:
            raise FileError(f"{path}: there is no model in this folder to take weights from.")
        path = found[0]
    kind, metadata, tensors = model_file.read(path)
    if kind == checkpoint.KIND:
        raise FileError(f"{path}: this is a checkpoint; name its run folder instead.")
    return path, metadata, tensors


def _start_from(task: Task, path: Path, theirs: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Put weights into a new task's model, if they mean the same there."""
    ours = task.metadata()
    if ours.get("vocabulary") != theirs.get("vocabulary"):
        raise InputError(
            f"{path}: init_from: this model was trained on another vocabulary than that of the new "
            "data, so its weights would mean something else."
        )
    checkpoint.load_weights(path, task.model, tensors)


# -- resuming --------------------------------------------------------------------------------


def _resume(
    task: str | Task,
    data: Data | None,
    run: str | Path | None,
    given_task: dict[str, Any],
    given: dict[str, Any],
    quiet: bool,
) -> _Setup:
    if run is None:
        raise RunError("train: name the run folder to resume (run).")
    folder = RunFolder(run)
    if not folder.path.is_dir():
        raise RunError(f"{folder.path}: there is no such run folder to resume.")
    if not folder.config.exists():
        raise RunError(
            f"{folder.path} holds no run to resume (no config.yaml in it); begin one, without "
            "resume."
        )
    found = config.read(folder.config)
    folder.check_resumable()
    _check_same(task, data, given_task, given, found)
    config.check_unchanged([*found.data, *found.also])
    options = _changed(found.training, given)
    if isinstance(task, Task):
        built = task
    else:
        paths = [file.path for file in found.data]
        limits = budget(config.plain(options))
        built = _build_from(found.task, paths, found.options, limits, options.seed)
    new = None
    if options != found.training:
        new = found.model_copy(update={"training": options})
    return _Setup(built, options, folder, Console(folder.log, quiet), True, new)


def _check_same(
    task: str | Task,
    data: Data | None,
    given_task: Mapping[str, Any],
    given: Mapping[str, Any],
    found: RunConfig,
) -> None:
    """See that what was said again on resume is what the run began with."""
    name = task if isinstance(task, str) else task.name
    if name != found.task:
        raise RunError(f"train: this is a run of {found.task!r}, not of {name!r}.")
    if data is not None:
        files, text = _data_files(data)
        paths = [str(file.absolute()) for file in files]
        if text is not None or paths != [file.path for file in found.data]:
            raise RunError(
                "train: resume takes the data the run began with; leave them out, or begin a new "
                "run with init_from."
            )
    began = {**found.options, **config.plain(found.training)}
    for option, value in {**given_task, **given}.items():
        if option not in began:
            known = list(began)
            raise InputError(f"train: unknown option {option!r}.{nearest(option, known)}")
        if option not in RESUMABLE and value not in (began[option], "auto"):
            raise RunError(
                f"train: {option} is {began[option]!r} in this run and cannot become {value!r} on "
                "resume; begin a new run (init_from keeps the weights)."
            )


def _changed(options: TrainingOptions, given: Mapping[str, Any]) -> TrainingOptions:
    """Return a run's options with what was said anew; a new budget takes the place of the old."""
    values = config.plain(options)
    if any(given.get(name) is not None for name in BUDGET):
        values.update(dict.fromkeys(BUDGET))
    values.update({name: value for name, value in given.items() if name in RESUMABLE})
    return check(values)


# -- training --------------------------------------------------------------------------------


def _train(setup: _Setup, began: float, reports: Sequence[Report]) -> Result:
    folder, console, options = setup.folder, setup.console, setup.options
    with StopSignals() as signals, own_settings(options.seed, options.flush_denormal):
        fabric = make_fabric(options.device, options.precision)
        fabric.setup_module(setup.task.model)
        loop = Loop(setup.task, options, folder, console, fabric, began)
        if setup.resumed:
            _take_up(setup, loop)
            finished = loop.position.ended is not None and folder.result.exists()
            if finished:
                console.say(f"{folder.path}: this run is finished ({loop.position.ended}).")
                return _read_result(setup)
        console.start()
        loop.run(signals)
        metrics = loop.finish()
        model_file.write(
            folder.model, setup.task.name, setup.task.metadata(), setup.task.model.state_dict()
        )
        console.stop()
    seconds = loop.seconds()
    _say_finished(setup, loop, metrics, seconds)
    try:
        if signals.received:
            raise KeyboardInterrupt
        baseline = setup.task.baseline()
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped before the baseline was measured; the model in {folder.path} is finished. "
            f"For the comparison: elman train {setup.task.name} --run {folder.path} --resume"
        ) from None
    return _conclude(setup, loop, metrics, baseline, seconds, reports)


def _take_up(setup: _Setup, loop: Loop) -> None:
    """Bring the loop to where the run stands on the disk; the folder changes when all is well."""
    folder, console = setup.folder, setup.console
    if folder.last.exists():
        loop.resume()
    position = loop.position
    again = position.ended is not None and setup.extended is not None and loop.progress() < 1.0
    finished = position.ended is not None and folder.result.exists() and not again
    if position.best is not None and not folder.best.exists() and not finished:
        raise RunError(
            f"{folder.best} is missing, so this run cannot go on; nothing was changed. Begin a new "
            f"one with the weights of another (init_from)."
        )
    folder.clear_leftovers()
    folder.last.parent.mkdir(exist_ok=True)
    if setup.extended is not None:
        config.write(folder.config, setup.extended)
    cut_metrics(folder.metrics, position.step)
    if again:
        position.ended, position.waiting = None, 0
        folder.result.unlink(missing_ok=True)
        console.say(
            f"{folder.path}: going on after step {position.step} with the new options; the "
            f"learning rate is that of {loop.progress():.0%} of the new budget."
        )
    elif position.ended is None:
        console.say(f"{folder.path}: going on after step {position.step}.")


def _say_finished(setup: _Setup, loop: Loop, metrics: dict[str, float], seconds: float) -> None:
    position, task = loop.position, setup.task
    value = metrics[task.metric]
    part = loop.judged_part()
    of = "" if part >= 1.0 else f" on the first {_percent(part)} of the validation part"
    setup.console.say(
        f"finished: {position.ended}, step {position.step}, {duration(seconds)}; best weights of "
        f"step {position.best_step}: {task.metric} {figure(value)}{of}. Model: {setup.folder.model}"
    )


def _percent(part: float) -> str:
    """Return a part below 1 so that it never reads as all or nothing."""
    return f"{100 * part:.2g}%" if part < 0.995 else f"{100 * min(part, 0.9999):.2f}%"


def _conclude(
    setup: _Setup,
    loop: Loop,
    metrics: dict[str, float],
    baseline: dict[str, Any],
    seconds: float,
    reports: Sequence[Report],
) -> Result:
    """Compare with the baseline, write the result, make the reports."""
    folder, console, position = setup.folder, setup.console, loop.position
    verdict, part = setup.task.verdict(metrics), loop.judged_part()
    if part < 1.0:
        verdict += (
            f" (The model was judged on the first {_percent(part)} of the validation part, "
            f"{baseline.get('name', 'the baseline')} on all of it.)"
        )
    verdict = f"{verdict} {loop.divergence(metrics)}".rstrip()
    console.say(verdict)
    record = {
        "metrics": metrics,
        "baseline": baseline,
        "verdict": verdict,
        "steps": position.step,
        "best_step": position.best_step,
        "seconds": round(seconds, 3),
        "ended": position.ended or "",
        "validated_part": part,
    }
    write_text(folder.result, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    for report in reports:
        for line in report(folder.path):
            console.say(line)
    return _read_result(setup)


def _read_result(setup: _Setup) -> Result:
    folder = setup.folder
    try:
        record = json.loads(folder.result.read_text(encoding="utf-8"))
        record.pop("best_step", None)
        if setup.task.name in tasks.names():
            model = tasks.load(folder.path)
        else:
            _, _, tensors = model_file.read(folder.model)
            checkpoint.load_weights(folder.model, setup.task.model, tensors)
            model = setup.task.model.eval()
        return Result(model=model, run=folder.path, **record)
    except (ValueError, TypeError) as error:
        raise FileError(f"{folder.result}: damaged: {error}.") from None
