"""Which torch functions and methods a body may call, and the nodes that each becomes.

A traced function gets the recorder first, then the arguments as torch would get them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from elman.equation.operations import OPERATIONS

FUNCTIONS: dict[Callable, Callable] = {}
NAMES: list[str] = []
METHODS: dict[str, Callable] = {}


_NUMBER = "a value has no number while it is traced; write torch.where for a choice"
_SIZE = "sizes are found by use and have no number here"
_PARTS = "a value cannot be taken apart or joined; use a parameter for each part"
_LAYER = "leave it out; the layer moves and casts all values"
_GRADIENT = "an equation keeps every gradient; elman.BPTT(window=…) cuts it between steps"
_NOISE = (
    "an equation has no noise; give it as an input, @elman.cell(inputs=…), or use a layer's options"
)

# What to write in place of what is often tried and is not there.
INSTEAD: dict[str, str] = {
    **dict.fromkeys(["item", "tolist", "any", "all", "argmax", "nonzero"], _NUMBER),
    **dict.fromkeys(["size", "numel", "dim", "ndim"], _SIZE),
    **dict.fromkeys(["view", "reshape", "chunk", "split", "narrow", "flatten", "stack"], _PARTS),
    **dict.fromkeys(["to", "float", "double", "half", "cpu", "cuda", "dtype", "device"], _LAYER),
    **dict.fromkeys(["detach", "data", "requires_grad", "grad"], _GRADIENT),
    **dict.fromkeys(["rand_like", "randn_like", "bernoulli", "dropout", "normal"], _NOISE),
    **dict.fromkeys(["cat", "concat", "hstack"], "write p.W @ x + p.U @ h for [W U] [x; h]"),
    "linear": "write p.W @ x + p.b",
    "numpy": "use the torch function",
    "clone": "leave it out; values are never written in place",
}


def _plain(op: str) -> Callable:
    """A torch function that is one operation on one, two or three operands."""
    arity = OPERATIONS[op].arity
    names = {1: ("input",), 2: ("input", "other"), 3: ("condition", "input", "other")}[arity]

    def traced(recorder, *operands, **kwargs):
        operands = (*operands, *(kwargs.pop(n) for n in names[len(operands) :] if n in kwargs))
        if kwargs.pop("out", None) is not None:
            recorder.fail(f"out= of {op} writes in place; use what it returns")
        if kwargs.pop("inplace", False):
            recorder.fail(f"inplace=True of {op} writes in place; leave it out")
        if kwargs or len(operands) != arity:
            raise TypeError(f"{op} takes {arity} operand(s), {', '.join(names)}")
        return recorder.elementwise(op, *operands)

    return traced


def _with_numbers(op: str, **attributes: tuple[str, float]) -> Callable:
    """A function of one operand and of numbers: attribute -> (torch's keyword, its default)."""

    def traced(recorder, input, *values, inplace=False, **kwargs):
        numbers = {}
        for place, (attribute, (keyword, default)) in enumerate(attributes.items()):
            given = values[place] if place < len(values) else kwargs.pop(keyword, default)
            numbers[attribute] = float(given)
        if kwargs:
            raise TypeError(f"{op} has no argument {next(iter(kwargs))!r}")
        return recorder.elementwise(op, input, **numbers)

    return traced


def _add(recorder, input, other, *, alpha=1):
    return recorder.elementwise("add", input, other if alpha == 1 else alpha * other)


def _sub(recorder, input, other, *, alpha=1):
    return recorder.elementwise("sub", input, other if alpha == 1 else alpha * other)


def _clamp(recorder, input, min=None, max=None):
    bounds = []
    for op, bound, nothing in (("maximum", min, float("-inf")), ("minimum", max, float("inf"))):
        if bound is not None and not isinstance(bound, (int, float)):
            input, bound = recorder.elementwise(op, input, bound), None
        bounds.append(nothing if bound is None else float(bound))
    low, high = bounds
    if low == float("-inf") and high == float("inf"):
        return input
    return recorder.elementwise("clamp", input, low=low, high=high)


def _hardtanh(recorder, input, min_val=-1.0, max_val=1.0, inplace=False):
    return _clamp(recorder, input, min_val, max_val)


def _relu6(recorder, input, inplace=False):
    return _clamp(recorder, input, 0.0, 6.0)


def _softmax(recorder, input, dim=None, *args, **kwargs):
    if dim not in (-1, 0, None):
        recorder.fail(f"softmax runs over the hidden size, dim=-1; got dim={dim}")
    return recorder.over_units("softmax", input)


def _layer_norm(recorder, input, normalized_shape=None, weight=None, bias=None, eps=1e-5):
    normal = recorder.over_units("layer_norm", input, eps=float(eps))
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def _dot(recorder, input, other):
    return recorder.over_units("sum", recorder.elementwise("mul", input, other))


def _transpose(recorder, input, dim0, dim1):
    if {dim0, dim1} not in ({0, 1}, {-1, -2}):
        recorder.fail(f"transpose swaps the two sizes of a matrix; got {dim0} and {dim1}")
    return recorder.transpose(input)


def _reduction(op: str) -> Callable:
    def traced(recorder, input, dim=-1, keepdim=False):
        if dim not in (-1, (-1,)) or keepdim:
            recorder.fail(f"{op} runs over the last size, as in torch.{op}(v, -1), and drops it")
        return recorder.over_units(op, input)

    return traced


def _bilinear(recorder, input1, input2, weight, bias=None):
    result = recorder.bilinear(weight, input1, input2)
    return result if bias is None else result + bias


def _silu(recorder, input, inplace=False):
    return recorder.elementwise("mul", input, recorder.elementwise("sigmoid", input))


def _logsigmoid(recorder, input):
    return -recorder.elementwise("softplus", -input, beta=1.0, threshold=20.0)


def _softsign(recorder, input):
    return input / (1.0 + recorder.elementwise("abs", input))


def _define(names: str, traced: Callable, method: bool = True) -> None:
    """Trace these torch functions and methods, under every spelling that torch has for them."""
    for name in names.split():
        NAMES.append(name)
        if method:
            METHODS[name] = traced
        for module in (torch, F, torch.Tensor, torch.special):
            function = getattr(module, name, None)
            if function is not None:
                FUNCTIONS[function] = traced


for _name in ["sigmoid", "tanh", "relu", "exp", "log", "sqrt", "abs", "sin", "cos", "neg"]:
    _define(_name, _plain(_name))
for _name in ["minimum", "maximum", "div", "pow", "gt", "ge", "lt", "le"]:
    _define(_name, _plain(_name))
_define("add", _add)
_define("sub subtract", _sub)
_define("mul multiply", _plain("mul"))
_define("divide true_divide", _plain("div"))
_define("negative", _plain("neg"))
_define("absolute", _plain("abs"))
_define("expit", _plain("sigmoid"), method=False)
_define("matmul mv mm", lambda recorder, input, other: recorder.matmul(input, other))
_define("outer ger", lambda recorder, input, vec2: recorder.outer(input, vec2))
_define("dot inner vdot", _dot)
_define("t", lambda recorder, input: recorder.transpose(input))
_define("transpose", _transpose)
_define("sum", _reduction("sum"))
_define("mean", _reduction("mean"))
_define("unsqueeze", lambda recorder, input, dim: recorder.place(input, dim))
_define("bilinear", _bilinear, method=False)
_define("clamp clip", _clamp)
_define("where", _plain("where"), method=False)
_define("hardsigmoid", _with_numbers("hardsigmoid"), method=False)
_define("leaky_relu", _with_numbers("leaky_relu", slope=("negative_slope", 0.01)), method=False)
_define("elu", _with_numbers("elu", alpha=("alpha", 1.0)), method=False)
_define(
    "softplus",
    _with_numbers("softplus", beta=("beta", 1.0), threshold=("threshold", 20.0)),
    method=False,
)
_define("softmax", _softmax)
_define("layer_norm", _layer_norm, method=False)
# Exact compositions of the above, so that bodies may use torch's own names for them.
_define("square", lambda recorder, input: input * input)
_define("reciprocal", lambda recorder, input: 1.0 / input)
_define("rsqrt", lambda recorder, input: 1.0 / recorder.elementwise("sqrt", input))
_define("lerp", lambda recorder, input, end, weight: input + weight * (end - input))
_define("silu", _silu, method=False)
_define("relu6", _relu6, method=False)
_define("hardtanh", _hardtanh, method=False)
_define("softsign", _softsign, method=False)
_define("logsigmoid", _logsigmoid, method=False)
_define("zeros_like", lambda recorder, input, **kwargs: recorder.constant(0.0), method=False)
_define("ones_like", lambda recorder, input, **kwargs: recorder.constant(1.0), method=False)

# tensor ∘ symbol arrives under these; the recorder then says that a tensor came from outside.
for _dunder, _op in {
    "__add__": "add", "__radd__": "add", "__sub__": "sub", "__mul__": "mul", "__rmul__": "mul",
    "__truediv__": "div", "__matmul__": "mul",
}.items():  # fmt: skip
    FUNCTIONS[getattr(torch.Tensor, _dunder)] = _plain(_op)
