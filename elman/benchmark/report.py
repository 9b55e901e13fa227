"""What was measured, as tables to read and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from elman.benchmark.measure import OURS, PASSES, Found, Row, summary
from elman.benchmark.peers import TITLES
from elman.benchmark.quiet import QUIET
from elman.benchmark.turns import Spread

# Measured as parts of our own time, not as peers that take so many times as long.
BOUNDS = ("products", "onednn", "whole")
SCHEMA = 1


def as_data(found: Found, machine: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything as JSON can hold it. A ratio is always a peer's time over ours.

    Args:
        found: of `measure`.
        machine: of `elman.benchmark.machine.facts`.
        settings: the options that it was measured with.
    """
    return {
        "schema": SCHEMA,
        "machine": machine,
        "settings": settings,
        "rows": [_row_data(row) for row in found.rows],
        "summary": [
            {
                "cell": cell,
                "pass": PASSES[backward],
                "peer": peer,
                "geometric_mean": mean,
                "least": least,
            }
            for cell, backward, rows in found.groups()
            for peer, (mean, least) in summary(rows).items()
        ],
        "notes": list(found.notes),
    }


def _row_data(row: Row) -> dict[str, Any]:
    case = row.case
    full = case.shape.steps * case.shape.batch
    return {
        "cell": case.cell.name,
        "shape": case.shape._asdict(),
        "dtype": str(case.dtype).removeprefix("torch."),
        "lengths": case.ragged,
        "share_of_real_steps": case.real_steps / full,
        "pass": PASSES[row.backward],
        "backend": row.backend,
        "explained": row.explained,
        "difference_from_reference": row.difference,
        "cores_of_others": row.others,
        "times_ms": {
            name: {**_spread(time.ms), "rounds": time.rounds, "setting": time.setting}
            for name, time in row.times.items()
        },
        "ratios": {name: _spread(ratio) for name, ratio in row.ratios.items()},
    }


def _spread(spread: Spread) -> dict[str, float]:
    return {"low": spread.low, "median": spread.median, "high": spread.high}


def tables(found: Found) -> list[tuple[str, Table]]:
    """For each cell and pass a title and a table, at its foot the mean and worst of the ratios.

    The mean is the geometric one.
    """
    return [(_title(name, backward, rows), _table(rows)) for name, backward, rows in found.groups()]


def _title(cell: str, backward: bool, rows: Sequence[Row]) -> str:
    words = ", rows with lengths" if rows[0].case.ragged else ""
    backends = " and ".join(dict.fromkeys(row.backend for row in rows))
    return f"{cell}, {PASSES[backward]}{words}, on backend {backends}"


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("steps, batch,\ninput, hidden", "mean, worst", no_wrap=True)
    table.add_column("elman\nms", justify="right", no_wrap=True)
    found = summary(rows)
    for name, (mean, least) in found.items():
        table.add_column(f"{TITLES.get(name, name)}\nms", justify="right", no_wrap=True)
        if name in BOUNDS:
            mean, least = 1 / mean, 1 / least
        head = "\nelman ÷ it" if name in BOUNDS else "\nit ÷ elman"
        table.add_column(head, f"{mean:.2f}, {least:.2f}", justify="right", no_wrap=True)
    for row in rows:
        cells = [str(row.case.shape), f"{row.times[OURS].ms.median:.3g}"]
        for name in found:
            if name not in row.ratios:
                cells += ["—", "—"]
                continue
            ratio = row.ratios[name].inverse() if name in BOUNDS else row.ratios[name]
            cells += [f"{row.times[name].ms.median:.3g}", ratio_words(ratio)]
        table.add_row(*cells)
    return table


def ratio_words(ratio: Spread) -> str:
    """A ratio between its quartiles.

    Example:
        >>> ratio_words(Spread(1.5, 1.62, 1.75))
        '1.62 (1.50–1.75)'
    """
    return f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"


def settings_words(found: Found) -> list[str]:
    """Which settings of the peers were their fastest, a line each."""
    counts: dict[str, dict[str, int]] = {}
    for row in found.rows:
        for name, time in row.times.items():
            if time.setting:
                own = counts.setdefault(name, {})
                own[time.setting] = own.get(time.setting, 0) + 1
    return [
        f"{TITLES.get(name, name)} at its fastest: "
        + "; ".join(f"{setting} ({times} of {sum(own.values())})" for setting, times in own.items())
        for name, own in counts.items()
    ]


def warning(found: Found) -> str | None:
    """That others were at work while some rows were timed, so that these say little."""
    busy = [row for row in found.rows if (row.others or 0.0) > QUIET]
    if not busy:
        return None
    most = max(row.others or 0.0 for row in busy)
    return (
        f"Other processes kept up to {most:.1f} cores busy during {len(busy)} of {len(found.rows)} "
        "rows; these times say little. Measure again on a quiet machine."
    )
