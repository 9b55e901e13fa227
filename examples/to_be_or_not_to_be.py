"""How much of the gradient reaches "To" from "question", by cell, before any training."""

from __future__ import annotations

import torch
from ledger import COLOURS, STYLES, Claim, Part, Seen, interval, main

import elman

WORDS = ["To", "be", "or", "not", "to", "be", ",", "that", "'s", "the", "question"]
CELLS = {
    "simple, logistic": ("simple", {"f": "sigmoid"}),
    "simple, tanh": ("simple", {"f": "tanh"}),
    "IRNN": ("irnn", {}),
    "h + g(x)": ("residual_input", {}),
    "GRU": ("gru", {}),
    "LSTM of 1997": ("lstm_1997", {}),
    "LSTM, forget bias 0": ("lstm", {}),
    "LSTM, forget bias 1": ("lstm", {}),
}


def reach(cell: str, hyper: dict, name: str, words: list[str], units: int = 64) -> list[float]:
    """‖∂L/∂x_k‖ for each word k over that of the last; L is the last output's squared error."""
    layer = elman.Recurrent(cell, 16, units, hyper=hyper)
    if name.endswith("bias 0"):
        with torch.no_grad():
            layer.b_f_l0.zero_()
    vocabulary = sorted(set(words))
    table = torch.randn(len(vocabulary), 16)
    x = table[[vocabulary.index(w) for w in words]].unsqueeze(1).requires_grad_()
    out, _ = layer(x)
    loss = (out[-1] - torch.randn(units)).square().sum()
    (gradient,) = torch.autograd.grad(loss, x)
    norms = gradient.norm(dim=-1)[:, 0]
    return (norms / norms[-1]).tolist()


def measure(seed: int, full: bool) -> Seen:
    numbers, curves = {}, {}
    for name, (cell, hyper) in CELLS.items():
        by_word = [reach(cell, hyper, name, WORDS) for _ in range(10)]
        mean = torch.tensor(by_word).log().mean(0).exp().tolist()
        letters = " ".join(WORDS)
        by_letter = [reach(cell, hyper, name, list(letters)) for _ in range(3)]
        numbers[f"{name}: share that reaches the first of 11 words"] = mean[0]
        far = torch.tensor(by_letter).log().mean(0).exp().tolist()
        numbers[f"{name}: share that reaches the first of 41 letters"] = max(far[0], 1e-30)
        curves[name] = mean
        curves[f"{name}, letters"] = far
    for name in ("GRU", "LSTM of 1997", "LSTM, forget bias 0", "LSTM, forget bias 1"):
        share = "share that reaches the first of 11 words"
        ratio = numbers[f"{name}: {share}"] / numbers[f"simple, tanh: {share}"]
        numbers[f"{name}: times the share of the tanh network"] = ratio
    return Seen(numbers, curves)


def draw(figure, seeds: list[Seen]) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    for place, name in enumerate(CELLS):
        for axes, key in ((left, name), (right, f"{name}, letters")):
            rows = [s.curves[key] for s in seeds]
            mean = [interval(c, log=True)[0] for c in zip(*rows, strict=True) if min(c) > 0]
            steps = range(len(rows[0]) - len(mean), len(rows[0]))
            axes.plot(steps, mean, color=COLOURS[place], linestyle=STYLES[place], label=name)
    left.set_xticks(range(len(WORDS)), WORDS, rotation=60, fontsize=8)
    left.set(yscale="log", ylabel="gradient, share of the last", title="by words")
    right.set(yscale="log", xlabel="letter", title="by letters", ylim=(1e-16, 30))
    left.legend(fontsize=7)


FIRST = "share that reaches the first of 11 words"
LETTER = "share that reaches the first of 41 letters"
CLAIM = Claim(
    words="From “question” next to nothing of the gradient reaches “To” in a simple network; "
    "gates let it through.",
    source="Hochreiter 1991; Bengio, Simard & Frasconi 1994; Hochreiter & Schmidhuber 1997",
    setting="64 units, inputs of 16 features, weights as the cells start (torch.nn's bounds), "
    "squared error at the last step; geometric mean of 10 draws a seed. The share is ‖∂L/∂x‖ at "
    "the first word over that at the last.",
    parts=(
        Part(f"simple, logistic: {FIRST}", "a simple network is meant", below=1e-2, log=True),
        Part(f"simple, tanh: {FIRST}", "a simple network is meant", below=1e-2, log=True),
        Part(f"simple, tanh: {LETTER}", "a simple network is meant", below=1e-2, log=True),
        Part(
            "LSTM, forget bias 1: times the share of the tanh network",
            "the gate starts open (forget bias 1) or there is none (LSTM of 1997)",
            above=10,
            log=True,
        ),
        Part(
            "LSTM of 1997: times the share of the tanh network",
            "the gate starts open (forget bias 1) or there is none (LSTM of 1997)",
            above=10,
            log=True,
        ),
        Part(
            "LSTM, forget bias 0: times the share of the tanh network",
            "an LSTM starts with forget bias 0",
            above=10,
            log=True,
        ),
        Part(
            "GRU: times the share of the tanh network", "the gates are a GRU's", above=10, log=True
        ),
        Part(
            f"LSTM, forget bias 1: {LETTER}",
            "the sentence is read by letters",
            above=1e-2,
            log=True,
        ),
    ),
    measure=measure,
    draw=draw,
)

if __name__ == "__main__":
    main(CLAIM)
