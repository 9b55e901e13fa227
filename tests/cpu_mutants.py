"""Kernels that are wrong, each in one way: what alters them. The laws must see every one.

Each alteration stays within the memory of a call, so that what is wrong is a number and no crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from cpu_machines import forget

from elman.backends.cpu import (
    autograd,
    calls,
    emit,
    engine,
    geometry,
    kernel,
    layout,
    loops,
    walk_back,
    weights,
)
from elman.backends.cpu.geometry import Geometry
from elman.backends.cpu.layout import KEPT, SUMS
from elman.equation import schedule
from elman.equation.lowering import Lowered

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """A mistake in words, and what makes it."""

    what: str
    make: Callable[[Patch], None]


@contextmanager
def mutated(monkeypatch: Patch, mutant: Mutant) -> Iterator[None]:
    """Kernels with a mistake, made afresh and forgotten afterwards."""
    with monkeypatch.context() as patch:
        patch.setenv("ELMAN_CACHE", "off")
        patch.setattr(engine, "_memory", {})
        mutant.make(patch)
        forget()
        try:
            yield
        finally:
            patch.undo()
            forget()


def around(owner: Any, name: str, change: Callable) -> Callable[[Patch], None]:
    """Replace a function by one that is given the old one first."""

    def make(patch: Patch) -> None:
        old = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **kwargs: change(old, *args, **kwargs))

    return make


# --- the order of rows and steps ---


def a_row_too_few(old, *args):
    found = old(*args)
    alive = found.alive.copy()
    alive[-1] -= alive[-1] > 1
    return replace(found, alive=alive, tables={})


def a_row_too_many(old, self, kind, number, depth):
    """Where rows end, the kernel takes one of them for a step more."""
    if kind != "alive":
        return old(self, kind, number, depth)
    if "too many" not in self.tables:
        alive = self.tables["too many"] = self.alive.copy()
        alive[1:-1] += alive[1:-1] < alive[:-2]
    return self.tables["too many"].ctypes.data


def a_reset_row_kept(old, *args):
    return replace(old(*args), fresh=None, tables={})


def last_steps_of_other_rows(old, *args):
    found = old(*args)
    return replace(found, last=found.last.roll(1), tables={})


def rows_in_the_wrong_order(old, *args):
    found = old(*args)
    return replace(found, take=found.take.roll(1), tables={})


def a_state_of_the_step_before_last(old, self, steps_ago, depth):
    table = old(self, steps_ago, depth)
    return table if steps_ago != 1 else np.concatenate([table[:1], table[:-1]])


def a_chunk_edge_off_by_one(old, self, chunk):
    """Where a buffer of several steps is used again one step too late."""
    return np.concatenate([old(self, chunk)[:1], old(self, chunk)[:-1]])


def rest_rows_without_a_thread(old, self, step):
    return self.builder.sdiv(self.entry_of("alive", step), self.threads)


# --- places ---


def two_saved_values_swapped(old, *args):
    found, kept = old(*args)
    by_size: dict[str, list[int]] = {}
    for node, slot in kept.items():
        by_size.setdefault(found.sizes[KEPT][slot.number], []).append(node)
    for one, other, *_ in (nodes for nodes in by_size.values() if len(nodes) > 1):
        kept = kept | {one: kept[other], other: kept[one]}
    return found, kept


def gates_in_the_wrong_order(old, *args):
    call = old(*args)
    if len(call.rectangles) < 2:
        return call
    one, other, *rest = call.rectangles
    swapped = (one._replace(weight=other.weight), other._replace(weight=one.weight), *rest)
    return call._replace(rectangles=swapped)


def inputs_forgotten(old, *args, **kwargs):
    return [call._replace(accumulate=False) for call in old(*args, **kwargs)]


def biases_lost(old, *args):
    found, kept = old(*args)
    found.starts.clear()
    return found, kept


def a_narrow_stride(old, self, name, base, width, offset=0):
    old(self, name, base, width - self.sized.lanes if name == KEPT else width, offset)


def columns_that_fill_up_are_not_zero(old, self, block):
    return None


# --- the adjoint ---


def a_term_lost(old, *args):
    """Every sum of several products in the backward lacks its last."""
    program = old(*args)
    gathers = {
        value: gather._replace(terms=gather.terms[:-1] or gather.terms)
        for value, gather in program.gathers.items()
    }
    return replace(program, gathers=gathers)


def a_start_lost(old, *args):
    program = old(*args)
    gathers = {value: gather._replace(start=None) for value, gather in program.gathers.items()}
    return replace(program, gathers=gathers)


def _stores(change: Callable) -> Callable:
    def altered(old, *args):
        found = old(*args)
        found.stores = {
            place: [s for s in map(change, stores) if s is not None]
            for place, stores in found.stores.items()
        }
        return found

    return altered


def _without_sums(store):
    return None if store.slot.buffer == SUMS and store.slot.number == 0 else store


def _over_planes(store):
    return store._replace(add=False) if store.slot.buffer.startswith("plane:") else store


def a_carry_that_begins_with_more(old, *args):
    found = old(*args)
    for one in found:
        for beginning in one.beginnings.values():
            beginning.add_(1.0)
    return found


def _asked(**changes: Any) -> Callable:
    """A backward that does not see some of the cotangents."""

    def altered(old, *args):
        return replace(old(*args), **changes)

    return altered


def the_first_walk_twice(old, walks, given, **options):
    """Of walks side by side the first one's places for all."""
    walks = [walk._replace(geometry=walks[0].geometry) for walk in walks]
    return old(walks, given, **options)


def one_threads_sums(old, self, zeroed, result):
    zeroed = zeroed.clone()
    zeroed[self.plan.sized.width[SUMS] : self.plan.count * self.plan.sized.width[SUMS]] = 0
    return old(self, zeroed, result)


def shared_weights_overwritten(old, self):
    return [False] * len(old(self))


# --- what a loop computes ---


def one_function_for_another(old, v, op, operands, attributes):
    return old(v, "relu" if op == "tanh" else op, operands, attributes)


def a_mean_over_too_many(old, low, value, size):
    return low.pointwise("mul", old(low, value, size), low.append("constant", value=1.01))


def a_sum_of_half_a_vector(old, self, reduction, total):
    return total


MUTANTS = (
    Mutant("a row too few at the last step", around(calls, "whole", a_row_too_few)),
    Mutant("a row too many where others end", around(Geometry, "address", a_row_too_many)),
    Mutant("a row keeps its state at a reset", around(geometry, "_ragged", a_reset_row_kept)),
    Mutant("other rows' last steps", around(geometry, "_ragged", last_steps_of_other_rows)),
    Mutant("rows in the wrong order", around(geometry, "_ragged", rows_in_the_wrong_order)),
    Mutant(
        "the state before the last one", around(Geometry, "slots", a_state_of_the_step_before_last)
    ),
    Mutant("a chunk's edge off by one", around(Geometry, "turning", a_chunk_edge_off_by_one)),
    Mutant("rest rows left out", around(emit.Kernel, "_rows", rest_rows_without_a_thread)),
    Mutant("two saved values swapped", around(kernel, "forward_layout", two_saved_values_swapped)),
    Mutant("gates in the wrong order", around(layout, "_forward_call", gates_in_the_wrong_order)),
    Mutant("the input's products lost", around(layout, "_forward_calls", inputs_forgotten)),
    Mutant("biases lost", around(kernel, "forward_layout", biases_lost)),
    Mutant("rows too close together", around(walk_back._Back, "buffer", a_narrow_stride)),
    Mutant("no mask", around(loops._Loop, "_mask", columns_that_fill_up_are_not_zero)),
    Mutant("a term of the adjoint lost", around(schedule, "_backward", a_term_lost)),
    Mutant("a start of the adjoint lost", around(schedule, "_backward", a_start_lost)),
    Mutant("a vector's gradient lost", around(kernel, "backward_layout", _stores(_without_sums))),
    Mutant(
        "a delayed cotangent overwritten", around(kernel, "backward_layout", _stores(_over_planes))
    ),
    Mutant("a carry with more in it", around(autograd, "backward", a_carry_that_begins_with_more)),
    Mutant("the output's cotangent lost", around(autograd, "asked_of", _asked(output=None))),
    Mutant("the last states' cotangents lost", around(autograd, "asked_of", _asked(finals={}))),
    Mutant(
        "the cotangents of all states lost", around(autograd, "asked_of", _asked(every={}))
    ),
    Mutant("both directions forwards", around(autograd, "forward", the_first_walk_twice)),
    Mutant("one thread's sums only", around(weights.Weights, "_add_sums", one_threads_sums)),
    Mutant(
        "a shared weight's gradient overwritten",
        around(weights.Weights, "_again", shared_weights_overwritten),
    ),
    Mutant("one function for another", around(loops, "emit", one_function_for_another)),
    Mutant("a mean that is too large", around(Lowered, "mean", a_mean_over_too_many)),
    Mutant("a sum of one lane", around(loops._Loop, "_across", a_sum_of_half_a_vector)),
)  # fmt: skip
