"""Where a run computes: lightning-fabric, loaded when a run begins and kept from chattering."""

from __future__ import annotations

# NumPy's global generator is not used here, but a task may draw from it.
# ruff: noqa: NPY002
import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PRECISION: Final[dict[str, Literal["32-true", "bf16-mixed", "64-true"]]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "64": "64-true",
}


def make_fabric(device: str, precision: str) -> Fabric:
    """Make the Fabric of a run on one device, silently.

    Args:
        device: "cpu", "cuda" or "mps".
        precision: "32", "bf16" or "64".
    """
    logger = logging.getLogger("lightning.fabric")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice for people who call Fabric themselves
        from lightning_fabric import Fabric

        for name in ("lightning.fabric", "lightning_fabric", "lightning.fabric.utilities"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logger.propagate = False
        fabric = Fabric(accelerator=device, devices=1, precision=_PRECISION[precision])
        fabric.launch()
    return fabric


def move(value: Any, device: torch.device) -> Any:
    """Move the tensors of nested tuples and lists to a device; on the CPU nothing is touched."""
    if device.type == "cpu" or value is None:
        return value
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, tuple | list):
        return type(value)(move(part, device) for part in value)
    return value


@contextmanager
def own_settings(seed: int, flush_denormal: bool) -> Iterator[None]:
    """Seed the random generators and flush denormal numbers for a run; put all back afterwards."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    flushed = _flushes_denormal()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.set_flush_denormal(flush_denormal)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])


def _flushes_denormal() -> bool:
    return (torch.tensor([1e-310], dtype=torch.float64) * 1.0).item() == 0.0
