"""How the ledger of claims measures and judges; each script beside this file is one claim.

A script measures its quantities once a seed. The interval of a quantity is the 95 % interval of
Student's t over the seeds (of the logarithm where a quantity spans powers of ten). A part of a
claim holds where the whole interval lies on the claimed side of its bound: the bounds stand in the
script, above the measurement, and the verdict is computed from them and from nothing else. A claim

- holds where all its parts do,
- holds when …, where some parts do: their conditions are named, and those of the others too,
- does not hold where no condition does; parts of one condition hold only together.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; lines differ in style too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 3)))
HOLDS, FAILS = "holds", "does not hold"

# The 97.5 % points of Student's t by degrees of freedom.
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t: tabled up to 10 degrees of freedom, a series beyond.

    Source: the expansion about the normal point, Abramowitz & Stegun 1964, 26.7.5.
    """
    if freedom < 1:
        raise ValueError(f"an interval needs two seeds or more; degrees of freedom {freedom}")
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    terms = (z, first, second, third, fourth)
    return sum(term / freedom**power for power, term in enumerate(terms))


def interval(values: Sequence[float], log: bool = False) -> tuple[float, float, float]:
    """The mean of one value a seed, and its 95 % interval; the geometric mean with `log`."""
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"a measured value is not finite: {list(values)}")
    if log and min(values) <= 0:
        raise ValueError(f"no logarithm of a value ≤ 0: {list(values)}")
    seen = [math.log(v) for v in values] if log else list(values)
    mean = statistics.fmean(seen)
    half = student(len(seen) - 1) * statistics.stdev(seen) / math.sqrt(len(seen))
    low, high = mean - half, mean + half
    return (math.exp(mean), math.exp(low), math.exp(high)) if log else (mean, low, high)


@dataclass(frozen=True)
class Part:
    """One measurable part of a claim: a quantity, and the bound that it must be above or below.

    `when` finishes the sentence "holds when …"; `log` takes the interval on logarithms.
    """

    quantity: str
    when: str
    above: float | None = None
    below: float | None = None
    log: bool = False

    def holds(self, values: Sequence[float]) -> bool:
        """Whether the whole interval is on the claimed side."""
        _, low, high = interval(values, self.log)
        return (self.above is None or low > self.above) and (
            self.below is None or high < self.below
        )

    def bound(self) -> str:
        """The bound in signs."""
        signs = ((">", self.above), ("<", self.below))
        return " and ".join(f"{sign} {b:g}" for sign, b in signs if b is not None)


@dataclass(frozen=True)
class Seen:
    """What one seed gave: numbers by the name of their quantity, and curves for the picture."""

    numbers: dict[str, float]
    curves: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A claim, where it is made, how it is measured, judged and drawn.

    `measure(seed, full)` gives what one seed shows, at full size or at the size of 20 seconds;
    `draw(figure, seeds)` draws what all gave; `setting` says sizes and what was left small.
    """

    words: str
    source: str
    setting: str
    parts: tuple[Part, ...]
    measure: Callable[[int, bool], Seen]
    draw: Callable[[Figure, list[Seen]], None]
    full: bool = False


def verdict(claim: Claim, numbers: dict[str, list[float]]) -> str:
    """What the measured intervals say of a claim. Parts of one condition hold only together."""
    conditions: dict[str, bool] = {}
    for part in claim.parts:
        held = part.holds(numbers[part.quantity])
        conditions[part.when] = conditions.get(part.when, True) and held
    if all(conditions.values()):
        return HOLDS
    if not any(conditions.values()):
        return FAILS
    yes, no = (
        [when for when, held in conditions.items() if held is side] for side in (True, False)
    )
    return f"holds when {', or '.join(yes)}; not shown when {', or '.join(no)}"


def number(value: float) -> str:
    """A number in three digits, as people write it."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits}e{int(power)}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def as_data(claim: Claim, name: str, seen: Sequence[Seen], full: bool) -> dict[str, Any]:
    """All of a measured claim as plain data: each part with its interval, and the verdict."""
    numbers = {key: [each.numbers[key] for each in seen] for key in seen[0].numbers}
    parts = []
    for part in claim.parts:
        mean, low, high = interval(numbers[part.quantity], part.log)
        parts.append(
            {
                "quantity": part.quantity,
                "when": part.when,
                "bound": part.bound(),
                "mean": mean,
                "low": low,
                "high": high,
                "log": part.log,
                "holds": part.holds(numbers[part.quantity]),
            }
        )
    return {
        "name": name,
        "claim": claim.words,
        "source": claim.source,
        "setting": claim.setting,
        "full": full,
        "seeds": len(seen),
        "seconds": round(time.process_time(), 1),
        "parts": parts,
        "values": numbers,
        "verdict": verdict(claim, numbers),
    }


def as_text(data: dict[str, Any]) -> str:
    """The lines that a script prints."""
    rows = [
        f"  {p['quantity']}: {number(p['mean'])} [{number(p['low'])}, {number(p['high'])}],"
        f" asked {p['bound']}: {'yes' if p['holds'] else 'no'}"
        for p in data["parts"]
    ]
    head = [f"Claim: {data['claim']}", f"Source: {data['source']}", f"Setting: {data['setting']}"]
    tail = [f"Verdict: {data['verdict']}  ({data['seeds']} seeds, {data['seconds']} s of CPU)"]
    return "\n".join([*head, *rows, *tail])


def main(claim: Claim) -> None:
    """Measure a claim, print it, and write NAME.png and NAME.json with --out."""
    arguments = argparse.ArgumentParser(description=claim.words)
    arguments.add_argument("--seeds", type=int, default=5, help="how many seeds, at least 2")
    arguments.add_argument("--out", type=Path, help="folder for the picture and the JSON")
    if claim.full:
        arguments.add_argument("--full", action="store_true", help="full size: takes minutes")
    given = arguments.parse_args()
    if given.seeds < 2:
        arguments.error(f"--seeds is {given.seeds}; an interval needs 2 or more")
    full = claim.full and given.full
    torch.set_num_threads(1)
    seen = []
    for seed in range(given.seeds):
        torch.manual_seed(seed)
        seen.append(claim.measure(seed, full))
    name = Path(sys.argv[0]).stem
    data = as_data(claim, name, seen, full)
    print(as_text(data))
    if given.out:
        write(claim, data, seen, given.out)


def write(claim: Claim, data: dict[str, Any], seen: list[Seen], folder: Path) -> None:
    """Write a claim's picture and its numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = data["name"] + (".full" if data["full"] else "")
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    claim.draw(figure, seen)
    figure.savefig(folder / f"{stem}.png", dpi=110, metadata={"Software": ""})
    text = json.dumps(data, indent=1, ensure_ascii=False)
    (folder / f"{stem}.json").write_text(text + "\n", encoding="utf-8")


def curve(
    axes: Axes,
    x: Sequence,
    rows: Sequence[Sequence[float]],
    label: str,
    place: int,
    log: bool = False,
) -> None:
    """Draw the mean over the seeds (rows) with its interval, in the colour and style of a place."""
    points = [interval(column, log) for column in zip(*rows, strict=True)]
    middle, low, high = zip(*points, strict=True)
    colour, style = COLOURS[place % len(COLOURS)], STYLES[place % len(STYLES)]
    axes.plot(x, middle, color=colour, linestyle=style, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    if log:
        axes.set_yscale("log")


def bars(
    axes: Axes, names: Sequence[str], values: Sequence[Sequence[float]], log: bool = False
) -> None:
    """Draw one horizontal bar a name: its mean over the seeds, with the interval."""
    for place, (_, each) in enumerate(zip(names, values, strict=True)):
        mean, low, high = interval(each, log)
        axes.barh(
            place,
            mean,
            xerr=[[max(mean - low, 0.0)], [max(high - mean, 0.0)]],
            color=COLOURS[place % len(COLOURS)],
            error_kw={"elinewidth": 1, "capsize": 2},
            alpha=0.85,
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    if log:
        axes.set_xscale("log")
