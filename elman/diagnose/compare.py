"""How far two computations of the same thing are apart, and where; with the bounds of the laws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# What laws allow, relative to the largest entry: the rounding of a few hundred operations in
# another order; that of products of Jacobians over a sequence; the error of a difference quotient;
# nothing.
TOLERANCES: dict[str, dict[torch.dtype, float]] = {
    "rounding": {torch.float64: 1e-10, torch.float32: 1e-4},
    "carried": {torch.float64: 1e-9, torch.float32: 1e-3},
    "quotient": {torch.float64: 1e-5, torch.float32: 1e-1},
    "bits": {torch.float64: 0.0, torch.float32: 0.0},
}

# torch's slope of hardsigmoid is 1/6 in single precision.
COARSE_SLOPES = {"hardsigmoid": 1e-7}

# Entries below this are rounding of larger ones that went into them.
SMALLEST_SCALE = 1e-3


class Difference(NamedTuple):
    """The entry of two values that is furthest apart, and how far relative to the largest."""

    what: str
    place: tuple[int, ...]
    found: float
    expected: float
    far: float


class Comparison:
    """Collects the largest difference over many pairs of values.

    Args:
        found, expected: what the two sides are called, such as "the body" and "the trace".
        tolerance: the largest relative difference at which they count as the same.
    """

    def __init__(self, found: str, expected: str, tolerance: float):
        self.sides = found, expected
        self.tolerance = tolerance
        self.worst: Difference | None = None
        self.said: list[str] = []
        self.hint = ""

    @property
    def figure(self) -> float:
        """The largest difference so far; infinite where there is no number to tell it."""
        if self.said:
            return float("inf")
        return self.worst.far if self.worst else 0.0

    @property
    def holds(self) -> bool:
        return not self.said and self.figure <= self.tolerance

    def fail(self, sentence: str) -> None:
        """Note what is wrong where it is no difference of numbers."""
        self.said.append(sentence)

    def add(self, what: str, found: Tensor, expected: Tensor) -> None:
        """Compare two tensors; NaN equals NaN."""
        if not isinstance(found, Tensor):
            self.fail(f"{what}: {self.sides[0]} gives {type(found).__name__}, not a tensor")
            return
        if found.shape != expected.shape:
            self.fail(
                f"{what}: {self.sides[0]} has shape {(*found.shape,)}, {self.sides[1]} "
                f"{(*expected.shape,)}"
            )
            return
        difference = apart(what, found.detach(), expected.detach())
        if difference is not None and (self.worst is None or difference.far > self.worst.far):
            self.worst = difference

    def add_all(self, names: Sequence[str], found: Sequence, expected: Sequence) -> None:
        """Compare tensors one by one."""
        for name, one, other in zip(names, found, expected, strict=True):
            self.add(name, one, other)


def apart(what: str, found: Tensor, expected: Tensor) -> Difference | None:
    """The entry in which two tensors differ most, relative to the largest entry of both.

    Example:
        >>> apart("h", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
        Difference(what='h', place=(1,), found=2.0, expected=1.0, far=0.5)
    """
    if found.numel() == 0:
        return None
    same = (found == expected) | (found.isnan() & expected.isnan())
    finite = torch.cat([found[found.isfinite()], expected[expected.isfinite()]]).abs()
    scale = max(float(finite.max()) if finite.numel() else 0.0, SMALLEST_SCALE)
    far = torch.where(same, torch.zeros_like(found), (found - expected).abs() / scale)
    far = torch.where(far.isnan(), torch.full_like(far, float("inf")), far)
    flat = int(far.argmax())
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), far.shape))
    return Difference(what, place, float(found[place]), float(expected[place]), float(far[place]))
