"""The machine and the libraries that a time was taken on; without them a time says nothing."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_LIBRARIES = ("torch", "numpy", "llvmlite", "torchrecurrent", "jax", "jaxlib")


def facts() -> dict[str, Any]:
    """The processor, threads, and versions, as plain data.

    Example:
        >>> sorted(facts())[:3]
        ['capability', 'cores', 'cpu']
    """
    return {
        "cpu": _cpu(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "elman": metadata.version("elman"),
        "libraries": {name: v for name in _LIBRARIES if (v := _version(name))},
    }


def words(machine: dict[str, Any]) -> str:
    """The facts in one line.

    Args:
        machine: of `facts`.
    """
    versions = ", ".join(f"{name} {v}" for name, v in machine["libraries"].items())
    load = "" if machine["load"] is None else f" Load when it began: {machine['load']:g}."
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    cores = "" if machine["cores"] is None else f" of {machine['cores']} cores"
    return (
        f"{machine['cpu']} ({machine['capability']}), {threads}{cores}, {machine['system']}; "
        f"elman {machine['elman']}, {versions}, Python {machine['python']}.{load}"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's name, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown processor"
