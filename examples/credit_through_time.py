"""Memory and work of back-propagation through time and of real-time recurrent learning."""

from __future__ import annotations

import time

import torch
from ledger import Claim, Part, Seen, curve, main

import elman

INPUTS, UNITS = 8, 32
STEPS = (50, 100, 200, 400)
LONGER = (*STEPS, 800, 1600, 3200)
SIZES = (1, 2, 4, 8, 16, 32, 64)
TIMED = 40


def held_while(call) -> tuple[int, object]:
    """The bytes that a call keeps for its backward, each store of memory counted once."""
    stores: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        store = tensor.untyped_storage()
        stores[store.data_ptr()] = store.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = call()
    return sum(stores.values()), result


def two(cell: str, units: int) -> tuple[elman.Recurrent, elman.Recurrent]:
    """Two layers of the same weights: one learns by RTRL, one through the whole sequence."""
    online = elman.Recurrent(cell, INPUTS, units, dtype=torch.float64, learning=elman.RTRL())
    whole = elman.Recurrent(cell, INPUTS, units, dtype=torch.float64)
    whole.load_state_dict(online.state_dict())
    return online, whole


def memory(cell: str) -> tuple[list[int], list[int], float]:
    """Bytes held after T steps by each, and how far their summed gradients are apart."""
    online, whole = two(cell, UNITS)
    x = torch.randn(LONGER[-1], 1, INPUTS, dtype=torch.float64)
    errors = torch.randn(STEPS[-1], 1, UNITS, dtype=torch.float64)
    backward, forward = [], []
    for steps in LONGER:
        piece = x[:steps].clone()  # or all of x would count
        held, (out, _) = held_while(lambda part=piece: whole(part))
        backward.append(held)
        if steps == STEPS[-1]:
            (out * errors).sum().backward()
    state = None
    for t in range(STEPS[-1]):
        now = x[t : t + 1].clone()
        held, (out, state) = held_while(lambda part=now, s=state: online(part, s))
        (out * errors[t]).sum().backward()
        if t + 1 in STEPS:
            forward.append(held)
    pairs = zip(online.parameters(), whole.parameters(), strict=True)
    apart = [((p.grad - q.grad).norm() / q.grad.norm()).item() for p, q in pairs]
    return backward, forward, max(apart)


def seconds_a_step(cell: str, units: int) -> tuple[float, float]:
    """The time of a step of each, forward and backward, as the median of a few."""
    online, whole = two(cell, units)
    x = torch.randn(TIMED, 1, INPUTS, dtype=torch.float64)
    state, online_times, whole_times = None, [], []
    for t in range(TIMED):
        began = time.process_time()
        out, state = online(x[t : t + 1], state)
        out.sum().backward()
        online_times.append(time.process_time() - began)
    for _ in range(5):
        began = time.process_time()
        whole(x)[0].sum().backward()
        whole_times.append((time.process_time() - began) / TIMED)
    return sorted(online_times)[TIMED // 2], sorted(whole_times)[2]


def products(units: int, elementwise: bool = False) -> float:
    """Multiplications a step, those of RTRL over those of BPTT, for simple network or IndRNN.

    BPTT goes forward, and back with two products of the same size, for the states and for the
    weights. RTRL goes forward, moves the influence, adds the new one (one number a weight) and
    weighs it with the error. The influence of P weights is units × P and moved by U; where each
    unit sees only itself it is one number a weight, moved by one number.
    """
    if elementwise:
        weights = units * (INPUTS + 2)
        forward = units * (INPUTS + 1)
        return (forward + 3 * weights) / (3 * forward)
    weights = units * (INPUTS + units + 1)
    forward = units * (INPUTS + units)
    return (forward + units**2 * weights + weights + units * weights) / (3 * forward)


def measure(seed: int, full: bool) -> Seen:
    backward, forward, apart = memory("simple")
    times = {cell: [seconds_a_step(cell, n) for n in SIZES] for cell in ("simple", "indrnn")}
    ratios = {cell: [online / whole for online, whole in rows] for cell, rows in times.items()}
    first, span = STEPS.index(100), 300
    numbers = {
        "relative difference of the two gradients": max(apart, 1e-18),
        "BPTT: bytes that a further step holds": (backward[3] - backward[first]) / span,
        "RTRL: bytes that a further step holds": (forward[3] - forward[first]) / span,
        "steps from which BPTT holds more": forward[3] * span / (backward[3] - backward[first]),
        **{f"multiplications, RTRL over BPTT, {n} units": products(n) for n in (2, 64)},
        "multiplications, RTRL over BPTT, 64 units of IndRNN": products(64, elementwise=True),
        "time, RTRL over BPTT, 2 units": ratios["simple"][1],
        "time, RTRL over BPTT, 64 units": ratios["simple"][-1],
        "time, RTRL over BPTT, 64 units of IndRNN": ratios["indrnn"][-1],
    }
    return Seen(numbers, {"BPTT": backward, "RTRL": forward, "times": times})


def draw(figure, seeds: list[Seen]) -> None:
    left, right = figure.subplots(1, 2)
    for place, (name, steps) in enumerate((("BPTT", LONGER), ("RTRL", STEPS))):
        rows = [[b / 1e3 for b in s.curves[name]] for s in seeds]
        curve(left, steps, rows, name, place, log=True)
    left.set(
        xscale="log", xlabel="steps T", ylabel="kB held", title=f"simple network, {UNITS} units"
    )
    left.legend(fontsize=8)
    place = 0
    for cell in ("simple", "indrnn"):
        for way, name in enumerate(("RTRL", "BPTT")):
            rows = [[1e6 * both[way] for both in s.curves["times"][cell]] for s in seeds]
            curve(right, SIZES, rows, f"{name}, {cell}", place, log=True)
            place += 1
    right.set(xscale="log", xlabel="units", ylabel="µs a step", title="time")
    right.legend(fontsize=8)


DENSE = "every unit sees every other, from 2 units on"
CLAIM = Claim(
    words="BPTT's memory grows with T and RTRL's does not; both give the same gradient; BPTT "
    "computes less.",
    source="Williams & Zipser 1989 and 1995; Qiu 2020, section 6.4",
    setting="8 inputs, batch 1, float64. Memory: what is held for the backward, simple network of "
    "32 units. Multiplications are counted. Time: forward and backward a step, 40 steps, RTRL "
    "called step by step; below 64 units most of its time is the call, and of IndRNN's all.",
    parts=(
        Part("relative difference of the two gradients", DENSE, below=1e-9, log=True),
        Part("BPTT: bytes that a further step holds", DENSE, above=100),
        Part("RTRL: bytes that a further step holds", DENSE, below=1),
        Part("multiplications, RTRL over BPTT, 2 units", DENSE, above=1.5),
        Part("multiplications, RTRL over BPTT, 64 units", DENSE, above=1.5),
        Part("time, RTRL over BPTT, 2 units", DENSE, above=1.5, log=True),
        Part("time, RTRL over BPTT, 64 units", DENSE, above=1.5, log=True),
        Part(
            "multiplications, RTRL over BPTT, 64 units of IndRNN",
            "each unit sees only itself (the two multiply about as often)",
            above=1.5,
        ),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
