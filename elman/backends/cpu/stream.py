"""One step after the other on a kernel, without gradients: memory that stays, words that stay.

The states lie in rings of depth + 1 slots, and the table that tells a kernel where a state's value
of some steps ago lies has one entry for one step. So there is a block of words for every position
of the rings, made once, and of a step only the addresses of its inputs are set anew. The packed
weights stay too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.backends.call import Carried
from elman.backends.cpu import threads
from elman.backends.cpu.calls import blocks, checked, inner_parameters
from elman.backends.cpu.geometry import whole
from elman.backends.cpu.gradient import SMALL
from elman.backends.cpu.kernel import Kernels
from elman.backends.cpu.layout import KEPT, SCRATCH
from elman.backends.cpu.plan import WORKSPACE, Plan
from elman.backends.cpu.sources import Parameters
from elman.backends.cpu.walk import Given, Walk
from elman.equation.graph import Input
from elman.equation.lowering import ONE
from elman.equation.sizes import number
from elman.errors import InputError

NOTHING: Mapping[str, Tensor] = {}


class Stream:
    """One layer of a stack on its kernel.

    Args:
        kernels: those of the cell.
        sizes: the number of every size.
        batch: rows, 1 or more.
        dtype: float32 or float64.
    """

    def __init__(self, kernels: Kernels, sizes: Mapping[str, int], batch: int, dtype: torch.dtype):
        self.kernels, self.sizes, self.batch, self.dtype = kernels, sizes, batch, dtype
        self._geometry = whole(1, batch)
        self._depth = kernels.depth
        self._words: list[np.ndarray] = []
        self._live: list[Any] = []
        self._packed = False
        self._position = 0

    # Weights.

    def load_weights(self, parameters: Parameters) -> None:
        """Take the parameters as they are now; they are packed at the next step."""
        # Whatever mode the caller is in, this memory is written again and again, and in full.
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
        ):
            inner = inner_parameters(self.kernels, self.sizes, parameters)
            if not checked(self.kernels, Given(inner, {}, {}, {}), self.dtype):
                raise InputError(
                    f"{self.kernels.graph.name}: a weight has no memory of its own; a stepper "
                    "cannot read it without gradients. Use backend='reference'"
                )
            shapes = tuple(tuple(t.shape) for t in inner.tensors)
            walk = Walk(
                self.kernels, self.sizes, self._geometry, False, inner.places, shapes, self.dtype,
                self._share(inner.tensors),
            )  # fmt: skip
            plan = walk.plan("inference")
            if not self._words:
                self._make(plan)
            self._live = [*inner.tensors]
            self._fill(plan, plan.prepared(inner.tensors, self._live))

    def _share(self, parameters: Sequence[Tensor]) -> int:
        """Which part of the threads one step takes: all, or one of them, where that is as soon
        done alone as others wake up."""
        work = self.batch * sum(p.numel() for p in parameters)
        return 1 if work > SMALL else torch.get_num_threads()

    def _make(self, plan: Plan) -> None:
        """The memory, once."""
        graph, batch, slots = self.kernels.inner, self.batch, self._depth + 1
        width = plan.sized.width
        self.address, self._count = plan.sized.address, plan.count

        def rows(count: int, size: str) -> Tensor:
            return torch.zeros(count, plan.sized.padded(size), dtype=self.dtype, device="cpu")

        self._rings = {s.name: rows(slots * batch, _size(s.dims)) for s in graph.states}
        self._dims = {s.name: s.dims for s in graph.states}
        self._kept = torch.zeros(batch, width[KEPT], dtype=self.dtype, device="cpu")
        scratch = (batch + plan.count) * width[SCRATCH]
        self._workspace = torch.zeros(plan.workspace + scratch + 1, dtype=self.dtype, device="cpu")
        self._output = rows(batch, _size(graph.nodes[graph.output].dims))
        # One table for each slot: with one step to walk it has one entry.
        self._tables = [np.array([slot * batch], np.int64) for slot in range(slots)]
        units = number(_size(graph.nodes[graph.output].dims), self.sizes)
        if graph.output in graph.new_states:
            ring = self._rings[graph.states[graph.new_states.index(graph.output)].name]
            made = [ring[slot * batch : (slot + 1) * batch, :units] for slot in range(slots)]
        else:
            made = [self._output[:, :units]] * slots
        self._outputs = made
        self._feeds = {i.name: _Feed(self, plan, i) for i in self.kernels.graph.inputs}
        self._lines = {
            line.name: _Ring(self, plan, line.name, line.depth)
            for line in self.kernels.graph.lines
            if line.kind == "input"
        }
        self._first = self.kernels.graph.inputs[0].name
        self._feed = self._feeds[self._first]
        self._alone = len(self._feeds) == 1 and not self._lines

    def _fill(self, plan: Plan, addresses: dict[str, int]) -> None:
        """The block of words for every position of the rings."""
        addresses[WORKSPACE] = self._workspace.data_ptr()
        addresses[SCRATCH] = addresses[WORKSPACE] + plan.workspace * self.dtype.itemsize
        addresses[KEPT] = self._kept.data_ptr()
        addresses["output"] = self._output.data_ptr()
        for name, ring in self._rings.items():
            addresses[f"state:{name}"] = ring.data_ptr()
        for base in plan.bases:
            addresses.setdefault(base, 0)  # the inputs: set at each step
        slots = self._depth + 1
        self._words = [plan.fill(self._geometry, addresses) for _ in range(slots)]
        for position, words in enumerate(self._words):
            for name in self._rings:
                for ago in range(slots):
                    word = plan.names.get(f"at:{name}:{ago or 'new'}")
                    if word is not None:
                        table = self._tables[(position - ago) % slots]
                        words[word] = table.ctypes.data
        self._addresses = [words.ctypes.data for words in self._words]
        self._pack_word = plan.names["pack"]
        self._packed = False

    # States.

    def begin(self, carried: Carried) -> None:
        """Go on from a state; `load_weights` comes before."""
        graph, batch = self.kernels.graph, self.batch
        count, self._position = len(graph.states), 0
        lines = dict(zip((line.name for line in graph.lines), carried[count:], strict=True))
        with torch.no_grad():
            for state, value in zip(graph.states, carried[:count], strict=True):
                old = blocks(value, lines.get(state.name), self._depth)
                self._part(state.name)[batch:] = old.reshape(self._depth * batch, -1)
            for name, line in self._lines.items():
                line.begin(lines[name])

    def carried(self) -> Carried:
        """What goes on after the last step."""
        graph, slots = self.kernels.graph, self._depth + 1

        def ago(name: str, steps: int) -> Tensor:
            slot = (self._position - steps) % slots
            rows = self._part(name)[slot * self.batch : (slot + 1) * self.batch]
            return rows if self._dims[name] else rows[:, 0]

        result = [ago(s.name, 1).clone(memory_format=torch.contiguous_format) for s in graph.states]
        for line in graph.lines:
            if line.kind == "state":
                result.append(torch.stack([ago(line.name, 2 + k) for k in range(line.depth)], 1))
            else:
                result.append(self._lines[line.name].carried())
        return tuple(result)

    def _part(self, name: str) -> Tensor:
        """A ring without the columns that fill it up."""
        return self._rings[name][:, : number(_size(self._dims[name]), self.sizes)]

    # Steps.

    def step(self, x: Tensor, extras: Mapping[str, Tensor] = NOTHING) -> Tensor:
        """One step.

        Args:
            x: (batch, input), or (input,) where there is one row.
            extras: the cell's further inputs and the masks by name, (batch, …).

        Returns:
            Tensor: the output, (batch, size), in memory that a later step writes again.
        """
        position = self._position
        words = self._words[position]
        if self._alone:
            live = self._feed.place(words, x)
        else:
            live = self._place(words, {self._first: x, **extras})
        if not self._packed:
            words[self._pack_word] = 1
        threads.run(self.address, self._addresses[position], self._count)
        del live
        if not self._packed:
            for block in self._words:
                block[self._pack_word] = 0
            self._packed = True
        self._position = position + 1 if position < self._depth else 0
        return self._outputs[position]

    def _place(self, words: np.ndarray, values: dict[str, Tensor]) -> list[Any]:
        """The addresses of all inputs; what must live until the step is over."""
        live = []
        for name, line in self._lines.items():
            values[name] = line.push(words, values[name])
        for name, feed in self._feeds.items():
            if name not in values:
                raise InputError(f"{self.kernels.graph.name}: the input {name} is not given")
            live.append(feed.place(words, values[name]))
        return live


class _Feed:
    """An input of a step: its word, and memory for values that a kernel may not read in place."""

    def __init__(self, stream: Stream, plan: Plan, declared: Input):
        kind = "step" if declared.varies == "step" else "sequence"
        self.word = plan.names.get(f"base:{kind}:{declared.name}")
        self.units = number(_size(declared.dims), stream.sizes)
        lanes = 1 if _size(declared.dims) == ONE else plan.sized.lanes
        width = -(-self.units // lanes) * lanes
        self.whole, self.dtype = width == self.units, stream.dtype
        self.copy = torch.zeros(stream.batch, width, dtype=stream.dtype, device="cpu")
        self.part = self.copy[:, : self.units]

    def place(self, words: np.ndarray, value: Tensor) -> Tensor:
        """Set the word to where a value lies; that tensor, which must live meanwhile."""
        if not (
            self.whole
            and value.dtype is self.dtype
            and value.is_contiguous()
            and not value.is_neg()
        ):
            self.part.copy_(value.reshape(self.part.shape))
            value = self.copy
        if self.word is not None:
            words[self.word] = value.data_ptr()
        return value


class _Ring:
    """The last values of an input that is read with a delay."""

    def __init__(self, stream: Stream, plan: Plan, name: str, depth: int):
        graph, self.depth = stream.kernels.graph, depth
        self.feeds = [
            _Feed(stream, plan, next(i for i in graph.inputs if i.name == name))
            for _ in range(depth + 1)
        ]
        self.words = [
            (plan.names[f"base:step:{own}"], graph.nodes[index].attribute("steps"))
            for own, index in stream.kernels.schedule.split.steps.items()
            if graph.nodes[index].op == "delayed"
            and graph.nodes[index].attribute("name") == name
            and f"base:step:{own}" in plan.names
        ]
        self.position = 0
        dims = next(i.dims for i in graph.inputs if i.name == name)
        self.shape = (stream.batch, *(number(d, stream.sizes) for d in dims))

    def begin(self, line: Tensor) -> None:
        """Take values of before, (batch, depth, …), newest first."""
        self.position = 0
        for ago in range(1, self.depth + 1):
            part = self.feeds[-ago].part
            part.copy_(line[:, ago - 1].reshape(part.shape))

    def push(self, words: np.ndarray, value: Tensor) -> Tensor:
        """Keep a step's value, and set the words of the delayed ones; the value as it is kept."""
        now, slots = self.position, self.depth + 1
        feed = self.feeds[now]
        feed.part.copy_(value.reshape(feed.part.shape))
        for word, steps in self.words:
            words[word] = self.feeds[(now - steps) % slots].copy.data_ptr()
        self.position = (now + 1) % slots
        return feed.part

    def carried(self) -> Tensor:
        parts = [
            self.feeds[(self.position - ago) % (self.depth + 1)].part
            for ago in range(1, self.depth + 1)
        ]
        return torch.stack([part.reshape(self.shape) for part in parts], 1)


def _size(dims: tuple[str, ...]) -> str:
    return dims[0] if dims else ONE
