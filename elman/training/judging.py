"""The judgements of a run on the validation part: of the weights so far, and the last one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from elman.tasks import model_file
from elman.tasks.base import Task
from elman.training import checkpoint
from elman.training.options import TrainingOptions
from elman.training.schedule import final_part

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_LEAST_PART = 0.05  # of the validation text
_ENOUGH_UNITS = 1_000_000  # of it, where the part would be more
_FEWEST_UNITS = 20_000
_COST = 0.04  # part of a timed run's budget that a judgement may take where there are enough
_QUICKER = 3.0  # than learning, about
_FINAL_SECONDS = 20.0  # that the last judgement of a timed run may take in any case
_FINAL_SHARE = 0.1  # of the time the run took, which it may take in any case


class Judge:
    """Judges a task's model, and keeps count of what that costs.

    Args:
        task: its model is on the device of `fabric`.
        options: resolved.
        fabric: device and precision.

    Attributes:
        part: part of the validation text that is used while the run goes on, in (0, 1]; None before
            the first judgement.
        seconds: that the task took for the latest judgement; None before the first one.
    """

    def __init__(self, task: Task, options: TrainingOptions, fabric: Fabric):
        self._task, self._options, self._fabric = task, options, fabric
        self.part: float | None = None
        self.seconds: float | None = None
        self._final: float | None = None  # part of the validation text, at the end

    def choose_part(self, steps: float | None, speed: float) -> float:
        """Choose the part of the validation text to use, so that it stays cheap beside the run.

        Args:
            steps: of the whole run, as far as they can be foreseen.
            speed: units learned from in a second.
        """
        if not steps:
            self.part = 1.0
        else:
            units = float(_ENOUGH_UNITS)
            if self._options.minutes is not None:
                affordable = 60.0 * self._options.minutes * _COST * _QUICKER * speed
                units = min(units, max(_FEWEST_UNITS, affordable))
            least = min(_LEAST_PART, units / max(self._task.validation_units or 1, 1))
            self.part = min(1.0, max(least, steps / (4 * self._task.steps_per_epoch)))
        return self.part

    def judge(self, sample: bool) -> tuple[dict[str, float], str | None]:
        """Return validation metrics and a sample; the random generators stay where they are."""
        device, model = self._fabric.device, self._task.model
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad(), self._fabric.autocast():
            model.eval()
            began = time.monotonic()
            part = self.part or 1.0
            metrics = self._task.validate(None if part >= 1.0 else part)
            self.seconds = time.monotonic() - began
            text = self._task.sample() if sample else None
            model.train()
        return metrics, text

    def must_repeat(self) -> bool:
        """Return whether judgements so far were on a part of the text, or in low precision."""
        return (self.part or 1.0) < 1.0 or self._options.precision == "bf16"

    def reserve(self, spent: float) -> float | None:
        """Return the seconds that the end of a run needs for judgements; None if not known yet.

        Args:
            spent: seconds of the run so far.
        """
        if self.seconds is None:
            return None
        again = self._last() * self.final_part(spent) / (self.part or 1.0)
        return self.seconds + (again if self.must_repeat() else 0.0)

    def final_part(self, spent: float) -> float:
        """Return the part of the validation text that the final metrics are on.

        It is all of it, but where that would take a timed run too long.

        Args:
            spent: seconds of the run so far.
        """
        if self._final is not None:
            return self._final
        part = self.part or 1.0
        if self._options.minutes is None or part >= 1.0:
            return 1.0
        if self.seconds is None:  # a run that had ended, taken up again
            return final_part(part)
        affordable = max(_FINAL_SECONDS, _FINAL_SHARE * spent)
        return min(1.0, max(part, part * affordable / self._last()))

    def _last(self) -> float:
        """Return the seconds that judging the same part in full precision takes, about."""
        slower = 2.0 if self._options.precision == "bf16" else 1.0
        return slower * max(self.seconds or 0.0, 1e-6)

    def finish(self, best: Path, spent: float) -> dict[str, float] | None:
        """Take the best weights as the model and return their metrics, in full precision.

        Args:
            best: the file of these weights.
            spent: seconds of the run so far.

        Returns:
            None where the metrics found with these weights stand.
        """
        _, _, tensors = model_file.read(best)
        checkpoint.load_weights(best, self._task.model, tensors)
        self._task.model.eval()
        if not self.must_repeat():
            return None
        self._final = part = self.final_part(spent)
        with torch.no_grad():
            return self._task.validate(None if part >= 1.0 else part)
