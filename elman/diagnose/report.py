"""A report of a check, as text to read and as data."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from torch import Tensor

from elman.diagnose.check import READ, Report, Verdict
from elman.diagnose.gain import Gain, Start
from elman.diagnose.trial import Trial
from elman.equation.write import equation

MARKS = {True: "✓", False: "✗", None: "–"}

# A broken case of up to this many numbers is written out in full.
MOST_NUMBERS = 24


def as_text(report: Report, width: int = 100) -> list[str]:
    """The lines of a report: the equation, a line for each law, what is broken, the figures.

    Args:
        report: of `elman.diagnose.check`.
        width: the number of columns to which sentences are folded.
    """
    cell = report.cell
    lines = [f"{cell.name}: {cell.title}" if cell.title else cell.name, ""]
    lines += [f"    {line}" for line in equation(cell.graph)]
    lines += ["", *_table(report), ""]
    told: list[str] = []
    for verdict in report.broken:
        case = _case(verdict)
        lines += [
            *_broken(
                verdict, ["  the same case as above"] if case and case == told else case, width
            ),
            "",
        ]
        told = case
    lines += [*_figures(report, width), ""]
    tried = sum(v.holds is not None for v in report.verdicts)
    end = f"{report.seconds:.1f} s, seed {report.seed}"
    if report.holds:
        return [*lines, f"All {tried} laws hold ({end})."]
    names = ", ".join(v.law.name for v in report.broken)
    return [*lines, f"{len(report.broken)} of {tried} laws broken: {names} ({end})."]


def _table(report: Report) -> list[str]:
    width = max(len(v.law.name) for v in report.verdicts)
    skipped = "not tried: the cell came from a file, without its Python"
    if report.cell.body is not None:
        skipped = "not tried, before all that is read is used"
    lines = [f"  {'law':{width}}  {'apart':>8}  {'at most':>8}"]
    for v in report.verdicts:
        figure = "" if v.holds is None else _figure(v.figure)
        bound = "" if v.holds is None else _figure(v.tolerance)
        says = v.law.says if v.holds is not None else skipped
        lines.append(f"{MARKS[v.holds]} {v.law.name:{width}}  {figure:>8}  {bound:>8}  {says}")
    return lines


def _figure(value: float) -> str:
    """A relative difference; 0 is the same bits."""
    if not math.isfinite(value):
        return "∞"
    return "0" if value == 0 else f"{value:.0e}" if value < 0.1 else f"{value:.2g}"


def _broken(verdict: Verdict, case: list[str], width: int) -> list[str]:
    """What broke, the smallest case, the two numbers, and what is usually wrong."""
    lines = [f"{verdict.law.name} is broken."]
    for sentence in verdict.said:
        lines += _folded("  ", sentence, width)
    lines += case
    if verdict.difference is not None and not verdict.said:
        d = verdict.difference
        place = f", entry {list(d.place)}" if d.place else ""
        one, other = verdict.sides
        numbers = f"{d.found:.8g} by {one}, {d.expected:.8g} by {other}"
        lines += _folded("  ", f"{d.what}{place}: {numbers}", width)
    if verdict.hint:
        lines += _folded("  ", verdict.hint, width)
    return lines + _folded("  usually: ", verdict.law.remedy, width)


def _case(verdict: Verdict) -> list[str]:
    """The smallest case that is broken, and where it is small enough all that it reads."""
    case = verdict.case
    if case is None or verdict.law is READ:
        return []
    sizes = ", ".join(f"{name} {size}" for name, size in case.sizes.items())
    count = f"{_count(case.time, 'step')}, {_count(case.batch, 'row')}"
    numbers = [f"    {name} = {value}" for name, value in _numbers(case).items()]
    return [f"  smallest case: {sizes}, {count}", *numbers]


def _folded(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(head + text, max(width, 40), subsequent_indent=" " * len(head))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number > 1 else ''}"


def _numbers(case: Trial) -> dict[str, Any]:
    """All that the case reads, by name, where that is little."""
    lines = [f"delay line of {line.name}" for line in case.graph.lines]
    read: dict[str, Tensor] = {f"p.{name}": value for name, value in case.parameters.items()}
    read |= case.inputs
    read |= dict(zip([*case.cell.states, *lines], case.carried, strict=True))
    if sum(value.numel() for value in read.values()) > MOST_NUMBERS:
        return {}
    return {name: _rounded(value.tolist()) for name, value in read.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value] if len(value) != 1 else _rounded(value[0])
    return float(f"{value:.5g}")


def _figures(report: Report, width: int) -> list[str]:
    start, cost = report.start, report.cost
    if start is None or cost is None:
        return ["The figures of its start are left out: the equation cannot be run."]
    sizes = ", ".join(f"{name} {size}" for name, size in report.sizes.items())
    lines = [f"At the start ({sizes}; white noise as input):"]
    lines += _folded("  state      ", _gain(start.state, "at step 1"), width)
    lines += _folded("  gradient   ", _gain(start.gradient, "one step back"), width)
    if start.silent:
        names = ", ".join(f"p.{name}" for name in start.silent)
        lines += _folded("  no effect  ", f"{names}: the gradient is zero at all steps", width)
    words = (
        f"{cost.parameters:,} parameters; a step and row: {cost.operations:,} operations, "
        f"{cost.carried:,} bytes carried on, {cost.kept:,} kept for the backward"
    )
    return lines + _folded("  cost       ", words, width)


def _gain(gain: Gain, where: str) -> str:
    if gain.word == "none":
        return f"{'none':12}nothing is carried from step to step"
    if gain.word == "overflowing":
        return f"{gain.word:12}no number is left after {_count(gain.steps, 'step')}"
    if gain.last == 0:
        return f"{gain.word:12}{gain.first:.2g} {where}, nothing after {gain.steps} more"
    return (
        f"{gain.word:12}{gain.first:.2g} {where}, {gain.last:.2g} after {gain.steps} more "
        f"(× {gain.rate:.3f} a step)"
    )


def as_data(report: Report) -> dict[str, Any]:
    """The report as plain data, for JSON: what is not finite is None."""
    return {
        "cell": report.cell.name,
        "holds": report.holds,
        "broken": [v.law.name for v in report.broken],
        "seed": report.seed,
        "laws": [_verdict_as_data(v) for v in report.verdicts],
        "sizes": dict(report.sizes),
        "start": _start_as_data(report.start),
        "cost": None if report.cost is None else report.cost._asdict(),
        "seconds": round(report.seconds, 3),
    }


def _verdict_as_data(verdict: Verdict) -> dict[str, Any]:
    data: dict[str, Any] = {
        "law": verdict.law.name,
        "says": verdict.law.says,
        "holds": verdict.holds,
        "apart": _finite(verdict.figure),
        "at_most": verdict.tolerance,
    }
    if verdict.case is None:
        return data
    case, d = verdict.case, verdict.difference
    data["case"] = {
        "sizes": dict(case.sizes),
        "steps": case.time,
        "rows": case.batch,
        "seed": case.seed,
        "numbers": _numbers(case),
    }
    if d is not None and not verdict.said:
        data["difference"] = {
            "what": d.what,
            "entry": list(d.place),
            verdict.sides[0]: _finite(d.found),
            verdict.sides[1]: _finite(d.expected),
        }
    return data | {"said": list(verdict.said), "hint": verdict.hint}


def _start_as_data(start: Start | None) -> dict[str, Any] | None:
    if start is None:
        return None
    return {
        "state": _gain_as_data(start.state),
        "gradient": _gain_as_data(start.gradient),
        "no_effect": list(start.silent),
    }


def _gain_as_data(gain: Gain) -> dict[str, Any]:
    numbers = {key: _finite(getattr(gain, key)) for key in ("first", "last", "rate")}
    return {"word": gain.word, **numbers, "steps": gain.steps}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
