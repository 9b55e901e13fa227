"""Nodes on tensors: how the values of rows of a batch stand beside each other.

A value that depends on parameters alone has no batch. All others have their own sizes last and the
rows, or the steps and the rows, before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from elman.equation.derivatives import ALL_OPERATIONS, UNITS, WHOLE
from elman.equation.graph import PARAMETER, Graph, Node
from elman.equation.sizes import number, shape_of


def aligned(
    nodes: Sequence[Node], levels: Sequence[int], node: Node, evaluate: Callable[..., Any]
) -> Callable[..., Any]:
    """`evaluate` for an element-by-element operation on scalars of a row beside its vectors.

    A scalar of a row has the shape (…, batch); what stands beside it has more axes behind.

    Args:
        nodes: what the node's operands are found in.
        levels: for each of `nodes` how often it is computed, as `Graph.levels` says.
        node: the operation.
        evaluate: what computes it once the axes agree.
    """
    if len(node.args) == 1 or node.op in WHOLE:
        return evaluate
    rank = len(node.dims)
    missing = [rank - len(nodes[a].dims) if levels[a] != PARAMETER else 0 for a in node.args]
    if not any(missing):
        return evaluate

    def behind(*operands, **attributes):
        return evaluate(
            *[
                v.reshape(*v.shape, *(1,) * axes) if axes else v
                for v, axes in zip(operands, missing, strict=True)
            ],
            **attributes,
        )

    return behind


def sizes_of(graph: Graph, values: Sequence[Any]) -> dict[str, int]:
    """The number of every size of a step, from the values of its leaves."""
    sizes: dict[str, int] = {}
    for node, value in zip(graph.nodes, values, strict=False):
        if node.dims and not node.args and isinstance(value, Tensor):
            for name, units in zip(node.dims, value.shape[-len(node.dims) :], strict=True):
                whole, _, parts = name.partition("/")
                sizes[whole] = units * int(parts or 1)
    return sizes


def value_of(
    node: Node,
    nodes: Sequence[Node],
    levels: Sequence[int],
    values: Sequence[Any],
    sizes: Mapping[str, int] | None = None,
) -> Any:
    """The value of an operation or a constant, of a step or of its adjoint.

    Args:
        node: the one to compute.
        nodes: those that its operands are among.
        levels: how often each of `nodes` is computed; what depends on parameters alone has no
            batch.
        values: of its operands at least, at their places.
        sizes: the number of every size, which a step needs none of.
    """
    if node.op == "constant":
        return node.attribute("value")
    if node.op == UNITS:
        return number(node.attribute("name"), sizes or {})
    operands = [values[a] for a in node.args]
    if node.op == "spread":
        rank = len(nodes[node.args[0]].dims)
        return ALL_OPERATIONS["spread"].evaluate(
            *operands, rank=rank, shape=shape_of(node.dims, sizes or {})
        )
    if node.op == "where" and not any(isinstance(v, Tensor) for v in operands[1:]):
        dtype = next(v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point())
        operands[1] = torch.tensor(operands[1], dtype=dtype, device=operands[0].device)
    evaluate = aligned(nodes, levels, node, ALL_OPERATIONS[node.op].evaluate)
    return evaluate(*operands, **dict(node.attributes))
