"""`elman check`: every law of a cell, tried on one of yours."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from elman.cli.terminal import Json, print_json, width


def command(
    name: Annotated[
        str, Argument(help="FILE.py:NAME for a cell of yours, or the name of one of ours.")
    ],
    input_size: Annotated[int, Option("--input", help="Input size for the figures.")] = 64,
    hidden_size: Annotated[int, Option("--hidden", help="Hidden size for the figures.")] = 128,
    seed: Annotated[int, Option("--seed", help="Seed of all random values.")] = 0,
    hyper: Annotated[
        list[str] | None,
        Option("--hyper", help="A hyper-parameter, NAME=VALUE; repeat.", metavar="NAME=VALUE"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Try every law on a cell: that its equation is its body, its gradients are right, rows and
    times do not mix, its file is the cell. Exit code 1 where a law is broken, with the smallest
    case in which it is.

    [bold]Examples[/bold]

      elman check mine.py:my_cell

      elman check gru --hidden 256 --json
    """
    from elman.cli.find_cell import find_cell, read_settings
    from elman.diagnose import as_data, as_text, check
    from elman.errors import InputError

    for flag, size in (("--input", input_size), ("--hidden", hidden_size)):
        if size < 1:
            raise InputError(f"check: {flag} is {size}; expected a whole number >= 1.")
    if not 0 <= seed < 2**32:
        raise InputError(f"check: --seed is {seed}; expected a whole number from 0 to 2^32.")
    cell = find_cell(name).with_hyper(**read_settings(hyper or []))
    report = check(cell, input_size=input_size, hidden_size=hidden_size, seed=seed)
    if as_json:
        print_json(as_data(report))
    else:
        print(*as_text(report, min(width(), 100)), sep="\n")
    if not report.holds:
        raise typer.Exit(1)
