"""What an influence weighs, and whether there is room for it: known before it is begun."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from elman.errors import InputError
from elman.learning.bptt import BPTT
from elman.learning.chain import Chain
from elman.learning.influence import Carrier


def refuse_what_does_not_fit(
    owner: str, carrier: Carrier, chain: Chain, batch: int, copies: int, learning: BPTT
) -> None:
    """Raise InputError, with the number, where the influence has no room.

    A call keeps the influence at each border of its windows until the backward pass.

    Args:
        owner: for the error.
        carrier, chain: the method, and what it is to carry through.
        batch: rows.
        copies: how many influences it is to make.
        learning: the layer's, for the words.
    """
    one = carrier.bytes(chain, batch)
    if one < _NEVER_MIND:
        return
    needed, there = one * copies, room(chain.like.device)
    if there is not None and needed > there:
        trained = sum(place.columns for place in chain.places)
        times = f", {copies} times {in_words(one)}" if copies > 1 else ""
        hint = "" if learning.carry in ("snap1", "rflo", "uoro") else " carry='snap1' or 'uoro',"
        raise InputError(
            f"{owner}: carry={learning.carry!r} needs {in_words(needed)} for the influence of "
            f"{trained:,} weights on {chain.rows:,} numbers of state in {batch} rows{times}; "
            f"{in_words(there)} are free. Use fewer rows, a smaller hidden size,{hint} or calls of "
            "one window each"
        )


_NEVER_MIND = 1 << 20


def in_words(count: int) -> str:
    """A number of bytes for people.

    Example:
        >>> in_words(85_000_000)
        '81.1 MiB'
    """
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"


def room(device: torch.device) -> int | None:
    """The bytes that are free on a device, as far as the system tells; None where it does not."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    known = [_free_memory(), _left_of_group(), _left_of_limit()]
    return min((found for found in known if found is not None), default=None)


def _left_of_limit() -> int | None:
    """What the process may still take, where its own data are limited (`ulimit -d`)."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        status = Path("/proc/self/status").read_text(encoding="ascii")
        used = next(int(w.split()[1]) for w in status.splitlines() if w.startswith("VmData:"))
    except (ImportError, OSError, ValueError, StopIteration):
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - 1024 * used)


def _free_memory() -> int | None:
    """What the machine has to give, Linux's own estimate; else all that it has."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _left_of_group() -> int | None:
    """What the process's group may still take, where a container sets a limit (cgroup 2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        used = int((folder / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return max(0, limit - used)
