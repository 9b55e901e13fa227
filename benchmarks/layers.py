"""elman's drop-ins beside torch.nn's, in one process and in turns; median ratios with their spread.

    python benchmarks/layers.py [--repeats 15] [--json FILE]

Forward and backward, with the gradient of the input, float32. A ratio above 1 says that elman is
faster. Before anything is timed, outputs and gradients of the two are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import elman

SHAPES = [
    (100, 1, 64, 64),
    (100, 8, 64, 64),
    (100, 32, 64, 128),
    (100, 32, 128, 256),
    (200, 128, 32, 64),
]


def forward_backward(layer: nn.Module, x: Tensor, **options) -> float:
    """Seconds of one forward and backward pass."""
    layer.zero_grad(set_to_none=True)
    x.grad = None
    start = time.perf_counter()
    out = layer(x, **options)[0]
    out = out.data if isinstance(out, nn.utils.rnn.PackedSequence) else out
    out.sum().backward()
    return time.perf_counter() - start


def in_turns(one, other, repeats: int) -> dict[str, float]:
    """Time two callables in turns; the ratio is other / one, pair by pair."""
    one(), other()
    pairs = [(one(), other()) for _ in range(repeats)]
    ratios = sorted(b / a for a, b in pairs)
    return {
        "elman_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "torch_ms": 1e3 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "low": ratios[len(ratios) // 10],
        "high": ratios[-1 - len(ratios) // 10],
    }


def compare(kind: str, shape: tuple[int, int, int, int], repeats: int, packed: bool) -> dict:
    """Check, then time, one kind of layer at one shape."""
    steps, batch, inputs, hidden = shape
    torch.manual_seed(0)
    theirs = getattr(nn, kind)(inputs, hidden)
    ours = getattr(elman, kind)(inputs, hidden)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(steps, batch, inputs, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    lengths = torch.randint(1, steps + 1, (batch,)) if packed else None
    options = {"lengths": lengths} if packed else {}

    def run_ours() -> float:
        return forward_backward(ours, x, **options)

    def run_theirs() -> float:
        if not packed:
            return forward_backward(theirs, y)
        start = time.perf_counter()
        seconds = forward_backward(theirs, pack_padded_sequence(y, lengths, enforce_sorted=False))
        return max(seconds, time.perf_counter() - start)

    run_ours(), run_theirs()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    row = in_turns(run_ours, run_theirs, repeats)
    return {"layer": kind, "shape": shape, "packed": packed, **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32")
    print("layer  steps batch input hidden         elman ms  torch ms  torch/elman (10–90 %)")
    rows = []
    for kind in ("LSTM", "GRU", "RNN"):
        for shape in SHAPES:
            for packed in (False, True) if shape[1] > 1 else (False,):
                row = compare(kind, shape, arguments.repeats, packed)
                rows.append(row)
                steps, batch, inputs, hidden = shape
                print(
                    f"{kind:5} {steps:6} {batch:5} {inputs:5} {hidden:6} "
                    f"{'lengths' if packed else '':8}{row['elman_ms']:8.2f} {row['torch_ms']:9.2f}"
                    f"  {row['ratio']:.2f} ({row['low']:.2f}–{row['high']:.2f})",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
