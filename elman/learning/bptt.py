"""Backpropagation through time, over the whole sequence or truncated to windows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from elman.backends.call import Call, Carried, Result, Runner
from elman.errors import InputError


@dataclass(frozen=True)
class BPTT:
    r"""Backpropagation through time: the gradient of the loss through every step of a window.

    With states $s_t = F(s_{t-1}, x_t; \theta)$, the gradient is
    $\sum_t (\partial L / \partial s_t)\, \sum_{k \le t} (\partial s_t / \partial s_k)\,
    \partial F_k / \partial \theta$, where the inner sum runs over the steps k of the window that
    t is in. Without a window it is exact. The values computed are the same with any window.

    Args:
        window: the number of steps after which the gradient is cut, ≥ 1, counted from the start
            of each call (in the reverse direction from each row's end); None for no cut.

    Raises:
        InputError: the window is no whole number ≥ 1.

    Example:
        >>> BPTT(window=32).words()
        'truncated backpropagation through time, gradient cut every 32 steps'

    Source: Werbos 1990 (the method); Williams & Peng 1990, section 3 (truncation; here the
    windows do not overlap).
    """

    window: int | None = None

    def __post_init__(self) -> None:
        window = self.window
        if window is None:
            return
        if not isinstance(window, int) or isinstance(window, bool) or window < 1:
            raise InputError(
                f"BPTT: window is {window!r}; give a whole number of steps ≥ 1, or None for the "
                "whole sequence"
            )

    def words(self) -> str:
        """What this method does, in a few words."""
        if self.window is None:
            return "backpropagation through the whole sequence"
        steps = "step" if self.window == 1 else f"{self.window} steps"
        return f"truncated backpropagation through time, gradient cut every {steps}"

    def walk(self, run: Runner, call: Call) -> Result:
        """Run a call, window after window; the state goes on, its gradient does not."""
        time = call.x.shape[0]
        if self.window is None or self.window >= time:
            return run(call)
        carried, parts = call.carried, []
        for start in range(0, time, self.window):
            cut = tuple(c.detach() for c in carried) if start else carried
            part = run(_window(call, start, start + self.window, cut))
            if call.lengths is not None and start:
                part = _without_ended(part, call.lengths > start, carried)
            carried = part.carried
            parts.append(part)
        states = None
        if call.return_states:
            states = tuple(torch.cat(s) for s in zip(*(p.states for p in parts), strict=True))
        return Result(torch.cat([p.out for p in parts]), carried, states)


def _window(call: Call, start: int, end: int, carried: Carried) -> Call:
    size = min(end, call.x.shape[0]) - start
    lengths, resets = call.lengths, call.resets
    return replace(
        call,
        x=call.x[start:end],
        carried=carried,
        # A row that has ended takes part with one step, whose results are put aside.
        lengths=None if lengths is None else (lengths - start).clamp(1, size),
        resets=None if resets is None else resets[start:end],
        step_extras={name: value[start:end] for name, value in call.step_extras.items()},
    )


def _without_ended(part: Result, alive: Tensor, before: Carried) -> Result:
    """A window's result, where rows that had ended before it keep what they ended with."""

    def keep(new: Tensor, old: Tensor | None, rows: int) -> Tensor:
        shape = [1] * new.dim()
        shape[rows] = -1
        other = torch.zeros_like(new) if old is None else old
        return torch.where(alive.view(shape), new, other)

    return Result(
        keep(part.out, None, 1),
        tuple(keep(new, old, 0) for new, old in zip(part.carried, before, strict=True)),
        None if part.states is None else tuple(keep(s, None, 1) for s in part.states),
    )
