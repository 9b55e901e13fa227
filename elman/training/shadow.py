"""The fidelity of a run's gradient: the exact one, along the run's own path, held against it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from elman.tasks.base import Carry, Task


class Shadow:
    """Carries the exact influence beside a run, and compares gradients every so many steps.

    At every step the shadow reads the same batch with the same weights and the same dropout, so
    that its influence is the one that exact credit would have had on this very run; it changes
    nothing of the run.

    Args:
        task: which can tell its exact loss (`Task.exact`).
        parameters: whose gradients are compared.
        every: steps between comparisons, >= 1; the first step is compared.

    Attributes:
        carry: of the exact credit, from step to step.
    """

    def __init__(self, task: Task, parameters: Sequence[nn.Parameter], every: int):
        self._task, self._parameters, self._every = task, parameters, every
        self.carry: Carry = None

    def step(
        self,
        step: int,
        batch: tuple[Tensor, ...],
        drawn: Tensor,
        gradients: Sequence[Tensor | None],
    ) -> dict[str, Any] | None:
        """Follow one step of the run.

        Args:
            step: counted from 0.
            batch: that the run has read.
            drawn: state of torch's random generator before it did.
            gradients: of the run's own loss, for each parameter.

        Returns:
            "cosine" and "relative_error" of the run's gradient to the exact one, or None where
            this step is not compared.
        """
        compare = step % self._every == 0
        with _drawn_again(drawn), torch.set_grad_enabled(compare):
            loss, self.carry = self._task.exact(batch, self.carry)
        if not compare:
            return None
        exact = torch.autograd.grad(loss, list(self._parameters), allow_unused=True)
        return likeness(gradients, exact)


@contextmanager
def _drawn_again(state: Tensor) -> Iterator[None]:
    """Draw the same random numbers once more, and leave the generator where it was."""
    before = torch.get_rng_state()
    torch.set_rng_state(state)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def likeness(
    found: Sequence[Tensor | None], exact: Sequence[Tensor | None]
) -> dict[str, float | None]:
    """Return cosine and relative error of one gradient to another, over all parameters.

    Args:
        found, exact: a tensor for each parameter; None is zero.

    Returns:
        "cosine", in [-1, 1], and "relative_error", ‖found - exact‖ / ‖exact‖; None where a length
        is zero.

    Example:
        >>> likeness([torch.tensor([1.0, 0.0])], [torch.tensor([2.0, 0.0])])
        {'cosine': 1.0, 'relative_error': 0.5}
    """
    product = ours = theirs = gap = 0.0
    for one, other in zip(found, exact, strict=True):
        one = None if one is None else one.detach().double()
        other = None if other is None else other.detach().double()
        if one is not None and other is not None:
            product += float((one * other).sum())
            gap += float((one - other).square().sum())
        elif one is not None or other is not None:
            there = one if one is not None else other
            gap += 0.0 if there is None else float(there.square().sum())
        ours += 0.0 if one is None else float(one.square().sum())
        theirs += 0.0 if other is None else float(other.square().sum())
    length = math.sqrt(ours) * math.sqrt(theirs)
    return {
        "cosine": product / length if length else None,
        "relative_error": math.sqrt(gap / theirs) if theirs else None,
    }
