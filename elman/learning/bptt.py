"""Backpropagation through time: whole, truncated to windows, or with a carry between windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from elman.backends.call import Call, Carried, Result, Runner
from elman.errors import InputError, nearest

CARRIES = ("exact", "snap1", "rflo", "uoro")


@dataclass(frozen=True)
class BPTT:
    r"""Backpropagation through time: the gradient of the loss through every step of a window.

    With states $s_t = F(s_{t-1}, x_t; \theta)$, the gradient is
    $\sum_t (\partial L / \partial s_t)\, \sum_{k \le t} (\partial s_t / \partial s_k)\,
    \partial F_k / \partial \theta$, where the inner sum runs over the steps k of the window that
    t is in. Without a window it is exact. The values computed are the same with any window.

    With a carry the state that enters a window brings its influence matrix
    $M = \partial s_0 / \partial \theta$, one for each row of the batch. A window then gives
    $g = \partial L/\partial\theta|_{s_0} + (\partial L/\partial s_0)^\top M$, and passes on
    $M \leftarrow (\partial s_T/\partial s_0)\, M + \partial s_T/\partial\theta|_{s_0}$. While the
    weights do not change, `carry="exact"` gives the gradient of the whole past, on a stream
    without end, in memory that does not grow.

    With a window of one step the gradient is $g = (\partial L/\partial s_1)^\top M'$, where M' is
    the influence that has moved on: the same for the exact carry, and for the approximations what
    was published. Only a layer whose output is no state keeps the form above for them.

    Args:
        window: the number of steps after which the gradient is cut, ≥ 1, counted from the start
            of each call (in the reverse direction from each row's end); None for no cut, so that
            with a carry each call is one window.
        carry: what goes from window to window beside the state: None for nothing, "exact" for M,
            "snap1", "rflo" or "uoro" for one of its approximations.

    Raises:
        InputError: the window is no whole number ≥ 1, or there is no such carry.

    Example:
        >>> BPTT(window=32).words()
        'truncated backpropagation through time, gradient cut every 32 steps'
        >>> BPTT(window=32, carry="exact").words()
        'backpropagation through windows of 32 steps, the influence of the past carried exactly'

    Source: Werbos 1990 (the method); Williams & Peng 1990, section 3 (truncation; here the
    windows do not overlap); Schmidhuber 1992 (windows with the influence carried); Williams &
    Zipser 1989 (a window of one step); the approximations as in `elman.learning`'s modules.
    """

    window: int | None = None
    carry: str | None = None

    def __post_init__(self) -> None:
        window, carry = self.window, self.carry
        if window is not None and (
            not isinstance(window, int) or isinstance(window, bool) or window < 1
        ):
            raise InputError(
                f"BPTT: window is {window!r}; give a whole number of steps ≥ 1, or None for the "
                "whole sequence"
            )
        if carry is not None and carry not in CARRIES:
            hint = nearest(carry, CARRIES) if isinstance(carry, str) else ""
            raise InputError(
                f"BPTT: carry is {carry!r}; it is one of {', '.join(map(repr, CARRIES))}, or "
                f"None.{hint}"
            )

    def words(self) -> str:
        """What this method does, in a few words."""
        steps = "step" if self.window == 1 else f"{self.window} steps"
        if self.carry is not None:
            size = "one step" if self.window == 1 else steps
            spans = "the window of each call" if self.window is None else f"windows of {size}"
            return f"backpropagation through {spans}, {_CARRIED[self.carry]}"
        if self.window is None:
            return "backpropagation through the whole sequence"
        return f"truncated backpropagation through time, gradient cut every {steps}"

    def options(self) -> dict[str, Any]:
        """The arguments as plain data, for model files.

        Example:
            >>> BPTT(window=4, carry="snap1").options()
            {'window': 4, 'carry': 'snap1'}
        """
        return {"window": self.window, "carry": self.carry}

    def walk(self, run: Runner, call: Call) -> Result:
        """Run a call, window after window; the state goes on, its gradient does not.

        Under a carry the windows go through a whole stack at once, so that a call of one layer is
        within a window already.
        """
        time = call.x.shape[0]
        if self.carry is not None or self.window is None or self.window >= time:
            return run(call)
        carried, parts = call.carried, []
        for start in range(0, time, self.window):
            cut = tuple(c.detach() for c in carried) if start else carried
            part = run(_window(call, start, start + self.window, cut))
            if call.lengths is not None and start:
                part = without_ended(part, call.lengths > start, carried)
            carried = part.carried
            parts.append(part)
        states = None
        if call.return_states:
            states = tuple(torch.cat(s) for s in zip(*(p.states for p in parts), strict=True))
        return Result(torch.cat([p.out for p in parts]), carried, states)


def RTRL(carry: str = "exact") -> BPTT:
    r"""Real-time recurrent learning: a window of one step, with the influence carried.

    $g_t = (\partial L_t/\partial s_t)^\top M_t$ with
    $M_t = (\partial s_t/\partial s_{t-1})\, M_{t-1} + \partial F_t/\partial\theta$, or with
    $\hat M_t$ in its place as the approximation moves it on.

    Args:
        carry: "exact", or an approximation, as in `BPTT`.

    Returns:
        BPTT: `BPTT(window=1, carry=carry)`.

    Raises:
        InputError: there is no such carry.

    Example:
        >>> RTRL()
        BPTT(window=1, carry='exact')

    Source: Williams & Zipser 1989, "A learning algorithm for continually running fully recurrent
    neural networks".
    """
    if carry is None:
        raise InputError(
            "RTRL: carry is None, which would cut the gradient at every step; give 'exact' or an "
            "approximation, or use elman.BPTT(window=1)"
        )
    return BPTT(window=1, carry=carry)


_CARRIED = {
    "exact": "the influence of the past carried exactly",
    "snap1": "the influence of the past approximated by SnAp-1",
    "rflo": "the influence of the past approximated by RFLO",
    "uoro": "the influence of the past approximated by UORO",
}


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


def without_ended(part: Result, alive: Tensor, before: Carried) -> Result:
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
