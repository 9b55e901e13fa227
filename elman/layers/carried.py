"""A call under a carry: window after window through a whole chain of layers.

A window's state is detached, joined to the weights that made it (`elman.learning.influence`), and
goes through every link before the next window begins, since the influence on an upper layer's state
passes through it. Masks are drawn for the whole call first, link by link, as without a carry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elman.backends import torch_kernel
from elman.backends.call import Carried as Kept
from elman.errors import InputError
from elman.layers import windows
from elman.layers.calls import one_or_all, plan_of
from elman.layers.explain import explain
from elman.layers.forms import UNBATCHED, Further, Given, real_steps
from elman.layers.forms import given as given_as
from elman.layers.links import Link, chain_of, links_of
from elman.layers.states import read_state, write_state
from elman.layers.walk import draw_masks
from elman.layers.windows import Beside, Credit, Part, Passed, way_of
from elman.learning.bptt import BPTT
from elman.learning.influence import Carried, carrier_of, check_influence
from elman.learning.space import in_words, refuse_what_does_not_fit

if TYPE_CHECKING:
    from elman.layers.base import RecurrentLayer

State = Carried | Tensor | Sequence[Tensor] | None


def run_stack(
    stack: RecurrentLayer,
    x: Tensor | PackedSequence,
    state: State,
    lengths: object,
    resets: object,
    return_states: bool | str,
    further: Mapping[str, Further],
):
    """A stack under a carry: (out, Carried), or with every state as in `calls.run_walk`."""
    got = given_as(
        stack.owner,
        x,
        lengths,
        resets,
        input_size=stack.input_size,
        dtype=stack._weight().dtype,
        batch_first=stack.batch_first,
        further=further,
    )
    graph = stack.cell.graph
    batch, batched = got.x.shape[1], got.form.kind != UNBATCHED
    states, influence = taken(state)
    refuse(stack.owner, got, states, carried=isinstance(state, Carried))
    if states is None:
        carried = stack.initial_carried(batch, got.x)
    else:
        carried = read_state(stack.owner, graph, stack._sizes, 1, states, got.x, batched=batched)
    begun = influence or states is None
    passed = run(
        stack.owner, links_of(stack), got, carried, influence, stack.learning,
        given=not begun, return_states=bool(return_states),
    )  # fmt: skip
    out = passed.out
    if stack.dense is not None:
        out = stack._dense(out)
        if got.lengths is not None:
            out = out * real_steps(out.shape[0], got.lengths).unsqueeze(-1)
    restore, restore_state = got.form.restore, got.form.restore_state
    last = one_or_all([restore_state(s) for s in write_state(graph, passed.carried, 1)])
    results: list[Any] = [restore(out), Carried(last, passed.influence)]
    if return_states:
        every = [one_or_all([restore(s) for s in layer]) for layer in passed.states]
        results.append(tuple(every) if return_states == "layers" else every[-1])
    return tuple(results)


def taken(state: Any) -> tuple[Any, tuple[Tensor, ...] | None]:
    """The states and the influence that a call was given, None for a plain state."""
    return (state.states, state.influence) if isinstance(state, Carried) else (state, None)


def refuse(owner: str, got: Given, states: Any, *, carried: bool) -> None:
    """Raise InputError where a call cannot be carried, and name what it is."""
    if torch_kernel.in_transform():
        raise InputError(
            f"{owner}: a carry cannot go through a transform of torch.func; call the layer outside "
            "of it, or build it with learning=elman.BPTT()"
        )
    if torch._C._is_any_autocast_enabled():
        raise InputError(
            f"{owner}: a carry cannot go through torch.autocast, whose rounding the influence "
            "would keep for ever; leave autocast for this layer, or use learning=elman.BPTT()"
        )
    if not torch.is_grad_enabled():
        return
    given = {"x": got.x, **{f"the input {name}": v for name, v in got.further.items()}}
    if not carried:
        given |= {f"the state's tensor {i}": s for i, s in enumerate(_tensors(states))}
    for name, value in given.items():
        if value.requires_grad:
            raise InputError(
                f"{owner}: {name} requires grad, so weights below this layer made it, and their "
                "influence cannot be carried from here; put what lies below into an elman.Chain "
                f"with this layer, or detach {name}"
            )


def _tensors(states: Any) -> list[Tensor]:
    if isinstance(states, Tensor):
        return [states]
    return [tensor for part in states or () for tensor in _tensors(part)]


def run(
    owner: str,
    links: Sequence[Link],
    got: Given,
    carried: Sequence[Kept],
    influence: tuple[Tensor, ...] | None,
    learning: BPTT,
    *,
    given: bool,
    return_states: bool = False,
) -> Passed:
    """Run a chain over a sequence, window after window, and carry its credit.

    Args:
        owner: for errors.
        links: up to the last recurrent layer.
        got: the call in the inner form; x may be whole numbers for a lookup.
        carried: what each layer among the links starts with.
        influence: on `carried`; None begins anew.
        learning: where it has no carry, a window cuts the gradient.
        given: whether a beginning state came from outside the chain.
        return_states: whether every state at every step is wanted.
    """
    time, batch = got.x.shape[:2]
    size = min(learning.window or time, time)
    credit = None
    if learning.carry is not None and (torch.is_grad_enabled() or influence):
        chain = chain_of(links)
        if chain.weights:
            credit = Credit(chain, carrier_of(learning.carry, chain))
            count = -(-time // size) if torch.is_grad_enabled() else 1
            influence = _begun(owner, credit, batch, influence, count, learning, given)
    beside = _beside(links, got, _like(links))
    passed = Passed(got.x, list(carried), influence or ())
    way = Part
    if credit is not None and size == 1 and torch.is_grad_enabled():
        way = way_of(links, credit)
    parts: list[Passed] = []
    for start in range(0, time, size):
        part = way(links, got, beside, start, min(start + size, time))
        passed = part.run(credit, passed, return_states, cut=bool(start))
        parts.append(passed)
    states = []
    if return_states:
        layers = zip(*(p.states for p in parts), strict=True)
        states = [tuple(map(_joined, zip(*layer, strict=True))) for layer in layers]
    return Passed(_joined([p.out for p in parts]), passed.carried, passed.influence, states)


def _begun(
    owner: str,
    credit: Credit,
    batch: int,
    influence: tuple[Tensor, ...] | None,
    borders: int,
    learning: BPTT,
    given: bool,
) -> tuple[Tensor, ...]:
    """The influence that a call begins with, checked, or a new one; and whether there is room for
    those at all of its borders."""
    chain, carrier = credit
    if influence is None:
        refuse_what_does_not_fit(owner, carrier, chain, batch, 1 + borders, learning)
        return carrier.start(chain, batch, given=given)
    if not influence:
        raise InputError(
            f"{owner}: the state has no influence, since it comes from a call under "
            "torch.no_grad(), where none is begun; pass state.states to begin a stream with it, or "
            "make that call with gradients"
        )
    check_influence(owner, carrier, chain, batch, influence)
    if borders > 1:
        refuse_what_does_not_fit(owner, carrier, chain, batch, borders, learning)
    return influence


def _like(links: Sequence[Link]) -> Tensor:
    """A tensor of the number type and device of the recurrent layers."""
    return next(link.stack._weight() for link in links if link.stack is not None)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _beside(links: Sequence[Link], got: Given, like: Tensor) -> list[Beside]:
    time, batch = got.x.shape[:2]
    width = got.x.shape[-1]
    result = []

    def dropout(p: float) -> Tensor:
        ones = torch.ones(time, batch, width, dtype=like.dtype, device=like.device)
        return got.form.dropout(ones, p)

    for link in links:
        stack = link.stack
        if stack is None:
            module = link.module
            drawn = None
            if link.dropout and isinstance(module, nn.Dropout) and module.training:
                drawn = dropout(module.p)
            result.append(Beside(drawn))
        else:
            plan = plan_of(stack)
            mask = dropout(plan.dropout) if link.layer and plan.dropout else None
            nothing = torch.empty(time, batch, 0, dtype=like.dtype, device=like.device)
            steps, sequences = draw_masks(plan, nothing, stack._sizes[link.layer])
            fresh = None if got.resets is None else stack.initial_carried(batch, like)[link.layer]
            result.append(Beside(mask, fresh, {**got.further, **steps}, sequences))
        width = link.width or width
    return result


def bytes_of(links: Sequence[Link], learning: BPTT, batch: int) -> int:
    """What the influence of a chain weighs; 0 without a carry."""
    if learning.carry is None:
        return 0
    chain = chain_of(links)
    return carrier_of(learning.carry, chain).bytes(chain, batch) if chain.weights else 0


def carry_in_words(links: Sequence[Link], learning: BPTT) -> str:
    """How the credit of a chain is carried, and what that weighs for each row."""
    chain = chain_of(links)
    if not chain.weights:
        return "Nothing in it is trained, so nothing is carried."
    carrier = carrier_of(learning.carry or "exact", chain)
    weight = in_words(carrier.bytes(chain, 1))
    parts = [carrier.words(chain)]
    if learning.window == 1 and learning.carry not in (None, "exact"):
        parts.append(windows.in_words(links, carrier))
    parts.append(f"It weighs {weight} a row, and a call of one window holds two.")
    return " ".join(parts)


def explanation(stack: RecurrentLayer, resets: bool, return_states: bool) -> str:
    """Which backend runs a call under a carry, and how its credit is carried."""
    keep = return_states or stack.learning.window != 1
    choice = stack._choose(resets, keep)
    words = explain(stack.owner, choice, stack.learning.words(), whole=False, lengths=True)
    return f"{words}\n{carry_in_words(links_of(stack), stack.learning)}"
