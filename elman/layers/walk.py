"""The walk through a stack: layer after layer, direction after direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from elman.backends.call import Call, Carried, Result
from elman.equation import Graph
from elman.equation.sizes import shape_of
from elman.layers.forms import Given, reverse

RunLayer = Callable[[int, Sequence[Call]], Sequence[Result]]


@dataclass(frozen=True)
class Plan:
    """What a walk needs to know of a layer in its present mode.

    Attributes:
        graph: the step, with the options that rewrite it.
        own_inputs: how many inputs the cell itself has; masks come after them.
        sizes: the sizes of each layer of the stack, by name.
        dropout: between layers; 0 where it is not at work.
        recurrent_dropout: on the states where they enter a product; 0 where not at work.
        zoneout: on every state.
        training: whether masks are drawn.
    """

    graph: Graph
    own_inputs: int
    sizes: tuple[Mapping[str, int], ...]
    directions: int
    dropout: float
    recurrent_dropout: float
    zoneout: float
    residual: bool
    training: bool


def walk(
    plan: Plan,
    given: Given,
    carried: list[Carried],
    fresh: list[Carried] | None,
    run: RunLayer,
    *,
    return_states: bool,
    natural: bool = False,
) -> tuple[Tensor, list[Carried], list[tuple[Tensor, ...]]]:
    """Run a stack.

    Args:
        plan: the layer in its present mode.
        given: the call's sequence.
        carried: what each layer and direction starts with.
        fresh: what it becomes at a reset.
        run: runs a layer's directions, a call each, forwards in time.
        natural: `run` walks backwards too, where a call asks it to.

    Returns:
        The outputs (time, batch, directions·size); what each place carries on; if wanted, the
        states of each layer, each (time, batch, directions·size).
    """
    x, last, history = given.x, [], []
    for layer, sizes in enumerate(plan.sizes):
        below = x
        if layer and plan.dropout:
            x = given.form.dropout(x, plan.dropout)
        places = range(layer * plan.directions, (layer + 1) * plan.directions)
        asked = [
            Call(
                x,
                carried[place],
                None if fresh is None else fresh[place],
                given.lengths,
                given.resets,
                *_extras(plan, x, sizes, given.further),
                return_states,
            )
            for place in places
        ]
        if plan.directions == 2 and natural:
            parts = run(layer, [asked[0], replace(asked[1], backwards=True)])
        elif plan.directions == 2:
            one, other = run(layer, [asked[0], _turned(asked[1])])
            parts = [one, _turned_back(asked[1], other)]
        else:
            parts = run(layer, asked)
        last += [part.carried for part in parts]
        x = torch.cat([p.out for p in parts], -1) if len(parts) > 1 else parts[0].out
        if plan.residual and layer:
            x = x + below
        if return_states:
            joined = zip(*(p.states for p in parts), strict=True)
            history.append(tuple(_side_by_side(s) for s in joined))
    return x, last, history


def _turned(call: Call) -> Call:
    """A call with the time of each row turned around.

    A segment is left at its first step, so the state is reset after that step: before the one that
    follows in this direction.
    """
    lengths, resets = call.lengths, call.resets
    turned = None
    if resets is not None:
        after = torch.cat([resets[1:], torch.zeros_like(resets[:1])])
        if lengths is not None:
            steps = torch.arange(after.shape[0], device=after.device).unsqueeze(1)
            after = after & (steps < lengths - 1)
        turned = reverse(after, lengths)
    extras = {name: reverse(value, lengths) for name, value in call.step_extras.items()}
    return replace(call, x=reverse(call.x, lengths), resets=turned, step_extras=extras)


def _turned_back(call: Call, result: Result) -> Result:
    """What a call that was turned around gave, in the order of time."""
    lengths, resets, carried = call.lengths, call.resets, result.carried
    if resets is not None:
        # A reset comes with what to become.
        carried = tuple(
            torch.where(resets[0].view(-1, *[1] * (c.dim() - 1)), f, c)
            for c, f in zip(carried, call.fresh or (), strict=True)
        )
    states = result.states and tuple(reverse(s, lengths) for s in result.states)
    return Result(reverse(result.out, lengths), carried, states)


def _side_by_side(states: tuple[Tensor, ...]) -> Tensor:
    """One state of both directions, (time, batch, …), joined along its last size."""
    if len(states) == 1:
        return states[0]
    return torch.cat(states, -1) if states[0].dim() > 2 else torch.stack(states, -1)


def _extras(
    plan: Plan, x: Tensor, sizes: Mapping[str, int], further: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a step reads besides x: of steps, the cell's own and the masks; of sequences, masks."""
    steps, sequences = draw_masks(plan, x, sizes)
    return {**further, **steps}, sequences


def draw_masks(
    plan: Plan, x: Tensor, sizes: Mapping[str, int]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The masks of one layer and direction, for (time, batch, …): of steps, of sequences.

    Recurrent dropout draws one mask a sequence, 0 or 1/(1 − p). Zoneout draws a mask of 0 and 1 at
    each step in training, and is the probability itself in evaluation.
    """
    steps, sequences = {}, {}
    time, batch = x.shape[:2]
    for extra in plan.graph.inputs[plan.own_inputs :]:
        shape = shape_of(extra.dims, sizes)
        if extra.varies == "sequence":
            ones = x.new_ones(batch, *shape)
            sequences[extra.name] = torch.dropout(ones, plan.recurrent_dropout, plan.training)
        elif plan.training:
            steps[extra.name] = torch.empty(
                time, batch, *shape, dtype=x.dtype, device=x.device
            ).bernoulli_(plan.zoneout)
        else:
            constant = x.new_full((1,) * (2 + len(shape)), plan.zoneout)
            steps[extra.name] = constant.expand(time, batch, *shape)
    return steps, sequences
