"""The figures that are of all cells at once: torchrecurrent's, first calls, backends, same bits."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torchrecurrent_peer import PEERS

import elman
from elman.benchmark import Case, Shape, first_call
from elman.benchmark.measure import backend_in, explain
from elman.benchmark.peers import loops
from elman.benchmark.turns import Call

# Odd sizes, so that no vector and no tile is full.
_BITS = Shape(7, 5, 6, 19)
_EVEN = Shape(7, 5, 6, 20)  # for equations that halve or quarter a size


def shared_cases(shape: Shape, backend: str) -> list[Case]:
    """Every cell that torchrecurrent has too; some of theirs take only as many inputs as units."""
    return [
        Case(
            elman.cells.get(name).with_hyper(**peer.hyper),
            shape._replace(input=shape.hidden) if peer.square else shape,
            backend=backend,
        )
        for name, peer in PEERS.items()
    ]


def theirs(case: Case, backward: bool) -> dict[str, Call]:
    """torchrecurrent's layer and its cell in a loop, with our weights."""
    pair = PEERS[case.cell.name].build(case.shape.input, case.shape.hidden, case.dtype)
    pair.copy()
    return loops(pair.theirs, case.x, backward)


def slowest_first_calls(backend: str, most: int = 2) -> list[first_call.FirstCall]:
    """The first calls of the slowest cells, each in processes of its own.

    All cells in one process say which they are. The first of them stands there twice, since it
    pays for what is set up once a process.
    """
    cells = [elman.cells.get(name) for name in elman.cells.names()]
    fitting = [cell for cell in cells if fits(cell, Shape(4, 2, 64, 64))]
    threads = torch.get_num_threads()
    found = first_call.measure([fitting[0], *fitting], backend=backend, threads=threads, repeats=1)
    slowest = sorted(found[1:], key=lambda one: -one.fresh)[:most]
    return [
        first_call.measure([elman.cells.get(one.cell)], backend=backend, threads=threads)[0]
        for one in slowest
    ]


def fits(cell: elman.Cell, shape: Shape) -> bool:
    """Whether a cell can have these sizes."""
    try:
        _ = Case(cell, shape).layer
    except elman.SizeError:
        return False
    return True


def backends(backend: str) -> dict[str, str]:
    """The backend that trains each cell of the catalogue."""
    found = {}
    for name in elman.cells.names():
        case = Case(elman.cells.get(name), Shape(4, 2, 8, 8), backend=backend)
        found[name] = backend_in(explain(case, True))
    return found


def changed_bits(backend: str) -> dict[str, list[str]]:
    """By cell, the ways of running rows that change a bit of the output, or the error raised."""
    found = {}
    for name in elman.cells.names():
        cell = elman.cells.get(name)
        shape = _BITS if fits(cell, _BITS) else _EVEN
        case = Case(cell, shape, backend=backend)
        try:
            found[name] = _changed(case)
        except Exception as error:
            found[name] = [f"{type(error).__name__}: {error}"]
    return found


@torch.no_grad()
def _changed(case: Case) -> list[str]:
    whole = _run(case, slice(None), slice(None))[0]
    ways = (way for way, rows, out in _ways(case) if not torch.equal(out, whole[:, rows]))
    return list(dict.fromkeys(ways))


def _run(case: Case, steps: slice, rows: slice | list[int], state: object = None):
    more = {k: v[steps][:, rows] for k, v in (case.inputs or {}).items()}
    return case.layer(case.x[steps][:, rows], state, **({"inputs": more} if more else {}))


def _ways(case: Case) -> Iterator[tuple[str, slice | list[int], Tensor]]:
    """(how, which rows, the output) of running rows in other company, threads and pieces."""
    every = slice(None)
    case.layer.eval()
    for row in range(case.shape.batch):
        yield "alone", [row], _run(case, every, [row])[0]
    for rows in ([3, 1], [4, 3, 2, 1, 0], [0, 0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 2, 4]):
        yield "in another batch", rows, _run(case, every, rows)[0]
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            yield "with other threads", every, _run(case, every, every)[0]
        finally:
            torch.set_num_threads(threads)
    for piece in (1, 2, 3):
        parts, state = [], None
        for start in range(0, case.shape.steps, piece):
            out, state = _run(case, slice(start, start + piece), every, state)
            parts.append(out)
        yield "in pieces", every, torch.cat(parts)
    step = case.layer.stepper()
    outs = []
    for t, x in enumerate(case.x):
        more = {k: v[t] for k, v in (case.inputs or {}).items()}
        outs.append(step(x, more or None))
    yield "by stepper()", every, torch.stack(outs)
