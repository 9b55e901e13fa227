"""A step without time over many rows that come in pieces, as the levels of a tree do.

All pieces share one memory, so that weights are packed once, and the weights' gradients are one
product over all rows when every piece has gone back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from elman.backends.cpu import threads, turn
from elman.backends.cpu.geometry import Geometry, whole
from elman.backends.cpu.kernel import ELEMENTS, kernels_of
from elman.backends.cpu.layout import COTANGENTS, KEPT, SCRATCH, SUMS
from elman.backends.cpu.machine import host
from elman.backends.cpu.memory import empty
from elman.backends.cpu.plan import WORKSPACE, Plan
from elman.backends.cpu.sources import own
from elman.backends.cpu.walk import Given, Planes, Walk, in_vectors, width_of
from elman.backends.cpu.walk_back import _Back, _dual, _filled_width, _input_cotangents
from elman.equation.graph import Graph
from elman.equation.sizes import number

ALONE = 24  # rows that one thread does sooner than another wakes up


def serves(graph: Graph) -> bool:
    """Whether rows of a step can be computed in pieces: nothing in it reads the time, is worked out
    of parameters alone, or has more than one axis."""
    kernels = kernels_of(graph)
    return (
        not kernels.schedule.split.outer
        and not graph.lines
        and kernels.depth == 1
        and all(i.varies == "step" for i in graph.inputs)
        and all(len(s.dims) == 1 for s in graph.states)
    )


def panel_of(dtype: torch.dtype) -> int:
    """The numbers that rows of a state's memory are filled up to a multiple of."""
    return 2 * host().lanes(ELEMENTS[dtype])


@lru_cache(1024)
def _rows(count: int) -> Geometry:
    return whole(1, count)


class Pieces:
    """One step over rows in pieces, forwards and back.

    The states that the step makes go into memory that is given, so that several steps may share it.

    Args:
        graph: a step that `serves`; it reads no old state.
        sizes: the number of every size.
        parameters: tensors by name, those of the step among them.
        inputs: those that are there for all rows already, (rows, size), by name; the others have
            memory of their own in `steps`, to be filled before a piece is run.
        rows: of all pieces.
        largest: rows of the largest piece.
        states: memory for each state by name, `place` giving its row of the first of ours.
        place: see above.

    Attributes:
        steps: the memory of the inputs by name, (rows, size filled up to whole vectors).
    """

    def __init__(
        self,
        graph: Graph,
        sizes: Mapping[str, int],
        parameters: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        rows: int,
        largest: int,
        states: Mapping[str, Tensor],
        place: int = 0,
    ):
        self.graph, self.names = graph, tuple(p.name for p in graph.parameters)
        self.rows, self.largest, self.states, self.place = rows, largest, states, place
        like = next(iter(states.values()))
        tensors = own({name: parameters[name] for name in self.names})
        shapes = tuple(tuple(t.shape) for t in tensors.tensors)
        self.walk = Walk(
            kernels_of(graph), sizes, _rows(1), False, tensors.places, shapes, like.dtype
        )
        self.bytes = like.dtype.itemsize
        self.steps = {}
        plan = self.walk.plan("training")
        for i in graph.inputs:
            if i.name in inputs:
                self.steps[i.name] = in_vectors(plan, inputs[i.name], i.dims)
            else:
                self.steps[i.name] = like.new_zeros(rows, _filled_width(plan, i.dims))
        self.given = Given(tensors, self.steps, {}, {})
        self.live: list = []
        self.kept = empty(
            rows if self.walk.kernels.kept else largest, plan.sized.width[KEPT], like.dtype
        )
        self.output = like.new_empty(
            rows if plan.reads("output") else 0, width_of(plan, graph.nodes[graph.output].dims)
        )
        self._bound: dict[tuple[str, int], _Bound] = {}
        self._workspaces: dict[str, Tensor] = {}
        self._back: _Way | None = None

    def run(self, first: int, end: int) -> None:
        """Compute the states of the rows from `first` to `end`."""
        self._run("training", first, end)

    def _run(self, kind: str, first: int, end: int) -> None:
        count = 1 if end - first < ALONE else torch.get_num_threads()
        key = kind, count
        if key not in self._bound:
            self._bound[key] = self._bind(kind, count)
        bound = self._bound[key]
        words = bound.words(first, end)  # which must live until the call is over
        threads.run(bound.plan.sized.address, words.ctypes.data, bound.plan.count)

    def _bind(self, kind: str, count: int) -> _Bound:
        walk = self.walk._replace(geometry=_rows(count))
        if kind == "training":
            plan, rows, changed = walk.plan(kind), self._addresses(), {}
        else:
            assert self._back is not None
            plan = walk.known("backward", (), lambda n: _Back(walk, (), n))
            rows, changed = self._addresses() | self._back.addresses, self._back.changed
        fixed = plan.prepared(self.given.parameters.tensors, self.live)
        begun = kind in self._workspaces
        if not begun:
            space = empty(1, plan.workspace + 1, self.kept.dtype)
            # The columns between the packed weights of two slots are never written, but multiplied.
            self._workspaces[kind] = space if plan.sized.exact else space.zero_()
        scratch = empty(1, (self.largest + count) * plan.sized.width[SCRATCH] + 1, self.kept.dtype)
        self.live.append(scratch)
        fixed |= {WORKSPACE: self._workspaces[kind].data_ptr(), SCRATCH: scratch.data_ptr()}
        return _Bound(plan, fixed, rows, self.place, changed, packed=begun)

    def _addresses(self) -> dict[str, tuple[int, int, bool]]:
        """Where rows lie: the address of the first, bytes from row to row, whether it is a state's
        plane."""

        def at(memory: Tensor, moves: bool = True) -> tuple[int, int, bool]:
            return memory.data_ptr(), moves * memory.stride(0) * self.bytes, False

        found = {f"step:{name}": at(memory) for name, memory in self.steps.items()}
        found[KEPT] = at(self.kept, bool(self.walk.kernels.kept))
        found["output"] = at(self.output)
        for name, memory in self.states.items():
            found[f"state:{name}"] = memory.data_ptr(), memory.stride(0) * self.bytes, True
        return found

    # Back.

    def begin_back(self, owed: Mapping[str, Tensor], wanted: Sequence[str]) -> None:
        """Get ready to go back.

        Args:
            owed: the cotangents of the states by name, in memory like that of the states, in which
                a piece finds what it goes back from, and which it may write over.
            wanted: the inputs whose cotangents are asked for; they will stand in `cotangents`.
        """
        walk = self.walk._replace(geometry=_rows(torch.get_num_threads()))
        plan = walk.known("backward", (), lambda n: _Back(walk, (), n))
        self._back = way = _Way(self, plan, owed, wanted)
        self.cotangents = {
            name.removeprefix("cotangent:"): memory for name, memory in way.made.items()
        }
        self._bound = {key: bound for key, bound in self._bound.items() if key[0] == "training"}

    def back(self, first: int, end: int) -> None:
        """Go back over the rows from `first` to `end`."""
        self._run("backward", first, end)

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the parameters by name, when all pieces have gone back."""
        assert self._back is not None
        found = self._back.gradients()
        return {n: g for n, g in zip(self.names, found, strict=True) if g is not None}


class _Bound:
    """A kernel with everything filled in but where its rows begin and how many there are."""

    def __init__(
        self,
        plan: Plan,
        fixed: Mapping[str, int],
        rows: Mapping[str, tuple[int, int, bool]],
        place: int,
        changed: Mapping[int, int],
        packed: bool,
    ):
        self.plan, self.changed = plan, changed
        self.packed = packed
        bases = [rows[name] if name in rows else (fixed[name], 0, False) for name in plan.bases]
        start, apart, plane = (np.array(c, np.int64) for c in zip(*bases, strict=True))
        # A plane begins with what the states begin with, as many rows as there are, unread here.
        self.start, self.apart = start + place * apart * plane, apart
        self.before = apart * plane

    def words(self, first: int, end: int) -> np.ndarray:
        """The block of words for some rows."""
        plan = self.plan
        bases = self.start + first * self.apart - (end - first) * self.before
        words = plan.fill_at(_rows(end - first), bases)
        for word, value in self.changed.items():
            words[word] = value
        if self.packed and "pack" in plan.names:
            words[plan.names["pack"]] = 0
        self.packed = True
        return words


class _Way:
    """The memory of a way back."""

    def __init__(self, pieces: Pieces, plan: _Back, owed: Mapping[str, Tensor], wanted):
        self.pieces, self.plan, self.live = pieces, plan, []
        self.geometry = _rows(pieces.rows)
        like, dtype = pieces.kept, pieces.kept.dtype
        self.dual = _room(plan, self.geometry, dtype)
        width = plan.sized.width[SUMS]
        self.sums = like.new_zeros(plan.count * width + 1)
        graph = pieces.graph
        none = like.new_zeros(pieces.largest, _filled_width(plan, graph.nodes[graph.output].dims))
        self.live.append(none)
        addresses: dict[str, int] = {}
        self.made, self.changed = _input_cotangents(plan, self.geometry, wanted, like, addresses)
        if plan.reads(COTANGENTS):
            self.changed[plan.names[f"ld:{COTANGENTS}"]] = self.dual.stride(0)
        size = pieces.bytes
        self.addresses: dict[str, tuple[int, int, bool]] = {
            COTANGENTS: (self.dual.data_ptr(), self.dual.stride(0) * size, False),
            SUMS: (self.sums.data_ptr(), 0, False),
            "output:cotangent": (none.data_ptr(), 0, False),
        }
        for name, address in addresses.items():
            apart = self.made[name].stride(0) * size if name in self.made else 0
            self.addresses[name] = address, apart, False
        for name, memory in owed.items():
            apart = memory.stride(0) * size
            self.addresses[f"carry:{name}"] = (
                memory.data_ptr() + pieces.place * apart, apart, False
            )  # fmt: skip

    def gradients(self) -> list[Tensor | None]:
        """Of each parameter's tensor."""
        pieces, weights = self.pieces, self.plan.weights
        planes = Planes(dict(pieces.states), None, pieces.kept)
        grown, jobs = weights.begun(
            self.geometry, pieces.given, planes, self.dual, self.made, self.live
        )
        if jobs:
            count = torch.get_num_threads()
            turn.run([weights.products.stage(jobs, count, self.live)], count)
        return weights.gradients(grown, self.sums)


def _room(plan: Plan, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """Memory for the cotangents of products; zero only where whole vectors leave columns free."""
    sized = plan.sized
    filled = all(
        -(-number(size, sized.sizes) // sized.lanes) * sized.lanes == sized.padded(size)
        for size in sized.layout.sizes.get(COTANGENTS, ())
    )
    if filled:
        return empty(geometry.total, max(sized.width[COTANGENTS], 1), dtype)
    return _dual(plan, geometry, dtype)
