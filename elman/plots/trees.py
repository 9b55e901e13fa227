"""A tree with the labels that a model tells at its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from elman.data.trees import LabelledTree, read_trees
from elman.errors import InputError
from elman.plots.style import GREY, save, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from elman.tasks.tree import Labelled, TrainedTree

MOST_LEAVES = 80  # of a tree that can still be read
_LONGEST = 18  # characters of a word


def of_answers(model: TrainedTree, data: str | Path, path: str | Path) -> int:
    """Draw the first tree of a file as a model labels it.

    Args:
        model: as `elman.load` gives it.
        data: a file of bracketed trees.
        path: the PNG to write.

    Returns:
        How many trees of the file are not drawn.

    Raises:
        FileError: the file is none of trees.
        InputError: the tree is too large to be read.
    """
    trees = read_trees(data)
    labelled(trees[0], model.label(trees[:1])[0], model.meaning.classes, path)
    return len(trees) - 1


def labelled(tree: LabelledTree, said: Labelled, classes: Sequence[str], path: str | Path) -> None:
    """Draw a tree, its nodes coloured by the labels that a model tells.

    A label's letters stand in its circle; the surer the model, the fuller the colour. Where the
    tree has a label of its own that differs, it stands beside the circle in brackets.

    Args:
        tree: the tree; its own labels may be missing.
        said: labels and probabilities of its nodes.
        classes: all labels, in order.
        path: the PNG to write.

    Raises:
        InputError: more leaves than a picture can show.
    """
    across, up = places(tree)
    leaves = [node for node, word in enumerate(tree.words) if word is not None]
    if len(leaves) > MOST_LEAVES:
        raise InputError(
            f"the tree has {len(leaves)} leaves; a picture shows at most {MOST_LEAVES}. Draw a "
            "smaller one."
        )
    wide, high = max(3.6, 0.55 * len(leaves) + 1.0), 1.9 + 0.55 * max(up)
    figure = Figure(figsize=(wide, high), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    lines = [[(across[p], up[p]), (across[v], up[v])] for v, p in enumerate(tree.parents) if p >= 0]
    axes.add_collection(LineCollection(lines, colors=GREY, linewidths=1.0, zorder=1))
    _nodes(axes, tree, said, classes, across, up)
    for node in leaves:
        word = tree.words[node] or ""
        word = word if len(word) <= _LONGEST else word[: _LONGEST - 1] + "…"
        axes.text(across[node], up[node] - 0.45, written(word), ha="center", va="top", fontsize=9,
                  rotation=35 if len(leaves) > 6 else 0)  # fmt: skip
    axes.set_xlim(-0.8, len(leaves) - 0.2)
    axes.set_ylim(-1.2, max(up) + 0.6)
    save(figure, path)


def places(tree: LabelledTree) -> tuple[list[float], list[float]]:
    """Where nodes stand: leaves side by side below, each other node above the middle of its
    children, one higher than the highest of them.

    Example:
        >>> places(LabelledTree(["a", "b", "c"], [None, "x", "y"], [-1, 0, 0]))
        ([0.5, 0.0, 1.0], [1.0, 0.0, 0.0])
    """
    count = len(tree.parents)
    across, up = [0.0] * count, [0.0] * count
    first, last = [np.inf] * count, [-np.inf] * count
    leaf = sum(word is not None for word in tree.words)
    for node in range(count - 1, -1, -1):
        if tree.words[node] is not None:
            leaf -= 1
            across[node] = float(leaf)
        else:
            across[node] = (first[node] + last[node]) / 2
        parent = tree.parents[node]
        if parent >= 0:
            first[parent] = min(first[parent], across[node])
            last[parent] = max(last[parent], across[node])
            up[parent] = max(up[parent], up[node] + 1)
    return across, up


def _nodes(axes: Axes, tree, said, classes: Sequence[str], across, up) -> None:
    colours = colormaps["RdYlBu" if len(classes) > 2 else "coolwarm_r"]
    number = {name: i for i, name in enumerate(classes)}
    for node, (label, sure) in enumerate(zip(said.labels, said.probabilities, strict=True)):
        full = np.array(colours(number[label] / max(len(classes) - 1, 1))[:3])
        mixed = sure * full + (1 - sure) * np.ones(3)
        axes.plot(
            across[node], up[node], "o", markersize=17, color=to_hex(tuple(mixed)),
            markeredgecolor="black", markeredgewidth=0.7, zorder=2,
        )  # fmt: skip
        dark = mixed @ (0.299, 0.587, 0.114) < 0.5
        axes.text(across[node], up[node], written(label)[:4], ha="center", va="center_baseline",
                  fontsize=8, color="white" if dark else "black", zorder=3)  # fmt: skip
        own = tree.labels[node]
        if own is not None and own != label and own != "?":
            axes.text(across[node] + 0.27, up[node] + 0.16, f"({written(own)[:4]})", fontsize=7,
                      ha="left", va="bottom", zorder=3)  # fmt: skip
