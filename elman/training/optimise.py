"""What happens between a gradient and the weights: penalties, clipping, optimisers, averaging."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from elman.training.options import TrainingOptions, cpu_multiplies_bf16

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 4


class Muon(Optimizer):
    r"""Momentum whose direction is made orthogonal, for the matrices of recurrent layers.

    For each block G of rows of a gradient (one gate of a stacked LSTM matrix is one block):

    .. math::

        B \leftarrow \mu B + (1 - \mu) G, \qquad
        O \approx (X X^\top)^{-1/2} X, \quad X = (1 - \mu) G + \mu B, \qquad
        W \leftarrow (1 - \eta\lambda) W - \eta \sqrt{\max(1, rows/columns)}\, O

    where O, the nearest matrix with orthonormal rows (or columns), comes from four steps of
    X ← aX + (bXXᵀ + c(XXᵀ)²)X after scaling X to Frobenius norm 1.

    Args:
        blocks: pairs of a matrix and the number of blocks of rows in it.
        lr: learning rate η.
        momentum: μ, in [0, 1).
        weight_decay: λ, >= 0.
        precision: of the iteration: torch.bfloat16 where the hardware multiplies it, else float32.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (the
    iteration and its three constants). There the momentum is a plain sum, the whole matrix is one
    block, and the iteration has five steps; the fifth was measured to cost more than it gives.
    """

    def __init__(
        self,
        blocks: Sequence[tuple[nn.Parameter, int]],
        lr: float,
        momentum: float,
        weight_decay: float,
        precision: torch.dtype,
    ):
        self._blocks = [count for _, count in blocks]
        self._precision = precision
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([weight for weight, _ in blocks], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        group = self.param_groups[0]
        for weight, count in zip(group["params"], self._blocks, strict=True):
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
            ahead = weight.grad.lerp(state["momentum"], group["momentum"])
            stacked = ahead.view(count, weight.shape[0] // count, weight.shape[1])
            direction = orthogonal(stacked.to(self._precision)).to(weight.dtype)
            scale = math.sqrt(max(1.0, stacked.shape[1] / stacked.shape[2]))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(direction.reshape(weight.shape), alpha=-group["lr"] * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return nearly orthogonal matrices with the singular vectors of those given.

    Shapes:
        matrices: (blocks, rows, columns), and so the result; singular values end near 1, all but
        the smallest between about 0.7 and 1.2.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    norm = x.float().norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    x = x / norm.to(x.dtype)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


def recurrent_matrices(model: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Return the matrices of the recurrent layers of a model, with the blocks of rows in each.

    A recurrent layer is a module that has a `hidden_size`: torch.nn's and Elman's. A matrix whose
    rows are several hidden sizes holds the gates one above the other.
    """
    found: dict[nn.Parameter, int] = {}
    for module in model.modules():
        hidden = getattr(module, "hidden_size", None)
        if not isinstance(hidden, int):
            continue
        for weight in module.parameters(recurse=False):
            if weight.ndim == 2:
                rows = weight.shape[0]
                found[weight] = rows // hidden if rows % hidden == 0 else 1
    return list(found.items())


def make_optimizers(model: nn.Module, options: TrainingOptions) -> list[Optimizer]:
    """Make the optimisers of a model; each remembers its top rate as "top" in its groups."""
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    made: list[Optimizer] = []
    if options.optimizer == "muon":
        on_cpu = parameters[0].device.type == "cpu"
        fast = options.precision == "bf16" and (not on_cpu or cpu_multiplies_bf16())
        precision = torch.bfloat16 if fast else parameters[0].dtype
        blocks = [(w, n) for w, n in recurrent_matrices(model) if w.requires_grad]
        if blocks:
            decay = options.weight_decay
            made.append(Muon(blocks, options.muon_lr, options.momentum, decay, precision))
        taken = {id(weight) for weight, _ in blocks}
        parameters = [weight for weight in parameters if id(weight) not in taken]
    if parameters:
        made.append(_plain(parameters, options))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["top"] = group["lr"]
    return made


def _plain(parameters: list[nn.Parameter], options: TrainingOptions) -> Optimizer:
    matrices = [weight for weight in parameters if weight.ndim >= 2]
    vectors = [weight for weight in parameters if weight.ndim < 2]
    groups = [
        {"params": weights, "weight_decay": decay}
        for weights, decay in ((matrices, options.weight_decay), (vectors, 0.0))
        if weights
    ]
    if options.optimizer == "sgd":
        return SGD(groups, lr=options.lr, momentum=options.momentum, fused=True)
    kind = Adam if options.optimizer == "adam" else AdamW
    return kind(groups, lr=options.lr, betas=(options.beta1, options.beta2), fused=True)


def set_rate(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set every learning rate to `factor` times its top rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * factor


@torch.no_grad()
def add_penalty_gradients(parameters: list[nn.Parameter], l1: float, l2: float) -> None:
    r"""Add the gradient of l1 Σ|w| + l2 Σ w² over all matrices: l1 sign(w) + 2 l2 w.

    Biases, gains and other vectors are not held down. Zero weights get no push from l1.
    """
    weights: list[Tensor] = []
    gradients: list[Tensor] = []
    for weight in parameters:
        if weight.ndim >= 2 and weight.grad is not None:
            weights.append(weight)
            gradients.append(weight.grad)
    if weights and l2:
        torch._foreach_add_(gradients, weights, alpha=2.0 * l2)
    if weights and l1:
        torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=l1)


@torch.no_grad()
def penalty(parameters: list[nn.Parameter], l1: float, l2: float) -> float:
    """Return l1 Σ|w| + l2 Σ w² over all matrices."""
    weights = [w for w in parameters if w.ndim >= 2]
    absolute = sum(float(w.abs().sum()) for w in weights) if l1 else 0.0
    squares = sum(float(w.square().sum()) for w in weights) if l2 else 0.0
    return l1 * absolute + l2 * squares


def norm_of(gradients: list[Tensor]) -> float:
    """Return the Euclidean norm of all gradients together."""
    if not gradients:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))


@torch.no_grad()
def clip(gradients: list[Tensor], norm: float, clip_norm: float, clip_value: float) -> None:
    """Hold gradients back in place: first every entry within ±clip_value, then their norm.

    Args:
        gradients: of all parameters.
        norm: their norm as it is.
        clip_norm: longest norm allowed; 0 is any.
        clip_value: largest entry allowed; 0 is any.
    """
    if not gradients:
        return
    if clip_value:
        torch._foreach_clamp_min_(gradients, -clip_value)
        torch._foreach_clamp_max_(gradients, clip_value)
        norm = norm_of(gradients) if clip_norm else norm
    if clip_norm and norm > clip_norm:
        torch._foreach_mul_(gradients, clip_norm / norm)


@dataclass
class Average:
    r"""A running average of the weights, whose horizon grows with the run.

    .. math::

        a_s = a_{s-1} + \frac{w_s - a_{s-1}}{1 + \kappa s}

    About the last κs + 1 weights count: κ = 0 is the last weights alone, κ = 1 the plain mean of
    all of them.
    """

    weights: list[Tensor]
    average: list[Tensor]
    part: float

    @classmethod
    def of(cls, parameters: Iterable[Tensor], part: float) -> Average:
        """Begin at the weights as they are."""
        weights = [w.detach() for w in parameters]
        return cls(weights, [w.clone() for w in weights], part)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 1."""
        torch._foreach_lerp_(self.average, self.weights, weight=1.0 / (1.0 + self.part * step))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average; twice is nothing, to the bit."""
        kept = [w.clone() for w in self.weights]
        torch._foreach_copy_(self.weights, self.average)
        torch._foreach_copy_(self.average, kept)
