"""The processors that kernels are compiled for: their vectors, registers and names at LLVM."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from elman.errors import InputError, nearest

# What x86-64-v4 and x86-64-v3 promise. LLVM's list of the host's features already says no to what
# the operating system does not save and restore.
_V3 = frozenset({"avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_NEEDED = {"avx512": _V4, "avx2": _V3}
_NAMES = ("avx512", "avx2", "plain", "neon")
_BYTES = {"float": 4, "double": 8}


@dataclass(frozen=True)
class Machine:
    """A processor as the emitter and LLVM see it.

    Args:
        name: "avx512", "avx2", "plain" or "neon".
        triple: LLVM's name of processor, maker and system.
        cpu: LLVM's name of the processor.
        features: what the processor has beside that, as LLVM writes it: "+avx2,+fma".
        vector_bytes: the width of one vector, in bytes: 64, 32 or 16.
        registers: how many vectors the processor holds: 32 or 16.
        prefer: attributes that every emitted function must carry, name and value; without them
            LLVM may halve the vectors.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    prefer: Mapping[str, str] = field(default_factory=dict, hash=False)

    def lanes(self, element: str) -> int:
        """How many numbers one vector holds.

        Args:
            element: "float" (4 bytes) or "double" (8 bytes).

        Raises:
            InputError: the element is neither.

        Example:
            >>> named("avx2").lanes("double")
            4
        """
        if element not in _BYTES:
            raise InputError(
                f"element is {element!r}; a vector holds 'float' or 'double'."
                f"{nearest(str(element), _BYTES)}"
            )
        return self.vector_bytes // _BYTES[element]

    def describe(self) -> str:
        """All that decides what code may run here, in one line: a part of every cache key."""
        prefer = ",".join(f"{name}={self.prefer[name]}" for name in sorted(self.prefer))
        return f"{self.name} {self.triple} {self.cpu} {self.features} {prefer}"


def _is_x86(architecture: str) -> bool:
    return architecture.lower() in ("x86_64", "amd64")


def _is_arm(architecture: str) -> bool:
    return architecture.lower() in ("aarch64", "arm64")


def _triple(wanted: str) -> str:
    """The triple of this process, or of Linux on another architecture, to compile but not run."""
    from llvmlite import binding

    here = binding.get_process_triple()
    fits = _is_x86 if wanted == "x86_64" else _is_arm
    return here if fits(here.split("-")[0]) else f"{wanted}-unknown-linux-gnu"


@functools.cache
def _machine(name: str) -> Machine:
    if name == "avx512":
        # LLVM's x86-64-v4 is tuned for the first such processors and would use half the width.
        prefer = {"prefer-vector-width": "512", "min-legal-vector-width": "512"}
        features = "-prefer-256-bit"
        return Machine(name, _triple("x86_64"), "x86-64-v4", features, 64, 32, prefer)
    if name == "avx2":
        prefer = {"prefer-vector-width": "256", "min-legal-vector-width": "256"}
        return Machine(name, _triple("x86_64"), "x86-64-v3", "", 32, 16, prefer)
    if name == "neon":
        return Machine(name, _triple("aarch64"), "generic", "+neon", 16, 32)
    if _is_x86(platform.machine()):
        return Machine(name, _triple("x86_64"), "x86-64", "", 16, 16)
    from llvmlite import binding

    registers = 32 if _is_arm(platform.machine()) else 16
    return Machine(name, binding.get_process_triple(), "generic", "", 16, registers)


def named(name: str) -> Machine:
    """The machine of that name, to compile for; `runs_here` says whether its code may be run.

    Args:
        name: "avx512", "avx2", "neon", or "plain": 16-byte vectors that every processor of this
            host's kind has.

    Raises:
        InputError: no machine is called that.

    Example:
        >>> named("avx512").vector_bytes
        64
    """
    if name not in _NAMES:
        raise InputError(
            f"machine {name!r} is not known; it is one of {', '.join(_NAMES)}."
            f"{nearest(str(name), _NAMES)}"
        )
    return _machine(name)


@functools.cache
def _host_features() -> frozenset[str]:
    from llvmlite import binding

    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know this kind of processor: the plain machine is left
        return frozenset()
    return frozenset(name for name, there in features.items() if there)


def runs_here(machine: Machine) -> bool:
    """Whether this computer can run the machine's code.

    Example:
        >>> runs_here(named("plain"))
        True
    """
    if machine.name == "plain":
        return machine == _machine("plain")
    if machine.name == "neon":
        return _is_arm(platform.machine())
    return _is_x86(platform.machine()) and _host_features().issuperset(_NEEDED[machine.name])


@functools.cache
def _host(chosen: str) -> Machine:
    here = [name for name in ("avx512", "avx2", "neon", "plain") if runs_here(_machine(name))]
    if not chosen:
        return _machine(here[0])
    if chosen not in _NAMES:
        raise InputError(
            f"ELMAN_CPU is {chosen!r}; it is one of {', '.join(here)} here, or unset."
            f"{nearest(chosen, _NAMES)}"
        )
    if chosen not in here:
        raise InputError(
            f"ELMAN_CPU is {chosen!r}, which this processor does not have; it has "
            f"{', '.join(here)}. Unset it, or choose one of these"
        )
    return _machine(chosen)


def host() -> Machine:
    """The widest machine that this computer can run, or the narrower one that ELMAN_CPU names.

    Returns:
        "avx512", "avx2" or "neon" where the processor and the system have it, else "plain".

    Raises:
        InputError: ELMAN_CPU names a machine that is not known, or that cannot run here.

    Example:
        >>> runs_here(host())
        True
    """
    return _host(os.environ.get("ELMAN_CPU", "").strip().lower())
