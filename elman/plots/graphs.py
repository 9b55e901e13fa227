"""A graph coloured by the classes, or the choice, that a model tells."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from elman.data.graphs import GraphData, read_graphs
from elman.errors import InputError
from elman.plots.style import GREY, VERMILLION, save, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from elman.tasks.graph import Told, TrainedGraph

MOST_NODES = 300  # that are drawn; of a larger graph a neighbourhood
_NAMED = 40  # nodes that can still have their names beside them
_ROUNDS = 200  # of the layout
_PALE = "#e8e8e8"


def of_answers(model: TrainedGraph, data: str | Path, path: str | Path) -> int:
    """Draw the first graph of some tables as a model tells it.

    Args:
        model: as `elman.load` gives it.
        data: a folder of tables.
        path: the PNG to write.

    Returns:
        How many graphs of the tables are not drawn.

    Raises:
        FileError: the tables are no graphs.
    """
    graphs = read_graphs(data, target=model.meaning.target)
    coloured(graphs, model.predict(graphs), model.meaning.classes, path)
    return len(graphs.graphs) - 1


def coloured(
    data: GraphData, told: Sequence[Told], classes: Sequence[str], path: str | Path, graph: int = 0
) -> None:
    """Draw a graph, its nodes coloured by what a model tells.

    Where nodes have classes, the colour is the class that is told, and a black ring says that the
    table has another. Where one node is chosen, it is filled; the ring is round the right one.
    Of more than 300 nodes those are drawn that are nearest to the one with most neighbours.

    Args:
        data: the graphs.
        told: what `TrainedGraph.predict` says of them.
        classes: all classes, in order.
        path: the PNG to write.
        graph: which of the graphs.

    Raises:
        InputError: there is no such graph.
    """
    if not 0 <= graph < len(data.graphs):
        raise InputError(f"coloured: graph is {graph}; there are {len(data.graphs)}")
    first, end = data.first_nodes[graph : graph + 2].tolist()
    edges = data.edges[(data.edges[:, 0] >= first) & (data.edges[:, 0] < end)] - first
    kept = neighbourhood(edges, end - first)
    place = {node: k for k, node in enumerate(kept)}
    inner = [(place[u], place[v]) for u, v in edges.tolist() if u in place and v in place]
    nodes = [first + node for node in kept]
    fills, rings, said = _colours(data, told, classes, graph, nodes)
    at = layout(inner, len(kept))
    figure = Figure(figsize=(7.6, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.add_collection(LineCollection([(at[u], at[v]) for u, v in inner], colors="#bbbbbb",
                                       linewidths=0.8, zorder=1))  # fmt: skip
    size = float(np.clip(9000 / max(len(kept), 1), 25, 420))
    axes.scatter(*at.T, s=size, c=fills, edgecolors=rings, linewidths=1.6, zorder=2)
    if len(kept) <= _NAMED:
        for (x, y), node in zip(at, nodes, strict=True):
            axes.annotate(written(data.nodes[node])[:18], (x, y), xytext=(0, 12), zorder=3,
                          textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    if data.types and len(inner) <= _NAMED:
        _say_types(axes, data, edges, first, place, at)
    part = f" ({len(kept):,} of {end - first:,} nodes)" if len(kept) < end - first else ""
    axes.set_title(f"{said}{part}", fontsize=11, loc="left")
    if classes and len(classes) <= 12 and len(kept) > 1:
        _say_classes(axes, classes)
    save(figure, path)


def _say_classes(axes: Axes, classes: Sequence[str]) -> None:
    marks = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=written(name))
        for name, colour in zip(classes, palette(len(classes)), strict=True)
    ]
    axes.legend(handles=marks, loc="upper right", framealpha=0.9, edgecolor="none", fontsize=8)


def palette(classes: int) -> list[str]:
    """A colour for each class."""
    found = colormaps["tab10"] if classes <= 10 else colormaps["tab20"]
    return [to_hex(found(k % found.N)) for k in range(classes)]


def _colours(
    data: GraphData, told: Sequence[Told], classes: Sequence[str], graph: int, nodes: Sequence[int]
) -> tuple[list[str], list[str], str]:
    """Fill and ring of every node, and the title."""
    name = written(data.graphs[graph]) or written(Path(data.name).name)
    rings = [GREY] * len(nodes)
    by_class = dict(zip(classes, palette(len(classes)), strict=True))
    if len(told) == len(data.nodes) and told[0].node:
        fills = [by_class[told[node].label] for node in nodes]
        known = data.labels if data.target == "node" else (None,) * len(data.nodes)
        judged = [node for node in nodes if known[node] is not None]
        wrong = [known[node] not in (None, told[node].label) for node in nodes]
        rings = ["black" if bad else fill for bad, fill in zip(wrong, fills, strict=True)]
        title = f"{name}: the classes that the model tells"
        if judged:
            title += f"\n{len(judged) - sum(wrong)} of {len(judged)} right, a black ring where not"
        return fills, rings, title
    answer, right = told[graph], data.labels[graph] if data.target else None
    if classes:
        differs = right is not None and right != answer.label
        beside = f" (the table says {written(right or '')})" if differs else ""
        title = f"{name}: {written(answer.label)}, p = {answer.probability:.2f}{beside}"
        return [by_class[answer.label]] * len(nodes), rings, title
    names = [data.nodes[node] for node in nodes]
    fills = [palette(1)[0] if n == answer.label else _PALE for n in names]
    rings = [VERMILLION if n == right else GREY for n in names]
    asked = [f"{data.nodes[node]}: {', '.join(data.features[node])}" for node in nodes
             if data.features[node]]  # fmt: skip
    asks = f"\n{'; '.join(asked)}"[:60].replace("$", r"\$") if 0 < len(asked) <= 3 else ""
    title = f"{name}: the model chooses {written(answer.label)}, p = {answer.probability:.2f}{asks}"
    return fills, rings, title


def _say_types(axes, data: GraphData, edges: np.ndarray, first: int, place, at) -> None:
    """The type of each edge beside its middle; an arrow where edges have a direction."""
    whole = data.edges - first
    inside = (whole[:, 0] >= 0) & (whole[:, 0] < max(place) + 1 if place else False)
    types = [data.types[k] for k in np.nonzero(inside)[0]]
    for (u, v), kind in zip(edges.tolist(), types, strict=False):
        if u not in place or v not in place:
            continue
        start, end = at[place[u]], at[place[v]]
        if data.directed:
            axes.annotate("", end, start, zorder=1,
                          arrowprops={"arrowstyle": "-|>", "color": GREY, "shrinkA": 10,
                                      "shrinkB": 10, "linewidth": 0.8})  # fmt: skip
        axes.annotate(written(kind)[:12], 0.62 * start + 0.38 * end, fontsize=7, color=GREY,
                      ha="center", va="center", zorder=3,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip


def neighbourhood(edges: np.ndarray, nodes: int) -> list[int]:
    """All nodes, or of many the nearest to the one with most neighbours."""
    if nodes <= MOST_NODES:
        return list(range(nodes))
    around: list[list[int]] = [[] for _ in range(nodes)]
    for u, v in edges.tolist():
        around[u].append(v)
        around[v].append(u)
    start = max(range(nodes), key=lambda node: len(around[node]))
    seen, waiting = {start}, deque([start])
    while waiting and len(seen) < MOST_NODES:
        for other in around[waiting.popleft()]:
            if other not in seen and len(seen) < MOST_NODES:
                seen.add(other)
                waiting.append(other)
    return sorted(seen)


def layout(edges: Sequence[tuple[int, int]], nodes: int) -> np.ndarray:
    """Places of nodes in the plane, (nodes, 2): edges pull, nodes push each other away.

    Source: Fruchterman & Reingold 1991, "Graph drawing by force-directed placement", with a weak
    pull to the middle that keeps parts without an edge between them near.
    """
    draw = np.random.default_rng(0)
    at = draw.normal(size=(nodes, 2))
    if nodes < 2:
        return at * 0
    ends = np.array([(u, v) for u, v in edges if u != v], dtype=np.int64).reshape(-1, 2)
    length = 1.0 / np.sqrt(nodes)
    for turn in range(_ROUNDS):
        apart = at[:, None] - at[None]
        squares = (apart**2).sum(-1) + 1e-9
        force = (apart * (length**2 / squares)[..., None]).sum(1)
        along = at[ends[:, 0]] - at[ends[:, 1]]
        pull = along * np.linalg.norm(along, axis=1, keepdims=True) / length
        np.add.at(force, ends[:, 0], -pull)
        np.add.at(force, ends[:, 1], pull)
        force -= 2.0 * at
        size = np.linalg.norm(force, axis=1, keepdims=True) + 1e-12
        step = 0.2 * (1 - turn / _ROUNDS) + 1e-3
        at = at + force / size * np.minimum(size, step)
    return at - at.mean(0)
