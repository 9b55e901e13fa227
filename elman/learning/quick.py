"""Real-time learning of one layer and one stream, with as little around each step as can be.

The step, its local Jacobians and the new influence are those of `elman.learning.one_stage`, on the
same nodes. But a small network on a stream spends its time on Python and on the entry into each
operation, and not on numbers: so what is to be done is found out once, every result has its place
in memory, and a step is a list of numpy's operations into them and one product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.backends.cpu import influence as kernel
from elman.backends.cpu import memory
from elman.equation.jacobian import local
from elman.equation.sizes import shape_of
from elman.learning.by_unit import serves_exactly
from elman.learning.chain import Chain
from elman.learning.one_stage import Rows, hindrance

_FUNCTIONS: dict[str, Callable] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "tanh": np.tanh, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "abs": np.abs, "sin": np.sin,
    "cos": np.cos, "pow": np.power,
    "gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal,
}  # fmt: skip
_BOOLEAN = ("gt", "ge", "lt", "le")


def _sigmoid(v: np.ndarray, out: np.ndarray) -> None:
    np.negative(v, out)
    np.exp(out, out)
    np.add(out, 1.0, out)
    np.reciprocal(out, out)


def _relu(v: np.ndarray, out: np.ndarray) -> None:
    np.maximum(v, 0.0, out=out)


def _minimum(one: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
    np.minimum(one, other, out=out)


def _maximum(one: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
    np.maximum(one, other, out=out)


def _where(condition: np.ndarray, one: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
    np.copyto(out, np.where(condition, one, other))


_FUNCTIONS |= {
    "sigmoid": _sigmoid, "relu": _relu, "where": _where, "matmul": np.dot, "minimum": _minimum,
    "maximum": _maximum,
}  # fmt: skip


def serves(chain: Chain, weights: Sequence[Tensor]) -> bool:
    """Whether a chain can learn this way, under the exact carry and a window of one step.

    Args:
        chain: with the weights of a call.
        weights: the trained tensors of its module. Each must be a weight of the step as it is.
    """
    if len(chain.places) != 1 or serves_exactly(chain) or hindrance(chain):
        return False
    graph, own = chain.places[0].graph, chain.places[0].weights
    if graph is None or len(graph.inputs) != 1 or len(own) != len(weights):
        return False
    # Each new state has a place in memory of its own, which the next step reads.
    new = graph.new_states
    own_places = len({*new}) == len(new) and all(graph.nodes[i].args for i in new)
    if graph.output not in new or not own_places:
        return False
    if any(w.node is None for w in own) or len(_order(chain, weights)) < len(own):
        return False
    plain = all(w.device.type == "cpu" and w.dtype in memory.NUMPY for w in weights)
    made = local(graph)
    read = (n for n in made.nodes if n.args and len(n.dims) < 2)
    return plain and bool(made.recurrent) and all(n.op in _FUNCTIONS for n in read)


def _order(chain: Chain, weights: Sequence[Tensor]) -> list[int]:
    """For each of some tensors its place among the weights of the step; those that have one."""
    own = {id(t): place for place, t in enumerate(chain.weights)}
    return [own[id(t)] for t in weights if id(t) in own]


class Quick:
    """One layer on one stream, which keeps its state and its influence.

    Args:
        chain: one that this way `serves`; its weights are read at every step, where they are.
        weights: as `serves` was given them.
    """

    def __init__(self, chain: Chain, weights: Sequence[Tensor]):
        place = chain.places[0]
        graph = place.graph
        if graph is None:
            raise ValueError("a lookup has no step")
        self._order = _order(chain, weights)
        self._sizes = [math.prod(w.shape) for w in place.weights]
        self._graph, self._place, self._local = graph, place, local(graph)
        self._rows = Rows.of(place)
        like = chain.like
        self._dtype, self._torch_dtype = memory.NUMPY[like.dtype], like.dtype
        self._weights = {
            w.node: chain.values[0][w.node] for w in place.weights if w.node is not None
        }
        self._addresses = [w.data_ptr() for w in self._weights.values()]
        self._x = np.zeros(shape_of(graph.inputs[0].dims, place.sizes), self._dtype)
        self._states = [np.zeros(shape, self._dtype) for shape in place.shapes]
        self._arrays: dict[int, Any] = {}
        self._forward = self._program()
        self._new = [self._arrays[i] for i in graph.new_states]
        # Zeros behind the last column make the kernel's panels whole.
        columns = -(-place.columns // 64) * 64
        self._influences = [torch.zeros(1, place.rows, columns, dtype=like.dtype) for _ in range(2)]
        self._now = 0
        self._advance = self._moving()
        self._immediate = [self._immediates(m[0].numpy()) for m in self._influences]
        self._out = self._rows[graph.new_states.index(graph.output)]

    @property
    def count(self) -> int:
        """The number of trained tensors."""
        return len(self._weights)

    def current(self) -> bool:
        """Whether the weights are still in the memory that is read."""
        weights = self._weights.values()
        return all(w.data_ptr() == a for w, a in zip(weights, self._addresses, strict=True))

    # A step.

    def step(self, x: Tensor) -> Tensor:
        """One step: the output, (1, 1, size), with a memory of its own.

        Args:
            x: (1, 1, input), without gradient.
        """
        for state, new in zip(self._states, self._new, strict=True):
            np.copyto(state, new)
        np.copyto(self._x, x.detach().numpy().reshape(-1))
        with np.errstate(all="ignore"):
            for function, arguments in self._forward:
                function(*arguments)
            self._advance()
            self._now = 1 - self._now
            for function, arguments in self._immediate[self._now]:
                function(*arguments)
        return torch.from_numpy(self._arrays[self._graph.output].copy()).view(1, 1, -1)

    def gradient(self, cotangent: Tensor) -> list[Tensor]:
        """s̄ᵀ M for the step made last: a vector for each of the weights given.

        Args:
            cotangent: of the output, (1, 1, size).
        """
        moved = self._influences[self._now][0, self._out]
        total = torch.mv(moved.t(), cotangent.reshape(-1))
        parts = total[: self._place.columns].split(self._sizes)
        return [parts[place] for place in self._order]

    # What is kept.

    def begin(self, states: Sequence[Tensor], influence: Sequence[Tensor]) -> None:
        """Go on from a state, each (1, 1, size), and its influence; () for none."""
        for new, given in zip(self._new, states, strict=True):
            np.copyto(new, given.detach().numpy().reshape(-1))
        moved = self._influences[self._now].zero_()
        if influence:
            moved[:, :, : self._place.columns].copy_(influence[0])

    def carried(self, before: bool = False) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Copies of state and influence, after the last step or before it."""
        states = self._states if before else self._new
        moved = self._influences[1 - self._now if before else self._now]
        return (
            tuple(torch.from_numpy(s.copy()).view(1, 1, -1) for s in states),
            (moved[:, :, : self._place.columns].clone(),),
        )

    # What is to be done.

    def _array(self, shape: Sequence[int], kind: Any = None) -> np.ndarray:
        return np.zeros(shape, self._dtype if kind is None else kind)

    def _program(self) -> list[tuple[Callable, tuple]]:
        """The step and the factors of its Jacobians, node by node."""
        made, sizes = self._local, self._place.sizes
        names = {s.name: state for s, state in zip(self._graph.states, self._states, strict=True)}
        program = []
        for index, node in enumerate(made.nodes):
            if node.op == "constant":
                self._arrays[index] = np.asarray(node.attribute("value"), self._dtype)
            elif node.op == "input":
                self._arrays[index] = self._x
            elif node.op == "state":
                self._arrays[index] = names[node.attribute("name")]
            elif index in self._weights:
                self._arrays[index] = self._weights[index].detach().numpy()
            elif node.args and all(a in self._arrays for a in node.args):
                kind = bool if node.op in _BOOLEAN else None
                out = self._arrays[index] = self._array(shape_of(node.dims, sizes), kind)
                operands = [self._arrays[a] for a in node.args]
                program.append((_FUNCTIONS[node.op], (*operands, out)))
        return program

    def _factor(self, index: int, units: int) -> np.ndarray:
        return np.broadcast_to(self._arrays[index], (units,))

    def _moving(self) -> Callable[[], None]:
        """What moves the influence on: A M and the ways unit by unit."""
        made, rows = self._local, self._rows
        first = rows[made.recurrent[0]].start
        span = rows[made.recurrent[-1]].stop - first
        left = torch.zeros(1, rows.total, span, dtype=self._torch_dtype)
        fill = self._left(left[0].numpy(), first)
        pairs = tuple(sorted((k, m) for k, m in made.carried if m >= 0))
        runs = [(rows.starts[k], rows.starts[m], rows.units[k]) for k, m in pairs]
        terms, order = kernel.Terms.of(rows.total, runs)
        factors = torch.zeros(1, max(1, len(order)), dtype=self._torch_dtype)
        ways = [self._factor(made.carried[pair], rows.units[pair[0]]) for pair in pairs]
        flat, places = factors.numpy()[0], np.asarray(order, np.intp)
        if kernel.serves(left, *self._influences):

            def advance() -> None:
                for function, arguments in fill:
                    function(*arguments)
                if ways:
                    np.take(np.concatenate(ways), places, out=flat)
                old, new = self._influences[self._now], self._influences[1 - self._now]
                kernel.moved(left, old, first, new, terms=terms, factors=factors)

            return advance
        return self._moving_plainly(left[0].numpy(), first, fill, pairs, ways)

    def _moving_plainly(
        self,
        left: np.ndarray,
        first: int,
        fill: list[tuple[Callable, tuple]],
        pairs: Sequence[tuple[int, int]],
        ways: Sequence[np.ndarray],
    ) -> Callable[[], None]:
        """The same without the kernel, for networks so small that it is not worth its call."""
        rows, arrays = self._rows, [m[0].numpy() for m in self._influences]
        span, between = left.shape[1], np.empty_like(arrays[0])

        def advance() -> None:
            for function, arguments in fill:
                function(*arguments)
            old, new = arrays[self._now], arrays[1 - self._now]
            np.dot(left, old[first : first + span], new)
            for (k, m), way in zip(pairs, ways, strict=True):
                part = between[: len(way)]
                np.multiply(old[rows[m]], way[:, None], part)
                np.add(new[rows[k]], part, new[rows[k]])

        return advance

    def _left(self, left: np.ndarray, first: int) -> list[tuple[Callable, tuple]]:
        """Fills A with Σ_j diag(D_kj) W_j diag(F_jm)."""
        made, rows, program = self._local, self._rows, []
        for m in made.recurrent:
            columns = slice(rows[m].start - first, rows[m].stop - first)
            for k, units in enumerate(rows.units):
                block, begun = left[rows[k], columns], False
                for product in made.products:
                    if (k, product) not in made.onto or (product, m) not in made.into:
                        continue
                    weight = self._arrays[made.nodes[product].args[0]]
                    onto = self._factor(made.onto[k, product], units)[:, None]
                    into = self._arrays[made.into[product, m]]
                    to = self._array(block.shape) if begun else block
                    program.append((np.multiply, (weight, onto, to)))
                    if into.ndim or into != 1.0:
                        program.append((np.multiply, (to, into, to)))
                    if begun:
                        program.append((np.add, (block, to, block)))
                    begun = True
        return program

    def _immediates(self, moved: np.ndarray) -> list[tuple[Callable, tuple]]:
        """Adds ∂s'/∂θ at the weights' own columns."""
        made, program = self._local, []
        for weight in self._place.weights:
            for k, units in enumerate(self._rows.units):
                block = moved[self._rows[k], weight.columns]
                for product in made.products:
                    if made.nodes[product].args[0] != weight.node or (k, product) not in made.onto:
                        continue
                    onto = self._factor(made.onto[k, product], units)[:, None]
                    vector = self._arrays[made.nodes[product].args[1]]
                    program += _added(_own_columns(block, units, len(vector)), onto, vector)
                index = made.vectors.get((k, weight.node)) if weight.node is not None else None
                if index is not None:
                    alone = math.prod(weight.shape) == 1 and weight.shape == ()
                    own = block[:, 0] if alone else _own_columns(block, units, 1)[:, 0]
                    program.append((np.add, (own, self._factor(index, units), own)))
        return program


def _own_columns(block: np.ndarray, units: int, width: int) -> np.ndarray:
    """The columns of row i's own weights in row i, (units, width), in a block's memory."""
    row, column = block.strides
    return np.lib.stride_tricks.as_strided(
        block, (units, width), (row + width * column, column), writeable=True
    )


def _added(own: np.ndarray, onto: np.ndarray, vector: np.ndarray) -> list[tuple[Callable, tuple]]:
    """own += onto ⊗ vector."""
    between = np.empty(own.shape, own.dtype)
    return [(np.multiply, (onto, vector, between)), (np.add, (own, between, own))]
