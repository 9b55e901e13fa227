"""One window of a call under a carry, link after link.

A window's state is detached and joined to the weights that made it, either as the window begins
or, where the window is one step, as it ends:

    g = ∂L/∂θ|s₀ + (∂L/∂s₀)ᵀ M    with M the influence on the state before the window (`Part`),
    g = (∂L/∂s₁)ᵀ M'              with M' that on the state after its one step (`Behind`).

With the exact influence both are the same, since M' = (∂s₁/∂s₀) M + ∂s₁/∂θ. With an approximate one
the second is what was published, and the first has the credit of one step exactly on top of it.
The second is also less work: the step needs no autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elman.backends.call import Call, Result
from elman.backends.call import Carried as Kept
from elman.equation import Graph
from elman.layers.calls import run_place
from elman.layers.forms import Given, real_steps
from elman.layers.links import Link
from elman.learning.bptt import without_ended
from elman.learning.by_unit import ByUnit
from elman.learning.chain import Chain, Seen, Window
from elman.learning.influence import Carrier, attach


@dataclass(frozen=True)
class Passed:
    """What came of a call: outputs, what each layer carries on, the influence, all states."""

    out: Tensor
    carried: list[Kept]
    influence: tuple[Tensor, ...]
    states: list[tuple[Tensor, ...]] = field(default_factory=list)


class Credit(NamedTuple):
    """The chain of a call, and how its credit is carried."""

    chain: Chain
    carrier: Carrier


@dataclass(frozen=True)
class Beside:
    """What one link is given in a call, beside its input and its state.

    Attributes:
        mask: what its input is multiplied with (of a dropout link: what goes through it).
        fresh: what its state becomes at a reset.
        steps, sequences: further inputs, as in `Call`.
    """

    mask: Tensor | None = None
    fresh: Kept | None = None
    steps: Mapping[str, Tensor] = field(default_factory=dict)
    sequences: Mapping[str, Tensor] = field(default_factory=dict)


class Part:
    """One window of a call."""

    def __init__(
        self, links: Sequence[Link], got: Given, beside: Sequence[Beside], start: int, stop: int
    ):
        self.links, self.got, self.beside = links, got, beside
        self.steps, size = slice(start, stop), stop - start
        # A row that has ended takes part with one step, whose results are put aside.
        lengths = None if got.lengths is None else got.lengths - start
        self.alive = None if lengths is None or not start else lengths > 0
        self.lengths = None if lengths is None else lengths.clamp(1, size)
        self.real = None if lengths is None else lengths.clamp(0, size)
        self.resets = None if got.resets is None else got.resets[start:stop]
        self.seen: list[Seen] = []
        self.after_module = False

    def run(
        self, credit: Credit | None, before: Passed, return_states: bool, *, cut: bool
    ) -> Passed:
        """The window's outputs, and what is carried on from it."""
        starts = before.carried
        if cut or credit is not None:
            starts = [tuple(c.detach() for c in kept) for kept in starts]
        joined = self._start(credit, before, starts)
        x = self.got.x[self.steps]
        keep = return_states or (credit is not None and x.shape[0] > 1)
        carried, states, mask = [], [], None
        for link, beside in zip(self.links, self.beside, strict=True):
            if link.stack is None:
                x, mask = self._module(link, beside, x, mask)
                continue
            place = len(carried)
            x, result = self._layer(link, beside, x, mask, (starts[place], joined[place]), keep)
            mask = None
            carried.append(result.carried)
            states.append(result.states or ())
        influence = before.influence
        if credit is not None:
            influence = self._advanced(credit, influence)
        return Passed(x, carried, influence, states)

    def _start(self, credit: Credit | None, before: Passed, starts: list[Kept]) -> list[Kept]:
        """What each layer starts with, joined to the weights that made it."""
        return starts if credit is None else _joined_to(credit, before.influence, starts)

    def _advanced(self, credit: Credit, before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The influence on what is carried on."""
        window = Window(tuple(self.seen), self.real, self.resets)
        with torch.no_grad():
            return credit.carrier.advance(credit.chain, before, window)

    def _module(
        self, link: Link, beside: Beside, x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """A module without a state; dropout is a mask before what comes after it."""
        self.after_module = True
        if link.dropout:
            return self._masked(beside, x, mask)
        if link.module is None:
            raise ValueError("a link is a layer or a module")
        self.seen.append(Seen(x.detach(), mask=mask))
        return link.module(x), None

    def _masked(
        self, beside: Beside, x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if beside.mask is None:
            return x, mask
        now = beside.mask[self.steps]
        return x * now, now if mask is None else mask * now

    def _layer(
        self, link: Link, beside: Beside, x: Tensor, mask: Tensor | None,
        start: tuple[Kept, Kept], keep: bool,
    ) -> tuple[Tensor, Result]:  # fmt: skip
        """One recurrent layer; `start` has what it begins with, detached and joined to weights."""
        stack = link.stack
        if stack is None:
            raise ValueError("a link is a layer or a module")
        if self.after_module and self.lengths is not None:
            # A layer is given zeros past a row's end, and a module makes something of them.
            past = ~real_steps(x.shape[0], self.lengths)
            x = x.masked_fill(past.unsqueeze(-1), 0)
        self.after_module, below = False, x
        x, mask = self._masked(beside, x, mask)
        steps = {name: value[self.steps] for name, value in beside.steps.items()}
        call = Call(
            x, start[1], beside.fresh, self.lengths, self.resets, steps, beside.sequences, keep
        )
        result = self._result(link, call, start[0])
        if self.alive is not None:
            result = without_ended(result, self.alive, start[1])
        states, fresh = result.states, beside.fresh
        self.seen.append(
            Seen(
                x.detach(),
                start[0],
                None if states is None or x.shape[0] == 1 else tuple(s.detach() for s in states),
                None if fresh is None else tuple(f.detach() for f in fresh),
                steps,
                beside.sequences,
                mask,
            )
        )
        result = self._behind(link, result)
        out = result.out + below if stack.residual and link.layer else result.out
        return out, result

    def _result(self, link: Link, call: Call, start: Kept) -> Result:
        """What a layer makes of a call; `start` is what it begins with, of no weights."""
        return _run(link, call)

    def _behind(self, link: Link, result: Result) -> Result:
        """A layer's result, joined to its weights where that is done as a window ends."""
        return result


class Behind(Part):
    """One step, with the new influence behind the states that it makes. It runs without autograd,
    since each weight's part in those states is in the influence."""

    def run(
        self, credit: Credit | None, before: Passed, return_states: bool, *, cut: bool
    ) -> Passed:
        if credit is None:
            raise ValueError("without a carry nothing stands behind a state")
        with torch.no_grad():
            passed = super().run(credit, before, return_states, cut=cut)
        carried = _joined_to(credit, passed.influence, passed.carried)
        out, states, place = passed.out, [], 0
        for link in self.links:
            if link.stack is None:
                continue
            result = _of_states(link, carried[place], self.alive)
            out = out + result.out if link.stack.residual and link.layer else result.out
            states.append(result.states or ())
            place += 1
        return Passed(out, carried, passed.influence, states)


class BehindEach(Part):
    """The same layer by layer, for an influence that each layer has on its own state alone.

    A layer's step is differentiated by its input only, so that the credit of this step finds the
    layers below exactly, and they hand it to their weights by their own influence. A layer whose
    output is no state joins its state before the step to its weights, as a longer window does.
    """

    def _start(self, credit: Credit | None, before: Passed, starts: list[Kept]) -> list[Kept]:
        carrier = None if credit is None else credit.carrier
        if credit is None or not isinstance(carrier, ByUnit):
            raise ValueError("only an influence by unit is each layer's own")
        self.carrier, self.chain, self.influence = carrier, credit.chain, before.influence
        self.moved: list[Tensor] = []
        layers = (link for link in self.links if link.stack is not None)
        if all(gives_a_state(link) for link in layers):
            return starts
        return _joined_to(credit, before.influence, starts)

    def _result(self, link: Link, call: Call, start: Kept) -> Result:
        if not gives_a_state(link):
            return _run(link, call)
        call = replace(call, carried=start)
        if not call.x.requires_grad:
            with torch.no_grad():
                return _run(link, call)

        def step(x: Tensor) -> Kept:
            return _run(link, replace(call, x=x)).carried

        return _of_states(link, _OfInput.apply(step, call.x), None)

    def _behind(self, link: Link, result: Result) -> Result:
        number = len(self.seen) - 1
        window = Window(tuple(self.seen), self.real, self.resets)
        with torch.no_grad():
            own = self.carrier.advance_place(self.chain, self.influence, window, number)
        self.moved += own
        if not gives_a_state(link):
            return result
        credit = Credit(self.chain.alone(number), self.carrier)
        (carried,) = _joined_to(credit, own, [result.carried])
        return _of_states(link, carried, self.alive)

    def _advanced(self, credit: Credit, before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self.moved)


class _OfInput(torch.autograd.Function):
    """What a layer carries on from a step, as a function of the step's input alone."""

    @staticmethod
    def forward(ctx: Any, step: Callable[[Tensor], Kept], x: Tensor) -> Any:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.made = step(ctx.x)
        return tuple(c.detach() for c in ctx.made)

    @staticmethod
    @once_differentiable
    # The stubs do not know that the decorator keeps the signature.
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        pairs = zip(ctx.made, grad_outputs, strict=True)
        made, cotangents = zip(*((m, g) for m, g in pairs if m.requires_grad), strict=True)
        (found,) = torch.autograd.grad(
            made, ctx.x, cotangents, retain_graph=True, allow_unused=True
        )
        return None, found


def way_of(links: Sequence[Link], credit: Credit) -> type[Part]:
    """How windows of one step are gone through."""
    if credit.carrier.by_layer:
        return BehindEach
    top = [link for link in links if link.stack is not None][-1]
    return Behind if gives_a_state(top) else Part


def in_words(links: Sequence[Link], carrier: Carrier) -> str:
    """Which of the two gradients an approximate influence gives at windows of one step."""
    layers = [link for link in links if link.stack is not None]
    before = layers if carrier.by_layer else layers[-1:]
    names = dict.fromkeys(_graph(link).name for link in before if not gives_a_state(link))
    if not names:
        return "At windows of one step the gradient is the influence on the new state alone."
    return (
        "The gradient has the last step exactly, and the influence on the state before it, in "
        f"{', '.join(names)}: the output is no state."
    )


def gives_a_state(link: Link) -> bool:
    """Whether a layer's output is one of its new states, so that M stands behind it too."""
    graph = _graph(link)
    return graph.output in graph.new_states


def _graph(link: Link) -> Graph:
    if link.stack is None:
        raise ValueError("a link is a layer or a module")
    return link.stack._graphs[link.stack.training]


def _run(link: Link, call: Call) -> Result:
    stack = link.stack
    if stack is None:
        raise ValueError("a link is a layer or a module")
    choice = stack._choose(call.resets is not None, call.return_states)
    return run_place(stack, choice, link.layer, call)


def _of_states(link: Link, carried: Kept, alive: Tensor | None) -> Result:
    """The results of one step, made of what it carries on; zeros in rows that have ended."""
    graph = _graph(link)
    states = [s.unsqueeze(0) for s in carried[: len(graph.states)]]
    if alive is None:
        # Copies: who writes into an output does not write into the state.
        states = [s.clone() for s in states]
    else:
        states = [torch.where(alive[:, None], s, 0.0) for s in states]
    return Result(states[graph.new_states.index(graph.output)], carried, tuple(states))


def _joined_to(credit: Credit, influence: tuple[Tensor, ...], starts: Sequence[Kept]) -> list[Kept]:
    """What each layer carries, joined to the weights that made it."""
    chain, carrier = credit
    layers = [p for p in chain.places if p.rows]
    parts = [s[k] for place, s in zip(layers, starts, strict=True) for k in place.keeps]
    joined = iter(attach(carrier, chain, influence, tuple(parts)))
    result = []
    for place, start in zip(layers, starts, strict=True):
        whole = list(start)
        for kept in place.keeps:
            whole[kept] = next(joined)
        result.append(tuple(whole))
    return result
