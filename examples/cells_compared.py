"""Gated and simple networks on adding, copying, and agreement in number across a clause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from ledger import COLOURS, Claim, Part, Seen, interval, main
from torch import Tensor
from training import Batch, Network, at_every_step, at_the_end, fit, one_hot, right

from elman.data.synthetic import adding, copying

CELLS = {
    "simple": "simple",
    "LSTM": "lstm",
    "GRU": "gru",
    "LSTM, peepholes": "peephole_lstm",
    "LSTM, coupled gates": "coupled_lstm",
    "LSTM of 1997": "lstm_1997",
}
QUICK = ("simple", "LSTM", "GRU")
NOUNS = ["cat", "dog", "bird", "child"]
PLURALS = ["cats", "dogs", "birds", "children"]
CLAUSE = ["already", "saw", "near", "the", "old", "and", "happily", "ate"]
WORDS = ["The", ",", "which", *NOUNS, *PLURALS, *CLAUSE]
ADDING, COPYING, AGREEMENT = "adding", "copying", "agreement"


def agreement(batch: int, shortest: int, longest: int) -> Batch:
    """“The cats , which … ,” with a clause of 1/4 nouns of either number: was or were?"""
    length = int(torch.randint(shortest, longest + 1, ()))
    plural = torch.randint(0, 2, (batch,))
    subject = 3 + plural * len(NOUNS) + torch.randint(0, len(NOUNS), (batch,))
    others = torch.randint(3, 3 + 2 * len(NOUNS), (length, batch))
    plain = torch.randint(3 + 2 * len(NOUNS), len(WORDS), (length, batch))
    clause = torch.where(torch.rand(length, batch) < 0.25, others, plain)
    fixed = [torch.full((batch,), WORDS.index(w)) for w in ("The", ",", "which")]
    tokens = torch.stack((fixed[0], subject, fixed[1], fixed[2], *clause, fixed[1]))
    asked = torch.full(tokens.shape, -100)
    asked[-1] = plural
    return one_hot(tokens, len(WORDS)), asked


@dataclass(frozen=True)
class Task:
    """One task: its sizes, how batches are drawn, how a network is scored (1 is best, 0 chance)."""

    inputs: int
    outputs: int
    batches: int
    draw: Callable[[], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Network], float]


def tasks(full: bool) -> dict[str, Task]:
    """The three tasks, at full size or at that of 20 seconds."""
    steps, delay, clause = (50, 30, 20) if full else (12, 10, 6)
    length, symbols = (3, 8) if full else (1, 4)

    def copies(batch: int = 32) -> Batch:
        tokens, asked = copying(batch, symbols, length, delay)
        return one_hot(tokens, symbols + 2), asked

    def added(network: Network) -> float:
        x, y = adding(1000, steps)
        return 1.0 - 6.0 * at_the_end(network(x), y).item()  # 1/6 is the error of always 1

    def copied(network: Network) -> float:
        x, asked = copies(500)
        return (right(network(x), asked) * symbols - 1) / (symbols - 1)

    def agreed(network: Network) -> float:
        # Clauses up to twice as long as any in training.
        longer = [agreement(200, n, n) for n in (clause + 1, 3 * clause // 2, 2 * clause)]
        shares = [right(network(x), y) for x, y in longer]
        return 2.0 * sum(shares) / len(shares) - 1.0

    return {
        ADDING: Task(2, 1, 2000 if full else 350, lambda: adding(32, steps), at_the_end, added),
        COPYING: Task(symbols + 2, symbols, 2000 if full else 250, copies, at_every_step, copied),
        AGREEMENT: Task(
            len(WORDS),
            2,
            1200 if full else 150,
            lambda: agreement(32, 1, clause),
            at_every_step,
            agreed,
        ),
    }


def measure(seed: int, full: bool) -> Seen:
    numbers: dict[str, float] = {}
    for name, task in tasks(full).items():
        for cell in CELLS if full else QUICK:
            torch.manual_seed(seed)
            units = 64 if full else 24
            network = Network(CELLS[cell], task.inputs, units, task.outputs)
            fit(network, task.draw, task.loss, task.batches, rate=5e-3 if full else 1e-2)
            with torch.no_grad():
                numbers[f"{name}: {cell}"] = task.score(network)
        for cell in ("LSTM", "GRU"):
            gain = numbers[f"{name}: {cell}"] - numbers[f"{name}: simple"]
            numbers[f"{name}: {cell} over simple"] = gain
    return Seen(numbers)


def draw(figure, seeds: list[Seen]) -> None:
    names = (ADDING, COPYING, AGREEMENT)
    cells = [c for c in CELLS if f"{ADDING}: {c}" in seeds[0].numbers]
    for place, (axes, name) in enumerate(
        zip(figure.subplots(1, 3, sharey=True), names, strict=True)
    ):
        for row, cell in enumerate(cells):
            mean, low, high = interval([s.numbers[f"{name}: {cell}"] for s in seeds])
            axes.plot([low, high], [row, row], color=COLOURS[row], linewidth=2)
            axes.plot(mean, row, "o", color=COLOURS[row])
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.axvline(1, color="grey", linewidth=0.8)
        axes.set(xlim=(-0.25, 1.1), title=name, xlabel="0 chance, 1 solved")
        if place == 0:
            axes.set_yticks(range(len(cells)), cells)
            axes.invert_yaxis()


CLAIM = Claim(
    words="LSTM and GRU bridge long lags where a simple network does not.",
    source="Hochreiter & Schmidhuber 1997; Cho et al. 2014; Greff et al. 2015 (the variants); "
    "“The cats, which …, were full” of the lecturers",
    setting="One readout, Adam, norm clipped to 1. In 20 seconds: 24 units, adding over 12 steps "
    "(350 batches), 1 of 4 symbols after 10 (250), agreement across 1 to 6 words, asked across 7 "
    "to 12 (150). Full: 64 units, adding over 50 (2,000), 3 of 8 symbols after 30 (2,000), "
    "agreement across 1 to 20, asked across 21 to 40 (1,200). Scores: 0 is chance (adding: always "
    "1), 1 is solved.",
    parts=tuple(
        Part(f"{task}: {cell}{over}", f"the task is {task}", above=bound)
        for task in (ADDING, COPYING, AGREEMENT)
        for cell in ("LSTM", "GRU")
        for over, bound in (("", 0.9), (" over simple", 0.1))
    ),
    measure=measure,
    draw=draw,
    full=True,
)

if __name__ == "__main__":
    main(CLAIM)
