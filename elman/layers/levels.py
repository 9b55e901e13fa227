"""Which nodes of trees can be computed together: a node's level is one above its highest sender.

Nodes are put in an order in which each level is one piece, and so are the edges that it reads.
Within a level nodes keep their order, and the edges of a node theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elman.errors import InputError, SizeError

_LOW = 64  # levels up to which it is quickest to look at all edges for each


@dataclass(frozen=True)
class Levels:
    """Nodes and edges in the order of computation.

    Attributes:
        order: the node at each position, (nodes,).
        position: the position of each node, (nodes,).
        nodes: where each level begins among the positions, and the end.
        edges: where the edges that each level reads begin, and the end.
        senders: of each edge the sender's position.
        receivers: of each edge the receiver's place within its level.
        edge_order: of each edge its place among those given.
        children: of each position its senders in order, and `len(order)` where there are no more;
            (nodes, most), or (nodes, 0) where they were not asked for.
    """

    order: Tensor
    position: Tensor
    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    senders: Tensor
    receivers: Tensor
    edge_order: Tensor
    children: Tensor

    def __len__(self) -> int:
        return len(self.nodes) - 1


def levels_of(owner: str, edge_index: Tensor, nodes: int, arity: int = 0) -> Levels:
    """Put nodes in order, senders before receivers.

    Args:
        owner: the layer, for errors.
        edge_index: sender and receiver of each edge, (2, edges), int64.
        nodes: their number.
        arity: the most senders of a node whose places matter; 0 where none do.

    Raises:
        InputError: the edges go in a circle; it is named. A node has more than `arity` senders.

    Example:
        >>> import torch
        >>> levels_of("Tree", torch.tensor([[0, 1], [2, 2]]), 3).nodes
        (0, 2, 3)
    """
    # Within a transform of torch.func a tensor of whole numbers too is a wrapper without memory.
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(edge_index)
    numbers = np.array(edge_index.tolist(), np.int64) if wrapped else edge_index.cpu().numpy()
    senders, receivers = numbers.reshape(2, -1)
    level = _levels(owner, senders, receivers, nodes)
    order = np.argsort(level, kind="stable")
    position = np.empty(nodes, np.int64)
    position[order] = np.arange(nodes)
    by_receiver = np.argsort(position[receivers], kind="stable")
    sent, received = position[senders[by_receiver]], position[receivers[by_receiver]]
    count = int(level.max()) + 1 if nodes else 0
    starts = np.searchsorted(level[order], np.arange(count + 1))
    edge_starts = np.searchsorted(received, starts)
    local = received - starts[level[order][received]]
    children = np.full((nodes, arity), nodes, np.int64)
    if arity:
        place = np.arange(len(received)) - np.searchsorted(received, received)
        if len(place) and place.max() >= arity:
            node = int(order[received[int(place.argmax())]])
            raise InputError(
                f"{owner}: node {node} has {int((receivers == node).sum())} children, and the "
                f"equation has places for {arity}; give the cell hyper={{'arity': …}}, or one that "
                "sums over children"
            )
        children[received, place] = sent
    return Levels(
        torch.from_numpy(order), torch.from_numpy(position), tuple(starts.tolist()),
        tuple(edge_starts.tolist()), torch.from_numpy(sent), torch.from_numpy(local),
        torch.from_numpy(by_receiver), torch.from_numpy(children),
    )  # fmt: skip


def _levels(owner: str, senders: np.ndarray, receivers: np.ndarray, nodes: int) -> np.ndarray:
    """The level of each node; wave after wave of the nodes all of whose senders are done."""
    found = _of_low_trees(senders, receivers, nodes)
    if found is not None:
        return found
    level = np.zeros(nodes, np.int64)
    waiting = np.bincount(receivers, minlength=nodes)
    by_sender = np.argsort(senders, kind="stable")
    first = np.searchsorted(senders[by_sender], np.arange(nodes + 1))
    ready, done, now = np.flatnonzero(waiting == 0), 0, 0
    while len(ready):
        level[ready] = now
        done += len(ready)
        counts = first[ready + 1] - first[ready]
        begins = np.repeat(first[ready] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        reached = receivers[by_sender[begins + np.arange(counts.sum())]]
        np.subtract.at(waiting, reached, 1)
        ready = np.unique(reached[waiting[reached] == 0])
        now += 1
    if done < nodes:
        raise InputError(f"{owner}: {_circle(senders, receivers, waiting)}")
    return level


def _of_low_trees(senders: np.ndarray, receivers: np.ndarray, nodes: int) -> np.ndarray | None:
    """The same, all edges at once and once for each level; None where there are many levels."""
    level = np.zeros(nodes, np.int64)
    for _ in range(_LOW):
        raised = np.zeros(nodes, np.int64)
        np.maximum.at(raised, receivers, level[senders] + 1)
        if np.array_equal(raised, level):
            return level
        level = raised
    return None


def _circle(senders: np.ndarray, receivers: np.ndarray, waiting: np.ndarray) -> str:
    """The words for a circle among the nodes that still wait."""
    before = {
        int(r): int(s) for s, r in zip(senders, receivers, strict=True) if waiting[r] and waiting[s]
    }
    path = [next(iter(before))]
    while before[path[-1]] not in path:
        path.append(before[path[-1]])
    circle = [before[path[-1]], *reversed(path[path.index(before[path[-1]]) :])]
    words = " → ".join(map(str, circle if len(circle) <= 12 else [*circle[:11], "…", circle[-1]]))
    return f"the edges go in a circle, {words}; a tree, or a DAG, has none"


def edges_of_parents(owner: str, parents: Tensor) -> Tensor:
    """Edges from each node to its parent, (2, edges); a root's parent is −1.

    Raises:
        SizeError: a parent that is no node.
    """
    nodes = len(parents)
    bad = torch.nonzero((parents < -1) | (parents >= nodes)).flatten()
    if len(bad):
        node = int(bad[0])
        raise SizeError(
            f"{owner}: the parent of node {node} is {int(parents[node])}; nodes are 0 to "
            f"{nodes - 1}, and −1 stands for none"
        )
    children = torch.nonzero(parents >= 0).flatten()
    return torch.stack([children, parents[children]])
