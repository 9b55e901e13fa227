"""Kernels for another machine than the host's widest, in this process; and kernels made afresh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from elman.backends import cpu
from elman.backends.cpu import geometry, gradient, kernel, memory, turn
from elman.backends.cpu.machine import named, runs_here
from elman.equation import schedule

NAMES = ("avx512", "avx2", "neon", "plain")
HERE = tuple(name for name in NAMES if runs_here(named(name)))


def forget() -> None:
    """Forget every kernel of this process, so that the next call asks for its code anew."""
    memory.clear()
    for module in (cpu, kernel, gradient, geometry, schedule, turn):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


@contextmanager
def machine(monkeypatch, name: str) -> Iterator[None]:
    """Kernels for the machine of that name, which must run here."""
    with monkeypatch.context() as patch:
        patch.setenv("ELMAN_CPU", name)
        forget()
        try:
            yield
        finally:
            forget()
