"""What a forward pass saves for the backward, so that the fewest bytes are kept.

The backward needs some values of the forward. Inputs and states are kept anyway; work on what is
kept that goes element by element can be done again; a product or a reduction is too dear for that.
The fewest numbers to keep, such that all the rest follows, are a minimum cut of the step's graph
between its dear nodes and what the backward reads.

Source: Ford & Fulkerson 1956, "Maximal flow through a network"; with shortest paths, Edmonds & Karp
1972; the reduction of what to save to a cut as in Griewank & Walther 2008, chapter 12 (their
checkpoints are cuts too), here over values rather than steps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from elman.equation.adjoint import Adjoint
from elman.equation.derivatives import ALL_OPERATIONS
from elman.equation.graph import PARAMETER, Graph
from elman.equation.sizes import shape_of

DEAR = (
    "matmul", "matvec", "matmat", "bilinear", "sum", "mean", "softmax", "layer_norm",
    "layer_norm_scale",
)  # fmt: skip
SOURCE, SINK = (-1, 0), (-1, 1)
Place = tuple[int, int]


class Saving(NamedTuple):
    """Which values the backward finds and which it makes, each by node of the adjoint.

    Attributes:
        saved: what the forward has to keep beside inputs and states.
        given: inputs, old and delayed states and new states that the backward starts from.
        again: what the backward computes again of the step, in order.
    """

    saved: tuple[int, ...]
    given: tuple[int, ...]
    again: tuple[int, ...]


def saving(backward: Adjoint, sizes: Mapping[str, int] | None = None) -> Saving:
    """Choose what to save: as few numbers as possible, and among equals what is latest.

    Args:
        backward: the adjoint of a step.
        sizes: the size of each name; all alike if not given.

    Example:
        >>> import elman
        >>> from elman.equation.adjoint import adjoint
        >>> backward = adjoint(elman.cells.get("lstm").graph)
        >>> chosen = saving(backward)
        >>> [backward.nodes[i].name for i in chosen.saved]
        ['i', 'f', 'g', 'o']
        >>> [backward.nodes[i].op for i in chosen.again]
        ['tanh']

    Source: Ford & Fulkerson 1956; Edmonds & Karp 1972.
    """
    sizes = sizes or _usual(backward.graph)
    targets = _targets(backward)
    free = _free(backward)
    cut = _cut(backward, targets - free, free, sizes)
    seen: set[int] = set()
    waiting = list(targets)
    while waiting:
        index = waiting.pop()
        if index not in seen and backward.levels[index] != PARAMETER:
            seen.add(index)
            waiting.extend(() if index in cut | free else backward.nodes[index].args)
    first = len(backward.graph.nodes)
    again = (i for i in sorted(seen - cut - free) if i < first)
    return Saving(tuple(sorted(cut)), tuple(sorted(seen & free)), tuple(again))


def _targets(backward: Adjoint) -> set[int]:
    """The forward values, some made by the adjoint, that cotangents or products meet."""
    met = {a for i in backward.own if backward.moved[i] for a in backward.nodes[i].args}
    met |= backward.factors
    return {i for i in met if not backward.moved[i] and backward.levels[i] != PARAMETER}


def _free(backward: Adjoint) -> set[int]:
    leaves = (
        i for i, n in enumerate(backward.graph.nodes)
        if not n.args and backward.levels[i] != PARAMETER
    )  # fmt: skip
    return {*leaves, *backward.graph.new_states}


def _cut(backward: Adjoint, targets: set[int], free: set[int], sizes) -> set[int]:
    """The nodes of the minimum cut: every node is an edge from its in-side to its out-side."""
    residual: dict[Place, dict[Place, float]] = {SOURCE: {}, SINK: {}}

    def edge(start: Place, end: Place, capacity: float) -> None:
        residual.setdefault(start, {})[end] = capacity
        residual.setdefault(end, {}).setdefault(start, 0.0)

    for index in targets:
        edge((index, 1), SINK, math.inf)
    waiting, seen = list(targets), set()
    while waiting:
        index = waiting.pop()
        if index in seen:
            continue
        seen.add(index)
        node = backward.nodes[index]
        edge((index, 0), (index, 1), _weight(backward, index, sizes))
        if node.op in DEAR:
            edge(SOURCE, (index, 0), math.inf)
            continue
        for operand in node.args:
            if operand not in free and backward.levels[operand] != PARAMETER:
                edge((operand, 1), (index, 0), math.inf)
                waiting.append(operand)
    _saturate(residual)
    near = _reaching(residual)
    return {i for i in seen if (i, 1) in near and (i, 0) not in near}


def _weight(backward: Adjoint, index: int, sizes) -> float:
    """The numbers to keep for a node; a comparison, or the adjoint's own work, is not kept."""
    node = backward.nodes[index]
    own = index >= len(backward.graph.nodes) and node.op not in DEAR
    if own or ALL_OPERATIONS[node.op].boolean:
        return math.inf
    return float(math.prod(shape_of(node.dims, sizes)))


def _usual(graph: Graph) -> dict[str, int]:
    """64 units of every size, or as many times that as the equation divides one by."""
    parts = (int(name.partition("/")[2] or 1) for node in graph.nodes for name in node.dims)
    return dict.fromkeys(graph.sizes, 64 * math.lcm(*parts))


def _saturate(residual: dict[Place, dict[Place, float]]) -> None:
    """Push flow along shortest paths from source to sink until none is left."""
    while True:
        came: dict[Place, Place] = {SOURCE: SOURCE}
        queue = deque([SOURCE])
        while queue and SINK not in came:
            here = queue.popleft()
            for there, capacity in residual[here].items():
                if capacity > 0 and there not in came:
                    came[there] = here
                    queue.append(there)
        if SINK not in came:
            return
        path, there = [], SINK
        while there != SOURCE:
            path.append((came[there], there))
            there = came[there]
        flow = min(residual[a][b] for a, b in path)
        for a, b in path:
            residual[a][b] -= flow
            residual[b][a] += flow


def _reaching(residual: dict[Place, dict[Place, float]]) -> set[Place]:
    """The places from which flow could still reach the sink."""
    near, waiting = {SINK}, [SINK]
    while waiting:
        here = waiting.pop()
        for before in residual[here]:
            if before not in near and residual[before][here] > 0:
                near.add(before)
                waiting.append(before)
    return near
