"""Run every claim beside this file, and write the ledger: docs/claims.md and docs/claims/."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ledger import number

HERE = Path(__file__).parent
# In the order of the page; what is not a claim of its own is imported by these.
CLAIMS = (
    "credit_through_time",
    "weight_gradient_sum",
    "to_be_or_not_to_be",
    "open_forget_gate",
    "residual_recurrences",
    "memory_saturates",
    "activations",
    "clipping",
    "weight_decay",
    "cells_compared",
    "gru_simpler",
    "depth",
    "delay_networks",
    "neuron",
    "one_hot_and_learned",
    "machines",
    "chaotic_system",
    "carried_copy",
)
FULL = ("cells_compared", "depth", "carried_copy")

HEAD = """\
# The ledger of claims

What the textbooks say of recurrent networks, measured. Each row is a script in `examples/`, which
runs in about 20 seconds on one core; `make claims` runs them all and writes this page anew.
{table}

## How it is judged

Each quantity is measured once a seed, over at least five seeds. Its interval is the 95 % interval
of Student's t over the seeds, on the logarithm where a quantity spans powers of ten. An interval of
no width means that all seeds gave the same. A part of a claim holds where the whole interval lies
on the claimed side of the bound, which stands in the script. The claim *holds* where all its parts
do, it *holds when …* where those of some condition do, and it *does not hold* where those of none
do: that says "not shown at these sizes", and the sizes stand beside it. The numbers of every seed
are in `docs/claims/*.json`.
"""


def run(name: str, folder: Path, seeds: int, full: bool) -> None:
    """Run one script; what it prints is shown."""
    command = [
        sys.executable,
        str(HERE / f"{name}.py"),
        "--seeds",
        str(seeds),
        "--out",
        str(folder),
    ]
    subprocess.run([*command, "--full"] if full else command, check=True)


def results(folder: Path) -> list[dict[str, Any]]:
    """The results that are there, in the page's order, each small one before its full one."""
    files = (folder / f"{name}{end}.json" for name in CLAIMS for end in ("", ".full"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def stem(data: dict[str, Any]) -> str:
    return data["name"] + (".full" if data["full"] else "")


def table(all_data: list[dict[str, Any]]) -> str:
    """The table of verdicts."""
    rows = [
        "",
        "| claim | source | measured (95 % interval) | verdict | picture |",
        "|---" * 5 + "|",
    ]
    for data in all_data:
        size = " *At full size.*" if data["full"] else ""
        shown = f"[picture](claims/{stem(data)}.png)"
        told = re.sub("^(holds|does not hold)", r"**\1**", data["verdict"])
        cells = (data["claim"] + size, data["source"], _measured(data, 3), told, shown)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _measured(data: dict[str, Any], most: int) -> str:
    """The parts in one cell: where they are many, those that decide first."""
    parts = sorted(data["parts"], key=lambda part: part["holds"])
    told = [f"{p['quantity']}: {_value(p)}" for p in parts[:most]]
    rest = len(parts) - most
    return "; ".join(told) + (f"; {rest} more below" if rest > 0 else "")


def _value(part: dict[str, Any]) -> str:
    return f"{number(part['mean'])} [{number(part['low'])}, {number(part['high'])}]"


def section(data: dict[str, Any]) -> str:
    """One claim with its picture and all its parts."""
    size = " (full size)" if data["full"] else ""
    flag = " --full" if data["full"] else ""
    lines = [
        f"## {data['name'].replace('_', ' ').capitalize()}{size}",
        "",
        f"{data['claim']} *{data['source']}.*",
        "",
        f"**Verdict: {data['verdict']}.** {data['setting']}",
        "",
        f"![{data['claim']}](claims/{stem(data)}.png)",
        "",
        f"`python examples/{data['name']}.py{flag}`: {data['seeds']} seeds, "
        f"{data['seconds']:.0f} s of one core.",
        "",
        "| measured | mean | 95 % interval | asked | |",
        "|---|---|---|---|---|",
    ]
    for part in data["parts"]:
        quantity = part["quantity"].replace("|", "\\|")
        measured = f"{number(part['mean'])} | {number(part['low'])} … {number(part['high'])}"
        held = "yes" if part["holds"] else "no"
        lines += [f"| {quantity} | {measured} | {part['bound']} | {held} |"]
    return "\n".join(lines)


def page(all_data: list[dict[str, Any]]) -> str:
    """The whole page."""
    return HEAD.format(table=table(all_data)) + "\n" + "\n\n".join(map(section, all_data)) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", help="claims to run; all where none is named")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    arguments.add_argument("--full", action="store_true", help="those with a full size, at it")
    arguments.add_argument("--page", action="store_true", help="write the page, run nothing")
    given = arguments.parse_args()
    unknown = set(given.names) - set(CLAIMS)
    if unknown:
        arguments.error(f"no claim {', '.join(sorted(unknown))}; there are {', '.join(CLAIMS)}")
    folder = given.docs / "claims"
    if not given.page:
        for name in given.names or (FULL if given.full else CLAIMS):
            run(name, folder, given.seeds, given.full)
    text = page(results(folder))
    (given.docs / "claims.md").write_text(text, encoding="utf-8")
    print(f"Written: {given.docs / 'claims.md'}")


if __name__ == "__main__":
    main()
