"""How fast to learn, and how long: the learning rate as a function of the progress of a run.

Progress is a number from 0 to 1: the part of the budget that is used, whether that is counted in
steps or in seconds. One function serves both, so a run of three minutes and one of three thousand
steps follow the same curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from elman.training.options import TrainingOptions

VALIDATIONS = 10  # in a run, at least
SCHEDULES = ("constant", "cosine", "linear", "trapezoid")
TRAPEZOID_DECAY = 0.7  # a trapezoid stays at the full rate up to this progress


@dataclass(frozen=True)
class Limit:
    """What ends a run; what is None does not.

    Args:
        steps: optimiser steps, >= 0.
        seconds: seconds of training, > 0.
    """

    steps: int | None
    seconds: float | None

    def progress(self, step: int, seconds: float) -> float:
        """Return the used part of the budget, in [0, 1]; the scarcer of the two counts.

        Example:
            >>> Limit(steps=100, seconds=None).progress(25, 3.0)
            0.25
            >>> Limit(steps=100, seconds=6.0).progress(25, 3.0)
            0.5
        """
        used = 0.0
        if self.steps is not None:
            used = step / self.steps if self.steps else 1.0
        if self.seconds is not None:
            used = max(used, seconds / self.seconds if self.seconds > 0 else 1.0)
        return min(used, 1.0)


def rate(
    progress: float,
    schedule: str = "cosine",
    *,
    warmup: float = 0.0,
    decay_from: float | None = None,
    final: float = 0.0,
) -> float:
    r"""Return the factor on the learning rate at a point of the run.

    With w the warm-up, d the start of the decay and u = (progress − d) / (1 − d):

    .. math::

        r = \begin{cases}
            progress / w & progress < w \\
            1 & w \le progress < d \\
            e + (1 - e)\,\tfrac12 (1 + \cos \pi u) & \text{cosine} \\
            e + (1 - e)\,(1 - u) & \text{linear, trapezoid}
        \end{cases}

    Args:
        progress: used part of the budget, in [0, 1].
        schedule: "constant", "cosine", "linear" or "trapezoid" (linear, but from 0.7 on).
        warmup: part of the budget over which the rate rises from 0, in [0, 1).
        decay_from: progress at which the decay begins; None is the end of the warm-up (0.7 for the
            trapezoid).
        final: factor e at the end, in [0, 1].

    Returns:
        the factor, in [0, 1].

    Example:
        >>> [round(rate(p, "linear", warmup=0.1), 3) for p in (0.05, 0.1, 0.55, 1.0)]
        [0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return max(progress, 1e-3 * warmup) / warmup
    if schedule == "constant":
        return 1.0
    start = decay_from
    if start is None:
        start = TRAPEZOID_DECAY if schedule == "trapezoid" else warmup
    start = max(start, warmup)
    if progress <= start or start >= 1.0:
        return 1.0
    used = min((progress - start) / (1.0 - start), 1.0)
    left = 0.5 * (1.0 + math.cos(math.pi * used)) if schedule == "cosine" else 1.0 - used
    return final + (1.0 - final) * left


def planned_steps(options: TrainingOptions, steps_per_epoch: int) -> int | None:
    """Return the optimiser steps of a budget of steps or epochs, the smaller; None if neither."""
    planned = [] if options.steps is None else [options.steps]
    if options.epochs is not None:
        planned.append(math.ceil(options.epochs * steps_per_epoch))
    return min(planned) if planned else None


def validation_interval(steps: int, steps_per_epoch: int) -> int:
    """Return steps between validations: ten a run, or one an epoch if that is up to fifty.

    Example:
        >>> validation_interval(1000, 400), validation_interval(1000, 25)
        (100, 25)
    """
    tenth = max(1, steps // VALIDATIONS)
    return tenth if steps_per_epoch >= tenth else max(steps_per_epoch, steps // 50)


def final_part(part: float) -> float:
    """Return the part of the validation text for a last judgement whose cost is not known."""
    return min(1.0, 8.0 * part)
