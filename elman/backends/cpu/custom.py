"""The kernels as operators of torch, for what torch captures as a graph: compile and export.

Two layers of operators. `elman::run` is a call on the kernels; where tensors stand for others, as
they do while a graph is captured, it is taken apart into torch's own operations and `elman::walk`.
That one and its gradient are opaque: torch knows the shapes of what they give, and no more. Which
cell and which sizes they run is said by a text, so that a captured graph means the same in another
process. Rows have no lengths of their own and no resets here: what such a call computes depends on
numbers that a graph does not know.

Outside of captured graphs nothing here is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.backends.call import Call, Result
from elman.equation.graph import Graph
from elman.equation.lowering import ONE
from elman.equation.sizes import shape_of

if TYPE_CHECKING:
    from elman.backends.cpu.kernel import Kernels
    from elman.backends.cpu.sources import Source


@dataclass(frozen=True)
class Program:
    """A cell with sizes, as a text names it; `places` are those of the inner step's parameters."""

    text: str
    kernels: Kernels
    sizes: Mapping[str, int]
    places: Mapping[str, Source]


def text_of(graph: Graph, sizes: Mapping[str, int]) -> str:
    """The text that names a cell with sizes."""
    return json.dumps({"graph": graph.to_json(), "sizes": dict(sizes)}, sort_keys=True)


@cache
def program_of(text: str) -> Program:
    """The cell with sizes that a text names."""
    from elman.backends.cpu.kernel import kernels_of
    from elman.backends.cpu.sources import places_of

    data = json.loads(text)
    kernels, sizes = kernels_of(Graph.from_json(data["graph"])), data["sizes"]
    both = kernels.schedule.split
    names = both.parameters if both.outer else [p.name for p in kernels.graph.parameters]
    places = places_of(tuple(names))
    return Program(text, kernels, {n: sizes[n] for n in sorted(sizes)}, places)


# A call, for a layer.


def run(text: str, names: Sequence[str], parameters: Sequence[Tensor], call: Call) -> Result:
    """Run a call by an operator.

    Args:
        text: the cell with sizes.
        names: of the cell's further inputs, in its order.
        parameters: the cell's, in its order.
        call: without lengths and resets.
    """
    extras = {**call.step_extras, **call.sequence_extras}
    found = torch.ops.elman.run(
        text, call.x, list(call.carried), [extras[name] for name in names],
        list(parameters), call.return_states, call.backwards,
    )  # fmt: skip
    last = 1 + len(call.carried)
    return Result(found[0], tuple(found[1:last]), tuple(found[last:]) or None)


def _run(
    text: str,
    x: Tensor,
    carried: list[Tensor],
    extras: list[Tensor],
    parameters: list[Tensor],
    states: bool,
    backwards: bool,
) -> list[Tensor]:
    from elman.backends.cpu import calls
    from elman.backends.cpu.sources import own

    program = program_of(text)
    graph = program.kernels.graph
    groups: dict[str, dict[str, Tensor]] = {"step": {}, "sequence": {}}
    for declared, value in zip(graph.inputs[1:], extras, strict=True):
        groups[declared.varies][declared.name] = value
    held = own(dict(zip((p.name for p in graph.parameters), parameters, strict=True)))
    call = Call(
        x, tuple(carried), step_extras=groups["step"], sequence_extras=groups["sequence"],
        return_states=states, backwards=backwards,
    )  # fmt: skip
    given = (x, *carried, *extras, *parameters)
    plain = all(type(t) in (Tensor, torch.nn.Parameter) for t in given)
    if plain and not torch._C._len_torch_dispatch_stack():
        result = calls.run(program.kernels, program.sizes, held, call)
    else:
        result = _captured(program, held, call)
    return [result.out, *result.carried, *(result.states or ())]


class _Rows:
    """Whole rows, of which a captured graph may know the numbers only by name."""

    take = rows = last = fresh = None

    def __init__(self, steps: int, batch: int):
        self.steps, self.batch = steps, batch

    def at_end(self, steps_ago: int, depth: int) -> slice:
        start = (depth + self.steps - 1 - steps_ago) * self.batch
        return slice(start, start + self.batch)


def _captured(program: Program, parameters: Any, call: Call) -> Result:
    """A call in torch's operations and the walk's."""
    from elman.backends.cpu import calls
    from elman.backends.cpu.autograd import named, results_of
    from elman.backends.cpu.walk import Walk

    if torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            fitted = calls._of_one_type(call, parameters.tensors)
            return _captured(program, parameters, fitted)
    kernels, sizes, graph = program.kernels, program.sizes, program.kernels.graph
    steps, batch = call.x.shape[:2]
    geometry: Any = _Rows(steps, batch)
    lines = dict(
        zip((line.name for line in graph.lines), call.carried[len(graph.states) :], strict=True)
    )
    given = calls._given(kernels, sizes, parameters, call, geometry, call.carried, lines)
    every = call.return_states or any(line.kind == "state" for line in graph.lines)
    tensors, inner = given.parameters.tensors, kernels.inner
    groups = (
        [given.steps[i.name].flatten(0, 1) for i in inner.inputs if i.varies == "step"],
        [given.sequences[i.name] for i in inner.inputs if i.varies == "sequence"],
        [given.beginnings[s.name] for s in inner.states],
    )
    asked = (*tensors, *(t for group in groups for t in group))
    training = torch.is_grad_enabled() and any(t.requires_grad for t in asked)
    found = torch.ops.elman.walk(
        program.text, list(tensors), *groups, steps, batch, every, call.backwards, training
    )
    walk = Walk(kernels, sizes, geometry, every, program.places, (), call.x.dtype)
    out, finals, states = named(walk, found[: results_of(walk)])
    carried = calls._carried(walk, call, given, finals, states, lines)
    kept = None
    if call.return_states:
        kept = tuple(calls._timed(states[s.name], call) for s in graph.states)
    return Result(calls._timed(out, call), carried, kept)


# The walk, opaque to torch.

_SHAPE = "SymInt steps, SymInt batch, bool every, bool backwards"
_GIVEN = "str text, Tensor[] parameters, Tensor[] rows, Tensor[] sequences, Tensor[] beginnings"


def _made(text, parameters, rows, sequences, beginnings, steps, batch, every, backwards):
    """The walk and what it is given, of an operator's arguments."""
    from elman.backends.cpu.geometry import whole
    from elman.backends.cpu.sources import Parameters
    from elman.backends.cpu.walk import Given, Walk

    program = program_of(text)
    inner = program.kernels.inner
    names = (
        [i.name for i in inner.inputs if i.varies == "step"],
        [i.name for i in inner.inputs if i.varies == "sequence"],
        [s.name for s in inner.states],
    )
    parameters = [p.contiguous() for p in parameters]
    given = Given(
        Parameters(tuple(parameters), program.places),
        *(
            dict(zip(own, values, strict=True))
            for own, values in zip(names, (rows, sequences, beginnings), strict=True)
        ),
    )
    walk = Walk(
        program.kernels, program.sizes, whole(steps, batch, backwards), every, program.places,
        tuple(tuple(p.shape) for p in parameters), (*rows, *beginnings)[0].dtype,
    )  # fmt: skip
    return walk, given, names


@torch.library.custom_op(
    "elman::walk", mutates_args=(), schema=f"({_GIVEN}, {_SHAPE}, bool training) -> Tensor[]"
)
def _walk(text, parameters, rows, sequences, beginnings, steps, batch, every, backwards, training):
    from elman.backends.cpu import autograd, calls
    from elman.backends.cpu.walk import forward

    given_all = (text, parameters, rows, sequences, beginnings, steps, batch, every, backwards)
    if not batch:
        return [torch.zeros_like(value) for value in _like(*given_all, training)]
    walk, given, _ = _made(*given_all)
    calls.checked(walk.kernels, given, walk.dtype)
    planes = forward([walk], [given], training=training)[0]
    out, *rest = autograd.results(walk, planes, training=training)
    results = [out.flatten(0, 1) if out.dim() == 3 else out, *rest]
    # No result may share memory with another, as an output does with the plane of its state, and
    # each begins where its memory does.
    results = [r.clone(memory_format=torch.contiguous_format) for r in results]
    return [*results, *planes.states.values(), planes.kept] if training else results


def _shapes(program: Program, steps: int, batch: int, every: bool) -> list[tuple]:
    """The shapes of what a walk gives, without what it keeps for its gradient."""
    inner, sizes = program.kernels.inner, program.sizes
    total = steps * batch
    found = [(total, *shape_of(inner.nodes[inner.output].dims, sizes))]
    found += [(batch, *shape_of(s.dims, sizes)) for s in inner.states]
    if every:
        found += [
            (total, *shape_of(s.dims, sizes))
            for s, index in zip(inner.states, inner.new_states, strict=True)
            if index != inner.output
        ]
    return found


def _kept_shapes(program: Program, steps: int, batch: int, dtype: torch.dtype) -> list[tuple]:
    """The shapes of what a walk keeps for its gradient: every state's plane, and the rest."""
    from elman.backends.cpu.kernel import Variant
    from elman.backends.cpu.layout import KEPT

    kernels = program.kernels
    sized = kernels.sized(Variant("training"), program.sizes, dtype)
    found = [
        ((steps + kernels.depth) * batch, sized.padded(s.dims[0] if s.dims else ONE))
        for s in kernels.inner.states
    ]
    rows = steps * batch if kernels.kept else 0
    return [*found, (rows, sized.width[KEPT])]


@_walk.register_fake
def _like(text, parameters, rows, sequences, beginnings, steps, batch, every, backwards, training):
    program = program_of(text)
    shapes = _shapes(program, steps, batch, every)
    if training:
        shapes += _kept_shapes(program, steps, batch, rows[0].dtype)
    return [rows[0].new_empty(shape) for shape in shapes]


@torch.library.custom_op(
    "elman::walk_back",
    mutates_args=(),
    schema=f"({_GIVEN}, Tensor[] planes, Tensor?[] grads, bool[] needed, {_SHAPE}) -> Tensor[]",
)
def _back(
    text, parameters, rows, sequences, beginnings, planes, grads, needed, steps, batch, every,
    backwards,
):  # fmt: skip
    from elman.backends.cpu.autograd import asked_of
    from elman.backends.cpu.walk import Planes
    from elman.backends.cpu.walk_back import backward

    tensors = (*parameters, *rows, *sequences, *beginnings)
    if not batch:
        return [torch.zeros_like(t) for t, n in zip(tensors, needed, strict=True) if n]
    walk, given, names = _made(
        text, parameters, rows, sequences, beginnings, steps, batch, every, backwards
    )
    kept = Planes(dict(zip(names[2], planes, strict=False)), None, planes[-1])
    found = backward([walk], [given], [kept], [asked_of(walk, grads, needed, names)])[0]
    flat = list(found.parameters)
    groups = (found.steps, found.sequences, found.beginnings)
    flat += [group.get(n) for own, group in zip(names, groups, strict=True) for n in own]
    return [
        torch.zeros_like(t, memory_format=torch.contiguous_format)
        if g is None
        else g.reshape(t.shape).clone(memory_format=torch.contiguous_format)
        for g, t, n in zip(flat, tensors, needed, strict=True)
        if n
    ]


@_back.register_fake
def _(
    text, parameters, rows, sequences, beginnings, planes, grads, needed, steps, batch, every,
    backwards,
):  # fmt: skip
    tensors = (*parameters, *rows, *sequences, *beginnings)
    return [t.new_empty(t.shape) for t, n in zip(tensors, needed, strict=True) if n]


def _keep(ctx: Any, inputs: tuple, output: list[Tensor]) -> None:
    text, parameters, rows, sequences, beginnings, steps, batch, every, backwards, training = inputs
    ctx.set_materialize_grads(False)
    ctx.shape = text, steps, batch, every, backwards
    ctx.counts = [len(group) for group in (parameters, rows, sequences, beginnings)]
    ctx.results = len(_shapes(program_of(text), steps, batch, every))
    kept = output[ctx.results :] if training else []
    ctx.save_for_backward(*parameters, *rows, *sequences, *beginnings, *kept)


def _pull(ctx: Any, grads: Sequence[Tensor | None]):
    text, *shape = ctx.shape
    saved, groups = list(ctx.saved_tensors), []
    for count in ctx.counts:
        groups.append(saved[:count])
        del saved[:count]
    needed = [n for group in ctx.needs_input_grad[1:5] for n in group]
    found = iter(
        torch.ops.elman.walk_back(text, *groups, saved, list(grads[: ctx.results]), needed, *shape)
    )
    given = [[next(found) if n else None for n in group] for group in ctx.needs_input_grad[1:5]]
    return (None, *given, None, None, None, None, None)


_walk.register_autograd(_pull, setup_context=_keep)
_library = torch.library.Library("elman", "FRAGMENT")
_library.define(
    "run(str text, Tensor x, Tensor[] carried, Tensor[] extras, Tensor[] parameters, bool states, "
    "bool backwards) -> Tensor[]"
)
_library.impl("run", _run, "CompositeImplicitAutograd")
