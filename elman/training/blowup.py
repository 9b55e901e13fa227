"""A loss or gradient that is no longer finite: where it began, and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from elman.training.options import TrainingOptions

_DIVERGED = 5.0  # times the first loss; a network that knows nothing has about that one


def explain(
    model: nn.Module, step: int, loss: float, rate: float, options: TrainingOptions
) -> list[str]:
    """Say what blew up at a step and what to try, one line each.

    Args:
        model: with the gradients of that step; its weights are those before the step.
        step: counted from 1.
        loss: of the step.
        rate: learning rate of the step.
        options: of the run.
    """
    what = "the loss is" if not math.isfinite(loss) else "a gradient is"
    lines = [f"step {step}: {what} not finite (loss {loss:.6g}, learning rate {rate:.3g})."]
    name, value, count = worst_gradient(model)
    if count:
        lines.append(f"{count} parameters have a gradient that is not finite, the first {name}.")
    elif name:
        lines.append(f"The largest gradient is that of {name}: norm {value:.3g}.")
    weight, size = _largest_weight(model)
    lines.append(f"The largest weight is in {weight}: {size:.3g}.")
    lines.append("Try " + ", ".join(remedies(options)) + ".")
    return lines


def explain_validation(step: int, loss: float, options: TrainingOptions) -> list[str]:
    """Say that a validation is not finite, and what to try, one line each."""
    return [
        f"step {step}: the validation loss is {loss}, not finite.",
        f"Try a smaller learning rate (lr={options.lr / 4:.1g}).",
    ]


def remedies(options: TrainingOptions) -> list[str]:
    """Return what to try against a loss that grows without end, the likeliest first."""
    smaller = min(options.lr / 4, 0.1)
    tries = [f"a smaller learning rate (lr={smaller:.1g})"]
    if options.optimizer == "muon":
        tries[0] = f"smaller rates (lr={smaller:.1g}, muon_lr={options.muon_lr / 4:.1g})"
    if not options.clip_norm:
        tries.append("clipping (clip_norm=1)")
    elif options.clip_norm > 0.1:
        tries.append(f"tighter clipping (clip_norm={options.clip_norm / 4:.2g})")
    if options.warmup < 0.05:
        tries.append("a longer warm-up (warmup=0.1, in a new run)")
    if options.precision == "bf16":
        tries.append("precision=32 (in a new run)")
    return tries


def diverged(
    first: float | None,
    losses: Mapping[str, float | None],
    options: TrainingOptions,
    unit: str = "token",
) -> str:
    """Say that a loss, though finite, ended far above the first one; "" where none did.

    Args:
        first: loss of the first step; None where there was none.
        losses: at the end, in nats a unit, by what they are of ("training").
        options: of the run.
        unit: what a loss is a mean over.
    """
    if first is None:
        return ""
    # a loss may begin near 0, and that of a density below it: far above is then in nats
    far = first + (_DIVERGED - 1) * max(abs(first), 1.0)
    for name, loss in losses.items():
        if loss is not None and loss > far:
            return (
                f"The run diverged: its {name} loss ended at {loss:.4g} nats a {unit}, and the "
                f"first was {first:.4g}. Try {', '.join(remedies(options))}."
            )
    return ""


def worst_gradient(model: nn.Module) -> tuple[str, float, int]:
    """Return name and norm of the first gradient that is not finite, or else of the largest one.

    Returns:
        the parameter's name ("" where there are no gradients), the norm, and how many parameters'
        gradients are not finite.
    """
    name, largest, bad = "", -1.0, 0
    for candidate, weight in model.named_parameters():
        if weight.grad is None:
            continue
        finite = bool(torch.isfinite(weight.grad).all())
        norm = float(weight.grad.double().norm())
        if not finite:
            bad += 1
            if bad == 1:
                name, largest = candidate, norm
        elif not bad and norm > largest:
            name, largest = candidate, norm
    return name, largest, bad


def _largest_weight(model: nn.Module) -> tuple[str, float]:
    sizes = {n: float(w.detach().abs().max()) for n, w in model.named_parameters() if w.numel()}
    name = max(sizes, key=lambda key: (not math.isfinite(sizes[key]), sizes[key]))
    return name, sizes[name]
