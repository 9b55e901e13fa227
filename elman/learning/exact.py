"""The exact carry: M for every weight, moved on by the reverse basis of the last state.

A window of T steps gives A = ∂s_T/∂s₀ and ∂s_T/∂θ|s₀ by one walk back over time for all unit
cotangents of s_T at once; then M ← A M + ∂s_T/∂θ|s₀ is one product. The walk yields pairs (ā, v)
for every product a = W v, and ∂s_T/∂W = Σ_t ā_t v_tᵀ contracts time in one product too.

Source: Schmidhuber 1992, "A fixed size storage O(n³) time complexity learning algorithm for fully
recurrent continually running networks" (windows of backpropagation with the influence carried).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from elman.backends.cpu import influence as kernel
from elman.backends.cpu import memory
from elman.equation.graph import Graph
from elman.equation.sizes import shape_of
from elman.learning import one_stage
from elman.learning.chain import Chain, Place, Seen, Window, flat_rows
from elman.learning.sweep import Pulled, Values, pull, values_from

# The cotangents of so many entries, over the steps of a part of the window, are held at once; or
# of as many as M has, where that is more.
MOST = 1 << 24


class Exact:
    """Carries M = ∂s/∂θ itself.

    The influence has one tensor for each place with trained weights, (batch, rows, columns): the
    rows are the entries of the states of that place and of those above it (no weight reaches a
    state below its own), the columns are the place's weights, in the order of `Place.weights`.
    """

    by_layer = False

    def shapes(self, chain: Chain, batch: int) -> list[tuple[int, ...]]:
        return [(batch, chain.rows - p.first, p.columns) for p in chain.places if p.weights]

    def bytes(self, chain: Chain, batch: int) -> int:
        entries = sum(math.prod(shape) for shape in self.shapes(chain, batch))
        return entries * chain.like.element_size()

    def start(self, chain: Chain, batch: int, *, given: bool = False) -> tuple[Tensor, ...]:
        influence = tuple(chain.like.new_zeros(shape) for shape in self.shapes(chain, batch))
        for place, moved in () if given else _held(chain, influence):
            for weight in place.weights:
                if weight.state is not None:
                    _identities(place, weight.state, moved[:, :, weight.columns])
        return influence

    def gradient(
        self, chain: Chain, influence: tuple[Tensor, ...], cotangents: Tensor
    ) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for place, moved in _held(chain, influence):
            own = cotangents[:, place.first :].reshape(-1)
            total = torch.mv(moved.flatten(0, 1).t(), own)
            found += [total[w.columns].view(w.shape) for w in place.weights]
        return found

    def advance(
        self, chain: Chain, influence: tuple[Tensor, ...], window: Window
    ) -> tuple[Tensor, ...]:
        if window.time == 1 and not one_stage.hindrance(chain):
            return one_stage.advance(
                chain, influence, window, lambda: self.start(chain, window.batch)
            )
        sweep = _Sweep(chain, window)
        for start, stop in sweep.segments():
            sweep.back(start, stop)
        jacobian = sweep.jacobian()
        for (place, before), (_, after) in zip(
            _held(chain, influence), _held(chain, sweep.moved), strict=True
        ):
            _add_moved(chain, place, jacobian, before, after)
        return sweep.moved

    def words(self, chain: Chain) -> str:
        reason = one_stage.hindrance(chain)
        if not reason:
            return (
                "The influence moves on by one product a step at windows of one step, and by a "
                "basis of cotangents of the last state at longer ones."
            )
        return (
            "The influence moves on by a basis of cotangents of each window's last state, at "
            f"windows of one step too: {reason}."
        )


def _held(chain: Chain, influence: tuple[Tensor, ...]) -> list[tuple[Place, Tensor]]:
    """The places with weights, each with its tensor."""
    return list(zip((p for p in chain.places if p.weights), influence, strict=True))


def _identities(place: Place, state: int, block: Tensor) -> None:
    """∂s/∂(an initial state) at a stream's beginning: the state itself, and lines of it."""
    graph = place.graph
    if graph is None:
        return
    count, name = len(graph.states), graph.states[state].name
    width = block.shape[-1]
    for kept, rows in zip(place.keeps, place.parts, strict=True):
        line = None if kept < count else graph.lines[kept - count]
        if kept == state or (line is not None and line.name == name and line.kind == "state"):
            for start in range(rows.start, rows.stop, width):
                block[:, start : start + width].diagonal(dim1=1, dim2=2).fill_(1)


def _add_moved(chain: Chain, place: Place, jacobian: Tensor, before: Tensor, after: Tensor) -> None:
    """M' += A M for one place: a state depends on those of its own place and below only."""
    above = [p for p in chain.places if p.rows and p.first >= place.first]
    for upper in above:
        rows = slice(upper.first, upper.first + upper.rows)
        block = jacobian[:, rows, place.first : rows.stop]
        local = slice(rows.start - place.first, rows.stop - place.first)
        kernel.moved(block, before[:, : local.stop], 0, after[:, local], add=True)


class _Sweep:
    """The walk of all unit cotangents of the last state, from the window's end to its start."""

    def __init__(self, chain: Chain, window: Window):
        self.chain, self.window = chain, window
        like, batch = chain.like, window.batch
        self.values = [
            None if p.graph is None else values_of(p, v, s, window)
            for p, v, s in zip(chain.places, chain.values, window.seen, strict=True)
        ]
        self.last = [_units(chain, p, batch, like) for p in chain.places]
        self.moved = tuple(
            _zeros(batch, chain.rows - p.first, p.columns, like) for p in chain.places if p.weights
        )
        places = (i for i, p in enumerate(chain.places) if p.weights)
        self.by_place = dict(zip(places, self.moved, strict=True))
        trained = [bool(p.weights) for p in chain.places]
        self.below = [any(trained[:i]) for i in range(len(trained))]

    def segments(self) -> list[tuple[int, int]]:
        """Parts of the window from its end to its start, short enough to hold the cotangents."""
        time, batch, entries, held = self.window.time, self.window.batch, 1, 0
        for place in self.chain.places:
            rows = batch * (self.chain.rows - place.first)
            entries += rows * (_cotangent_widths(place) + place.rows)
            held += rows * place.columns
        steps = max(1, max(MOST, held) // entries)
        stops = range(time, 0, -steps)
        return [(max(0, stop - steps), stop) for stop in stops]

    def back(self, start: int, stop: int) -> None:
        """One part of the window, from the place on top to the lowest."""
        out: Tensor | None = None
        for index in reversed(range(len(self.chain.places))):
            place, values = self.chain.places[index], self.values[index]
            seen = self.window.seen[index]
            if values is None:
                if out is not None and place.weights:
                    look_up_back(self.by_place[index], place, seen.x[start:stop], out)
                return
            out = self._for_all_rows(place, out)
            if out is None and not place.rows:
                continue
            last = self._of_carried(index)
            pulled = pull(values.part(start, stop), out, last, x=self.below[index])
            self.last[index] = tuple(pulled.carried[k] for k in place.keeps)
            if place.weights:
                add_immediate(self.by_place[index], place, pulled)
            out = (
                before_dropout(place, seen, pulled.x, out, start, stop)
                if self.below[index]
                else None
            )

    def _for_all_rows(self, place: Place, out: Tensor | None) -> Tensor | None:
        """The cotangents of a place's output, with zeros for the rows of its own state."""
        if out is None or not place.rows:
            return out
        own = out.new_zeros(*out.shape[:2], place.rows, *out.shape[3:])
        return torch.cat([own, out], 2)

    def _of_carried(self, index: int) -> tuple[Tensor | None, ...] | None:
        """The cotangents of a place's state at hand, in the order of what it carries on."""
        place = self.chain.places[index]
        if place.graph is None or not place.rows:
            return None
        kept = dict(zip(place.keeps, self.last[index], strict=True))
        return tuple(kept.get(i) for i in range(len(place.graph.states) + len(place.graph.lines)))

    def jacobian(self) -> Tensor:
        """A = ∂s_T/∂s₀, (batch, rows, rows)."""
        batch, rows = self.window.batch, self.chain.rows
        result = self.chain.like.new_zeros(batch, rows, rows)
        for place, last in zip(self.chain.places, self.last, strict=True):
            if place.rows:
                columns = slice(place.first, place.first + place.rows)
                result[:, place.first :, columns] = flat_rows(last, 2)
        return result


def _cotangent_widths(place: Place) -> int:
    """How many numbers the cotangents of a step's products have; weights may share theirs."""
    if place.graph is None:
        return place.sizes["width"]
    backward = place.adjoint
    products = {p.cotangent for p in (*backward.products, *backward.bilinear)}
    return sum(shape_of(backward.nodes[i].dims, place.sizes)[0] for i in products)


def values_of(place: Place, given: Mapping[int, Tensor], seen: Seen, window: Window) -> Values:
    """The values of all steps of a window at one place."""
    if place.graph is None:
        raise ValueError("a lookup has no values")
    return values_from(
        place.graph,
        given,
        seen.x,
        seen.start,
        states=seen.states,
        fresh=seen.fresh,
        lengths=window.lengths,
        resets=window.resets,
        extras={**seen.steps, **seen.sequences},
    )


def _units(chain: Chain, place: Place, batch: int, like: Tensor) -> tuple[Tensor, ...]:
    """The unit cotangents of the chain's last state that may reach a place, on its own part."""
    unit = torch.eye(chain.rows - place.first, place.rows, dtype=like.dtype, device=like.device)
    return tuple(
        unit[:, rows].expand(batch, -1, -1).reshape(batch, -1, *shape)
        for rows, shape in zip(place.parts, place.shapes, strict=True)
    )


def _zeros(batch: int, rows: int, columns: int, like: Tensor) -> Tensor:
    """Memory for an influence, which is large and asked for at every window."""
    return _room(batch, rows, columns, like).zero_()


def _room(batch: int, rows: int, columns: int, like: Tensor) -> Tensor:
    """Memory with whatever stands in it; on the CPU blocks that were used before."""
    if like.device.type != "cpu" or like.dtype not in memory.NUMPY:
        return like.new_empty(batch, rows, columns)
    return memory.empty(batch * rows, columns, like.dtype).view(batch, rows, columns)


def add_immediate(moved: Tensor, place: Place, pulled: Pulled) -> None:
    """M' += ∂s_T/∂θ|s₀ for one place and a part of the window."""
    columns = {w.node: w.columns for w in place.weights if w.state is None}
    # Weights that share a cotangent share a product, a bias as if its input were one.
    shared: dict[int, tuple[Tensor, list[tuple[slice, Tensor]]]] = {}
    for pair in pulled.pairs:
        if pair.weight in columns:
            group = shared.setdefault(id(pair.cotangent), (pair.cotangent, []))
            group[1].append((columns[pair.weight], pair.vector))
    for node, summand in pulled.vectors.items():
        if node in columns and id(summand) in shared:
            time, batch = summand.shape[:2]
            ones = summand.new_ones(1, 1, 1).expand(time, batch, 1)
            shared[id(summand)][1].append((columns[node], ones))
        elif node in columns:
            moved[:, :, columns[node]] += summand.sum(0).reshape(*moved.shape[:2], -1)
    for cotangent, parts in shared.values():
        _add_products(moved, cotangent, parts)
    if pulled.fresh is not None and place.graph is not None:
        for weight in place.weights:
            if weight.state is not None:
                block = moved[:, :, weight.columns]
                for part in _of_initial(place.graph, weight.state, pulled.fresh):
                    block += part.reshape(block.shape)


def _add_products(moved: Tensor, cotangent: Tensor, parts: list[tuple[slice, Tensor]]) -> None:
    """Adds Σ_t ā_t v_tᵀ at the columns of each v's weight.

    One product contracts time: (basis·rows, time) by (time, columns of all v), for each row.
    """
    left = cotangent.flatten(2).permute(1, 2, 0)
    right = torch.cat([vector for _, vector in parts], -1).transpose(0, 1)
    made = _room(left.shape[0], left.shape[1], right.shape[2], left)
    torch.bmm(left, right, out=made)
    made = made.view(*moved.shape[:2], cotangent.shape[3], -1)
    start = 0
    for columns, vector in parts:
        width = vector.shape[2]
        target = moved[:, :, columns].unflatten(2, (-1, width))
        target += made[..., start : start + width]
        start += width


def _of_initial(graph: Graph, state: int, fresh: tuple[Tensor, ...]) -> list[Tensor]:
    """What an initial state is after a reset: the state, and lines that hold it many times."""
    lines = zip(graph.lines, fresh[len(graph.states) :], strict=True)
    name = graph.states[state].name
    return [fresh[state], *(v.sum(2) for k, v in lines if k.kind == "state" and k.name == name)]


def before_dropout(
    place: Place, seen: Seen, x: Tensor | None, out: Tensor | None, start: int, stop: int
) -> Tensor | None:
    """The cotangent of what a place is given, before dropout."""
    if x is not None and seen.mask is not None:
        x = x * seen.mask[start:stop].unsqueeze(2)
    if not place.residual or out is None:
        return x
    return out if x is None else x + out


def look_up_back(moved: Tensor, place: Place, indices: Tensor, out: Tensor) -> None:
    """M' of a table: each step adds to the columns of the row that it picked."""
    if place.padding is not None:
        out = torch.where((indices == place.padding)[:, :, None, None], 0.0, out)
    table = moved.view(*moved.shape[:2], place.sizes["rows"], place.sizes["width"])
    for row in range(moved.shape[0]):
        table[row].index_add_(1, indices[:, row], out[:, row].transpose(0, 1))
