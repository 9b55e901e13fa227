"""Tasks: data, model, loss, metric and baseline of one job.

`build` makes a task from files, `load` a trained model from a run folder or model file. Each task
is a folder of its own, imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from elman.errors import FileError, InputError, nearest
from elman.tasks.base import Budget, Task, TaskOptions, parse_options

__all__ = ["Budget", "Task", "TaskOptions", "build", "data_files", "load", "names", "options_of",
           "parse_options"]  # fmt: skip

_TASKS = {
    "lm": "elman.tasks.lm",
    "tree": "elman.tasks.tree",
    "graph": "elman.tasks.graph",
    "classify": "elman.tasks.classify",
    "tag": "elman.tasks.tag",
    "translate": "elman.tasks.translate",
    "forecast": "elman.tasks.forecast",
    "caption": "elman.tasks.caption",
    "next": "elman.tasks.next",
}
MODEL_FILE = "model.safetensors"
BASELINE = "baseline.safetensors"
BEST_SO_FAR = "checkpoints/best.safetensors"


def names() -> list[str]:
    """Return the names of the tasks.

    Example:
        >>> names()
        ['lm', 'tree', 'graph', 'classify', 'tag', 'translate', 'forecast', 'caption', 'next']
    """
    return list(_TASKS)


def _module(name: str) -> ModuleType:
    if name not in _TASKS:
        raise InputError(f"there is no task {name!r}; there are {names()}.{nearest(name, _TASKS)}")
    return import_module(_TASKS[name])


def options_of(name: str) -> type[TaskOptions]:
    """Return the class of a task's options.

    Raises:
        InputError: an unknown task.

    Example:
        >>> options_of("tree").__name__
        'TreeOptions'
    """
    kind: type[TaskOptions] = _module(name).OPTIONS
    return kind


def data_files(name: str, paths: Sequence[Path]) -> list[Path]:
    """Return the files that the paths of a task's data stand for.

    A task whose data may be a folder says with a function `files_of` which files of it it reads;
    where there is none, paths are files.

    Raises:
        InputError: an unknown task.
        FileError: a folder that does not hold what the task needs.
    """
    of_folder = getattr(_module(name), "files_of", None)
    found: list[Path] = []
    for path in paths:
        found.extend(of_folder(path) if of_folder is not None and path.is_dir() else [path])
    return found


def build(
    name: str,
    files: Sequence[str | Path],
    options: TaskOptions | Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
) -> Task:
    """Build a task: read and split its files, choose what was left open, make the model.

    Args:
        name: a name of `names()`.
        files: text files, in order; "-" is standard input.
        options: the task's options by name (for "lm" see `elman.tasks.lm.LMOptions`); what is
            missing or None is chosen from the data and the budget. A built task's ``config``
            builds the same task again.
        budget: how much training is planned.
        seed: seed of the initial weights and of the data order, >= 0.

    Returns:
        the task, its model on the CPU.

    Raises:
        InputError: an unknown task or option, a bad value, data too short.
        FileError: a file that is missing, empty, binary, wrongly encoded, or a folder.
    """
    task: Task = _module(name).build(files, options, budget=budget or Budget(), seed=seed)
    return task


def load(path: str | Path, task: str | None = None) -> Any:
    """Load a trained model.

    Args:
        path: a run folder (its `model.safetensors` is read, or the best weights so far of a run
            that has not ended) or a model file.
        task: name of the task that the model must be of; None takes any.

    Returns:
        the task's model in evaluation mode on the CPU, with the methods users call; for a language
        model see `elman.tasks.lm.TrainedLM`: `generate`, `generate_stream`, `score`, `evaluate`.

    Raises:
        FileError: nothing there, no model in the folder, or a file that is damaged, cut short,
            altered or not a model file.
        InputError: a model of another task than was asked for.
    """
    from elman.tasks import model_file

    path = Path(path)
    if path.is_dir():
        places = [path / MODEL_FILE, path / BEST_SO_FAR]
        found = [place for place in places if place.is_file()]
        if not found:
            raise FileError(f"{path}: no {MODEL_FILE} in this folder; has the run begun?")
        path = found[0]
    name, metadata, tensors = model_file.read(path)
    if name not in _TASKS:
        raise FileError(f"{path}: it holds a model for the task {name!r}, unknown to this version.")
    if task is not None and name != task:
        raise InputError(
            f"{path}: this is a model of the task {name!r}, and here one of {task!r} is needed; "
            f"for others there are elman predict and elman evaluate."
        )
    model = _module(name).restore(metadata, tensors, str(path))
    baseline = path.with_name(BASELINE)
    if hasattr(model, "take_baseline") and path.name == MODEL_FILE and baseline.is_file():
        try:
            kind, metadata, tensors = model_file.read(baseline)
        except FileError as error:
            raise FileError(f"{error} The model does without it: delete that file.") from None
        if kind != f"{name} baseline":
            raise FileError(f"{baseline}: it holds no baseline of the task {name!r}, but {kind!r}.")
        model.take_baseline(metadata, tensors, str(baseline))
    return model
