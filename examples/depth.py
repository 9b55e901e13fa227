"""Stacks of one to four LSTM layers on a text, of one number of weights."""

from __future__ import annotations

from pathlib import Path

import torch
from ledger import Claim, Part, Seen, curve, main
from torch import Tensor
from training import Network, at_every_step, fit, one_hot

import elman

DEPTHS = (1, 2, 3, 4)
STEPS = 32


def units_of(depth: int, characters: int, weights: int) -> int:
    """The width at which a stack has about so many weights."""

    def count(width: int) -> int:
        return 4 * width * (characters + width + 1) + (depth - 1) * 4 * width * (2 * width + 1)

    return min(range(4, 400), key=lambda width: abs(count(width) - weights))


def corpus() -> tuple[Tensor, Tensor, int]:
    """The English text that Elman ships, in lower case: characters to learn from, and the last."""
    path = Path(elman.__file__).parent / "demo_data" / "english.txt"
    text = path.read_text(encoding="utf-8").lower()
    alphabet = sorted(set(text))
    tokens = torch.tensor([alphabet.index(c) for c in text])
    return tokens[:-5000], tokens[-5000:], len(alphabet)


def measure(seed: int, full: bool) -> Seen:
    train, test, characters = corpus()
    batches, weights = (2500, 40_000) if full else (150, 12_000)

    def batch() -> tuple[Tensor, Tensor]:
        starts = torch.randint(0, len(train) - STEPS, (32,))
        rows = torch.stack([train[s : s + STEPS + 1] for s in starts.tolist()], 1)
        return one_hot(rows[:-1], characters), rows[1:]

    bits = []
    for depth in DEPTHS:
        torch.manual_seed(seed)
        units = units_of(depth, characters, weights)
        network = Network("lstm", characters, units, characters, layers=depth)
        fit(network, batch, at_every_step, batches, rate=5e-3)
        with torch.no_grad():
            told = network(one_hot(test[:-1, None], characters))
        bits.append(at_every_step(told, test[1:, None]).item() / torch.tensor(2.0).log().item())
    numbers = {
        f"{depth} layers: bits a character": b for depth, b in zip(DEPTHS, bits, strict=True)
    }
    for fewer, more in ((1, 2), (2, 3), (3, 4)):
        numbers[f"bits gained by {more} layers over {fewer}"] = bits[fewer - 1] - bits[more - 1]
    return Seen(numbers, {"bits": bits})


def draw(figure, seeds: list[Seen]) -> None:
    axes = figure.subplots()
    curve(axes, DEPTHS, [s.curves["bits"] for s in seeds], "test", 0)
    for seed in seeds:
        axes.plot(DEPTHS, seed.curves["bits"], color="grey", linewidth=0.5)
    axes.set_xticks(DEPTHS)
    axes.set(xlabel="layers, all stacks of one number of weights", ylabel="bits a character")


CLAIM = Claim(
    words="Depth helps a recurrent network, and three layers are already deep: a fourth brings "
    "nothing.",
    source="Pascanu et al. 2014; Hermans & Schrauwen 2013; the lecturers' “three is already deep”",
    setting="Character model of the English text that Elman ships, LSTM stacks of one number of "
    "weights (12,000, and 150 batches, in 20 seconds; full: 40,000 and 2,500), last 5,000 "
    "characters asked.",
    parts=(
        Part("bits gained by 2 layers over 1", "the second layer is meant", above=0.0),
        Part("bits gained by 3 layers over 2", "the third layer is meant", above=0.0),
        Part("bits gained by 4 layers over 3", "a fourth layer is to bring nothing", below=0.01),
    ),
    measure=measure,
    draw=draw,
    full=True,
)

if __name__ == "__main__":
    main(CLAIM)
