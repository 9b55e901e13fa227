r"""Several processes that train one model: each learns from its share of every batch.

Process 0 leads: it decides, validates, writes and speaks, and tells the others what comes next. The
gradient of a step is that of the whole batch,

.. math::

    g = \frac{\sum_r n_r g_r}{\sum_r n_r}, \qquad
    \ell = \frac{\sum_r n_r \ell_r}{\sum_r n_r}

over the processes r, with n_r the units that process r has learned from: the same as one process
would have found, but for the order of the sums. The model is not wrapped, so a task may call it as
it likes. Every process has the same weights and optimisers, and makes the same steps.
"""

from __future__ import annotations

import enum
import platform
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from elman.errors import ElmanError, InputError, TrainingStopped
from elman.tasks.base import Carry, EmptyShare
from elman.training.checkpoint import Drawn
from elman.training.device import make_fabric
from elman.training.launcher import Launch, launched

Value = TypeVar("Value")
# How long the others wait for process 0, which validates alone. A process that dies is noticed at
# once, by its closed connection.
PATIENCE = timedelta(days=7)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Order(enum.IntEnum):
    """What process 0 tells the others to do next."""

    LEARN = 1
    SAVE = 2
    END = 3
    FAIL = 4


class ProcessFailed(ElmanError):
    """Another process failed; the message is its own."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class Processes:
    """This process among those that train together; alone, every method is what it would be.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes, >= 1.
        leads: whether this is process 0.
        asked: the signal that another process was sent, "SIGINT" or "SIGTERM", if any was.

    Args:
        launch: what the launcher said; None is alone. The processes are connected already.
    """

    def __init__(self, launch: Launch | None = None):
        self.launch = launch
        self.rank, self.world = (0, 1) if launch is None else (launch.rank, launch.world)
        self.leads = self.rank == 0
        self.asked: str | None = None
        self._over = self.world == 1  # nothing more is to be told
        self._gradients: Any = None  # group of the accelerators; None is the one of all the talk

    def compute_on(self, device: torch.device) -> None:
        """Say where the gradients are, before the first step."""
        if self.world > 1 and device.type == "cuda":
            self._gradients = distributed.new_group(backend="nccl")

    # -- what process 0 decides --------------------------------------------------------------

    def tell(self, order: Order, value: float = 0.0) -> None:
        """Tell the other processes what comes next; of process 0 only."""
        if self.leads and not self._over:
            self._over = order in (Order.END, Order.FAIL)
            with self._connected():
                distributed.broadcast(torch.tensor([float(order), value], dtype=torch.float64), 0)

    def hear(self) -> tuple[Order, float]:
        """Wait for what process 0 tells, and return it."""
        told = torch.zeros(2, dtype=torch.float64)
        with self._connected():
            distributed.broadcast(told, 0)
        order, value = told.tolist()
        return Order(int(order)), value

    def fail(self, error: Exception | None) -> None:
        """Tell the other processes that this one, which leads, has failed; they fail with it.

        Args:
            error: of process 0; None in the others, which were told so.

        Raises:
            ProcessFailed: in the others.
        """
        if self.leads:
            if not self._over and error is not None:
                self.tell(Order.FAIL)
                self._broadcast(_told(error))
            return
        raise ProcessFailed(*self._broadcast(None))

    def lead(self, work: Callable[[], Value]) -> Value:
        """Have process 0 do something; all get what it returned, or its error.

        Raises:
            ProcessFailed: process 0 failed (there, the error is its own).
        """
        if self.world == 1:
            return work()
        if not self.leads:
            ok, value = self._broadcast(None)
            if not ok:
                raise ProcessFailed(*value)
            return value
        try:
            value = work()
        except Exception as error:
            self._broadcast((False, _told(error)))
            raise
        self._broadcast((True, value))
        return value

    def first(self, work: Callable[[], Value]) -> Value | None:
        """Have process 0 do something, return it there and None elsewhere; its error is for all."""
        box: list[Value] = []
        self.lead(lambda: box.append(work()))
        return box[0] if box else None

    # -- what all do -------------------------------------------------------------------------

    def together(self, work: Callable[[], Value]) -> Value:
        """Do something in every process; what fails in one fails in all, with one error."""
        if self.world == 1:
            return work()
        try:
            value = work()
        except Exception as error:
            self._fail_together(error)
            raise  # which it has done
        self._fail_together(None)
        return value

    def _fail_together(self, error: Exception | None) -> None:
        """Raise where any process has failed: its own error there, the first one elsewhere."""
        found = self.collect(None if error is None else (*_told(error), platform.node()))
        failed = [(rank, told) for rank, told in enumerate(found) if told is not None]
        if not failed:
            return
        self._over = True
        if error is not None:
            raise error
        rank, (message, code, machine) = failed[0]
        raise ProcessFailed(f"process {rank} of {self.world} (on {machine}): {message}", code)

    def collect(self, value: Value) -> list[Value]:
        """Return what each process has, in order, to all of them."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        with self._connected():
            distributed.all_gather_object(found, value)
        return found

    def gather(self, value: Value) -> list[Value]:
        """Return what each process has, in order, to process 0; an empty list to the others."""
        if self.world == 1:
            return [value]
        found: list[Any] | None = [None] * self.world if self.leads else None
        with self._connected():
            distributed.gather_object(value, found, 0)
        return found or []

    def gather_state(self, model: nn.Module, carry: Carry, drawn: Drawn) -> list[Any]:
        """Return carry and random states of each process to process 0; nothing to the others.

        Raises:
            TrainingStopped: the weights are not the same everywhere.
        """
        if self.world == 1:
            return [(carry, drawn)]
        sums = self.collect(_sum_of(model))
        if any(found != sums[0] for found in sums):
            rank = next(rank for rank, found in enumerate(sums) if found != sums[0])
            raise TrainingStopped(
                f"train: the weights of process {rank} are no longer those of process 0; their "
                "machines do not compute alike. Start all processes on machines of one kind."
            )
        return self.gather((carry, drawn))

    def check_alike(self, facts: dict[str, Any]) -> None:
        """See that all processes would do the same.

        Args:
            facts: what must be equal everywhere, by what it is.

        Raises:
            InputError: something differs; it is named.
        """
        ours = self.collect((platform.node(), facts))
        machine, expected = ours[0]
        for rank, (other, found) in enumerate(ours):
            for name, value in expected.items():
                if found[name] != value:
                    raise InputError(
                        f"train: {name} of process {rank} (on {other}) is {found[name]!r}, and of "
                        f"process 0 (on {machine}) {value!r}; every process must be given the same "
                        "files and options."
                    )

    def equalise(self, model: nn.Module) -> None:
        """Give every process the weights of process 0."""
        if self.world == 1:
            return
        with torch.no_grad(), self._connected():
            for value in (*model.parameters(), *model.buffers()):
                there = value.detach().to("cpu", copy=True)
                distributed.broadcast(there, 0)
                value.copy_(there)

    def combine(
        self,
        parameters: Sequence[nn.Parameter],
        learn: Callable[[], tuple[Tensor, int]],
        received: str | None = None,
    ) -> tuple[float, int]:
        """Make one gradient of those of all shares.

        Args:
            parameters: whose gradients are combined; a gradient that is None everywhere stays so.
            learn: puts the gradients of this process's share in place, and returns its mean loss
                and its count of units.
            received: name of a signal that this process was sent.

        Returns:
            the mean loss and the count of units of the whole batch.

        Raises:
            ProcessFailed: another process failed (where it did, the error is its own).
        """
        if self.world == 1:
            loss, count = learn()
            return float(loss.detach()), count
        mean, count, error = 0.0, 0, None
        try:
            loss, count = learn()
            mean = float(loss.detach())
        except EmptyShare:
            pass
        except Exception as raised:
            error = raised
        grads = [weight.grad for weight in parameters]
        total, mean, failed, there = self._account(mean, count, error is not None, received, grads)
        if failed:
            self._fail_together(error)
        _fill(parameters, there)
        self._sum([w.grad for w in parameters if w.grad is not None], count / max(total, 1))
        return mean, total

    def _account(
        self,
        mean: float,
        count: int,
        failed: bool,
        received: str | None,
        grads: Sequence[Tensor | None],
    ) -> tuple[int, float, bool, list[bool]]:
        """Count over all processes: units, mean loss, whether any failed, which gradients are."""
        sent = [float(received == name.name) for name in _SIGNALS]
        weighted = mean * count if count else 0.0
        own = [float(count), weighted, float(failed), *sent, *(float(g is not None) for g in grads)]
        told = torch.tensor(own, dtype=torch.float64)
        with self._connected():
            distributed.all_reduce(told)
        total, weighted, failures, *rest = told.tolist()
        signals, there = rest[: len(_SIGNALS)], rest[len(_SIGNALS) :]
        for name, times in zip(_SIGNALS, signals, strict=True):
            if times and self.asked is None:
                self.asked = name.name
        return round(total), weighted / max(total, 1.0), failures > 0, [n > 0 for n in there]

    def _sum(self, grads: Sequence[Tensor], weight: float) -> None:
        """Replace gradients by the sum over all processes of weight times theirs."""
        if not grads:
            return
        if weight:
            flat = torch.cat([gradient.flatten() for gradient in grads]).mul_(weight)
        else:  # what is nothing may also be no number
            flat = grads[0].new_zeros(sum(gradient.numel() for gradient in grads))
        with self._connected():
            distributed.all_reduce(flat, group=self._gradients)
        at = 0
        for gradient in grads:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()

    def seed(self, seed: int) -> int:
        """Return the seed of this process's own random numbers, such as its dropout."""
        if self.rank == 0:
            return seed
        return int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0])

    def _broadcast(self, value: Any) -> Any:
        box = [value]
        with self._connected():
            distributed.broadcast_object_list(box, 0)
        return box[0]

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Say in one sentence that another process is gone."""
        try:
            yield
        except RuntimeError as error:
            self._over = True
            raise TrainingStopped(
                f"train: process {self.rank} of {self.world} has lost another one, which ended or "
                "cannot be reached; what was saved is whole, and the run goes on from there "
                f"(resume). ({' '.join(str(error).split())[:200]})"
            ) from error


def _sum_of(model: nn.Module) -> int:
    """A checksum of all weights."""
    found = 0
    for weight in model.parameters():
        data = weight.detach().cpu().contiguous().view(-1).view(torch.uint8)
        found = zlib.crc32(data.numpy().data, found)
    return found


def _fill(parameters: Sequence[nn.Parameter], there: Sequence[bool]) -> None:
    """Give a gradient of zeros to each parameter that has one elsewhere and none here."""
    for weight, somewhere in zip(parameters, there, strict=True):
        if somewhere and weight.grad is None:
            weight.grad = torch.zeros_like(weight)


def _told(error: Exception) -> tuple[str, int]:
    """An error in words and its exit code, to be sent."""
    if isinstance(error, ElmanError):
        return str(error), error.exit_code
    return f"{type(error).__name__}: {error}", 1


def connect() -> Processes:
    """Connect with the processes that the launcher has started; alone where it has not.

    Raises:
        InputError: what the launcher said cannot be, or fits no machine.
    """
    launch = launched()
    if launch is None:
        return Processes()
    make_fabric("cpu", "32", launch, PATIENCE)
    return Processes(launch)
