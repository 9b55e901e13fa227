"""Recurrent networks whose weights are written down, not trained: automata, counters, machines.

All are simple networks hₜ = σ(W xₜ + U hₜ₋₁ + b). With σ(v) = 0 below 0, 1 above 1 and v between,
a unit is a logical "and" of others (add them up, subtract how many there are but one), or the next
value of a number in [0, 1], or 0 where another unit does not allow it (subtract a large multiple of
what is missing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

import elman

BLANK = "_"
Number = int | float | Fraction


@elman.cell(family="simple")
def saturated(p, x, h):
    """Simple network with saturated-linear units.

        hₜ = σ(W xₜ + U hₜ₋₁ + b),   σ(v) = min(max(v, 0), 1)

    Source: Siegelmann & Sontag 1995, "On the computational power of neural nets".
    """
    return (p.W @ x + p.U @ h + p.b).clamp(0.0, 1.0)


class Weights:
    """Weights being written: units and inputs have names, and what is not named is 0."""

    def __init__(self, inputs: Sequence[str] = ()):
        self.inputs = list(inputs)
        self.units: dict[str, dict[str, Number]] = {}
        self.bias: dict[str, Number] = {}
        self.start: dict[str, Number] = {}

    def unit(self, name: str, bias: Number = 0, **sources: Number) -> None:
        """Add a unit that sees these units and inputs, each with its weight."""
        self.connect(name, sources)
        self.bias[name] = bias

    def connect(self, name: str, sources: Mapping[str, Number]) -> None:
        """Let a unit see more; what it sees already is added up."""
        seen = self.units.setdefault(name, {})
        for source, weight in sources.items():
            seen[source] = seen.get(source, 0) + weight

    def matrices(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """W, U, b and the state to start from, as tensors."""
        names = list(self.units)
        shape = {"W": (len(names), max(len(self.inputs), 1)), "U": (len(names), len(names))}
        out = {key: torch.zeros(size, dtype=dtype) for key, size in shape.items()}
        for row, name in enumerate(names):
            for source, weight in self.units[name].items():
                if source in self.inputs:
                    out["W"][row, self.inputs.index(source)] = float(weight)
                else:
                    out["U"][row, names.index(source)] = float(weight)
        out["b"] = torch.tensor([float(self.bias.get(n, 0)) for n in names], dtype=dtype)
        out["h"] = torch.tensor([float(self.start.get(n, 0)) for n in names], dtype=dtype)
        return out

    def layer(
        self, cell: str | elman.Cell = saturated, gain: float = 1.0, dtype=torch.float64
    ) -> tuple[elman.Recurrent, Tensor]:
        """The layer with these weights, and the state (1, 1, units) to start it from."""
        values = self.matrices(dtype)
        units, inputs = values["W"].shape
        layer = elman.Recurrent(cell, inputs, units, dtype=dtype)
        with torch.no_grad():
            for name in ("W", "U", "b"):
                getattr(layer, f"{name}_l0").copy_(gain * values[name])
        return layer.requires_grad_(False), values["h"].view(1, 1, -1)


def automaton(rules: Mapping[tuple[str, str], str], start: str) -> Weights:
    """A finite automaton: one unit for each pair of a state and the symbol read in it.

    Unit (q, s) is the "and" of the input s and of any unit that leads to q. It is 1 just after s
    was read in the state q; all others are 0.

    Source: Minsky 1967, "Computation: finite and infinite machines", chapter 3 (the construction).
    """
    symbols = sorted({symbol for _, symbol in rules})
    net = Weights(symbols)
    net.unit("start")
    net.start["start"] = 1
    for state, symbol in rules:
        net.unit(f"{state},{symbol}", bias=-1, **{symbol: 1})
        for (before, read), after in rules.items():
            if after == state:
                net.connect(f"{state},{symbol}", {f"{before},{read}": 1})
        if state == start:
            net.connect(f"{state},{symbol}", {"start": 1})
    return net


def parity() -> Weights:
    """Parity with two units: "one of the two or more" and "both" of the input and the last parity.

    The parity is "or" − "and", so the units see that difference of themselves.
    """
    net = Weights(["one"])
    net.unit("or", one=1, **{"or": 1, "and": -1})
    net.unit("and", bias=-1, one=1, **{"or": 1, "and": -1})
    return net


def counter() -> Weights:
    """Balanced brackets with three rectified units (use the cell "simple" with f="relu").

    depth counts up and down, and no lower than 0; below is 1 where a bracket closes that was not
    open; failed adds these up. A word is balanced where all three end at 0. The count is exact as
    long as the number type counts: to 2²⁴ in float32, to 2⁵³ in float64.
    """
    net = Weights(["open", "close"])
    net.unit("depth", depth=1, open=1, close=-1)
    net.unit("below", close=1, depth=-1)
    net.unit("failed", failed=1, below=1)
    return net


@dataclass(frozen=True)
class TuringMachine:
    """A machine with one tape: (state, symbol) -> (state, symbol to write, move −1, 0 or 1).

    A state without rules halts. Beyond what was written the tape is blank, "_".
    """

    rules: Mapping[tuple[str, str], tuple[str, str, int]]
    start: str
    symbols: tuple[str, ...] = ("0", "1", BLANK)

    @property
    def states(self) -> list[str]:
        told = [self.start, *(state for state, _ in self.rules)]
        return list(dict.fromkeys([*told, *(rule[0] for rule in self.rules.values())]))

    @property
    def base(self) -> int:
        """The base in which a stack of symbols is one number: a power of two, 4 or more."""
        base = 4
        while base < 2 * len(self.symbols):
            base *= 2
        return base

    def code(self, symbol: str) -> int:
        """The odd digit that stands for a symbol; no digit stands beside the next."""
        return 2 * self.symbols.index(symbol) + 1

    def stack(self, symbols: Sequence[str]) -> Fraction:
        """A stack, its top first, as a number in [0, 1): Cantor's way, gaps between the digits."""
        top_last = 0
        for symbol in symbols:
            top_last = top_last * self.base + self.code(symbol)
        return Fraction(top_last, self.base ** len(symbols))

    def unstack(self, value: Fraction) -> list[str]:
        """The symbols of a stack, its top first."""
        places = (value.denominator.bit_length() - 1 + self._bits - 1) // self._bits
        whole = value.numerator * (self.base**places // value.denominator)
        digits = []
        for _ in range(places):
            whole, digit = divmod(whole, self.base)
            digits.append(self.symbols[digit // 2])
        return digits[::-1]

    @property
    def _bits(self) -> int:
        return self.base.bit_length() - 1


def turing(machine: TuringMachine) -> Weights:
    """A saturated-linear network that is a Turing machine, two steps of it for one of the machine.

    The tape is two stacks, what is left of the head and what is right of and under it, each in one
    unit: base 4 for two symbols, 8 for three. Odd steps read: `nonempty` and `R1`, `R2` (is the top
    digit symbol 1, 2 or more?) are steep saturated units. Even steps act: for each situation (the
    state, what is under the head, what is left of it) three units, 0 in every other situation, hold
    the two new stacks and a 1; pushing divides by the base, popping multiplies by it.

    Source: Siegelmann & Sontag 1995, "On the computational power of neural nets", sections 3 and 4
    (stacks as Cantor-like numbers, top and emptiness by one unit each, situations that gate what
    is done); theirs has four layers a step, then fewer, and reads unary inputs from a line.
    """
    net = Weights()
    for stack in "LR":
        net.unit(stack)
        net.unit(f"{stack}0")  # nonempty: its top is symbol 0 or more
        for level in range(1, len(machine.symbols)):
            net.unit(f"{stack}{level}", bias=-2 * level)
    for state in machine.states:
        net.unit(f"state {state}")
    for state in machine.states:
        if any(state == told for told, _ in machine.rules):
            for under in (None, *machine.symbols):
                rule = machine.rules.get((state, under or BLANK))
                if rule is None:
                    _stay(net, machine, state, under)
                elif rule[2] < 0:
                    for left in (None, *machine.symbols):
                        _act(net, machine, state, under, left, rule)
                else:
                    _act(net, machine, state, under, None, rule)
        else:
            _halted(net, machine, state)
    return net


def _situation(
    machine: TuringMachine, state: str, under: str | None, left: str | None, sees_left: bool
) -> tuple[dict[str, int], int]:
    """The weights and the bias of a sum that is 0 in this situation, and ≤ −1 in all others."""
    weights, asked = {f"state {state}": 1}, 1
    tops = [("R", under)] + ([("L", left)] if sees_left else [])
    for stack, top in tops:
        place = -1 if top is None else machine.symbols.index(top)
        if place >= 0:
            weights[f"{stack}{place}"] = 1
            asked += 1
        if place + 1 < len(machine.symbols):
            weights[f"{stack}{place + 1}"] = -1
    return weights, -asked


def _add_situation(
    net: Weights,
    machine: TuringMachine,
    situation: tuple[dict[str, int], int],
    after: str,
    stacks: Mapping[str, tuple[Number, Number]],
) -> None:
    """Add the units of a situation; stacks are (weight of the old one, what is added)."""
    matched, bias = situation
    name = f"do {len(net.units)}"
    net.unit(name, bias=1 + bias, **matched)
    net.connect(f"state {after}", {name: 1})
    levels = range(len(machine.symbols))
    for stack, (scale, shift) in stacks.items():
        # Any popped stack is below base; whatever is missing takes that away, and the unit is 0.
        gate = {source: machine.base * weight for source, weight in matched.items()}
        net.unit(f"{name} {stack}", bias=shift + machine.base * bias, **gate)
        net.connect(f"{name} {stack}", {stack: scale})
        net.connect(stack, {f"{name} {stack}": 1})
        for level in levels:
            net.connect(f"{stack}{level}", {f"{name} {stack}": machine.base})


def _act(net, machine, state, under, left, rule) -> None:
    """One situation of one rule."""
    after, write, move = rule
    base, code = machine.base, machine.code
    if move > 0:
        popped = (base, -code(under)) if under else (0, 0)
        stacks = {"R": popped, "L": (Fraction(1, base), Fraction(code(write), base))}
    else:
        # What is written replaces the top; a blank on an empty stack is the empty stack.
        scale, shift = Fraction(1), Fraction(0)
        if under:
            shift = Fraction(code(write) - code(under), base)
        elif write != BLANK:
            shift = Fraction(code(write), base)
        stacks = {"R": (scale, shift), "L": (1, 0)}
        if move < 0:
            pushed = Fraction(code(left or BLANK), base)
            stacks["R"] = (scale / base, shift / base + pushed)
            stacks["L"] = (base, -code(left)) if left else (0, 0)
    situation = _situation(machine, state, under, left, sees_left=move < 0)
    _add_situation(net, machine, situation, after, stacks)


def _stay(net, machine, state, under) -> None:
    situation = _situation(machine, state, under, None, sees_left=False)
    _add_situation(net, machine, situation, state, {"R": (1, 0), "L": (1, 0)})


def _halted(net, machine, state) -> None:
    situation = ({f"state {state}": 1}, -1)
    _add_situation(net, machine, situation, state, {"R": (1, 0), "L": (1, 0)})


def load_tape(net: Weights, machine: TuringMachine, tape: Sequence[str]) -> None:
    """Put a word on the tape, the head on its first symbol."""
    value = machine.stack(tape)
    net.start = {"R": value, f"state {machine.start}": 1}
    for level in range(len(machine.symbols)):
        steep = value * machine.base - 2 * level
        net.start[f"R{level}"] = min(max(steep, 0), 1)


def increment() -> TuringMachine:
    """Add one to a binary number: go to its end, then carry back to the left."""
    rules = {
        ("right", "0"): ("right", "0", 1),
        ("right", "1"): ("right", "1", 1),
        ("right", BLANK): ("carry", BLANK, -1),
        ("carry", "1"): ("carry", "0", -1),
        ("carry", "0"): ("halt", "1", 0),
        ("carry", BLANK): ("halt", "1", 0),
    }
    return TuringMachine(rules, "right")


def palindrome() -> TuringMachine:
    """Accept words of 0 and 1 that read the same backwards: rub out both ends while they agree."""
    rules = {("first", BLANK): ("yes", BLANK, 0), ("back", BLANK): ("first", BLANK, 1)}
    for symbol, other in (("0", "1"), ("1", "0")):
        rules[("first", symbol)] = (f"had {symbol}", BLANK, 1)
        rules[("back", symbol)] = ("back", symbol, -1)
        for passed in ("0", "1"):
            rules[(f"had {symbol}", passed)] = (f"had {symbol}", passed, 1)
        rules[(f"had {symbol}", BLANK)] = (f"last {symbol}", BLANK, -1)
        rules[(f"last {symbol}", symbol)] = ("back", BLANK, -1)
        rules[(f"last {symbol}", other)] = ("no", other, 0)
        rules[(f"last {symbol}", BLANK)] = ("yes", BLANK, 0)
    return TuringMachine(rules, "first")
