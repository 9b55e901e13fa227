"""The measurement: first that the kernel is right, then its times beside everybody else's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from elman.benchmark import agree, quiet
from elman.benchmark.case import Case
from elman.benchmark.peers import PEERS, Peer, Unserved
from elman.benchmark.turns import Call, Spread, geometric_mean, in_turns, near_fastest
from elman.errors import InputError, nearest

OURS = "elman"
WHOLE = "whole"
PASSES = {False: "forward", True: "forward + backward"}


@dataclass(frozen=True)
class Time:
    """Milliseconds of one call over the rounds, and the setting that was fastest."""

    ms: Spread
    rounds: int
    setting: str = ""


@dataclass(frozen=True)
class Row:
    """One case and pass: the time of each contender, and how many times ours it takes.

    Attributes:
        case: the case.
        backward: whether the pass is forward and backward, or forward alone.
        difference: of our layer from the reference, the largest, relative; see `agree.check`.
        times: by contender, "elman" first.
        ratios: by peer, its time over ours, round by round; above 1 says that ours is faster.
        others: cores that other processes kept busy meanwhile; None if unknown.
        backend: the backend that ran ours.
        explained: what `explain()` says of the call.
    """

    case: Case
    backward: bool
    difference: float
    times: dict[str, Time]
    ratios: dict[str, Spread]
    others: float | None
    backend: str
    explained: str


@dataclass(frozen=True)
class Found:
    """All rows, and what could not be measured, each a sentence."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def groups(self) -> Iterator[tuple[str, bool, list[Row]]]:
        """The rows of each cell and pass: (cell, backward, rows)."""
        keys = dict.fromkeys((row.case.cell.name, row.backward) for row in self.rows)
        for name, backward in keys:
            own = [r for r in self.rows if (r.case.cell.name, r.backward) == (name, backward)]
            yield name, backward, own


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Attributes:
        against: names of `elman.benchmark.peers.PEERS`.
        passes: False for forward alone, True for forward and backward.
        rounds: rounds of each case and pass; None for as many as fit into `seconds`.
        seconds: of the rounds of each case and pass.
        seed: of the order within rounds.
        peers: further peers, or others in place of those of the same names.
    """

    against: tuple[str, ...] = ("torch", "products")
    passes: tuple[bool, ...] = (False, True)
    rounds: int | None = None
    seconds: float = 3.0
    seed: int = 0
    peers: dict[str, Peer] = field(default_factory=dict)


def measure(
    cases: Sequence[Case], plan: Plan, say: Callable[[str], None] = lambda line: None
) -> Found:
    """Check every case against the reference, then time it beside its peers.

    Args:
        cases: what to measure.
        plan: how.
        say: what is told of each row when it is done.

    Raises:
        Disagreement: the kernel of a case is wrong; nothing is reported.
        InputError: there is no such peer.

    Example:
        >>> import elman
        >>> from elman.benchmark.case import Case, Shape
        >>> case = Case(elman.cells.get("mgu"), Shape(4, 2, 3, 5))
        >>> row = measure([case], Plan(("reference",), rounds=2)).rows[0]
        >>> list(row.times), row.times["elman"].rounds
        (['elman', 'reference'], 2)
    """
    peers = {**PEERS, **plan.peers}
    for name in plan.against:
        if name not in peers:
            raise InputError(
                f"benchmark: there is nothing to measure against named {name!r}."
                f"{nearest(name, peers)} There are: {', '.join(peers)}."
            )
    rows, notes = [], {}
    for case in cases:
        difference = agree.check(case, backward=any(plan.passes))
        for backward in plan.passes:
            row, unserved = _row(case, backward, difference, plan, peers)
            rows.append(row)
            notes.update(dict.fromkeys(unserved))
            say(f"[{len(rows)}/{len(cases) * len(plan.passes)}] {progress(row)}")
    return Found(tuple(rows), tuple(notes))


def _row(
    case: Case, backward: bool, difference: float, plan: Plan, peers: dict[str, Peer]
) -> tuple[Row, list[str]]:
    calls: dict[tuple[str, str], Call] = {(OURS, ""): case.call(case.layer, backward=backward)}
    if case.ragged:
        calls[WHOLE, ""] = case.call(case.layer, backward=backward, whole=True)
    notes = []
    for name in plan.against:
        try:
            settings = peers[name](case, backward)
        except Unserved as reason:
            notes.append(f"{name}: {reason}.")
            continue
        tried = near_fastest(settings, seed=plan.seed)
        calls.update({(name, setting): call for setting, call in tried.items()})
    found = in_turns(calls, rounds=plan.rounds, seconds=plan.seconds, seed=plan.seed)
    times, fastest = {}, {}
    for (name, setting), seconds in found.seconds.items():
        time = Time(Spread.of([1e3 * s for s in seconds]), len(seconds), setting)
        if name not in times or time.ms.median < times[name].ms.median:
            times[name], fastest[name] = time, seconds
    ratios = {
        name: Spread.of_ratios(seconds, fastest[OURS])
        for name, seconds in fastest.items()
        if name != OURS
    }
    explained = explain(case, backward)
    backend = backend_in(explained)
    row = Row(case, backward, difference, times, ratios, found.others, backend, explained)
    return row, notes


def explain(case: Case, backward: bool) -> str:
    """What our layer says it runs a pass on."""
    case.layer.train(backward)
    with torch.set_grad_enabled(backward):
        return case.layer.explain(lengths=case.lengths)


def backend_in(explained: str) -> str:
    """The name of the backend in what `explain()` says.

    Example:
        >>> backend_in("GRU runs on torch's own kernel (backend 'torch').")
        'torch'
    """
    found = re.search(r"backend '(\w+)'", explained)
    return found[1] if found else explained.partition("\n")[0]


def summary(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """By peer, over the rows that have it: the geometric mean of the ratios, and the least."""
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row.ratios):
        ratios = [row.ratios[name].median for row in rows if name in row.ratios]
        found[name] = (geometric_mean(ratios), min(ratios))
    return found


def progress(row: Row) -> str:
    """A row in one short line."""
    peers = "  ".join(
        f"{name} {row.times[name].ms.median:.3g} ms ({ratio.median:.2f} x)"
        for name, ratio in row.ratios.items()
    )
    return (
        f"{row.case.cell.name} ({row.case.shape}) {PASSES[row.backward]}: elman "
        f"{row.times[OURS].ms.median:.3g} ms on {row.backend}  {peers}"
        + ("  (others at work)" if (row.others or 0.0) > quiet.QUIET else "")
    )
