"""The laws of rows, of time and of the file. Each is a function of a trial."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from torch import Tensor

from elman.backends.reference import Step
from elman.diagnose.body import ROUNDING, graphs_differ
from elman.diagnose.compare import TOLERANCES, Comparison
from elman.diagnose.trial import Carried, Trial
from elman.equation import Cell

# --- rows ---


def row_is_alone(trial: Trial) -> Comparison:
    """A row of a batch gives what it gives alone."""
    result = Comparison("in the batch", "alone", ROUNDING)
    out, last, _ = trial.whole
    for row in range(trial.batch):
        rows = slice(row, row + 1)
        alone, alone_last, _ = trial.run(trial.piece(rows), _rows(trial.carried, rows))
        result.add(f"the output of row {row}", out[:, rows], alone)
        result.add_all(_kept(trial, f" of row {row}"), _rows(last, rows), alone_last)
    return result


def padded_is_alone(trial: Trial) -> Comparison:
    """Rows of several lengths, NaN in the padding: outputs, states, gradients as if alone."""
    result = Comparison("padded", "alone", ROUNDING)
    lengths = [1 + (2 * row + 1) % trial.time for row in range(trial.batch)]
    ends = torch.tensor(lengths)
    past = torch.arange(trial.time).unsqueeze(1) >= ends
    x, extras = trial.piece(slice(None))
    steps = [i.name for i in trial.graph.inputs[1:] if i.varies == "step"]
    extras = {k: _spoiled(v, past) if k in steps else v for k, v in extras.items()}
    weights = _asked(trial)
    out, last, _ = trial.run((_spoiled(x, past), extras), trial.carried, weights, lengths=ends)
    total = _sum_of_squares(out, last)
    result.add("outputs past the end", out[past], torch.zeros_like(out[past]))
    own, alone_total = _asked(trial), torch.zeros((), dtype=out.dtype)
    for row, length in enumerate(lengths):
        rows = slice(row, row + 1)
        alone, alone_last, _ = trial.run(
            trial.piece(rows, 0, length), _rows(trial.carried, rows), own
        )
        result.add(f"the output of row {row}", out[:length, rows], alone)
        result.add_all(_kept(trial, f" of row {row}"), _rows(last, rows), alone_last)
        alone_total = alone_total + _sum_of_squares(alone, alone_last)
    for name, one, other in zip(
        weights, _gradient(total, weights), _gradient(alone_total, own), strict=True
    ):
        result.add(f"the gradient of p.{name}", one, other)
    return result


def _spoiled(value: Tensor, past: Tensor) -> Tensor:
    return value.masked_fill(past.reshape(*past.shape, *(1,) * (value.dim() - 2)), float("nan"))


def _asked(trial: Trial) -> dict[str, Tensor]:
    return {name: value.clone().requires_grad_() for name, value in trial.parameters.items()}


def _sum_of_squares(out: Tensor, last: Carried) -> Tensor:
    total = torch.zeros((), dtype=out.dtype)
    for value in (out, *last):
        total = total + (value**2).sum()
    return total


def _gradient(total: Tensor, weights: dict[str, Tensor]) -> tuple[Tensor, ...]:
    if not total.requires_grad:
        return tuple(torch.zeros_like(w) for w in weights.values())
    return torch.autograd.grad(total, list(weights.values()), materialize_grads=True)


# --- time ---


def split_is_whole(trial: Trial) -> Comparison:
    """A sequence run in two parts, and step by step, gives what it gives as a whole."""
    result = Comparison("in parts", "as a whole", ROUNDING)
    out, last, states = trial.whole
    rows = slice(None)
    for cut in sorted({1, trial.time // 2, trial.time - 1} - {0, trial.time}):
        one, between, first = trial.run(trial.piece(rows, 0, cut), trial.carried)
        two, end, second = trial.run(trial.piece(rows, cut), between)
        result.add(f"outputs, cut at {cut}", torch.cat([one, two]), out)
        result.add_all(_kept(trial, f", cut at {cut}"), end, last)
        for name, a, b, all_steps in zip(
            trial.cell.states, first or (), second or (), states, strict=True
        ):
            result.add(f"every {name}, cut at {cut}", torch.cat([a, b]), all_steps)
    step, carried = Step(trial.graph, trial.parameters), trial.carried
    for time in range(trial.time):
        x, extras = trial.piece(rows, time, time + 1)
        by_step = {i.name: i.varies == "step" for i in trial.graph.inputs}
        now = {name: v[0] if by_step[name] else v for name, v in extras.items()}
        one, carried = step(x[0], carried, now)
        result.add(f"the output of step {time} alone", one, out[time])
    result.add_all(_kept(trial, ", step by step"), carried, last)
    return result


def reset_is_separate(trial: Trial) -> Comparison:
    """After a reset a row gives what a sequence of its own gives from the initial state."""
    result = Comparison("after a reset", "on its own", ROUNDING)
    resets = torch.zeros(trial.time, trial.batch, dtype=torch.bool)
    for row in range(trial.batch):
        resets[(row + 1) % trial.time :: max(trial.time - 2, 1), row] = True
    out, last, _ = trial.run(trial.piece(slice(None)), trial.carried, resets=resets)
    fresh = trial.fresh()
    for row in range(trial.batch):
        rows = slice(row, row + 1)
        begins = sorted({0, *resets[:, row].nonzero().flatten().tolist()})
        end_states: Carried = ()
        for begin, end in zip(begins, [*begins[1:], trial.time], strict=True):
            start = fresh if resets[begin, row] else trial.carried
            alone, end_states, _ = trial.run(trial.piece(rows, begin, end), _rows(start, rows))
            what = f"the output of row {row}, steps {begin} to {end - 1}"
            result.add(what, out[begin:end, rows], alone)
        result.add_all(_kept(trial, f" of row {row}"), _rows(last, rows), end_states)
    return result


def _rows(carried: Carried, rows: slice) -> Carried:
    return tuple(c[rows] for c in carried)


def _kept(trial: Trial, where: str) -> list[str]:
    names = [f"the last {name}" for name in trial.cell.states]
    return [f"{n}{where}" for n in (*names, *(f"line of {k.name}" for k in trial.graph.lines))]


# --- the file ---


def file_and_back(trial: Trial) -> Comparison:
    """Written as JSON and read again, the cell is the same and gives the same bits."""
    result = Comparison("read back", "before", TOLERANCES["bits"][torch.float64])
    cell = trial.cell
    back = Cell.from_json(json.loads(json.dumps(cell.to_json(), allow_nan=False)))
    difference = graphs_differ(cell.graph, back.graph)
    if difference:
        result.fail(f"the file holds another equation: {difference}")
        return result
    for name in ("doc", "family", "source"):
        if getattr(cell, name) != getattr(back, name):
            result.fail(f"the file holds another {name}: {getattr(back, name)!r}")
    other = replace(trial, cell=back)
    start = other.run(other.piece(slice(None)), other.fresh(), trial.parameters)
    expected = trial.run(trial.piece(slice(None)), trial.fresh())
    result.add("outputs", start[0], expected[0])
    result.add_all(_kept(trial, ""), start[1], expected[1])
    return result
