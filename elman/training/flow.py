"""The penalty on the flow of the gradient through a recurrent layer.

It asks that the gradient of the loss keeps its length from each step to the one before, in the
direction in which it really goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from elman.backends import reference
from elman.errors import InputError
from elman.layers.base import RecurrentLayer
from elman.layers.states import as_tuple

_SMALLEST = 1e-30  # a gradient that is nowhere larger has no direction to speak of


@dataclass
class _Call:
    """What one call of a layer was given, and the gradients of what it gave back."""

    layer: RecurrentLayer
    x: Tensor
    state: Any
    outputs: list[Tensor]  # the outputs, then the last states
    cotangents: list[Tensor | None]

    @property
    def above(self) -> Tensor | None:
        """The gradient of the outputs, (time, batch, size)."""
        found = self.cotangents[0]
        return found.transpose(0, 1) if found is not None and self.layer.batch_first else found


class Flow:
    r"""The penalty Ω on all recurrent layers of a model that are called while it watches.

    .. math::

        \Omega = \mathop{\mathrm{mean}}_{k,\,row} \left(
        \frac{\|\delta_{k+1}\, \partial s_{k+1} / \partial s_k\|}{\|\delta_{k+1}\|} - 1 \right)^2,
        \qquad \delta_k = \partial L / \partial s_k

    where s holds all states of a layer. The gradient of Ω by the weights is the immediate one:
    states and δ count as given. Layers are looked at without their own dropout and zoneout.

    Args:
        model: the network.

    Raises:
        InputError: the model has no recurrent layer of Elman, or one that is a stack, runs in both
            directions, has delays, or reads more than x.

    Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural
    networks", section 3.3. They sum over the steps; here it is the mean over steps and rows, so
    that a weight suits any length.
    """

    def __init__(self, model: nn.Module):
        self._layers = [m for m in model.modules() if isinstance(m, RecurrentLayer)]
        if not self._layers:
            raise InputError(
                "train: flow_penalty looks at recurrent layers of Elman, and the model has none; "
                "elman.convert makes them of torch.nn's."
            )
        for layer in self._layers:
            _check(layer)
        self._calls: list[_Call] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note every call of a recurrent layer that is made meanwhile."""
        self._calls = []
        note = partial(_note, self._calls)
        hooks = [x.register_forward_hook(note, with_kwargs=True) for x in self._layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def add_gradient(self, weight: float) -> float:
        """Add the gradient of weight · Ω to the gradients of the weights, after the loss's own.

        Returns:
            Ω, the mean over the layers.

        Raises:
            InputError: no recurrent layer was called as a module.
        """
        if not self._calls:
            raise InputError(
                "train: flow_penalty saw no call of a recurrent layer; under a carry the layers "
                "are walked by the learning method. Leave one of the two out."
            )
        total = 0.0
        for call in self._calls:
            penalty = _penalty(call)
            (weight * penalty / len(self._calls)).backward()
            total += float(penalty.detach()) / len(self._calls)
        self._calls = []
        return total


def _check(layer: RecurrentLayer) -> None:
    graph = layer.cell.graph
    reasons = (
        (layer.num_layers > 1, "a stack in one module"),
        (layer.bidirectional, "bidirectional"),
        (bool(graph.lines), f"a cell with delays ({graph.name})"),
        (len(graph.inputs) > 1, f"a cell with further inputs ({graph.name})"),
    )
    found = next((words for there, words in reasons if there), None)
    if found:
        raise InputError(
            f"train: flow_penalty: {layer.owner} is {found}; the penalty takes layers one deep, "
            "in one direction, whose step reads x and its states alone."
        )


def _note(
    calls: list[_Call], layer: nn.Module, args: tuple, named: dict[str, Any], result: Any
) -> None:
    """A forward hook: keep what is needed, and have the gradients of the results told."""
    if not isinstance(layer, RecurrentLayer) or not torch.is_grad_enabled():
        return
    given = dict(zip(("x", "state", "lengths", "resets"), args, strict=False)) | named
    for name in ("lengths", "resets", "inputs"):
        if given.get(name) is not None:
            raise InputError(f"train: flow_penalty: a call with {name} cannot be looked at.")
    if not isinstance(given["x"], Tensor) or given["x"].dim() != 3:
        raise InputError("train: flow_penalty: x must be a batch, (time, batch, features).")
    outputs = [result[0], *as_tuple(layer.owner, result[1])]
    state = given.get("state")
    call = _Call(
        layer,
        given["x"].detach(),
        None if state is None else [s.detach() for s in as_tuple(layer.owner, state)],
        outputs,
        [None] * len(outputs),
    )
    for place, value in enumerate(outputs):
        if value.requires_grad:
            value.register_hook(partial(_keep, call.cotangents, place))
    calls.append(call)


def _keep(cotangents: list[Tensor | None], place: int, gradient: Tensor) -> None:
    cotangents[place] = gradient.detach()


def _penalty(call: _Call) -> Tensor:
    """Ω of one call, differentiable by the layer's weights."""
    layer, x = call.layer, call.x
    if layer.batch_first:
        x = x.transpose(0, 1)
    weights = layer.equation_parameters(0, 0)
    like = next(iter(weights.values()))
    x = x.to(like.dtype)
    before, deltas = _walk(call, {n: w.detach() for n, w in weights.items()}, x)
    # One step of all times at once: what each state was given, and the gradient it handed down.
    rows = x.shape[0] * x.shape[1]
    old = tuple(s.flatten(0, 1).requires_grad_() for s in before)
    with torch.enable_grad():
        _, new, _ = reference.run(layer._graphs[0], weights, x.reshape(1, rows, -1), old)
        directions, there = _normalised([d.flatten(0, 1) for d in deltas])
        handed = torch.autograd.grad(new, old, directions, create_graph=True, allow_unused=True)
        squares = [h.flatten(1).square().sum(1) for h in handed if h is not None]
        if not squares or not bool(there.any()):
            return like.new_zeros((), requires_grad=True)
        # The root has no slope at zero, where no state reaches the next.
        length = (torch.stack(squares).sum(0) + 1e-20).sqrt()[there]
        return (length - 1).square().mean()


def _walk(call: _Call, weights: dict[str, Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The states before each step, and ∂L/∂s of the states after it: each (time, batch, size)."""
    layer, batch = call.layer, x.shape[1]
    if call.state is None:
        (carried,) = layer.initial_carried(batch, x)
        carried = tuple(c.detach() for c in carried)
    else:
        carried = tuple(s[0].to(x.dtype) for s in call.state)
    step = reference.Step(layer._graphs[0], weights)
    before, after, outputs = [], [], []
    with torch.enable_grad():
        carried = tuple(c.clone().requires_grad_() for c in carried)
        for x_t in x:
            before.append(carried)
            out, carried = step(x_t, carried)
            outputs.append(out)
            after.append(carried)
        told, cotangents = _told(call, outputs, carried)
        flat = [s for states in after for s in states]
        found = torch.autograd.grad(told, flat, cotangents, allow_unused=True)
    deltas = [torch.zeros_like(s) if d is None else d for s, d in zip(flat, found, strict=True)]
    count = len(carried)
    stacked = [torch.stack(deltas[i::count]) for i in range(count)]
    graph = layer._graphs[0]
    if call.above is not None and graph.output in graph.new_states:
        shown = graph.new_states.index(graph.output)  # the output of a step is this state itself
        stacked[shown] = stacked[shown] + call.above
    return [torch.stack([states[i] for states in before]).detach() for i in range(count)], stacked


def _told(
    call: _Call, outputs: list[Tensor], last: tuple[Tensor, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """What the loss depends on, with its gradients."""
    _, *ends = call.cotangents
    told: list[Tensor] = []
    cotangents: list[Tensor] = []
    if call.above is not None:
        told += outputs
        cotangents += [g.to(outputs[0].dtype) for g in call.above]
    for state, end in zip(last, ends, strict=True):
        if end is not None:
            told.append(state)
            cotangents.append(end[0].to(state.dtype))
    if not told:
        return [outputs[-1]], [torch.zeros_like(outputs[-1])]
    return told, cotangents


def _normalised(deltas: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Cotangents with their common length one in each row, and which rows have any."""
    largest = torch.stack([d.flatten(1).abs().amax(1) for d in deltas]).amax(0)
    there = largest > _SMALLEST
    safe = torch.where(there, largest, torch.ones_like(largest))
    scaled = [d / safe.view(-1, *[1] * (d.dim() - 1)) for d in deltas]
    squares = torch.stack([s.flatten(1).square().sum(1) for s in scaled]).sum(0)
    length = torch.where(there, squares, torch.ones_like(largest)).sqrt()
    return [s / length.view(-1, *[1] * (s.dim() - 1)) for s in scaled], there
