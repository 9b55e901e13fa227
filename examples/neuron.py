"""The word “neuron”, letter by letter: what does each network still know at the r?"""

from __future__ import annotations

import torch
from ledger import Claim, Part, Seen, bars, main
from torch import Tensor
from training import Network, at_every_step, fit, one_hot

# fmt: off
WORDS = [
    "neuron", "neural", "neurosis", "europe", "eureka", "amateur", "fleur", "liqueur",
    "entrepreneur", "aurora", "jury", "tourist", "four", "hour", "nurse", "purse", "turtle",
    "bureau", "figure", "nature", "heron", "apron", "baron", "electron", "matron", "iron",
    "squadron", "boron", "fire", "hero", "zero", "furnace", "journey", "mature", "return",
    "neutron", "hundred", "mirror",
]
# fmt: on
LETTERS = "abcdefghijklmnopqrstuvwxyz."
KNOWN = "neur"
NETWORKS = {
    "static": ("tdnn", {"K": 0}),
    "delay of 1": ("tdnn", {"K": 1}),
    "delays to 2": ("tdnn", {"K": 2}),
    "simple": ("simple", {}),
    "LSTM": ("lstm", {}),
}


def batch() -> tuple[Tensor, Tensor]:
    """All words at once, one letter a step; asked is the next letter, or the end."""
    longest = max(map(len, WORDS))
    tokens = torch.full((longest, len(WORDS)), LETTERS.index("."))
    asked = torch.full((longest, len(WORDS)), -100)
    for row, word in enumerate(WORDS):
        places = torch.tensor([LETTERS.index(c) for c in word + "."])
        tokens[: len(word), row], asked[: len(word), row] = places[:-1], places[1:]
    return one_hot(tokens, len(LETTERS)), asked


@torch.no_grad()
def at_the_r(network: Network) -> tuple[list[float], float]:
    """How much the prediction at the r moves when n, e or u is another letter; P(o | neur).

    The distance is the total variation, half the sum of |difference|, as a mean over the other
    letters.
    """
    moved = []
    tokens = torch.tensor([LETTERS.index(c) for c in KNOWN])
    told = network(one_hot(tokens[:, None], len(LETTERS)))[-1].softmax(-1)
    for place in range(len(KNOWN) - 1):
        others = [i for i in range(26) if i != tokens[place]]
        changed = tokens[:, None].repeat(1, len(others))
        changed[place] = torch.tensor(others)
        predicted = network(one_hot(changed, len(LETTERS)))[-1].softmax(-1)
        moved.append(0.5 * (predicted - told).abs().sum(-1).mean().item())
    return moved, told[0, LETTERS.index("o")].item()


def measure(seed: int, full: bool) -> Seen:
    data = batch()
    numbers: dict[str, float] = {}
    for name, (cell, hyper) in NETWORKS.items():
        network = Network(cell, len(LETTERS), 32, len(LETTERS), hyper=hyper)
        fit(network, lambda: data, at_every_step, 250, rate=1e-2)
        moved, chance = at_the_r(network)
        for letter, value in zip(KNOWN, moved, strict=False):
            numbers[f"{name}: what {letter} moves at r"] = value
        numbers[f"{name}: P(o | neur)"] = chance
    return Seen(numbers)


def draw(figure, seeds: list[Seen]) -> None:
    all_axes = figure.subplots(1, 4, sharey=True)
    for axes, letter in zip(all_axes, KNOWN, strict=True):
        key = "P(o | neur)" if letter == "r" else f"what {letter} moves at r"
        bars(axes, list(NETWORKS), [[s.numbers[f"{n}: {key}"] for s in seeds] for n in NETWORKS])
        axes.set(xlim=(0, 1.02), title=key)
        axes.title.set_fontsize(10)


CLAIM = Claim(
    words="“neuron”, letter by letter: at the r a static network knows only the r, a delay network "
    "the last letters, a recurrent network all of them.",
    source="Elman 1990 (letters in words); Qiu 2020, section 6.1",
    setting="38 words with an r, 32 units, 250 batches of all words, next letter asked. A letter "
    "is known at r where changing it moves the prediction there; the measure is the total "
    "variation, 0 to 1.",
    parts=(
        Part("static: what u moves at r", "", below=1e-9),
        Part("delay of 1: what u moves at r", "", above=0.05),
        Part("delay of 1: what e moves at r", "", below=1e-9),
        Part("delays to 2: what e moves at r", "", above=0.05),
        Part("delays to 2: what n moves at r", "", below=1e-9),
        *(
            Part(f"{name}: what {letter} moves at r", "", above=0.05)
            for name in ("simple", "LSTM")
            for letter in "neu"
        ),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
