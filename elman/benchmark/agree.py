"""No time is told of a kernel that computes something else than the reference."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from elman.benchmark.case import Case
from elman.errors import ElmanError

# Rounding of a few hundred operations in another order, relative to the largest entry.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

# What a kernel's rounding may be of the reference's own, where an equation magnifies both.
_MORE = 4.0
# From here on the reference's rounding leaves nothing to compare with.
_LOST = 1e-3


class Disagreement(ElmanError):
    """A kernel and the reference differ by more than rounding; nothing is reported."""


def check(case: Case, *, backward: bool = True) -> float:
    """Compare our layer with the reference on the same weights and data.

    Compared are the output and, with `backward`, the gradients of x and of every parameter. The
    reference runs in the same number type. A value that is no number must be none on both sides.

    Some equations magnify rounding from step to step (a bistable cell does), so that two right
    programs part. Where a single-precision result is further off than allowed, it is compared with
    the reference in double precision, from which the single-precision reference may be as far: then
    our layer may be so far too, and a little more. Where the reference itself is lost, as a
    chaotic equation is after a while, the comparison is of half as many steps.

    Returns:
        the largest difference, relative to the largest entry of its tensor (at least 1).

    Raises:
        Disagreement: it is more than that; the tensor is named.
    """
    names = ["the output", "the gradient of x"]
    names += [f"the gradient of {name}" for name, _ in case.layer.named_parameters()]
    # The one pass, without gradients, may take another way through a kernel than the other.
    passes = (False, True) if backward else (False,)
    worst = 0.0
    reference = case.another("reference")
    for both in passes:
        ours = case.call(case.layer, backward=both)()
        theirs = case.call(reference, backward=both)()
        exact = None
        for i, name in enumerate(names[: len(ours)]):
            far = distance(ours[i], theirs[i])
            worst = max(worst, far)
            if far <= TOLERANCE[case.dtype]:
                continue
            exact = exact or _in_double(case, both)
            own = distance(theirs[i].double(), exact[i]) if exact else 0.0
            if own > _LOST and case.shape.steps > 1:
                shorter = case.shape._replace(steps=case.shape.steps // 2)
                return check(replace(case, shape=shorter), backward=backward)
            if not exact or distance(ours[i].double(), exact[i]) > _MORE * own:
                raise Disagreement(words(case, name, far))
    return worst


def _in_double(case: Case, both: bool) -> tuple[Tensor, ...] | None:
    """The reference's results in double precision; None where the case has that already."""
    if case.dtype == torch.float64:
        return None
    wide = case.in_double()
    return wide.call(wide.layer, backward=both)()


def words(case: Case, name: str, far: float) -> str:
    """The sentence of a disagreement: which tensor, by how much of its largest entry."""
    where = f"{case.cell.name} at {case.shape}" + (" with lengths" if case.ragged else "")
    return (
        f"benchmark: {where}: {name} on backend {case.backend!r} differs from the reference by "
        f"{far:.1e} of its largest entry; {TOLERANCE[case.dtype]:.0e} is allowed for "
        f"{str(case.dtype).removeprefix('torch.')}. No time is reported; this is a fault of the "
        "kernel, so please report it, and use backend='reference' meanwhile."
    )


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest entry (at least 1); infinite for NaN.

    Example:
        >>> distance(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 5.0]))
        0.2
    """
    if one.shape != other.shape:
        return float("inf")
    if not one.numel():
        return 0.0
    one, other = one.detach(), other.detach()
    same = (one == other) | (one.isnan() & other.isnan())
    gap = torch.where(same, 0.0, (one - other).double().abs()).nan_to_num(
        nan=float("inf"), posinf=float("inf")
    )
    scale = max(1.0, float(other.double().abs().nan_to_num(0.0, 0.0, 0.0).max()))
    return float(gap.max()) / scale
