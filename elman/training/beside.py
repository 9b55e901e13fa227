"""What processes beside the first one need of its run: they may be on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elman.errors import InputError
from elman.tasks.base import Task
from elman.training import config
from elman.training.folder import RunFolder
from elman.training.options import TrainingOptions
from elman.training.processes import Processes


def show_config(processes: Processes, run: str | Path | None, place: str | Path | None) -> None:
    """Give the other processes config.yaml of a run that is taken up.

    Args:
        processes: all of them.
        run: folder of the run, as process 0 has it.
        place: folder of this process's own, in which it takes the run up as process 0 does in its.
    """

    def config_of_run() -> bytes | None:
        file = None if run is None else RunFolder(run).config
        return file.read_bytes() if file is not None and file.is_file() else None

    if processes.world == 1:
        return
    said = processes.lead(config_of_run)
    if not processes.leads and place is not None:
        RunFolder(place).create()
        if said is not None:
            RunFolder(place).config.write_bytes(said)


def check_shared(processes: Processes, task: Task, options: TrainingOptions) -> None:
    """See that the processes can share the work, and that all have the same before them.

    Raises:
        InputError: they cannot, or something differs.
    """
    if processes.world == 1:
        return
    if not task.shared:
        raise InputError(
            f"train: the batches of the task {task.name!r} cannot be shared by several processes; "
            "train it in one."
        )
    for name in ("fidelity", "flow_penalty"):
        if getattr(options, name):
            raise InputError(f"train: {name} needs the whole batch in one process; leave it out.")
    facts: dict[str, Any] = {"the content of the data": task.fingerprint}
    for values in (task.config, options):
        facts |= {f"the option {name}": value for name, value in config.plain(values).items()}
    processes.check_alike(facts)


def show_result(processes: Processes, run: Path, place: Path) -> Path:
    """Give the other processes the model, its baseline and its figures, each in a place of its own.

    Args:
        processes: all of them.
        run: folder of the finished run, as process 0 has it.
        place: folder of this process's own.

    Returns:
        the folder of the run, as process 0 has it.
    """

    def of_run() -> tuple[Path, dict[str, bytes]]:
        folder = RunFolder(run)
        files = (folder.result, folder.model, folder.baseline)
        return run, {file.name: file.read_bytes() for file in files if file.is_file()}

    if processes.world == 1:
        return run
    shown, files = processes.lead(of_run)
    if not processes.leads:
        for name, data in files.items():
            (place / name).write_bytes(data)
    return shown
