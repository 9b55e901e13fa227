"""Where every value of a program lies in memory, and which products are one call of the tile.

A value that several items of a step read, or that leaves the step, has a slot: a run of columns in
a buffer. Slots of products that read the same vector stand side by side, so that they are one
product of a merged matrix. What the forward saves takes the slots of the gathers it was made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from elman.equation.lowering import GATHER, LEAF_OPS, Op
from elman.equation.schedule import Loop, Products, Program, Root

KEPT, COTANGENTS, SCRATCH, SUMS = "kept", "cotangents", "scratch", "sums"


class Slot(NamedTuple):
    """A run of columns: the buffer, and its number there (0 where the buffer is one slot)."""

    buffer: str
    number: int = 0


class Store(NamedTuple):
    """A value that an item writes: to a slot, over what is there or added to it."""

    value: int
    slot: Slot
    size: str
    add: bool = False


class Rectangle(NamedTuple):
    """A weight in a packed matrix: its node, which destination and which source it joins."""

    weight: int
    transposed: bool
    column: int
    line: int


class Call(NamedTuple):
    """One product: sources side by side times a packed matrix, into destinations side by side."""

    sources: tuple[Slot, ...]
    source_sizes: tuple[str, ...]
    targets: tuple[Slot, ...]
    target_sizes: tuple[str, ...]
    accumulate: bool
    rectangles: tuple[Rectangle, ...]


@dataclass
class Layout:
    """Places of a program's values.

    Attributes:
        program: the steps.
        slots: of each value that has one.
        sizes: of the slots of the buffers that are ours: `kept`, `cotangents`, `scratch`, `sums`.
        before, after: the products over many steps at once.
        products: those of each item that is `Products`, by its place.
        stores: what each loop writes, by its place.
        starts: for each gather in `kept` that starts from a vector, the vector's value.
        cotangents: for the cotangents of products, by value, where the products read them.
    """

    program: Program
    slots: dict[int, Slot] = field(default_factory=dict)
    sizes: dict[str, list[str]] = field(default_factory=dict)
    before: list[Call] = field(default_factory=list)
    after: list[Call] = field(default_factory=list)
    products: dict[int, list[Call]] = field(default_factory=dict)
    stores: dict[int, list[Store]] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    cotangents: dict[int, Slot] = field(default_factory=dict)

    def calls(self) -> list[Call]:
        """Every product, in a fixed order."""
        walked = [call for place in sorted(self.products) for call in self.products[place]]
        return [*self.before, *walked, *self.after]

    def new_slot(self, buffer: str, size: str) -> Slot:
        """One more slot of a buffer that is ours."""
        sizes = self.sizes.setdefault(buffer, [])
        sizes.append(size)
        return Slot(buffer, len(sizes) - 1)


def _leaf_slot(op: Op, kept: Mapping[int, Slot]) -> Slot | None:
    """Where a leaf is read; None for a number."""
    name = dict(op.attributes).get("name")
    if op.op == "forward":
        attributes = dict(op.attributes)
        if "node" in attributes:
            return kept[attributes["node"]]
        return Slot(f"state:{attributes['state']}:new")
    if op.op == "delayed":
        return Slot(f"state:{name}:{op.attribute('steps')}")
    named = {
        "vector": f"vector:{name}", "step": f"step:{name}", "sequence": f"sequence:{name}",
        "state": f"state:{name}:1", "output_cotangent": "output:cotangent",
        "state_cotangent": f"carry:{name}",
    }  # fmt: skip
    return Slot(named[op.op]) if op.op in named else None


# Either way.


def place_leaves(layout: Layout, kept: Mapping[int, Slot]) -> None:
    """The places of what a step reads and does not make."""
    for index, op in enumerate(layout.program.ops):
        if op.op in LEAF_OPS:
            slot = _leaf_slot(op, kept)
            if slot is not None:
                layout.slots[index] = slot


def place_store(layout: Layout, store: Store) -> None:
    """Put a store where its value is made, or where a loop of its size first can read it."""
    program = layout.program
    made = program.place(store.value)
    for place, item in enumerate(program.items):
        if not isinstance(item, Loop) or place < made or item.size != store.size:
            continue
        if place > made or store.value in item.values or made < 0:
            layout.stores.setdefault(place, []).append(store)
            return
    place = len(program.items)
    layout.program = with_loop(program, Loop(store.size, (), ()))
    layout.stores.setdefault(place, []).append(store)


def place_scratch(layout: Layout) -> None:
    """A slot of scratch for every value that a later item reads and that has none."""
    program = layout.program
    for place, item in enumerate(program.items):
        read = read_by(program, item) | {s.value for s in layout.stores.get(place, ())}
        for value in sorted(read):
            op = program.ops[value]
            if op.op in LEAF_OPS or value in layout.slots:
                continue
            made = program.place(value)
            inside = isinstance(item, Loop) and value in item.values
            if made == place and inside:
                continue
            slot = layout.new_slot(SCRATCH, op.size)
            layout.slots[value] = slot
            if op.op != GATHER and op.op not in ("row_sum", "row_max"):
                layout.stores.setdefault(made, []).append(Store(value, slot, op.size))
    for value in program.gathers:
        if value not in layout.slots:
            layout.slots[value] = layout.new_slot(SCRATCH, program.ops[value].size)


def with_loop(program: Program, loop: Loop) -> Program:
    """The program with one more loop at the end of the step."""
    return replace(program, items=(*program.items, loop))


def last_read(program: Program, value: int) -> int:
    """The last place where a value is read."""
    last = -1
    for place, item in enumerate(program.items):
        if value in read_by(program, item):
            last = place
    for root in program.roots:
        if root.value == value and root.role[0] != "saved":
            last = len(program.items)
    return last


def read_by(program: Program, item: Loop | Products) -> set[int]:
    """The operands of an item of a step."""
    if isinstance(item, Products):
        return {a for g in item.gathers for a in program.ops[g].args}
    operands = {a for v in item.values for a in program.ops[v].args}
    return operands | {program.ops[r].args[0] for r in item.reductions}


# The forward.


def forward_layout(program: Program, copied: str | None = None) -> tuple[Layout, dict[int, Slot]]:
    """Places of a forward program; and, by node, where the backward finds what was saved.

    `copied` names the state that is the output too, where the output is to have its own memory.
    """
    layout = Layout(program)
    place_leaves(layout, {})
    gathers = _in_order(program)
    for value in gathers:
        layout.slots[value] = layout.new_slot(KEPT, program.ops[value].size)
        start = program.gathers[value].start
        if start is not None:
            layout.starts[value] = start
    kept = _saved(layout)
    _roots(layout, copied)
    place_scratch(layout)
    hoisted = set(program.before)
    layout.before = _forward_calls(layout, gathers, hoisted, hoisted=True)
    for place, item in enumerate(program.items):
        if isinstance(item, Products):
            here = [v for v in gathers if v in item.gathers]
            layout.products[place] = _forward_calls(layout, here, hoisted, hoisted=False)
    return layout, kept


def _roots(layout: Layout, copied: str | None) -> None:
    """The places of the output and of the new states."""
    for root in layout.program.roots:
        if root.role[0] == "saved":
            continue
        slot = Slot("output" if root.role[0] == "out" else f"state:{root.role[1]}:new")
        place_store(layout, Store(root.value, slot, root.size))
        if root.role == ("state", copied):
            place_store(layout, Store(root.value, Slot("output"), root.size))
        if layout.program.ops[root.value].op not in (*LEAF_OPS, GATHER):
            layout.slots.setdefault(root.value, slot)


def _in_order(program: Program) -> list[int]:
    """The gathers so that those which read the same vector mostly stand side by side."""
    vectors: dict[int, int] = {}
    for gather in program.gathers.values():
        for term in gather.terms:
            vectors.setdefault(term.vector, len(vectors))

    def key(value: int) -> tuple:
        read = [vectors[t.vector] for t in program.gathers[value].terms]
        return min(read), max(read), program.ops[value].size, value

    return sorted(program.gathers, key=key)


def _saved(layout: Layout) -> dict[int, Slot]:
    """Slots for what is saved: a gather's own, one that is free by then, or a new one."""
    program, kept = layout.program, {}
    saved = [r for r in program.roots if r.role[0] == "saved"]
    own = {r.value for r in saved}
    free = {value: slot for value, slot in layout.slots.items() if value not in own}
    for root in saved:
        value, leaf = root.value, program.ops[root.value].op in LEAF_OPS
        slot = None if leaf else layout.slots.get(value)
        if slot is None:
            slot = None if leaf else _free_slot(program, root, free)
            slot = slot or layout.new_slot(KEPT, root.size)
            free = {v: s for v, s in free.items() if s != slot}
            place_store(layout, Store(value, slot, root.size))
            if not leaf:
                layout.slots[value] = slot
        kept[root.role[1]] = slot
    return kept


def _free_slot(program: Program, root: Root, free: Mapping[int, Slot]) -> Slot | None:
    """The slot of a gather that nothing reads any more when a root is made."""
    made = program.place(root.value)
    for value, slot in free.items():
        op = program.ops[value]
        if op.op == GATHER and op.size == root.size and last_read(program, value) <= made:
            return slot
    return None


def _forward_calls(
    layout: Layout, gathers: Sequence[int], hoisted_gathers: set[int], *, hoisted: bool
) -> list[Call]:
    """The products with each vector in turn, the destinations cut into runs of neighbours."""
    program = layout.program
    parts: list[tuple[int, int, int, bool]] = []
    for value in gathers:
        terms = program.gathers[value].terms
        begun = not hoisted and value in hoisted_gathers
        for term in terms:
            outside = program.ops[term.vector].op == "step" and value in hoisted_gathers
            if outside == hoisted:
                parts.append((term.vector, value, term.weight, begun))
                begun = True
    calls = []
    vectors = list(dict.fromkeys(vector for vector, *_ in parts))
    for vector in vectors:
        mine = [part for part in parts if part[0] == vector]
        # It may meet one destination twice; then the second is a call of its own.
        while mine:
            once: dict[int, tuple] = {}
            for part in mine:
                once.setdefault(part[1], part)
            mine = [part for part in mine if once[part[1]] is not part]
            runs = _runs(layout, list(once.values()))
            calls.extend(_forward_call(layout, run) for run in runs)
    # Calls that begin a destination before those that add to it.
    return sorted(calls, key=lambda call: call.accumulate)


def _runs(layout: Layout, parts: list[tuple]) -> list[list[tuple]]:
    """Parts whose destinations are neighbours and begin alike."""
    parts = sorted(parts, key=lambda part: layout.slots[part[1]])
    runs: list[list[tuple]] = []
    for part in parts:
        slot, last = layout.slots[part[1]], runs[-1][-1] if runs else None
        if last is not None:
            before = layout.slots[last[1]]
            if slot == before._replace(number=before.number + 1) and last[3] == part[3]:
                runs[-1].append(part)
                continue
        runs.append([part])
    return runs


def _forward_call(layout: Layout, run: list[tuple]) -> Call:
    ops = layout.program.ops
    vector = run[0][0]
    return Call(
        (layout.slots[vector],),
        (ops[vector].size,),
        tuple(layout.slots[value] for _, value, _, _ in run),
        tuple(ops[value].size for _, value, _, _ in run),
        run[0][3],
        tuple(Rectangle(weight, False, i, 0) for i, (_, _, weight, _) in enumerate(run)),
    )
