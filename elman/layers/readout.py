"""From features to tokens: the output layer and its loss in one, a few rows at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ROWS = 256  # of logits at once: they stay in the cache, and are never kept for the backward


class _TokenLoss(torch.autograd.Function):
    """The summed loss; its gradient is computed on the way, while the logits are at hand."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float
    ) -> Tensor:
        kind = _product_type(features.device.type, weight.dtype)
        wanted = any(ctx.needs_input_grad)
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            low, rows = weight.to(kind), features.to(kind)
            gradients = [torch.zeros_like(t) for t in (features, weight, bias)] if wanted else []
            total = torch.zeros((), dtype=torch.float64, device=weight.device)
            for first in range(0, len(rows), _ROWS):
                part = rows[first : first + _ROWS]
                logits = (part @ low.T).to(weight.dtype).add_(bias)
                loss = _in_place(logits, targets[first : first + _ROWS], smoothing, wanted)
                total += loss.double().sum()
                if wanted:
                    back = logits.to(kind)
                    gradients[0][first : first + _ROWS] = (back @ low).to(features.dtype)
                    gradients[1] += (back.T @ part).to(weight.dtype)
                    gradients[2] += logits.sum(0)
        ctx.save_for_backward(*gradients)
        return total.to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> Any:
        return (*(above[0] * g for g in ctx.saved_tensors), None, None)


def _in_place(logits: Tensor, targets: Tensor, smoothing: float, wanted: bool) -> Tensor:
    """The loss of each row; the logits become its gradient by them, if it is wanted."""
    right = targets.unsqueeze(1)
    highest = logits.amax(1, keepdim=True)
    hit, mean = logits.gather(1, right), logits.mean(1, keepdim=True)
    logits.sub_(highest).exp_()
    total = logits.sum(1, keepdim=True)
    loss = total.log() + highest - (1 - smoothing) * hit - smoothing * mean
    if wanted:
        logits.div_(total)
        if smoothing:
            logits.sub_(smoothing / logits.shape[1])
        logits.scatter_add_(1, right, torch.full_like(hit, smoothing - 1))
    return loss


def _product_type(device: str, own: torch.dtype) -> torch.dtype:
    if own is torch.float32 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return own


def token_loss(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    r"""Return the summed loss of tokens told from features by a linear layer and a softmax.

    With z = W f + b over V tokens, p = softmax(z), the right token y and the smoothing s,

    .. math::

        \ell = -(1 - s) \ln p_y - \frac{s}{V} \sum_v \ln p_v .

    The logits of all rows are never held at once. Under autocast the products are in its type, all
    else in the weights' own. The gradient can be taken once, not differentiated again.

    Args:
        features: (rows, size).
        weight: (tokens, size).
        bias: (tokens,).
        targets: (rows,), int64, in [0, tokens).
        smoothing: s, in [0, 1).

    Returns:
        the sum of the losses in nats, without dimensions.

    Example:
        >>> f, w, y = torch.randn(7, 4), torch.randn(9, 4), torch.randint(9, (7,))
        >>> known = torch.nn.functional.cross_entropy(f @ w.T, y, reduction="sum")
        >>> bool(torch.isclose(token_loss(f, w, torch.zeros(9), y), known))
        True

    Source: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7 (smoothing).
    """
    loss: Tensor = _TokenLoss.apply(features, weight, bias, targets, smoothing)
    return loss
