"""Forward and backward of a kernel on tensors: the memory of a call, and the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from elman.backends.cpu.geometry import Geometry
from elman.backends.cpu.kernel import Kernels, Variant
from elman.backends.cpu.layout import COTANGENTS, KEPT, SCRATCH, SUMS
from elman.backends.cpu.memory import empty
from elman.backends.cpu.plan import WORKSPACE, Plan
from elman.backends.cpu.sources import Parameters, Source
from elman.backends.cpu.weights import Weights
from elman.equation.lowering import ONE
from elman.equation.sizes import number
from elman.errors import SizeError


class Walk(NamedTuple):
    """One walk: the kernels, the sizes by name, where rows and parameters lie, what comes out.

    `every` asks for every state at every step. The plans are known by `places`, and each keeps its
    own alive.
    """

    kernels: Kernels
    sizes: Mapping[str, int]
    geometry: Geometry
    every: bool
    places: Mapping[str, Source]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    def plan(self, kind: str, planes: tuple[str, ...] = ()) -> Plan:
        """The plan of a kernel for this walk."""
        count = max(1, min(self.geometry.batch, torch.get_num_threads()))
        known = self.kernels.plans
        key = (
            kind, planes, self.every, id(self.places), tuple(self.sizes.values()), self.dtype, count
        )  # fmt: skip
        if key not in known:
            known[key] = (
                _forward_plan(self, kind, count) if kind != "backward"
                else _Back(self, planes, count)
            )  # fmt: skip
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
    """What a kernel reads, from its tensors one after the other: the parameters, and those of the
    steps, of the sequences and of the beginnings, by their names."""
    start = len(walk.shapes)
    parameters = Parameters(tuple(tensors[:start]), walk.places)
    groups = []
    for group in names:
        groups.append(dict(zip(group, tensors[start:], strict=False)))
        start += len(group)
    return Given(parameters, *groups)


@dataclass
class Planes:
    """What a forward leaves: every state's plane, the output where it is no state, the saved."""

    states: dict[str, Tensor]
    output: Tensor | None
    kept: Tensor


def _width(plan: Plan, dims: Sequence[str]) -> int:
    return plan.sized.padded(dims[0] if dims else ONE)


def _units(plan: Plan, dims: Sequence[str]) -> int:
    return number(dims[0], plan.sized.sizes) if dims else 1


# The forward.


def _forward_plan(walk: Walk, kind: str, count: int) -> Plan:
    kernels = walk.kernels
    plan = Plan(kernels, Variant(kind), walk.sizes, walk.dtype, count, walk.places, walk.shapes)
    _plan_inputs(plan)
    plan.buffer(KEPT, KEPT, plan.sized.width[KEPT])
    lasts = kind == "training" and bool(kernels.kept)
    plan.table("at:kept", "packed" if lasts else "turning")
    graph = kernels.inner
    for state, index in zip(graph.states, graph.new_states, strict=True):
        ring = not (kind == "training" or walk.every or index == graph.output)
        plan.state_tables(state.name, ring=ring)
        plan.state_buffer("state", state.name, f"state:{state.name}", _width(plan, state.dims))
    if graph.output not in graph.new_states:
        plan.buffer("output", "output", _width(plan, graph.nodes[graph.output].dims))
    plan.finish()
    return plan


def _plan_inputs(plan: Plan) -> None:
    for i in plan.kernels.inner.inputs:
        name = f"{'step' if i.varies == 'step' else 'sequence'}:{i.name}"
        if plan.reads(name):
            units = _units(plan, i.dims)
            lanes = plan.sized.lanes
            filled = units if not i.dims or i.dims[0] == ONE else -(-units // lanes) * lanes
            plan.buffer(name, name, filled)


def forward(walk: Walk, given: Given, *, training: bool) -> Planes:
    """Walk over time; with `training`, keep what the backward needs."""
    kernels, geometry = walk.kernels, walk.geometry
    plan = walk.plan("training" if training else "inference")
    graph, depth, batch = kernels.inner, kernels.depth, geometry.batch
    live: list = []
    addresses = plan.prepared(given.parameters.tensors, live)
    like = _like(given)
    _input_addresses(plan, given, addresses, live)
    # Where nothing of it is kept, the memory for gathers is used again every few steps.
    lasts = training and bool(kernels.kept)
    rows = geometry.total if lasts else plan.chunk(geometry) * batch
    kept = empty(rows, plan.sized.width[KEPT], walk.dtype)
    addresses[KEPT] = kept.data_ptr()
    planes = {}
    for state, index in zip(graph.states, graph.new_states, strict=True):
        full = training or walk.every or index == graph.output
        rows = geometry.total + depth * batch if full else (depth + 1) * batch
        plane = _plane(like, geometry, rows, _width(plan, state.dims))
        at = geometry.beginning(depth) if full else 0
        beginning = given.beginnings.get(state.name)
        if beginning is None:
            plane.narrow(0, at, depth * batch).fill_(state.initial)
        else:
            _begin(plane[at:], beginning, depth * batch, state.dims)
        planes[state.name] = plane
        addresses[f"state:{state.name}"] = plane.data_ptr()
    output = None
    if graph.output not in graph.new_states:
        width = _width(plan, graph.nodes[graph.output].dims)
        output = _plane(like, geometry, geometry.total, width)
        addresses["output"] = output.data_ptr()
    _run(plan, geometry, addresses, like, live)
    return Planes(planes, output, kept if lasts or not training else kept[:0].clone())


def _plane(like: Tensor, geometry: Geometry, rows: int, width: int) -> Tensor:
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


def _run(
    plan: Plan,
    geometry: Geometry,
    addresses: dict[str, int],
    like: Tensor,
    live: list,
    changed: Mapping[int, int] | None = None,
) -> None:
    """Fill the words that are left, with memory for the call, and go."""
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
    plan.run(words)


def _like(given: Given) -> Tensor:
    return next(iter((*given.beginnings.values(), *given.steps.values())))


def _input_addresses(plan: Plan, given: Given, addresses: dict[str, int], live: list) -> None:
    for i in plan.kernels.inner.inputs:
        kind, values = ("step", given.steps) if i.varies == "step" else (
            "sequence", given.sequences
        )  # fmt: skip
        if plan.reads(f"{kind}:{i.name}"):
            value = _in_vectors(plan, values[i.name], i.dims)
            live.append(value)
            addresses[f"{kind}:{i.name}"] = value.data_ptr()


def _in_vectors(plan: Plan, value: Tensor, dims: Sequence[str]) -> Tensor:
    """Rows as a loop may read them: contiguous, in whole machine vectors."""
    units, lanes = _units(plan, dims), plan.sized.lanes
    if dims and dims[0] != ONE and units % lanes:
        return torch.nn.functional.pad(value, (0, -units % lanes))
    return value.contiguous().resolve_neg()


# The backward.


@dataclass
class Cotangents:
    """What a backward gives: by place those of the parameters' tensors, else by name."""

    parameters: list[Tensor | None]
    steps: dict[str, Tensor]
    sequences: dict[str, Tensor]
    beginnings: dict[str, Tensor]


class _Back(Plan):
    """The plan of a backward, with that of its weights' gradients."""

    def __init__(self, walk: Walk, planes: tuple[str, ...], count: int):
        kernels = walk.kernels
        super().__init__(
            kernels, Variant("backward", planes), walk.sizes, walk.dtype, count, walk.places,
            walk.shapes,
        )  # fmt: skip
        sized, graph = self.sized, kernels.inner
        _plan_inputs(self)
        self.buffer(KEPT, KEPT, sized.width[KEPT])
        self.buffer(COTANGENTS, COTANGENTS, sized.width[COTANGENTS])
        self.table("at:kept", "packed")
        self.buffer(SUMS, SUMS, sized.width[SUMS])
        for state in graph.states:
            width = _width(self, state.dims)
            self.state_tables(state.name)
            self.state_buffer("state", state.name, f"state:{state.name}", width)
            if state.name in planes:
                self.state_buffer("plane", state.name, f"plane:{state.name}", width)
            else:
                self.buffer(f"carry:{state.name}", f"carry:{state.name}", width)
        dims = graph.nodes[graph.output].dims
        self.buffer("output:cotangent", "output:cotangent", _filled_width(self, dims))
        self._leaving()
        self.finish()
        self.in_place = sized.exact and kernels.in_place(sized.variant)
        self.weights = Weights(self, walk.plan("training"))

    def _leaving(self) -> None:
        """The buffers of what leaves the steps, and by buffer the words of the products that make
        it where nothing else does: set to zero, they leave it out."""
        self.made: list[tuple[str, tuple, int]] = []
        self.skipped: dict[str, list[int]] = {}
        layout = self.sized.layout
        written = {s.slot.buffer for stores in layout.stores.values() for s in stores}
        buffers = {"step": "cotangent", "factor": "factor", "sequence": "rows"}
        for root in layout.program.roots:
            kind, name = root.role[0], root.role[1]
            if kind not in buffers:
                continue
            buffer = f"{buffers[kind]}:{name}"
            width = self.sized.padded(root.size)
            self.buffer(buffer, buffer, width)
            self.made.append((buffer, root.role, width))
            if kind == "step" and buffer not in written:
                self.skipped[buffer] = [
                    self.names[f"call:{i}:B"] for i, call in enumerate(layout.calls())
                    if call.targets[0].buffer == buffer
                ]  # fmt: skip


def _filled_width(plan: Plan, dims: Sequence[str]) -> int:
    units, lanes = _units(plan, dims), plan.sized.lanes
    return -(-units // lanes) * lanes if dims and dims[0] != ONE else units


def backward(
    walk: Walk,
    given: Given,
    planes: Planes,
    output: Tensor | None,
    finals: Mapping[str, Tensor | None],
    every: Mapping[str, Tensor | None],
    wanted: Sequence[str],
    again: bool = True,
) -> Cotangents:
    """Walk back over time.

    Args:
        output: the cotangent of the outputs, (total, size); None for zero.
        finals: those of the last states by name, (batch, size).
        every: those of all states by name, (total, size).
        wanted: the names of the step's inputs whose cotangents are asked for.
        again: whether what the forward kept must stay as it is.

    Returns:
        Cotangents: of the parameters' tensors, the inputs and the beginnings, shaped as `Given`.
    """
    kernels, geometry = walk.kernels, walk.geometry
    lined = tuple(
        s.name
        for s in kernels.inner.states
        if s.name in kernels.lined or every.get(s.name) is not None
    )
    plan = walk.plan("backward", lined)
    assert isinstance(plan, _Back)
    like, live = planes.kept, []
    addresses = plan.prepared(given.parameters.tensors, live)
    _input_addresses(plan, given, addresses, live)
    addresses[KEPT] = planes.kept.data_ptr()
    for name, plane in planes.states.items():
        addresses[f"state:{name}"] = plane.data_ptr()
    dual = planes.kept if plan.in_place and not again else _dual(plan, geometry, walk.dtype)
    addresses[COTANGENTS] = dual.data_ptr()
    addresses["output:cotangent"] = _output_cotangent(plan, geometry, output, like, live)
    zeroed, begun = _state_cotangents(plan, geometry, finals, every, like, addresses, live)
    made, words = _input_cotangents(plan, geometry, wanted, like, addresses)
    if plan.reads(COTANGENTS):
        words[plan.names[f"ld:{COTANGENTS}"]] = dual.stride(0)
    _run(plan, geometry, addresses, like, live, words)
    for name in begun.keys() - set(lined) if kernels.depth > 1 else ():
        # A beginning holds as many steps of every state as of the one with the longest delay.
        before = like.new_zeros((kernels.depth - 1) * geometry.batch, begun[name].shape[1])
        begun[name] = torch.cat([before, begun[name]])
    parameters = plan.weights.gradients(geometry, given, planes, dual, zeroed, made)
    steps, sequences = {}, {}
    for i in kernels.inner.inputs:
        for kind, found in (("cotangent", steps), ("rows", sequences)):
            if f"{kind}:{i.name}" in made:
                found[i.name] = made[f"{kind}:{i.name}"][:, : _units(plan, i.dims)]
    return Cotangents(parameters, steps, sequences, begun)


def _dual(plan: Plan, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """Memory for the cotangents of products at all steps."""
    dual = empty(geometry.total, max(plan.sized.width[COTANGENTS], 1), dtype)
    # The columns between two slots are never written, but multiplied.
    return dual if plan.sized.exact else dual.zero_()


def _state_cotangents(
    plan: Plan, geometry: Geometry, finals, every, like: Tensor, addresses: dict, live: list
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the states' cotangents start from, and the sums over rows, which start from zero: the
    memory of those sums and carries, and by name where the cotangents of the beginnings will be."""
    states = plan.kernels.inner.states
    widths = {s.name: _width(plan, s.dims) for s in states}
    start = plan.count * plan.sized.width[SUMS]
    zeroed = like.new_zeros(start + geometry.batch * sum(widths.values()) + 1)
    addresses[SUMS] = zeroed.data_ptr()
    begun = {}
    for state in states:
        units, width, final = _units(plan, state.dims), widths[state.name], finals.get(state.name)
        if state.name in plan.sized.variant.planes:
            plane = _cotangent_plane(plan, geometry, state, final, every.get(state.name), like)
            addresses[f"plane:{state.name}"] = plane.data_ptr()
            live.append(plane)
            at = geometry.beginning(plan.kernels.depth)
            begun[state.name] = plane[at : at + plan.kernels.depth * geometry.batch, :units]
            continue
        carry = zeroed[start : start + geometry.batch * width].view(geometry.batch, width)
        start += geometry.batch * width
        addresses[f"carry:{state.name}"] = carry.data_ptr()
        carry = carry if units == width else carry[:, :units]
        if final is not None:
            carry.copy_(final.reshape(carry.shape))
        begun[state.name] = carry
    return zeroed, begun


def _input_cotangents(
    plan: _Back, geometry: Geometry, wanted: Sequence[str], like: Tensor, addresses: dict[str, int]
) -> tuple[dict[str, Tensor], dict[int, int]]:
    """Memory for what leaves the steps, by buffer, and the words that leave out what nobody asks
    for."""
    made, words = {}, {}
    for buffer, role, width in plan.made:
        if buffer in plan.skipped and role[1] not in wanted:
            addresses[buffer] = 0
            words |= dict.fromkeys(plan.skipped[buffer], 0)
            continue
        if role[0] == "sequence":
            made[buffer] = like.new_zeros(geometry.batch, width)
        else:
            made[buffer] = _plane(like, geometry, geometry.total, width)
        addresses[buffer] = made[buffer].data_ptr()
    return made, words


def _output_cotangent(
    plan: Plan, geometry: Geometry, output: Tensor | None, like: Tensor, live: list
) -> int:
    graph = plan.kernels.inner
    dims = graph.nodes[graph.output].dims
    if output is None:
        output = like.new_zeros(geometry.total, _filled_width(plan, dims))
    else:
        output = _in_vectors(plan, output, dims)
    live.append(output)
    return output.data_ptr()


def _cotangent_plane(plan: Plan, geometry: Geometry, state, final, every, like: Tensor) -> Tensor:
    """The cotangents of a state for every step, with what came for them from outside."""
    depth = plan.kernels.depth
    units = _units(plan, state.dims)
    rows = geometry.total + depth * geometry.batch
    plane = like.new_zeros(rows, _width(plan, state.dims))
    if every is not None:
        first = geometry.outputs(depth)
        plane[first : first + geometry.total, :units] = every.reshape(-1, units)
    if final is not None:
        plane[geometry.ends(depth), :units] += final.reshape(-1, units)
    return plane
