"""What a launcher of several processes has said in the environment, read without loading torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from elman.errors import InputError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID")


@dataclass(frozen=True)
class Launch:
    """One of several processes that a launcher has started.

    Args:
        kind: "torchrun" (or whatever sets the same variables), or "slurm" (srun).
        rank: number of this process among all, from 0.
        world: number of processes, >= 2.
        here: how many of them run on this machine.
    """

    kind: Literal["torchrun", "slurm"]
    rank: int
    world: int
    here: int

    @property
    def machines(self) -> int:
        """The number of machines; each runs as many processes."""
        return self.world // self.here


def launched(environment: Mapping[str, str] | None = None) -> Launch | None:
    """Return what the launcher said, or None where this process is alone.

    torchrun sets RANK, WORLD_SIZE and LOCAL_RANK (and LOCAL_WORLD_SIZE, taken to be WORLD_SIZE if
    it is not there); srun sets SLURM_PROCID, SLURM_NTASKS and SLURM_STEP_ID. The script of a batch
    job that srun did not start is alone, and so is a shell that SLURM opened.

    Args:
        environment: names and values; None is the process's own.

    Raises:
        InputError: a value that is no number, or numbers that do not fit each other.

    Example:
        >>> said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
        >>> launched(said).machines, launched({})
        (2, None)
    """
    said = os.environ if environment is None else environment
    if all(name in said for name in _TORCHRUN):
        world = _number(said, "WORLD_SIZE")
        here = _number(said, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in said else world
        return _checked(Launch("torchrun", _number(said, "RANK"), world, here), "LOCAL_WORLD_SIZE")
    interactive = said.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if all(name in said for name in _SLURM) and not interactive:
        world = _number(said, "SLURM_NTASKS")
        nodes = _number(said, "SLURM_NNODES") if "SLURM_NNODES" in said else 1
        here = -(-world // max(nodes, 1))
        return _checked(Launch("slurm", _number(said, "SLURM_PROCID"), world, here), "SLURM_NNODES")
    return None


def leads() -> bool:
    """Return whether this is the process that writes and speaks: the first, or the only one."""
    try:
        found = launched()
    except InputError:
        return True
    return found is None or found.rank == 0


def _checked(found: Launch, divisor: str) -> Launch | None:
    if found.world <= 1:
        return None
    if not 0 <= found.rank < found.world or not 1 <= found.here <= found.world:
        raise InputError(
            f"the launcher says that this is process {found.rank} of {found.world}, {found.here} "
            "of them on this machine; that cannot be."
        )
    if found.world % found.here:
        raise InputError(
            f"{found.world} processes do not divide into {found.here} on each machine "
            f"({divisor}); start the same number on every machine."
        )
    return found


def _number(said: Mapping[str, str], name: str) -> int:
    try:
        return int(said[name])
    except ValueError:
        raise InputError(
            f"{name} is {said[name]!r} in the environment; expected a number."
        ) from None
