"""Training: the notes' program for base 2, one-hot digits and Adam for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from elman.errors import InputError
from elman.tasks.addition import carry
from elman.tasks.addition.network import accuracy, encode, forward
from elman.tasks.addition.result import Result
from elman.tasks.addition.sums import add_digits, digits, random_addends

SUMS = 10_000  # updates of the notes' program
ALPHA = 0.1
BITS = 8  # of the notes' sums; the addends have one less
UNITS = 16
MORE = 2_500  # updates of one further block, where 10,000 do not reach every sum
LIMIT = 60_000
HELD_OUT = 1_000
LONGER = (16, 32, 64)

Pair = tuple[int, int]
Say = Callable[[str], None]


def _quiet(line: str) -> None:
    """Print nothing."""


def learn(base: int = 2, seed: int = 0, say: Say = _quiet) -> Result:
    """Train a network to add, and measure when its units begin to hold the carry.

    Args:
        base: of the digits: 2 is the notes' program, 3 to 16 take one-hot digits and a softmax.
        seed: of the weights and of the sums; base 2 with seed 0 has the notes' own draws.
        say: takes each line of progress.

    Returns:
        figures and curves; `elman.plots.addition` draws them.

    Raises:
        InputError: a base that is not between 2 and 16, a seed out of range.
    """
    if not 2 <= base <= 16:
        raise InputError(f"the adder works in a base from 2 to 16, got {base}")
    if not 0 <= seed < 2**32:
        raise InputError(f"the adder's seed is a whole number from 0 to 2³² − 1, got {seed}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on products this small, threads only wait for each other
    try:
        return _learn_bits(seed, say) if base == 2 else _learn_digits(base, seed, say)
    finally:
        torch.set_num_threads(threads)


@dataclass
class History:
    """A training as seen from outside.

    Args:
        errors: before each update, as the program prints it.
        updates: when the snapshots were taken.
        snapshots: the weights at those moments.
    """

    errors: list[float] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)
    snapshots: list[dict[str, Tensor]] = field(default_factory=list)

    def keep(self, weights: Mapping[str, Tensor]) -> None:
        """Take a snapshot."""
        self.updates.append(len(self.errors))
        self.snapshots.append({name: w.detach().clone() for name, w in weights.items()})


def notes_draws(seed: int) -> tuple[dict[str, Tensor], Iterator[Pair]]:
    """Weights and the endless stream of addends, in the order in which the notes' program draws.

    Its generator is NumPy's legacy one, whose stream is fixed for good.

    Args:
        seed: 0 to 2³² − 1.

    Returns:
        W (hidden, 2), V (1, hidden), U (hidden, hidden), float64 in [−1, 1); pairs below 128.
    """
    rng = np.random.RandomState(seed)
    sizes = {"W": (2, UNITS), "V": (UNITS, 1), "U": (UNITS, UNITS)}
    drawn = {name: torch.from_numpy(2 * rng.random_sample(s) - 1) for name, s in sizes.items()}

    def pairs() -> Iterator[Pair]:
        half = 2 ** (BITS - 1)
        while True:
            yield int(rng.randint(half)), int(rng.randint(half))

    return {name: w.T.contiguous() for name, w in drawn.items()}, pairs()


def descend(
    weights: dict[str, Tensor],
    x: Tensor,
    y: Tensor,
    history: History,
    *,
    every: int = 0,
    say: Say = _quiet,
) -> None:
    r"""Plain gradient descent, one sum an update: θ ← θ − α ∂E/∂θ, E = ½ Σ_t (y_t − ŷ_t)².

    Args:
        weights: changed in place.
        x: what the network sees at each update, (updates, time, batch, inputs).
        y: the bits of the answers, (updates, time, batch).
        history: gets the error before each update, the sum of |y_t − ŷ_t|, and the snapshots.
        every: updates between snapshots; 0 takes none.
        say: gets a line at every 1000th update.
    """
    leaves = [w.requires_grad_() for w in weights.values()]
    for inputs, target in zip(x, y, strict=True):
        update = len(history.errors)
        if every and update % every == 0:
            history.keep(weights)
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


def _learn_bits(seed: int, say: Say) -> Result:
    weights, stream = notes_draws(seed)
    pairs = list(islice(stream, SUMS))
    rng = np.random.default_rng(seed)
    held_out, stopping = _unseen(pairs, rng)
    history = History()
    descend(weights, *_examples(pairs), history, every=50, say=say)
    history.keep(weights)

    # What decides to train on are other sums than those that are reported.
    more = bits_of(stopping), random_addends(rng, HELD_OUT, LONGER[-1], 2)
    kept_away = {*held_out, *stopping}
    while len(history.errors) < LIMIT and any(accuracy(weights, *m, 2) < 1 for m in more):
        block = [pair for pair in islice(stream, MORE) if pair not in kept_away]
        descend(weights, *_examples(block), history, say=say)

    x, y = _examples(held_out)
    return _measured(
        2,
        seed,
        weights,
        history,
        bits_of(held_out),
        sums=len(history.errors),
        width=BITS - 1,
        printed={k: history.errors[k] for k in range(0, SUMS, 1000)},
        error=np.array([_bit_error(w, x, y) for w in history.snapshots]),
        told_error=_told(seed, pairs, held_out),
    )


def _unseen(pairs: list[Pair], rng: np.random.Generator) -> tuple[list[Pair], list[Pair]]:
    """Two disjoint sets of 1,000 sums that are not among `pairs`."""
    half = 2 ** (BITS - 1)
    free = np.ones(half * half, dtype=bool)
    free[[a * half + b for a, b in pairs]] = False
    drawn = rng.permutation(np.flatnonzero(free)).tolist()
    sums = [divmod(n, half) for n in drawn[: 2 * HELD_OUT]]
    return sums[:HELD_OUT], sums[HELD_OUT:]


def bits_of(pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Eight bits of both addends of each pair, (sums, 8)."""
    numbers = np.array(pairs, dtype=np.int64)
    return digits(numbers[:, 0], BITS), digits(numbers[:, 1], BITS)


def _examples(pairs: list[Pair], told: bool = False) -> tuple[Tensor, Tensor]:
    """Inputs (sums, time, batch, 2) and answers (sums, time, batch), as `descend` takes them.

    Untold, a sum is eight steps and batch one. Told the carry, its bits are separate examples:
    one step, batch eight, a third input.
    """
    a, b = bits_of(pairs)
    total, carried = add_digits(a, b)
    batch_at = 1 if told else 2
    before = np.concatenate([np.zeros((len(a), 1), dtype=np.int64), carried[:, :-1]], 1)
    x = torch.from_numpy(np.stack([a, b, before] if told else [a, b], -1)).double()
    return x.unsqueeze(batch_at), torch.from_numpy(total).double().unsqueeze(batch_at)


def _told(seed: int, pairs: list[Pair], held_out: list[Pair]) -> np.ndarray:
    """Error over training of a network that is told the carry and needs no memory.

    Its state is zero at its single step, so U has no effect and no gradient.
    """
    weights, _ = notes_draws(seed)
    third = torch.from_numpy(2 * np.random.default_rng(seed).random((UNITS, 1)) - 1)
    weights["W"] = torch.cat([weights["W"], third], 1)
    history = History()
    descend(weights, *_examples(pairs, told=True), history, every=50)
    history.keep(weights)
    x, y = _examples(held_out, told=True)
    return np.array([_bit_error(w, x, y) for w in history.snapshots])


@torch.no_grad()
def _bit_error(weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> float:
    """Mean over the sums of the sum of |error| over the bits."""
    said = torch.sigmoid(forward(weights, x.transpose(0, 1).flatten(1, 2))[1][..., 0])
    return float((y.transpose(0, 1).flatten(1, 2) - said).abs().sum() / len(x))


def _learn_digits(base: int, seed: int, say: Say) -> Result:
    """Addends of eight digits, 64 sums an update, Adam with a rate that falls to zero.

    On half of the steps the digits add to base − 1, so that carries are passed on far.
    """
    width, batch, updates, rate = 8, 64, 4_000, 0.02
    weights, rng = _digit_weights(base, seed), np.random.default_rng(seed)
    held_out = random_addends(rng, HELD_OUT, width, base)
    optimiser = torch.optim.Adam(weights.values(), lr=rate)
    history = History()
    for update in range(updates):
        if update % (5 if update < 500 else 50) == 0:
            history.keep(weights)
        a, b = random_addends(rng, batch, width, base, silent=0.5)
        new = ~np.isin(_key(a, b, base), _key(*held_out, base))
        a, b = a[new], b[new]
        readout = forward(weights, encode(a, b, base, torch.float32))[1]
        target = torch.from_numpy(add_digits(a, b, base)[0].T)
        loss = torch.nn.functional.cross_entropy(readout.flatten(0, 1), target.flatten())
        history.errors.append(float(loss.detach()))
        if update % 500 == 0:
            say(f"update {update:6,}  loss {history.errors[-1]:.4f} nats a digit")
        optimiser.param_groups[0]["lr"] = rate * (1 - update / updates)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    weights = {name: w.detach() for name, w in weights.items()}
    history.keep(weights)
    return _measured(
        base,
        seed,
        weights,
        history,
        held_out,
        sums=updates * batch,
        width=width,
        error=np.array([_wrong_digits(w, held_out, base) for w in history.snapshots]),
    )


def _digit_weights(base: int, seed: int) -> dict[str, Tensor]:
    units = 2 * UNITS
    sizes = {"W": (units, 2 * base), "U": (units, units), "b": (units,)}
    sizes |= {"V": (base, units), "c": (base,)}
    generator, bound = torch.Generator().manual_seed(seed), units**-0.5
    return {
        name: (bound * (2 * torch.rand(size, generator=generator) - 1)).requires_grad_()
        for name, size in sizes.items()
    }


def _key(a: np.ndarray, b: np.ndarray, base: int) -> np.ndarray:
    """One number for each sum; eight digits of base 16 twice just fit 64 bits."""
    places = np.uint64(base) ** np.arange(16, dtype=np.uint64)
    return (np.concatenate([a[:, :8], b[:, :8]], 1).astype(np.uint64) * places).sum(1)


@torch.no_grad()
def _wrong_digits(
    weights: Mapping[str, Tensor], sums: tuple[np.ndarray, np.ndarray], base: int
) -> float:
    """Mean number of wrong digits of a sum."""
    readout = forward(weights, encode(*sums, base, torch.float32))[1]
    target = torch.from_numpy(add_digits(*sums, base)[0].T)
    return float((readout.argmax(-1) != target).sum(0).double().mean())


@torch.no_grad()
def _measured(
    base: int,
    seed: int,
    weights: dict[str, Tensor],
    history: History,
    held_out: tuple[np.ndarray, np.ndarray],
    *,
    sums: int,
    width: int,
    error: np.ndarray,
    printed: dict[int, float] | None = None,
    told_error: np.ndarray | None = None,
) -> Result:
    rng, dtype = np.random.default_rng(seed + 1), weights["W"].dtype
    # Two silent steps in a row are rare among random digits; a probe of other bases has more.
    probe = random_addends(rng, HELD_OUT, BITS - 1, base, silent=0.0 if base == 2 else 0.5)
    x = encode(*probe, base, dtype)
    swing = np.stack([carry.swings(forward(w, x)[0], *probe, base) for w in history.snapshots])
    longer = {n: random_addends(rng, HELD_OUT, n, base) for n in LONGER}
    updates = np.array(history.updates)
    return Result(
        base=base,
        seed=seed,
        sums=sums,
        width=width,
        printed=printed or {},
        accuracy=accuracy(weights, *held_out, base),
        longer={n: accuracy(weights, *pair, base) for n, pair in longer.items()},
        longest_carry=carry.longest_carry(weights, base),
        fell=carry.half_way(updates, error),
        told_fell=None if told_error is None else carry.half_way(updates, told_error),
        holders=carry.find_holders(updates, swing),
        updates=updates,
        error=error,
        told_error=told_error,
        swing=swing,
        readout=np.stack([w["V"].norm(dim=0).numpy() for w in history.snapshots]),
        weights=weights,
    )
