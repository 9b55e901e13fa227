"""The loop over optimiser steps: learn, write down, validate, save, and stop when it is time."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.errors import TrainingStopped
from elman.tasks import model_file
from elman.tasks.base import Carry, EmptyShare, Task
from elman.training import checkpoint, telling
from elman.training.blowup import diverged, explain, explain_validation
from elman.training.checkpoint import Drawn, Position, Saved
from elman.training.console import Console
from elman.training.device import move
from elman.training.flow import Flow
from elman.training.folder import MetricsFile, RunFolder
from elman.training.judging import Judge
from elman.training.norms import GradientNorms, beside_the_loss
from elman.training.optimise import (
    Average,
    add_penalty_gradients,
    clip,
    make_optimizers,
    penalty,
    set_rate,
)
from elman.training.options import TrainingOptions
from elman.training.processes import Order, Processes
from elman.training.schedule import (
    VALIDATIONS,
    Limit,
    planned_steps,
    rate,
    validation_interval,
)
from elman.training.shadow import Shadow
from elman.training.signals import Interrupted, StopSignals

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_ROWS = 2000  # rows of metrics in a run, about
_LONGEST_WAIT = 600.0  # seconds between validations of a timed run, at most
_CHECKPOINT_SECONDS = 30.0
_VALIDATION_COST = 0.04  # part of a timed run's budget that validations may take
_FIRST_RESERVE = 0.02  # of the budget, kept for the end before the first validation was timed
_MOST_RESERVE = 0.1  # of the budget, kept for the end afterwards


class Loop:
    """One run of training, from wherever it stands to its end.

    Args:
        task: what is learned; its model is on the device of `fabric`.
        options: resolved.
        folder: of the run.
        console: where to say how it goes.
        fabric: device and precision.
        began: `time.monotonic()` when the run was asked for; a timed budget counts from there.
        processes: that train together; None is this one alone.
        signals: what this process is sent.
    """

    def __init__(
        self,
        task: Task,
        options: TrainingOptions,
        folder: RunFolder,
        console: Console,
        fabric: Fabric,
        began: float,
        processes: Processes | None = None,
        signals: StopSignals | None = None,
    ):
        self.task, self.options, self.folder = task, options, folder
        self.processes, self.signals = processes or Processes(), signals or StopSignals()
        self.console, self.fabric = console, fabric
        self.model = task.model
        self.parameters = [w for w in self.model.parameters() if w.requires_grad]
        for weight in self.parameters:
            weight.grad = None  # a task that is used again may hold one from before
        self.optimizers = make_optimizers(self.model, options)
        self.average = Average.of(self.parameters, options.ema) if options.ema else None
        self.judge = Judge(task, options, fabric)
        self._norms = GradientNorms(self.model)
        self._flow = Flow(self.model) if options.flow_penalty else None
        every = options.fidelity
        self._shadow = Shadow(task, self.parameters, every) if every else None
        self.position = Position()
        self.carry: Carry = None
        self._device = fabric.device
        self._began = began
        self._seconds_before = self._progress_before = 0.0
        self._row_time = self._saved_time = time.monotonic()
        self._row_tokens = 0
        self._validation_seconds: float | None = None  # with all that belongs to it
        self._recent: float | None = None
        self._lap = (self._row_time, 0)  # time and tokens, for the speed on the screen
        self._lap_step, self._learning_since = 0, self._row_time
        self._metrics: MetricsFile | None = None
        self._steps = planned_steps(options, task.steps_per_epoch)

    # -- where the run stands ----------------------------------------------------------------

    def resume(self, saved: Saved) -> None:
        """Take up the whole state of a checkpoint."""
        rank, world = self.processes.rank, self.processes.world
        carry = checkpoint.take_up(saved, self.model, self.average, self.optimizers, rank, world)
        self.position = saved.position
        if self._shadow is not None:
            carry, self._shadow.carry = carry
        self.judge.part = saved.position.part
        with suppress(EmptyShare):
            self.carry = self.task.divide(carry)
        self._seconds_before = self.position.seconds
        self._progress_before = self.progress()
        self._row_tokens = self.position.tokens
        self._lap = (time.monotonic(), self.position.tokens)

    def seconds(self) -> float:
        """Return the seconds of the budget used so far."""
        return self._seconds_before + time.monotonic() - self._began

    def limit(self) -> Limit:
        """Return what ends the run; a timed one keeps the time for its last validation."""
        if self.options.minutes is None:
            return Limit(self._steps, None)
        whole = 60.0 * self.options.minutes
        reserve = _FIRST_RESERVE * whole
        needed = self.judge.reserve(self.seconds())
        if needed is not None:
            reserve = min(needed + 0.2, _MOST_RESERVE * whole)
        return Limit(self._steps, whole - reserve)

    def progress(self) -> float:
        """Return the used part of the budget, in [0, 1]."""
        return self.limit().progress(self.position.step, self.seconds())

    # -- the run -----------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end of the budget, or until patience ends or a signal comes.

        Process 0 runs; the others `follow` it.

        Raises:
            TrainingStopped: a loss, gradient or validation that is not finite.
            Interrupted: a signal came; the run is saved.
        """
        self._metrics = MetricsFile(self.folder.metrics)
        self._learning_since = time.monotonic()
        self.model.train()
        try:
            if self.position.step == 0:
                self.position.validated_seconds = self.seconds()  # reading took its time before
                self.save()
            self._run()
            self.processes.tell(Order.END)
        except Exception as error:
            self.processes.fail(error)
            raise
        finally:
            self._metrics.close()

    def follow(self) -> None:
        """Do as process 0 tells, until the end.

        Raises:
            ProcessFailed: process 0, or another, has failed.
        """
        self.model.train()
        while True:
            order, progress = self.processes.hear()
            if order is Order.LEARN:
                self._learn(progress)
            elif order is Order.SAVE:
                self._collect()
            elif order is Order.FAIL:
                self.processes.fail(None)
            else:
                return

    def _run(self) -> None:
        position = self.position
        while position.ended is None:
            progress = self.progress()
            if progress >= 1.0:
                position.ended = self._budget_used()
                break
            self._learn(progress)
            if self._row_is_due():
                self._write_row()
            validated = self._validation_is_due()
            if validated:
                self._validate()
                if self.options.patience and position.waiting >= self.options.patience:
                    position.ended = f"no gain in {position.waiting} validations"
            if validated or self._checkpoint_is_due():
                self.save()
            received = self.signals.received or self.processes.asked
            if received and position.ended is None:
                self._interrupt(received)
            if self.console.due():
                self._draw()
        if position.since[3]:
            self._write_row()
        if position.best is None or position.validated_step != position.step:
            self._validate()
        self.save()

    def _budget_used(self) -> str:
        steps_done = self._steps is not None and self.position.step >= self._steps
        if not steps_done:
            return f"{self.options.minutes:g} minutes"
        epochs = self.options.epochs
        return f"{self._steps} steps" if epochs is None else f"{epochs:g} epochs"

    def _learn(self, progress: float) -> None:
        """Make one optimiser step."""
        position, options = self.position, self.options
        self.processes.tell(Order.LEARN, progress)
        beside: dict[str, float] = {}
        value, count = self.processes.combine(
            self.parameters, lambda: self._differentiate(beside), self.signals.received
        )
        if options.l1 or options.l2:
            add_penalty_gradients(self.parameters, options.l1, options.l2)
        gradients = [w.grad for w in self.parameters if w.grad is not None]
        norm, norms = self._norms.measure()
        self._set_rate(progress)
        if not (math.isfinite(value) and math.isfinite(norm)):
            if not self.processes.leads:
                return  # process 0 says so
            self._stop_not_finite(value)
        clip(gradients, norm, options.clip_norm, options.clip_value)
        for optimizer in self.optimizers:
            optimizer.step()
        for weight in self.parameters:
            weight.grad = None
        position.step += 1
        if self.average is not None:
            self.average.update(position.step)
        position.add(value, count, norm)
        beside |= {f"norm of {group}": size for group, size in norms.items()}
        for name, size in beside.items():
            position.beside[name] = position.beside.get(name, 0.0) + size
        if self._recent is None:  # the first step of a process is slow, and says nothing of speed
            self._lap, self._lap_step = (time.monotonic(), position.tokens), position.step
        self._recent = value if self._recent is None else 0.97 * self._recent + 0.03 * value

    def _differentiate(self, beside: dict[str, float]) -> tuple[Tensor, int]:
        """Put the gradients of the batch, or of this process's share, in place.

        Args:
            beside: is given what stands beside the loss.
        """
        step = self.position.step
        fresh = self.task.start(step)
        if fresh is not None:
            self.carry = fresh
        batch = move(self.task.batch(step), self._device)
        drawn = torch.get_rng_state()
        watching = nullcontext() if self._flow is None else self._flow.watching()
        with self.fabric.autocast(), watching:
            loss, self.carry, count = self.task.loss(batch, self.carry)
        self.fabric.backward(loss)
        if self._shadow is not None:
            self._compare(step, batch, drawn)
        if self._flow is not None:
            beside["flow"] = self._flow.add_gradient(self.options.flow_penalty)
        return loss, count

    def _compare(self, step: int, batch: tuple[Tensor, ...], drawn: Tensor) -> None:
        """Have the shadow follow a step, and write down what it found."""
        gradients = [weight.grad for weight in self.parameters]
        found = self._shadow.step(step, batch, drawn, gradients) if self._shadow else None
        if found is not None:
            self._write({"kind": "fidelity", "step": step + 1, **found})

    def _set_rate(self, progress: float) -> None:
        options = self.options
        self._factor = rate(
            progress,
            options.schedule,
            warmup=options.warmup,
            decay_from=options.decay_from,
            final=options.final_lr,
        )
        set_rate(self.optimizers, self._factor)

    # -- what is due -------------------------------------------------------------------------

    def _row_is_due(self) -> bool:
        if self._steps is not None and self.options.minutes is None:
            return self.position.step % max(1, self._steps // _ROWS) == 0
        wait = 60.0 * (self.options.minutes or 1.0) / _ROWS
        return time.monotonic() - self._row_time >= wait

    def _validation_is_due(self) -> bool:
        step = self.position.step
        if self.options.validate_every:
            return step % self.options.validate_every == 0
        if self._steps is not None and self.options.minutes is None:
            return step % validation_interval(self._steps, self.task.steps_per_epoch) == 0
        whole = 60.0 * (self.options.minutes or 1.0)
        wait = min(whole / VALIDATIONS, _LONGEST_WAIT)
        if self._validation_seconds is not None:
            wait = max(wait, self._validation_seconds / _VALIDATION_COST)
        return self.seconds() - self.position.validated_seconds >= wait

    def _checkpoint_is_due(self) -> bool:
        if self.options.checkpoint_every:
            return self.position.step % self.options.checkpoint_every == 0
        return time.monotonic() - self._saved_time >= _CHECKPOINT_SECONDS

    # -- what is written down ----------------------------------------------------------------

    def _write_row(self) -> None:
        position, options = self.position, self.options
        now = time.monotonic()
        total, tokens, norms, steps, largest = position.since
        speed = (position.tokens - self._row_tokens) / max(now - self._row_time, 1e-9)
        row: dict[str, Any] = {
            "kind": "train",
            "step": position.step,
            "loss": total / tokens,
            "gradient_norm": norms / steps,
            "gradient_norm_max": largest,
            "lr": options.lr * self._factor,
            "tokens": position.tokens,
        }
        if options.l1 or options.l2:
            row["penalty"] = penalty(self.parameters, options.l1, options.l2)
        row |= beside_the_loss({n: v / steps for n, v in position.beside.items()}, self.carry)
        row["seconds"] = round(self.seconds(), 3)
        row["tokens_per_second"] = round(speed)
        self._write(row)
        position.since, position.beside = [0.0, 0.0, 0.0, 0.0, 0.0], {}
        self._row_time, self._row_tokens = now, position.tokens

    def _write(self, row: dict[str, Any]) -> None:
        if self._metrics is not None:
            self._metrics.write(row)

    def save(self) -> None:
        """Write the last checkpoint."""
        self.processes.tell(Order.SAVE)
        carry, drawn = self._collect()
        self.position.seconds = self.seconds()
        if self._metrics is not None:
            self._metrics.sync()
        checkpoint.save(
            self.folder.last,
            self.position,
            self.model,
            self.average,
            self.optimizers,
            carry if self._shadow is None else (carry, self._shadow.carry),
            drawn,
        )
        self._saved_time = time.monotonic()

    def _collect(self) -> tuple[Carry, list[Drawn]]:
        """Return the carry of all streams and the random states of every process, to process 0."""
        found = self.processes.gather_state(self.model, self.carry, checkpoint.random_state())
        if not found:
            return None, []
        return self.task.unite([carry for carry, _ in found]), [drawn for _, drawn in found]

    def _validate(self) -> None:
        """Judge the weights (their average, if there is one) and keep them if they are the best."""
        position, task = self.position, self.task
        began, speed = time.monotonic(), self._tokens_per_second()
        if position.part is None:
            position.part = self.judge.choose_part(self._steps_foreseen(), speed)
        if self.average is not None:
            self.average.swap()
        metrics, sample = self.judge.judge(sample=not self.console.quiet)
        value = metrics[task.metric]
        if not math.isfinite(value):
            self._stop_not_finite(value, validation=True)
        better = position.best is None or value < position.best
        if better:
            position.best, position.best_step = value, position.step
            position.best_metrics, position.waiting = metrics, 0
            write_model(self.folder.best, task)
        else:
            position.waiting += 1
        if self.average is not None:
            self.average.swap()
        position.metrics, position.validated_step = metrics, position.step
        self._validation_seconds = time.monotonic() - began
        position.validated_seconds = self.seconds()
        row = {"kind": "validation", "step": position.step, **metrics, "best": better}
        self._write({**row, "seconds": round(position.validated_seconds, 3)})
        self._say_validation(sample, speed)
        self._row_time, self._row_tokens = time.monotonic(), position.tokens
        self._lap = (self._row_time, position.tokens)

    def _steps_foreseen(self) -> int | None:
        """Return the steps of the whole run, as far as they can be foreseen."""
        steps = self._steps
        if self.options.minutes is not None:
            done = self.position.step - self._lap_step
            # After the first step of a process, whose length alone is known, that is the pace.
            since = self._lap[0] if done else self._learning_since
            pace = (time.monotonic() - since) / max(done, 1)
            left = 60.0 * self.options.minutes - self.seconds()
            steps = self.position.step + round(max(left, 0.0) / max(pace, 1e-6))
            steps = steps if self._steps is None else min(steps, self._steps)
        return steps

    def judged_part(self) -> float:
        """Return the part of the validation text that the final metrics are on."""
        return self.judge.final_part(self.seconds())

    def finish(self) -> dict[str, float]:
        """Take the best weights as the model and return their metrics, in full precision."""
        found = self.judge.finish(self.folder.best, self.seconds())
        return dict(self.position.best_metrics) if found is None else found

    def divergence(self, metrics: dict[str, float]) -> str:
        """Say that the loss, though finite, ended far above the first one; "" where it did not.

        Args:
            metrics: of the last judgement.
        """
        task, unit = self.task, self.task.unit
        judged = metrics.get("loss", metrics[task.metric])
        validation = metrics.get(f"nats_per_{unit}", judged)
        losses = {"training": self._recent, "validation": validation}
        return diverged(self.position.first, losses, self.options, unit)

    # -- what is said ------------------------------------------------------------------------

    def _tokens_per_second(self) -> float:
        """Return the speed since the latest validation, or since the first step."""
        then, tokens = self._lap
        return (self.position.tokens - tokens) / max(time.monotonic() - then, 1e-9)

    def _draw(self) -> None:
        progress = self.progress()
        position = self.position
        used = max(self.seconds() - self._seconds_before, 1e-9)
        done = max(progress - self._progress_before, 1e-9)
        left = used * (1.0 - progress) / done
        if self.options.minutes is not None and self._steps is None:
            left = 60.0 * self.options.minutes - self.seconds()
        speed = self._tokens_per_second()
        text = telling.beside_the_bar(self.task, position, self._recent or 0.0, speed, left)
        self.console.draw(progress, text)

    def _say_validation(self, sample: str | None, speed: float) -> None:
        self.console.say(
            telling.validation(
                self.task, self.position, self._recent, self.progress(), self.seconds(), speed
            )
        )
        if sample:
            self.console.say("    " + " ".join(sample.split())[:92])

    def _interrupt(self, name: str) -> None:
        self.save()
        where = self.folder.path
        raise Interrupted(
            f"stopped by {name} after step {self.position.step}, and saved in {where}. "
            f"Go on with: elman train {self.task.name} --run {where} --resume",
            name,
        )

    def _stop_not_finite(self, value: float, validation: bool = False) -> None:
        position, options = self.position, self.options
        if validation:
            if self.average is not None:
                self.average.swap()
            lines = explain_validation(position.step, value, options)
        else:
            step_rate = options.lr * self._factor
            lines = explain(self.model, position.step + 1, value, step_rate, options)
        good = checkpoint.read(self.folder.last).position.step
        lines.append(
            f"The last good checkpoint, of step {good}, is kept in {self.folder.path}; go on from "
            "there (resume) with what you change."
        )
        raise TrainingStopped(" ".join(lines))


def write_model(path: Path, task: Task) -> None:
    """Write the weights a task's model has now as a model file."""
    model_file.write(path, task.name, task.metadata(), task.model.state_dict())
