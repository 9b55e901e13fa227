"""The first call of a layer in a new process: compiled anew, and read from the disk cache."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elman.errors import ElmanError

CACHE = "ELMAN_CACHE"
_LIMIT = 600.0  # seconds of a process

# What the new process runs: it reads the cells as JSON and tells seconds. Building a layer counts.
# Importing torch and Elman does not, nor what torch imports at its first gradient (a third of a
# second).
_PROGRAM = """
import json, sys, time
import torch, elman
from elman.benchmark.case import Case, Shape
asked = json.load(sys.stdin)
torch.set_num_threads(asked["threads"])
w = torch.randn(8, 8, requires_grad=True)
torch.autograd.grad(w @ w, w, torch.ones(8, 8))
told = []
for data in asked["cells"]:
    cell = elman.Cell.from_json(data)
    case = Case(cell, Shape(*asked["shape"]), getattr(torch, asked["dtype"]), asked["backend"])
    case.x, case.slope, case.inputs
    began = time.perf_counter()
    call = case.call(case.new_layer(asked["backend"]), backward=True)
    call()
    first = time.perf_counter()
    call()
    told.append([first - began, time.perf_counter() - first])
json.dump(told, sys.stdout)
"""


@dataclass(frozen=True)
class FirstCall:
    """Seconds of a cell's first call, forward and backward, medians over processes.

    Attributes:
        cell: its name.
        fresh: with an empty cache.
        cached: with a cache that another process has filled.
        second: of the second call of the same process, for comparison.
        files: how many files the cache held afterwards; 0 says that nothing was compiled.
    """

    cell: str
    fresh: float
    cached: float
    second: float
    files: int


def measure(
    cells: Sequence[Any],
    *,
    backend: str = "auto",
    dtype: str = "float32",
    shape: Sequence[int] = (4, 2, 64, 64),
    threads: int = 1,
    repeats: int = 3,
) -> list[FirstCall]:
    """Time the first call of each cell, one cell after the other, in new processes.

    The first cell of several also pays for what the backend sets up once a process; measure it
    alone to know what its own user would wait.

    Args:
        cells: of `elman.Cell`.
        repeats: how many pairs of processes, ≥ 1.

    Raises:
        ElmanError: a process failed; its last words are told.
    """
    asked = {
        "cells": [cell.to_json() for cell in cells],
        "backend": backend,
        "dtype": dtype,
        "shape": list(shape),
        "threads": threads,
    }
    fresh, cached, files = [], [], 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="elman-cache-") as folder:
            fresh.append(_run(asked, folder))
            cached.append(_run(asked, folder))
            files = sum(path.is_file() for path in Path(folder).rglob("*"))
    return [
        FirstCall(
            cell.name,
            statistics.median(run[i][0] for run in fresh),
            statistics.median(run[i][0] for run in cached),
            statistics.median(run[i][1] for run in fresh),
            files,
        )
        for i, cell in enumerate(cells)
    ]


def _run(asked: dict[str, Any], folder: str) -> list[list[float]]:
    """The seconds of (first, second) call of each cell in a new process."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            env={**os.environ, CACHE: folder},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ElmanError(f"benchmark: the first calls took more than {_LIMIT:g} seconds") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ElmanError(f"benchmark: the process for the first call failed: {last}")
    return json.loads(done.stdout)


def words(found: FirstCall) -> str:
    """What was measured, in one line."""
    times = f"new {found.fresh:.3f} s, from the disk cache {found.cached:.3f} s"
    compiled = "" if found.files else "; nothing was put into the cache"
    return (
        f"{found.cell}, first call in a new process, forward and backward: {times}; "
        f"the second call {found.second:.4f} s{compiled}"
    )
