"""Trees: the time of a batch beside other ways to compute it, and the memory of extreme trees.

    python benchmarks/trees.py --data DIR [--rounds 9] [--threads N] [--only batch package extremes]

DIR holds the sentiment treebank of Socher et al. 2013 (train.txt); its first 25 trees are the
batch. Word vectors of 150 stand at the leaves, 150 units a node, float32; forward, a sum as loss,
backward to all weights and vectors. All in one process and in turns, medians of rounds with their
quartiles.

`plain recursion` is one node after the other in torch, on the cell's own weights: as quick as it
gets that way, with the products of all inputs at once, the matrices of all gates and children in
one, and nothing computed of children that are not there. `pytorch-tree-lstm` is the package of that
name (child-sum only, so against our child-sum cell), its orders computed beforehand. Before
anything is timed, states and gradients are held against each other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import elman
from elman.data.trees import read_trees

TREES, SIZE = 25, 150
PARTS = ("batch", "package", "extremes")


class Batch(NamedTuple):
    """Trees one after another: the vectors of their nodes, zero but at leaves, and parents."""

    x: Tensor
    parents: Tensor


def batch_of(data: Path) -> Batch:
    """The first trees of the treebank, with random vectors at the leaves."""
    parents: list[int] = []
    leaves: list[bool] = []
    for tree in read_trees(data / "train.txt")[:TREES]:
        first = len(parents)
        parents += [p + first if p >= 0 else -1 for p in tree.parents]
        leaves += [word is not None for word in tree.words]
    torch.manual_seed(0)
    x = torch.randn(len(parents), SIZE) * torch.tensor(leaves).unsqueeze(1)
    return Batch(x.requires_grad_(), torch.tensor(parents))


def children_of(parents: Tensor) -> list[list[int]]:
    """The children of each node."""
    children: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents.tolist()):
        if parent >= 0:
            children[parent].append(node)
    return children


def plain_nary(layer: elman.Tree, x: Tensor, children: list[list[int]]) -> Tensor:
    """The N-ary Tree-LSTM by recursion; nodes stand behind their parents, so from the end."""
    p = dict(layer.named_parameters())
    names = ("i", "o", "u", "f_0", "f_1")
    given = x @ torch.cat([p[f"W_{g[0]}"] for g in names]).T
    given = given + torch.cat([p[f"b_{g[0]}"] for g in names])
    u = torch.cat([torch.cat([p[f"U_{g}_{k}"] for g in names]) for k in (0, 1)], 1)
    none = x.new_zeros(SIZE)
    h: list[Tensor] = [none] * len(x)
    c: list[Tensor] = [none] * len(x)
    for node in range(len(x) - 1, -1, -1):
        below = children[node]
        a = given[node]
        if not below:
            i, o, g = a[: 3 * SIZE].split(SIZE)
            c[node] = torch.sigmoid(i) * torch.tanh(g)
        else:
            pair = [*below, *[None] * (2 - len(below))]
            a = a + u @ torch.cat([none if k is None else h[k] for k in pair])
            gates = torch.sigmoid(a)
            i, o, _, f0, f1 = gates.split(SIZE)
            c[node] = i * torch.tanh(a[2 * SIZE : 3 * SIZE])
            for f, k in zip((f0, f1), below, strict=False):
                c[node] = c[node] + f * c[k]
            h[node] = o * torch.tanh(c[node])
            continue
        h[node] = torch.sigmoid(o) * torch.tanh(c[node])
    return torch.stack(h)


def package_of(layer: elman.Tree, batch: Batch) -> Callable[[], Tensor]:
    """pytorch-tree-lstm with our child-sum weights, as a function of nothing."""
    from treelstm import TreeLSTM, calculate_evaluation_orders

    p = dict(layer.named_parameters())
    theirs = TreeLSTM(SIZE, SIZE)
    with torch.no_grad():
        theirs.W_iou.weight.copy_(torch.cat([p["W_i"], p["W_o"], p["W_u"]]))
        theirs.W_iou.bias.copy_(torch.cat([p["b_i"], p["b_o"], p["b_u"]]))
        theirs.U_iou.weight.copy_(torch.cat([p["U_i"], p["U_o"], p["U_u"]]))
        theirs.W_f.weight.copy_(p["W_f"])
        theirs.W_f.bias.copy_(p["b_f"])
        theirs.U_f.weight.copy_(p["U_f"])
    # Its children of one node must stand together.
    children = torch.nonzero(batch.parents >= 0).flatten()
    edges = torch.stack([batch.parents[children], children], 1)
    edges = edges[torch.argsort(edges[:, 0], stable=True)]
    orders = calculate_evaluation_orders(edges.numpy(), len(batch.parents))
    nodes, of_edges = map(torch.from_numpy, orders)
    return lambda: theirs(batch.x, nodes, edges, of_edges)[0]


def seconds(compute: Callable[[], Tensor]) -> float:
    """Of one forward and backward."""
    began = time.perf_counter()
    compute().sum().backward()
    return time.perf_counter() - began


def in_turns(ways: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way, one after the other in every round; quick ones several times."""
    for compute in ways.values():
        seconds(compute)
        seconds(compute)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, compute in ways.items():
            times[name].append(
                1e3
                * statistics.median(seconds(compute) for _ in range(5 if name == "elman" else 1))
            )
    return times


def agree(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], x: Tensor) -> float:
    """The largest difference of states and of the gradients of the vectors."""
    found = []
    for compute in (ours, theirs):
        x.grad = None
        out = compute()
        out.sum().backward()
        found.append((out.detach(), x.grad.clone() if x.grad is not None else x.detach()))
    pairs = zip(*found, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def report(name: str, asked: float, times: dict[str, list[float]]) -> None:
    """Print the times of ours and of the peer, and how much faster ours is."""
    for way, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"  {way:18} {middle:8.2f} ms  (quartiles {low:.2f} to {high:.2f})")
    peer = next(way for way in times if way != "elman")
    ratios = [b / a for a, b in zip(times["elman"], times[peer], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    verdict = "reached" if middle >= asked else "NOT reached"
    print(f"{name}: {middle:.1f} × faster (quartiles {low:.1f} to {high:.1f}); asked {asked:g} ×: "
          f"{verdict}")  # fmt: skip


def time_batch(batch: Batch, rounds: int) -> None:
    """Against the plain recursion."""
    layer = elman.Tree("nary_tree_lstm", SIZE, SIZE)
    children = children_of(batch.parents)

    def ours() -> Tensor:
        return layer(batch.x, batch.parents)[0]

    def plain() -> Tensor:
        return plain_nary(layer, batch.x, children)

    print(f"N-ary Tree-LSTM, {len(batch.x)} nodes; difference {agree(ours, plain, batch.x):.1e}")
    report("plain recursion", 20, in_turns({"elman": ours, "plain recursion": plain}, rounds))


def time_package(batch: Batch, rounds: int) -> None:
    """Against pytorch-tree-lstm."""
    layer = elman.Tree("child_sum_tree_lstm", SIZE, SIZE)
    try:
        theirs = package_of(layer, batch)
    except ImportError:
        print("pytorch-tree-lstm is not here: pip install --no-deps pytorch-tree-lstm")
        return

    def ours() -> Tensor:
        return layer(batch.x, batch.parents)[0]

    print(f"child-sum Tree-LSTM; difference {agree(ours, theirs, batch.x):.1e}")
    report("pytorch-tree-lstm", 2, in_turns({"elman": ours, "pytorch-tree-lstm": theirs}, rounds))


def extreme(shape: str) -> None:
    """Forward and backward of one extreme tree, in a process of its own."""
    nodes = 10_000 if shape == "chain" else 100_001
    parents = torch.arange(1, nodes + 1) if shape == "chain" else torch.zeros(nodes).long()
    parents[-1 if shape == "chain" else 0] = -1
    layer = elman.Tree("child_sum_tree_lstm", 32, 32)
    layer(torch.randn(3, 32), torch.tensor([-1, 0, 0]))[0].sum().backward()  # compiles
    x = torch.randn(nodes, 32, requires_grad=True)
    before = _resident()
    with _Peak() as peak:
        began = time.perf_counter()
        layer(x, parents)[0].sum().backward()
        took = time.perf_counter() - began
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    states = 2 * nodes * 32 * 4 / 2**20
    print(
        f"{shape}: {nodes:,} nodes of 32 units, forward and backward in {took:.2f} s; at most "
        f"{(peak.found - before) / 2**20:.0f} MiB more than before, of which the states themselves "
        f"are {states:.0f}"
    )


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Peak:
    """The most memory while something runs, looked at a thousand times a second."""

    def __enter__(self) -> _Peak:
        self.found, self._over = 0, threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(1e-3):
            self.found = max(self.found, _resident())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--extreme", choices=("chain", "star"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.extreme:
        extreme(given.extreme)
        return
    if given.data is None and {"batch", "package"} & set(given.only):
        parser.error("--data DIR, with the treebank's train.txt, is needed")
    print(f"torch {torch.__version__}, {given.threads} threads")
    if "batch" in given.only:
        time_batch(batch_of(given.data), given.rounds)
    if "package" in given.only:
        time_package(batch_of(given.data), given.rounds)
    for shape in ("chain", "star") if "extremes" in given.only else ():
        subprocess.run(
            [sys.executable, __file__, "--extreme", shape, "--threads", str(given.threads)],
            check=True,
        )


if __name__ == "__main__":
    main()
