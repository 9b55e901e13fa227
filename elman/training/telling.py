"""What a run says of where it stands: beside the bar, and at each validation."""

from __future__ import annotations

from elman.tasks.base import Task
from elman.training.checkpoint import Position
from elman.training.console import amount, bits, duration, figure, judgement


def unit(task: Task, position: Position) -> tuple[float, str]:
    """Return what the loss of a unit is multiplied by to be shown, and the unit's name."""
    metrics = position.metrics
    token, char = metrics.get("nats_per_token"), metrics.get("nats_per_char")
    if task.metric == "nats_per_char" and token and char:
        return char / token, "char"
    return 1.0, task.unit


def beside_the_bar(task: Task, position: Position, loss: float, speed: float, left: float) -> str:
    """Return the words beside the bar.

    Args:
        task, position: of the run.
        loss: recent loss of training.
        speed: units a second.
        left: seconds left.
    """
    scale, word = unit(task, position)
    parts = [f"loss {figure(loss, 3)}", f"{figure(bits(loss * scale), 2)} bits/{word}"]
    if position.metrics:
        parts.append(f"valid {figure(position.metrics[task.metric], 3)}")
    parts += [f"{amount(speed)} {task.unit}s/s", f"{duration(left)} left"]
    return "  ".join(parts)


def validation(
    task: Task,
    position: Position,
    loss: float | None,
    progress: float,
    seconds: float,
    speed: float,
) -> str:
    """Return the line of the latest validation.

    Args:
        task, position: of the run; the position holds the validation.
        loss: recent loss of training, if there is one.
        progress: used part of the budget.
        seconds: used so far.
        speed: units a second.
    """
    value = position.metrics[task.metric]
    text = f"step {position.step} ({progress:.0%}, {duration(seconds)})  "
    text += judgement(task.metric, loss, value, speed, task.unit)
    text += task.beside_the_metric(position.metrics)
    if position.waiting:
        text += f"  (best {figure(position.best)} at step {position.best_step})"
    return text
