"""A run of a model in which every recurrent layer is watched: its values, step by step.

The layers run on the reference, in evaluation (no dropout). The output of each is cut from what
made it, so that what lies between two layers (a residual connection, an embedding, a readout, an
encoder's last state) stays with autograd, and the way back through time stays with the adjoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elman.backends.call import Call, Carried, Result
from elman.backends.reference import ages_of, delayed_input
from elman.equation import Graph
from elman.equation.adjoint import step_values
from elman.errors import InputError
from elman.layers.base import RecurrentLayer
from elman.layers.calls import one_or_all, plan_of
from elman.layers.chain import Chain
from elman.layers.forms import PACKED, UNBATCHED, further_inputs, given, real_steps, reverse
from elman.layers.states import read_state, write_state
from elman.layers.walk import walk
from elman.learning import Carried as Carrying


@dataclass(frozen=True)
class Place:
    """One layer and direction of a model, as it ran over a sequence.

    Time is the place's own: where `turned`, step 0 is the last of the sequence.

    Attributes:
        name: "layer 1", "layer 2 backwards", … in the order of the run.
        turned: whether it ran from the end to the start.
        graph: the step in evaluation.
        parameters: by the equation's names.
        call: what it was given.
        values: of every node of the step, for each step; see `step_values`.
        out: the outputs, (time, batch, size), cut from what made them.
        states: so with every state, (time, batch, …).
    """

    name: str
    turned: bool
    graph: Graph
    parameters: Mapping[str, Tensor]
    call: Call
    values: Sequence[Sequence[Any]]
    out: Tensor
    states: tuple[Tensor, ...]

    @property
    def time(self) -> int:
        return len(self.values)

    @property
    def batch(self) -> int:
        return self.call.x.shape[1]

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """What the rest of the model may depend on: the outputs and the states."""
        return (self.out, *self.states)

    @property
    def real(self) -> Tensor:
        """(time, batch), true at real steps; the first `lengths` of a row in either direction."""
        if self.call.lengths is None:
            return torch.ones(self.time, self.batch, dtype=torch.bool, device=self.out.device)
        return real_steps(self.time, self.call.lengths)

    def series(self, node: int) -> Tensor:
        """The values of a node at all steps, (time, batch, …), in the order of the sequence."""
        found = torch.stack([torch.as_tensor(values[node]) for values in self.values])
        return self.in_order(found)

    def in_order(self, values: Tensor) -> Tensor:
        """Turn (time, batch, …) of this place into the order of the sequence."""
        if not self.turned:
            return values
        return reverse(values, self.call.lengths)


class Watched(NamedTuple):
    """A model's run: what came out, and its places in the order of the run."""

    out: Tensor
    places: tuple[Place, ...]


def watch(
    model: nn.Module,
    x: Tensor,
    state: Any = None,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    resets: Tensor | None = None,
    inputs: Mapping[str, Tensor] | None = None,
) -> Watched:
    """Run a model with its recurrent layers watched.

    Args:
        model: a recurrent layer of Elman, or any module that calls some.
        x: what the model is called with.
        state: its second argument, if given.
        lengths, resets, inputs: so, by name, for those that take them.

    Returns:
        What came out first, with the history that leads to the places, and the places.

    Raises:
        InputError: no recurrent layer of Elman ran, or x is packed.

    Example:
        >>> import elman, torch
        >>> run = watch(elman.GRU(2, 3, num_layers=2), torch.randn(5, 1, 2))
        >>> [place.name for place in run.places], len(run.places[0].values)
        (['layer 1', 'layer 2'], 5)
    """
    if isinstance(x, PackedSequence):
        raise InputError("diagnose: x is a PackedSequence; give a padded x with lengths=")
    if not isinstance(model, nn.Module):
        raise InputError(f"diagnose: got {type(model).__name__}; give a layer or a torch module")
    named = {"lengths": lengths, "resets": resets, "inputs": inputs}
    further = {name: value for name, value in named.items() if value is not None}
    places: list[Place] = []
    with torch.enable_grad(), _watching(model, places):
        result = model(x, **further) if state is None else model(x, state, **further)
    out = result[0] if isinstance(result, tuple | list) else result
    if not places:
        raise InputError(
            f"diagnose: no recurrent layer of Elman ran in {type(model).__name__}; "
            "elman.convert replaces torch.nn's by ours"
        )
    return Watched(out, tuple(places))


@contextmanager
def _watching(model: nn.Module, places: list[Place]) -> Iterator[None]:
    """Make every recurrent layer within write into `places` for a while, in evaluation."""
    modes = {module: module.training for module in model.modules()}
    layers = [module for module in modes if isinstance(module, RecurrentLayer)]
    chains = [module for module in modes if isinstance(module, Chain)]
    model.eval()
    try:
        for layer in layers:
            layer._forward = _recorder(layer, places)
        for chain in chains:
            chain.forward = _link_by_link(chain)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("_forward", None)
        for chain in chains:
            chain.__dict__.pop("forward", None)
        for module, mode in modes.items():
            module.training = mode


def _link_by_link(chain: Chain):
    """What stands in for a chain's forward: its modules one after another, without a carry."""

    def forward(x, state=None, lengths=None, resets=None):
        state = state.states if isinstance(state, Carrying) else state
        given, last = iter(state or ()), []
        for module in chain.links:
            if isinstance(module, RecurrentLayer):
                x, new = module(x, next(given, None), lengths=lengths, resets=resets)
                last.append(new)
            else:
                x = module(x)
        return x, tuple(last)

    return forward


def _recorder(layer: RecurrentLayer, places: list[Place]):
    """What stands in for a layer's forward: the same walk, place by place on the reference."""

    def forward(x, state, lengths, resets, return_states, inputs=None):
        further = further_inputs(layer.owner, layer.cell.graph, layer._sizes[0], inputs)
        got = given(
            layer.owner, x, lengths, resets, input_size=layer.input_size,
            dtype=layer._weight().dtype, batch_first=layer.batch_first, further=further,
        )  # fmt: skip
        if got.form.kind == PACKED:
            raise InputError("diagnose: a layer was given a PackedSequence; give it lengths=")
        graph = layer.cell.graph
        fresh = None if got.resets is None else layer.initial_carried(got.x.shape[1], got.x)
        carried = fresh or layer.initial_carried(got.x.shape[1], got.x)
        if state is not None:
            state = state.states if isinstance(state, Carrying) else state
            carried = read_state(
                layer.owner, graph, layer._sizes, layer.directions, state, got.x,
                batched=got.form.kind != UNBATCHED,
            )  # fmt: skip
        number = len({p.name.removesuffix(" backwards") for p in places})

        def run(depth: int, calls: Sequence[Call]) -> list[Result]:
            results = []
            for direction, call in enumerate(calls):
                name = f"layer {number + depth + 1}" + " backwards" * direction
                weights = layer.equation_parameters(depth, direction)
                found = _run(name, bool(direction), layer._graphs[False], weights, call)
                places.append(found)
                results.append(_result(found, call))
            return results

        plan = replace(plan_of(layer), graph=layer._graphs[False], dropout=0.0, training=False)
        out, last, history = walk(plan, got, carried, fresh, run, return_states=bool(return_states))
        if layer.dense is not None:
            out = layer._dense(out)
            if got.lengths is not None:
                out = out * real_steps(out.shape[0], got.lengths).unsqueeze(-1)
        restore, restore_state = got.form.restore, got.form.restore_state
        states = [restore_state(s) for s in write_state(graph, last, layer.directions)]
        results = [restore(out), one_or_all(states)]
        if return_states:
            every = [one_or_all([restore(s) for s in of_layer]) for of_layer in history]
            results.append(tuple(every) if return_states == "layers" else every[-1])
        return tuple(results)

    return forward


def _run(
    name: str, turned: bool, graph: Graph, parameters: Mapping[str, Tensor], call: Call
) -> Place:
    """Walk over time and keep the values of every step."""
    with torch.no_grad():
        values, out, states = _values(graph, parameters, call)
    leaves = tuple(v.detach().requires_grad_() for v in (out, *states))
    return Place(name, turned, graph, parameters, call, values, leaves[0], leaves[1:])


def _values(graph: Graph, parameters: Mapping[str, Tensor], call: Call):
    time, count = call.x.shape[0], len(graph.states)
    steps = {graph.inputs[0].name: call.x, **call.step_extras}
    old = {s.name: v for s, v in zip(graph.states, call.carried, strict=False)}
    past = _past(graph, call.carried)
    fresh = None if call.fresh is None else call.fresh
    shifted = _shifted(graph, steps, call)
    values, outputs, history = [], [], []
    for t in range(time):
        if call.resets is not None and fresh is not None:
            now = call.resets[t]
            old = _replaced(old, dict(zip(old, fresh[:count], strict=True)), now)
            past = _reset_past(past, _past(graph, fresh), now)
        read = {n: v[t] for n, v in steps.items()} | dict(call.sequence_extras)
        delayed = {key: v[t] for key, v in shifted.items()}
        delayed |= {(n, i + 2): v for n, line in past.items() for i, v in enumerate(line)}
        found = step_values(graph, parameters, read, old, delayed)
        new = {s.name: found[i] for s, i in zip(graph.states, graph.new_states, strict=True)}
        if call.lengths is not None:
            # Past a row's end the state stays, so that nothing overflows there.
            new = _replaced(new, old, t >= call.lengths)
        past = {n: [old[n], *line[:-1]] for n, line in past.items()}
        values.append(found)
        outputs.append(found[graph.output])
        history.append(tuple(new.values()))
        old = new
    out = torch.stack(outputs)
    if call.lengths is not None:
        out = torch.where(_onto(real_steps(time, call.lengths), out), out, 0.0)
    states = tuple(torch.stack(s) for s in zip(*history, strict=True))
    return values, out, states


def _past(graph: Graph, carried: Carried) -> dict[str, list[Tensor]]:
    """The values of each delayed state before the old one, newest first."""
    lines = zip(graph.lines, carried[len(graph.states) :], strict=True)
    return {line.name: list(v.unbind(1)) for line, v in lines if line.kind == "state"}


def _reset_past(past, fresh, now: Tensor) -> dict[str, list[Tensor]]:
    return {
        n: [torch.where(_onto(now, v), f, v) for f, v in zip(fresh[n], line, strict=True)]
        for n, line in past.items()
    }


def _replaced(values: Mapping[str, Tensor], other: Mapping[str, Tensor], where: Tensor):
    return {n: torch.where(_onto(where, v), other[n], v) for n, v in values.items()}


def _shifted(graph: Graph, steps: Mapping[str, Tensor], call: Call):
    """What `elman.delay` reads of the inputs, for all steps."""
    lines = zip(graph.lines, call.carried[len(graph.states) :], strict=True)
    held = {line.name: value for line, value in lines if line.kind == "input"}
    ages = None if call.resets is None else ages_of(call.resets)
    keys = {
        (n.attribute("name"), n.attribute("steps")) for n in graph.nodes if n.op == "delayed"
    }  # fmt: skip
    return {
        (name, k): delayed_input(steps[name], held[name], k, ages)
        for name, k in keys
        if name in held
    }


def _result(place: Place, call: Call) -> Result:
    """What the rest of the model sees, made of the place's leaves; delay lines without history."""
    ends = call.x.new_full((place.batch,), place.time - 1, dtype=torch.long)
    if call.lengths is not None:
        ends = call.lengths.to(torch.long) - 1
    rows = torch.arange(place.batch, device=ends.device)
    last = tuple(s[ends, rows] for s in place.states)
    lines = tuple(v.detach() for v in call.carried[len(last) :])
    states = None
    if call.return_states:
        states = tuple(torch.where(_onto(place.real, s), s, 0.0) for s in place.states)
    return Result(place.out, (*last, *lines), states)


def _onto(mask: Tensor, value: Tensor) -> Tensor:
    """A mask of rows, or of steps and rows, with the axes of `value` behind."""
    return mask.reshape(*mask.shape, *(1,) * (value.dim() - mask.dim()))
