"""The report of a conversion, and the measurement in it: same outputs? at what speed?"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elman.errors import InputError


@dataclass(frozen=True)
class Replaced:
    """A module that was replaced: its names in the model, and what it was and is."""

    names: tuple[str, ...]
    before: str
    after: str

    def __str__(self) -> str:
        return f"{_named(self.names)}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Left:
    """A recurrent module that was left alone: its names in the model, its class, and why."""

    names: tuple[str, ...]
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{_named(self.names)}: {self.kind}; {self.reason}"


@dataclass(frozen=True)
class Speed:
    """Median seconds before and after; `ratio` above 1 says that it is faster now."""

    before: float
    after: float

    @property
    def ratio(self) -> float:
        return self.before / self.after

    def __str__(self) -> str:
        return (
            f"{1e3 * self.before:.3g} ms before, {1e3 * self.after:.3g} ms after "
            f"({self.ratio:.2f} times the speed)"
        )


@dataclass(frozen=True)
class Conversion:
    """What `elman.convert` or `elman.revert` did to a model; print it.

    Attributes:
        model: the model.
        replaced, left: the recurrent modules that were replaced, and those left alone.
        difference: the largest absolute difference of an output on the sample, in evaluation mode.
        scale: the largest absolute value of an output on the sample.
        forward: the times of a forward pass, in evaluation mode without gradients.
        forward_backward: the times of a forward and backward pass, in training mode.
        note: what else is to be known of the measurement: that the model gives another output each
            time, or why a backward pass was not timed.
    """

    model: nn.Module
    replaced: tuple[Replaced, ...]
    left: tuple[Left, ...] = ()
    difference: float | None = None
    scale: float | None = None
    forward: Speed | None = None
    forward_backward: Speed | None = None
    note: str | None = None

    def __str__(self) -> str:
        count, total = len(self.replaced), len(self.replaced) + len(self.left)
        lines = [f"{count} of {total} recurrent module{'s' * (total != 1)} replaced"]
        lines += [f"  {row}" for row in self.replaced]
        if self.left:
            lines += ["Left alone", *(f"  {row}" for row in self.left)]
        if self.difference is not None:
            reach = f" (outputs up to {self.scale:.2g})" if self.difference else ""
            lines.append(f"On the sample: largest output difference {self.difference:.1e}{reach}")
        for words, speed in (
            ("forward", self.forward),
            ("forward and backward", self.forward_backward),
        ):
            if speed is not None:
                lines.append(f"  {words}: {speed}")
        if self.note:
            lines.append(f"  {self.note}")
        return "\n".join(lines)

    def __getattr__(self, name: str) -> Any:
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        if not name.startswith("_") and hasattr(self.model, name):
            message += f"; this is the report of a conversion, the model is its .model.{name}"
        raise AttributeError(message)


class _Change(Protocol):
    def do(self) -> None: ...
    def undo(self) -> None: ...


class Swaps:
    """Several changes that are done and undone together."""

    def __init__(self, changes: Sequence[_Change]):
        self.changes, self.done = changes, False

    def do(self) -> None:
        if not self.done:
            for change in self.changes:
                change.do()
        self.done = True

    def undo(self) -> None:
        if self.done:
            for change in self.changes:
                change.undo()
        self.done = False


def measure(model: nn.Module, swaps: Swaps, sample: Any, repeats: int) -> dict[str, Any]:
    """Run the sample before and after; the fields of a `Conversion` that say how they compare.

    The swaps end undone, as they came.

    Raises:
        InputError: the sample does not run, before or after, or gives no tensors.
    """
    run = _runner(sample)
    if not swaps.changes:
        return {}
    with _undisturbed(model) as modules, _undone(swaps):
        training = [module.training for module in modules]
        for module in modules:
            module.training = False
        result: dict[str, Any] = _differences(model, swaps, run)
        if repeats:
            result["forward"] = _in_turns(model, swaps, repeats, lambda: _forward(model, run))
            # A model that came in evaluation mode throughout is timed as if it were trained.
            for module, own in zip(modules, training, strict=True):
                module.training = own or not any(training)
            speed, why = _time_backward(model, swaps, run, repeats)
            result["forward_backward"] = speed
            if why:
                found = [result.get("note"), f"forward and backward is not timed: {why}"]
                result["note"] = "; ".join(filter(None, found))
    return result


def _differences(model: nn.Module, swaps: Swaps, run: Callable[[nn.Module], Any]) -> dict[str, Any]:
    before, again = (_outputs(model, run, "as it came") for _ in range(2))
    swaps.do()
    after = _outputs(model, run, "with Elman's layers, and did before; the model is as it came")
    if not before:
        raise InputError("convert: the sample's output has no tensors; return some from it")
    result: dict[str, Any] = {
        "difference": _difference(before, after),
        "scale": max(float(t.abs().max()) if t.numel() else 0.0 for t in before),
    }
    if own := _difference(before, again):
        result["note"] = f"the model as it came differs from itself by {own:.1e} on a second run"
    return result


def _outputs(model: nn.Module, run: Callable[[nn.Module], Any], when: str) -> list[Tensor]:
    """The sample's outputs in double precision, from one fixed random state."""
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            found = list(_tensors(run(model)))
    except Exception as error:
        raise InputError(
            f"convert: the sample does not run through the model {when} "
            f"({type(error).__name__}: {error})"
        ) from error
    wide = [t.to(torch.complex128 if t.is_complex() else torch.float64) for t in found]
    return [t.detach().clone() for t in wide]


def _difference(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference; equal infinities and two NaN are none, another shape is infinite."""
    if [t.shape for t in one] != [t.shape for t in other]:
        return math.inf
    largest = 0.0
    for a, b in zip(one, other, strict=True):
        same = (a == b) | (a.isnan() & b.isnan())
        gap = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=math.inf)
        largest = max(largest, float(gap.max()) if gap.numel() else 0.0)
    return largest


def _forward(model: nn.Module, run: Callable[[nn.Module], Any]) -> None:
    with torch.no_grad():
        run(model)


def _backward(model: nn.Module, run: Callable[[nn.Module], Any]) -> bool:
    """Forward and backward without touching `.grad`; whether there was a gradient to compute."""
    with torch.enable_grad():
        outputs = [t for t in _tensors(run(model)) if t.requires_grad]
        if not outputs:
            return False
        wanted = [p for p in model.parameters() if p.requires_grad]
        seeds = [torch.ones_like(t) for t in outputs]
        torch.autograd.grad(outputs, wanted, seeds, allow_unused=True)
    return True


def _time_backward(
    model: nn.Module, swaps: Swaps, run: Callable[[nn.Module], Any], repeats: int
) -> tuple[Speed | None, str]:
    """The times, or none and why."""
    swaps.undo()
    try:
        if not _backward(model, run):
            return None, "no output depends on a parameter with a gradient"
    except Exception as error:
        # In training mode the model may ask more of a sample, say two rows for a batch norm.
        return None, f"{type(error).__name__}: {error}"
    return _in_turns(model, swaps, repeats, lambda: _backward(model, run)), ""


def _in_turns(model: nn.Module, swaps: Swaps, repeats: int, call: Callable[[], object]) -> Speed:
    """Time a call before and after, in turns, so that both see the same machine."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        # Now the one goes first, now the other; the very first turn is to warm up.
        for after in (False, True) if turn % 2 else (True, False):
            swaps.do() if after else swaps.undo()
            took = _seconds(model, call)
            if turn:
                seconds[after].append(took)
    return Speed(*(statistics.median(times) for times in seconds))


def _seconds(model: nn.Module, call: Callable[[], object]) -> float:
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    for device in devices:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    for device in devices:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _runner(sample: Any) -> Callable[[nn.Module], Any]:
    """How a sample goes through a model."""
    if isinstance(sample, Tensor | PackedSequence):
        return lambda model: model(sample)
    if isinstance(sample, tuple):
        return lambda model: model(*sample)
    if isinstance(sample, Mapping) and all(isinstance(name, str) for name in sample):
        return lambda model: model(**sample)
    if callable(sample):
        return sample
    raise InputError(
        f"convert: sample is a {type(sample).__name__}; give a tensor, a tuple of arguments, a "
        "dict of keyword arguments, or a function of the model that returns its output"
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a nested output, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


@contextmanager
def _undone(swaps: Swaps) -> Generator[None]:
    try:
        yield
    finally:
        swaps.undo()


@contextmanager
def _undisturbed(model: nn.Module) -> Generator[list[nn.Module]]:
    """The model's modules; their flags, buffers and the random states are put back at the end."""
    modules = list(model.modules())
    flags = [module.training for module in modules]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(sorted(device.index for device in devices)):
        try:
            yield modules
        finally:
            for module, flag in zip(modules, flags, strict=True):
                module.training = flag
            with torch.no_grad():
                for module, name, buffer, value in buffers:
                    buffer.copy_(value)
                    module._buffers[name] = buffer


def _named(names: tuple[str, ...]) -> str:
    first, *others = (name or "(the model itself)" for name in names)
    return f"{first} (also {', '.join(others)})" if others else first
