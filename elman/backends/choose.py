"""Which backend runs a call, and why, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from elman.errors import InputError

KERNELS = {"cpu": "Elman's kernel for the CPU", "torch": "torch's own kernel"}


@dataclass(frozen=True)
class Choice:
    """A backend, and the reasons that led to it, each a phrase."""

    backend: str
    reasons: tuple[str, ...]


def choose(owner: str, wanted: str, obstacles: Mapping[str, Callable[[], Sequence[str]]]) -> Choice:
    """Choose between our kernel, torch's and the reference.

    Args:
        owner: the layer, for the error.
        wanted: "auto", "cpu", "torch" or "reference".
        obstacles: for "cpu" and "torch", in the order of preference, what keeps that kernel from
            this call, each a phrase; none if it serves. Asked only as far as is needed.

    Raises:
        InputError: a kernel was asked for and cannot serve.

    Example:
        >>> nothing, something = lambda: [], lambda: ["zoneout changes the equation"]
        >>> choose("LSTM", "auto", {"cpu": nothing, "torch": something}).backend
        'cpu'
    """
    if wanted == "reference":
        return Choice("reference", ("backend='reference' was asked for",))
    if wanted != "auto":
        found = obstacles[wanted]()
        if found:
            raise InputError(
                f"{owner}: backend={wanted!r} cannot run this call: {'; '.join(found)}. Use "
                "backend='auto' or 'reference'"
            )
        return Choice(wanted, (f"backend={wanted!r} was asked for",))
    reasons: list[str] = []
    for backend, ask in obstacles.items():
        found = ask()
        if not found:
            return Choice(backend, tuple(reasons) or ("it is the fastest that serves this call",))
        reasons += [f"not {KERNELS[backend]}: {phrase}" for phrase in found]
    return Choice("reference", tuple(reasons))
