"""The parts of an equation that one looks at: its pre-activations, and what squashes them.

A pre-activation z is what products W v add up to before a nonlinear function sees it. All products
of a sum have the same cotangent, δ = ∂L/∂z, and that is how they are found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from elman.diagnose.backward import adjoint_of
from elman.equation import Graph
from elman.equation.graph import PARAMETER
from elman.layers.gates import keeping

_SUMS = ("add", "sub", "neg")

# The bounds of what an operation gives; none on a side that is open.
BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, None),
    "elu": (None, None),
}


class PreActivation(NamedTuple):
    """A sum of products.

    Attributes:
        name: what it becomes, as the equation calls it ("i", "f", "h", …).
        cotangent: the node of its δ in the adjoint.
        weights: the nodes of the matrices whose products it adds up.
    """

    name: str
    cotangent: int
    weights: tuple[int, ...]


class Activation(NamedTuple):
    """A value that a nonlinear function gives.

    Attributes:
        name: as the equation calls it, else what it is made of.
        node: of the step.
        op: the function, a key of `BOUNDS`.
    """

    name: str
    node: int
    op: str


@cache
def pre_activations(graph: Graph) -> tuple[PreActivation, ...]:
    """The sums of products of a step, in the order of the equation.

    Example:
        >>> import elman
        >>> [z.name for z in pre_activations(elman.cells.get("lstm").graph)]
        ['i', 'f', 'g', 'o']
        >>> [z.name for z in pre_activations(elman.cells.get("gru").graph)]
        ['r', 'z', 'n: W_n', 'n: U_n']
    """
    backward = adjoint_of(graph)
    groups: dict[int, list[int]] = {}
    for product in (*backward.products, *backward.bilinear):
        node = backward.nodes[product.cotangent]
        # A product that is taken away has the other sign, and the same size.
        key = node.args[0] if node.op == "neg" else product.cotangent
        groups.setdefault(key, []).append(product.weight)
    found = []
    for cotangent, weights in groups.items():
        products = [
            i for i, n in enumerate(graph.nodes)
            if n.op in ("matmul", "bilinear") and n.args[0] in weights
        ]  # fmt: skip
        name = _becomes(graph, products[0]) or _suffix(graph, weights)
        found.append((min(products), PreActivation(name, cotangent, tuple(weights))))
    ordered = [z for _, z in sorted(found)]
    twice = {n for n, count in Counter(z.name for z in ordered).items() if count > 1}
    return tuple(
        z._replace(name=f"{z.name}: {', '.join(_written(graph, w) for w in z.weights)}")
        if z.name in twice
        else z
        for z in ordered
    )


@cache
def activations(graph: Graph) -> tuple[Activation, ...]:
    """The values of a step that nonlinear functions bound, in the order of the equation.

    Example:
        >>> import elman
        >>> [(a.name, a.op) for a in activations(elman.cells.get("lstm").graph)]
        [('i', 'sigmoid'), ('f', 'sigmoid'), ('g', 'tanh'), ('o', 'sigmoid'), ('tanh(c)', 'tanh')]
    """
    found = []
    for index, node in enumerate(graph.nodes):
        if node.op not in BOUNDS or graph.levels[index] == PARAMETER or not node.dims:
            continue
        name = node.name or _state_of(graph, index)
        if not name:
            inner = graph.nodes[node.args[0]].name or _state_of(graph, node.args[0])
            weights = _weights_below(graph, node.args[0])
            name = f"{node.op}({inner})" if inner else _suffix(graph, weights) or node.op
        found.append(Activation(name, index, node.op))
    twice = {n for n, count in Counter(a.name for a in found).items() if count > 1}
    return tuple(
        a._replace(name=f"{a.name} ({a.op}, {place})") if a.name in twice else a
        for place, a in enumerate(found, 1)
    )


class Keeper(NamedTuple):
    """A gate that keeps a state: s' = k ⊙ s + …, k = y or 1 − y of an activation y."""

    state: str
    activation: Activation
    turned: bool


@cache
def keepers(graph: Graph) -> tuple[Keeper, ...]:
    """The gates by which the states of a step last.

    Example:
        >>> import elman
        >>> [(k.state, k.activation.name) for k in keepers(elman.cells.get("lstm").graph)]
        [('c', 'f')]
    """
    found = []
    for kept in keeping(graph):
        state, biases, sign = kept.keep
        for activation in activations(graph):
            inner = _added_sign(graph, graph.nodes[activation.node].args[0], biases)
            if activation.op == "sigmoid" and inner:
                found.append(Keeper(state, activation, sign * inner < 0))
                break
    return tuple(found)


def _added_sign(graph: Graph, index: int, names: tuple[str, ...]) -> int:
    """1 where one of these parameters is added in a sum, −1 where it is taken away, else 0."""
    node = graph.nodes[index]
    if node.op == "parameter" and node.attribute("name") in names:
        return 1
    if node.op not in _SUMS:
        return 0
    signs = {"add": (1, 1), "sub": (1, -1), "neg": (-1,)}[node.op]
    found = (s * _added_sign(graph, a, names) for s, a in zip(signs, node.args, strict=True))
    return next((sign for sign in found if sign), 0)


def _becomes(graph: Graph, product: int) -> str:
    """The name of what a product becomes, by way of sums and one nonlinear function."""
    index, squashed = product, False
    while True:
        name = graph.nodes[index].name or _state_of(graph, index)
        if name and index != product:
            return name
        users = [i for i, n in enumerate(graph.nodes) if index in n.args]
        if len(users) != 1:
            return ""
        (index,) = users
        node = graph.nodes[index]
        if node.op not in _SUMS and (squashed or len(node.args) != 1):
            return ""
        squashed |= node.op not in _SUMS


def _state_of(graph: Graph, index: int) -> str:
    """The name of the state that a node is, new or old."""
    node = graph.nodes[index]
    if node.op == "state":
        return node.attribute("name")
    new = zip(graph.states, graph.new_states, strict=True)
    return next((s.name for s, i in new if i == index), "")


def _suffix(graph: Graph, weights: Iterable[int]) -> str:
    """What the names of matrices have in common behind their letter, W_g and U_g: g."""
    names = [_written(graph, w) for w in weights]
    ends = {name.partition("_")[2] for name in names}
    end = ends.pop() if len(ends) == 1 else ""
    return end or ", ".join(dict.fromkeys(names))


def _written(graph: Graph, weight: int) -> str:
    """A matrix by its name; what parameters make up by theirs."""
    node = graph.nodes[weight]
    if node.op == "parameter":
        return node.attribute("name")
    below = dict.fromkeys(_written(graph, a) for a in node.args)
    return "·".join(name for name in below if name) if node.args else ""


def _weights_below(graph: Graph, index: int) -> list[int]:
    """The matrices whose products a node is made of by sums alone."""
    node = graph.nodes[index]
    if node.op in ("matmul", "bilinear"):
        return [node.args[0]]
    return [w for a in node.args for w in _weights_below(graph, a)] if node.op in _SUMS else []
