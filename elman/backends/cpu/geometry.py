"""Where the rows of every step lie: how many there are at each step, and at which row they begin.

The rows of a batch are put in order of their lengths, longest first, and what belongs to a step
lies together, one row after the other, with nothing for the steps after a row's end. A reset ends
one row and begins another, with a state of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass
class Geometry:
    """The rows and steps of a call.

    Attributes:
        steps: of the longest row.
        batch: rows, where each reset begins a new one.
        total: rows of all steps together.
        alive: how many rows each step has, (steps,).
        packed: at which row of all a step begins, (steps,).
        even: the batch, where every row goes on to the end; else 0.
        take: for each packed row its place among the rows of (time·batch); None for all in order.
        rows: for each row of ours the row of the call it belongs to, and whether it begins with
            the call's state or a fresh one; None where they are the same.
        last: for each row of the call, the row of ours that ends it.
        lengths: of our rows.
        places: rows of (time·batch).
        inverse: for each of those its packed row, and `total` where there is none.
        within: for each packed row its number within its step.
        back: whether the steps are walked from the last to the first, where rows are whole; a
            state's plane then ends with what it begins with.
    """

    steps: int
    batch: int
    total: int
    alive: np.ndarray
    packed: np.ndarray
    even: int
    take: Tensor | None = None
    rows: Tensor | None = None
    fresh: Tensor | None = None
    last: Tensor | None = None
    lengths: Tensor | None = None
    back: bool = False
    places: int = 0
    inverse: Tensor | None = None
    within: np.ndarray | None = None
    tables: dict = field(default_factory=dict)

    def address(self, kind: str, number: int, depth: int) -> int:
        """The address of a table: "alive", "packed", "slots" or "ring" of so many steps ago, or
        "turning" over so many steps."""
        key = ("address", kind, number, depth)
        if key not in self.tables:
            if kind in ("alive", "packed"):
                table = self.alive if kind == "alive" else self.packed
            elif kind == "turning":
                table = self.turning(number)
            else:
                table = (self.slots if kind == "slots" else self.ring)(number, depth)
            self.tables[key] = (table.ctypes.data, table)
        return self.tables[key][0]

    def slots(self, steps_ago: int, depth: int) -> np.ndarray:
        """At which row of a state's plane the value of `steps_ago` steps before each step lies;
        0 is the value that the step itself makes. The plane begins with `depth` times the batch."""
        key = ("slots", steps_ago, depth)
        if key not in self.tables and self.back:
            self.tables[key] = self.packed + steps_ago * self.batch
        if key not in self.tables:
            steps = np.arange(self.steps) - steps_ago
            inside = depth * self.batch + self.packed[np.maximum(steps, 0)]
            outside = (depth + steps) * self.batch
            self.tables[key] = np.where(steps >= 0, inside, outside).astype(np.int64)
        return self.tables[key]

    def ring(self, steps_ago: int, depth: int) -> np.ndarray:
        """The same in a plane of depth + 1 slots that are used again and again."""
        key = ("ring", steps_ago, depth)
        if key not in self.tables:
            steps = np.arange(self.steps) - steps_ago
            self.tables[key] = ((steps + depth) % (depth + 1) * self.batch).astype(np.int64)
        return self.tables[key]

    def turning(self, chunk: int) -> np.ndarray:
        """At which row each step begins in a buffer of `chunk` steps that is used again."""
        key = ("turning", chunk)
        if key not in self.tables:
            places = np.arange(self.steps) % chunk
            if self.back:
                # Products over many steps at once read x and write here in the same order.
                places = chunk - 1 - places
            self.tables[key] = (places * self.batch).astype(np.int64)
        return self.tables[key]

    def before(self, steps_ago: int, depth: int) -> Tensor | slice:
        """The rows of a plane that hold, for every packed row, the value of `steps_ago` before."""
        if self.even:
            start = (steps_ago if self.back else depth - steps_ago) * self.batch
            return slice(start, start + self.total)
        key = ("before", steps_ago, depth)
        if key not in self.tables:
            starts = np.repeat(self.slots(steps_ago, depth), self.alive)
            with torch.inference_mode(False):
                self.tables[key] = torch.from_numpy(starts + self.within)
        return self.tables[key]

    def ends(self, depth: int) -> Tensor | slice:
        """The rows of a plane with each row's last value."""
        if self.even:
            start = 0 if self.back else (depth + self.steps - 1) * self.batch
            return slice(start, start + self.batch)
        if "ends" not in self.tables:
            rows = self.packed[self._lengths() - 1] + np.arange(self.batch)
            with torch.inference_mode(False):
                self.tables["ends"] = torch.from_numpy(rows)
        return self.tables["ends"] + depth * self.batch

    def ring_ends(self, depth: int) -> Tensor | slice:
        """The rows of a ring with each row's last value."""
        if self.even:
            start = (self.steps - 1 + depth) % (depth + 1) * self.batch
            return slice(start, start + self.batch)
        places = (self._lengths() - 1 + depth) % (depth + 1) * self.batch
        return torch.from_numpy(places + np.arange(self.batch))

    def at_end(self, steps_ago: int, depth: int) -> Tensor:
        """The rows of a plane with the value of `steps_ago` steps before each row's last."""
        steps = self._lengths() - 1 - steps_ago
        inside = depth * self.batch + self.packed[np.maximum(steps, 0)]
        start = np.where(steps >= 0, inside, (depth + steps) * self.batch)
        return torch.from_numpy(start + np.arange(self.batch))

    def _lengths(self) -> np.ndarray:
        return np.full(self.batch, self.steps) if self.lengths is None else self.lengths.numpy()

    def spread(self, plane: Tensor, start: int) -> Tensor:
        """The rows of all steps that begin at a row of a plane, as (time·batch, …), with zeros
        where there is none; a plane of ragged rows has zeros in its last."""
        if self.inverse is None:
            return plane.narrow(0, start, self.total)
        return plane.narrow(0, start, plane.shape[0] - start).index_select(
            0,
            self.inverse
            if start + self.total + 1 == plane.shape[0]
            else torch.where(self.inverse == self.total, plane.shape[0] - start - 1, self.inverse),
        )

    def beginning(self, depth: int) -> int:
        """At which row of a plane what a state begins with lies."""
        return self.total if self.back else 0

    def outputs(self, depth: int) -> int:
        """At which row of a plane what the steps make begins."""
        return 0 if self.back else depth * self.batch


def packed_rows(rows: Tensor, geometry: Geometry) -> Tensor:
    """Of rows of all steps, (time·batch, …), those that are real, in our order."""
    return rows if geometry.take is None else rows.index_select(0, geometry.take)


@lru_cache(64)
def whole(steps: int, batch: int, back: bool = False) -> Geometry:
    """Every row from the first step to the last, or from the last to the first."""
    packed = np.arange(steps, dtype=np.int64) * batch
    alive = np.full(steps, batch, np.int64)
    packed = np.ascontiguousarray(packed[::-1]) if back else packed
    return Geometry(steps, batch, steps * batch, alive, packed, batch, back=back)


def ragged(
    steps: int, lengths: Tensor | None, resets: Tensor | None, batch: int, back: bool = False
) -> Geometry:
    """Rows of their own lengths, each reset beginning a new one; `back`, each from its end."""
    marks = None if resets is None else resets.contiguous().numpy().tobytes()
    ends = None if lengths is None else lengths.contiguous().numpy().tobytes()
    # What is kept serves training too, whatever mode this call is in.
    with torch.inference_mode(False):
        return _ragged(steps, ends, marks, batch, back)


@lru_cache(16)
def _ragged(
    steps: int, lengths: bytes | None, resets: bytes | None, batch: int, back: bool
) -> Geometry:
    ends = np.full(batch, steps, np.int64) if lengths is None else np.frombuffer(lengths, np.int64)
    row, start = np.arange(batch), np.zeros(batch, np.int64)
    if resets is not None:
        marks = np.frombuffer(resets, bool).reshape(steps, batch)
        at, of = np.nonzero(marks & (np.arange(steps)[:, None] < ends))
        row, start = np.concatenate([row, of]), np.concatenate([start, at])
        order = np.lexsort((start, row))
        row, start = row[order], start[order]
        again = np.concatenate([start[1:] == 0, [False]]) & np.concatenate(
            [row[1:] == row[:-1], [False]]
        )
        first = np.concatenate([[True], row[1:] != row[:-1]])
        fresh = ~first
        row, start, fresh = row[~again], start[~again], fresh[~again]
    else:
        fresh = np.zeros(batch, bool)
    final = np.concatenate([row[1:] != row[:-1], [True]])
    stop = np.where(final, ends[row], np.concatenate([start[1:], [0]]))
    length = stop - start
    order = np.argsort(-length, kind="stable")
    row, start, fresh, length, final = (v[order] for v in (row, start, fresh, length, final))
    longest = int(length[0])
    alive = np.searchsorted(-length, -np.arange(longest), side="left").astype(np.int64)
    packed = np.concatenate([[0], np.cumsum(alive)[:-1]]).astype(np.int64)
    step = np.repeat(np.arange(longest), alive)
    total = int(alive.sum())
    ours = np.arange(total) - packed[step]
    time = length[ours] - 1 - step if back else start[ours] + step
    take = time * batch + row[ours]
    inverse = np.full(steps * batch, total, np.int64)
    inverse[take] = np.arange(total)
    last = np.empty(batch, np.int64)
    last[row[final]] = np.nonzero(final)[0]
    return Geometry(
        longest, len(row), total, alive, packed, 0,
        torch.from_numpy(take), torch.from_numpy(row),
        torch.from_numpy(fresh) if fresh.any() else None, torch.from_numpy(last),
        torch.from_numpy(length), places=steps * batch, inverse=torch.from_numpy(inverse),
        within=ours,
    )  # fmt: skip
