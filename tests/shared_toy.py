"""The toy of training, shared by processes, and how a test starts several of them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from training_toy import STREAMS, Toy

from elman.errors import ElmanError, InputError
from elman.tasks.base import Carry
from elman.tasks.lm.shares import rows_of, united
from elman.training import train


class SharedToy(Toy):
    """The toy whose streams are shared; it may fail or differ in one process.

    Args:
        fail_at: the step at which process `fail_in` fails.
        differ_in: the process whose data are others.
    """

    shared = True

    def __init__(
        self,
        dropout: float = 0.0,
        pause: float = 0.0,
        fail_at: int = -1,
        fail_in: int = 1,
        differ_in: int = -1,
        unlike_in: int = -1,
    ):
        super().__init__(pause=pause)
        self.model.drop.p = dropout
        self.fail_at, self.fail_in = fail_at, fail_in
        if int(os.environ.get("RANK", 0)) == differ_in:
            self.fingerprint = "another"
        if int(os.environ.get("RANK", 0)) == unlike_in:
            with torch.no_grad():
                self.model.head.bias += 1.0

    def _rows(self) -> np.ndarray:
        return self.mine(np.arange(STREAMS))

    def batch(self, step: int) -> tuple[Tensor, ...]:
        if step == self.fail_at and self.rank == self.fail_in:
            raise InputError("the toy is broken here")
        x, y = super().batch(step)
        rows = torch.from_numpy(self._rows())
        return x[:, rows], y[:, rows]

    def start(self, step: int) -> Carry | None:
        carry = super().start(step)
        return None if carry is None else rows_of(carry, self._rows())

    def divide(self, carry: Carry) -> Carry:
        return carry if carry is None else rows_of(carry, self._rows())

    def unite(self, parts: Sequence[Carry]) -> Carry:
        there = [part for part in parts if part is not None]
        return united(there) if there else None


def _body(
    environment: dict[str, str], said: str, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    with open(said, "w", encoding="utf-8", buffering=1) as words:
        os.dup2(words.fileno(), 2)
        os.dup2(words.fileno(), 1)
        try:
            work(*arguments)
        except ElmanError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code)


class Group:
    """Several processes with the environment that torchrun gives; a process left alone has none.

    Args:
        world: how many.
        folder: where their words go, `said-RANK`.
        work, arguments: what each does; both can be pickled.
        slurm: the environment is that of srun.
    """

    def __init__(
        self,
        world: int,
        folder: Path,
        work: Callable[..., None],
        arguments: tuple[Any, ...],
        slurm: bool = False,
    ):
        context = multiprocessing.get_context("forkserver")
        preload = ["shared_toy", "elman.training.loop", "lightning_fabric", "torch.distributed"]
        context.set_forkserver_preload(preload)
        port = _free_port()
        self.words = [folder / f"said-{rank}" for rank in range(world)]
        self.processes = []
        for rank in range(world):
            environment = _of_srun(rank, world) if slurm else _of_torchrun(rank, world)
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            values = (environment if world > 1 else {}, str(self.words[rank]), work, arguments)
            process = context.Process(target=_body, args=values)
            process.start()
            self.processes.append(process)

    def finish(self) -> list[int | None]:
        """Wait for all and return their exit codes."""
        for process in self.processes:
            process.join(150)
        return [process.exitcode for process in self.processes]

    def said(self, rank: int) -> str:
        """Return what a process has said."""
        return self.words[rank].read_text(encoding="utf-8")


def _of_torchrun(rank: int, world: int) -> dict[str, str]:
    here = {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
    return {"RANK": str(rank), "WORLD_SIZE": str(world), **here}


def _of_srun(rank: int, world: int) -> dict[str, str]:
    found = {"PROCID": rank, "NTASKS": world, "STEP_ID": 0, "LOCALID": rank, "NODEID": 0}
    found |= {"NNODES": 1, "JOB_ID": 71234, "NODELIST": "localhost", "JOB_NAME": "elman"}
    return {f"SLURM_{name}": str(value) for name, value in found.items()}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_toy(folder: Path, toy: dict[str, Any], options: dict[str, Any]) -> None:
    """Train the shared toy."""
    train(SharedToy(**toy), run=folder, **options)


def run_task(task: str, data: Path | None, folder: Path, options: dict[str, Any]) -> None:
    """Train a task by its name."""
    train(task, data, run=folder, quiet=True, reports=(), **options)


def run_alone(folder: Path, pause: float, options: dict[str, Any]) -> None:
    """Train the toy that is not shared."""
    train(Toy(pause=pause), run=folder, **options)
