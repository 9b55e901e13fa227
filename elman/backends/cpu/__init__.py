"""Kernels for the CPU: a cell's schedule as LLVM IR, compiled in the process.

This module loads no compiler; what it offers does so when first called.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from elman.backends.call import Call, Result
from elman.equation import Graph

if TYPE_CHECKING:
    from elman.backends.cpu.kernel import Kernels


def obstacles(graph: Graph, device: torch.device, dtype: torch.dtype) -> list[str]:
    """What keeps the kernels from a cell, a device or a number type, each a phrase."""
    if device.type != "cpu":
        return [f"the weights are on {device}"]
    if dtype not in (torch.float32, torch.float64):
        return [f"its numbers are float32 or float64, not {str(dtype).removeprefix('torch.')}"]
    return list(_obstacles(graph))


@functools.cache
def _obstacles(graph: Graph) -> tuple[str, ...]:
    with without_collection():
        from elman.backends.cpu import engine
        from elman.equation.lowering import Unsupported

        reason = engine.available()
        if reason is not None:
            engine.warn_unavailable()
            return (reason,)
        try:
            kernels_of(graph)
        except Unsupported as why:
            return (str(why),)
        return ()


@contextmanager
def without_collection() -> Iterator[None]:
    """No collection of garbage meanwhile: it would go through all of torch's objects, which takes
    longer than making a kernel."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def kernels_of(graph: Graph) -> Kernels:
    """The kernels of a cell; Unsupported, with a phrase, where no kernel can serve it."""
    from elman.backends.cpu.kernel import kernels_of

    return kernels_of(graph)


def run(kernels: Kernels, sizes: Any, parameters: Any, call: Call) -> Result:
    """Run a call on the kernels; see `elman.backends.cpu.calls.run`."""
    from elman.backends.cpu.calls import run

    return run(kernels, sizes, parameters, call)


def run_beside(kernels: Kernels, sizes: Any, parameters: Any, calls: Any) -> list[Result]:
    """Run calls of one cell side by side; see `elman.backends.cpu.calls.run_beside`."""
    from elman.backends.cpu.calls import run_beside

    return run_beside(kernels, sizes, parameters, calls)


def run_plain(
    kernels: Kernels, sizes: Any, parameters: Any, x: torch.Tensor, states: Any
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run whole rows on the kernels; see `elman.backends.cpu.calls.run_plain`."""
    from elman.backends.cpu.calls import run_plain

    return run_plain(kernels, sizes, parameters, x, states)
