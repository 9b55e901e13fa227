"""What a kernel is told at a call: numbers and addresses, by name, in one block of 64-bit words.

The emitter asks for a word by name; whoever calls the kernel fills the words of those names. The
names follow from the layout alone, so a kernel that comes from the disk cache needs no emitting.
"""

from __future__ import annotations

from collections.abc import Iterable

from elman.backends.cpu.layout import KEPT, Call, Layout, Slot
from elman.equation.lowering import ONE, UNITS
from elman.equation.schedule import Loop

FIXED = (
    "barrier", "pack", "product", "pack_rows", "pack_columns", "steps", "chunk", "even", "batch",
    "alive", "at:packed", "at:kept", "base:lines",
)  # fmt: skip


def argument_names(layout: Layout) -> list[str]:
    """The names of all words that a kernel of this layout reads, each once, in a fixed order."""
    names = dict.fromkeys(FIXED)
    for slot, size in _slots(layout):
        names |= dict.fromkeys((f"base:{slot.buffer}", f"ld:{slot.buffer}", column_name(slot)))
        names[f"size:{size}"] = None
        if table_of(slot.buffer):
            names[table_of(slot.buffer)] = None
    for number, call in enumerate(layout.calls()):
        names |= dict.fromkeys(f"call:{number}:{what}" for what in ("k", "panels", "B"))
        for place, _ in enumerate(call.rectangles):
            names |= dict.fromkeys(
                f"rectangle:{number}:{place}:{what}"
                for what in ("W", "ldw", "k", "columns", "column", "line")
            )
    for op in layout.program.ops:
        if op.op == UNITS:
            names[f"size:{op.attribute('name')}"] = None
    return list(names)


def column_name(slot: Slot) -> str:
    """The word that says at which column a slot begins."""
    return f"column:{slot.buffer}:{slot.number}"


def table_of(buffer: str) -> str:
    """The word with the address of a buffer's table: for each step the place of its first row.

    Empty where a buffer has a row for each row of the batch or for each thread, or is one row.
    """
    kind, _, rest = buffer.partition(":")
    if kind == KEPT:
        return "at:kept"
    if kind in ("state", "plane"):
        return f"at:{rest}"
    if kind in ("cotangents", "step", "output", "factor", "cotangent"):
        return "at:packed"
    return ""


def _slots(layout: Layout) -> Iterable[tuple[Slot, str]]:
    for value, slot in layout.slots.items():
        yield slot, layout.program.ops[value].size
    for stores in layout.stores.values():
        for store in stores:
            yield store.slot, store.size
    for call in layout.calls():
        yield from _of_call(call)
    for item in layout.program.items:
        if isinstance(item, Loop) and item.size != ONE:
            yield Slot("scratch"), item.size


def _of_call(call: Call) -> Iterable[tuple[Slot, str]]:
    yield from zip(call.sources, call.source_sizes, strict=True)
    yield from zip(call.targets, call.target_sizes, strict=True)
