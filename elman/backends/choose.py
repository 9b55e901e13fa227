"""Which backend runs a call, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elman.errors import InputError


@dataclass(frozen=True)
class Choice:
    """A backend, and the reasons that led to it, each a phrase."""

    backend: str
    reasons: tuple[str, ...]


def choose(owner: str, wanted: str, obstacles: Sequence[str]) -> Choice:
    """Choose between torch's kernel and the reference.

    Args:
        owner: the layer, for the error.
        wanted: "auto", "torch" or "reference".
        obstacles: what keeps torch's kernel from this call, each a phrase; none if it serves.

    Raises:
        InputError: torch's kernel was asked for and cannot serve.

    Example:
        >>> choose("LSTM", "auto", ["zoneout changes the equation"]).backend
        'reference'
    """
    if wanted == "reference":
        return Choice("reference", ("backend='reference' was asked for",))
    if not obstacles:
        reasons = ("the equation is torch.nn's, and no option of the call keeps its kernel away",)
        return Choice("torch", reasons)
    if wanted == "torch":
        raise InputError(
            f"{owner}: backend='torch' cannot run this call: {'; '.join(obstacles)}. Use "
            "backend='auto' or 'reference'"
        )
    return Choice("reference", tuple(obstacles))
