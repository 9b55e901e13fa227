"""What one step does to small changes of the state: its Jacobian, its spectrum, its exponents.

s is all that a layer carries from step to step: its states, and where the cell looks further back
the values in its delay lines. In a stack each layer is looked at by itself: an upper layer's state
does not act on a lower one's, so the Jacobian of the whole is block-triangular, and its eigenvalues
are those of its layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elman.diagnose.backward import adjoint_of, step_back
from elman.diagnose.watch import Place, watch
from elman.errors import InputError


@dataclass(frozen=True)
class Spectrum:
    """The Jacobians ∂s_t/∂s_{t−1} of a layer along a sequence.

    Attributes:
        name: of the place.
        steps: those that were looked at, from 0.
        singular: their singular values, largest first, (steps, batch, size of s).
        radius: their spectral radii, the largest |eigenvalue|, (steps, batch).
    """

    name: str
    steps: tuple[int, ...]
    singular: Tensor
    radius: Tensor


@dataclass(frozen=True)
class Exponents:
    """The Lyapunov exponents of a layer, driven by a sequence.

    Attributes:
        name: of the place.
        values: in nats a step, largest first, (batch, count).
        running: their estimates after each counted step, (steps, batch, count).
        skipped: steps at the beginning that were not counted.
    """

    name: str
    values: Tensor
    running: Tensor
    skipped: int


def jacobians(place: Place, steps: Sequence[int] | None = None) -> Iterator[Tensor]:
    """The Jacobian ∂s_t/∂s_{t−1} of a watched place at each step, (batch, size, size).

    Args:
        place: of `elman.diagnose.watch`.
        steps: in the place's own time; all if not given.
    """
    graph = place.graph
    widths = [math.prod(s.shape[2:]) for s in place.states]
    depths = {line.name: line.depth for line in graph.lines if line.kind == "state"}
    names = [s.name for s in graph.states]
    size = dict(zip(names, widths, strict=True))
    columns, start = {}, 0
    for name in names:
        columns[name, 1] = start
        start += size[name]
    for name, depth in depths.items():
        for back in range(2, 2 + depth):
            columns[name, back] = start
            start += size[name]
    for step in range(place.time) if steps is None else steps:
        found = place.out.new_zeros(place.batch, start, start)
        for (name, back), value in _derivatives(place, step, widths).items():
            at = columns[name, back]
            found[:, : sum(widths), at : at + size[name]] = value
        for name, depth in depths.items():
            for back in range(2, 2 + depth):
                # What was `back − 1` steps ago is a step older now.
                row, column = columns[name, back], columns[name, back - 1]
                ones = torch.eye(size[name], dtype=found.dtype, device=found.device)
                found[:, row : row + size[name], column : column + size[name]] = ones
        if place.call.resets is not None:
            found[place.call.resets[step]] = 0.0
        yield found


@torch.no_grad()
def _derivatives(place: Place, step: int, widths: Sequence[int]) -> dict[tuple[str, int], Tensor]:
    """∂(new states)/∂(a state `back` steps ago), each (batch, rows, columns)."""
    graph, batch, total = place.graph, place.batch, sum(widths)
    backward = adjoint_of(graph)
    basis = torch.eye(total, dtype=place.out.dtype, device=place.out.device)
    cotangents = {}
    pieces = zip(graph.states, basis.split(list(widths), 1), place.states, strict=True)
    for state, piece, value in pieces:
        shape = total, batch, *value.shape[2:]
        cotangents[state.name] = piece.unsqueeze(1).expand(-1, batch, -1).reshape(shape)
    places = {(name, 1): index for name, index in backward.states.items()}
    lines = {line.name for line in graph.lines if line.kind == "state"}
    places |= {key: index for key, index in backward.delayed.items() if key[0] in lines}
    out = place.out.new_zeros(total, *place.out.shape[1:])
    needed = backward.needed(places.values())
    values = step_back(backward, place.values[step], out, cotangents, needed)
    shapes = {s.name: v.shape[2:] for s, v in zip(graph.states, place.states, strict=True)}
    found = {}
    for key, index in places.items():
        value = torch.as_tensor(values[index], dtype=out.dtype, device=out.device)
        value = value.expand(total, batch, *shapes[key[0]])
        found[key] = value.reshape(total, batch, -1).transpose(0, 1)
    return found


def spectrum(
    model: nn.Module,
    x: Tensor,
    *,
    state: Any = None,
    inputs: Mapping[str, Tensor] | None = None,
    most: int = 64,
) -> tuple[Spectrum, ...]:
    r"""Measure how the steps of each layer stretch and shrink small changes of its state.

    .. math:: J_t = \frac{\partial s_t}{\partial s_{t-1}}, \qquad
        \left\| \frac{\partial s_t}{\partial s_k} \right\| \le \prod_{j=k+1}^{t} \sigma_1(J_j)

    Args:
        model, x, state, inputs: as in `elman.diagnose.gradient_flow`.
        most: look at up to so many steps, evenly spread, ≥ 1.

    Returns:
        a `Spectrum` for each layer and direction.

    Raises:
        InputError: no recurrent layer ran; most is no number ≥ 1.

    Example:
        >>> import elman, torch
        >>> layer = elman.Recurrent("irnn", 2, 4)  # starts at the identity, with relu
        >>> found = spectrum(layer, torch.rand(5, 1, 2).abs(), most=2)[0]
        >>> found.steps, found.singular.shape
        ((0, 4), torch.Size([2, 1, 4]))

    Source: Pascanu, Mikolov & Bengio 2013, section 2.1 (σ₁ and the spectral radius bound what a
    gradient can do).
    """
    _count("most", most)
    found = []
    for place in watch(model, x, state, inputs=inputs).places:
        steps = _spread(place.time, most)
        singular, radius = [], []
        for jacobian in jacobians(place, steps):
            _finite(jacobian, place.name)
            singular.append(torch.linalg.svdvals(jacobian))
            radius.append(torch.linalg.eigvals(jacobian).abs().amax(-1))
        natural = steps
        if place.turned:
            natural = [place.time - 1 - step for step in steps]
        order = sorted(range(len(steps)), key=lambda i, n=natural: n[i])
        found.append(
            Spectrum(
                place.name,
                tuple(natural[i] for i in order),
                torch.stack(singular)[order],
                torch.stack(radius)[order],
            )
        )
    return tuple(found)


@torch.no_grad()
def lyapunov(
    model: nn.Module,
    x: Tensor,
    *,
    state: Any = None,
    inputs: Mapping[str, Tensor] | None = None,
    count: int | None = None,
    skip: int | None = None,
    seed: int = 0,
) -> tuple[Exponents, ...]:
    r"""Measure the Lyapunov exponents of each layer, driven by a sequence.

    .. math:: J_t Q_{t-1} = Q_t R_t, \qquad
        \lambda_i = \frac{1}{T} \sum_t \ln |(R_t)_{ii}|

    A largest exponent below 0 says that the layer forgets how it began, at that rate; above 0,
    that it is chaotic. Gradients over many steps grow or fade at the same rates.

    Args:
        model, x, state, inputs: as in `elman.diagnose.gradient_flow`; the longer x, the closer.
        count: how many of the exponents, the largest ones; all if not given.
        skip: steps at the beginning that are not counted; a tenth of them if not given.
        seed: of the directions that the walk begins with.

    Returns:
        `Exponents` for each layer and direction. Where a step loses a direction altogether its
        exponent is −inf.

    Raises:
        InputError: no recurrent layer ran, or no step is left to count.

    Example:
        >>> import elman, torch
        >>> @elman.cell
        ... def logistic(p, x, s):
        ...     return 4.0 * s * (1.0 - s) + 0.0 * (p.W @ x)
        >>> layer = elman.Recurrent(logistic, 1, 1).double()
        >>> state = torch.full((1, 1, 1), 0.2, dtype=torch.float64)
        >>> found = lyapunov(layer, torch.zeros(4000, 1, 1).double(), state=state)[0]
        >>> abs(float(found.values) - 0.6931) < 0.01  # ln 2
        True

    Source: Benettin, Galgani, Giorgilli & Strelcyn 1980 (the method); for recurrent networks
    Engelken, Wolf & Abbott 2023, "Lyapunov spectra of chaotic recurrent neural networks".
    """
    if count is not None:
        _count("count", count)
    found = []
    for place in watch(model, x, state, inputs=inputs).places:
        begun = place.time // 10 if skip is None else skip
        if not 0 <= begun < place.time:
            raise InputError(
                f"lyapunov: skip is {begun} and the sequence has {place.time} steps; leave some"
            )
        found.append(_exponents(place, count, begun, seed))
    return tuple(found)


def _exponents(place: Place, count: int | None, skip: int, seed: int) -> Exponents:
    numbers = torch.Generator().manual_seed(seed)
    directions, total, running = None, None, []
    for step, jacobian in enumerate(jacobians(place)):
        _finite(jacobian, place.name)
        if directions is None:
            size = jacobian.shape[-1]
            shape = place.batch, size, min(size, count or size)
            start = torch.randn(shape, generator=numbers, dtype=jacobian.dtype)
            directions = torch.linalg.qr(start.to(jacobian.device)).Q
            total = jacobian.new_zeros(shape[0], shape[2])
        directions, stretched = torch.linalg.qr(jacobian @ directions)
        if step >= skip:
            total = total + stretched.diagonal(0, -2, -1).abs().log()
            running.append(total / (step - skip + 1))
    every = torch.stack(running)
    order = every[-1].argsort(-1, descending=True)
    every = every.gather(-1, order.expand_as(every))
    return Exponents(place.name, every[-1], every, skip)


def _spread(time: int, most: int) -> list[int]:
    """Up to `most` steps, the first and the last among them."""
    if time <= most:
        return list(range(time))
    return [round(i * (time - 1) / max(most - 1, 1)) for i in range(most)]


def _finite(jacobian: Tensor, name: str) -> None:
    if not bool(jacobian.isfinite().all()):
        raise InputError(f"diagnose: {name} has a Jacobian that is not finite; its state overflows")


def _count(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"diagnose: {name} is {value!r}; give a whole number ≥ 1")
