"""Forward and backward of a kernel on tensors: filling its words, and what torch does around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elman.backends.cpu import threads
from elman.backends.cpu.geometry import Geometry
from elman.backends.cpu.gradient import Job, gradients
from elman.backends.cpu.kernel import Kernels, Sized, Variant, products
from elman.backends.cpu.layout import COTANGENTS, KEPT, SCRATCH, SUMS
from elman.equation.lowering import ONE
from elman.equation.sizes import number


@dataclass
class Given:
    """What a kernel reads, by name: parameters of the inner step, inputs, and beginnings.

    Shapes:
        A step's input is (total, size), one of a sequence (batch, size); a beginning holds the
        depth values of a state before the first step, oldest first, (depth·batch, size).
    """

    parameters: Mapping[str, Tensor]
    steps: Mapping[str, Tensor]
    sequences: Mapping[str, Tensor]
    beginnings: Mapping[str, Tensor]


@dataclass
class Planes:
    """What a forward leaves: every state's plane, the output where it is no state, the saved."""

    states: dict[str, Tensor]
    output: Tensor | None
    kept: Tensor


class Block:
    """The words of one call, and what must live until it is over."""

    def __init__(self, sized: Sized, geometry: Geometry, count: int):
        self.sized, self.geometry = sized, geometry
        self.words = sized.words.copy()
        self.alive: list = []
        self.count = count
        self.set("steps", geometry.steps)
        self.set("batch", geometry.batch)
        self.set("even", geometry.even)
        self.set("chunk", min(geometry.steps, sized.chunk(-(-geometry.batch // count))))
        self.set("barrier", threads.barrier_address())
        self.table("alive", geometry.alive)
        self.table("at:packed", geometry.packed)
        self.table("at:kept", geometry.packed)

    def set(self, name: str, value: int) -> None:
        place = self.sized.names.get(name)
        if place is not None:
            self.words[place] = value

    def table(self, name: str, table) -> None:
        if name in self.sized.names:
            self.alive.append(table)
            self.set(name, table.ctypes.data)

    def buffer(self, name: str, tensor: Tensor) -> None:
        """Give a buffer its memory; its rows lie `stride(0)` apart."""
        if f"base:{name}" in self.sized.names:
            self.alive.append(tensor)
            self.set(f"base:{name}", tensor.data_ptr())
            self.set(f"ld:{name}", tensor.stride(0) if tensor.dim() > 1 else 0)

    def filled(self, tensor: Tensor, size: str) -> Tensor:
        """Rows as a loop may read them: contiguous, in whole vectors."""
        units = number(size, self.sized.sizes)
        tensor = tensor.reshape(*tensor.shape[: tensor.dim() - (size != ONE or tensor.dim() > 1)], units) if size != ONE else tensor
        lanes = self.sized.lanes
        if size != ONE and units % lanes:
            return torch.nn.functional.pad(tensor, (0, -units % lanes))
        return tensor.contiguous()

    def weights(self, parameters: Mapping[str, Tensor], names: Mapping[int, str], like: Tensor) -> None:
        """Addresses of the weights, and memory for the packed ones."""
        sized = self.sized
        for i, call in enumerate(sized.layout.calls()):
            packed = like.new_empty(max(sized.packed[i], 1)) if sized.exact else (
                like.new_zeros(max(sized.packed[i], 1))
            )
            self.alive.append(packed)
            self.set(f"call:{i}:B", packed.data_ptr())
            for j, rectangle in enumerate(call.rectangles):
                weight = parameters[names[rectangle.weight]]
                if weight.stride(1) != 1:
                    weight = weight.contiguous()
                self.alive.append(weight)
                self.set(f"rectangle:{i}:{j}:W", weight.data_ptr())
                self.set(f"rectangle:{i}:{j}:ldw", weight.stride(0))

    def run(self) -> None:
        threads.run(self.sized.address, self.words.ctypes.data, self.count)


def thread_count(batch: int) -> int:
    """How many threads rows are split over: no more than there are rows."""
    return max(1, min(batch, torch.get_num_threads()))


def weight_names(kernels: Kernels) -> dict[int, str]:
    """By node of the inner step, the names of its parameters."""
    return {
        i: n.attribute("name") for i, n in enumerate(kernels.inner.nodes) if n.op == "parameter"
    }


def forward(
    kernels: Kernels,
    sizes: Mapping[str, int],
    geometry: Geometry,
    given: Given,
    *,
    training: bool,
    every: bool,
) -> Planes:
    """Walk over time.

    Args:
        training: keep what the backward needs.
        every: keep every state at every step; else only the output's.
    """
    like = given.beginnings[kernels.inner.states[0].name] if kernels.inner.states else next(
        iter(given.steps.values()))
    variant = Variant("training" if training else "inference")
    sized = kernels.sized(variant, sizes, like.dtype)
    block = Block(sized, geometry, thread_count(geometry.batch))
    graph, depth = kernels.inner, kernels.depth
    _inputs(block, kernels, given)
    block.weights(given.parameters, weight_names(kernels), like)
    block.alive.append(_lines(block, given, like))
    chunk = int(block.words[sized.names["chunk"]])
    if training:
        kept = like.new_empty(geometry.total, sized.width[KEPT])
    else:
        kept = like.new_empty(chunk * geometry.batch, sized.width[KEPT])
        block.table("at:kept", geometry.turning(chunk))
    block.buffer(KEPT, kept)
    planes = {}
    whole = training or every
    for state, index in zip(graph.states, graph.new_states, strict=True):
        full = whole or index == graph.output
        rows = geometry.total + depth * geometry.batch if full else (depth + 1) * geometry.batch
        plane = like.new_empty(rows, sized.padded(state.dims[0] if state.dims else ONE))
        beginning = given.beginnings[state.name]
        units = beginning.shape[-1] if state.dims else 1
        plane[: depth * geometry.batch, :units] = beginning.reshape(-1, units)
        for name in ("new", *map(str, range(1, depth + 1))):
            buffer = f"state:{state.name}:{name}"
            block.buffer(buffer, plane)
            ago = 0 if name == "new" else int(name)
            table = geometry.slots(ago, depth) if full else geometry.ring(ago, depth)
            block.table(f"at:{state.name}:{name}", table)
        planes[state.name] = plane
    output = None
    if graph.output not in graph.new_states:
        node = graph.nodes[graph.output]
        output = like.new_empty(geometry.total, sized.padded(node.dims[0] if node.dims else ONE))
        block.buffer("output", output)
    _scratch(block, like)
    block.run()
    return Planes(planes, output, kept)


def _inputs(block: Block, kernels: Kernels, given: Given) -> None:
    """Inputs and vectors, where loops or products read them."""
    for i in kernels.inner.inputs:
        kind = "step" if i.varies == "step" else "sequence"
        name = f"{kind}:{i.name}"
        if f"base:{name}" not in block.sized.names:
            continue
        tensor = (given.steps if kind == "step" else given.sequences)[i.name]
        if not i.dims:
            tensor = tensor.reshape(-1, 1)
        block.buffer(name, block.filled(tensor, i.dims[0] if i.dims else ONE))
    for p in kernels.inner.parameters:
        if f"base:vector:{p.name}" in block.sized.names:
            vector = given.parameters[p.name]
            block.buffer(f"vector:{p.name}", block.filled(vector, p.dims[0] if p.dims else ONE))


def _lines(block: Block, given: Given, like: Tensor) -> Tensor:
    """What the gathers start from, side by side as their slots are; zeros where from nothing."""
    layout, sized = block.sized.layout, block.sized
    width = max([sized.width[KEPT], *(sized.panel * int(block.words[sized.names[f"call:{i}:panels"]])
                                      for i in range(len(layout.calls())))], default=sized.panel)
    line = like.new_zeros(max(width, 1))
    for value, start in layout.starts.items():
        vector = given.parameters[layout.program.ops[start].attribute("name")].reshape(-1)
        column = sized.columns[KEPT][layout.slots[value].number]
        line[column : column + vector.shape[0]] = vector
    block.set("base:lines", line.data_ptr())
    return line


def _scratch(block: Block, like: Tensor) -> None:
    width = block.sized.width[SCRATCH]
    if width:
        rows = block.geometry.batch + block.count
        block.buffer(SCRATCH, like.new_empty(rows, width))


@dataclass
class Cotangents:
    """What a backward gives, by name: parameters, inputs, beginnings."""

    parameters: dict[str, Tensor]
    steps: dict[str, Tensor]
    sequences: dict[str, Tensor]
    beginnings: dict[str, Tensor]


def backward(
    kernels: Kernels,
    sizes: Mapping[str, int],
    geometry: Geometry,
    given: Given,
    planes: Planes,
    output: Tensor | None,
    finals: Mapping[str, Tensor | None],
    every: Mapping[str, Tensor | None],
    wanted: Sequence[str],
) -> Cotangents:
    """Walk back over time.

    Args:
        output: the cotangent of the outputs, (total, size); None for zero.
        finals: those of the last states by name, (batch, size).
        every: those of all states by name, (total, size).
        wanted: the names of the step's inputs whose cotangents are asked for.
    """
    graph, depth = kernels.inner, kernels.depth
    like = planes.kept
    lined = [
        s.name for s in graph.states if s.name in kernels.lined or every.get(s.name) is not None
    ]
    sized = kernels.sized(Variant("backward", tuple(lined)), sizes, like.dtype)
    block = Block(sized, geometry, thread_count(geometry.batch))
    _inputs(block, kernels, given)
    block.weights(given.parameters, weight_names(kernels), like)
    block.alive.append(_lines(block, given, like))
    block.buffer(KEPT, planes.kept)
    new = like.new_empty if sized.exact else like.new_zeros
    dual = new(geometry.total, max(sized.width[COTANGENTS], 1))
    block.buffer(COTANGENTS, dual)
    for state in graph.states:
        for name in ("new", *map(str, range(1, depth + 1))):
            block.buffer(f"state:{state.name}:{name}", planes.states[state.name])
            ago = 0 if name == "new" else int(name)
            block.table(f"at:{state.name}:{name}", geometry.slots(ago, depth))
    _output_cotangent(block, kernels, output, like)
    begun = _carries(block, kernels, finals, every, lined, like)
    made = _made(block, kernels, like, wanted)
    sums = like.new_zeros(block.count, max(sized.width[SUMS], 1))
    block.buffer(SUMS, sums)
    _scratch(block, like)
    block.run()
    return _collected(block, kernels, given, planes, dual, sums, begun, made)


def _output_cotangent(block: Block, kernels: Kernels, output: Tensor | None, like: Tensor) -> None:
    name = "output:cotangent"
    if f"base:{name}" not in block.sized.names:
        return
    node = kernels.inner.nodes[kernels.inner.output]
    size = node.dims[0] if node.dims else ONE
    if output is None:
        line = like.new_zeros(1, block.sized.padded(size))
        block.buffer(name, line)
        block.set(f"ld:{name}", 0)
        return
    block.buffer(name, block.filled(output.reshape(output.shape[0], -1), size))


def _carries(block, kernels, finals, every, lined, like) -> dict[str, Tensor]:
    """The cotangents of the states, as the walk begins with them; by name where it leaves those of
    the beginnings."""
    geometry, sized, depth = block.geometry, block.sized, kernels.depth
    begun = {}
    for state in kernels.inner.states:
        units = number(state.dims[0], sized.sizes) if state.dims else 1
        width = sized.padded(state.dims[0] if state.dims else ONE)
        final = finals.get(state.name)
        if state.name in lined:
            plane = like.new_zeros(geometry.total + depth * geometry.batch, width)
            if every.get(state.name) is not None:
                plane[depth * geometry.batch :, :units] = every[state.name].reshape(-1, units)
            if final is not None:
                plane[geometry.ends(depth), :units] += final.reshape(-1, units)
            for name in ("new", *map(str, range(1, depth + 1))):
                block.buffer(f"plane:{state.name}:{name}", plane)
                ago = 0 if name == "new" else int(name)
                block.table(f"at:{state.name}:{name}", geometry.slots(ago, depth))
            begun[state.name] = plane[: depth * geometry.batch, :units]
            continue
        carry = like.new_zeros(geometry.batch, width)
        if final is not None:
            carry[:, :units] = final.reshape(-1, units)
        block.buffer(f"carry:{state.name}", carry)
        begun[state.name] = carry[:, :units]
    return begun


def _made(block: Block, kernels: Kernels, like: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
    """Memory for the cotangents of inputs and for the vectors of products made again, by buffer."""
    geometry, sized = block.geometry, block.sized
    made = {}
    written = {s.slot.buffer for stores in sized.layout.stores.values() for s in stores}
    for root in sized.layout.program.roots:
        kind, name = root.role[0], root.role[1]
        if kind == "step":
            buffer, rows = f"cotangent:{name}", geometry.total
            if name not in wanted and buffer not in written:
                _skip(block, buffer)
                continue
        elif kind == "factor":
            buffer, rows = f"factor:{name}", geometry.total
        elif kind == "sequence":
            buffer, rows = f"rows:{name}", geometry.batch
        else:
            continue
        new = like.new_zeros if kind == "sequence" else like.new_empty
        made[buffer] = new(rows, sized.padded(root.size))
        block.buffer(buffer, made[buffer])
    return made


def _skip(block: Block, buffer: str) -> None:
    """Leave out the products that give nothing but a cotangent nobody asked for."""
    for i, call in enumerate(block.sized.layout.calls()):
        if call.targets[0].buffer == buffer:
            block.set(f"call:{i}:B", 0)


def _collected(block, kernels, given, planes, dual, sums, begun, made) -> Cotangents:
    sized, graph = block.sized, kernels.inner
    names = weight_names(kernels)
    parameters = _weight_cotangents(block, kernels, given, planes, dual, made, names)
    total = sums.sum(0) if sums.shape[0] > 1 else sums[0]
    layout = sized.layout
    place = {s.value: [] for stores in layout.stores.values() for s in stores}
    number_ = 0
    for root in layout.program.roots:
        if root.role[0] == "vector":
            column = sized.columns[SUMS][number_]
            number_ += 1
            name = names[root.role[1]]
            shape = given.parameters[name].shape
            grad = total[column : column + max(1, shape.numel())].reshape(shape)
            parameters[name] = parameters[name] + grad if name in parameters else grad
    del place
    steps, sequences = {}, {}
    for i in graph.inputs:
        units = number(i.dims[0], sized.sizes) if i.dims else 1
        for kind, found in (("cotangent", steps), ("rows", sequences)):
            if f"{kind}:{i.name}" in made:
                found[i.name] = made[f"{kind}:{i.name}"][:, :units]
    return Cotangents(parameters, steps, sequences, begun)


def _weight_cotangents(block, kernels, given, planes, dual, made, names) -> dict[str, Tensor]:
    """W̄ = Σ ā vᵀ over all steps and rows: for each vector one product with all its cotangents."""
    sized, geometry = block.sized, block.geometry
    backward, layout = kernels.schedule.backward, block.sized.layout
    slot_of = {
        r.role[1]: layout.cotangents[r.value] for r in layout.program.roots
        if r.role[0] == "cotangent"
    }  # fmt: skip
    by_vector: dict[int, list] = {}
    for p in backward.products:
        by_vector.setdefault(p.vector, []).append((slot_of[p.cotangent].number, p))
    jobs: list[Job] = []
    parts: list[list[tuple[str, int]]] = []
    for vector, pairs in by_vector.items():
        values = _vectors(vector, kernels, sized, geometry, given, planes, made)
        pairs.sort(key=lambda pair: pair[0])
        start = 0
        while start < len(pairs):
            end = start + 1
            while end < len(pairs) and pairs[end][0] == pairs[end - 1][0] + 1:
                end += 1
            first = sized.columns[COTANGENTS][pairs[start][0]]
            last = pairs[end - 1][0]
            stop = sized.columns[COTANGENTS][last] + sized.padded(
                layout.sizes[COTANGENTS][last])
            jobs.append(Job(dual[:, first:stop], values))
            parts.append([
                (names[p.weight], sized.columns[COTANGENTS][number_] - first)
                for number_, p in pairs[start:end]
            ])  # fmt: skip
            start = end
    result: dict[str, Tensor] = {}
    if jobs:
        found = gradients(jobs, sized.element, products(sized.element))
        for whole, rows_of in zip(found, parts, strict=True):
            for name, row in rows_of:
                grad = whole[row : row + given.parameters[name].shape[0]]
                result[name] = result[name] + grad if name in result else grad
    return result


def _vectors(vector, kernels, sized, geometry, given, planes, made) -> Tensor:
    """The values of a product's vector at all steps and rows, (total, size)."""
    node, depth = kernels.inner.nodes[vector], kernels.depth
    units = number(node.dims[0], sized.sizes) if node.dims else 1
    if node.op == "input":
        name = node.attribute("name")
        values = given.steps[name].reshape(geometry.total, units)
        return values if values.stride(1) == 1 else values.contiguous()
    if node.op in ("state", "delayed"):
        ago = 1 if node.op == "state" else node.attribute("steps")
        return planes.states[node.attribute("name")][geometry.before(ago, depth)][:, :units]
    if f"factor:{vector}" in made:
        return made[f"factor:{vector}"][:, :units]
    slot = kernels._forwards["training"][1][vector]
    column = kernels.sized(Variant("training"), sized.sizes, planes.kept.dtype).columns[KEPT][slot.number]
    return planes.kept[:, column : column + units]
