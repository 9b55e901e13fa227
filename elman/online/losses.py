"""What a prediction is judged by, where some targets may be missing."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from elman.errors import InputError, SizeError, nearest

Loss = Callable[[Tensor, Tensor], Tensor]
_REGRESSION: dict[str, Loss] = {"mse": functional.mse_loss, "huber": functional.huber_loss}
CLASSES = "cross_entropy"
NAMES = (*_REGRESSION, CLASSES)


def check(loss: str | Loss) -> None:
    """See that a loss is a known name or a function.

    Raises:
        InputError: it is neither.
    """
    if not callable(loss) and loss not in NAMES:
        raise InputError(
            f"OnlineLearner: loss is {loss!r}; expected one of {', '.join(NAMES)}, or a function."
            f"{nearest(str(loss), NAMES)}"
        )


def measure(loss: str | Loss, out: Tensor, y: Tensor) -> Tensor | None:
    """The mean loss over the targets that are there; None where none is.

    Args:
        loss: a name of `NAMES`, or a function, which is given everything.
        out: predictions, (steps, batch, …).
        y: targets of the same shape, NaN where missing; for "cross_entropy" class numbers without
            the last axis, below 0 where missing.

    Raises:
        SizeError: shapes that do not fit.
    """
    if not isinstance(loss, str):
        return loss(out, y)
    classes = loss == CLASSES
    expected = out.shape[:-1] if classes else out.shape
    if y.shape != expected:
        raise SizeError(
            f"OnlineLearner: the target has shape {tuple(y.shape[1:])}; for {loss!r} and a "
            f"prediction {tuple(out.shape[1:])} expected {tuple(expected[1:])}, the batch first"
        )
    there = y >= 0 if classes else ~y.isnan()
    if not bool(there.all()):
        if not bool(there.any()):
            return None
        out, y = out[there], y[there]
    elif classes:
        out, y = out.flatten(0, -2), y.flatten()
    return functional.cross_entropy(out, y) if classes else _REGRESSION[loss](out, y)
