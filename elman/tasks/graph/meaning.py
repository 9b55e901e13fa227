"""What the numbers of a model of graphs stand for, and graphs as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elman.data.graphs import GraphData
from elman.errors import FileError, InputError

MOST_VALUES = 2_000_000_000
UNTYPED = ""
BACK = "back: "


class Batch(NamedTuple):
    """Graphs one after another.

    Attributes:
        x: features of the nodes, (nodes, features), float32.
        edge_index: sender and receiver of each edge, (2, edges), int64.
        types: the type of each edge, (edges,), int64.
        graph: the number of each node's graph, (nodes,), int64.
        targets: classes of nodes, classes of graphs, or the number of the chosen node of each
            graph, −1 where nothing is asked; int64.
    """

    x: Tensor
    edge_index: Tensor
    types: Tensor
    graph: Tensor
    targets: Tensor


def kind_of_features(data: GraphData) -> str:
    """Whether features are numbers or ids of what a node has.

    Rows of one length ≥ 2 that are all numbers are numbers, and so is whatever has a fraction or a
    sign; everything else is ids.
    """
    filled = [row for row in data.features if row]
    lengths = {len(row) for row in data.features}
    values = [value for row in filled for value in row]
    if not values or not all(map(_is_number, values)):
        return "ids"
    whole = all(value.isdecimal() for value in values)
    return "ids" if whole and (len(lengths) > 1 or lengths == {1}) else "numbers"


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a model of graphs stand for.

    Attributes:
        target: "node", "graph" or "selection".
        features: the ids in their order; empty where features are numbers or there are none.
        numbers: for numbers the shift and scale of each; empty where features are ids.
        types: of edges; those that begin with "back: " run against the arrow.
        classes: the labels; empty for a selection.
        directed, normalise: as in the options.
    """

    target: str
    features: tuple[str, ...]
    numbers: tuple[tuple[float, float], ...]
    types: tuple[str, ...]
    classes: tuple[str, ...]
    directed: bool
    normalise: bool

    def __post_init__(self) -> None:
        for name, entries in (("_id", self.features), ("_type", self.types),
                              ("_class", self.classes)):  # fmt: skip
            object.__setattr__(self, name, {e: i for i, e in enumerate(entries)})

    @property
    def width(self) -> int:
        """Number of features of a node; where there are none a constant one stands for them."""
        return max(len(self.features) + len(self.numbers), 1)

    # -- features ----------------------------------------------------------------------------

    def x(self, data: GraphData) -> Tensor:
        """The features of all nodes.

        Raises:
            FileError: rows of another length than that of training, or no numbers.
            InputError: more values than memory is meant for.
        """
        nodes = len(data.nodes)
        if nodes * self.width > MOST_VALUES:
            raise InputError(
                f"{data.name}: {nodes:,} nodes of {self.width:,} features are more than this task "
                "holds in memory as rows."
            )
        if self.numbers:
            return self._numbers(data)
        x = torch.zeros(nodes, self.width)
        if not self.features:
            return x + 1
        known: dict[str, int] = self._id  # type: ignore[attr-defined]
        places = [(v, known[f]) for v, row in enumerate(data.features) for f in row if f in known]
        if places:
            rows, columns = torch.tensor(places).T
            x[rows, columns] = 1.0
        return x / x.sum(1, keepdim=True).clamp(min=1) if self.normalise else x

    def _numbers(self, data: GraphData) -> Tensor:
        for node, row in zip(data.nodes, data.features, strict=True):
            if len(row) != len(self.numbers) or not all(map(_is_number, row)):
                raise FileError(
                    f"{data.name}: the node {node!r} has the features {' '.join(row)[:60]!r}; "
                    f"expected {len(self.numbers)} numbers."
                )
        values = torch.from_numpy(np.array(data.features, dtype=np.float64))
        shift, scale = torch.tensor(self.numbers, dtype=torch.float64).T
        return ((values - shift) / scale).float()

    # -- edges -------------------------------------------------------------------------------

    def edges(self, data: GraphData) -> tuple[Tensor, Tensor]:
        """Senders and receivers, and the type of each; undirected edges go both ways.

        Raises:
            FileError: a type that training had not.
        """
        known: dict[str, int] = self._type  # type: ignore[attr-defined]
        names = data.types or (UNTYPED,) * len(data.edges)
        strange = next((name for name in names if name not in known), None)
        if strange is not None:
            raise FileError(
                f"{data.name}: the type of edge {strange!r} is not among those of training, "
                f"{', '.join(t for t in self.types if not t.startswith(BACK))[:200] or 'none'}."
            )
        index = torch.from_numpy(data.edges).T.long()
        types = torch.tensor([known[name] for name in names], dtype=torch.long)
        if not self.directed:
            index, types = torch.cat([index, index.flip(0)], 1), types.repeat(2)
        elif any(t.startswith(BACK) for t in self.types):
            back = torch.tensor([known[BACK + name] for name in names], dtype=torch.long)
            index, types = torch.cat([index, index.flip(0)], 1), torch.cat([types, back])
        # An edge that is there twice, such as u v and v u of an undirected graph, counts once.
        every = torch.stack([*index, types]).unique(dim=1)
        return every[:2], every[2]

    # -- targets -----------------------------------------------------------------------------

    def targets(self, data: GraphData) -> Tensor:
        """Classes, or the numbers of the chosen nodes; −1 where there is no label.

        Raises:
            FileError: no labels, labels of another kind, or one that training had not.
        """
        if data.target != self.target:
            raise FileError(
                f"{data.name}: "
                + (
                    "there are no labels here; give a table labels.tsv."
                    if data.target is None
                    else f"its labels are of the kind {data.target}; this model is for "
                    f"{self.target}."
                )
            )
        if self.target == "selection":
            places = {(g, n): i for i, (g, n) in enumerate(zip(data.graph_of.tolist(), data.nodes,
                                                              strict=True))}  # fmt: skip
            found = [-1 if label is None else places[g, label]
                     for g, label in enumerate(data.labels)]  # fmt: skip
            return torch.tensor(found, dtype=torch.long)
        known: dict[str, int] = self._class  # type: ignore[attr-defined]
        strange = next((e for e in data.labels if e is not None and e not in known), None)
        if strange is not None:
            raise FileError(
                f"{data.name}: the label {strange[:40]!r} is not among those of training, "
                f"{', '.join(self.classes[:20])}."
            )
        return torch.tensor([-1 if e is None else known[e] for e in data.labels], dtype=torch.long)

    def batch(self, data: GraphData, labels: bool = True) -> Batch:
        """All graphs as numbers."""
        count = len(data.nodes) if self.target == "node" else len(data.graphs)
        targets = self.targets(data) if labels else torch.full((count,), -1)
        return Batch(self.x(data), *self.edges(data), torch.from_numpy(data.graph_of), targets)

    # -- to and from JSON --------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "target": self.target,
            "features": list(self.features),
            "numbers": [list(pair) for pair in self.numbers],
            "types": list(self.types),
            "classes": list(self.classes),
            "directed": self.directed,
            "normalise": self.normalise,
        }

    @classmethod
    def from_json(cls, data: Any, where: str) -> Meaning:
        """What `to_json` gave, checked part by part.

        Raises:
            FileError: something is missing, or of a wrong type.
        """
        names = ("target", "features", "numbers", "types", "classes", "directed", "normalise")
        if not isinstance(data, dict) or set(data) != set(names):
            raise FileError(f"{where}: its metadata do not say what its numbers mean.")
        lists = [data[name] for name in ("features", "types", "classes")]
        good = (
            data["target"] in ("node", "graph", "selection")
            and all(isinstance(e, list) and all(isinstance(s, str) for s in e) for e in lists)
            and all(isinstance(data[name], bool) for name in ("directed", "normalise"))
            and isinstance(data["numbers"], list)
            and all(
                isinstance(p, list) and len(p) == 2 and all(isinstance(n, float) for n in p)
                for p in data["numbers"]
            )
        )
        if not good:
            raise FileError(f"{where}: what its numbers mean is damaged.")
        features, types, classes = map(tuple, lists)
        numbers = tuple((p[0], p[1]) for p in data["numbers"])
        return cls(data["target"], features, numbers, types, classes, data["directed"],
                   data["normalise"])  # fmt: skip


def chosen_graphs(data: GraphData, batch: Batch, graphs: Sequence[int], target: str) -> Batch:
    """Some graphs of a batch that holds all of `data`, one after another.

    Args:
        graphs: their numbers, in order.
    """
    first = torch.from_numpy(data.first_nodes)
    wanted = torch.as_tensor(graphs, dtype=torch.long)
    sizes = first[wanted + 1] - first[wanted]
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    graph = torch.repeat_interleave(torch.arange(len(wanted)), sizes)
    nodes = torch.arange(int(starts[-1])) - starts[graph] + first[wanted][graph]
    place = torch.full((len(data.nodes),), -1)
    place[nodes] = torch.arange(len(nodes))
    index = place[batch.edge_index]
    kept = index[0] >= 0
    if target == "node":
        targets = batch.targets[nodes]
    else:
        targets = batch.targets[wanted]
        if target == "selection":
            targets = torch.where(targets >= 0, place[targets.clamp(min=0)], -1)
    return Batch(batch.x[nodes], index[:, kept], batch.types[kept], graph, targets)


def meaning_of(data: GraphData, kind: str, directed: bool, normalise: bool, back: bool) -> Meaning:
    """What numbers mean, from the data to be learned from.

    Args:
        kind: of features, "ids" or "numbers".
        directed, normalise: as in the options.
        back: whether directed edges go back as types of their own.

    Raises:
        FileError: features that are no numbers, or rows of two lengths.
        InputError: fewer than two classes.
    """
    features: tuple[str, ...] = ()
    numbers: tuple[tuple[float, float], ...] = ()
    if kind == "ids":
        found = {feature for row in data.features for feature in row}
        features = tuple(sorted(found, key=lambda f: (not f.isdecimal(), len(f), f)))
    else:
        width = len(data.features[0])
        plain = Meaning("node", (), ((0.0, 1.0),) * max(width, 1), (), (), False, False)
        values = plain.x(data).double()
        shift, scale = values.mean(0), values.std(0, correction=0)
        scale = torch.where(scale > 1e-12, scale, 1.0)
        if not normalise:
            shift, scale = torch.zeros_like(shift), torch.ones_like(scale)
        numbers = tuple(zip(shift.tolist(), scale.tolist(), strict=True))
    types = tuple(sorted(set(data.types))) or (UNTYPED,)
    if directed and back:
        types += tuple(BACK + name for name in types)
    classes: tuple[str, ...] = ()
    if data.target != "selection":
        labels = {label for label in data.labels if label is not None}
        classes = tuple(sorted(labels, key=lambda label: (len(label), label)))
        if len(classes) < 2:
            raise InputError(
                f"train graph: {len(classes)} class(es) among the labels, "
                f"{', '.join(classes) or 'none at all'}; a model tells at least two apart."
            )
    target = data.target or "node"
    return Meaning(target, features, numbers, types, classes, directed, normalise)
