"""Norms beside the loss: of the gradient of each group of weights, and of the states."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elman.layers.base import RecurrentLayer
from elman.layers.gates import state_matrices
from elman.tasks.base import Carry

_LAYER = re.compile(r"(.+)_l(\d+)(?:_reverse)?")


def groups(model: nn.Module) -> dict[str, str]:
    """Return the group of each parameter of a model, by the parameter's name.

    A recurrent layer, ours or torch.nn's, has the groups "NAME.recurrent" (matrices that multiply
    the state), "NAME.input" (matrices that multiply x) and "NAME.biases" (all else); a stack in
    one module has them for each of its layers, "NAME.0.recurrent". Any other parameter belongs to
    the module that holds it.

    Example:
        >>> import elman
        >>> model = nn.ModuleDict({"rnn": elman.RNN(2, 3), "readout": nn.Linear(3, 1)})
        >>> sorted(set(groups(model).values()))
        ['readout', 'rnn.biases', 'rnn.input', 'rnn.recurrent']
    """
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            parts = [path or name]
            entry = _LAYER.fullmatch(name)
            if entry and isinstance(module, RecurrentLayer | nn.RNNBase):
                parts = [path, entry[2]] if module.num_layers > 1 else [path]
                parts.append(_kind(module, entry[1]))
            found[full] = ".".join(part for part in parts if part)
    return found


def _kind(layer: RecurrentLayer | nn.RNNBase, name: str) -> str:
    """Which of the three groups of a recurrent layer a parameter belongs to."""
    if name in ("weight_hh", "weight_hr"):
        return "recurrent"
    if name == "weight_ih":
        return "input"
    if isinstance(layer, RecurrentLayer):
        if name in state_matrices(layer.cell.graph):
            return "recurrent"
        dims = {p.name: p.dims for p in layer.cell.graph.parameters}.get(name, ())
        if len(dims) == 2:
            return "input" if dims[1] == "input" else "recurrent"
    return "biases"


class GradientNorms:
    """The norms of a model's gradient, of all of it and of its groups.

    Args:
        model: whose parameters are grouped by `groups`.
    """

    def __init__(self, model: nn.Module):
        self._names = groups(model)
        self._weights = [(n, w) for n, w in model.named_parameters() if w.requires_grad]

    def measure(self) -> tuple[float, dict[str, float]]:
        """Return the Euclidean norm of all gradients together, and of each group."""
        there = [(n, w.grad) for n, w in self._weights if w.grad is not None]
        if not there:
            return 0.0, {}
        norms = torch.stack(torch._foreach_norm([gradient for _, gradient in there]))
        total = float(torch.linalg.vector_norm(norms))
        squares: dict[str, float] = {}
        for (name, _), norm in zip(there, norms.tolist(), strict=True):
            group = self._names[name]
            squares[group] = squares.get(group, 0.0) + norm * norm
        return total, {group: math.sqrt(square) for group, square in squares.items()}


def beside_the_loss(means: Mapping[str, float], carry: Carry) -> dict[str, Any]:
    """Return what a row of metrics holds of the flow of the gradient and of the states.

    Args:
        means: means of the steps since the row before: "flow", and "norm of NAME" for each group.
        carry: after the last of them.

    Returns:
        "flow", "gradient_norms" (by group) and "state_norm", as far as they are there.
    """
    row: dict[str, Any] = {}
    if "flow" in means:
        row["flow"] = means["flow"]
    prefix = "norm of "
    row["gradient_norms"] = {
        name.removeprefix(prefix): value for name, value in means.items() if name.startswith(prefix)
    }
    norm = state_norm(carry)
    if norm is not None:
        row["state_norm"] = norm
    return row


@torch.no_grad()
def state_norm(carry: Carry) -> float | None:
    """Return the mean Euclidean norm of the state vectors in a carry; None where there are none.

    The influence that an exact or approximate carry holds beside the states is left out.

    Shapes:
        every floating-point tensor of the carry: (..., batch, size), one vector a row.
    """
    vectors = [v.float() for v in _tensors(carry) if v.is_floating_point() and v.ndim >= 2]
    if not vectors:
        return None
    norms = [torch.linalg.vector_norm(v, dim=-1).flatten() for v in vectors if v.numel()]
    return float(torch.cat(norms).mean()) if norms else None


def _tensors(carry: Carry) -> Sequence[Tensor]:
    if isinstance(carry, Tensor):
        return [carry]
    if hasattr(carry, "influence"):
        carry = carry.states
    if isinstance(carry, tuple | list):
        return [tensor for part in carry for tensor in _tensors(part)]
    return []
