"""A recurrent network learns to add, digit by digit, and shows when it begins to hold the carry.

Base 2 is the program of the well-known study notes, to eight decimals: two bits a step, the least
significant first, 16 logistic units without biases, half the squared error, one sum an update.
Other bases take one-hot digits and a softmax a digit. What a unit holds is measured on *silent*
steps, whose digits add to base − 1: such digits pass a carry on and say nothing about it, so after
two of them only the network's own memory can know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from elman.backends.reference import run
from elman.equation import Cell, cell
from elman.errors import InputError

HIDDEN = 16
SUMS = 10_000  # updates of the notes' program
ALPHA = 0.1
WIDTH = 8  # bits of the notes' sums; their addends have one less
LIMIT = 60_000  # updates after which training on gives up
HELD_OUT = 1_000
LONGER = (16, 32, 64)
HOLDS = 0.1  # part of a unit's range: from this swing on it is said to hold the carry

Say = Callable[[str], None]


@cell
def adder(p, x, h, *, f=torch.sigmoid):
    """Simple recurrent network without biases, the binary adder of the study notes.

    Source: A. Trask, "Anyone Can Learn To Code an LSTM-RNN in Python (Part 1: RNN)", 2015.
    """
    return f(p.W @ x + p.U @ h)


@cell
def digit_adder(p, x, h, *, f=torch.tanh):
    """Simple recurrent network with a bias, for sums of any base.

    Source: J. L. Elman, "Finding Structure in Time", Cognitive Science 14, 1990.
    """
    return f(p.W @ x + p.U @ h + p.b)


@dataclass
class History:
    """A training, as seen from outside.

    Attributes:
        errors: of each update before it, as the program prints it: the sum of |error| over the
            bits (base 2), or the loss in nats a digit.
        updates: when the snapshots were taken, in updates.
        snapshots: by name of a weight, its values at each of those, (snapshots, ...).
    """

    errors: list[float] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)
    snapshots: dict[str, list[Tensor]] = field(default_factory=dict)

    def keep(self, update: int, weights: Mapping[str, Tensor]) -> None:
        self.updates.append(update)
        for name, value in weights.items():
            self.snapshots.setdefault(name, []).append(value.detach().clone())

    def at(self, index: int) -> dict[str, Tensor]:
        return {name: values[index] for name, values in self.snapshots.items()}


@dataclass
class Holder:
    """A unit that holds the carry: since which update, and how far its activity moves with it."""

    unit: int
    since: int
    swing: float


@dataclass
class Result:
    """What `learn` found.

    Attributes:
        base: of the digits.
        seed: of weights and sums.
        sums: seen in training, in all.
        width: digits of a training sum's answer.
        printed: the program's own error at update 0, 1000, ... (base 2 only).
        accuracy: part of the 1,000 held-out sums whose every digit is right.
        longer: the same for addends of more digits, none of which were trained on.
        longest_carry: silent steps through which the network carries a 0 and a 1 rightly, up to
            `LONGEST`.
        fell: the update at which the error is half-way down.
        told_fell: the same for a network that is told the carry (base 2 only).
        holders: the units that hold the carry, first to begin first.
        updates: when the curves below were measured, (snapshots,).
        error: mean error a held-out sum: sum of |error| over the bits, or wrong digits.
        told_error: the same of the network that is told the carry, or None.
        swing: (snapshots, hidden): how far each unit's mean activity differs between carry and no
            carry after two silent steps, as a part of the unit's range, in [−1, 1].
        weights: at the end of training.
    """

    base: int
    seed: int
    sums: int
    width: int
    printed: dict[int, float]
    accuracy: float
    longer: dict[int, float]
    longest_carry: int
    fell: int
    told_fell: int | None
    holders: list[Holder]
    updates: np.ndarray
    error: np.ndarray
    told_error: np.ndarray | None
    swing: np.ndarray
    weights: dict[str, Tensor]

    def add(self, a: int, b: int) -> int:
        """Add two whole numbers with the trained network.

        Args:
            a, b: addends >= 0.

        Returns:
            the sum as the network says it, right or wrong.
        """
        if a < 0 or b < 0:
            raise InputError(f"the adder takes whole numbers >= 0, got {a} and {b}")
        width = max(len(_digits_of(a, self.base)), len(_digits_of(b, self.base))) + 1
        pair = [_digits_of(n, self.base) for n in (a, b)]
        rows = [np.array([d + [0] * (width - len(d))]) for d in pair]
        answer = answers(self.weights, rows[0], rows[1], self.base)[0]
        return sum(int(d) * self.base**k for k, d in enumerate(answer))

    def why(self) -> str:
        """Say in words, with the moments measured, why the error falls when it does."""
        if not self.holders:
            return "No unit came to hold the carry, so the error did not fall to the end."
        units = [f"unit {h.unit} at update {h.since:,}" for h in self.holders[:2]]
        words = (
            f"No unit holds the carry at first; {' and '.join(units)} begin"
            f"{'s' if len(units) == 1 else ''} to, and the error is half-way down at update "
            f"{self.fell:,}."
        )
        if self.told_fell is not None:
            words += (
                f" Told the carry, the same network is half-way down at {self.told_fell:,}: most "
                "of the wait is for the memory."
            )
        return words + (
            " It falls suddenly because holding and reading the carry need each other: a unit is "
            "taught to hold it only as far as the readout listens to that unit, and the readout "
            "learns to listen only as far as the unit holds something."
        )


LONGEST = 512


def learn(base: int = 2, seed: int = 0, say: Say = lambda line: None) -> Result:
    """Train a network to add and measure when its units begin to hold the carry.

    Args:
        base: of the digits: 2 is the notes' program, 3 to 16 take one-hot digits and a softmax.
        seed: of the weights and of the sums; base 2 with seed 0 has the notes' own draws.
        say: takes each line of progress.

    Returns:
        figures and curves; `elman.plots.addition` draws them.

    Raises:
        InputError: a base that is not between 2 and 16, a seed that is negative.
    """
    if not 2 <= base <= 16:
        raise InputError(f"the adder works in a base from 2 to 16, got {base}")
    if not 0 <= seed < 2**32:
        raise InputError(f"a seed is a whole number from 0 to 2^32 − 1, got {seed}")
    train = _learn_bits if base == 2 else _learn_digits
    return train(base, seed, say)


# Digits and sums ---------------------------------------------------------------------------------


def _digits_of(number: int, base: int) -> list[int]:
    out = []
    while number or not out:
        number, digit = divmod(number, base)
        out.append(digit)
    return out


def digits(numbers: np.ndarray, width: int, base: int = 2) -> np.ndarray:
    """The digits of whole numbers, least significant first.

    Example:
        >>> digits(np.array([6, 1]), 4).tolist()
        [[0, 1, 1, 0], [1, 0, 0, 0]]
    """
    return numbers[..., None] // base ** np.arange(width) % base


def add_digits(a: np.ndarray, b: np.ndarray, base: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Digits of the sums, and the carry out of each step, by the rule taught in school.

    Args:
        a, b: digits, least significant first, (sums, time).
        base: of the digits.

    Returns:
        digits and carries, both (sums, time); the last carry is cut off.

    Example:
        >>> total, carry = add_digits(np.array([[4, 4, 1, 0]]), np.array([[7, 7, 1, 0]]), 10)
        >>> total.tolist(), carry.tolist()
        ([[1, 2, 3, 0]], [[1, 1, 0, 0]])
    """
    carry, totals, carries = np.zeros(len(a), dtype=np.int64), [], []
    for t in range(a.shape[1]):
        total = a[:, t] + b[:, t] + carry
        carry = total // base
        totals.append(total % base)
        carries.append(carry)
    return np.stack(totals, 1), np.stack(carries, 1)


def random_addends(
    rng: np.random.Generator, sums: int, width: int, base: int
) -> tuple[np.ndarray, np.ndarray]:
    """Digits of random addends of `width` digits, and one step more for the last carry."""
    a, b = rng.integers(base, size=(2, sums, width))
    last = np.zeros((sums, 1), dtype=np.int64)
    return np.concatenate([a, last], 1), np.concatenate([b, last], 1)


# The network -------------------------------------------------------------------------------------


def encode(a: np.ndarray, b: np.ndarray, base: int, dtype: torch.dtype) -> Tensor:
    """The network's input: (time, sums, 2) bits, or (time, sums, 2·base) one-hot digits."""
    pair = torch.from_numpy(np.stack([a.T, b.T], -1))
    if base == 2:
        return pair.to(dtype)
    return torch.nn.functional.one_hot(pair, base).flatten(-2).to(dtype)


def forward(weights: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden activity (time, sums, hidden) and the readout's sums V h + c, (time, sums, answers)."""
    equation = (digit_adder if "b" in weights else adder).graph
    recurrent = {p.name: weights[p.name] for p in equation.parameters}
    h0 = x.new_zeros(x.shape[1], HIDDEN)
    hidden = run(equation, recurrent, x, (h0,))[0]
    readout = hidden @ weights["V"].T
    return hidden, readout + weights["c"] if "c" in weights else readout


@torch.no_grad()
def answers(weights: Mapping[str, Tensor], a: np.ndarray, b: np.ndarray, base: int) -> np.ndarray:
    """The digits the network says, (sums, time)."""
    readout = forward(weights, encode(a, b, base, weights["W"].dtype))[1]
    said = (readout[..., 0] > 0) if base == 2 else readout.argmax(-1)
    return said.long().T.numpy()


def accuracy(weights: Mapping[str, Tensor], a: np.ndarray, b: np.ndarray, base: int) -> float:
    """Part of the sums whose every digit is right."""
    return float((answers(weights, a, b, base) == add_digits(a, b, base)[0]).all(1).mean())


# Base 2: the notes' program ----------------------------------------------------------------------


def notes_draws(seed: int) -> tuple[dict[str, Tensor], Iterator[tuple[int, int]]]:
    """Weights and the endless stream of addends, in the order in which the notes' program draws.

    Its generator is NumPy's legacy one, which is fixed for ever.
    """
    rng = np.random.RandomState(seed)
    sizes = {"W": (2, HIDDEN), "V": (HIDDEN, 1), "U": (HIDDEN, HIDDEN)}
    weights = {name: torch.from_numpy(2 * rng.random_sample(s) - 1) for name, s in sizes.items()}

    def pairs() -> Iterator[tuple[int, int]]:
        half = 2 ** (WIDTH - 1)
        while True:
            yield int(rng.randint(half)), int(rng.randint(half))

    return {name: w.T.contiguous() for name, w in weights.items()}, pairs()


def descend(
    weights: dict[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    history: History,
    every: int = 0,
    say: Say = lambda line: None,
) -> None:
    r"""Plain gradient descent, one sum an update: θ ← θ − α ∂E/∂θ, E = ½ Σ_t (y_t − ŷ_t)².

    Args:
        weights: changed in place.
        x: (updates, time, batch, inputs): what the network sees at each update.
        y: (updates, time, batch): the bits of the answers.
        history: gets the error before each update, and snapshots.
        every: updates between snapshots; 0 takes none.
        say: gets a line at every 1000th update.
    """
    names = list(weights)
    leaves = [weights[name].requires_grad_() for name in names]
    for inputs, target in zip(x, y, strict=True):
        update = len(history.errors)
        if every and update % every == 0:
            history.keep(update, weights)
        error = target - torch.sigmoid(forward(weights, inputs)[1][..., 0])
        history.errors.append(float(error.detach().abs().sum()))
        if update % 1000 == 0:
            say(f"update {update:6,}  error {history.errors[-1]:.8f}")
        slopes = torch.autograd.grad(0.5 * (error * error).sum(), leaves)
        with torch.no_grad():
            for leaf, slope in zip(leaves, slopes, strict=True):
                leaf -= ALPHA * slope
    for leaf in leaves:
        leaf.requires_grad_(False)


def bits_of(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Eight bits of both addends of each pair, (sums, 8)."""
    numbers = np.array(pairs, dtype=np.int64)
    return digits(numbers[:, 0], WIDTH), digits(numbers[:, 1], WIDTH)


def _batches(pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Inputs (updates, time, 1, 2) and answers (updates, time, 1) of one sum an update."""
    a, b = bits_of(pairs)
    x = encode(a, b, 2, torch.float64).transpose(0, 1).unsqueeze(2)
    return x, torch.from_numpy(add_digits(a, b)[0]).double().unsqueeze(2)


def _learn_bits(base: int, seed: int, say: Say) -> Result:
    weights, stream = notes_draws(seed)
    pairs = [next(stream) for _ in range(SUMS)]
    rng = np.random.default_rng(seed)
    held_out, stopping = _unseen(pairs, rng, 2)
    kept_away = {*held_out, *stopping}
    history = History()
    descend(weights, *_batches(pairs), history=history, every=50, say=say)
    history.keep(SUMS, weights)

    # Sums for stopping are others than those that are reported.
    more = bits_of(stopping), random_addends(rng, HELD_OUT, LONGER[-1], base)
    while len(history.errors) < LIMIT and any(accuracy(weights, *m, base) < 1 for m in more):
        block = [pair for _, pair in zip(range(2_500), stream, strict=False)]
        block = [pair for pair in block if pair not in kept_away]
        descend(weights, *_batches(block), history=history, say=say)

    told_error = _told(seed, pairs, held_out)
    printed = {k: history.errors[k] for k in range(0, SUMS, 1000)}
    return _measured(base, seed, weights, history, bits_of(held_out), printed, told_error)


def _unseen(
    pairs: list[tuple[int, int]], rng: np.random.Generator, sets: int
) -> list[list[tuple[int, int]]]:
    """Disjoint sets of sums that are not among `pairs`."""
    half = 2 ** (WIDTH - 1)
    seen = np.zeros(half * half, dtype=bool)
    seen[[a * half + b for a, b in pairs]] = True
    free = rng.permutation(np.flatnonzero(~seen))
    cuts = [free[k * HELD_OUT : (k + 1) * HELD_OUT] for k in range(sets)]
    return [[(int(n) // half, int(n) % half) for n in cut] for cut in cuts]


def _told(seed: int, pairs: list[tuple[int, int]], held_out: list[tuple[int, int]]) -> np.ndarray:
    """Error over training of a network that is told the carry and has no memory.

    The bits of a sum are then eight separate examples: batch eight, one step.
    """

    def facts(sums: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        a, b = bits_of(sums)
        total, carry = add_digits(a, b)
        before = np.concatenate([np.zeros((len(a), 1), dtype=np.int64), carry[:, :-1]], 1)
        x = torch.from_numpy(np.stack([a, b, before], -1)).double()
        return x.unsqueeze(1), torch.from_numpy(total).double().unsqueeze(1)

    drawn = notes_draws(seed)[0]
    third = torch.from_numpy(2 * np.random.default_rng(seed).random((HIDDEN, 1)) - 1)
    # The state is zero at a single step, so U is never used and its gradient is zero.
    weights = {**drawn, "W": torch.cat([drawn["W"], third], 1)}
    history = History()
    descend(weights, *facts(pairs), history=history, every=50)
    history.keep(len(pairs), weights)
    x, y = facts(held_out)
    return np.array([_bit_error(history.at(k), x, y) for k in range(len(history.updates))])


@torch.no_grad()
def _bit_error(weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> float:
    """Mean over sums of the sum of |error| over the bits; x (sums, time, batch, inputs)."""
    said = torch.sigmoid(forward(weights, x.flatten(0, 1).transpose(0, 1))[1][..., 0])
    return float((y.flatten(0, 1).T - said).abs().sum() / len(x))
