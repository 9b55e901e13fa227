"""The operations of the language: what each computes on tensors, and how it is written.

This table is the only list of operations. The tracer maps torch functions to its names, the
reference calls `evaluate`, the JSON reader accepts nothing that is not in it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from elman.errors import InputError


@dataclass(frozen=True)
class Operation:
    """One operation: its number of operands, its attributes, its value and its notation.

    `text` and `latex` are templates over the written operands, {0}, {1}, …, and the attributes;
    `binds` is the precedence of the written form (higher binds tighter). `cost` is the number of
    arithmetic operations an element of the result is counted with.
    """

    arity: int
    evaluate: Callable[..., Tensor]
    text: str
    latex: str
    binds: int = 9
    attributes: dict[str, type] = field(default_factory=dict)
    cost: int = 1
    boolean: bool = False


SUM, PRODUCT, MINUS, POWER, CALL = 1, 2, 3, 4, 9


def _function(evaluate, latex=None, name="", cost=1, **attributes):
    name = name or evaluate.__name__
    extra = "".join(f", {{{key}}}" for key in attributes)
    latex = latex or rf"\operatorname{{{name.replace('_', ' ')}}}"
    text = f"{name}({{0}}{extra})"
    return Operation(
        1, evaluate, text, rf"{latex}\left({{0}}{extra}\right)", CALL, attributes, cost
    )


def _infix(evaluate, text, latex, binds, boolean=False):
    return Operation(2, evaluate, text, latex, binds, boolean=boolean)


def _leaky_relu(v, slope):
    return F.leaky_relu(v, slope)


def _elu(v, alpha):
    return F.elu(v, alpha)


def _softplus(v, beta, threshold):
    return F.softplus(v, beta, threshold)


def _softmax(v):
    return torch.softmax(v, -1)


def _layer_norm(v, eps):
    return F.layer_norm(v, v.shape[-1:], eps=eps)


def _clamp(v, low, high):
    return torch.clamp(v, low, high)


def _matvec(matrix, vector):
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _outer(column, row):
    return column.unsqueeze(-1) * row.unsqueeze(-2)


def _bilinear(tensor, one, other):
    return torch.einsum("oij,...i,...j->...o", tensor, one, other)


def _block_diagonal(blocks, heads):
    """The square matrix with these blocks, (heads·m, n) read as heads blocks (m, n)."""
    return torch.block_diag(*blocks.chunk(heads))


def _over_edges(v):
    raise InputError(
        "this is a cell of trees or graphs: it sums over neighbours, which a sequence has none of; "
        "use elman.Tree or elman.Network"
    )


def _minimum(a, b):
    """torch.minimum, which takes no plain numbers."""
    return torch.minimum(*_tensors(a, b))


def _maximum(a, b):
    return torch.maximum(*_tensors(a, b))


def _tensors(a, b):
    like = a if isinstance(a, Tensor) else b
    return [v if isinstance(v, Tensor) else torch.full_like(like, v) for v in (a, b)]


OPERATIONS: dict[str, Operation] = {
    # A matrix of parameters times a vector, the one product for all rows of a batch; a matrix that
    # a row has for itself times a vector; a matrix times a matrix.
    "matmul": Operation(2, lambda w, v: F.linear(v, w), "{0} {1}", "{0} {1}", PRODUCT),
    "matvec": Operation(2, _matvec, "{0} {1}", "{0} {1}", PRODUCT),
    "matmat": Operation(2, torch.matmul, "{0} {1}", "{0} {1}", PRODUCT),
    "transpose": Operation(1, lambda m: m.mT, "{0}ᵀ", r"{0}^{\top}", POWER, cost=0),
    "outer": Operation(2, _outer, "{0} {1}ᵀ", r"{0} {1}^{\top}", PRODUCT),
    "bilinear": Operation(
        3, _bilinear, "bilinear({0}; {1}, {2})", r"{0}\left({1}, {2}\right)", CALL
    ),
    "block_diagonal": Operation(
        1,
        _block_diagonal,
        "blocks({0})",
        r"\operatorname{blocks}\left({0}\right)",
        CALL,
        {"heads": int},
        0,
    ),
    "sum": Operation(1, lambda v: v.sum(-1), "sum({0})", r"\operatorname{sum}\left({0}\right)"),
    "mean": Operation(1, lambda v: v.mean(-1), "mean({0})", r"\operatorname{mean}\left({0}\right)"),
    "column": Operation(1, lambda v: v.unsqueeze(-1), "{0}", "{0}", CALL, cost=0),
    "row": Operation(1, lambda v: v.unsqueeze(-2), "{0}ᵀ", r"{0}^{\top}", POWER, cost=0),
    "add": _infix(operator.add, "{0} + {1}", "{0} + {1}", SUM),
    "sub": _infix(operator.sub, "{0} − {1}", "{0} - {1}", SUM),
    "mul": _infix(operator.mul, "{0} ⊙ {1}", r"{0} \odot {1}", PRODUCT),
    "div": _infix(operator.truediv, "{0} / {1}", r"\frac{{0}}{{1}}", PRODUCT),
    "pow": _infix(operator.pow, "{0}^{1}", "{0}^{{1}}", POWER),
    "neg": Operation(1, operator.neg, "−{0}", "-{0}", MINUS),
    "sigmoid": _function(torch.sigmoid, r"\sigma", name="σ"),
    "tanh": _function(torch.tanh, r"\tanh"),
    "relu": _function(torch.relu),
    "leaky_relu": _function(_leaky_relu, name="leaky_relu", slope=float),
    "elu": _function(_elu, name="elu", alpha=float),
    "softplus": _function(_softplus, name="softplus", beta=float, threshold=float),
    "hardsigmoid": _function(F.hardsigmoid),
    "exp": _function(torch.exp, r"\exp"),
    "log": _function(torch.log, r"\log"),
    "sqrt": _function(torch.sqrt, r"\operatorname{sqrt}"),
    "abs": _function(torch.abs, r"\operatorname{abs}", name="abs"),
    "sin": _function(torch.sin, r"\sin"),
    "cos": _function(torch.cos, r"\cos"),
    "minimum": Operation(2, _minimum, "min({0}, {1})", r"\min\left({0}, {1}\right)"),
    "maximum": Operation(2, _maximum, "max({0}, {1})", r"\max\left({0}, {1}\right)"),
    "clamp": _function(_clamp, name="clamp", low=float, high=float),
    "gt": _infix(operator.gt, "{0} > {1}", "{0} > {1}", 0, boolean=True),
    "ge": _infix(operator.ge, "{0} ≥ {1}", r"{0} \geq {1}", 0, boolean=True),
    "lt": _infix(operator.lt, "{0} < {1}", "{0} < {1}", 0, boolean=True),
    "le": _infix(operator.le, "{0} ≤ {1}", r"{0} \leq {1}", 0, boolean=True),
    "where": Operation(
        3, torch.where, "where({0}, {1}, {2})", r"\operatorname{where}\left({0}, {1}, {2}\right)"
    ),
    "softmax": _function(_softmax, name="softmax", cost=4),
    "layer_norm": _function(_layer_norm, name="layer_norm", cost=7, eps=float),
}

# Over the neighbours of a node: no step of a sequence has them, and `elman.equation.neighbours`
# takes them out of an equation before anything runs it.
OVER_EDGES: dict[str, Operation] = {
    "total": Operation(1, _over_edges, "Σⱼ({0})", r"\sum_j\left({0}\right)"),
    "average": Operation(1, _over_edges, "meanⱼ({0})", r"\operatorname{mean}_j\left({0}\right)"),
    "largest": Operation(1, _over_edges, "maxⱼ({0})", r"\max_j\left({0}\right)"),
}
LANGUAGE = OPERATIONS | OVER_EDGES

LEAVES: dict[str, dict[str, type]] = {
    "input": {"name": str},
    "state": {"name": str},
    "parameter": {"name": str},
    "delayed": {"name": str, "steps": int},
    "constant": {"value": float},
    "each": {"name": str, "kind": str},
    "child": {"name": str, "kind": str, "slot": int},
}


def linear(v):
    """The activation that changes nothing, f(v) = v.

    Example:
        >>> linear(3.0)
        3.0
    """
    return v


def softmax(v):
    """The activation whose values are positive and sum to one over the units.

    Example:
        >>> softmax(torch.tensor([1.0, 1.0])).tolist()
        [0.5, 0.5]
    """
    return torch.softmax(v, -1)


ACTIVATIONS: dict[str, Callable] = {
    "linear": linear,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "softplus": F.softplus,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "silu": F.silu,
    "exp": torch.exp,
    "sin": torch.sin,
    "cos": torch.cos,
    "abs": torch.abs,
    "softmax": softmax,
}
