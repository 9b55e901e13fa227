"""The whole state of a run as one file, from which it goes on to the same bits.

A checkpoint is a safetensors file with JSON beside the tensors (`elman.tasks.model_file`), written
aside, flushed to the disk and renamed: a crash leaves the old one or the new one, never a half.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from elman.errors import FileError
from elman.learning import Carried
from elman.tasks import model_file
from elman.tasks.base import Carry
from elman.training.optimise import Average

KIND = "checkpoint"


@dataclass
class Position:
    """Where a run stands: what the loop counts and remembers from step to step.

    Attributes:
        step: optimiser steps done.
        seconds: seconds of the budget used.
        tokens: tokens learned from.
        since: sums since the last row of metrics: loss · tokens, tokens, gradient norms, steps,
            and the largest gradient norm.
        beside: sums since then, by name: the gradient norm of each group of weights ("norm of
            NAME") and the penalty on the flow of the gradient ("flow").
        metrics: of the latest validation.
        best: lowest value of the task's metric so far, `best_step` where, `best_metrics` what else.
        waiting: validations since then.
        part: part of the validation text that is used, in (0, 1].
        validated_step, validated_seconds: where the latest validation was.
        ended: why the run ended, or None while it goes on.
        first: loss of the first step.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    since: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0, 0.0])
    beside: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    waiting: int = 0
    part: float | None = None
    validated_step: int = -1
    validated_seconds: float = 0.0
    ended: str | None = None
    first: float | None = None

    def add(self, loss: float, units: int, norm: float) -> None:
        """Count a step: its mean loss, the units learned from, and the norm of the gradient."""
        self.tokens += units
        if self.first is None:
            self.first = loss
        total, tokens, norms, steps, largest = self.since
        norms, largest = norms + norm, max(largest, norm)
        self.since = [total + loss * units, tokens + units, norms, steps + 1, largest]


@dataclass(frozen=True)
class Drawn:
    """The states of the random generators of one process: numbers, and tensors by name."""

    numbers: dict[str, Any]
    tensors: dict[str, Tensor]


def save(
    path: Path,
    position: Position,
    model: nn.Module,
    average: Average | None,
    optimizers: Sequence[Optimizer],
    carry: Carry,
    drawn: Sequence[Drawn],
) -> None:
    """Write a checkpoint; the file at `path` is the old one until the new one is whole.

    Args:
        carry: of all streams.
        drawn: states of the random generators of each process, by `random_state`.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        tensors[f"model.{name}"] = value
    if average is not None:
        for index, value in enumerate(average.average):
            tensors[f"average.{index}"] = value
    scalars: dict[str, Any] = {}
    for index, optimizer in enumerate(optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                name = f"optimizer.{index}.{number}.{key}"
                (tensors if isinstance(value, Tensor) else scalars)[name] = value
    shape = _flatten(carry, tensors)
    metadata = {
        "position": asdict(position),
        "optimizer": scalars,
        "carry": shape,
        "random": drawn[0].numbers,
    }
    tensors |= drawn[0].tensors
    if len(drawn) > 1:
        metadata["random_beside"] = [other.numbers for other in drawn[1:]]
    for rank, other in enumerate(drawn[1:], 1):
        tensors |= {_beside(rank, name): value for name, value in other.tensors.items()}
    model_file.write(path, KIND, metadata, tensors)


def _beside(rank: int, name: str) -> str:
    return f"process.{rank}.{name}"


@dataclass(frozen=True)
class Saved:
    """The content of a checkpoint, read and not yet taken up."""

    path: Path
    position: Position
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    def drawn(self, rank: int, world: int) -> Drawn | None:
        """Return the random states of a process, None where it drew nothing in this run before."""
        if rank == 0:
            named = {n: v for n, v in self.tensors.items() if n.startswith("random.")}
            return Drawn(self.metadata["random"], named)
        beside = self.metadata.get("random_beside", [])
        if len(beside) != world - 1:
            return None
        prefix = _beside(rank, "")
        named = {n.removeprefix(prefix): v for n, v in self.tensors.items() if n.startswith(prefix)}
        return Drawn(beside[rank - 1], named)


def read(path: Path) -> Saved:
    """Read a checkpoint.

    Raises:
        FileError: the file is damaged or no checkpoint.
    """
    kind, metadata, tensors = model_file.read(path)
    known = {entry.name for entry in fields(Position)}
    found = set(metadata.get("position", ()))
    later = {"first", "beside"}  # an older one may lack these
    if kind != KIND or not known - later <= found <= known:
        raise FileError(f"{path}: this is no checkpoint of a run, but a file of kind {kind!r}.")
    return Saved(path, Position(**metadata["position"]), metadata, tensors)


def take_up(
    saved: Saved,
    model: nn.Module,
    average: Average | None,
    optimizers: Sequence[Optimizer],
    rank: int = 0,
    world: int = 1,
) -> Carry:
    """Put a checkpoint into a model, its average, its optimisers and the random generators.

    Args:
        rank, world: number of this process, and of all. The random generators of process 0 go on
            where they were; those of the others do so where there are as many as before.

    Returns:
        the carry, of all streams, on the model's device.

    Raises:
        FileError: it does not fit the model.
    """
    path, metadata, tensors = saved.path, saved.metadata, saved.tensors
    device = next(model.parameters()).device
    _load_model(path, model, tensors)
    try:
        if average is not None:
            with torch.no_grad():
                for index, value in enumerate(average.average):
                    value.copy_(tensors[f"average.{index}"])
        for index, optimizer in enumerate(optimizers):
            _load_optimizer(index, optimizer, {**tensors, **metadata["optimizer"]})
        carry = _unflatten(metadata["carry"], tensors, device)
        drawn = saved.drawn(rank, world)
        if drawn is None:
            torch.manual_seed(torch.initial_seed() ^ saved.position.step)
        else:
            set_random_state(drawn)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise FileError(f"{path}: this checkpoint does not fit the run: {error}") from error
    return carry


def load_weights(path: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put tensors by name into a model, all of them or none.

    Raises:
        FileError: a tensor is missing, unknown or has another shape; the first is named.
    """
    own = model.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise FileError(f"{path}: there is no tensor {name!r}, which the model has.")
        if tensors[name].shape != value.shape:
            raise FileError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}; "
                f"the model expects {tuple(value.shape)}."
            )
    extra = [name for name in tensors if name not in own]
    if extra:
        raise FileError(f"{path}: it holds a tensor {extra[0]!r} that the model does not have.")
    model.load_state_dict(tensors)


def _load_model(path: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    prefix = "model."
    named = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    load_weights(path, model, named)


def _load_optimizer(index: int, optimizer: Optimizer, values: dict[str, Any]) -> None:
    prefix = f"optimizer.{index}."
    state: dict[int, dict[str, Any]] = {}
    for name, value in values.items():
        if name.startswith(prefix):
            number, key = name.removeprefix(prefix).split(".", 1)
            state.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _flatten(carry: Carry, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of nested tuples into `tensors`; what is left says how they were nested."""
    if carry is None:
        return None
    if isinstance(carry, Tensor):
        name = f"carry.{sum(key.startswith('carry.') for key in tensors)}"
        tensors[name] = carry
        return name
    if isinstance(carry, tuple | list):
        kind = "carried" if isinstance(carry, Carried) else type(carry) is tuple
        return [kind, [_flatten(part, tensors) for part in carry]]
    raise TypeError(f"a carry is made of tensors, tuples, lists and None, not {type(carry)}")


def _unflatten(shape: Any, tensors: dict[str, Tensor], device: torch.device) -> Carry:
    if shape is None:
        return None
    if isinstance(shape, str):
        return tensors[shape].to(device)
    kind, parts = shape
    built = [_unflatten(part, tensors, device) for part in parts]
    if kind == "carried":
        return Carried(*built)
    return tuple(built) if kind else built


def random_state() -> Drawn:
    """Return the states of all random generators of this process."""
    tensors = {"random.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"random.cuda.{index}"] = state
    version, words, python_next = random.getstate()
    tensors["random.python"] = torch.tensor(words)
    name, keys, place, has_next, numpy_next = np.random.get_state()  # noqa: NPY002
    tensors["random.numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    numbers = {
        "python": [version, python_next],
        "numpy": [str(name), int(place), int(has_next), float(numpy_next)],
    }
    return Drawn(numbers, tensors)


def set_random_state(drawn: Drawn) -> None:
    """Put the random generators of this process where they were."""
    tensors = drawn.tensors
    torch.set_rng_state(tensors["random.torch"])
    states = [value for name, value in tensors.items() if name.startswith("random.cuda.")]
    if torch.cuda.is_available() and len(states) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states)
    version, python_next = drawn.numbers["python"]
    random.setstate((version, tuple(tensors["random.python"].tolist()), python_next))
    name, place, has_next, numpy_next = drawn.numbers["numpy"]
    keys = tensors["random.numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, place, has_next, numpy_next))  # noqa: NPY002
