"""Automata, parity, counters and Turing machines with weights that are written down."""

from __future__ import annotations

import random

import torch
from constructed import (
    BLANK,
    TuringMachine,
    Weights,
    automaton,
    counter,
    increment,
    load_tape,
    palindrome,
    parity,
    turing,
)
from exactly import ExactNetwork
from ledger import Claim, Part, Seen, curve, main

import elman

LENGTHS = (10, 30, 100, 300, 1000, 3000, 10000)
TAPES = (4, 8, 12, 16, 20, 24, 32)


def _share(right: torch.Tensor) -> list[float]:
    """The share of right answers, (time, rows), up to each length."""
    return [right[:length].double().mean().item() for length in LENGTHS]


def multiples_of_seven(seed: int, logistic: bool) -> list[float]:
    """A binary number read digit by digit: is it a multiple of 7? Asked after each digit."""
    rules = {(str(q), d): str((2 * q + int(d)) % 7) for q in range(7) for d in "01"}
    net = automaton(rules, "0")
    if logistic:
        # Elman's logistic units: a threshold half way, and steep.
        net.bias = {name: bias - 0.5 for name, bias in net.bias.items()}
        cell = elman.cells.get("simple").with_hyper(f="sigmoid")
        layer, start = net.layer(cell, gain=20.0)
    else:
        layer, start = net.layer()
    bits = torch.randint(0, 2, (LENGTHS[-1], 4), generator=torch.Generator().manual_seed(seed))
    x = torch.nn.functional.one_hot(bits, 2).double()
    out, _ = layer(x, start.expand(1, 4, -1).contiguous())
    names = list(net.units)
    yes = [i for i, n in enumerate(names) if "," in n and rules[tuple(n.split(","))] == "0"]
    said = out[..., yes].sum(-1) > 0.5
    rest, truth = [0] * 4, []
    for row in bits.tolist():
        rest = [(2 * r + b) % 7 for r, b in zip(rest, row, strict=True)]
        truth.append([r == 0 for r in rest])
    return _share(said == torch.tensor(truth))


def odd_ones(seed: int) -> list[float]:
    """Parity of all bits so far, after each bit."""
    layer, start = parity().layer()
    bits = torch.randint(0, 2, (LENGTHS[-1], 4), generator=torch.Generator().manual_seed(seed))
    out, _ = layer(bits[..., None].double(), start.expand(1, 4, -1).contiguous())
    return _share((out[..., 0] - out[..., 1]) == bits.cumsum(0) % 2)


def balanced(seed: int) -> list[float]:
    """Balanced brackets, after each bracket; half of the rows go deep and come back."""
    layer, start = counter().layer(elman.cells.get("simple").with_hyper(f="relu"))
    steps = LENGTHS[-1]
    draw = torch.Generator().manual_seed(seed)
    rows = torch.where(torch.rand(steps, 4, generator=draw) < 0.5, 1, -1)
    half = steps // 2
    rows[:half, 0], rows[half:, 0] = 1, -1  # half open, half close: balanced at the very end
    rows[::2, 1], rows[1::2, 1] = 1, -1  # balanced after every pair …
    rows[steps // 3, 1] *= -1  # … up to here
    x = torch.stack((rows == 1, rows == -1), -1).double()
    out, _ = layer(x, start.expand(1, 4, -1).contiguous())
    said = (out == 0).all(-1)
    depth = rows.cumsum(0)
    truth = (depth == 0) & (depth.cummin(0).values >= 0)
    return _share(said == truth)


def run_exactly(
    machine: TuringMachine, tape: list[str], limit: int, room: int = 4
) -> tuple[str, list[str]]:
    """The state in which a machine halts, and its tape, by the network without rounding.

    `room` is how many symbols the tape may grow by.
    """
    net = turing(machine)
    load_tape(net, machine, tape)
    bits = (machine.base.bit_length() - 1) * (len(tape) + room)
    network = ExactNetwork(net, bits)
    halting = [s for s in machine.states if not any(s == told for told, _ in machine.rules)]
    for _ in range(limit):
        network.step()
        network.step()
        for state in halting:
            if network.on(f"state {state}"):
                left = machine.unstack(network.value("L"))
                return state, left[::-1] + machine.unstack(network.value("R"))
    raise RuntimeError(f"the machine did not halt within {limit} steps")


def run_in_floats(machine: TuringMachine, tape: list[str], steps: int) -> list[str]:
    """The tape after so many steps, by the same weights in a layer, float64."""
    net: Weights = turing(machine)
    load_tape(net, machine, tape)
    layer, start = net.layer()
    _, state = layer(torch.zeros(2 * steps, 1, 1, dtype=torch.float64), start)
    names = list(net.units)
    # A stack that is too long was rounded; what is left of it is read in the same way.
    digits: list[list[str]] = []
    for stack in "LR":
        value, symbols = state[0, 0, names.index(stack)].item(), []
        while value > 0:
            digit = int(value * machine.base)
            symbols.append(machine.symbols[min(digit // 2, len(machine.symbols) - 1)])
            value = value * machine.base - digit
        digits.append(symbols)
    return digits[0][::-1] + digits[1]


def plus_one(tape: list[str]) -> str:
    return f"{int(''.join(tape), 2) + 1:b}".zfill(len(tape))


def measure(seed: int, full: bool) -> Seen:
    draw = random.Random(seed)
    machine, right = increment(), []
    for length in LENGTHS:
        tape = [draw.choice("01") for _ in range(length)]
        state, out = run_exactly(machine, tape, 2 * length + 10)
        right.append(float(state == "halt" and _word(out) == plus_one(tape)))
    words = [[draw.choice("01") for _ in range(draw.randrange(12))] for _ in range(3)]
    words += [w + w[::-1] for w in words] + [["0"] * 20 + ["1"] * 20, ["1"] * 41]
    mirrored = [
        float((run_exactly(palindrome(), w, 4000)[0] == "yes") == (w == w[::-1])) for w in words
    ]
    floats = []
    for length in TAPES:
        tapes = [[draw.choice("01") for _ in range(length)] for _ in range(4)]
        said = [_word(run_in_floats(machine, t, 2 * length + 10)) == plus_one(t) for t in tapes]
        floats.append(sum(said) / len(said))
    curves = {
        "automaton": multiples_of_seven(seed, logistic=False),
        "logistic automaton": multiples_of_seven(seed, logistic=True),
        "parity": odd_ones(seed),
        "counter": balanced(seed),
        "Turing machine": right,
    }
    numbers = {f"{name}: right up to length 10,000": min(values) for name, values in curves.items()}
    numbers["Turing machine: palindromes right"] = min(mirrored)
    numbers["Turing machine in float64: right, tape of 16"] = floats[TAPES.index(16)]
    numbers["Turing machine in float64: right, tape of 24"] = floats[TAPES.index(24)]
    return Seen(numbers, curves | {"float64": floats})


def _word(tape: list[str]) -> str:
    return "".join(tape).strip(BLANK)


def draw(figure, seeds: list[Seen]) -> None:
    left, right = figure.subplots(1, 2)
    names = [name for name in seeds[0].curves if name != "float64"]
    for place, name in enumerate(names):
        rows = [[v - 0.02 * place for v in s.curves[name]] for s in seeds]
        curve(left, LENGTHS, rows, name, place)
    left.set(xscale="log", ylim=(0, 1.05), xlabel="length", ylabel="right")
    left.set_title("Constructed weights (lines set apart)", fontsize=10)
    left.legend(fontsize=8, loc="lower left")
    curve(right, TAPES, [s.curves["float64"] for s in seeds], "float64", 1)
    right.plot(TAPES, [1.0] * len(TAPES), color="black", label="exact numbers")
    right.set(ylim=(0, 1.05), xlabel="symbols on the tape", ylabel="right")
    right.set_title("The Turing machine's tape in one number", fontsize=10)
    right.legend(fontsize=8)


HELD = "numbers are as long as the tape asks for"
CLAIM = Claim(
    words="A recurrent network with the right weights is a finite automaton, a counter, "
    "or a Turing machine.",
    source="Minsky 1967; Siegelmann & Sontag 1995; Qiu 2020, section 6.2",
    setting="Weights written down. Automaton: multiples of 7 in binary, 15 units; parity: 2 units; "
    "counter: balanced brackets, 3 units; Turing machine: adds one to a binary number, 65 units, "
    "and palindromes. Lengths to 10,000; the machine's tape is held in exact numbers, since "
    "float64 has room for 17 symbols.",
    parts=(
        Part("automaton: right up to length 10,000", HELD, above=0.9999),
        Part("logistic automaton: right up to length 10,000", HELD, above=0.9999),
        Part("parity: right up to length 10,000", HELD, above=0.9999),
        Part("counter: right up to length 10,000", HELD, above=0.9999),
        Part("Turing machine: right up to length 10,000", HELD, above=0.9999),
        Part("Turing machine: palindromes right", HELD, above=0.9999),
        Part("Turing machine in float64: right, tape of 16", HELD, above=0.9999),
        Part(
            "Turing machine in float64: right, tape of 24",
            "the tape outgrows the digits of float64",
            above=0.9999,
        ),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
