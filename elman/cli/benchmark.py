"""`elman benchmark`: how fast a cell runs here, beside everybody else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Option

from elman.cli.terminal import Json, note, print_json

if TYPE_CHECKING:
    from elman.benchmark import Case, Found
    from elman.benchmark.case import Shape
    from elman.equation import Cell

Cells = Annotated[
    list[str] | None,
    Option(
        "--cell",
        help="A cell's name (see elman cells), or FILE.py:NAME for one of yours; repeat for "
        "several. lstm if not given.",
        metavar="NAME",
        show_default=False,
    ),
]
Hyper = Annotated[
    list[str] | None,
    Option("--hyper", help="A hyper-parameter, NAME=VALUE; repeat.", metavar="NAME=VALUE"),
]
Shapes = Annotated[
    list[str] | None,
    Option(
        "--shape",
        help="Steps,batch,input,hidden; repeat. Seven from small to large if not given.",
        metavar="T,B,I,H",
        show_default=False,
    ),
]
Against = Annotated[
    str | None,
    Option(
        "--against",
        help="Some of torch,packed,torchrecurrent,jax,products,onednn,reference. If not given, "
        "those that have the cell.",
        metavar="NAMES",
        show_default=False,
    ),
]
Backend = Annotated[
    str, Option("--backend", help="What our layer runs on.", metavar="auto|cpu|torch|reference")
]
NumberType = Annotated[str, Option("--dtype", help="The number type.", metavar="float32|float64")]
Threads = Annotated[
    int | None, Option("--threads", help="Threads of everybody; torch's if not given.", min=1)
]
Lengths = Annotated[
    bool, Option("--lengths", help="Rows of different lengths, drawn evenly from 1 to T.")
]
ForwardOnly = Annotated[bool, Option("--forward-only", help="Leave out the pass with gradients.")]
Streaming = Annotated[
    bool, Option("--stream", help="Time one step at a time instead, with stepper().")
]
Compiling = Annotated[
    bool, Option("--compile", help="Time the first call instead, new and from the disk cache.")
]
RoundsOption = Annotated[
    int | None,
    Option("--rounds", help="Rounds of each shape and pass, instead of --seconds.", min=1),
]
Seconds = Annotated[
    float, Option("--seconds", help="Time for the rounds of each shape and pass.", min=0.0)
]
Seed = Annotated[int, Option("--seed", help="Of weights, data and order.", min=0)]
Out = Annotated[
    Path | None,
    Option(
        "--out",
        help="Folder for benchmark.json and benchmark.png; runs/benchmark-NAME-001 or so if not "
        "given.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress, only the result.")]


def command(
    cell: Cells = None,
    hyper: Hyper = None,
    shape: Shapes = None,
    against: Against = None,
    backend: Backend = "auto",
    dtype: NumberType = "float32",
    threads: Threads = None,
    lengths: Lengths = False,
    forward_only: ForwardOnly = False,
    stream: Streaming = False,
    compile_time: Compiling = False,
    rounds: RoundsOption = None,
    seconds: Seconds = 3.0,
    seed: Seed = 0,
    out: Out = None,
    quiet: Quiet = False,
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
    _check(dtype, stream, compile_time, lengths, seconds)
    options = {
        "against": _peers(against), "backend": backend, "dtype": dtype, "lengths": lengths,
        "forward_only": forward_only, "rounds": rounds, "seconds": seconds, "seed": seed,
    }  # fmt: skip
    wanted = Wanted(_cells(cell, hyper), _shapes(shape), options, _silent if quiet else note)
    with _threads(threads):
        if stream:
            _stream(wanted, as_json)
        elif compile_time:
            _first_calls(wanted, as_json)
        else:
            _side_by_side(wanted, out, as_json)


class Wanted(NamedTuple):
    """What is to be measured, and how."""

    cells: list[Cell]
    shapes: list[Shape] | None
    options: dict[str, Any]
    say: Callable[[str], None]

    def case(self, cell: Cell, shape: Shape) -> Case:
        from elman.benchmark.case import DTYPES, Case

        own = self.options
        dtype = DTYPES[own["dtype"]]
        return Case(cell, shape, dtype, own["backend"], own["lengths"], own["seed"])

    def timing(self) -> dict[str, Any]:
        return {name: self.options[name] for name in ("rounds", "seconds", "seed")}


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    was = torch.get_num_threads()
    torch.set_num_threads(count or was)
    try:
        yield
    finally:
        torch.set_num_threads(was)


def _check(dtype: str, stream: bool, compile_time: bool, lengths: bool, seconds: float) -> None:
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
    if not seconds < float("inf"):
        raise InputError(f"benchmark: --seconds is {seconds}; expected a number of seconds.")


def _silent(line: str) -> None:
    """Say nothing."""


def _cells(names: Sequence[str] | None, hyper: Sequence[str] | None) -> list[Cell]:
    from elman.cli.find_cell import find_cell, read_settings
    from elman.errors import InputError

    settings = read_settings(list(hyper or []))
    cells = [find_cell(name).with_hyper(**settings) for name in names or ["lstm"]]
    if len({one.name for one in cells}) < len(cells):
        raise InputError("benchmark: two of --cell have one name; their rows could not be told.")
    return cells


def _shapes(given: Sequence[str] | None) -> list[Shape] | None:
    from elman.benchmark.case import Shape

    return [Shape.read(text) for text in dict.fromkeys(given)] if given else None


def _peers(against: str | None) -> tuple[str, ...] | None:
    from elman.benchmark.peers import PEERS
    from elman.errors import InputError, nearest

    if against is None:
        return None
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


def _side_by_side(wanted: Wanted, out: Path | None, as_json: bool) -> None:
    from elman.benchmark import SHAPES, Plan, machine, measure, report
    from elman.training.folder import next_name

    facts, options = machine.facts(), wanted.options
    if not as_json:
        print(machine.words(facts), flush=True)
    cases = [wanted.case(cell, shape) for cell in wanted.cells for shape in wanted.shapes or SHAPES]
    options["against"] = options["against"] or _fitting(cases, options["lengths"])
    passes = (False,) if options["forward_only"] else (False, True)
    if out is not None:
        _make(out)
    found = measure(cases, Plan(options["against"], passes, **wanted.timing()), wanted.say)
    data = report.as_data(found, facts, {**options, "threads": facts["threads"]})
    folder = out or next_name("benchmark", "-".join(cell.name for cell in wanted.cells))
    _write(folder, found, data)
    if as_json:
        print_json({**data, "folder": str(folder)})
    else:
        _print(found, folder)


def _fitting(cases: Sequence[Case], lengths: bool) -> tuple[str, ...]:
    """What the cells are measured against if nothing is said: whoever has one of them."""
    if all(case.kernel is None for case in cases):
        # Our own reference tells what the kernel is worth, where hardly anybody has the cell.
        return ("torchrecurrent", "products", "reference")
    if lengths:
        return ("torch", "packed", "products")
    own = all(case.kernel is not None for case in cases)
    return ("torch", "jax", "products") if own else ("torch", "torchrecurrent", "jax", "products")


def _make(folder: Path) -> None:
    """Make the folder before anything is measured, or say why it cannot be."""
    from elman.errors import FileError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise FileError(f"--out {folder}: the folder cannot be made: {why}.") from None


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
    for title, table in report.tables(found):
        console.print(title, table, sep="\n", markup=False)
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


def _stream(wanted: Wanted, as_json: bool) -> None:
    from elman.benchmark import machine, stream

    facts = machine.facts()
    found = [
        stream.measure(wanted.case(cell, shape), **wanted.timing())
        for cell in wanted.cells
        for shape in wanted.shapes or [stream.SHAPE]
    ]
    if as_json:
        print_json({"machine": facts, "streams": [stream.as_data(one) for one in found]})
    else:
        print(machine.words(facts), *map(stream.words, found), sep="\n")


def _first_calls(wanted: Wanted, as_json: bool) -> None:
    from elman.benchmark import first_call, machine

    facts, options = machine.facts(), wanted.options
    found = [
        first_call.measure(
            [cell],
            backend=options["backend"],
            dtype=options["dtype"],
            threads=facts["threads"],
            repeats=options["rounds"] or 3,
        )[0]
        for cell in wanted.cells
    ]
    if as_json:
        print_json({"machine": facts, "first_calls": [vars(one) for one in found]})
    else:
        print(machine.words(facts), *map(first_call.words, found), sep="\n")
