r"""UORO: an unbiased estimate of the influence, of rank one.

Each row of the batch carries two vectors $\tilde s$ and $\tilde\theta$ with
$\mathbb{E}[\tilde s\,\tilde\theta^\top] = M$. Over a window with $A = \partial s_T/\partial s_0$
and random signs $\nu$,

$$\tilde s' = \rho_0 A \tilde s + \rho_1 \nu, \qquad
\tilde\theta' = \tilde\theta/\rho_0 + (\nu^\top \partial s_T/\partial\theta|_{s_0})^\top/\rho_1,$$

$$\rho_0 = \sqrt{\|\tilde\theta\| / \|A\tilde s\|}, \qquad
\rho_1 = \sqrt{\|\nu^\top \partial s_T/\partial\theta\| / \|\nu\|}.$$

Since the signs are independent with mean zero and $\mathbb{E}[\nu\nu^\top] = I$, the mean stays
right for any $\rho$; these make the variance small. $A\tilde s$ is one sweep of forward mode,
$\nu^\top\partial s_T/\partial\theta$ one of reverse mode, so any cell is served, in memory of the
weights' size a row. With windows of one step the gradient is
$(\delta^\top\tilde s')\,\tilde\theta'$, as published; a longer window is exact within itself, and
the estimate stands at its start. The signs come from torch's generator. Where one of two vectors
is zero, so is their product, and both are dropped; the original adds a small ε instead.

Source: Tallec & Ollivier 2017, "Unbiased online recurrent optimization"; there $A\tilde s$ is a
finite difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from elman.equation.graph import Graph
from elman.equation.jacobian import Forward, forward, push_forward
from elman.learning.chain import Chain, Place, Window
from elman.learning.exact import add_immediate, before_dropout, look_up_back, values_of
from elman.learning.one_stage import at_step
from elman.learning.sweep import Values, pull

OVER = ("state", "delayed", "x")


class UORO:
    """Carries two vectors for each row: (batch, rows of s) and (batch, weights)."""

    by_layer = False

    def shapes(self, chain: Chain, batch: int) -> list[tuple[int, ...]]:
        columns = sum(place.columns for place in chain.places)
        return [(batch, chain.rows), (batch, columns)]

    def bytes(self, chain: Chain, batch: int) -> int:
        return sum(b * n for b, n in self.shapes(chain, batch)) * chain.like.element_size()

    def start(self, chain: Chain, batch: int, *, given: bool = False) -> tuple[Tensor, ...]:
        of_state, of_weights = (chain.like.new_zeros(s) for s in self.shapes(chain, batch))
        if given or not any(chain.initial):
            return of_state, of_weights
        # M is the identity at learned initial states, and E[ν νᵀ] is the identity.
        signs, start = _signs(of_state), 0
        for place in chain.places:
            for weight in place.weights:
                if weight.state is not None:
                    rows = place.parts[place.keeps.index(weight.state)]
                    rows = slice(place.first + rows.start, place.first + rows.stop)
                    columns = slice(start + weight.columns.start, start + weight.columns.stop)
                    of_state[:, rows] = of_weights[:, columns] = signs[:, rows]
            start += place.columns
        return of_state, of_weights

    def gradient(
        self, chain: Chain, influence: tuple[Tensor, ...], cotangents: Tensor
    ) -> list[Tensor | None]:
        of_state, of_weights = influence
        total = (cotangents * of_state).sum(1) @ of_weights
        found: list[Tensor | None] = []
        start = 0
        for place in chain.places:
            own = total[start : start + place.columns]
            found += [own[w.columns].view(w.shape) for w in place.weights]
            start += place.columns
        return found

    def advance(
        self, chain: Chain, influence: tuple[Tensor, ...], window: Window
    ) -> tuple[Tensor, ...]:
        of_state, of_weights = influence
        values = [
            None if p.graph is None else values_of(p, v, s, window)
            for p, v, s in zip(chain.places, chain.values, window.seen, strict=True)
        ]
        moved = push(chain, window, values, of_state)
        signs = _signs(of_state)
        immediate = pull_signs(chain, window, values, signs)
        first, second = _scales(of_weights, moved), _scales(immediate, signs)
        if window.lengths is not None:
            # A row that has ended is left as it is; nothing immediate is there, so no signs enter.
            still = (window.lengths == 0)[:, None]
            first = tuple(torch.where(still, 1.0, scale) for scale in first)
        return (
            first[0] * moved + second[0] * signs,
            first[1] * of_weights + second[1] * immediate,
        )

    def words(self, chain: Chain) -> str:
        return (
            "The influence is an unbiased estimate of rank one, with random signs from torch's "
            "generator."
        )


def _signs(like: Tensor) -> Tensor:
    """Independent random signs of a tensor's shape."""
    return torch.randint(0, 2, like.shape, device=like.device).to(like.dtype) * 2.0 - 1.0


def _scales(of_weights: Tensor, of_state: Tensor) -> tuple[Tensor, Tensor]:
    """ρ and 1/ρ for each row, which make both vectors equally long; 0 where one of them is 0."""
    one, other = of_weights.norm(dim=1, keepdim=True), of_state.norm(dim=1, keepdim=True)
    some = (one > 0) & (other > 0)
    scale = torch.where(some, one / torch.where(some, other, 1.0), 1.0).sqrt()
    return torch.where(some, scale, 0.0), torch.where(some, 1.0 / scale, 0.0)


def pull_signs(
    chain: Chain, window: Window, values: list[Values | None], cotangents: Tensor
) -> Tensor:
    """νᵀ ∂s_T/∂θ for one cotangent ν of each row, (batch, rows) to (batch, weights)."""
    found = [chain.like.new_zeros(window.batch, 1, place.columns) for place in chain.places]
    out: Tensor | None = None
    for index in reversed(range(len(chain.places))):
        place, own, seen = chain.places[index], values[index], window.seen[index]
        if own is None:
            if out is not None and place.weights:
                look_up_back(found[index], place, seen.x, out)
            break
        below = any(p.weights for p in chain.places[:index])
        if out is None and not place.rows:
            continue
        pulled = pull(own, out, _parts(place, cotangents), x=below)
        if place.weights:
            add_immediate(found[index], place, pulled)
        out = before_dropout(place, seen, pulled.x, out, 0, window.time) if below else None
    return torch.cat([one[:, 0] for one in found], 1)


def _parts(place: Place, vectors: Tensor) -> tuple[Tensor | None, ...] | None:
    """A vector of each row in the order of what a place carries on, (batch, 1, …) each."""
    if place.graph is None or not place.rows:
        return None
    kept = {}
    for part, rows, shape in zip(place.keeps, place.parts, place.shapes, strict=True):
        own = vectors[:, place.first + rows.start : place.first + rows.stop]
        kept[part] = own.reshape(-1, 1, *shape)
    return tuple(kept.get(i) for i in range(len(place.graph.states) + len(place.graph.lines)))


def push(chain: Chain, window: Window, values: list[Values | None], tangents: Tensor) -> Tensor:
    """A times one tangent of s for each row, by forward mode over the window, (batch, rows)."""
    walks = [
        None if own is None else _Tangents(place, own, _parts(place, tangents))
        for place, own in zip(chain.places, values, strict=True)
    ]
    for t in range(window.time):
        x: Tensor | None = None
        for walk, place, seen in zip(walks, chain.places, window.seen, strict=True):
            if walk is None:
                continue
            given = x if x is None or seen.mask is None else x * seen.mask[t]
            out = walk.step(t, given)
            x = out if not place.residual or x is None else x if out is None else out + x
    kept = (part for walk in walks if walk is not None for part in walk.kept())
    parts = [part.reshape(window.batch, -1) for part in kept]
    return torch.cat(parts, 1)


class _Tangents:
    """The tangents of what one place carries, moved on step by step."""

    def __init__(self, place: Place, values: Values, start: tuple[Tensor | None, ...] | None):
        assert place.graph is not None
        self.place, self.values = place, values
        self.graph: Graph = place.graph
        self.made: Forward = forward(self.graph, OVER)
        self.now: list[Tensor | None] = [None if p is None else p[:, 0] for p in start or ()]

    def step(self, t: int, x: Tensor | None) -> Tensor | None:
        """One step; gives the tangent of the place's output."""
        self._reset(t)
        nodes = at_step(self.graph, self.values.nodes[: len(self.graph.nodes)], t)
        before = list(self.now)
        pushed = push_forward(self.made, nodes, _Given(self.graph, nodes, before, x))
        count = len(self.graph.states)
        new: list[Tensor | None] = [pushed.get(i) for i in self.graph.new_states]
        for place, line in enumerate(self.graph.lines):
            held = before[count + place]
            if line.kind == "state":
                newest = before[next(_places(self.graph, line.name))]
            else:
                newest = x if line.name == self.graph.inputs[0].name else None
            new.append(_shifted(held, newest))
        self.now = self._alive(t, before, new)
        return pushed.get(self.graph.output)

    def _reset(self, t: int) -> None:
        if self.values.resets is not None:
            gone = self.values.resets[t]
            self.now = [None if p is None else _where(gone, None, p) for p in self.now]

    def _alive(self, t: int, before: list, new: list) -> list[Tensor | None]:
        if self.values.real is None:
            return new
        real = self.values.real[t]
        return [_where(real, n, o) for n, o in zip(new, before, strict=True)]

    def kept(self) -> Iterator[Tensor]:
        """What of the state the chain's rows are made of."""
        for part, shape in zip(self.place.keeps, self.place.shapes, strict=True):
            found = self.now[part]
            yield self._zeros(shape) if found is None else found

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        like = next(v for v in self.values.nodes if isinstance(v, Tensor) and v.dim() > 1)
        batch = self.values.carried[0].shape[0]
        return like.new_zeros(batch, *shape, dtype=self.values.carried[0].dtype)


def _places(graph: Graph, name: str) -> Iterator[int]:
    return (i for i, s in enumerate(graph.states) if s.name == name)


def _where(rows: Tensor, one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """One where a row is picked, else the other; None stands for zero."""
    like = one if one is not None else other
    if like is None:
        return None
    zeros = torch.zeros_like(like)
    picked = rows.view(-1, *(1,) * (like.dim() - 1))
    return torch.where(picked, zeros if one is None else one, zeros if other is None else other)


def _shifted(held: Tensor | None, newest: Tensor | None) -> Tensor | None:
    """A delay line's tangent a step on; None stands for zero."""
    if held is None:
        return None
    first = torch.zeros_like(held[:, :1]) if newest is None else newest.unsqueeze(1)
    return torch.cat([first, held[:, :-1]], 1)


class _Given(dict):
    """The tangents of a step's leaves by kind and name, zero where there is none."""

    def __init__(self, graph: Graph, nodes: list[Any], now: list[Tensor | None], x: Tensor | None):
        count = len(graph.states)
        states = {s.name: now[i] for i, s in enumerate(graph.states)} if now else {}
        lines = {
            line.name: (line, now[count + i]) for i, line in enumerate(graph.lines) if now
        }  # fmt: skip
        for index, node in enumerate(graph.nodes):
            if node.args or node.op not in (*OVER, "input"):
                continue
            name, found = node.attribute("name"), None
            key: Any = name
            if node.op == "state":
                found = states.get(name)
            elif node.op == "input":
                found = x if name == graph.inputs[0].name else None
            else:
                steps = node.attribute("steps")
                key = (name, steps)
                line, held = lines.get(name, (None, None))
                if line is not None and held is not None:
                    found = held[:, steps - (2 if line.kind == "state" else 1)]
            self[node.op, key] = torch.zeros_like(nodes[index]) if found is None else found
