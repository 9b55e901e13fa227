"""What of a call's words and memory is the same for every call of one shape: worked out once.

A word with an address is a base that comes with the call, and an offset that does not. All of them
are then filled in at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elman.backends.cpu import threads
from elman.backends.cpu.geometry import Geometry
from elman.backends.cpu.kernel import Kernels, Sized, Variant
from elman.backends.cpu.layout import KEPT, SCRATCH
from elman.backends.cpu.sources import Source
from elman.equation.lowering import ONE
from elman.equation.sizes import number, shape_of
from elman.errors import SizeError

WORKSPACE, ZEROS, LINES = "workspace", "zeros", "lines"
ALIGNED = 16


class Filled(NamedTuple):
    """A vector of parameters that is copied, so that it fills whole machine vectors."""

    name: str
    units: int
    width: int


class Plan:
    """One kernel, for given sizes, number type and threads, and for parameters that lie in given
    places; the rows and steps come with the call.

    Attributes:
        sized: the kernel with its sizes.
        count: how many threads the rows are split over.
        bases: the names of the addresses that a call brings, in order.
        workspace: elements of memory that a call needs for packed weights.
        meetings: how often the threads of a call wait for each other: after packing.
    """

    def __init__(
        self,
        kernels: Kernels,
        variant: Variant,
        sizes: Mapping[str, int],
        dtype: torch.dtype,
        count: int,
        places: Mapping[str, Source],
        shapes: Sequence[tuple[int, ...]],
    ):
        self.kernels, self.count = kernels, count
        self.places, self.shapes = places, shapes
        self._check(sizes)
        self.sized: Sized = kernels.sized(variant, sizes, dtype)
        self.bytes = dtype.itemsize
        self.names = self.sized.names
        self.words = self.sized.words.copy()
        self.bases: list[str] = []
        self.entries: list[tuple[int, int, int]] = []
        self.tables: list[tuple[int, str, int]] = []
        self.workspace = 0
        self.meetings = int(bool(self.sized.layout.calls()))
        self.sums: set[str] = set()
        self.filled: dict[str, Filled] = {}
        self._fixed()
        self._weights()
        self._vectors()
        self._lines()
        self.add(f"base:{SCRATCH}", SCRATCH)

    def _check(self, sizes: Mapping[str, int]) -> None:
        """Refuse tensors that do not hold what their places promise."""
        graph = self.kernels.inner
        for p in graph.parameters:
            wanted = shape_of(p.dims, sizes)
            tensors, row = self.places[p.name]
            for i in tensors:
                held = self.shapes[i]
                fits = held[1:] == wanted[1:] and len(held) == len(wanted)
                if not fits or (wanted and row + wanted[0] > held[0]):
                    raise SizeError(
                        f"{graph.name}: the parameter {p.name} is held by a tensor of shape "
                        f"{held}; the equation needs {wanted}"
                    )

    def finish(self) -> None:
        """Turn the entries into arrays, when all are there."""
        columns = np.array(self.entries, np.int64).reshape(-1, 3)
        self._word, self._base, self._offset = (np.ascontiguousarray(c) for c in columns.T)
        self._shape = np.array([self.names[n] for n in ("steps", "batch", "even", "chunk")])
        self._tables = np.array([word for word, _, _ in self.tables], np.int64)

    def fill(self, geometry: Geometry, addresses: Mapping[str, int]) -> np.ndarray:
        """The block of a call, from where its rows lie and the addresses of its bases."""
        return self.fill_at(geometry, np.array([addresses[name] for name in self.bases], np.int64))

    def fill_at(self, geometry: Geometry, bases: np.ndarray) -> np.ndarray:
        """The same, from the addresses of the bases in their order."""
        words = self._placed(geometry).copy()
        words[self._word] = bases[self._base] + self._offset
        return words

    def _placed(self, geometry: Geometry) -> np.ndarray:
        """The words that depend on where the rows lie, kept with the geometry."""
        words = geometry.tables.get(self)
        if words is None:
            chunk, depth = self.chunk(geometry), self.kernels.depth
            words = self.words.copy()
            words[self._shape] = geometry.steps, geometry.batch, geometry.even, chunk
            words[self._tables] = [
                geometry.address(kind, chunk if kind == "turning" else n, depth)
                for _, kind, n in self.tables
            ]
            geometry.tables[self] = words
        return words

    def chunk(self, geometry: Geometry) -> int:
        """For how many steps the inputs' products are made at once."""
        return min(geometry.steps, self.sized.chunk(-(-geometry.batch // self.count)))

    # Entries.

    def add(self, word: str, base: str, offset: int = 0) -> None:
        """A word is the address of a base, `offset` elements on."""
        if word in self.names:
            if base not in self.bases:
                self.bases.append(base)
            self.entries.append((self.names[word], self.bases.index(base), offset * self.bytes))

    def set(self, word: str, value: int) -> None:
        """A word is a number, where the kernel reads one of that name."""
        if word in self.names:
            self.words[self.names[word]] = value

    def table(self, word: str, kind: str, number_: int = 0) -> None:
        """A word is the address of one of the geometry's tables."""
        if word in self.names:
            self.tables.append((self.names[word], kind, number_))

    def buffer(self, name: str, base: str, width: int, offset: int = 0) -> None:
        """A buffer whose rows are `width` elements apart."""
        self.add(f"base:{name}", base, offset)
        self.set(f"ld:{name}", width)

    def reads(self, buffer: str) -> bool:
        """Whether the kernel reads or writes a buffer."""
        return f"base:{buffer}" in self.names

    def room(self, elements: int) -> int:
        """The place of so many elements in the call's workspace."""
        start = self.workspace
        self.workspace += -(-elements // ALIGNED) * ALIGNED
        return start

    def state_tables(self, name: str, *, ring: bool = False) -> None:
        """The tables of where a state's values of now and of earlier steps lie."""
        for ago in range(self.kernels.depth + 1):
            self.table(f"at:{name}:{ago or 'new'}", "ring" if ring else "slots", ago)

    def state_buffer(self, kind: str, name: str, base: str, width: int, offset: int = 0) -> None:
        """The buffer of a state, by each of the names under which its steps are read."""
        for ago in range(self.kernels.depth + 1):
            self.buffer(f"{kind}:{name}:{ago or 'new'}", base, width, offset)

    # What every kernel reads.

    def _fixed(self) -> None:
        self.set("barrier", threads.barrier_address())
        self.set("pack", 1)
        self.table("alive", "alive")
        self.table("at:packed", "packed")

    def _base_of(self, source: Source) -> str:
        if not source.tensors:
            return ZEROS
        name = "+".join(map(str, source.tensors))
        if len(source.tensors) > 1:
            self.sums.add(name)
        return name

    def _weights(self) -> None:
        names = weight_names(self.kernels)
        for i, call in enumerate(self.sized.layout.calls()):
            self.add(f"call:{i}:B", WORKSPACE, self.room(self.sized.packed[i]))
            for j, rectangle in enumerate(call.rectangles):
                source = self.places[names[rectangle.weight]]
                columns = self.shapes[source.tensors[0]][1]
                self.add(f"rectangle:{i}:{j}:W", self._base_of(source), source.row * columns)
                self.set(f"rectangle:{i}:{j}:ldw", columns)

    def _vectors(self) -> None:
        for p in self.kernels.inner.parameters:
            if self.reads(f"vector:{p.name}"):
                source = self.places[p.name]
                units = number(p.dims[0], self.sized.sizes) if p.dims else 1
                width = -(-units // self.sized.lanes) * self.sized.lanes
                if units == width or not p.dims or p.dims[0] == ONE:
                    self.add(f"base:vector:{p.name}", self._base_of(source), source.row)
                else:
                    self._base_of(source)
                    self.filled[p.name] = Filled(p.name, units, width)
                    self.add(f"base:vector:{p.name}", f"filled:{p.name}")

    def _lines(self) -> None:
        """What gathers start from: the biases side by side; in one tensor already, if so."""
        sized, layout = self.sized, self.sized.layout
        self.line: list[tuple[str, int, int]] = []
        self.whole_line = False
        for value, start in layout.starts.items():
            name = layout.program.ops[start].attribute("name")
            slot = layout.slots[value].number
            units = number(layout.sizes[KEPT][slot], sized.sizes)
            self.line.append((name, sized.columns[KEPT][slot], units))
        widths = [
            sized.panel * int(self.words[self.names[f"call:{i}:panels"]])
            for i in range(len(layout.calls()))
        ]
        self.line_width = max([sized.width[KEPT], sized.panel, *widths])
        if not self.line:
            self.add("base:lines", ZEROS)
            return
        first = self.places[self.line[0][0]]
        base = first.row - self.line[0][1]
        exact = sized.exact and len(self.line) == len(layout.sizes[KEPT])
        direct = (
            exact
            and base == 0
            and first.tensors
            and all(
                self.places[name] == Source(first.tensors, column) for name, column, _ in self.line
            )
        )
        self.line.sort(key=lambda part: part[1])
        self.whole_line = exact and all(self.places[name].tensors for name, *_ in self.line)
        if direct:
            self.add("base:lines", self._base_of(first))
            self.line, self.whole_line = [], False
        else:
            for name, *_ in self.line:
                self._base_of(self.places[name])
            self.add("base:lines", LINES)

    # What a call makes of the parameters' tensors.

    def prepared(self, tensors: Sequence[Tensor], live: list) -> dict[str, int]:
        """The addresses of the parameters; what is made for them is put in `live`."""
        addresses = {}
        own = []
        for i, tensor in enumerate(tensors):
            if not tensor.is_contiguous() or tensor.is_neg():
                tensor = tensor.contiguous().resolve_neg()
                live.append(tensor)
            own.append(tensor)
            addresses[str(i)] = tensor.data_ptr()
        made: dict[str, Tensor] = {}
        for name in self.sums:
            one, other = map(int, name.split("+"))
            made[name] = own[one] + own[other]
            addresses[name] = made[name].data_ptr()
        live.extend(made.values())

        def vector(name: str, units: int) -> Tensor:
            source = self.places[name]
            single = len(source.tensors) == 1
            whole = own[source.tensors[0]] if single else made["+".join(map(str, source.tensors))]
            if whole.dim() == 1 and whole.shape[0] == units:
                return whole
            return whole.reshape(-1).narrow(0, source.row, units)

        for name, units, width in self.filled.values():
            copy = own[0].new_zeros(width)
            if self.places[name].tensors:
                copy[:units] = vector(name, units)
            live.append(copy)
            addresses[f"filled:{name}"] = copy.data_ptr()
        if self.whole_line:
            line = torch.cat([vector(name, units) for name, _, units in self.line])
            live.append(line)
            addresses[LINES] = line.data_ptr()
        elif self.line:
            line = own[0].new_zeros(self.line_width)
            for name, column, units in self.line:
                if self.places[name].tensors:
                    line[column : column + units] = vector(name, units)
            live.append(line)
            addresses[LINES] = line.data_ptr()
        if ZEROS in self.bases:
            addresses[ZEROS] = self._zeros.data_ptr()
        return addresses

    @cached_property
    def _zeros(self) -> Tensor:
        """What stands for biases and vectors that there are none of."""
        width = max([self.line_width, *(s[0] if s else 1 for s in self.shapes)])
        dtype = torch.float32 if self.bytes == 4 else torch.float64
        return torch.zeros(width + self.sized.panel, dtype=dtype, device="cpu")


def weight_names(kernels: Kernels) -> dict[int, str]:
    """By node of the inner step, the names of its parameters."""
    return {
        i: n.attribute("name") for i, n in enumerate(kernels.inner.nodes) if n.op == "parameter"
    }
