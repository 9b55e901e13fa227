"""Synthetic sequences: the adding and copying problems, the Mackey–Glass and Lorenz systems.

Every function draws from the torch generator it is given (torch's own where none is), so a seed
gives the same data again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from elman.errors import InputError, SizeError

IGNORED = -100  # what torch's cross_entropy leaves out


def adding(batch: int, steps: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    r"""The adding problem: a row of numbers, two of them marked, whose sum is asked at the end.

    $y = v_i + v_j$ with $v_t \sim U[0, 1)$, one mark i in the first half of the steps and one mark
    j in the second. Whoever always answers 1 has the mean squared error 1/6.

    Args:
        batch: number of sequences, ≥ 1.
        steps: length of a sequence, ≥ 2.
        generator: where the random numbers come from.

    Shapes:
        x is (steps, batch, 2), the number and its mark (0 or 1); y is (batch, 1).

    Returns:
        The inputs and the sums, in torch's default number type.

    Raises:
        InputError: there is no sequence, or no room for two marks.

    Example:
        >>> x, y = adding(3, 50, torch.Generator().manual_seed(0))
        >>> x[..., 1].sum(0).tolist()
        [2.0, 2.0, 2.0]
        >>> bool(((x[..., 0] * x[..., 1]).sum(0) == y[:, 0]).all())
        True

    Source: Hochreiter & Schmidhuber 1997, the adding problem (there with numbers in [−1, 1], the
    target scaled, marks in the first ten steps and the first half, and ragged lengths).
    """
    _whole("adding", "batch", batch, 1)
    _whole("adding", "steps", steps, 2)
    numbers = torch.rand(steps, batch, generator=generator)
    half, rows = steps // 2, torch.arange(batch)
    first = torch.randint(0, half, (batch,), generator=generator)
    second = torch.randint(half, steps, (batch,), generator=generator)
    marks = torch.zeros(steps, batch)
    marks[first, rows] = marks[second, rows] = 1.0
    target = numbers[first, rows] + numbers[second, rows]
    return torch.stack((numbers, marks), dim=-1), target[:, None]


def copying(
    batch: int, symbols: int, length: int, delay: int, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    r"""The copying problem: a few symbols, a wait, then the symbols are asked for in their order.

    The input is `length` symbols drawn from 0 … symbols − 1, then `delay` times the blank
    (the token `symbols`), then `length` times the cue (the token `symbols` + 1). Under the cues the
    targets are the symbols; elsewhere nothing is asked, and the target is −100, which
    `torch.nn.functional.cross_entropy` leaves out. Chance is 1/symbols right, log symbols nats.

    Args:
        batch: number of sequences, ≥ 1.
        symbols: number of different symbols, ≥ 2; with blank and cue there are symbols + 2 tokens.
        length: symbols to be kept in mind, ≥ 1.
        delay: steps between the last symbol and the first cue, ≥ 0.
        generator: where the random numbers come from.

    Shapes:
        Both are (2 · length + delay, batch), whole numbers.

    Returns:
        The tokens and the targets.

    Raises:
        InputError: a number is too small.

    Example:
        >>> tokens, targets = copying(1, 8, 2, 3, torch.Generator().manual_seed(0))
        >>> tokens[:, 0].tolist(), targets[:, 0].tolist()
        ([4, 7, 8, 8, 8, 9, 9], [-100, -100, -100, -100, -100, 4, 7])

    Source: the memory task of Hochreiter & Schmidhuber 1997 in the form of Arjovsky, Shah & Bengio
    2016 (there one cue, and a blank asked for at all other steps).
    """
    _whole("copying", "batch", batch, 1)
    _whole("copying", "symbols", symbols, 2)
    _whole("copying", "length", length, 1)
    _whole("copying", "delay", delay, 0)
    drawn = torch.randint(0, symbols, (length, batch), generator=generator)
    tokens = torch.full((2 * length + delay, batch), symbols)
    tokens[:length], tokens[length + delay :] = drawn, symbols + 1
    targets = torch.full_like(tokens, IGNORED)
    targets[length + delay :] = drawn
    return tokens, targets


def mackey_glass(
    steps: int,
    tau: float = 17.0,
    *,
    batch: int = 1,
    beta: float = 0.2,
    gamma: float = 0.1,
    power: float = 10.0,
    interval: float = 1.0,
    substeps: int = 4,
    discard: int = 300,
    history: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The Mackey–Glass series: one delayed feedback, chaotic from a delay of about 17 on.

    $\dot x(t) = \beta\, x(t - \tau) / (1 + x(t - \tau)^n) - \gamma\, x(t)$, by the classical
    Runge–Kutta method of order 4 with steps of interval/substeps; the delayed value halfway in a
    step is the cubic through both ends and their slopes, of the same order.

    Args:
        steps: number of samples, ≥ 1.
        tau: the delay τ > 0, a multiple of interval/substeps.
        batch: number of series, ≥ 1, each from another history.
        beta: strength of the feedback.
        gamma: rate of decay.
        power: the exponent n.
        interval: time from sample to sample, > 0.
        substeps: steps of the integration a sample, ≥ 1.
        discard: samples left out at the beginning, ≥ 0.
        history: the constant value of x before time 0, (batch,), ≥ 0; by default drawn from
            U[1.1, 1.3).
        generator: where the random numbers come from.

    Shapes:
        The result is (steps, batch, 1). Its first sample is time 0 where nothing is discarded.

    Returns:
        The series, float64.

    Raises:
        InputError: a number is too small, or the delay no multiple of the step.
        SizeError: the history has another shape.

    Example:
        >>> series = mackey_glass(500, generator=torch.Generator().manual_seed(0))
        >>> series.shape, bool(0.2 < series.min() < 0.6 and 1.1 < series.max() < 1.5)
        (torch.Size([500, 1, 1]), True)

    Source: Mackey & Glass 1977.
    """
    _series("mackey_glass", steps, batch, interval, substeps, discard)
    h = interval / substeps
    lag = round(tau / h)
    if lag < 1 or abs(lag * h - tau) > 1e-9 * tau:
        raise InputError(
            f"mackey_glass: tau is {tau!r}, which is no multiple of the integration step "
            f"{h:g} (interval / substeps); choose substeps so that it is"
        )
    if history is None:
        history = 1.1 + 0.2 * torch.rand(batch, generator=generator, dtype=torch.float64)
    before = _start("mackey_glass", "history", history, (batch,))
    inner = (discard + steps - 1) * substeps
    # Row lag + n of `ends` is x(n h), of `middles` x((n + 1/2) h); what is before time 0 is known.
    ends, middles = np.empty((2, lag + inner + 1, batch))
    ends[: lag + 1] = middles[:lag] = before

    def slope(x: np.ndarray, delayed: np.ndarray) -> np.ndarray:
        return beta * delayed / (1.0 + delayed**power) - gamma * x

    for n in range(inner):
        x, start, middle, end = ends[lag + n], ends[n], middles[n], ends[n + 1]
        first = slope(x, start)
        second = slope(x + h / 2 * first, middle)
        third = slope(x + h / 2 * second, middle)
        fourth = slope(x + h * third, end)
        new = x + h / 6 * (first + 2 * second + 2 * third + fourth)
        middles[lag + n] = (x + new) / 2 + h / 8 * (first - slope(new, end))
        ends[lag + n + 1] = new
    return torch.from_numpy(ends[lag + discard * substeps :: substeps].copy()).unsqueeze(-1)


def lorenz(
    steps: int,
    *,
    batch: int = 1,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8.0 / 3.0,
    interval: float = 0.02,
    substeps: int = 2,
    discard: int = 100,
    start: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The Lorenz system, whose trajectory winds for ever about two points and never repeats.

    $\dot x = \sigma (y - x)$, $\dot y = x (\rho - z) - y$, $\dot z = x y - \beta z$, by the
    classical Runge–Kutta method of order 4 with steps of interval/substeps.

    Args:
        steps: number of samples, ≥ 1.
        batch: number of trajectories, ≥ 1, each from another start.
        sigma: σ.
        rho: ρ; the usual 28 is chaotic.
        beta: β.
        interval: time from sample to sample, > 0.
        substeps: steps of the integration a sample, ≥ 1.
        discard: samples left out at the beginning, ≥ 0.
        start: the state at time 0, (batch, 3); by default (1, 1, 1) and a tenth of normal noise.
        generator: where the random numbers come from.

    Shapes:
        The result is (steps, batch, 3): x, y and z. Its first sample is time 0 where nothing is
        discarded.

    Returns:
        The trajectories, float64.

    Raises:
        InputError: a number is too small.
        SizeError: the start has another shape.

    Example:
        >>> path = lorenz(500, batch=2, generator=torch.Generator().manual_seed(0))
        >>> path.shape, bool(path[..., 0].abs().max() < 25 and (path[..., 2] > 0).all())
        (torch.Size([500, 2, 3]), True)

    Source: Lorenz 1963.
    """
    _series("lorenz", steps, batch, interval, substeps, discard)
    if start is None:
        noise = torch.randn(batch, 3, generator=generator, dtype=torch.float64)
        start = 1.0 + 0.1 * noise
    h, state = interval / substeps, _start("lorenz", "start", start, (batch, 3)).T
    out = np.empty((steps, 3, batch))

    def slope(s: np.ndarray) -> np.ndarray:
        x, y, z = s
        return np.stack((sigma * (y - x), x * (rho - z) - y, x * y - beta * z))

    for n in range(discard + steps):
        if n >= discard:
            out[n - discard] = state
        for _ in range(substeps):
            first = slope(state)
            second = slope(state + h / 2 * first)
            third = slope(state + h / 2 * second)
            fourth = slope(state + h * third)
            state = state + h / 6 * (first + 2 * second + 2 * third + fourth)
    return torch.from_numpy(out.transpose(0, 2, 1).copy())


def _series(who: str, steps: int, batch: int, interval: float, substeps: int, discard: int) -> None:
    _whole(who, "steps", steps, 1)
    _whole(who, "batch", batch, 1)
    _whole(who, "substeps", substeps, 1)
    _whole(who, "discard", discard, 0)
    if not 0 < interval < float("inf"):
        raise InputError(f"{who}: interval is {interval!r}; give a time > 0")


def _whole(who: str, name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{who}: {name} is {value!r}; give a whole number ≥ {least}")


def _start(who: str, name: str, given: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    if tuple(given.shape) != shape:
        raise SizeError(
            f"{who}: {name} has the shape {tuple(given.shape)}; it must be {shape}, one for each "
            "of the batch"
        )
    return given.detach().to("cpu", torch.float64).numpy().copy()
