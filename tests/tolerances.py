"""How far two computations of the same thing may be apart, by number type: the only such table.

`EQUAL` bounds the rounding of a few hundred operations in another order, relative to the largest
entry; `ORACLE` an independent program in another library; `EXACT` means the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

EQUAL = {torch.float64: 1e-12, torch.float32: 1e-5}
ORACLE = {torch.float64: 1e-10, torch.float32: 1e-4}


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest entry (at least 1); infinite for NaN."""
    if one.shape != other.shape:
        raise AssertionError(f"shapes differ: {tuple(one.shape)} and {tuple(other.shape)}")
    if one.numel() == 0:
        return 0.0
    scale = max(1.0, float(other.detach().abs().max()))
    far = float((one - other).detach().abs().max()) / scale
    return far if far == far else float("inf")


def assert_close(one, other, table=EQUAL, what: str = "values") -> None:
    """Fail where two tensors, or two tuples of them, are further apart than `table` allows."""
    if isinstance(one, Tensor):
        far, bound = distance(one, other), table[one.dtype]
        assert far <= bound, f"{what} differ by {far:.3g}; allowed {bound:.0e} for {one.dtype}"
        return
    assert len(one) == len(other), f"{what}: {len(one)} and {len(other)} tensors"
    for place, (a, b) in enumerate(zip(one, other, strict=True)):
        assert_close(a, b, table, f"{what}[{place}]")


def assert_same_bits(one, other, what: str = "values") -> None:
    """Fail where two tensors, or two tuples of them, are not equal to the bit."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other), f"{what} are not bit-equal: {distance(one, other):.3g}"
        return
    assert len(one) == len(other), f"{what}: {len(one)} and {len(other)} tensors"
    for place, (a, b) in enumerate(zip(one, other, strict=True)):
        assert_same_bits(a, b, f"{what}[{place}]")
