"""`elman benchmark`: how fast a cell runs here, beside everybody else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from elman.cli.terminal import Json, note, print_json

if TYPE_CHECKING:
    from elman.benchmark import Case, Found
    from elman.benchmark.case import Shape
    from elman.equation import Cell

# What a cell is measured against if nothing is said: those that are there and have the cell.
_AGAINST = ("torch", "torchrecurrent", "jax", "products")


def command(
    cell: Annotated[
        list[str] | None,
        Option(
            "--cell",
            help="A cell's name (see elman cells), or FILE.py:NAME for one of yours; repeat for "
            "several. lstm if not given.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    hyper: Annotated[
        list[str] | None,
        Option("--hyper", help="A hyper-parameter, NAME=VALUE; repeat.", metavar="NAME=VALUE"),
    ] = None,
    shape: Annotated[
        list[str] | None,
        Option(
            "--shape",
            help="Steps,batch,input,hidden; repeat. Seven from small to large if not given.",
            metavar="T,B,I,H",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        Option(
            "--against",
            help="Some of torch,packed,torchrecurrent,jax,products,reference. If not given, all "
            "but the last that have the cell; packed with --lengths.",
            metavar="NAMES",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        str, Option("--backend", help="What our layer runs on.", metavar="auto|cpu|torch|reference")
    ] = "auto",
    dtype: Annotated[
        str, Option("--dtype", help="The number type.", metavar="float32|float64")
    ] = "float32",
    threads: Annotated[
        int | None,
        Option("--threads", help="Threads of everybody; all cores if not given.", min=1),
    ] = None,
    lengths: Annotated[
        bool, Option("--lengths", help="Rows of different lengths, drawn evenly from 1 to T.")
    ] = False,
    forward_only: Annotated[
        bool, Option("--forward-only", help="Leave out the pass with gradients.")
    ] = False,
    stream: Annotated[
        bool, Option("--stream", help="Time one step at a time instead, with stepper().")
    ] = False,
    compile_time: Annotated[
        bool,
        Option("--compile", help="Time the first call instead, new and from the disk cache."),
    ] = False,
    rounds: Annotated[
        int | None,
        Option("--rounds", help="Rounds of each shape and pass, instead of --seconds.", min=1),
    ] = None,
    seconds: Annotated[
        float, Option("--seconds", help="Time for the rounds of each shape and pass.", min=0.0)
    ] = 3.0,
    seed: Annotated[int, Option("--seed", help="Of weights, data and order.", min=0)] = 0,
    out: Annotated[
        Path | None,
        Option(
            "--out",
            help="Folder for benchmark.json and benchmark.png; runs/benchmark-NAME-001 or so if "
            "not given.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress, only the result.")] = False,
    as_json: Json = False,
) -> None:
    """Time a cell beside torch.nn, torchrecurrent, JAX and the bare matrix products.

    All run in one process and in turns, each at its fastest setting, with the gradient of the
    input. Where the kernel does not agree with the reference nothing is reported, and the exit
    code is 1.

    [bold]Examples[/bold]

      elman benchmark

      elman benchmark --cell gru --shape 100,32,64,128 --against torch,jax

      elman benchmark --cell mine.py:my_cell --against products,reference

      elman benchmark --lengths --against torch,packed

      elman benchmark --stream      one step at a time; --compile for the first call
    """
    import torch

    from elman.cli.find_cell import find_cell, read_settings
    from elman.errors import InputError

    _check(dtype, rounds, stream, compile_time, lengths, seconds)
    shapes = _shapes(shape)
    peers = _peers(against, lengths)
    settings = read_settings(hyper or [])
    cells = [find_cell(name).with_hyper(**settings) for name in cell or ["lstm"]]
    if len({one.name for one in cells}) < len(cells):
        raise InputError("benchmark: --cell names the same cell twice; each has one row a shape.")
    options = {
        "backend": backend,
        "dtype": dtype,
        "seed": seed,
        "rounds": rounds,
        "seconds": None if rounds else seconds,
        "lengths": lengths,
        "forward_only": forward_only,
        "against": list(peers),
    }
    was = torch.get_num_threads()
    torch.set_num_threads(threads or was)
    try:
        say = _silent if quiet else note
        if stream:
            _stream(cells, shapes, options, as_json)
        elif compile_time:
            _first_calls(cells, options, as_json)
        else:
            _side_by_side(cells, shapes, options, out, say, as_json, explicit=against is not None)
    finally:
        torch.set_num_threads(was)


def _check(
    dtype: str,
    rounds: int | None,
    stream: bool,
    compile_time: bool,
    lengths: bool,
    seconds: float,
) -> None:
    from elman.benchmark.case import DTYPES
    from elman.errors import InputError, nearest

    if dtype not in DTYPES:
        raise InputError(
            f"benchmark: --dtype is {dtype!r}; expected {' or '.join(DTYPES)}."
            f"{nearest(dtype, DTYPES)}"
        )
    if stream and compile_time:
        raise InputError("benchmark: --stream and --compile time different things; give one.")
    if lengths and (stream or compile_time):
        raise InputError("benchmark: --lengths goes with whole sequences; leave it out here.")
    if rounds is None and not seconds < float("inf"):
        raise InputError(f"benchmark: --seconds is {seconds}; expected a number of seconds.")


def _silent(line: str) -> None:
    """Say nothing."""


def _shapes(given: Sequence[str] | None) -> list[Shape] | None:
    from elman.benchmark.case import Shape

    return [Shape.read(text) for text in dict.fromkeys(given)] if given else None


def _peers(against: str | None, lengths: bool) -> tuple[str, ...]:
    from elman.benchmark.peers import PEERS
    from elman.errors import InputError, nearest

    if against is None:
        return (*_AGAINST[:1], "packed", *_AGAINST[3:]) if lengths else _AGAINST
    names = tuple(dict.fromkeys(name.strip() for name in against.split(",") if name.strip()))
    for name in names:
        if name not in PEERS:
            raise InputError(
                f"benchmark: --against {name}: there is no such peer.{nearest(name, PEERS)} "
                f"There are: {', '.join(PEERS)}."
            )
    if not names:
        raise InputError(f"benchmark: --against is empty; name some of {', '.join(PEERS)}.")
    return names


# -- whole sequences -----------------------------------------------------------------------------


def _side_by_side(
    cells: Sequence[Cell],
    shapes: Sequence[Shape] | None,
    options: dict[str, Any],
    out: Path | None,
    say: Any,
    as_json: bool,
    *,
    explicit: bool,
) -> None:
    from elman.benchmark import SHAPES, Plan, machine, measure, report

    facts = machine.facts()
    if not as_json:
        print(machine.words(facts), flush=True)
    cases = [_case(cell, shape, options) for cell in cells for shape in shapes or SHAPES]
    if not explicit:
        options["against"] = [name for name in options["against"] if name != "reference"]
        if all(case.kernel is None for case in cases):
            # Nobody else has the cell: our own reference tells what the kernel is worth.
            options["against"].append("reference")
    plan = Plan(
        tuple(options["against"]),
        forward_only=options["forward_only"],
        rounds=options["rounds"],
        seconds=options["seconds"] or 0.0,
        seed=options["seed"],
    )
    found = measure(cases, plan, say)
    data = report.as_data(found, facts, {**options, "threads": facts["threads"]})
    folder = _folder(out, cells)
    _write(folder, found, data)
    if as_json:
        print_json({**data, "folder": str(folder)})
        return
    _print(found, folder)


def _case(cell: Cell, shape: Shape, options: dict[str, Any]) -> Case:
    from elman.benchmark.case import DTYPES, Case

    return Case(
        cell,
        shape,
        DTYPES[options["dtype"]],
        options["backend"],
        options["lengths"],
        options["seed"],
    )


def _folder(out: Path | None, cells: Sequence[Cell]) -> Path:
    from elman.errors import FileError

    if out is None:
        from elman.training.folder import next_name

        return next_name("benchmark", "-".join(cell.name for cell in cells))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise FileError(f"--out {out}: the folder cannot be made: {why}.") from None
    return out


def _write(folder: Path, found: Found, data: dict[str, Any]) -> None:
    from elman.benchmark import picture

    text = json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (folder / "benchmark.json").write_text(text, encoding="utf-8")
    facts = data["machine"]
    title = f"{facts['cpu']}, {facts['threads']} threads, {data['settings']['dtype']}"
    picture.draw(found, folder / "benchmark.png", title=title)


def _print(found: Found, folder: Path) -> None:
    from rich.console import Console

    from elman.benchmark import report

    # As wide as the tables are: a table that wraps, in a pipe say, cannot be read.
    console = Console(width=400, highlight=False)
    for table in report.tables(found):
        console.print(table)
    print("A ratio stands with the quartiles of its rounds.")
    for line in [*report.settings_words(found), *found.notes]:
        print(line)
    explained = dict.fromkeys(
        f"{row.case.cell.name}: {row.explained.partition(chr(10))[0]}" for row in found.rows
    )
    print(*explained, sep="\n")
    worst = max(row.difference for row in found.rows)
    print(f"Agrees with the reference to {worst:.1e} of the largest entry, values and gradients.")
    if words := report.warning(found):
        print(words)
    print(f"written: {folder / 'benchmark.json'}, {folder / 'benchmark.png'}")


# -- single steps, and the first call --------------------------------------------------------------


def _stream(
    cells: Sequence[Cell], shapes: Sequence[Shape] | None, options: dict[str, Any], as_json: bool
) -> None:
    from elman.benchmark import machine, stream

    found = [
        stream.measure(
            _case(cell, shape, options),
            rounds=options["rounds"],
            seconds=options["seconds"] or 0.0,
            seed=options["seed"],
        )
        for cell in cells
        for shape in shapes or [stream.SHAPE]
    ]
    facts = machine.facts()
    if as_json:
        print_json({"machine": facts, "streams": [stream.as_data(one) for one in found]})
        return
    print(machine.words(facts), *map(stream.words, found), sep="\n")


def _first_calls(cells: Sequence[Cell], options: dict[str, Any], as_json: bool) -> None:
    from elman.benchmark import first_call, machine

    facts = machine.facts()
    found = [
        first_call.measure(
            [cell],
            backend=options["backend"],
            dtype=options["dtype"],
            threads=facts["threads"],
            repeats=options["rounds"] or 3,
        )[0]
        for cell in cells
    ]
    if as_json:
        print_json({"machine": facts, "first_calls": [vars(one) for one in found]})
        return
    print(machine.words(facts), *map(first_call.words, found), sep="\n")
