"""Where a run computes: lightning-fabric, loaded when a run begins and kept from chattering."""

from __future__ import annotations

# NumPy's global generator is not used here, but a task may draw from it.
# ruff: noqa: NPY002
import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from elman.errors import InputError
from elman.training.launcher import Launch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PRECISION: Final[dict[str, Literal["32-true", "bf16-mixed", "64-true"]]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "64": "64-true",
}


def make_fabric(
    device: str, precision: str, launch: Launch | None = None, patience: timedelta | None = None
) -> Fabric:
    """Make the Fabric of a run on one device, silently.

    Args:
        device: "cpu", "cuda" or "mps".
        precision: "32", "bf16" or "64".
        launch: what the launcher of several processes said; the first call connects them.
        patience: how long one process waits for another, at most.

    Raises:
        InputError: the processes of this machine do not fit its devices.
    """
    logger = logging.getLogger("lightning.fabric")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice for people who call Fabric themselves
        from lightning_fabric import Fabric

        for name in ("lightning.fabric", "lightning_fabric", "lightning.fabric.utilities"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logger.propagate = False
        kind = _PRECISION[precision]
        if launch is None:
            fabric = Fabric(accelerator=device, devices=1, precision=kind)
        else:
            fabric = _side_by_side(device, kind, launch, patience)
        fabric.launch()
    return fabric


def _side_by_side(
    device: str, precision: Any, launch: Launch, patience: timedelta | None
) -> Fabric:
    """The Fabric of one of several processes; they talk over gloo, on every device."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    class SideBySide(DDPStrategy):
        """Leaves models as they are: gradients are combined by `Processes`."""

        def setup_module(self, module: Any) -> Any:
            return module

    if device == "mps":
        raise InputError("train: several processes train on the CPU or on CUDA, not on mps.")
    if device == "cuda" and launch.here > torch.cuda.device_count():
        raise InputError(
            f"train: {launch.here} processes on this machine and {torch.cuda.device_count()} "
            "CUDA devices; start one process a device, or choose device=cpu."
        )
    if launch.kind == "slurm":
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(launch.here))
        environment: Any = SLURMEnvironment(auto_requeue=False)
    else:
        environment = TorchElasticEnvironment()
    return Fabric(
        accelerator=device,
        devices=launch.here,
        num_nodes=launch.machines,
        strategy=SideBySide(process_group_backend="gloo", timeout=patience),
        plugins=[environment],
        precision=precision,
    )


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
