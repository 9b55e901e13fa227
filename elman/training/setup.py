"""What a run begins with: a new one from data and options, or one taken up from its folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from elman import tasks
from elman.errors import FileError, InputError, RunError, nearest
from elman.tasks import model_file
from elman.tasks.base import Budget, Task
from elman.training import checkpoint, config, cures
from elman.training.config import DataFile, RunConfig
from elman.training.console import Console
from elman.training.folder import RunFolder, next_name
from elman.training.options import (
    BUDGET,
    RESUMABLE,
    TrainingOptions,
    budget,
    check,
    resolve,
)
from elman.training.sources import Data, Source, data_source, named_files

# Options of tasks that name a file beside the data.
OTHER_FILES = (
    "valid_file", "features_file", "edges_file", "labels_file", "splits_file", "vectors",
)  # fmt: skip


def task_fields(task: str | Task) -> Collection[str] | None:
    """Return the names of a task's options; none for a task that is already built."""
    if isinstance(task, Task):
        return ()
    if task not in tasks.names():
        return None  # such a task there is not, which `tasks.build` says best
    return tasks.options_of(task).model_fields


@dataclass
class Setup:
    """What a run needs to start: built anew, or found in its folder."""

    task: Task
    options: TrainingOptions
    folder: RunFolder
    console: Console
    resumed: bool = False
    extended: RunConfig | None = None  # with options that were changed on resume


# -- beginning -------------------------------------------------------------------------------


def begin(
    task: str | Task,
    data: Data | None,
    run: str | Path | None,
    given_task: dict[str, Any],
    given: dict[str, Any],
    init_from: str | Path | None,
    overwrite: bool,
    quiet: bool,
) -> Setup:
    """Build the task, then make the folder; when something is wrong, nothing has changed."""
    if isinstance(task, Task):
        return _begin(task, Source([]), run, given_task, given, init_from, overwrite, quiet)
    with data_source(data, task) as source, source.in_errors():
        return _begin(task, source, run, given_task, given, init_from, overwrite, quiet)


def _begin(
    task: str | Task,
    source: Source,
    run: str | Path | None,
    given_task: dict[str, Any],
    given: dict[str, Any],
    init_from: str | Path | None,
    overwrite: bool,
    quiet: bool,
) -> Setup:
    name = task if isinstance(task, str) else task.name
    files = tasks.data_files(name, source.files) if source.files else []
    if run is not None:
        RunFolder(run).check_free(overwrite)
        RunFolder(run).check_outside(_read_files(files, given_task, init_from))
    weights = None if init_from is None else _read_weights(Path(init_from))
    built = task
    if isinstance(built, str):
        to_read = files if source.kept is None else [source.kept]
        built = _build_from(built, to_read, given_task, budget(given), given.get("seed", 0))
    options = resolve(given, built.recommended)
    _check_carry(built, options)
    said_of_start = cures.start(built.model, options)
    if weights is not None and said_of_start:
        raise InputError(
            f"train: init_from brings all weights, so nothing is left to start: "
            f"{said_of_start[0]}; leave one of the two out."
        )
    if weights is not None:
        _start_from(built, *weights)
    title = source.files[0].stem if source.files else name
    folder = RunFolder(next_name(name, title) if run is None else run)
    configuration = _configuration(built, source.fingerprints(files, folder.path), options)
    folder.create()
    lines = [source.renamed(line) for line in built.describe()]
    source.store(folder.path)
    config.write(folder.config, configuration)
    console = Console(folder.log, quiet)
    for line in lines:
        console.say(line)
    console.say("; ".join([_describe(options), *said_of_start]))
    return Setup(built, options, folder, console)


def _check_carry(task: Task, options: TrainingOptions) -> None:
    """See that what is asked of training goes with a carry, where there is one."""
    if options.precision == "bf16" and (task.carries or options.fidelity):
        what = "a carry" if task.carries else "fidelity, which carries the exact influence,"
        raise InputError(
            f"train: with {what} precision must be 32 or 64: what bf16 rounds off would stay in "
            "the influence for ever."
        )
    if options.flow_penalty and task.carries:
        raise InputError(
            "train: flow_penalty looks at the layers of a window, and with a carry the learning "
            "method walks them itself; leave one of the two out."
        )


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
    further = [*(options.get(name) for name in OTHER_FILES), init_from]
    return [*files, *(Path(entry) for entry in further if isinstance(entry, str | Path))]


def _configuration(task: Task, data: Sequence[DataFile], options: TrainingOptions) -> RunConfig:
    own = config.plain(task.config)
    also = [own[name] for name in OTHER_FILES if own.get(name)]
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


def resume_setup(
    task: str | Task,
    data: Data | None,
    run: str | Path | None,
    given_task: dict[str, Any],
    given: dict[str, Any],
    quiet: bool,
) -> Setup:
    """Take up the run in a folder: its configuration, its data, and what the call may change."""
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
    _check_carry(built, options)
    if not folder.last.exists():
        cures.start(built.model, options)  # killed before the first checkpoint: begin as it began
    new = None
    if options != found.training:
        new = found.model_copy(update={"training": options})
    return Setup(built, options, folder, Console(folder.log, quiet), True, new)


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
        files = named_files(data)
        if files and not isinstance(task, Task):
            files = tasks.data_files(name, files)
        paths = None if files is None else [str(file.absolute()) for file in files]
        if paths != [file.path for file in found.data]:
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
