"""GRU beside LSTM: weights, gap between training and test, and spread over learning rates."""

from __future__ import annotations

import math
import statistics

import torch
from ledger import Claim, Part, Seen, curve, main
from torch import Tensor
from training import Network, at_the_end, fit, parameters

from elman.data.synthetic import adding

RATES = (1e-3, 3e-3, 1e-2, 3e-2)
STEPS, ROWS, BATCHES, UNITS = 12, 256, 300, 24
CELLS = {"LSTM": "lstm", "GRU": "gru"}


def run(cell: str, rate: float, data: tuple[Tensor, Tensor], test) -> tuple[float, float, int]:
    """Errors on the training rows and on others after training on the same few rows."""

    def batch() -> tuple[Tensor, Tensor]:
        rows = torch.randint(0, ROWS, (32,))
        return data[0][:, rows], data[1][rows]

    network = Network(cell, 2, UNITS, 1)
    fit(network, batch, at_the_end, BATCHES, rate=rate)
    with torch.no_grad():
        errors = [at_the_end(network(x), y).item() for x, y in (data, test)]
    return errors[0], errors[1], parameters(network.layer)


def measure(seed: int, full: bool) -> Seen:
    data, test = adding(ROWS, STEPS), adding(1000, STEPS)
    numbers, curves = {}, {}
    weights, gaps, spreads, best = {}, {}, {}, {}
    for name, cell in CELLS.items():
        runs = []
        for rate in RATES:
            torch.manual_seed(seed)
            runs.append(run(cell, rate, data, test))
        curves[name] = [t for _, t, _ in runs]
        train, unseen, weights[name] = min(runs, key=lambda r: r[1])
        gaps[name], best[name] = unseen - train, unseen
        spreads[name] = statistics.stdev(math.log10(t) for _, t, _ in runs)
        numbers[f"{name}: test error at its best rate"] = unseen
    numbers["weights, GRU over LSTM"] = weights["GRU"] / weights["LSTM"]
    numbers["gap of test and training error, GRU minus LSTM"] = gaps["GRU"] - gaps["LSTM"]
    numbers["spread over rates (deviation of log₁₀ error), GRU minus LSTM"] = (
        spreads["GRU"] - spreads["LSTM"]
    )
    numbers["best test error, GRU over LSTM"] = best["GRU"] / best["LSTM"]
    logs = [math.log(one / other) for one, other in zip(curves["GRU"], curves["LSTM"], strict=True)]
    numbers["mean test error over the rates, GRU over LSTM"] = math.exp(statistics.fmean(logs))
    return Seen(numbers, curves)


def draw(figure, seeds: list[Seen]) -> None:
    axes = figure.subplots()
    for place, name in enumerate(CELLS):
        curve(axes, RATES, [s.curves[name] for s in seeds], name, place, log=True)
    axes.axhline(1 / 6, color="grey", linewidth=0.8, label="always 1")
    axes.set(xscale="log", xlabel="learning rate", ylabel="test error")
    axes.legend(fontsize=8)


CLAIM = Claim(
    words="GRU is simpler than LSTM: fewer weights, less overfitting, easier to tune, as good.",
    source="Cho et al. 2014; Chung et al. 2014; Jozefowicz et al. 2015 (who compare them)",
    setting="24 units each, adding over 12 steps, 300 batches drawn from 256 rows, four learning "
    "rates from 0.001 to 0.03; the gap at the best rate of each.",
    parts=(
        Part("weights, GRU over LSTM", "weights are counted", below=0.8),
        Part("gap of test and training error, GRU minus LSTM", "overfitting is meant", below=0.0),
        Part(
            "spread over rates (deviation of log₁₀ error), GRU minus LSTM",
            "the spread over learning rates is meant (it also grows where the best gets better)",
            below=0.0,
        ),
        Part(
            "mean test error over the rates, GRU over LSTM",
            "the error over all these rates is meant",
            below=1.0,
            log=True,
        ),
        Part("best test error, GRU over LSTM", "the best error is meant", below=1.1, log=True),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
