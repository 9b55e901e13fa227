"""The adjoint of a step as programs: what is done once for a window, at each step, and after.

A cotangent that is zero throughout is None, and nothing is computed from it: an adjoint is linear
in its cotangents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.equation.adjoint import Adjoint, adjoint
from elman.equation.derivatives import ALL_OPERATIONS, UNITS
from elman.equation.evaluate import aligned
from elman.equation.graph import PARAMETER, Graph, Node
from elman.equation.sizes import number, shape_of


class Instruction(NamedTuple):
    """One node to compute: its index, its function, and its operands' indices."""

    index: int
    evaluate: Callable[..., Any]
    args: tuple[int, ...]


@dataclass(frozen=True)
class Programs:
    """One step backwards with numbers for its sizes.

    Attributes:
        backward: the adjoint.
        still: what depends on no cotangent, for all steps at once.
        walk: what the cotangents of old states need, step after step backwards.
        rest: what the weights need besides, for all steps at once.
        inputs: so with the input.
        read: values that change by row, and that `walk` reads.
        read_after: so with `rest` and `inputs`.
        kept: cotangents of the walk that `rest` reads or that are results.
    """

    backward: Adjoint
    still: tuple[Instruction, ...]
    walk: tuple[Instruction, ...]
    rest: tuple[Instruction, ...]
    inputs: tuple[Instruction, ...]
    read: tuple[int, ...]
    read_after: tuple[int, ...]
    kept: tuple[int, ...]


@cache
def adjoint_of(graph: Graph) -> Adjoint:
    """The adjoint of a step, derived once."""
    return adjoint(graph)


@cache
def programs(graph: Graph, sizes: tuple[tuple[str, int], ...], dtype: torch.dtype) -> Programs:
    """The programs of a step; `sizes` has every size that a leaf of the step has."""
    backward = adjoint_of(graph)
    nodes, moved, first = backward.nodes, backward.moved, len(graph.nodes)
    compiled = partial(_compiled, backward, dict(sizes), dtype)
    walk = [i for i in backward.needed(_old(backward)) if moved[i]]
    into_x = [i for name, i in backward.inputs.items() if name == graph.inputs[0].name]
    results = [*(p.cotangent for p in (*backward.products, *backward.bilinear)),
               *backward.vectors.values()]  # fmt: skip
    rest = [i for i in backward.needed(results) if moved[i] and i not in set(walk)]
    before = {*walk, *rest}
    inputs = [i for i in backward.needed(into_x) if moved[i] and i not in before]
    after = (*rest, *inputs)
    asked = {a for i in (*walk, *after) for a in nodes[i].args if not moved[a]}
    still = [
        i
        for i in sorted(_needed(nodes, asked | backward.factors))
        if not (i < first and (nodes[i].op in _LEAVES or _given(graph, i)))
    ]
    later = {a for i in after for a in nodes[i].args} | {*results, *into_x}

    def of_rows(indices: Iterable[int]) -> tuple[int, ...]:
        read = {a for i in indices for a in nodes[i].args if not moved[a]}
        return tuple(i for i in sorted(read) if backward.levels[i] != PARAMETER)

    return Programs(
        backward,
        tuple(map(compiled, still)),
        tuple(map(compiled, walk)),
        tuple(map(compiled, rest)),
        tuple(map(compiled, inputs)),
        of_rows(walk),
        of_rows(after),
        tuple(sorted(i for i in later if moved[i] and i not in set(after))),
    )


_LEAVES = ("input", "state", "delayed", "parameter")


def _given(graph: Graph, index: int) -> bool:
    """Whether a node of the step comes as the value of a weight."""
    return graph.levels[index] == PARAMETER and graph.nodes[index].op != "constant"


def _old(backward: Adjoint) -> tuple[int, ...]:
    return (*backward.states.values(), *backward.delayed.values())


def _needed(nodes: Sequence[Node], roots: Iterable[int]) -> set[int]:
    keep: set[int] = set()
    waiting = list(roots)
    while waiting:
        index = waiting.pop()
        if index not in keep:
            keep.add(index)
            waiting.extend(nodes[index].args)
    return keep


def _compiled(
    backward: Adjoint, sizes: dict[str, int], dtype: torch.dtype, index: int
) -> Instruction:
    """What computes one node."""
    node = backward.nodes[index]
    if node.op == "constant":
        return Instruction(index, partial(float, node.attribute("value")), ())
    if node.op == UNITS:
        return Instruction(index, partial(int, number(node.attribute("name"), sizes)), ())
    evaluate = _evaluation(backward, node, sizes, dtype)
    if backward.moved[index]:
        evaluate = _of_cotangents(backward, node, sizes, evaluate)
    return Instruction(index, evaluate, node.args)


def _evaluation(
    backward: Adjoint, node: Node, sizes: dict[str, int], dtype: torch.dtype
) -> Callable[..., Any]:
    operation = ALL_OPERATIONS[node.op].evaluate
    if node.op == "spread":
        rank = len(backward.nodes[node.args[0]].dims)
        return partial(operation, rank=rank, shape=shape_of(node.dims, sizes))
    if node.op == "where":
        operation = partial(_where, dtype)
    evaluate = aligned(backward.nodes, backward.levels, node, operation)
    attributes = dict(node.attributes)
    return partial(evaluate, **attributes) if attributes else evaluate


def _where(dtype: torch.dtype, condition: Tensor, one: Any, other: Any) -> Tensor:
    if not isinstance(one, Tensor) and not isinstance(other, Tensor):
        # Two plain numbers would otherwise come out in torch's default type.
        one = torch.tensor(one, dtype=dtype, device=condition.device)
    return torch.where(condition, one, other)


def _of_cotangents(
    backward: Adjoint, node: Node, sizes: dict[str, int], evaluate: Callable[..., Any]
) -> Callable[..., Any]:
    """`evaluate` where a cotangent may be None for zero."""
    if node.op in ("add", "sub"):
        return partial(_sum, evaluate, *_alone(backward, node, sizes))
    if node.op == "where":
        return partial(_choice, evaluate)
    return partial(_linear, evaluate)


def _linear(evaluate: Callable[..., Any], *operands: Any) -> Any:
    """Nothing comes of nothing."""
    for operand in operands:
        if operand is None:
            return None
    return evaluate(*operands)


def _choice(evaluate: Callable[..., Any], condition: Tensor, *operands: Any) -> Any:
    if not any(isinstance(o, Tensor) for o in operands):
        return None
    return evaluate(condition, *(0.0 if o is None else o for o in operands))


def _sum(
    evaluate: Callable[..., Any],
    first: Callable[..., Any],
    second: Callable[..., Any],
    one: Any,
    other: Any,
) -> Any:
    """A sum or difference; of one term where the other is nothing."""
    if one is None:
        return None if other is None else second(other)
    return first(one) if other is None else evaluate(one, other)


def _alone(backward: Adjoint, node: Node, sizes: dict[str, int]) -> list[Callable[..., Any]]:
    """What each term of a sum is without the other: of the sum's sizes, and with its sign."""
    found: list[Callable[..., Any]] = []
    for place, arg in enumerate(node.args):
        dims = backward.nodes[arg].dims
        keep = partial(_spread, dims != node.dims, len(dims), shape_of(node.dims, sizes))
        found.append(partial(keep, place == 1 and node.op == "sub"))
    return found


def _spread(wider: bool, rank: int, shape: tuple[int, ...], minus: bool, term: Tensor) -> Tensor:
    if wider:
        term = ALL_OPERATIONS["spread"].evaluate(term, rank=rank, shape=shape)
    return -term if minus else term
