"""A run from beginning to end: new or resumed, trained, judged beside its baseline, kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from elman import tasks
from elman.errors import ElmanError, FileError, InputError, RunError
from elman.tasks import model_file
from elman.tasks.base import Task
from elman.training import checkpoint, config
from elman.training.beside import check_shared, show_config, show_result
from elman.training.console import duration, figure
from elman.training.device import make_fabric, own_settings
from elman.training.folder import cut_metrics, write_text
from elman.training.launcher import launched
from elman.training.loop import Loop
from elman.training.options import (
    check,
    divide,
)
from elman.training.processes import Processes, connect
from elman.training.setup import Data, Setup, begin, resume_setup, task_fields
from elman.training.signals import Interrupted, StopSignals

Report = Callable[[Path], Sequence[str]]
_HANDED_ON = 2.0  # seconds within which a launcher hands on a signal that all have had already


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
        data: a path, paths, lines of text, rows (an iterable of dictionaries), or a table with
            Arrow's C interface (pandas, polars, pyarrow); rows and lines are kept in the folder.
            None for a task already built, and on resume.
        run: folder of the run; None makes `runs/TASK-NAME-001`, with the first free number.
        resume: go on with the run in `run`, exactly. Needs nothing else; the budget, `lr`,
            `muon_lr`, `clip_norm`, `clip_value`, `flow_penalty`, `patience` and the two
            intervals may be changed.
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
    given_task, given = divide(options, task_fields(task))
    check(given)
    if resume and (init_from is not None or overwrite):
        other = "overwrite" if overwrite else "init_from"
        raise InputError(f"train: resume goes on with a run as it is; {other} begins a new one.")
    if launched() is not None and str(data) == "-":
        raise InputError(
            "train: standard input cannot be read by several processes; put it into a file."
        )
    processes = connect()
    with nullcontext() if processes.leads else TemporaryDirectory() as place:
        own = run if place is None else Path(place) / "run"
        quiet = quiet or not processes.leads
        if resume:
            show_config(processes, run, own)
            again = partial(resume_setup, task, data, own, given_task, given, quiet)
            setup = processes.together(again)
        else:
            new = partial(begin, task, data, own, given_task, given, init_from, overwrite, quiet)
            setup = processes.together(new)
        return _train(setup, began, _ALWAYS if reports is None else reports, processes)


def _train(setup: Setup, began: float, reports: Sequence[Report], processes: Processes) -> Result:
    """Train in all processes, and end the run in the first."""
    task, console = setup.task, setup.console
    task.rank, task.world = processes.rank, processes.world
    try:
        check_shared(processes, task, setup.options)
        loop, metrics, received = _learn(setup, began, processes)
        result = processes.first(lambda: _end(setup, loop, metrics, received, reports))
        run = show_result(processes, setup.folder.path, setup.folder.path)
        return replace(_read_result(setup), run=run) if result is None else result
    except ElmanError as error:
        console.stop()
        console.log(str(error))
        raise
    finally:
        task.rank, task.world = 0, 1
        console.close()


def _learn(
    setup: Setup, began: float, processes: Processes
) -> tuple[Loop, dict[str, float] | None, str | None]:
    """Train to the end and judge the model; the metrics are None where all this was done before.

    Returns:
        the loop, the metrics (of process 0), and the signal that has come, if any.
    """
    folder, options = setup.folder, setup.options
    apart = 0.0 if processes.world == 1 else _HANDED_ON
    seed = processes.seed(options.seed)
    with StopSignals(apart) as signals, own_settings(seed, options.flush_denormal):

        def ready() -> Loop:
            fabric = make_fabric(options.device, options.precision, processes.launch)
            fabric.setup_module(setup.task.model)
            processes.compute_on(fabric.device)
            since = _time_to_learn(setup, began)
            return Loop(
                setup.task, options, folder, setup.console, fabric, since, processes, signals
            )

        loop = processes.together(ready)
        if setup.resumed:
            saved = processes.lead(
                lambda: checkpoint.read(folder.last) if folder.last.exists() else None
            )
            if saved is not None:
                processes.together(lambda: loop.resume(saved))
            if processes.lead(lambda: _take_up(setup, loop)):
                return loop, None, None
        processes.equalise(setup.task.model)
        if processes.leads:
            setup.console.start()
            loop.run()
        else:
            loop.follow()
        metrics = processes.first(lambda: _keep_model(setup, loop))
        return loop, metrics, signals.received


def _time_to_learn(setup: Setup, began: float) -> float:
    """Return when the budget of a timed run began; learning gets half of it in any case."""
    half = 30.0 * (setup.options.minutes or 0.0)
    read = time.monotonic() - began
    if not half or read <= half or setup.resumed:
        return began
    setup.console.say(
        f"note: reading the data took {duration(read)}; learning is given half of the "
        f"{setup.options.minutes:g} minutes all the same."
    )
    return time.monotonic() - half


def _keep_model(setup: Setup, loop: Loop) -> dict[str, float]:
    """Make the best weights the model of the run; return their metrics."""
    task = setup.task
    metrics = loop.finish()
    model_file.write(setup.folder.model, task.name, task.metadata(), task.model.state_dict())
    setup.console.stop()
    return metrics


def _end(
    setup: Setup,
    loop: Loop,
    metrics: dict[str, float] | None,
    received: str | None,
    reports: Sequence[Report],
) -> Result:
    """Compare the trained model with the baseline, and leave all in the folder."""
    folder, task = setup.folder, setup.task
    if metrics is None:
        return _read_result(setup)
    seconds = loop.seconds()
    _say_finished(setup, loop, metrics, seconds)
    try:
        if received:
            raise KeyboardInterrupt
        baseline = task.baseline()
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped before the baseline was measured; the model in {folder.path} is finished. "
            f"For the comparison: elman train {task.name} --run {folder.path} --resume",
            received or "SIGINT",
        ) from None
    return _conclude(setup, loop, metrics, baseline, seconds, reports)


def _take_up(setup: Setup, loop: Loop) -> bool:
    """Bring the folder to where the loop stands, when all is well; return whether all is done."""
    folder, console = setup.folder, setup.console
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
    elif finished:
        console.say(f"{folder.path}: this run is finished ({position.ended}).")
    return finished


def _say_finished(setup: Setup, loop: Loop, metrics: dict[str, float], seconds: float) -> None:
    position, task = loop.position, setup.task
    value = metrics[task.metric]
    part = loop.judged_part()
    of = "" if part >= 1.0 else f" on {_percent(part)} of the validation part"
    setup.console.say(
        f"finished: {position.ended}, step {position.step}, {duration(seconds)}; best weights of "
        f"step {position.best_step}: {task.metric} {figure(value)}{of}. Model: {setup.folder.model}"
    )


def _part(part: float) -> str:
    return f"{_percent(part)}" if part < 1.0 else "all of it"


def _percent(part: float) -> str:
    """Return a part below 1 so that it never reads as all or nothing."""
    return f"{100 * part:.2g}%" if part < 0.995 else f"{100 * min(part, 0.9999):.2f}%"


def _conclude(
    setup: Setup,
    loop: Loop,
    metrics: dict[str, float],
    baseline: dict[str, Any],
    seconds: float,
    reports: Sequence[Report],
) -> Result:
    """Compare with the baseline, write the result, make the reports."""
    folder, console, position = setup.folder, setup.console, loop.position
    verdict, part = setup.task.verdict(metrics), loop.judged_part()
    theirs = baseline.get("validated_part", 1.0)
    if min(part, theirs) < 1.0:
        verdict += (
            f" (The model was judged on {_part(part)} of the validation part, "
            f"{baseline.get('name', 'the baseline')} on {_part(theirs)}.)"
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
    _keep(setup)
    write_text(folder.result, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    for report in reports:
        for line in report(folder.path):
            console.say(line)
    return _read_result(setup)


def _keep(setup: Setup) -> None:
    """Write what the task keeps beside its model: the baseline, and what its pictures need."""
    folder, task = setup.folder, setup.task
    kept = task.keep_baseline()
    if kept is not None:
        model_file.write(folder.baseline, f"{task.name} baseline", *kept)
    keepsake = task.keepsake()
    if keepsake is not None:
        text = json.dumps(keepsake, ensure_ascii=False, allow_nan=False)
        write_text(folder.keepsake, f"{text}\n")


def _read_result(setup: Setup) -> Result:
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
