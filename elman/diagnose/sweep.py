"""All errors of a model back through all of its places, in one sweep.

Between places autograd goes back; within a place the adjoint does. Both take all L_t at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from elman.diagnose.backward import Arrived, Seeds, pull_back
from elman.diagnose.watch import Place, Watched
from elman.errors import InputError

Loss = Callable[[Tensor, Any], Tensor]

_MOST_BYTES = 1 << 28  # of the cotangents of one place that are under way at a time
_ROUNDING = 64  # units of the last place by which a readout of each step may differ


class Reader(Protocol):
    """What looks at a place while the errors pass it.

    Attributes:
        roots: the nodes of the adjoint that it reads.
    """

    roots: set[int]

    def see(self, first: int, arrived: Arrived) -> None:
        """Look at a step; `arrived.losses` counts from `first`."""

    def take(self, losses: slice, x: Tensor | None) -> None:
        """Take the cotangents of what the place read, (loss, time, batch, input)."""


def step_losses(
    run: Watched, targets: Any, loss: Loss | None, *, batch_first: bool, seed: int
) -> Tensor:
    """L_t of every step, the sum over the rows, (time,), with the history to the places.

    Args:
        run: of the model.
        targets: indexed by step, or None.
        loss: of the output and the target of a step; a random projection if not given.
        batch_first: whether the output has the batch before the time.
        seed: of the projection.
    """
    out = run.out
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.dim() < 2:
        what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(
            f"diagnose: the model gave {what} first; expected an output for each step, "
            "(time, batch, size)"
        )
    if out.dim() > 2 and batch_first:
        out = out.transpose(0, 1)
    if loss is None:
        numbers = torch.Generator().manual_seed(seed)
        weights = torch.randn(out.shape, generator=numbers, dtype=out.dtype).to(out.device)
        return (out * weights).flatten(1).sum(1)
    if targets is not None and len(targets) < len(out):
        raise InputError(f"diagnose: {len(out)} outputs and {len(targets)} targets")
    found = []
    for step, row in enumerate(out):
        value = loss(row, None if targets is None else targets[step])
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise InputError(
                f"diagnose: loss gave {type(value).__name__} at step {step}; expected a tensor, "
                "one number or one for each row"
            )
        found.append(value.sum())
    return torch.stack(found)


def sweep(run: Watched, losses: Tensor, readers: Sequence[Reader], *, inputs: bool = True) -> None:
    """Send all L_t back through all places; each reader sees its place.

    Args:
        run: of the model.
        losses: (time,), with their history.
        readers: one for each place.
        inputs: whether the cotangents of what the lowest place read are wanted.

    Raises:
        InputError: no loss depends on a recurrent layer.
    """
    leaves = [leaf for place in run.places for leaf in place.leaves]
    direct = _direct(losses, leaves)
    if direct is None and not losses.requires_grad:
        raise InputError("diagnose: no loss depends on what a recurrent layer gave")
    for chunk in _chunks(run, len(losses), whole=direct is None):
        seeds = _first_seeds(losses, leaves, direct, chunk)
        for number in reversed(range(len(run.places))):
            place, reader = run.places[number], readers[number]
            own = [seeds.pop(id(leaf), None) for leaf in place.leaves]
            if all(seed is None for seed in own):
                continue
            asked = _asked(place)
            pulled = pull_back(
                place,
                Seeds(own[0], tuple(own[1:])),
                partial(reader.see, chunk.start),
                roots=reader.roots,
                inputs=inputs or any(a is place.call.x for a in asked),
            )
            reader.take(chunk, pulled.x)
            _pass_on(place, asked, pulled, leaves, seeds)


def _direct(losses: Tensor, leaves: list[Tensor]) -> list[Tensor | None] | None:
    """∂L_t/∂(leaf at t) of all steps at once, where each L_t reads its own step and no other.

    It is so where a random sum of the losses has the gradient of their sum, times those numbers.
    """
    if not losses.requires_grad:
        return None
    numbers = torch.Generator().manual_seed(1)
    weights = torch.randn(losses.shape, generator=numbers, dtype=losses.dtype).to(losses.device)
    plain = torch.autograd.grad(losses.sum(), leaves, retain_graph=True, allow_unused=True)
    other = torch.autograd.grad(losses @ weights, leaves, retain_graph=True, allow_unused=True)
    for one, two in zip(plain, other, strict=True):
        if one is None or two is None:
            continue
        if len(one) != len(losses):
            return None
        by_step = one * weights.reshape(-1, *(1,) * (one.dim() - 1))
        error = _ROUNDING * torch.finfo(one.dtype).eps * (two.abs().max() + one.abs().max())
        if not bool(((by_step - two).abs() <= error).all()):
            return None
    return list(plain)


def _first_seeds(
    losses: Tensor, leaves: list[Tensor], direct: list[Tensor | None] | None, chunk: slice
) -> dict[int, Tensor]:
    """∂L_t/∂leaf of the losses of a chunk, by leaf: (loss, time, batch, …)."""
    count = chunk.stop - chunk.start
    if direct is None:
        rows = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)[chunk]
        found = torch.autograd.grad(
            losses, leaves, rows, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        return {id(k): v for k, v in zip(leaves, found, strict=True) if v is not None}
    seeds = {}
    steps = torch.arange(chunk.start, chunk.stop, device=losses.device)
    for leaf, gradient in zip(leaves, direct, strict=True):
        if gradient is not None:
            seed = leaf.new_zeros(count, *leaf.shape)
            seed[steps - chunk.start, steps] = gradient[steps]
            seeds[id(leaf)] = seed
    return seeds


def _asked(place: Place) -> list[Tensor]:
    """What a place was given that other places may have made."""
    count = len(place.states)
    return [v for v in (place.call.x, *place.call.carried[:count]) if v.requires_grad]


def _pass_on(place: Place, asked: list[Tensor], pulled, leaves, seeds: dict[int, Tensor]) -> None:
    """From what a place was given back to the leaves that made it."""
    if not asked:
        return
    given = (place.call.x, *place.call.carried[: len(place.states)])
    found = {id(v): c for v, c in zip(given, (pulled.x, *pulled.carried), strict=True)}
    pairs = [(v, found[id(v)]) for v in asked if found[id(v)] is not None]
    if not pairs:
        return
    back = torch.autograd.grad(
        [v for v, _ in pairs], leaves, [c for _, c in pairs],
        retain_graph=True, allow_unused=True, is_grads_batched=True,
    )  # fmt: skip
    for leaf, cotangent in zip(leaves, back, strict=True):
        if cotangent is not None:
            before = seeds.get(id(leaf))
            seeds[id(leaf)] = cotangent if before is None else before + cotangent


def _chunks(run: Watched, count: int, *, whole: bool) -> Iterator[slice]:
    """The losses, as many at a time as fit in a share of memory.

    Args:
        whole: whether the way from the losses to the places is taken for each loss apart, which
            takes a copy of the outputs for each.
    """
    tensors = [leaf for p in run.places for leaf in (*p.leaves, p.call.x)]
    tensors += [run.out] if whole else []
    widest = max(t.numel() * t.element_size() for t in tensors)
    size = max(1, _MOST_BYTES // (4 * widest))
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
