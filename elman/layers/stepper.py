"""One step at a time: for streams, control, and text that is written as it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elman import equation
from elman.backends.call import Carried
from elman.backends.reference import Step
from elman.errors import InputError
from elman.layers import checks
from elman.layers.forms import further_inputs
from elman.layers.states import read_state, write_state
from elman.layers.walk import draw_masks

if TYPE_CHECKING:
    from elman.layers.base import RecurrentLayer


class Stepper:
    """A layer that is fed one step at a time and keeps its state between calls.

    Masks of recurrent dropout are drawn once, at the first step after a start or reset; dropout
    between layers and zoneout draw at each step. Under autograd the graph grows from step to step
    until the state is reset or cut by `detach()`, or by the layer's `BPTT(window=…)`.

    Example:
        >>> import elman, torch
        >>> step = elman.RNN(2, 3).stepper()
        >>> step(torch.randn(2)).shape
        torch.Size([3])
        >>> step.state.shape
        torch.Size([1, 3])
    """

    def __init__(self, layer: RecurrentLayer, state: Tensor | Sequence[Tensor] | None = None):
        if layer.bidirectional:
            raise InputError(
                f"{layer.owner}: a bidirectional layer has no stepper, since its reverse direction "
                "begins with the last step; build it with bidirectional=False"
            )
        self._layer = layer
        self.reset(state)

    def reset(self, state: Tensor | Sequence[Tensor] | None = None) -> None:
        """Start anew, with the layer's initial state or with the one given."""
        self._given, self._batched, self._count = state, True, 0
        self._carried: list[Carried] = []
        self._masks: list[dict[str, Tensor]] = []
        self._steps: list[Step] = []
        self._prepared = False

    @property
    def state(self):
        """The state in the layer's form; None before the first step if none was given."""
        if not self._carried:
            return self._given
        parts = write_state(self._layer.cell.graph, self._carried, 1)
        parts = parts if self._batched else tuple(p.squeeze(1) for p in parts)
        return parts[0] if len(parts) == 1 else parts

    def detach(self) -> None:
        """Cut the gradient here; the values stay."""
        self._carried = [tuple(c.detach() for c in carried) for carried in self._carried]

    def __call__(self, x: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """One step.

        Args:
            x: (batch, input), or (input,) without a batch; the same at every step.
            inputs: the cell's further inputs by name, each (batch, …), or (…) without a batch.

        Returns:
            Tensor: the output of this step, (batch, output) or (output,).
        """
        layer = self._layer
        self._check(x)
        batched = x.dim() == 2
        further, graph = {}, layer.cell.graph
        given_inputs = further_inputs(layer.owner, graph, layer._sizes[0], inputs)
        for name, one in given_inputs.items():
            checks.check_further(layer.owner, name, one.value, (*x.shape[:-1], *one.shape), x)
            further[name] = one.value if batched else one.value.unsqueeze(0)
        x = x if batched else x.unsqueeze(0)
        if not self._carried:
            self._start(x, batched)
        window = layer.learning.window
        if window and self._count and self._count % window == 0:
            self.detach()
        self._count += 1
        plan, carried = layer._plan(), []
        steps = self._programs(plan.graph)
        for i, sizes in enumerate(layer._sizes):
            below = x
            if i and plan.dropout:
                x = torch.dropout(x, plan.dropout, True)
            by_step, by_sequence = draw_masks(plan, x.unsqueeze(0), sizes)
            if len(self._masks) <= i:
                self._masks.append(by_sequence)
            by_step = {k: v[0] for k, v in by_step.items()}
            extras = {**further, **by_step, **by_sequence, **self._masks[i]}
            x, after = steps[i](x, self._carried[i], extras)
            if plan.residual and i:
                x = x + below
            carried.append(after)
        self._carried = carried
        if layer.dense is not None:
            x = layer._dense(x)
        return x if batched else x.squeeze(0)

    def _check(self, x: Tensor) -> None:
        layer = self._layer
        if not isinstance(x, Tensor):
            raise checks.ArgumentTypeError(
                f"{layer.owner}.stepper: x is a {type(x).__name__}; give a tensor"
            )
        shape = tuple(x.shape)
        if x.dim() not in (1, 2) or shape[-1] != layer.input_size:
            raise checks.SizeError(
                f"{layer.owner}.stepper: x has shape {shape}; one step is (batch, "
                f"{layer.input_size}) or ({layer.input_size},)"
            )
        checks.check_dtype(layer.owner, x, layer._weight().dtype)
        if not self._carried:
            return
        batch = self._carried[0][0].shape[0]
        if (x.dim() == 2) != self._batched or (x.dim() == 2 and shape[0] != batch):
            before = (batch, layer.input_size) if self._batched else (layer.input_size,)
            raise checks.SizeError(
                f"{layer.owner}.stepper: x has shape {shape}; the steps before had {before}. "
                "Call reset() to begin with another batch"
            )

    def _start(self, x: Tensor, batched: bool) -> None:
        layer = self._layer
        self._batched = batched
        if self._given is None:
            self._carried = layer.initial_carried(x.shape[0], x)
            return
        self._carried = read_state(
            layer.owner,
            layer.cell.graph,
            layer._sizes,
            1,
            self._given,
            x.unsqueeze(0),
            batched=batched,
        )

    def _programs(self, graph: equation.Graph) -> list[Step]:
        """The step of each layer. Without gradients the parameters are prepared only once."""
        layer = self._layer
        if not self._steps or torch.is_grad_enabled() or self._prepared != layer.training:
            self._steps = [
                Step(graph, layer.equation_parameters(i, 0)) for i in range(layer.num_layers)
            ]
            self._prepared = layer.training
        return self._steps
