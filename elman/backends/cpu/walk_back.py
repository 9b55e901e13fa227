"""The walk back on tensors, and the weights' gradients that follow it in the same turn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elman.backends.cpu import turn
from elman.backends.cpu.geometry import Geometry
from elman.backends.cpu.gradient import is_large
from elman.backends.cpu.kernel import Variant
from elman.backends.cpu.layout import COTANGENTS, KEPT, SUMS
from elman.backends.cpu.memory import empty
from elman.backends.cpu.plan import Plan
from elman.backends.cpu.walk import (
    Given,
    Planes,
    Ready,
    Walk,
    in_vectors,
    input_addresses,
    plan_inputs,
    plane_of,
    ready_to_run,
    units_of,
    walking,
    width_of,
)
from elman.backends.cpu.weights import Weights
from elman.equation.lowering import ONE


@dataclass
class Asked:
    """What a walk back is asked for.

    Attributes:
        output: the cotangent of the outputs, (total, size); None for zero.
        finals: those of the last states by name, (batch, size).
        every: those of all states by name, (total, size).
        wanted: the names of the step's inputs whose cotangents are asked for.
        again: whether what the forward kept must stay as it is.
    """

    output: Tensor | None
    finals: Mapping[str, Tensor | None]
    every: Mapping[str, Tensor | None]
    wanted: Sequence[str]
    again: bool = True


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
        plan_inputs(self)
        self.buffer(KEPT, KEPT, sized.width[KEPT])
        self.buffer(COTANGENTS, COTANGENTS, sized.width[COTANGENTS])
        self.table("at:kept", "packed")
        self.buffer(SUMS, SUMS, sized.width[SUMS])
        for state in graph.states:
            width = width_of(self, state.dims)
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
    units, lanes = units_of(plan, dims), plan.sized.lanes
    return -(-units // lanes) * lanes if dims and dims[0] != ONE else units


def backward(
    walks: Sequence[Walk],
    given: Sequence[Given],
    planes: Sequence[Planes],
    asked: Sequence[Asked],
) -> list[Cotangents]:
    """Walk back over time, all walks side by side; then the products of the weights' gradients.

    Returns:
        list[Cotangents]: for each walk those of the parameters' tensors, the inputs and the
        beginnings, shaped as `Given`.
    """
    returns = [_Return(*one) for one in zip(walks, given, planes, asked, strict=True)]
    walked = walking([one.ready for one in returns])
    jobs = [job for one in returns for job in one.jobs]
    # Two directions of a thread each are two; never more than torch may have.
    most = torch.get_num_threads()
    count = min(walked.most * len(returns), most)
    if not jobs:
        turn.run([walked], count)
        return [one.cotangents() for one in returns]
    products, live = returns[0].plan.weights.products, []
    if is_large(jobs) and count < most:
        # More threads than there are rows to walk; they would only have waited until now.
        turn.run([walked], count)
        turn.run([products.stage(jobs, most, live)], most)
    else:
        turn.run([walked, products.stage(jobs, count, live)], count)
    return [one.cotangents() for one in returns]


class _Return:
    """One walk back: made ready, and what comes of it when it has been run."""

    def __init__(self, walk: Walk, given: Given, planes: Planes, asked: Asked):
        kernels, geometry = walk.kernels, walk.geometry
        lined = tuple(
            s.name
            for s in kernels.inner.states
            if s.name in kernels.lined or asked.every.get(s.name) is not None
        )
        self.walk, self.lined = walk, lined
        self.plan = plan = walk.known("backward", lined, lambda count: _Back(walk, lined, count))
        like, live = planes.kept, []
        addresses = plan.prepared(given.parameters.tensors, live)
        input_addresses(plan, given, addresses, live)
        addresses[KEPT] = planes.kept.data_ptr()
        for name, plane in planes.states.items():
            addresses[f"state:{name}"] = plane.data_ptr()
        free = plan.in_place and not asked.again
        dual = planes.kept if free else _dual(plan, geometry, walk.dtype)
        addresses[COTANGENTS] = dual.data_ptr()
        addresses["output:cotangent"] = _output_cotangent(plan, geometry, asked.output, like, live)
        self.zeroed, self.begun = _state_cotangents(
            plan, geometry, asked, given.beginnings, like, addresses, live
        )
        self.made, words = _input_cotangents(plan, geometry, asked.wanted, like, addresses)
        if plan.reads(COTANGENTS):
            words[plan.names[f"ld:{COTANGENTS}"]] = dual.stride(0)
        live += dual, planes
        self.grown, self.jobs = plan.weights.begun(geometry, given, planes, dual, self.made, live)
        self.ready: Ready = ready_to_run(plan, geometry, addresses, like, live, words)

    def cotangents(self) -> Cotangents:
        """What the walk back gave, when all has been run."""
        kernels, geometry, begun = self.walk.kernels, self.walk.geometry, self.begun
        for name in begun.keys() - set(self.lined) if kernels.depth > 1 else ():
            # A beginning holds as many steps of every state as of the one with the longest delay.
            rows = (kernels.depth - 1) * geometry.batch
            before = begun[name].new_zeros(rows, begun[name].shape[1])
            begun[name] = torch.cat([before, begun[name]])
        parameters = self.plan.weights.gradients(self.grown, self.zeroed)
        steps, sequences = {}, {}
        for i in kernels.inner.inputs:
            for kind, found in (("cotangent", steps), ("rows", sequences)):
                rows = self.made.get(f"{kind}:{i.name}")
                if rows is not None:
                    units = units_of(self.plan, i.dims)
                    found[i.name] = rows if rows.shape[1] == units else rows[:, :units]
        return Cotangents(parameters, steps, sequences, begun)


def _dual(plan: Plan, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """Memory for the cotangents of products at all steps."""
    dual = empty(geometry.total, max(plan.sized.width[COTANGENTS], 1), dtype)
    # The columns between two slots are never written, but multiplied.
    return dual if plan.sized.exact else dual.zero_()


def _state_cotangents(
    plan: Plan,
    geometry: Geometry,
    asked: Asked,
    beginnings: Collection[str],
    like: Tensor,
    addresses: dict,
    live: list,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the states' cotangents start from, and the sums over rows, which start from zero: the
    memory of those sums and carries, and by name where the cotangents of the beginnings will be."""
    states = plan.kernels.inner.states
    widths = {s.name: width_of(plan, s.dims) for s in states}
    start = plan.count * plan.sized.width[SUMS]
    zeroed = like.new_zeros(start + geometry.batch * sum(widths.values()) + 1)
    addresses[SUMS] = at = zeroed.data_ptr()
    begun = {}
    for state in states:
        units, width = units_of(plan, state.dims), widths[state.name]
        final = asked.finals.get(state.name)
        if state.name in plan.sized.variant.planes:
            every = asked.every.get(state.name)
            plane = _cotangent_plane(plan, geometry, state, final, every, like)
            addresses[f"plane:{state.name}"] = plane.data_ptr()
            live.append(plane)
            first = geometry.beginning(plan.kernels.depth)
            begun[state.name] = plane[first : first + plan.kernels.depth * geometry.batch, :units]
            continue
        addresses[f"carry:{state.name}"] = at + start * plan.bytes
        if final is not None or state.name in beginnings:
            carry = zeroed.narrow(0, start, geometry.batch * width).view(geometry.batch, width)
            carry = carry if units == width else carry[:, :units]
            if final is not None:
                carry.copy_(final.reshape(carry.shape))
            begun[state.name] = carry
        start += geometry.batch * width
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
            made[buffer] = plane_of(like, geometry, geometry.total, width)
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
        output = in_vectors(plan, output, dims)
    live.append(output)
    return output.data_ptr()


def _cotangent_plane(plan: Plan, geometry: Geometry, state, final, every, like: Tensor) -> Tensor:
    """The cotangents of a state for every step, with what came for them from outside."""
    depth = plan.kernels.depth
    units = units_of(plan, state.dims)
    rows = geometry.total + depth * geometry.batch
    plane = like.new_zeros(rows, width_of(plan, state.dims))
    if every is not None:
        first = geometry.outputs(depth)
        plane[first : first + geometry.total, :units] = every.reshape(-1, units)
    if final is not None:
        plane[geometry.ends(depth), :units] += final.reshape(-1, units)
    return plane
