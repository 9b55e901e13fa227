"""The walk forwards on tensors: the memory of a call, and the call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from elman.backends.cpu.geometry import Geometry
from elman.backends.cpu.kernel import Kernels, Variant
from elman.backends.cpu.layout import KEPT, SCRATCH
from elman.backends.cpu.memory import empty, empty_of
from elman.backends.cpu.plan import WORKSPACE, Plan
from elman.backends.cpu.sources import Parameters, Source
from elman.backends.cpu.turn import Function, Stage, run
from elman.equation.lowering import ONE
from elman.equation.sizes import number
from elman.errors import SizeError

P = TypeVar("P", bound=Plan)


class Walk(NamedTuple):
    """One walk: the kernels, the sizes by name, where rows and parameters lie, what comes out.

    `every` asks for every state at every step; `beside` walks share the threads, this one among
    them. The plans are known by `places`, and each keeps its own alive.
    """

    kernels: Kernels
    sizes: Mapping[str, int]
    geometry: Geometry
    every: bool
    places: Mapping[str, Source]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    beside: int = 1

    def plan(self, kind: str) -> Plan:
        """The plan of a kernel forwards for this walk."""
        return self.known(kind, (), lambda count: _forward_plan(self, kind, count))

    def known(self, kind: str, planes: tuple[str, ...], make: Callable[[int], P]) -> P:
        """The plan of a kernel, made for a number of threads where there was none yet."""
        count = max(1, min(self.geometry.batch, torch.get_num_threads() // self.beside))
        known = self.kernels.plans
        key = (
            kind, planes, self.every, id(self.places), tuple(self.sizes.values()), self.dtype, count
        )  # fmt: skip
        if key not in known:
            known[key] = make(count)
        plan = known[key]
        if plan.shapes != self.shapes:
            raise SizeError(
                f"{self.kernels.graph.name}: the parameters have the shapes {self.shapes}; the "
                f"layer's sizes need {plan.shapes}"
            )
        return plan


@dataclass
class Given:
    """What a kernel reads: parameters of the inner step, and by name inputs and beginnings.

    Shapes:
        A step's input is (total, size), one of a sequence (batch, size); a beginning holds the
        depth values of a state before the first step, oldest first, (depth·batch, size); where
        there is none, a state begins with its constant.
    """

    parameters: Parameters
    steps: Mapping[str, Tensor]
    sequences: Mapping[str, Tensor]
    beginnings: Mapping[str, Tensor]


def given_of(walk: Walk, names: tuple, tensors: Sequence[Tensor]) -> Given:
    """What a kernel reads, from a call's tensors one after the other: the parameters, those of the
    steps, each (time, batch, …), of the sequences and of the beginnings, by their names."""
    a = len(walk.shapes)
    b = a + len(names[0])
    c = b + len(names[1])
    return Given(
        Parameters(tuple(tensors[:a]), walk.places),
        {name: t.flatten(0, 1) for name, t in zip(names[0], tensors[a:b], strict=True)},
        dict(zip(names[1], tensors[b:c], strict=True)),
        dict(zip(names[2], tensors[c:], strict=True)),
    )


@dataclass
class Planes:
    """What a forward leaves: every state's plane, the saved, and the output, where it has memory of
    its own: (time, batch, …) where all rows are whole, else a plane."""

    states: dict[str, Tensor]
    output: Tensor | None
    kept: Tensor


def width_of(plan: Plan, dims: Sequence[str]) -> int:
    """How many elements a row of a value takes, filled up."""
    return plan.sized.padded(dims[0] if dims else ONE)


def units_of(plan: Plan, dims: Sequence[str]) -> int:
    """How many numbers a row of a value has."""
    return number(dims[0], plan.sized.sizes) if dims else 1


# The forward.


def _forward_plan(walk: Walk, kind: str, count: int) -> Plan:
    kernels = walk.kernels
    plan = Plan(kernels, Variant(kind), walk.sizes, walk.dtype, count, walk.places, walk.shapes)
    plan_inputs(plan)
    plan.buffer(KEPT, KEPT, plan.sized.width[KEPT])
    lasts = kind == "training" and bool(kernels.kept)
    plan.table("at:kept", "packed" if lasts else "turning")
    graph = kernels.inner
    for state, index in zip(graph.states, graph.new_states, strict=True):
        ring = not (kind == "training" or walk.every or index == graph.output)
        plan.state_tables(state.name, ring=ring)
        plan.state_buffer("state", state.name, f"state:{state.name}", width_of(plan, state.dims))
    plan.buffer("output", "output", width_of(plan, graph.nodes[graph.output].dims))
    plan.finish()
    return plan


def plan_inputs(plan: Plan) -> None:
    """The buffers of the inputs that a kernel reads."""
    for i in plan.kernels.inner.inputs:
        name = f"{'step' if i.varies == 'step' else 'sequence'}:{i.name}"
        if plan.reads(name):
            units = units_of(plan, i.dims)
            lanes = plan.sized.lanes
            filled = units if not i.dims or i.dims[0] == ONE else -(-units // lanes) * lanes
            plan.buffer(name, name, filled)


def forward(walks: Sequence[Walk], given: Sequence[Given], *, training: bool) -> list[Planes]:
    """Walk over time, all walks side by side; with `training`, keep what the backward needs."""
    made = [_forward(*one, training) for one in zip(walks, given, strict=True)]
    stage = walking([ready for ready, _ in made])
    # Two directions of a thread each are two; never more than torch may have.
    run([stage], min(stage.most * len(made), torch.get_num_threads()))
    return [planes for _, planes in made]


def _forward(walk: Walk, given: Given, training: bool) -> tuple[Ready, Planes]:
    kernels, geometry = walk.kernels, walk.geometry
    plan = walk.plan("training" if training else "inference")
    graph, depth, batch = kernels.inner, kernels.depth, geometry.batch
    live: list = []
    addresses = plan.prepared(given.parameters.tensors, live)
    like = first_of(given)
    input_addresses(plan, given, addresses, live)
    # Where nothing of it is kept, the memory for gathers is used again every few steps.
    lasts = training and bool(kernels.kept)
    rows = geometry.total if lasts else plan.chunk(geometry) * batch
    kept = empty(rows, plan.sized.width[KEPT], walk.dtype)
    addresses[KEPT] = kept.data_ptr()
    live.append(kept)
    planes = {}
    for state, index in zip(graph.states, graph.new_states, strict=True):
        full = training or walk.every or index == graph.output
        rows = geometry.total + depth * batch if full else (depth + 1) * batch
        plane = plane_of(like, geometry, rows, width_of(plan, state.dims))
        at = geometry.beginning(depth) if full else 0
        beginning = given.beginnings.get(state.name)
        if beginning is None:
            plane.narrow(0, at, depth * batch).fill_(state.initial)
        else:
            _begin(plane[at:], beginning, depth * batch, state.dims)
        planes[state.name] = plane
        addresses[f"state:{state.name}"] = plane.data_ptr()
    output = None
    if plan.reads("output"):
        width = width_of(plan, graph.nodes[graph.output].dims)
        if geometry.even:
            output = empty_of((geometry.steps, geometry.batch, width), like.dtype)
        else:
            output = plane_of(like, geometry, geometry.total, width)
        addresses["output"] = output.data_ptr()
    ready = ready_to_run(plan, geometry, addresses, like, live)
    return ready, Planes(planes, output, kept if lasts or not training else kept[:0].clone())


def plane_of(like: Tensor, geometry: Geometry, rows: int, width: int) -> Tensor:
    """Memory for rows; where rows are ragged, with one of zeros behind them."""
    if geometry.inverse is None:
        return empty(rows, width, like.dtype)
    plane = empty(rows + 1, width, like.dtype)
    plane[rows] = 0
    return plane


def _begin(plane: Tensor, beginning: Tensor, rows: int, dims: Sequence[str]) -> None:
    if not dims:
        plane[:rows, 0] = beginning
    elif plane.shape[1] == beginning.shape[1]:
        plane.narrow(0, 0, rows).copy_(beginning)
    else:
        plane[:rows, : beginning.shape[1]] = beginning


class Ready(NamedTuple):
    """A kernel that only has to be run: its words, and what must live until then."""

    plan: Plan
    words: np.ndarray
    live: list


def ready_to_run(
    plan: Plan,
    geometry: Geometry,
    addresses: dict[str, int],
    like: Tensor,
    live: list,
    changed: Mapping[int, int] | None = None,
) -> Ready:
    """Fill the words that are left, with memory for the call."""
    scratch = (geometry.batch + plan.count) * plan.sized.width[SCRATCH]
    workspace = empty(1, plan.workspace + scratch + 1, like.dtype)
    if not plan.sized.exact:
        # The columns between the packed weights of two slots are never written, but multiplied.
        workspace.zero_()
    addresses[WORKSPACE] = workspace.data_ptr()
    addresses[SCRATCH] = workspace.data_ptr() + plan.workspace * plan.bytes
    live.append(workspace)
    words = plan.fill(geometry, addresses)
    for place, value in (changed or {}).items():
        words[place] = value
    return Ready(plan, words, live)


def walking(ready: Sequence[Ready]) -> Stage:
    """Kernels of walks side by side, each with as many threads as every plan is for."""
    functions = [Function(one.plan.sized.address, one.words) for one in ready]
    return Stage(functions, min(one.plan.count for one in ready), ready[0].plan.meetings)


def first_of(given: Given) -> Tensor:
    """A tensor of the call's type."""
    return next(iter((*given.beginnings.values(), *given.steps.values())))


def input_addresses(plan: Plan, given: Given, addresses: dict[str, int], live: list) -> None:
    """Where the inputs lie; what is copied for that is put in `live`."""
    for i in plan.kernels.inner.inputs:
        kind, values = ("step", given.steps) if i.varies == "step" else (
            "sequence", given.sequences
        )  # fmt: skip
        if plan.reads(f"{kind}:{i.name}"):
            value = in_vectors(plan, values[i.name], i.dims)
            live.append(value)
            addresses[f"{kind}:{i.name}"] = value.data_ptr()


def in_vectors(plan: Plan, value: Tensor, dims: Sequence[str]) -> Tensor:
    """Rows as a loop may read them: contiguous, in whole machine vectors."""
    units, lanes = units_of(plan, dims), plan.sized.lanes
    if dims and dims[0] != ONE and units % lanes:
        return torch.nn.functional.pad(value, (0, -units % lanes))
    return value.contiguous().resolve_neg()
