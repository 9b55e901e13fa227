"""Every figure that the kernels are to reach, the asked one beside the one seen here.

    python benchmarks/figures.py [--only lstm gru …] [--seconds 2] [--out benchmarks/results]

`make bench` runs the lot in under ten minutes. Beside the table it writes figures.json and, for
each measurement, its rows as JSON and a picture. Ratios are of one process and in turns, medians of
rounds, as `elman benchmark` has them; float32 and all threads of torch. A kernel that does not
agree with the reference has no figure, and the exit code is 1; one that is not reached is no error.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import figures_catalogue as catalogue
from rich import box
from rich.console import Console
from rich.table import Table

import elman
from elman.benchmark import (
    SHAPES,
    Case,
    Found,
    Plan,
    Shape,
    machine,
    measure,
    picture,
    report,
    stream,
)
from elman.benchmark.measure import summary
from elman.benchmark.quiet import QUIET
from elman.benchmark.turns import geometric_mean

BOTH, FORWARD = True, False
MIDDLE = Shape(100, 32, 64, 128)
LARGE = (256, 512)
MARK = " (others at work)"


class Figure(NamedTuple):
    """A line of the table: what, asked, seen, and whether the one reaches the other."""

    what: str
    asked: str
    seen: str
    reached: bool


class Run(NamedTuple):
    """How to measure, and where the rows go."""

    seconds: float
    backend: str
    out: Path
    shapes: Sequence[Shape]

    def measure(self, name: str, cases: Sequence[Case], plan: Plan) -> Found:
        """Measure, and write rows and picture under a name."""
        found = measure(cases, plan, lambda line: print(line, file=sys.stderr, flush=True))
        data = report.as_data(found, machine.facts(), {"seconds": self.seconds})
        write(self.out / f"{name}.json", data)
        picture.draw(found, self.out / f"{name}.png")
        return found

    def cases(self, cell: str) -> list[Case]:
        """A cell at all shapes."""
        return [Case(elman.cells.get(cell), shape, backend=self.backend) for shape in self.shapes]


def write(path: Path, data: object) -> None:
    """Write data as JSON."""
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def at_least(what: str, peer: str, rows: list, mean: float, worst: float | None = None) -> Figure:
    """The figure of a peer's time over ours: its geometric mean, and on the worst shape."""
    seen_mean, seen_worst = summary(rows)[peer]
    asked = f">= {mean:g}" + ("" if worst is None else f", worst {worst:g}")
    seen = f"{seen_mean:.2f}, worst {seen_worst:.2f}" + busy(rows)
    return Figure(what, asked, seen, seen_mean >= mean and seen_worst >= (worst or 0.0))


def busy(rows: list) -> str:
    """A mark where others were at work while the rows were timed."""
    return MARK if report.warning(Found(tuple(rows), ())) else ""


def of(found: Found, backward: bool) -> list:
    """The rows of one pass."""
    return [row for row in found.rows if row.backward == backward]


def lstm(run: Run) -> list[Figure]:
    """The LSTM beside torch.nn's, JAX's and the bare products."""
    plan = Plan(("torch", "jax", "products", "onednn"), seconds=run.seconds)
    found = run.measure("lstm", run.cases("lstm"), plan)
    both = of(found, BOTH)
    figures = [
        at_least("LSTM forward + backward, torch.nn ÷ ours", "torch", both, 1.6, 1.15),
        at_least("LSTM forward, torch.nn ÷ ours", "torch", of(found, FORWARD), 1.15, 0.95),
        at_least("LSTM forward + backward, JAX scan ÷ ours", "jax", both, 3.0),
    ]
    large = [row for row in both if row.case.shape.hidden in LARGE]
    return figures[:2] + (of_products(large) if large else []) + figures[2:]


def of_products(large: list) -> list[Figure]:
    """Our time over the bare products', and for information over those of oneDNN."""
    what = "LSTM forward + backward, ours ÷ bare products, hidden 256 and 512"
    found = []
    for peer, words in (("products", "(torch.mm)"), ("onednn", "(oneDNN; not asked)")):
        ratios = [1 / row.ratios[peer].median for row in large if peer in row.ratios]
        if ratios:
            mean = geometric_mean(ratios)
            line = Figure(f"{what} {words}", "<= 1.30", f"{mean:.2f}{busy(large)}", mean <= 1.30)
            found.append(line)
    return found


def gru(run: Run) -> list[Figure]:
    """The GRU beside torch.nn's."""
    plan = Plan(("torch",), (BOTH,), seconds=run.seconds)
    rows = of(run.measure("gru", run.cases("gru"), plan), BOTH)
    return [at_least("GRU forward + backward, torch.nn ÷ ours", "torch", rows, 3.5, 1.4)]


def simple(run: Run) -> list[Figure]:
    """The simple network beside torch.nn.RNN."""
    plan = Plan(("torch",), (BOTH,), seconds=run.seconds)
    rows = of(run.measure("simple", run.cases("simple"), plan), BOTH)
    return [at_least("simple network, torch.nn.RNN ÷ ours", "torch", rows, 3.0, 1.2)]


def torchrecurrent(run: Run) -> list[Figure]:
    """Every cell of torchrecurrent, at one row and at the middle shape."""
    figures = []
    for shape, asked in ((Shape(100, 1, 64, 64), 30.0), (MIDDLE, 8.0)):
        if shape not in run.shapes:
            continue
        cases = catalogue.shared_cases(shape, run.backend)
        plan = Plan(
            ("torchrecurrent",),
            (BOTH,),
            rounds=5 if shape.batch == 1 else 3,
            peers={"torchrecurrent": catalogue.theirs},
        )
        found = run.measure(f"torchrecurrent_batch_{shape.batch}", cases, plan)
        ratios = sorted(row.ratios["torchrecurrent"].median for row in found.rows)
        median = ratios[len(ratios) // 2]
        seen = f"{median:.1f} (least {ratios[0]:.1f}, {len(ratios)} cells){busy(list(found.rows))}"
        what = f"torchrecurrent ÷ ours at ({shape}), median"
        figures.append(Figure(what, f">= {asked:g}", seen, median >= asked))
    return figures


def lengths(run: Run) -> list[Figure]:
    """Rows of different lengths beside all our own steps and torch.nn's packed sequences."""
    shape = MIDDLE if MIDDLE in run.shapes else run.shapes[0]
    figures = []
    for name in ("lstm", "gru"):
        case = Case(elman.cells.get(name), shape, backend=run.backend, ragged=True)
        plan = Plan(("packed",), (BOTH,), seconds=2 * run.seconds)
        rows = list(run.measure(f"lengths_{name}", [case], plan).rows)
        share = case.real_steps / (shape.steps * shape.batch)
        part = 1 / rows[0].ratios["whole"].median
        what = f"{name.upper()} with lengths ({share:.0%} of the steps), ours ÷ ours in full"
        figures.append(Figure(what, "<= 0.65", f"{part:.2f}{busy(rows)}", part <= 0.65))
        what = f"{name.upper()} with lengths, torch.nn packed ÷ ours"
        figures.append(at_least(what, "packed", rows, 6.0))
    return figures


def streams(run: Run) -> list[Figure]:
    """One step of a stream, beside torch.nn.LSTM called a step at a time."""
    case = Case(elman.cells.get("lstm"), stream.SHAPE, backend=run.backend)
    found = stream.measure(case, seconds=run.seconds)
    write(run.out / "stream.json", stream.as_data(found))
    ratio = found.ratio.median if found.ratio else 0.0
    micro, mark = found.ours.median, MARK * ((found.others or 0.0) > QUIET)
    what = "one step of a stream, LSTM 64 to 128"
    return [
        Figure(what, "<= 15 µs", f"{micro:.1f} µs{mark}", micro <= 15),
        Figure("the same, torch.nn.LSTM ÷ ours", ">= 4", f"{ratio:.2f}", ratio >= 4),
    ]


def first_call(run: Run) -> list[Figure]:
    """The first call of the slowest cells of the catalogue."""
    found = catalogue.slowest_first_calls(run.backend)
    write(run.out / "first_call.json", [vars(one) for one in found])
    slow, read = max(found, key=lambda one: one.fresh), max(found, key=lambda one: one.cached)
    what = "first call of the slowest cell"
    return [
        Figure(f"{what}, new", "<= 1 s", f"{slow.fresh:.2f} s ({slow.cell})", slow.fresh <= 1.0),
        Figure(
            f"{what}, from the disk cache",
            "<= 0.1 s",
            f"{read.cached:.3f} s ({read.cell})",
            read.cached <= 0.1,
        ),
    ]


def backends(run: Run) -> list[Figure]:
    """Which backend serves each cell of the catalogue."""
    found = catalogue.backends(run.backend)
    write(run.out / "backends.json", found)
    others = [name for name, backend in found.items() if backend != "cpu"]
    seen = f"{len(found) - len(others)} of {len(found)}" + (f"; not {short(others)}" * bool(others))
    return [Figure("cells that run on backend 'cpu' (explain)", "all", seen, not others)]


def rows(run: Run) -> list[Figure]:
    """Whether a row's result is the same bits however it is run."""
    found = catalogue.changed_bits(run.backend)
    write(run.out / "rows.json", found)
    changed = [name for name, ways in found.items() if ways]
    seen = f"{len(found) - len(changed)} of {len(found)}"
    seen += f"; not {short(changed)}" * bool(changed)
    what = "cells whose rows are bit-equal alone, in batches, threads, pieces, stepper()"
    return [Figure(what, "all", seen, not changed)]


def short(names: list[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


FIGURES: dict[str, Callable[[Run], list[Figure]]] = {
    "lstm": lstm,
    "gru": gru,
    "simple": simple,
    "torchrecurrent": torchrecurrent,
    "lengths": lengths,
    "stream": streams,
    "first_call": first_call,
    "backends": backends,
    "rows": rows,
}


def table(figures: list[Figure]) -> Table:
    """What was asked beside what was seen."""
    lines = Table("figure", "asked", "seen", "", box=box.SIMPLE_HEAD, pad_edge=False)
    for figure in figures:
        lines.add_row(*figure[:3], "reached" if figure.reached else "not yet")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--seconds", type=float, default=2.0, help="of each shape and pass")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--shape", nargs="+", type=Shape.read, default=list(SHAPES))
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / ".gitignore").write_text("*\n", encoding="utf-8")
    run = Run(given.seconds, given.backend, given.out, given.shape)
    facts, began, found, refused = machine.facts(), time.monotonic(), [], False
    print(machine.words(facts), flush=True)
    for name in given.only:
        try:
            found += FIGURES[name](run)
        except Exception as error:  # one figure that cannot be had does not hide the others
            refused = True
            traceback.print_exc()
            found.append(Figure(name, "", f"{type(error).__name__}: {error}", False))
    Console(width=200, highlight=False).print(table(found))
    print(f"{time.monotonic() - began:.0f} s; rows and pictures in {given.out}")
    write(given.out / "figures.json", {"machine": facts, "figures": [f._asdict() for f in found]})
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
