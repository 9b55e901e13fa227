"""What a layer accepts: options when it is built, tensors when it is called.

Everything is checked once, here, before any work. Where torch.nn checks the same thing, its own
sentence comes first and the exception is also of its class, so that code written for torch.nn
keeps catching what it caught.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from elman.equation import ACTIVATIONS, Graph
from elman.equation.sizes import shape_of
from elman.errors import InputError, SizeError, nearest
from elman.learning import BPTT

BACKENDS = ("auto", "reference", "torch", "cpu", "gpu")
INITIAL_STATES = ("zeros", "learned")


class ArgumentTypeError(InputError, TypeError):
    """An argument of a layer has the wrong Python type."""


def check_sizes(owner: str, input_size: object, hidden_size: object, num_layers: object) -> None:
    """Check the three sizes every layer has; whole numbers of at least 1."""
    named = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
    for name, value in named.items():
        if not isinstance(value, int) or isinstance(value, bool):
            kind = type(value).__name__
            raise ArgumentTypeError(
                f"{name} should be of type int, got: {kind}. {owner}: {name} is {value!r}"
            )
        if value <= 0:
            raise InputError(
                f"{name} must be greater than zero. {owner}: {name} is {value}; give 1 or more"
            )


def check_flag(owner: str, name: str, value: object) -> None:
    """Check an option that is true or false."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(
            f"{name} should be of type bool, got: {type(value).__name__}. "
            f"{owner}: {name} is {value!r}; give True or False"
        )


def check_probability(owner: str, name: str, value: object, *, one: bool = False) -> float:
    """Check a probability in [0, 1), or [0, 1] where `one` may be had; return it as a float."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    given = float(value) if number else -1.0
    if not 0 <= given <= 1 or (given == 1 and not one):
        limit = "[0, 1]" if one else "[0, 1)"
        first = ""
        if name == "dropout":
            first = (
                "dropout should be a number in range [0, 1] representing the probability of an "
                "element being zeroed. "
            )
        raise InputError(f"{first}{owner}: {name} is {value!r}; give a number in {limit}")
    return given


def check_dropout(owner: str, dropout: object, num_layers: int) -> float:
    """Check the dropout between layers; with one layer there is no place for it, and we say so."""
    dropout = check_probability(owner, "dropout", dropout, one=True)
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout "
            f"expects num_layers greater than 1, but got dropout={dropout} and num_layers=1",
            stacklevel=4,
        )
    return dropout


def check_choice(owner: str, name: str, value: object, choices: Sequence[str]) -> None:
    """Check an option that is one of a few words."""
    if value not in choices:
        hint = nearest(value, choices) if isinstance(value, str) else ""
        raise InputError(
            f"{owner}: {name} is {value!r}; it is one of {', '.join(map(repr, choices))}.{hint}"
        )


def check_backend(owner: str, backend: object) -> None:
    """Check the backend's name; kernels for the GPU do not exist in this version."""
    check_choice(owner, "backend", backend, BACKENDS)
    if backend == "gpu":
        raise InputError(
            f"{owner}: backend 'gpu' stands for kernels of Elman's own, and this version has none "
            "for the GPU; use 'auto', 'torch' (the configurations of torch.nn) or 'reference'"
        )


def check_dense(owner: str, dense: object) -> tuple[int, ...]:
    """Check the widths of the dense layers on top of each step; return them as a tuple."""
    if dense is None:
        return ()
    widths = (dense,) if isinstance(dense, int) and not isinstance(dense, bool) else dense
    right = isinstance(widths, Sequence) and not isinstance(widths, str)
    if not right or not all(isinstance(w, int) and not isinstance(w, bool) for w in widths):
        raise ArgumentTypeError(
            f"{owner}: dense is {dense!r}; give the widths of the dense layers, such as [64, 32]"
        )
    if not all(w > 0 for w in widths):
        raise InputError(f"{owner}: dense is {dense!r}; each width must be 1 or more")
    return tuple(widths)


def check_activation(owner: str, name: object) -> None:
    """Check the name of what follows each dense layer."""
    if name not in ACTIVATIONS:
        raise InputError(
            f"{owner}: dense_activation is {name!r}; it is one of {', '.join(ACTIVATIONS)}."
            f"{nearest(str(name), ACTIVATIONS)}"
        )


def check_learning(owner: str, learning: object, *, bidirectional: bool = False) -> None:
    """Check the way of learning; None stands for plain backpropagation through time."""
    if learning is None:
        return
    if not isinstance(learning, BPTT):
        raise ArgumentTypeError(
            f"{owner}: learning is {learning!r}; give elman.BPTT() or elman.BPTT(window=…), with "
            "carry='exact' to carry credit from window to window, or elman.RTRL()"
        )
    if learning.carry is not None and bidirectional:
        raise InputError(
            f"{owner}: bidirectional=True cannot learn with carry={learning.carry!r}: the reverse "
            "direction begins with steps that a stream has not seen yet. Build the layer with "
            "bidirectional=False, or learning=elman.BPTT()"
        )


def check_named(
    owner: str,
    graph: Graph,
    sizes: Mapping[str, int],
    named: Mapping[str, Tensor],
    nodes: int,
    edges: int,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """The inputs of nodes and edges that an equation reads, each of its shape and number type."""
    wanted = {i.name: i for i in graph.inputs}
    for name in named:
        if name not in wanted:
            raise InputError(
                f"{owner}: there is no input {name!r}.{nearest(name, wanted)} The equation reads "
                f"{', '.join(wanted)}"
            )
    for name, declared in wanted.items():
        kind = "edges" if declared.varies == "edge" else "inputs"
        if name not in named:
            raise InputError(f"{owner}: the equation reads {name!r}; give {kind}={{{name!r}: …}}")
        shape = (edges if kind == "edges" else nodes, *shape_of(declared.dims, sizes))
        if tuple(named[name].shape) != shape:
            raise SizeError(
                f"{owner}: {name} has shape {tuple(named[name].shape)}; expected {shape}"
            )
        check_dtype(owner, named[name], dtype)
    return {name: named[name] for name in wanted}


def check_input(
    owner: str, x: Tensor, input_size: int, dtype: torch.dtype, *, batch_first: bool
) -> None:
    """Check an input in its public form, (time, input) or with a batch before or after time."""
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(
            f"{owner}: x is a {type(x).__name__}; give a tensor or a PackedSequence"
        )
    shape = tuple(x.shape)
    if x.dim() not in (2, 3):
        noun = "D tensor instead" if owner == "RNN" else "D instead"
        raise SizeError(
            f"{owner}: Expected input to be 2D or 3D, got {x.dim()}{noun}. x has shape {shape}; "
            f"give (time, input) or {_batched(batch_first)}"
        )
    check_dtype(owner, x, dtype)
    if shape[-1] != input_size:
        hint = "" if x.dim() == 2 or batch_first else " Is the layer batch_first?"
        raise SizeError(
            f"input.size(-1) must be equal to input_size. Expected {input_size}, got {shape[-1]}. "
            f"{owner}: x has {shape[-1]} features in its last dimension (shape {shape}); "
            f"input_size is {input_size}.{hint}"
        )
    time = shape[1] if x.dim() == 3 and batch_first else shape[0]
    if time == 0:
        raise SizeError(
            f"Expected sequence length to be larger than 0 in RNN. {owner}: x has shape {shape}, "
            "so no step at all; give at least one"
        )


def check_dtype(owner: str, x: Tensor, dtype: torch.dtype) -> None:
    """Check that the input has the number type of the weights, unless autocast is at work."""
    if x.dtype != dtype and not torch._C._is_any_autocast_enabled():
        raise SizeError(
            f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
            f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype}). "
            f"{owner}: x and the layer's parameters must be of one type"
        )


def _batched(batch_first: bool) -> str:
    return "(batch, time, input)" if batch_first else "(time, batch, input)"


def check_lengths(
    owner: str, lengths: object, time: int, batch: int, device: torch.device
) -> Tensor:
    """Check the real lengths of the rows and return them as an int64 tensor.

    Every length is at least 1 and at most the number of steps of the input.
    """
    try:
        tensor = torch.as_tensor(lengths, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"{owner}: lengths is a {type(lengths).__name__}; give one whole number for each of "
            f"the {batch} rows"
        ) from error
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
        raise SizeError(f"{owner}: lengths are of type {tensor.dtype}; give whole numbers (int64)")
    if tuple(tensor.shape) != (batch,):
        raise SizeError(
            f"{owner}: lengths has shape {tuple(tensor.shape)}; expected ({batch},), one whole "
            "number for each row of x"
        )
    tensor = tensor.to(torch.int64)
    if batch and (int(tensor.min()) < 1 or int(tensor.max()) > time):
        row = int(((tensor < 1) | (tensor > time)).nonzero()[0])
        raise SizeError(
            f"{owner}: lengths[{row}] is {int(tensor[row])}; each length must be at least 1 and at "
            f"most {time}, the number of steps of x"
        )
    return tensor


def check_resets(owner: str, resets: object, shape: tuple[int, ...]) -> Tensor | None:
    """Check the marks of segment starts, booleans shaped as x without its features; return them."""
    if resets is None:
        return None
    if not isinstance(resets, Tensor) or resets.dtype != torch.bool:
        got = resets.dtype if isinstance(resets, Tensor) else type(resets).__name__
        raise ArgumentTypeError(
            f"{owner}: resets is of type {got}; give a tensor of booleans of shape {shape}"
        )
    if tuple(resets.shape) != shape:
        raise SizeError(
            f"{owner}: resets has shape {tuple(resets.shape)}; expected {shape}, as x without its "
            "features"
        )
    return resets


def check_state_dims(
    owner: str, state: tuple[Tensor, ...], ranks: Sequence[int], *, batched: bool
) -> None:
    """Check that vector states are 3-D for a batched input and 2-D for an unbatched one.

    `ranks` has the number of sizes of each state itself: 1 for a vector.
    """
    want = 3 if batched else 2
    if all(s.dim() == want + rank - 1 for s, rank in zip(state, ranks, strict=True)):
        return
    if any(rank != 1 for rank in ranks):
        lead = "(layers·directions, batch" if batched else "(layers·directions"
        wanted = ", ".join(lead + ", size" * rank + ")" for rank in ranks)
        got = ", ".join(str(tuple(s.shape)) for s in state)
        raise SizeError(f"{owner}: the states have the shapes {wanted}; got {got}")
    form = "batched 3-D" if batched else "unbatched 2-D"
    if len(state) == 2:
        got = ", ".join(f"{s.dim()}-D" for s in state)
        first = f"For {form} input, hx and cx should also be {want}-D but got ({got}) tensors"
    else:
        got = state[0].dim()
        first = f"For {form} input, hx should also be {want}-D but got {got}-D tensor"
    sizes = "(layers·directions, batch, size)" if batched else "(layers·directions, size)"
    raise SizeError(f"{first}. {owner}: each state has the shape {sizes}")


def check_state(
    owner: str, name: str, place: str, state: Tensor, expected: tuple[int, ...], like: Tensor
) -> None:
    """Check the shape, number type and device of one given state."""
    if tuple(state.shape) != expected:
        raise SizeError(
            f"Expected {place} size {expected}, got {list(state.shape)}. {owner}: the state "
            f"{name} has shape {tuple(state.shape)}; expected {expected}"
        )
    if state.dtype != like.dtype and not torch._C._is_any_autocast_enabled():
        raise SizeError(
            f"{owner}: the state {name} is of type {state.dtype}, x of type {like.dtype}; convert "
            f"one of them"
        )
    if state.device != like.device:
        raise SizeError(f"{owner}: the state {name} is on {state.device}, x on {like.device}")


def check_further(
    owner: str, name: str, value: object, expected: tuple[int, ...], like: Tensor
) -> None:
    """Check a further input of the cell against the shape that goes with x."""
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(
            f"{owner}: the input {name} is a {type(value).__name__}; give a tensor"
        )
    if tuple(value.shape) != expected:
        raise SizeError(
            f"{owner}: the input {name} has shape {tuple(value.shape)}; expected {expected} "
            f"beside x of {tuple(like.shape)}"
        )
    if value.dtype != like.dtype or value.device != like.device:
        raise SizeError(
            f"{owner}: the input {name} is {value.dtype} on {value.device}, x is {like.dtype} on "
            f"{like.device}; convert one of them"
        )


def uniform_bound(hidden_size: int) -> float:
    """The bound of torch.nn's initial weights, 1/√hidden."""
    return 1.0 / math.sqrt(hidden_size)
