"""Where every value of a program lies in memory, and which products are one call of the tile.

A value that several items of a step read, or that leaves the step, has a slot: a run of columns in
a buffer. Slots of products that read the same vector stand side by side, so that they are one
product of a merged matrix. What the forward saves takes the slots of the gathers it was made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from elman.equation.lowering import GATHER, LEAF_OPS
from elman.equation.schedule import Loop, Products, Program

KEPT, COTANGENTS, SCRATCH, LINES, SUMS = "kept", "cotangents", "scratch", "lines", "sums"


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
        sizes = self.sizes.setdefault(buffer, [])
        sizes.append(size)
        return Slot(buffer, len(sizes) - 1)


def leaf_slot(op, kept: Mapping[int, Slot]) -> Slot | None:
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


# The forward.


def forward_layout(program: Program) -> tuple[Layout, dict[int, Slot]]:
    """Places of a forward program; and, by node, where the backward finds what was saved."""
    layout = Layout(program)
    _leaves(layout, {})
    gathers = _in_order(program)
    for value in gathers:
        layout.slots[value] = layout.new_slot(KEPT, program.ops[value].size)
        start = program.gathers[value].start
        if start is not None:
            layout.starts[value] = start
    kept = _saved(layout)
    outer = [(r, _outside(r.role)) for r in program.roots if r.role[0] != "saved"]
    _roots(layout, outer)
    _scratch(layout)
    hoisted = set(program.before)
    layout.before = _forward_calls(layout, gathers, hoisted, hoisted=True)
    for place, item in enumerate(program.items):
        if isinstance(item, Products):
            here = [v for v in gathers if v in item.gathers]
            layout.products[place] = _forward_calls(layout, here, hoisted, hoisted=False)
    return layout, kept


def _outside(role: tuple) -> Slot:
    return Slot("output") if role[0] == "out" else Slot(f"state:{role[1]}:new")


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
    free = dict(layout.slots)
    saved = [r for r in program.roots if r.role[0] == "saved"]
    for root in saved:
        free.pop(root.value, None)
    for root in saved:
        value = root.value
        if program.ops[value].op in LEAF_OPS or value not in layout.slots:
            place = program.place(value)
            slot = next(
                (
                    slot for v, slot in free.items()
                    if program.ops[v].op == GATHER and program.ops[v].size == root.size
                    and value not in layout.program.gathers
                    and _last_read(program, v) <= place
                    and program.ops[value].op not in LEAF_OPS
                ),
                None,
            )  # fmt: skip
            if slot is None:
                slot = layout.new_slot(KEPT, root.size)
            free = {v: s for v, s in free.items() if s != slot}
            _store(layout, Store(value, slot, root.size))
            if program.ops[value].op not in LEAF_OPS:
                layout.slots.setdefault(value, slot)
        kept[root.role[1]] = layout.slots.get(value) or slot
        if program.ops[value].op in LEAF_OPS:
            kept[root.role[1]] = slot
    return kept


def _last_read(program: Program, value: int) -> int:
    """The last place where a value is read."""
    last = -1
    for place, item in enumerate(program.items):
        read = _read_by(program, item)
        if value in read:
            last = place
    for root in program.roots:
        if root.value == value and root.role[0] != "saved":
            last = len(program.items)
    return last


def _read_by(program: Program, item: Loop | Products) -> set[int]:
    if isinstance(item, Products):
        return {a for g in item.gathers for a in program.ops[g].args}
    operands = {a for v in item.values for a in program.ops[v].args}
    return operands | {program.ops[r].args[0] for r in item.reductions}


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
    # The same vector may meet one destination twice; then the second is a call of its own.
    order = {id(part): i for i, part in enumerate(parts)}
    for vector in vectors:
        mine = [part for part in parts if part[0] == vector]
        while mine:
            once: dict[int, tuple] = {}
            for part in mine:
                once.setdefault(part[1], part)
            mine = [part for part in mine if once[part[1]] is not part]
            for run in _runs(layout, list(once.values())):
                calls.append((min(order[id(p)] for p in run), _forward_call(layout, run)))
    return _after_starts(calls)


def _after_starts(calls: list[tuple[int, Call]]) -> list[Call]:
    """Calls that begin a destination before those that add to it."""
    return [call for _, call in sorted(calls, key=lambda each: each[1].accumulate)]


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


# The backward.


def backward_layout(
    program: Program, kept: Mapping[int, Slot], planes: Iterable[str] = ()
) -> Layout:
    """Places of a backward program.

    Args:
        program: the steps.
        kept: by node, where the forward's layout put what it saved.
        planes: the states whose cotangents are kept for every step.
    """
    layout, planes = Layout(_with_first_loops(program)), set(planes)
    program = layout.program
    _leaves(layout, kept)
    _place_cotangents(layout)
    named = [r for r in program.roots if r.role[0] not in ("cotangent", "vector")]
    for op_index, op in enumerate(program.ops):
        if op.op == "state_cotangent" and op.attribute("name") in planes:
            layout.slots[op_index] = Slot(f"plane:{op.attribute('name')}:new")
    own, late = [], []
    for root in named:
        slot, adds = _root_slot(root.role, planes)
        gather = program.gathers.get(root.value)
        if adds:
            own.append((root, slot, True))
        elif (
            gather is not None
            and root.value not in layout.slots
            and (not _conflict(layout, root, slot))
        ):
            layout.slots[root.value] = slot
            if gather.start is not None:
                _store(layout, Store(gather.start, slot, root.size))
        elif _conflict(layout, root, slot):
            late.append((root, slot))
        else:
            own.append((root, slot, False))
    _late(layout, late)
    for root, slot, adds in own:
        _store(layout, Store(root.value, slot, root.size, adds))
    for root in program.roots:
        if root.role[0] == "vector":
            slot = layout.new_slot(SUMS, root.size)
            _store(layout, Store(root.value, slot, root.size, True))
    _scratch(layout)
    for value, gather in program.gathers.items():
        start = gather.start
        if start is not None and layout.slots[value].buffer == SCRATCH:
            _store(layout, Store(start, layout.slots[value], program.ops[value].size))
    layout.after = [c for v in program.after for c in _backward_calls(layout, v)]
    for place, item in enumerate(program.items):
        if isinstance(item, Products):
            layout.products[place] = [c for v in item.gathers for c in _backward_calls(layout, v)]
    return layout


def _root_slot(role: tuple, planes: set[str]) -> tuple[Slot, bool]:
    """Where a cotangent that leaves the step goes, and whether it is added to what is there."""
    if role[0] == "carry":
        plane = role[1] in planes
        return (Slot(f"plane:{role[1]}:1"), True) if plane else (Slot(f"carry:{role[1]}"), False)
    if role[0] == "delayed":
        return Slot(f"plane:{role[1]}:{role[2]}"), True
    if role[0] == "sequence":
        return Slot(f"rows:{role[1]}"), True
    return Slot(f"{'factor' if role[0] == 'factor' else 'cotangent'}:{role[1]}"), False


def _conflict(layout: Layout, root, slot: Slot) -> bool:
    """Whether the place of a root holds something that is still read when the root is made."""
    if not slot.buffer.startswith("carry:"):
        return False
    program = layout.program
    made = program.place(root.value)
    gather = program.gathers.get(root.value)
    if gather is not None and gather.start is not None:
        made = program.place(gather.start)
    made = max(made, 0)
    for index, op in enumerate(program.ops):
        if op.op == "state_cotangent" and f"carry:{op.attribute('name')}" == slot.buffer:
            return _last_read(program, index) > made
    return False


def _late(layout: Layout, late: list[tuple]) -> None:
    """Roots that wait for the end of the step: one more loop copies each to its place."""
    for root, slot in late:
        place = len(layout.program.items)
        layout.program = _with_loop(layout.program, Loop(root.size, (), ()))
        layout.stores.setdefault(place, []).append(Store(root.value, slot, root.size))


def _with_loop(program: Program, loop: Loop) -> Program:
    return Program(
        program.ops, program.gathers, program.before, (*program.items, loop), program.after,
        program.roots,
    )  # fmt: skip


def in_place(layout: Layout) -> bool:
    """Whether the cotangents of products may be written over what the forward kept: each slot has
    its like there, which nothing reads any more when it is written."""
    kept, own = layout.sizes.get(KEPT, []), layout.sizes.get(COTANGENTS, [])
    if kept[: len(own)] != own:
        return False
    written = {
        s.slot.number: place
        for place, stores in layout.stores.items() for s in stores if s.slot.buffer == COTANGENTS
    }  # fmt: skip
    for place, item in enumerate(layout.program.items):
        read = _read_by(layout.program, item) | {s.value for s in layout.stores.get(place, ())}
        for value in read:
            slot = layout.slots.get(value)
            if slot is not None and slot.buffer == KEPT and place > written.get(slot.number, place):
                return False
    return True


def _with_first_loops(program: Program) -> Program:
    """A loop at the start for what must be written before the first product and is a leaf."""
    leaves = {
        r.size: None for r in program.roots
        if r.role[0] == "cotangent" and program.ops[r.value].op in LEAF_OPS
    }  # fmt: skip
    for gather_value, gather in program.gathers.items():
        if gather.start is not None and program.ops[gather.start].op in LEAF_OPS:
            leaves[program.ops[gather_value].size] = None
    for item in program.items:
        if isinstance(item, Products):
            break
        leaves.pop(item.size, None)
    first = tuple(Loop(size, (), ()) for size in leaves)
    return Program(
        program.ops, program.gathers, program.before, (*first, *program.items), program.after,
        program.roots,
    )  # fmt: skip


def _place_cotangents(layout: Layout) -> None:
    """Slots for the cotangents of products, so that each gather reads neighbours."""
    program = layout.program
    wanted = {r.value: r.size for r in program.roots if r.role[0] == "cotangent"}
    readers: dict[int, list[int]] = {value: [] for value in wanted}
    for number, gather in enumerate(program.gathers.values()):
        for term in gather.terms:
            if term.vector in readers:
                readers[term.vector].append(number)

    def key(value: int) -> tuple:
        read = readers[value] or [len(program.gathers)]
        return min(read), max(read), value

    for value in sorted(wanted, key=key):
        slot = layout.new_slot(COTANGENTS, wanted[value])
        if program.ops[value].op not in LEAF_OPS:
            layout.slots[value] = slot
        _store(layout, Store(value, slot, wanted[value]))
        layout.cotangents[value] = slot


def _backward_calls(layout: Layout, value: int) -> list[Call]:
    """The products of one gather, the sources cut into runs of neighbours."""
    program = layout.program
    gather, target = program.gathers[value], layout.slots[value]
    at = layout.cotangents
    terms = sorted(gather.terms, key=lambda t: at[t.vector])
    runs: list[list] = []
    for term in terms:
        last = runs[-1][-1] if runs else None
        if last is not None and at[term.vector].number == at[last.vector].number + 1:
            runs[-1].append(term)
        else:
            runs.append([term])
    calls = []
    for i, run in enumerate(runs):
        calls.append(
            Call(
                tuple(at[t.vector] for t in run),
                tuple(program.ops[t.vector].size for t in run),
                (target,),
                (program.ops[value].size,),
                bool(i) or gather.start is not None,
                tuple(Rectangle(t.weight, True, 0, j) for j, t in enumerate(run)),
            )
        )
    return calls


# Both.


def _leaves(layout: Layout, kept: Mapping[int, Slot]) -> None:
    for index, op in enumerate(layout.program.ops):
        if op.op in LEAF_OPS:
            slot = leaf_slot(op, kept)
            if slot is not None:
                layout.slots[index] = slot


def _roots(layout: Layout, roots: Iterable[tuple]) -> None:
    for root, slot in roots:
        _store(layout, Store(root.value, slot, root.size))
        if layout.program.ops[root.value].op not in (*LEAF_OPS, GATHER):
            layout.slots.setdefault(root.value, slot)


def _store(layout: Layout, store: Store) -> None:
    """Put a store where its value is made, or where a loop of its size first can read it."""
    program = layout.program
    made = program.place(store.value)
    for place, item in enumerate(program.items):
        if isinstance(item, Loop) and place >= made and item.size == store.size:
            if place > made or store.value in item.values or made < 0:
                layout.stores.setdefault(place, []).append(store)
                return
    place = len(program.items)
    layout.program = _with_loop(program, Loop(store.size, (), ()))
    layout.stores.setdefault(place, []).append(store)


def _scratch(layout: Layout) -> None:
    """A slot of scratch for every value that a later item reads and that has none."""
    program = layout.program
    for place, item in enumerate(program.items):
        read = _read_by(program, item) | {s.value for s in layout.stores.get(place, ())}
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


__all__ = [
    "COTANGENTS", "KEPT", "LINES", "SCRATCH", "SUMS", "Call", "Layout", "Rectangle", "Slot",
    "Store", "backward_layout", "forward_layout",
]  # fmt: skip
