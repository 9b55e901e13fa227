"""The influence of the past on the state: how it is begun, used in a gradient, and moved on.

A carrier does this for one method. What it holds between calls is a tuple of tensors, each with
the batch as its first axis, so that rows of streams can be picked, put to zero and saved.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elman.errors import SizeError
from elman.learning.chain import Chain, Window, flat_rows


class Carried(NamedTuple):
    """What a layer returns as its state under a carry, and takes to go on.

    Attributes:
        states: in the form that the layer has without a carry.
        influence: of all weights on `states`, without gradients; the batch is the first axis of
            each tensor. Zeros in a row (all of its tensors) say that no weight has had an
            influence on that row's state. Empty where nothing learns (begun under
            torch.no_grad()); a call with gradients does not take such a state, but its `states`.
    """

    states: Any
    influence: tuple[Tensor, ...]


class Carrier(Protocol):
    """One way of carrying credit from window to window. All of it is without autograd.

    Attributes:
        by_layer: whether a layer's weights have an influence on that layer's state alone, so that
            credit for the weights below goes through the steps of the layers above.
    """

    by_layer: bool

    def shapes(self, chain: Chain, batch: int) -> list[tuple[int, ...]]:
        """The shape of each tensor of the influence of `batch` rows."""
        ...

    def bytes(self, chain: Chain, batch: int) -> int:
        """What the influence of `batch` rows weighs."""
        ...

    def start(self, chain: Chain, batch: int, *, given: bool = False) -> tuple[Tensor, ...]:
        """The influence on a state at the beginning of a stream.

        Args:
            given: whether the state came from outside, so that no learned initial state has an
                influence on it.
        """
        ...

    def gradient(
        self, chain: Chain, influence: tuple[Tensor, ...], cotangents: Tensor
    ) -> list[Tensor | None]:
        """s̄ᵀ M, summed over the rows: for each of `chain.weights` its cotangent.

        Args:
            cotangents: s̄, (batch, rows of s), what is kept of each place one after another.
        """
        ...

    def advance(
        self, chain: Chain, influence: tuple[Tensor, ...], window: Window
    ) -> tuple[Tensor, ...]:
        """The influence on the state after a window. It writes into nothing that it was given."""
        ...

    def words(self, chain: Chain) -> str:
        """How it is computed for this chain, in a sentence or two, for `explain()`."""
        ...


def carrier_of(carry: str, chain: Chain) -> Carrier:
    """The carrier of a method for a chain.

    Raises:
        InputError: the method cannot serve the chain; the operation that hinders is named.
    """
    from elman.learning.by_unit import EXACT, ByUnit, serves_exactly
    from elman.learning.exact import Exact
    from elman.learning.rflo import rflo
    from elman.learning.snap1 import snap1
    from elman.learning.uoro import UORO

    if carry == EXACT:
        return ByUnit(EXACT) if serves_exactly(chain) else Exact()
    if carry == "uoro":
        return UORO()
    return snap1(chain) if carry == "snap1" else rflo(chain)


def check_influence(
    owner: str, carrier: Carrier, chain: Chain, batch: int, influence: tuple[Tensor, ...]
) -> None:
    """Raise SizeError where an influence is not of this chain, method and batch."""
    expected = [tuple(shape) for shape in carrier.shapes(chain, batch)]
    found = [tuple(t.shape) for t in influence]
    if found != expected:
        raise SizeError(
            f"{owner}: the influence has tensors of the shapes {found}; expected {expected} for "
            f"this carry, these trained weights and {batch} rows. Begin anew with "
            "state.states, or pass the state that this layer returned"
        )
    like = chain.like
    for tensor in influence:
        if tensor.dtype != like.dtype or tensor.device != like.device:
            raise SizeError(
                f"{owner}: the influence is of type {tensor.dtype} on {tensor.device}, the weights "
                f"of type {like.dtype} on {like.device}; convert it as the states: "
                f"[m.to({str(like.device)!r}, {like.dtype}) for m in state.influence]"
            )


def attach(
    carrier: Carrier, chain: Chain, influence: tuple[Tensor, ...], parts: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Join a state to the weights that made it: the identity, with M behind it.

    Forwards the state is what it was. Backwards its cotangent s̄ becomes s̄ᵀ M for the weights, so
    that the gradient of any loss, behind any readout, is that of the whole past.

    Args:
        carrier: the method.
        chain: with the weights of this call.
        influence: M on this state.
        parts: those parts of the state that the chain's rows are made of, place by place, each
            (batch, …). What they depend on beside these weights gets their cotangents as ever.

    Returns:
        The same parts.
    """
    weights = chain.weights
    if not parts or not torch.is_grad_enabled():
        return parts
    return _Attach.apply(carrier, chain, len(parts), len(influence), *parts, *influence, *weights)


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, carrier: Any, chain: Any, parts: Any, tensors: Any, *given: Any) -> Any:
        ctx.carrier, ctx.chain = carrier, chain
        ctx.save_for_backward(*given[parts : parts + tensors])
        return tuple(p.view_as(p) for p in given[:parts])

    @staticmethod
    @once_differentiable
    # The stubs do not know that the decorator keeps the signature.
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        influence = ctx.saved_tensors
        found = ctx.carrier.gradient(ctx.chain, influence, flat_rows(grad_outputs))
        return (None, None, None, None, *grad_outputs, *(None for _ in influence), *found)
