"""Graphs whose answer is in the structure: two puzzles of bAbI, and molecules with a ring of six.

Every graph is made from a seed; `elman.data.graphs.write_graphs` writes them as tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from elman.data.graphs import GraphData
from elman.errors import InputError

ROOMS = ("kitchen", "office", "garden", "hallway", "bedroom", "bathroom")
ANIMALS = ("cat", "mouse", "wolf", "sheep")
NAMES = ("Gertrude", "Winona", "Emily", "Jessica")
SIDES = {"n": (0, 1), "s": (0, -1), "e": (1, 0), "w": (-1, 0)}
RING, OTHER_RINGS = 6, (5, 7)


class _Graph(NamedTuple):
    """One graph: its nodes with their features, (u, v, type) of its edges, and its label."""

    nodes: dict[str, tuple[str, ...]]
    edges: list[tuple[str, str, str]]
    label: str


def babi(task: int, graphs: int, seed: int = 0) -> GraphData:
    """Task 4 or 15 of bAbI as graphs: facts are edges with types, the answer is a node.

    Task 4, two relations: three rooms, one of them between the other two. A fact says that a room
    lies north, south, east or west of another, and one is asked about: "what is north of the
    office?" (the office has the feature ``?n``), or "what is the office north of?" (``n?``).

    Task 15, deduction: four kinds of animals, each afraid of another kind, and four animals, each
    of a kind; what is this one afraid of? It has the feature ``?``. The way is two edges long.

    Args:
        task: 4 or 15.
        graphs: how many, ≥ 1.
        seed: of the drawing, ≥ 0.

    Returns:
        The graphs, to select a node of each; edges are directed.

    Raises:
        InputError: another task, or no graph.

    Example:
        >>> one = babi(15, 1)
        >>> sorted(set(one.types)), len(one.nodes), one.labels[0] in one.nodes
        (['fears', 'is'], 8, True)

    Source: Weston et al. 2015, "Towards AI-complete question answering: a set of prerequisite toy
    tasks", tasks 4 and 15; as graphs Li et al. 2016, section 5.1. Drawn anew from the rules; one
    model is asked all eight questions of task 4.
    """
    makers: dict[int, Callable[[np.random.Generator], _Graph]] = {4: _two_relations, 15: _deduction}
    if task not in makers:
        raise InputError(f"babi: task is {task!r}; there are 4 and 15")
    return _collected(f"bAbI task {task}", makers[task], "selection", graphs, seed, directed=True)


def _two_relations(draw: np.random.Generator) -> _Graph:
    """The room in the middle, its two neighbours on two sides, and a question about one of them."""
    names = [str(name) for name in draw.permutation(ROOMS)[:3]]
    middle, others = names[0], names[1:]
    sides = [str(side) for side in draw.permutation(list(SIDES))[:2]]
    opposite = {"n": "s", "s": "n", "e": "w", "w": "e"}
    asked = int(draw.integers(2))
    facts: list[tuple[str, str, str]] = []
    question = ""
    for k, (other, side) in enumerate(zip(others, sides, strict=True)):
        # "other is north of middle" or "middle is south of other": the same place, said twice.
        of_middle = bool(draw.integers(2))
        facts.append((other, middle, side) if of_middle else (middle, other, opposite[side]))
        if k == asked:
            question = f"?{side}" if of_middle else f"{opposite[side]}?"
    order = draw.permutation(len(facts))
    nodes: dict[str, tuple[str, ...]] = {
        str(n): ((question,) if n == middle else ()) for n in draw.permutation(names)
    }
    return _Graph(nodes, [facts[i] for i in order], others[asked])


def _deduction(draw: np.random.Generator) -> _Graph:
    """Kinds with whom they fear, animals with their kinds, and one that is asked about."""
    fears = {}
    for kind in ANIMALS:
        others = [other for other in ANIMALS if other != kind]
        fears[kind] = others[int(draw.integers(len(others)))]
    kinds = {name: ANIMALS[int(draw.integers(len(ANIMALS)))] for name in NAMES}
    asked = NAMES[int(draw.integers(len(NAMES)))]
    facts = [(kind, other, "fears") for kind, other in fears.items()]
    facts += [(name, kind, "is") for name, kind in kinds.items()]
    order = draw.permutation(len(facts))
    nodes: dict[str, tuple[str, ...]] = {str(n): (("?",) if n == asked else ())
             for n in draw.permutation([*ANIMALS, *NAMES])}  # fmt: skip
    return _Graph(nodes, [facts[i] for i in order], fears[kinds[asked]])


def rings(graphs: int, seed: int = 0, *, atoms: int = 16) -> GraphData:
    """Graphs like small molecules: has it a ring of six?

    Every molecule is one ring with branches, of the same number of atoms and of bonds. Half of the
    rings have six atoms, the others five or seven. Which atoms are carbon, nitrogen or oxygen, and
    which bonds are double, is drawn alike for all; so only the structure tells.

    Args:
        graphs: how many, ≥ 1.
        seed: of the drawing, ≥ 0.
        atoms: of each, ≥ 8.

    Returns:
        The graphs, with the classes "ring of six" and "other ring".

    Raises:
        InputError: no graph, or too few atoms.

    Example:
        >>> some = rings(4)
        >>> len(some.nodes), len(some.edges), sorted(set(some.labels))
        (64, 64, ['other ring', 'ring of six'])
    """
    if not isinstance(atoms, int) or isinstance(atoms, bool) or atoms < max(OTHER_RINGS) + 1:
        raise InputError(f"rings: atoms is {atoms!r}; give a whole number ≥ {max(OTHER_RINGS) + 1}")
    count = iter(range(10**9))

    def molecule(draw: np.random.Generator) -> _Graph:
        # Both classes take turns, so that chance is one half exactly.
        six = next(count) % 2 == 0
        return _molecule(draw, RING if six else int(draw.choice(OTHER_RINGS)), atoms)

    return _collected("molecules", molecule, "graph", graphs, seed, directed=False)


def _molecule(draw: np.random.Generator, ring: int, atoms: int) -> _Graph:
    degree = np.zeros(atoms, dtype=np.int64)
    bonds = [(k, (k + 1) % ring) for k in range(ring)]
    degree[:ring] = 2
    for atom in range(ring, atoms):
        free = np.nonzero(degree[:atom] < 4)[0]
        to = int(draw.choice(free))
        bonds.append((to, atom))
        degree[[to, atom]] += 1
    names = [f"a{i}" for i in draw.permutation(atoms)]
    kinds = draw.choice(["C", "N", "O"], size=atoms, p=[0.7, 0.15, 0.15])
    orders = draw.choice(["single", "double"], size=len(bonds), p=[0.7, 0.3])
    shuffled = draw.permutation(len(bonds))
    nodes: dict[str, tuple[str, ...]] = {
        name: (str(kind),) for name, kind in sorted(zip(names, kinds, strict=True))
    }
    edges = [(names[bonds[i][0]], names[bonds[i][1]], str(orders[i])) for i in shuffled]
    return _Graph(nodes, edges, "ring of six" if ring == RING else "other ring")


def _collected(
    name: str,
    make: Callable[[np.random.Generator], _Graph],
    target: str,
    graphs: int,
    seed: int,
    directed: bool,
) -> GraphData:
    """So many graphs, each from a seed of its own."""
    if not isinstance(graphs, int) or isinstance(graphs, bool) or graphs < 1:
        raise InputError(f"{name}: the number of graphs is {graphs!r}; give a whole number ≥ 1")
    made = [make(np.random.default_rng([seed, k])) for k in range(graphs)]
    nodes: list[str] = []
    features: list[tuple[str, ...]] = []
    graph_of: list[int] = []
    edges: list[tuple[int, int]] = []
    types: list[str] = []
    for number, graph in enumerate(made):
        place = {node: len(nodes) + k for k, node in enumerate(graph.nodes)}
        nodes.extend(graph.nodes)
        features.extend(graph.nodes.values())
        graph_of.extend([number] * len(graph.nodes))
        edges.extend((place[u], place[v]) for u, v, _ in graph.edges)
        types.extend(kind for _, _, kind in graph.edges)
    return GraphData(
        name,
        tuple(f"g{k + 1}" for k in range(graphs)),
        tuple(nodes),
        np.array(graph_of, dtype=np.int64),
        tuple(features),
        np.array(edges, dtype=np.int64),
        tuple(types),
        target,
        tuple(graph.label for graph in made),
        directed,
    )


def with_splits(data: GraphData, train: int, valid: int) -> GraphData:
    """The same graphs: the first `train` to train on, the next to validate on, the rest the test.

    Raises:
        InputError: there are not so many graphs, or none of a part.

    Example:
        >>> {p: len(n) for p, n in with_splits(babi(4, 10), 6, 2).splits.items()}
        {'train': 6, 'val': 2, 'test': 2}
    """
    count = len(data.graphs)
    if train < 1 or valid < 1 or train + valid > count:
        raise InputError(
            f"with_splits: {train} and {valid} of {count} graphs; give at least one to each part"
        )
    ends = (0, train, train + valid, count)
    parts = {
        part: tuple(range(ends[k], ends[k + 1])) for k, part in enumerate(("train", "val", "test"))
    }
    return replace(data, splits={part: numbers for part, numbers in parts.items() if numbers})
