"""Where every value of a backward lies.

Cotangents of products stand side by side, so that each sum of products reads neighbours. What
leaves the step goes where the step before it, the gradients or the caller read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from elman.backends.cpu.layout import (
    COTANGENTS,
    KEPT,
    SCRATCH,
    SUMS,
    Call,
    Layout,
    Rectangle,
    Slot,
    Store,
    last_read,
    place_leaves,
    place_scratch,
    place_store,
    read_by,
    with_loop,
)
from elman.equation.lowering import LEAF_OPS
from elman.equation.schedule import Loop, Products, Program, Root


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
    place_leaves(layout, kept)
    _place_cotangents(layout)
    for index, op in enumerate(program.ops):
        if op.op == "state_cotangent" and op.attribute("name") in planes:
            layout.slots[index] = Slot(f"plane:{op.attribute('name')}:new")
    _place_roots(layout, planes)
    for root in program.roots:
        if root.role[0] == "vector":
            slot = layout.new_slot(SUMS, root.size)
            place_store(layout, Store(root.value, slot, root.size, True))
    place_scratch(layout)
    for value, gather in program.gathers.items():
        start = gather.start
        if start is not None and layout.slots[value].buffer == SCRATCH:
            place_store(layout, Store(start, layout.slots[value], program.ops[value].size))
    layout.after = [c for v in program.after for c in _backward_calls(layout, v)]
    for place, item in enumerate(program.items):
        if isinstance(item, Products):
            layout.products[place] = [c for v in item.gathers for c in _backward_calls(layout, v)]
    return layout


def _place_roots(layout: Layout, planes: set[str]) -> None:
    """Places of the cotangents that leave the step, but for those of products and vectors."""
    program = layout.program
    own, late = [], []
    for root in program.roots:
        if root.role[0] in ("cotangent", "vector"):
            continue
        slot, adds = _root_slot(root.role, planes)
        gather = program.gathers.get(root.value)
        if adds:
            own.append(Store(root.value, slot, root.size, True))
        elif _conflict(layout, root, slot):
            late.append(Store(root.value, slot, root.size))
        elif gather is not None and root.value not in layout.slots:
            layout.slots[root.value] = slot
            if gather.start is not None:
                place_store(layout, Store(gather.start, slot, root.size))
        else:
            own.append(Store(root.value, slot, root.size))
    _late(layout, late)
    for store in own:
        place_store(layout, store)


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


def _conflict(layout: Layout, root: Root, slot: Slot) -> bool:
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
            return last_read(program, index) > made
    return False


def _late(layout: Layout, late: list[Store]) -> None:
    """Stores that wait for the end of the step: one more loop for each."""
    for store in late:
        place = len(layout.program.items)
        layout.program = with_loop(layout.program, Loop(store.size, (), ()))
        layout.stores.setdefault(place, []).append(store)


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
        read = read_by(layout.program, item) | {s.value for s in layout.stores.get(place, ())}
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
    return replace(program, items=(*first, *program.items))


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
        place_store(layout, Store(value, slot, wanted[value]))
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
