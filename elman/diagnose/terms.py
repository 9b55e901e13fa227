"""The gradient of a weight, term by term: Σ_t Σ_k δ_{t,k} v_kᵀ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elman.diagnose.backward import Arrived, adjoint_of
from elman.diagnose.sweep import Loss, step_losses, sweep
from elman.diagnose.watch import Place, watch
from elman.errors import InputError, nearest


@dataclass(frozen=True)
class Terms:
    r"""The gradient of one matrix, taken apart by the error t and the step k it reaches back to.

    .. math:: \frac{\partial L}{\partial W} = \sum_t \sum_k \delta_{t,k} v_k^\top

    where v_k is what W multiplies at step k, x_k or h_{k−1}, and rows of a batch are summed.

    Attributes:
        name: the weight's place and name in the equation.
        shape: of the weight; a bilinear form T(u, v) has three axes, and its v_k is u ⊗ v.
        deltas: δ for each product with W, (t, k, batch, rows).
        vectors: v for each, (k, batch, columns).
    """

    name: str
    shape: tuple[int, ...]
    deltas: tuple[Tensor, ...]
    vectors: tuple[Tensor, ...]

    def term(self, t: int, k: int) -> Tensor:
        """What the error of step t teaches W about its use at step k, of W's shape."""
        pairs = zip(self.deltas, self.vectors, strict=True)
        return torch.stack([d[t, k].T @ v[k] for d, v in pairs]).sum(0).reshape(self.shape)

    def norms(self) -> Tensor:
        """The Frobenius norm of every term, (t, k).

        No term is formed: ‖Σ δ vᵀ‖² is Σ (δ·δ')(v·v') over the pairs of rows and products.
        """
        delta, vector = torch.cat(self.deltas, 2), torch.cat(self.vectors, 1)
        found = [
            ((d @ d.mT) * (vector @ vector.mT)).sum((-2, -1)).clamp(min=0).sqrt() for d in delta
        ]
        return torch.stack(found)

    def by_lag(self) -> Tensor:
        """The sum of the terms with the same lag t − k ≥ 0, (lag, …) with the shape behind."""
        steps = self.deltas[0].shape[1]
        found = []
        for lag in range(min(self.deltas[0].shape[0], steps)):
            total = self.vectors[0].new_zeros(())
            for delta, vector in zip(self.deltas, self.vectors, strict=True):
                along = delta.diagonal(-lag, 0, 1)  # (batch, rows, steps − lag)
                total = total + torch.einsum("brk,kbc->rc", along, vector[: steps - lag])
            found.append(total)
        return torch.stack(found).reshape(-1, *self.shape)

    def total(self) -> Tensor:
        """The gradient of W: the sum of all terms."""
        pairs = zip(self.deltas, self.vectors, strict=True)
        totals = [torch.einsum("tkbr,kbc->rc", d, v) for d, v in pairs]
        return torch.stack(totals).sum(0).reshape(self.shape)


def weight_terms(
    model: nn.Module,
    x: Tensor,
    weight: str,
    targets: Any = None,
    loss: Loss | None = None,
    *,
    place: int | str = 0,
    state: Any = None,
    lengths: Tensor | Sequence[int] | None = None,
    resets: Tensor | None = None,
    inputs: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Terms:
    """Take the gradient of a weight apart: how much of it comes from which step, by which error.

    Args:
        model, x, targets, loss, state, lengths, resets, inputs, seed: as in
            `elman.diagnose.gradient_flow`.
        weight: a matrix by its name in the equation ("U", "U_f", …), in drop-ins too.
        place: the layer and direction, by number from 0 or by name ("layer 1").

    Returns:
        Terms: any single term, all norms, the sums by lag, and the total.

    Raises:
        InputError: there is no such matrix, or it enters no product as it is.

    Example:
        >>> import elman, torch
        >>> layer, x = elman.Recurrent("simple", 2, 3), torch.randn(6, 1, 2)
        >>> terms = weight_terms(layer, x, "U", loss=lambda out, _: out.sum())
        >>> layer(x)[0].sum().backward()
        >>> torch.allclose(terms.total(), layer.U_l0.grad, atol=1e-5)
        True

    Source: Werbos 1990; Pascanu, Mikolov & Bengio 2013, equations 3 to 5 (the sum over t and k).
    """
    run = watch(model, x, state, lengths=lengths, resets=resets, inputs=inputs)
    number = _place(run.places, place)
    uses = _uses(run.places[number], weight)
    batch_first = bool(getattr(model, "batch_first", False))
    losses = step_losses(run, targets, loss, batch_first=batch_first, seed=seed)
    readers = [
        _Deltas(p, uses if i == number else (), len(losses)) for i, p in enumerate(run.places)
    ]
    sweep(run, losses, readers, inputs=False)
    return readers[number].terms(weight)


def _place(places: Sequence[Place], which: int | str) -> int:
    names = [p.name for p in places]
    if isinstance(which, int) and not isinstance(which, bool) and 0 <= which < len(places):
        return which
    if which in names:
        return names.index(str(which))
    raise InputError(
        f"weight_terms: place is {which!r}; give a number from 0 to {len(places) - 1}, or one of "
        f"{', '.join(names)}"
    )


class _Use(NamedTuple):
    """A product with the weight, by node: its cotangent, and what the weight multiplies."""

    cotangent: int
    vectors: tuple[int, ...]


def _uses(place: Place, weight: str) -> tuple[_Use, ...]:
    """The products of a place with a matrix."""
    nodes, backward = place.graph.nodes, adjoint_of(place.graph)
    all_uses = [(p.weight, _Use(p.cotangent, (p.vector,))) for p in backward.products]
    all_uses += [(b.weight, _Use(b.cotangent, (b.first, b.second))) for b in backward.bilinear]
    found: dict[str, list[_Use]] = {}
    for index, use in all_uses:
        if nodes[index].op == "parameter":
            found.setdefault(nodes[index].attribute("name"), []).append(use)
    if weight not in found:
        made = [p.name for p in place.graph.parameters if p.name not in found]
        also = f"; no product takes {', '.join(made)} as they are" if made else ""
        raise InputError(
            f"weight_terms: {place.name} has no product with {weight!r}; there are "
            f"{', '.join(found) or 'none'}{also}.{nearest(str(weight), found)}"
        )
    return tuple(found[weight])


class _Deltas:
    """The cotangents of some products of a place, kept while they pass."""

    def __init__(self, place: Place, uses: Sequence[_Use], losses: int):
        self.place, self.uses, self.losses = place, uses, losses
        self.roots = {use.cotangent for use in uses}
        self.kept: list[list[tuple[slice, int, Tensor]]] = [[] for _ in uses]

    def see(self, first: int, arrived: Arrived) -> None:
        rows = slice(first + arrived.losses.start, first + arrived.losses.stop)
        for kept, use in zip(self.kept, self.uses, strict=True):
            kept.append((rows, arrived.step, arrived.values[use.cotangent]))

    def take(self, losses: slice, x: Tensor | None) -> None:
        """The inputs are not looked at."""

    def terms(self, weight: str) -> Terms:
        place, deltas, vectors = self.place, [], []
        real = place.in_order(place.real.unsqueeze(-1))
        shape = tuple(place.parameters[weight].shape)
        for kept, use in zip(self.kept, self.uses, strict=True):
            delta = place.out.new_zeros(self.losses, place.time, place.batch, shape[0])
            for losses, step, value in kept:
                delta[losses, step] = value
            deltas.append(place.in_order(delta.permute(1, 2, 0, 3)).permute(2, 0, 1, 3))
            v = place.series(use.vectors[0])
            for other in use.vectors[1:]:
                v = (v.unsqueeze(-1) * place.series(other).unsqueeze(-2)).flatten(-2)
            vectors.append(torch.where(real, v, 0.0))
        return Terms(f"{place.name}: {weight}", shape, tuple(deltas), tuple(vectors))
