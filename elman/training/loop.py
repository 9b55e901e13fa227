"""The loop over optimiser steps: learn, write down, validate, save, and stop when it is time."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.errors import TrainingStopped
from elman.tasks import model_file
from elman.tasks.base import Carry, Task
from elman.training import checkpoint
from elman.training.blowup import diverged, explain, explain_validation
from elman.training.checkpoint import Position
from elman.training.console import Console, amount, bits, duration, figure, judgement
from elman.training.device import move
from elman.training.flow import Flow
from elman.training.folder import MetricsFile, RunFolder
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
from elman.training.schedule import (
    VALIDATIONS,
    Limit,
    final_part,
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
_LEAST_PART = 0.05  # of the validation text
_CHECKPOINT_SECONDS = 30.0
_VALIDATION_COST = 0.04  # part of a timed run's budget that validations may take
_FIRST_RESERVE = 0.02  # of the budget, kept for the end before the first validation was timed
_MOST_RESERVE = 0.1  # of the budget, kept for the end afterwards
_FINAL_SECONDS = 20.0  # that the last judgement of a timed run may take in any case
_FINAL_SHARE = 0.1  # of the time the run took, which it may take in any case


class Loop:
    """One run of training, from wherever it stands to its end.

    Args:
        task: what is learned; its model is on the device of `fabric`.
        options: resolved.
        folder: of the run.
        console: where to say how it goes.
        fabric: device and precision.
        began: `time.monotonic()` when the run was asked for; a timed budget counts from there.
    """

    def __init__(
        self,
        task: Task,
        options: TrainingOptions,
        folder: RunFolder,
        console: Console,
        fabric: Fabric,
        began: float,
    ):
        self.task, self.options, self.folder = task, options, folder
        self.console, self.fabric = console, fabric
        self.model = task.model
        self.parameters = [w for w in self.model.parameters() if w.requires_grad]
        for weight in self.parameters:
            weight.grad = None  # a task that is used again may hold one from before
        self.optimizers = make_optimizers(self.model, options)
        self.average = Average.of(self.parameters, options.ema) if options.ema else None
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
        self._judging_seconds: float | None = None  # of the task's own part in it
        self._judged: float | None = None  # part of the validation text, at the end
        self._recent: float | None = None
        self._lap = (self._row_time, 0)  # time and tokens, for the speed on the screen
        self._lap_step = 0
        self._metrics: MetricsFile | None = None
        self._steps = planned_steps(options, task.steps_per_epoch)

    # -- where the run stands ----------------------------------------------------------------

    def resume(self) -> None:
        """Take up the whole state of the last checkpoint."""
        self.position, self.carry = checkpoint.load(
            self.folder.last, self.model, self.average, self.optimizers
        )
        if self._shadow is not None:
            self.carry, self._shadow.carry = self.carry
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
        if self._judging_seconds is not None:
            part, judged = self.position.part or 1.0, self.judged_part()
            again = self._last_judging() * judged / part if self.needs_final_validation() else 0.0
            reserve = min(self._judging_seconds + again + 0.2, _MOST_RESERVE * whole)
        return Limit(self._steps, whole - reserve)

    def progress(self) -> float:
        """Return the used part of the budget, in [0, 1]."""
        return self.limit().progress(self.position.step, self.seconds())

    # -- the run -----------------------------------------------------------------------------

    def run(self, signals: StopSignals) -> None:
        """Train to the end of the budget, or until patience ends or a signal comes.

        Raises:
            TrainingStopped: a loss, gradient or validation that is not finite.
            Interrupted: a signal came; the run is saved.
        """
        self._metrics = MetricsFile(self.folder.metrics)
        self.model.train()
        if self.position.step == 0:
            self.save()
        try:
            self._run(signals)
        finally:
            self._metrics.close()

    def _run(self, signals: StopSignals) -> None:
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
            if signals.received and position.ended is None:
                self._interrupt(signals.received)
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
        step = position.step
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
        beside = {}
        if self._flow is not None:
            beside["flow"] = self._flow.add_gradient(options.flow_penalty)
        if options.l1 or options.l2:
            add_penalty_gradients(self.parameters, options.l1, options.l2)
        gradients = [w.grad for w in self.parameters if w.grad is not None]
        (norm, norms), value = self._norms.measure(), float(loss.detach())
        self._set_rate(progress)
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._stop_not_finite(value)
        clip(gradients, norm, options.clip_norm, options.clip_value)
        for optimizer in self.optimizers:
            optimizer.step()
        for weight in self.parameters:
            weight.grad = None
        position.step = step + 1
        if self.average is not None:
            self.average.update(position.step)
        position.tokens += count
        if position.first is None:
            position.first = value
        since = position.since
        since[0] += value * count
        since[1] += count
        since[2] += norm
        since[3] += 1
        since[4] = max(since[4], norm)
        beside |= {f"norm of {group}": size for group, size in norms.items()}
        for name, size in beside.items():
            position.beside[name] = position.beside.get(name, 0.0) + size
        if self._recent is None:  # the first step of a process is slow, and says nothing of speed
            self._lap, self._lap_step = (time.monotonic(), position.tokens), position.step
        self._recent = value if self._recent is None else 0.97 * self._recent + 0.03 * value

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
        self.position.seconds = self.seconds()
        if self._metrics is not None:
            self._metrics.sync()
        checkpoint.save(
            self.folder.last,
            self.position,
            self.model,
            self.average,
            self.optimizers,
            self.carry if self._shadow is None else (self.carry, self._shadow.carry),
        )
        self._saved_time = time.monotonic()

    def _validate(self) -> None:
        """Judge the weights (their average, if there is one) and keep them if they are the best."""
        position, task = self.position, self.task
        began, speed = time.monotonic(), self._tokens_per_second()
        if position.part is None:
            position.part = self._validation_part()
        if self.average is not None:
            self.average.swap()
        metrics, sample = self._judge(position.part, sample=not self.console.quiet)
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
        self._say_validation(value, better, sample, speed)
        self._row_time, self._row_tokens = time.monotonic(), position.tokens
        self._lap = (self._row_time, position.tokens)

    def _validation_part(self) -> float:
        """Return the part of the validation text to use, so that it stays cheap beside the run."""
        steps = self._steps
        if self.options.minutes is not None:
            done = self.position.step - self._lap_step
            pace = (time.monotonic() - self._lap[0]) / max(done, 1)
            left = 60.0 * self.options.minutes - self.seconds()
            steps = self.position.step + round(max(left, 0.0) / max(pace, 1e-6))
            steps = steps if self._steps is None else min(steps, self._steps)
        if not steps:
            return 1.0
        return min(1.0, max(_LEAST_PART, steps / (4 * self.task.steps_per_epoch)))

    def _judge(self, part: float, sample: bool) -> tuple[dict[str, float], str | None]:
        """Return validation metrics and a sample; the random generators stay where they are."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad(), self.fabric.autocast():
            self.model.eval()
            began = time.monotonic()
            metrics = self.task.validate(None if part >= 1.0 else part)
            self._judging_seconds = time.monotonic() - began
            text = self.task.sample() if sample else None
            self.model.train()
        return metrics, text

    def needs_final_validation(self) -> bool:
        """Return whether validations so far were on a part of the text, or in low precision."""
        return (self.position.part or 1.0) < 1.0 or self.options.precision == "bf16"

    def judged_part(self) -> float:
        """Return the part of the validation text that the final metrics are on.

        It is all of it, but where that would take a timed run too long.
        """
        if self._judged is not None:
            return self._judged
        part = self.position.part or 1.0
        if self.options.minutes is None or part >= 1.0:
            return 1.0
        if self._judging_seconds is None:  # a run that had ended, taken up again
            return final_part(part)
        affordable = max(_FINAL_SECONDS, _FINAL_SHARE * self.seconds())
        return min(1.0, max(part, part * affordable / self._last_judging()))

    def _last_judging(self) -> float:
        """Return the seconds that judging the same part in full precision takes, about."""
        slower = 2.0 if self.options.precision == "bf16" else 1.0
        return slower * max(self._judging_seconds or 0.0, 1e-6)

    def finish(self) -> dict[str, float]:
        """Take the best weights as the model and return their metrics, in full precision."""
        _, _, tensors = model_file.read(self.folder.best)
        checkpoint.load_weights(self.folder.best, self.model, tensors)
        self.model.eval()
        if not self.needs_final_validation():
            return dict(self.position.best_metrics)
        self._judged = part = self.judged_part()
        with torch.no_grad():
            return self.task.validate(None if part >= 1.0 else part)

    def divergence(self, metrics: dict[str, float]) -> str:
        """Say that the loss, though finite, ended far above the first one; "" where it did not.

        Args:
            metrics: of the last judgement.
        """
        task, unit = self.task, self.task.unit
        validation = metrics.get(f"nats_per_{unit}", metrics[task.metric])
        losses = {"training": self._recent, "validation": validation}
        return diverged(self.position.first, losses, self.options, unit)

    # -- what is said ------------------------------------------------------------------------

    def unit(self) -> tuple[float, str]:
        """Return what the loss of a unit is multiplied by to be shown, and the unit's name."""
        metrics = self.position.metrics
        token, char = metrics.get("nats_per_token"), metrics.get("nats_per_char")
        if self.task.metric == "nats_per_char" and token and char:
            return char / token, "char"
        return 1.0, self.task.unit

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
        (scale, word), unit = self.unit(), self.task.unit
        loss = self._recent or 0.0
        parts = [f"loss {figure(loss, 3)}", f"{figure(bits(loss * scale), 2)} bits/{word}"]
        if position.metrics:
            parts.append(f"valid {figure(position.metrics[self.task.metric], 3)}")
        parts += [f"{amount(self._tokens_per_second())} {unit}s/s", f"{duration(left)} left"]
        self.console.draw(progress, "  ".join(parts))

    def _say_validation(self, value: float, better: bool, sample: str | None, speed: float) -> None:
        position = self.position
        text = f"step {position.step} ({self.progress():.0%}, {duration(self.seconds())})  "
        text += judgement(self.task.metric, self._recent, value, speed, self.task.unit)
        if not better:
            text += f"  (best {figure(position.best)} at step {position.best_step})"
        self.console.say(text)
        if sample:
            self.console.say("    " + " ".join(sample.split())[:92])

    def _interrupt(self, name: str) -> None:
        self.save()
        where = self.folder.path
        raise Interrupted(
            f"stopped by {name} after step {self.position.step}, and saved in {where}. "
            f"Go on with: elman train {self.task.name} --run {where} --resume"
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
        good = checkpoint.load_position(self.folder.last).step
        lines.append(
            f"The last good checkpoint, of step {good}, is kept in {self.folder.path}; go on from "
            "there (resume) with what you change."
        )
        raise TrainingStopped(" ".join(lines))


def write_model(path: Path, task: Task) -> None:
    """Write the weights a task's model has now as a model file."""
    model_file.write(path, task.name, task.metadata(), task.model.state_dict())
