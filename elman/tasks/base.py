"""What a task is: data, model, loss, metric and baseline, behind one small protocol.

The training loop (`elman.training`) knows only `Task`; it never sees a file or a vocabulary. A task
is built by `elman.tasks.build(name, files, options, ...)`.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import pydantic
from torch import Tensor, nn

from elman.errors import InputError, nearest

Carry = Any  # nested tuples of tensors
Options = TypeVar("Options", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Budget:
    """How much training is planned; what is None is not limited.

    Args:
        minutes: wall-clock minutes, > 0.
        steps: optimiser steps, >= 0.
        epochs: passes over the training data, > 0 (a fraction is allowed).
    """

    minutes: float | None = None
    steps: int | None = None
    epochs: float | None = None


class TaskOptions(pydantic.BaseModel):
    """Base of a task's options: strict types, no unknown keys, no silent conversions."""

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


class EmptyShare(Exception):
    """Nothing of a step's batch is this process's; the loop takes it as no gradient at all."""


class Task(abc.ABC):
    r"""Data, model, loss, metric and baseline of one job, as the training loop sees them.

    The loop over optimiser steps s = 0, 1, ... is

    .. math::

        carry \leftarrow start(s) \text{ if not None}, \qquad
        (\ell_s, carry, n_s) = loss(batch(s), carry)

    so that everything the loop must save for an exact resume is: the weights, the optimiser, the
    random states, s, and carry. Data order is no part of it: ``batch(s)`` is a pure function of s
    and the seed.

    Attributes:
        name: name of the task, "lm".
        metric: key of `validate` that is minimised (best checkpoint, early stopping).
        unit: what `loss` is a mean over and counts, in the singular ("token", "node"); the key
            "nats_per_" + unit of `validate`, or "loss", where there is one, is the same loss.
        model: the network; made by the constructor on the CPU from the task's seed (the global
            random state of torch is left as it was). The loop may move it to a device; the task
            follows the device of the model's parameters.
        config: every option, resolved (nothing left to be chosen): building again from the same
            files, ``config`` and seed gives an equal task.
        seed: seed of the data order and of the initial weights.
        recommended: training options this task suggests, by the names of TrainingOptions
            ("lr", "optimizer", "ema", "clip_norm", "warmup", ...). An option the user gave wins.
        fingerprint: hex digest of the data; a resumed run whose data differ is refused.
        steps_per_epoch: optimiser steps in one pass over the training data, >= 1.
        carries: whether credit is carried from step to step beside the states.
        shared: whether several processes can share a batch: `batch` takes of the examples of a
            step those that `mine` returns, and `loss` is such a mean that the means of the shares,
            weighted by their counts, make up the mean of the whole batch.
        validation_units: units of the whole validation part, where `validate` takes time by them;
            of a very large one, a smaller part is used while the run goes on.
        rank, world: number of this process, from 0, and of all; the run sets them.
    """

    name: ClassVar[str]
    metric: str
    unit: ClassVar[str] = "token"
    model: nn.Module
    config: pydantic.BaseModel
    seed: int
    recommended: dict[str, Any]
    fingerprint: str
    steps_per_epoch: int
    carries: bool = False
    shared: bool = False
    validation_units: int | None = None
    rank: int = 0
    world: int = 1

    @abc.abstractmethod
    def describe(self) -> list[str]:
        """Say what was detected and chosen, one line each, printed before training."""

    @abc.abstractmethod
    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return the CPU tensors of optimiser step `step`, counted from 0 over all epochs.

        A pure function of the step and the seed, and, if the task is `shared`, of `rank` and
        `world`. The loop moves the tensors to the device.
        """

    def mine(self, examples: np.ndarray) -> np.ndarray:
        """Return which of the examples of a step this process learns from; alone, all of them.

        Raises:
            EmptyShare: none, as there are more processes than examples.
        """
        if self.world == 1:
            return examples
        share = examples[self.rank :: self.world]
        if not len(share):
            raise EmptyShare
        return share

    def divide(self, carry: Carry) -> Carry:
        """Return this process's part of the carry of a whole batch."""
        if carry is not None and self.world > 1:
            raise NotImplementedError(f"the task {self.name!r} has a carry and does not divide it")
        return carry

    def unite(self, parts: Sequence[Carry]) -> Carry:
        """Return the carry of the whole batch, of the parts of all processes in order."""
        if len(parts) > 1 and any(part is not None for part in parts):
            raise NotImplementedError(f"the task {self.name!r} has a carry and does not unite it")
        return parts[0]

    @abc.abstractmethod
    def start(self, step: int) -> Carry | None:
        """Return a new carry (on the model's device) if a stream begins at this step, else None.

        At step 0 it is never None, unless the task has no carry at all: then `loss` is given None.
        """

    @abc.abstractmethod
    def loss(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry, int]:
        """Return the mean loss per unit in nats, the detached next carry, and the count of units.

        The loss is a float32 tensor without dimensions, differentiable by the model's parameters.
        Penalties (L1, L2) are the loop's. The model is in training mode; precision (autocast) is
        the loop's as well.
        """

    def exact(self, batch: tuple[Tensor, ...], carry: Carry) -> tuple[Tensor, Carry]:
        """Return the loss with exact credit for all the past, and its own next carry.

        It is `loss` with another learning method, for the fidelity meter; the model and its
        weights are the same.

        Args:
            batch: as in `loss`.
            carry: as this method returned it; None begins at the first step.

        Raises:
            InputError: the task, or what it was asked to be, has no exact credit.
        """
        raise InputError(f"train: fidelity: the task {self.name!r} cannot tell its exact gradient.")

    @abc.abstractmethod
    def validate(self, limit: float | None = None) -> dict[str, float]:
        """Measure the model on the validation part.

        The model is in evaluation mode and already holds the weights to be judged (an average of
        weights is swapped in by the loop). No random number is drawn from torch's global generator.

        Args:
            limit: fraction of the validation part to use, in (0, 1]; None is all of it. Which part
                is used depends on `limit` alone.

        Returns:
            metrics by name, `metric` among them.
        """

    def beside_the_metric(self, metrics: Mapping[str, float]) -> str:
        """Return further words for the line of a validation, two blanks before them, or ""."""
        return ""

    @abc.abstractmethod
    def sample(self) -> str | None:
        """Return a short sample to show beside a validation, or None; deterministic in weights."""

    @abc.abstractmethod
    def baseline(self) -> dict[str, Any]:
        """Return a strong simple baseline on the same split: "name", `metric`, "words", more.

        The first call may take seconds; the result is kept.
        """

    def keep_baseline(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the baseline as plain JSON values and tensors, or None where it is not kept.

        The run writes it beside the model, whose `take_baseline` is given it again, so that the
        model can be compared on other data.
        """
        return None

    def keepsake(self) -> dict[str, Any] | None:
        """Return what the pictures of the finished run need, as plain JSON values, or None.

        The model holds the weights that are kept.
        """
        return None

    @abc.abstractmethod
    def verdict(self, metrics: Mapping[str, float]) -> str:
        """Say in words whether these validation metrics beat the baseline, and what to use."""

    @abc.abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Return what a model file holds beside the weights, as plain JSON values.

        ``elman.tasks.model_file.write(path, task.name, task.metadata(), task.model.state_dict())``
        writes the file, and `elman.load` reads it.
        """


def parse_options(
    kind: type[Options], values: Mapping[str, Any], where: str = "options"
) -> Options:
    """Check a mapping against an options class and return it, or say in one line what is wrong.

    Args:
        kind: a pydantic class.
        values: names and values, as a user wrote them; a path may stand for its text.
        where: what the values came from ("config.yaml", "the model file", ...), named in errors.

    Raises:
        InputError: a key that is not known (the nearest known one is named), a value of the wrong
            type or out of range. The first problem is named, in one line.

    Example:
        >>> class Tea(TaskOptions):
        ...     minutes: int = 3
        >>> parse_options(Tea, {"minutes": 4}).minutes
        4
        >>> parse_options(Tea, {"minuts": 4}, "tea.yaml")
        Traceback (most recent call last):
            ...
        elman.errors.InputError: tea.yaml: unknown key 'minuts'. Did you mean 'minutes'?
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: expected names and values, got {type(values).__name__}.")
    unknown = [key for key in values if key not in kind.model_fields]
    if unknown:
        key = unknown[0]
        hint = nearest(str(key), list(kind.model_fields))
        raise InputError(f"{where}: unknown key {key!r}.{hint}")
    plain = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in values.items()}
    try:
        return kind.model_validate(plain)
    except pydantic.ValidationError as error:
        raise InputError(f"{where}: {_sentence(error)}") from None


def _sentence(error: pydantic.ValidationError) -> str:
    """Rewrite the first problem of a pydantic error as one sentence."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    got = f"{first['input']!r}"
    got = got if len(got) <= 60 else got[:57] + "..."
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[:1].lower() + message[1:]
    subject = f"{name} " if name else ""
    return f"{subject}{message}, got {got} ({type(first['input']).__name__})."
