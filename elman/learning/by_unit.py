"""An influence kept unit by unit: of each weight what it does to the unit that it belongs to.

Where no state enters a product every unit of a recurrence goes its own way, and ∂s/∂θ is zero
outside this pattern: M has as many entries as there are weights, and is exact. SnAp-1 and RFLO
keep the same pattern where it is an approximation. A step multiplies what is kept of a weight by a
small matrix for each unit, (C_t)_km = ∂s'_k/∂s_m as far as the method sees it, and adds the
immediate influence D_t v_tᵀ, so that over a window

    M' = Λ_0 M + Σ_t (Λ_t D_t) v_tᵀ,   Λ_t = C_T … C_{t+1},

where the sum over time is one product for each weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from elman.equation.graph import Graph
from elman.equation.jacobian import INPUT, Local, local
from elman.errors import InputError
from elman.learning.chain import Chain, Place, Weight, Window
from elman.learning.exact import values_of

EXACT, SNAP1, RFLO = "exact", "snap1", "rflo"


@dataclass(frozen=True)
class Kept:
    """What is kept of one weight: for each state of `states` one entry a unit and column."""

    weight: Weight
    states: tuple[int, ...]
    units: int
    columns: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Without the batch: (states, units, columns); of a single number every unit's entry."""
        return len(self.states), self.units, self.columns

    @property
    def alone(self) -> bool:
        """Whether the weight is a single number that every unit reads."""
        return math.prod(self.weight.shape) == 1 and self.units > 1


def hindrance(place: Place) -> str:
    """Why what a place's weights do cannot be kept unit by unit; "" if it can."""
    graph = place.graph
    if graph is None or not graph.states:
        return "work without a state"
    if place.keeps != tuple(range(len(graph.states))):
        return f"{graph.name}: a delay line is a part of the state"
    made = local(graph)
    if made.hindered:
        return f"{graph.name}: {made.hindered}"
    if len({shape[0] for shape in place.shapes}) > 1:
        return f"{graph.name}: its states differ in size"
    return ""


def serves_exactly(chain: Chain) -> bool:
    """Whether nothing of an exact influence lies outside the pattern."""
    *below, last = chain.places
    if any(place.weights or place.rows for place in below) or hindrance(last):
        return False
    assert last.graph is not None
    return local(last.graph).elementwise


class ByUnit:
    """Carries what each unit's weights do to that unit.

    The influence has one tensor for each weight of each place with a state, (batch, states, units,
    columns): of a matrix its columns, of a vector or a number one, and of the states those that the
    weight reaches. Places without a state have none: of their weights, credit ends with the
    window. Layers of a stack are each treated alone.

    Args:
        method: "exact" (of element-wise recurrences), "snap1" or "rflo".
    """

    def __init__(self, method: str):
        self.method = method
        self.by_layer = method != EXACT

    def check(self, chain: Chain) -> None:
        """Raise InputError where a layer of the chain cannot be served."""
        for place in chain.places:
            reason = hindrance(place) if place.rows else ""
            if reason:
                raise InputError(
                    f"carry={self.method!r} needs layers that are one product stage of inputs and "
                    f"old states; {reason}. Use carry='exact' or carry='uoro', which serve any cell"
                )

    def shapes(self, chain: Chain, batch: int) -> list[tuple[int, ...]]:
        return [(batch, *kept.shape) for _, kept in self._all(chain)]

    def bytes(self, chain: Chain, batch: int) -> int:
        entries = sum(math.prod(shape) for shape in self.shapes(chain, batch))
        return entries * chain.like.element_size()

    def start(self, chain: Chain, batch: int, *, given: bool = False) -> tuple[Tensor, ...]:
        found = []
        for _, kept in self._all(chain):
            moved = chain.like.new_zeros(batch, *kept.shape)
            if kept.weight.state is not None and not given:
                moved[:, kept.states.index(kept.weight.state)] = 1.0
            found.append(moved)
        return tuple(found)

    def gradient(
        self, chain: Chain, influence: tuple[Tensor, ...], cotangents: Tensor
    ) -> list[Tensor | None]:
        held = iter(influence)
        found: list[Tensor | None] = []
        for place in chain.places:
            if not place.rows:
                found += [None] * len(place.weights)
                continue
            own = cotangents[:, place.first : place.first + place.rows]
            own = own.unflatten(1, (-1, place.shapes[0][0]))
            for kept in kept_of(place, self.method):
                total = (own[:, list(kept.states), :, None] * next(held)).sum((0, 1))
                found.append(total.sum().view(kept.weight.shape) if kept.alone
                             else total.reshape(kept.weight.shape))  # fmt: skip
        return found

    def advance(
        self, chain: Chain, influence: tuple[Tensor, ...], window: Window
    ) -> tuple[Tensor, ...]:
        moved: list[Tensor] = []
        for number in range(len(chain.places)):
            moved += self.advance_place(chain, influence, window, number)
        return tuple(moved)

    def of_place(self, chain: Chain, number: int) -> slice:
        """Which tensors of the influence are those of one place's weights."""
        counts = [len(place.weights) if place.rows else 0 for place in chain.places]
        start = sum(counts[:number])
        return slice(start, start + counts[number])

    def advance_place(
        self, chain: Chain, influence: tuple[Tensor, ...], window: Window, number: int
    ) -> tuple[Tensor, ...]:
        """What is kept of one place's weights after a window, of which the places above it need
        not be known yet."""
        place = chain.places[number]
        if not place.rows or not place.weights:
            return ()
        steps = _Steps(chain, window, number, self.method)
        own = influence[self.of_place(chain, number)]
        each = zip(kept_of(place, self.method), own, strict=True)
        return tuple(steps.moved(kept, old) for kept, old in each)

    def words(self, chain: Chain) -> str:
        if self.method == EXACT:
            return (
                "Every unit goes its own way, so the influence takes as many numbers a row as "
                "there are weights, and is exact."
            )
        text = (
            "Of the influence each weight's own unit is kept, moved on by the diagonal of the "
            "Jacobian." if self.method == SNAP1 else
            "Of the influence each weight's own unit is kept, moved on without the recurrent "
            "weights."
        )  # fmt: skip
        if any(place.weights and not place.rows for place in chain.places):
            text += " Of the weights below the first layer with a state no influence is carried."
        return text

    def _all(self, chain: Chain) -> list[tuple[Place, Kept]]:
        return [
            (place, kept)
            for place in chain.places
            if place.rows
            for kept in kept_of(place, self.method)
        ]


def kept_of(place: Place, method: str) -> list[Kept]:
    """What is kept of each weight of a place with a state."""
    assert place.graph is not None
    units = place.shapes[0][0]
    found = []
    for weight in place.weights:
        states = _reached(place.graph, weight.node, weight.state, method)
        columns = math.prod(weight.shape) // units if len(weight.shape) == 2 else 1
        found.append(Kept(weight, states, units, columns))
    return found


@cache
def _reached(graph: Graph, node: int | None, state: int | None, method: str) -> tuple[int, ...]:
    """The states that a weight reaches: at once, and but for SnAp-1 unit by unit later."""
    made = local(graph)
    if state is not None:
        reached = {state}
    else:
        own = [p for p in made.products if graph.nodes[p].args[0] == node]
        reached = {k for k, p in made.onto if p in own}
        reached |= {k for k, i in made.vectors if i == node}
    while method != SNAP1:
        more = {k for k, m in made.carried if m in reached} - reached
        if not more:
            break
        reached |= more
    return tuple(sorted(reached))


class _Steps:
    """One place's local Jacobians at all steps of a window, by unit."""

    def __init__(self, chain: Chain, window: Window, number: int, method: str):
        place, seen = chain.places[number], window.seen[number]
        assert place.graph is not None
        self.place, self.window, self.method = place, window, method
        self.local: Local = local(place.graph)
        self.nodes, self.units = place.graph.nodes, place.shapes[0][0]
        self.like, self.count = chain.like, len(place.shapes)
        values = values_of(place, chain.values[number], seen, window)
        operands = [a for p in self.local.products for a in self.nodes[p].args]
        self.values: Mapping[int, Any] = self.local.values(
            values.nodes[: len(self.nodes)], [*self.local.factors, *operands]
        )
        self.real = self._real()
        self.begun = self._begun()
        self.ways = self._ways()
        self.known: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def _real(self) -> Tensor | None:
        """Which steps are real, (time, batch, 1); None where all are."""
        if self.window.lengths is None:
            return None
        steps = torch.arange(self.window.time, device=self.like.device)
        return (steps[:, None] < self.window.lengths)[:, :, None]

    def _begun(self) -> Tensor | None:
        """Which steps begin a segment, (time, batch, 1); None where none does."""
        if self.window.resets is None:
            return None
        begun = self.window.resets[:, :, None]
        return begun if self.real is None else begun & self.real

    def factor(self, index: int, units: int | None = None) -> Tensor:
        """A factor at every step and row, (time, batch, units)."""
        shape = self.window.time, self.window.batch, units or self.units
        value = self.values[index]
        if not isinstance(value, Tensor):
            return self.like.new_full((1, 1, 1), float(value)).expand(shape)
        return value.to(self.like.dtype).expand(shape)

    def _ways(self) -> Tensor:
        """C, (time, batch, units, new state, old state), as the method sees it."""
        time, batch = self.window.time, self.window.batch
        ways = self.like.new_zeros(time, batch, self.units, self.count, self.count)
        for (k, m), index in self.local.carried.items():
            if m != INPUT:
                ways[..., k, m] += self.factor(index)
        if self.method == SNAP1:
            for (k, product), onto in self.local.onto.items():
                diagonal = self.values[self.nodes[product].args[0]].diagonal()
                for m in self.local.recurrent:
                    into = self.local.into.get((product, m))
                    if into is not None:
                        ways[..., k, m] += self.factor(onto) * diagonal * self.factor(into)
        return ways

    def _path(self, states: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Λ_0 (batch, units, states, states), and Λ_t for each step, time first."""
        if states in self.known:
            return self.known[states]
        ways = self.ways[..., list(states), :][..., list(states)]
        if self.begun is not None:
            ways = torch.where(self.begun[..., None, None], 0.0, ways)
        unit = torch.eye(len(states), dtype=ways.dtype, device=ways.device)
        if self.real is not None:
            ways = torch.where(self.real[..., None, None], ways, unit)
        now = unit.expand(ways.shape[1:])
        path = []
        for way in ways.flip(0).unbind(0):
            path.append(now)
            now = now * way if len(states) == 1 else now @ way
        self.known[states] = now, torch.stack(path[::-1])
        return self.known[states]

    def moved(self, kept: Kept, old: Tensor) -> Tensor:
        """What is kept of one weight, after the window."""
        if kept.alone and self.method == SNAP1 and self.local.recurrent:
            return self._alone(kept, old)
        over, path = self._path(kept.states)
        if len(kept.states) == 1:
            new = over[..., 0, 0][:, None, :, None] * old
        else:
            ways = over.permute(0, 2, 3, 1).unsqueeze(-1)
            new = (ways * old.unsqueeze(1)).sum(2)
        for factors, vector in self._immediate(kept):
            weights = (path @ factors[..., None])[..., 0]
            if self.real is not None:
                weights = torch.where(self.real[..., None], weights, 0.0)
            if vector is None:
                new += weights.sum(0).transpose(1, 2)[..., None]
                continue
            one = weights.permute(1, 3, 2, 0).flatten(1, 2)
            new += torch.bmm(one, vector.transpose(0, 1)).view(new.shape)
        return new

    def _immediate(self, kept: Kept) -> list[tuple[Tensor, Tensor | None]]:
        """For each way from a weight to the states its factors, (time, batch, units, states), and
        the vector that it multiplies, (time, batch, columns)."""
        weight, found = kept.weight, []
        if weight.state is not None:
            if self.begun is not None:
                started = self.ways[..., list(kept.states), weight.state]
                found.append((torch.where(self.begun[..., None], started, 0.0), None))
            return found
        shape = self.window.time, self.window.batch, -1
        for product in self.local.products:
            if self.nodes[product].args[0] == weight.node:
                vector = self.values[self.nodes[product].args[1]]
                factors = self._together([self.local.onto.get((k, product)) for k in kept.states])
                found.append((factors, vector.expand(shape)))
        if any((k, weight.node) in self.local.vectors for k in kept.states):
            indices = [self.local.vectors.get((k, weight.node or 0)) for k in kept.states]
            found.append((self._together(indices), None))
        return found

    def _together(self, indices: Sequence[int | None]) -> Tensor:
        shape = self.window.time, self.window.batch, self.units
        zeros = self.like.new_zeros(1, 1, 1).expand(shape)
        return torch.stack([zeros if i is None else self.factor(i) for i in indices], -1)

    def _alone(self, kept: Kept, old: Tensor) -> Tensor:
        """SnAp-1 of a single number, which reaches every unit at once, so that the whole Jacobian
        moves its column."""
        (factors, _), *_ = self._immediate(kept)
        now = old[..., 0]
        for t in range(self.window.time):
            new = factors[t].transpose(1, 2).clone()
            before = now if self.begun is None else torch.where(self.begun[t][:, None], 0.0, now)
            for row, k in enumerate(kept.states):
                for column, m in enumerate(kept.states):
                    new[:, row] += self._step(t, k, m, before[:, column])
            now = new if self.real is None else torch.where(self.real[t][:, None], new, now)
        return now[..., None]

    def _step(self, t: int, k: int, m: int, tangent: Tensor) -> Tensor:
        """(∂s'_k/∂s_m) times a vector of each row, at one step."""
        total = torch.zeros_like(tangent)
        if (k, m) in self.local.carried:
            total += self.factor(self.local.carried[k, m])[t] * tangent
        for product in self.local.products:
            onto, into = self.local.onto.get((k, product)), self.local.into.get((product, m))
            if onto is not None and into is not None:
                weight = self.values[self.nodes[product].args[0]]
                moved = torch.nn.functional.linear(self.factor(into)[t] * tangent, weight)
                total += self.factor(onto)[t] * moved
        return total
