"""Graphs in tables: nodes with features, edges, labels, and the parts for training.

A folder holds `features.tsv`, `edges.tsv`, `labels.tsv` and `splits.json`; the last two may be
missing. Cells of a row stand between tabs.

==============  =====================  ==================================================
file            one graph              many graphs
==============  =====================  ==================================================
features.tsv    node, features         graph, node, features
edges.tsv       u, v [, type]          graph, u, v [, type]
labels.tsv      node, class            graph, class or chosen node; or graph, node, class
splits.json     parts of the nodes     parts of the graphs
==============  =====================  ==================================================

A first row may name the columns. Features stand between spaces: names of what a node has, or
numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from elman.data.graph_tables import Row, fail, read_splits, rows_of, sort_files
from elman.errors import FileError

TARGETS = ("node", "graph", "selection")
_HEADERS = {
    "features": ("node", "features"),
    "edges": ("u", "v", "from", "to", "type"),
    "labels": ("node", "class", "chosen"),
}


@dataclass(frozen=True)
class GraphData:
    """Graphs, as the tables have them.

    Attributes:
        name: what messages call them.
        graphs: their names; one, "", for a single graph.
        nodes: the name of every node, graph after graph.
        graph_of: the number of each node's graph.
        features: of each node, as written.
        edges: the numbers of u and v of each edge, (edges, 2).
        types: of each edge; empty where edges have none.
        target: "node" (labels are classes of nodes), "graph" (classes of graphs), "selection" (one
            chosen node a graph); None where there are no labels.
        labels: of each node or graph; None where there is none.
        directed: whether the header of the edges says from and to.
        splits: numbers of nodes (of one graph) or of graphs by part ("train", "val", "test").
    """

    name: str
    graphs: tuple[str, ...]
    nodes: tuple[str, ...]
    graph_of: np.ndarray
    features: tuple[tuple[str, ...], ...]
    edges: np.ndarray
    types: tuple[str, ...] = ()
    target: str | None = None
    labels: tuple[str | None, ...] = ()
    directed: bool = False
    splits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Whether this is one graph, whose nodes are labelled."""
        return self.graphs == ("",)

    @property
    def first_nodes(self) -> np.ndarray:
        """The number of each graph's first node, and behind them that of all nodes."""
        return np.searchsorted(self.graph_of, np.arange(len(self.graphs) + 1))

    def fingerprint(self) -> str:
        """Hex digest of all that the graphs hold."""
        digest = hashlib.sha256()
        for part in (self.graphs, self.nodes, self.features, self.types, self.labels, self.target,
                     sorted(self.splits.items()), self.directed):  # fmt: skip
            digest.update(repr(part).encode())
        digest.update(self.graph_of.tobytes() + self.edges.tobytes())
        return digest.hexdigest()


def read_graphs(
    files: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
    *,
    target: str | None = None,
) -> GraphData:
    """Read graphs from their tables.

    Args:
        files: a folder, the files (which is which, their names say), or the files by the names
            "features", "edges", "labels" and "splits".
        target: what labels are: "node", "graph" or "selection"; what the tables say if not given.

    Raises:
        FileError: a table that is missing, empty or ragged, an edge to a node that is not there, a
            node twice, labels or parts of nodes that are unknown; with file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "features.tsv").write_text("a\\tred\\nb\\tred big\\nc\\n")
        ...     _ = Path(folder, "edges.tsv").write_text("a\\tb\\n")
        ...     graph = read_graphs(folder)
        >>> graph.nodes, graph.features[1], graph.edges.tolist()
        (('a', 'b', 'c'), ('red', 'big'), [[0, 1]])
    """
    named = files if isinstance(files, Mapping) else sort_files(files)
    missing = [role for role in ("features", "edges") if role not in named]
    if missing:
        raise FileError(
            f"{_called(named)}: there is no table of {missing[0]}; a graph is features.tsv and "
            "edges.tsv, with labels.tsv to learn from."
        )
    reader = _Reader(_called(named))
    reader.take_nodes(*rows_of(named["features"], _HEADERS["features"]))
    reader.take_edges(*rows_of(named["edges"], _HEADERS["edges"], may_be_empty=True))
    found, labels = None, ()
    if "labels" in named:
        found, labels = reader.labels(*rows_of(named["labels"], _HEADERS["labels"]), target)
    splits = {}
    if "splits" in named:
        splits = _numbered(reader, named["splits"])
    return reader.data(found, labels, splits)


def _called(named: Mapping[str, str | Path]) -> str:
    folders = {str(Path(path).parent) for path in named.values()}
    return folders.pop() if len(folders) == 1 else ", ".join(map(str, named.values()))


def _numbered(reader: _Reader, path: str | Path) -> dict[str, tuple[int, ...]]:
    """The parts as numbers of nodes or graphs."""
    found: dict[str, tuple[int, ...]] = {}
    taken: dict[int, str] = {}
    for part, names in read_splits(path).items():
        numbers = []
        for name in names:
            if reader.single:
                number, what = reader.node_numbers.get(("", name)), "node"
            else:
                number, what = reader.graph_numbers.get(name), "graph"
            if number is None:
                raise FileError(f"{path}: {part} names the {what} {name!r}, which is not there.")
            if number in taken:
                raise FileError(f"{path}: {name!r} is in {taken[number]} and in {part}.")
            taken[number] = part
            numbers.append(number)
        found[part] = tuple(numbers)
    return found


class _Reader:
    """The tables in the making."""

    def __init__(self, name: str):
        self.name = name
        self.single = True
        self.directed = False
        self.graph_numbers: dict[str, int] = {}
        self.node_numbers: dict[tuple[str, str], int] = {}
        self.features: list[tuple[str, ...]] = []
        self.graph_of: list[int] = []
        self.edges: list[tuple[int, int]] = []
        self.types: list[str] = []

    def take_nodes(self, header: tuple[str, ...], rows: list[Row]) -> None:
        """The table of features; a leading column of graphs says that there are many."""
        most = max(len(row.cells) for row in rows)
        self.single = header[0] != "graph" if header else most <= 2
        wanted = 2 if self.single else 3
        for row in rows:
            # A node without features may have lost its last tab.
            if not wanted - 1 <= len(row.cells) <= wanted:
                fail(row, f"{len(row.cells)} columns; expected {wanted}, "
                     f"{'' if self.single else 'graph, '}node and features")  # fmt: skip
            graph, node = ("", row.cells[0]) if self.single else row.cells[:2]
            self._take_node(row, graph, node, row.cells[wanted - 1 :])
        if not self.single and any(np.diff(self.graph_of) < 0):
            self._sort()

    def _take_node(self, row: Row, graph: str, node: str, features: Sequence[str]) -> None:
        if not node:
            fail(row, "the node has no name")
        number = self.graph_numbers.setdefault(graph, len(self.graph_numbers))
        if (graph, node) in self.node_numbers:
            of = f" of the graph {graph!r}" if graph else ""
            fail(row, f"the node {node!r}{of} is there twice")
        self.node_numbers[graph, node] = len(self.node_numbers)
        self.graph_of.append(number)
        self.features.append(tuple(features[0].split()) if features else ())

    def _sort(self) -> None:
        """Nodes graph after graph, where the table mixes them."""
        order = np.argsort(self.graph_of, kind="stable")
        names = list(self.node_numbers)
        self.node_numbers = {names[i]: place for place, i in enumerate(order)}
        self.features = [self.features[i] for i in order]
        self.graph_of = [self.graph_of[i] for i in order]

    def take_edges(self, header: tuple[str, ...], rows: list[Row]) -> None:
        """The table of edges; one more column is their type."""
        self.directed = "from" in header
        if self.single and header and all(("", name) in self.node_numbers for name in header[:2]):
            raise FileError(
                f"{self.name}: the first row of the edges, {' and '.join(header[:2])}, may name "
                "columns or an edge between two nodes that are there; give the "
                "nodes other names."
            )
        before = 0 if self.single else 1
        ends = before + 2
        counts = {len(row.cells) for row in rows}
        typed = counts == {ends + 1}
        for row in rows:
            if len(row.cells) != ends + typed:
                fail(row, f"{len(row.cells)} columns; expected {ends + typed}, "
                     f"{'graph, ' * before}u and v{', and the type' * typed}")  # fmt: skip
            graph = row.cells[0] if before else ""
            self.edges.append(
                (
                    self._node(row, graph, row.cells[before]),
                    self._node(row, graph, row.cells[-1 - typed]),
                )
            )
            if typed:
                self.types.append(row.cells[-1])

    def _node(self, row: Row, graph: str, node: str) -> int:
        number = self.node_numbers.get((graph, node))
        if number is None:
            of = f" of the graph {graph!r}" if graph else ""
            fail(row, f"the node {node!r}{of} is not there; the table of features has no such row")
        return number

    def labels(
        self, header: tuple[str, ...], rows: list[Row], target: str | None
    ) -> tuple[str, tuple[str | None, ...]]:
        """What labels are of, and the label of each; None where there is none."""
        if not self.single and target is None and len(rows[0].cells) == 3:
            target = "node"
        wanted = 3 if not self.single and target == "node" else 2
        for row in rows:
            if len(row.cells) != wanted:
                fail(row, f"{len(row.cells)} columns; expected {wanted}: "
                     f"{'node' if self.single else 'graph, node' if wanted == 3 else 'graph'} and "
                     "label")  # fmt: skip
        target = self._target(header, rows, target)
        if target == "node":
            keys = [("", row.cells[0]) if self.single else tuple(row.cells[:2]) for row in rows]
            return target, self._assigned(rows, keys, self.node_numbers, "node")
        keys = [row.cells[0] for row in rows]
        if target == "selection":
            for row in rows:
                if row.cells[0] in self.graph_numbers:
                    self._node(row, row.cells[0], row.cells[1])
        return target, self._assigned(rows, keys, self.graph_numbers, "graph")

    def _target(self, header: tuple[str, ...], rows: list[Row], target: str | None) -> str:
        if self.single:
            if target not in (None, "node"):
                raise FileError(
                    f"{self.name}: there is one graph, whose nodes are labelled; {target!r} needs "
                    "a first column that says the graph."
                )
            return "node"
        if target is not None:
            return target
        if header:
            return "selection" if header[1] in ("node", "chosen") else "graph"
        if all((row.cells[0], row.cells[1]) in self.node_numbers for row in rows):
            raise FileError(
                f"{rows[0].path}: every label is the name of a node of its graph, so it may be a "
                "class or a chosen node; say target=graph or target=selection, or give the table a "
                "first row: graph and class, or graph and node."
            )
        return "graph"

    def _assigned(self, rows, keys, numbers, what: str) -> tuple[str | None, ...]:
        found: list[str | None] = [None] * len(numbers)
        for row, key in zip(rows, keys, strict=True):
            called = key if isinstance(key, str) else key[-1]
            if key not in numbers:
                fail(row, f"there is no {what} {called!r} to be labelled")
            if found[numbers[key]] is not None:
                fail(row, f"the {what} {called!r} is labelled twice")
            found[numbers[key]] = row.cells[-1]
        return tuple(found)

    def data(
        self,
        target: str | None,
        labels: tuple[str | None, ...],
        splits: Mapping[str, tuple[int, ...]],
    ) -> GraphData:
        """The graphs as they were read."""
        return GraphData(
            self.name,
            tuple(self.graph_numbers),
            tuple(node for _, node in self.node_numbers),
            np.asarray(self.graph_of, dtype=np.int64),
            tuple(self.features),
            np.asarray(self.edges, dtype=np.int64).reshape(-1, 2),
            tuple(self.types),
            target,
            labels,
            self.directed,
            splits,
        )


def write_graphs(data: GraphData, folder: str | Path) -> list[Path]:
    """Write graphs as the tables that `read_graphs` reads, with a row that names the columns.

    Args:
        data: names without tabs and ends of lines.
        folder: made if it is not there; tables in it are replaced.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    single = data.single
    before = [() if single else (data.graphs[g],) for g in data.graph_of]
    lead: tuple[str, ...] = () if single else ("graph",)
    ends = ("from", "to") if data.directed else ("u", "v")
    tables: dict[str, list[tuple[str, ...]]] = {
        "features": [(*lead, "node", "features")],
        "edges": [(*lead, *ends, *(("type",) if data.types else ()))],
    }
    for first, node, features in zip(before, data.nodes, data.features, strict=True):
        tables["features"].append((*first, node, " ".join(features)))
    for k, (u, v) in enumerate(data.edges.tolist()):
        ends = (data.nodes[u], data.nodes[v])
        tables["edges"].append((*before[u], *ends, *data.types[k : k + 1]))
    if data.target is not None:
        tables["labels"] = _label_rows(data, before)
    written = [folder / f"{role}.tsv" for role in tables]
    for path, rows in zip(written, tables.values(), strict=True):
        _write(path, ("\t".join(row) for row in rows))
    if data.splits:
        path = folder / "splits.json"
        units = data.nodes if data.single else data.graphs
        parts = {part: [units[i] for i in numbers] for part, numbers in data.splits.items()}
        path.write_text(json.dumps(parts, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _label_rows(data: GraphData, before: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    of_nodes = data.target == "node"
    heads: dict[str | None, tuple[str, ...]] = {
        "node": ("node", "class") if data.single else ("graph", "node", "class"),
        "graph": ("graph", "class"),
        "selection": ("graph", "node"),
    }
    owners = data.nodes if of_nodes else data.graphs
    return [heads[data.target]] + [
        (*(before[i] if of_nodes else ()), owner, label)
        for i, (owner, label) in enumerate(zip(owners, data.labels, strict=True))
        if label is not None
    ]


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
