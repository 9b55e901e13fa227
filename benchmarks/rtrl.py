"""What real-time recurrent learning costs: each figure asked beside the one seen here.

    python benchmarks/rtrl.py [--only step windows …] [--seconds 6] [--no-compile] [--out FILE]

An LSTM of 64 units with 16 inputs and batch 8 in float32: M has 128 rows and 20,736 columns for
each row of the batch, 85 MB. All times are of one process and in turns, medians of rounds with
their quartiles, with all threads of torch.

`bare products` is one `torch.bmm` of (8, 128, 64) by (8, 64, 20736) into memory that is there. The
peer is what one writes with torch: `vmap(jacrev(step))` for the Jacobians of a step by the state
and by all weights, then `baddbmm` of the influence, in memory that is used again where that helps;
its settings (weights as one vector or by name, compiled or not) are tried, and the fastest stays.
Before anything is timed both are held against each other.

`update` is the influence alone; `step` a whole step of learning through the layer: forward, loss,
backward with s̄ᵀ M for all weights, and the influence moved on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import elman
from elman.benchmark import machine
from elman.benchmark.turns import Spread, Timed, in_turns
from elman.layers import carried
from elman.learning.influence import carrier_of

PARTS = ("step", "windows", "carries", "memory")
BATCH, INPUT, HIDDEN, WINDOW = 8, 16, 64, 64
STATE = 2 * HIDDEN


class Figure(NamedTuple):
    """A line of the table; `reached` is None where nothing was asked."""

    what: str
    asked: str
    seen: str
    reached: bool | None


# Ours.


def layer_of(cell: str, window: int, carry: str | None, seed: int = 0) -> elman.Recurrent:
    torch.manual_seed(seed)
    return elman.Recurrent(cell, INPUT, HIDDEN, learning=elman.BPTT(window, carry))


class Ours:
    """A layer on a stream: one call is one window, learned from."""

    def __init__(self, cell: str, window: int, carry: str | None):
        self.layer = layer_of(cell, window, carry)
        self.readout = nn.Linear(HIDDEN, 4)
        self.x = torch.randn(window, BATCH, INPUT)
        self.state: Any = None
        self.parameters = [*self.layer.parameters(), *self.readout.parameters()]
        for _ in range(3):
            self.step()

    def step(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        out, state = self.layer(self.x, self.state)
        self.readout(out).square().mean().backward()
        self.state = state if isinstance(state, elman.learning.Carried) else _detached(state)


def _detached(state: Any) -> Any:
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


class Update:
    """The influence of the layer moved on by one step, and what it is moved on with."""

    def __init__(self, ours: Ours):
        self.seen: list[Any] = []
        before = carried.carrier_of
        carried.carrier_of = self._spied
        try:
            ours.step()
        finally:
            carried.carrier_of = before
        self.carrier, self.chain, self.influence, self.window = self.seen[0]

    def _spied(self, carry: str, chain: Any) -> Any:
        update, carrier = self, carrier_of(carry, chain)

        class Spy(type(carrier)):
            def advance(self, chain, influence, window):
                update.seen.append((carrier, chain, influence, window))
                return super().advance(chain, influence, window)

        carrier.__class__ = Spy
        return carrier

    def __call__(self) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return self.carrier.advance(self.chain, self.influence, self.window)


# The peer.


def lstm(weights: Mapping[str, Tensor], state: Tensor, x: Tensor) -> Tensor:
    """One step of one row, (2·hidden,) to (2·hidden,)."""
    h, c = state[:HIDDEN], state[HIDDEN:]

    def gate(name: str) -> Tensor:
        return weights["W_" + name] @ x + weights["U_" + name] @ h + weights["b_" + name]

    i, f, o = (torch.sigmoid(gate(name)) for name in "ifo")
    c = f * c + i * torch.tanh(gate("g"))
    return torch.cat([o * torch.tanh(c), c])


class Peer:
    """RTRL with torch.func: the Jacobians of a step, and the influence by baddbmm.

    Args:
        weights: by name, in the order of the columns.
        flat: whether the weights are one vector for jacrev, so that M's columns come out together.
        compiled: whether the Jacobians are compiled.
    """

    def __init__(self, weights: Mapping[str, Tensor], flat: bool, compiled: bool):
        self.weights = {name: w.detach().clone() for name, w in weights.items()}
        self.given: Any = self.weights
        if flat:
            self.given = torch.cat([w.flatten() for w in self.weights.values()])
        step = self._flat if flat else lstm
        jacobians = torch.func.vmap(torch.func.jacrev(step, argnums=(0, 1)), in_dims=(None, 0, 0))
        self.jacobians = torch.compile(jacobians) if compiled else jacobians

    def _flat(self, vector: Tensor, state: Tensor, x: Tensor) -> Tensor:
        parts = torch.split(vector, [w.numel() for w in self.weights.values()])
        named = zip(self.weights.items(), parts, strict=True)
        return lstm({name: part.view(w.shape) for (name, w), part in named}, state, x)

    def update(self, influence: Tensor, state: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            immediate, moved = self.jacobians(self.given, state, x)
            if not isinstance(immediate, Tensor):
                immediate = torch.cat([part.flatten(2) for part in immediate.values()], 2)
            return immediate.baddbmm_(moved, influence)


class PeerStep:
    """A whole step of learning with the peer: forward, loss, gradient and influence."""

    def __init__(self, peer: Peer, readout: nn.Linear, influence: Tensor, state: Tensor, x: Tensor):
        self.peer, self.readout, self.x = peer, readout, x
        self.influence, self.state = influence.clone(), state.clone()
        self.forward = torch.func.vmap(lstm, in_dims=(None, 0, 0))

    def __call__(self) -> Tensor:
        self.influence = self.peer.update(self.influence, self.state, self.x)
        with torch.no_grad():
            self.state = self.forward(self.peer.weights, self.state, self.x)
        new = self.state.detach().requires_grad_()
        for parameter in self.readout.parameters():
            parameter.grad = None
        self.readout(new[:, :HIDDEN]).square().mean().backward()
        return new.grad.reshape(-1) @ self.influence.flatten(0, 1)


def peers(weights: Mapping[str, Tensor], compiled: bool) -> dict[str, Peer]:
    settings = {"one vector": (True, False), "by name": (False, False)}
    if compiled:
        settings |= {
            "one vector, compiled": (True, True),
            "by name, compiled": (False, True),
        }
    return {name: Peer(weights, *setting) for name, setting in settings.items()}


# The figures.


def words(spread: Spread, unit: str = "", scale: float = 1.0) -> str:
    low, median, high = (f"{v * scale:.3g}" for v in (spread.low, spread.median, spread.high))
    return f"{median}{unit} ({low} to {high})"


def ratio(timed: Timed[str], over: str, under: str, times: float = 1.0) -> Spread:
    return Spread.of_ratios([t * times for t in timed.seconds[over]], timed.seconds[under])


def of_one_step(seconds: float, compiled: bool) -> list[Figure]:
    """RTRL beside its peer and its own bare products."""
    ours = Ours("lstm", 1, "exact")
    for _ in range(5):
        ours.step()
    update = Update(ours)
    (old,) = update.influence
    place = update.chain.places[0]
    weights = {w.name: update.chain.values[0][w.node].detach() for w in place.weights}
    seen = update.window.seen[0]
    state, x = torch.cat(seen.start, 1), seen.x[0]
    tried: dict[str, Callable[[], Tensor]] = {}
    made = peers(weights, compiled)
    (expected,) = update()
    for name, peer in list(made.items()):
        try:
            far = (peer.update(old, state, x) - expected).abs().max() / expected.abs().max()
        except Exception as error:  # a compiler that is not there is no reason to stop
            print(f"peer {name}: {type(error).__name__}", file=sys.stderr)
            continue
        if far > 1e-4:
            raise SystemExit(f"peer {name} differs by {far:.1e}; nothing is reported")
        tried[name] = lambda peer=peer: peer.update(old, state, x)
    tries = in_turns(tried, rounds=7).seconds
    setting = min(tries, key=lambda name: Spread.of(tries[name]).median)
    left, out = torch.randn(BATCH, STATE, HIDDEN), torch.empty_like(old)
    whole = PeerStep(made[setting], nn.Linear(HIDDEN, 4), old, state, x)
    timed = in_turns(
        {
            "update": update,
            "bare": lambda: torch.bmm(left, old[:, :HIDDEN], out=out),
            "peer": tried[setting],
            "step": ours.step,
            "peer step": whole,
        },
        seconds=seconds,
    )
    update_gain, step_gain = ratio(timed, "peer", "update"), ratio(timed, "peer step", "step")
    bare = ratio(timed, "update", "bare")
    step_bare = ratio(timed, "step", "bare")
    times = {name: Spread.of(values) for name, values in timed.seconds.items()}
    return [
        Figure("the influence moved on (update)", "", words(times["update"], " ms", 1e3), None),
        Figure("bare products", "", words(times["bare"], " ms", 1e3), None),
        Figure(f"peer's update ({setting})", "", words(times["peer"], " ms", 1e3), None),
        Figure("a whole step of learning (step)", "", words(times["step"], " ms", 1e3), None),
        Figure("update: faster than the peer", "≥ 3 ×", words(update_gain, " ×"),
               update_gain.median >= 3),
        Figure("step: faster than the peer's", "≥ 3 ×", words(step_gain, " ×"),
               step_gain.median >= 3),
        Figure("update: of its bare products", "≤ 1.6 ×", words(bare, " ×"), bare.median <= 1.6),
        Figure("step: of its bare products", "≤ 1.6 ×", words(step_bare, " ×"),
               step_bare.median <= 1.6),
    ]  # fmt: skip


def of_windows(seconds: float) -> list[Figure]:
    """A long window beside a window of one step, a step of each."""
    one, many = Ours("lstm", 1, "exact"), Ours("lstm", WINDOW, "exact")
    timed = in_turns({"one": one.step, "many": many.step}, seconds=seconds)
    gain = ratio(timed, "one", "many", WINDOW)
    a_step = Spread.of([t / WINDOW for t in timed.seconds["many"]])
    return [
        Figure(f"window {WINDOW}, exact carry, each step", "", words(a_step, " ms", 1e3), None),
        Figure(f"window {WINDOW}: faster a step than window 1", "≥ 8 ×", words(gain, " ×"),
               gain.median >= 8),
    ]  # fmt: skip


def of_carries(seconds: float) -> list[Figure]:
    """The approximations, and what needs none, at windows of one step."""
    rows = [("lstm", "snap1"), ("lstm", "rflo"), ("lstm", "uoro"), ("lstm", None),
            ("indrnn", "exact"), ("gru_cho", "exact")]  # fmt: skip
    runs = {f"{cell}, carry {carry}": Ours(cell, 1, carry) for cell, carry in rows}
    timed = in_turns({name: run.step for name, run in runs.items()}, seconds=seconds)
    return [
        Figure(f"a step of learning: {name}", "", words(Spread.of(times), " ms", 1e3), None)
        for name, times in timed.seconds.items()
    ]


MEASURED = """
import sys, torch
sys.path.insert(0, {folder!r})
import rtrl
torch.set_num_threads(1)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * {page}

run = rtrl.Ours({cell!r}, 1, {carry!r})
layer = run.layer
del run
before = resident()
out, state = layer(torch.randn(1, rtrl.BATCH, rtrl.INPUT), None)
del out
grown = resident() - before
print(layer.learning_bytes(rtrl.BATCH), sum(t.nbytes for t in state.influence), grown)
"""


def of_memory() -> list[Figure]:
    """What is announced beside what the tensors hold, and beside the process's growth where the
    influence is large enough to be seen in that."""
    folder, page = str(Path(__file__).parent), os.sysconf("SC_PAGE_SIZE")
    found = []
    for cell, carry in (("lstm", "exact"), ("gru_cho", "exact"), ("indrnn", "exact"),
                        ("lstm", "snap1"), ("lstm", "uoro")):  # fmt: skip
        code = MEASURED.format(folder=folder, page=page, cell=cell, carry=carry)
        text = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
        announced, held, grown = map(int, text.split())
        off = abs(held - announced) / announced
        seen = f"{announced:,} announced, {held:,} held"
        if announced > 1 << 24:
            seen += f", process + {grown:,}"
        found.append(
            Figure(f"memory: {cell}, carry {carry}", "within 5 %", f"{seen} bytes", off <= 0.05)
        )
    return found


def table(figures: list[Figure]) -> Table:
    shown = Table(box=box.SIMPLE)
    for name in ("what", "asked", "seen", "reached"):
        shown.add_column(name)
    for figure in figures:
        reached = {True: "yes", False: "no", None: ""}[figure.reached]
        shown.add_row(figure.what, figure.asked, figure.seen, reached)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each comparison")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled peer out")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts")
    given = parser.parse_args()
    parts: dict[str, Callable[[], list[Figure]]] = {
        "step": lambda: of_one_step(given.seconds, not given.no_compile),
        "windows": lambda: of_windows(given.seconds),
        "carries": lambda: of_carries(given.seconds),
        "memory": of_memory,
    }
    figures = [figure for part in given.only for figure in parts[part]()]
    console = Console()
    console.print(table(figures))
    console.print(machine.words(machine.facts()))
    if given.out:
        rows = [figure._asdict() for figure in figures]
        given.out.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
