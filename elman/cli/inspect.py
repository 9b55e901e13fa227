"""`elman inspect`: what goes on inside a trained model while it reads a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from elman.cli.generate import UNKNOWN_HELP
from elman.cli.terminal import Json, Run, note, note_unseen, print_json

if TYPE_CHECKING:
    from elman.cli.inspect_text import Reading

KINDS = ("gradients", "states", "gates", "spectrum")


def command(
    run: Run,
    what: Annotated[
        str, Argument(help="gradients, states, gates or spectrum.", show_default=False)
    ],
    text: Annotated[
        str | None, Option("--text", "-t", help="Text to read; - is standard input.")
    ] = None,
    file: Annotated[
        str | None,
        Option("--file", "-f", help="File to read the beginning of; - is standard input."),
    ] = None,
    steps: Annotated[
        int | None,
        Option("--steps", help="Tokens to read at most.", show_default="200; 100 for pictures"),
    ] = None,
    unit: Annotated[
        int | None,
        Option("--unit", help="Unit to colour the text by; the liveliest if not given."),
    ] = None,
    state: Annotated[
        str | None, Option("--state", help="State of that unit; the cell's first if not given.")
    ] = None,
    layer: Annotated[
        int | None, Option("--layer", help="Layer of that unit, from 1; the top if not given.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        Option("--beside", help="Another run to draw the gradients of beside; repeat."),
    ] = None,
    out: Annotated[
        str | None, Option("--out", help="Folder to write to; RUN/inspect if not given.")
    ] = None,
    unknown: Annotated[str, Option("--unknown", help=UNKNOWN_HELP)] = "auto",
    as_json: Json = False,
) -> None:
    """Look into a trained model while it reads a text: PNGs, and a JSON with the figures.

    [bold]gradients[/bold]: how much of each error reaches back to each step, and what to try.

    [bold]states[/bold]: every unit over the tokens, and the text coloured by one of them.

    [bold]gates[/bold]: every gate over the tokens, and how much of it is near its bounds.

    [bold]spectrum[/bold]: what a step does to small changes; singular values, Lyapunov exponents.

    Without a text the beginning of the run's validation part is read.

    [bold]Examples[/bold]

      elman inspect runs/novel gradients --beside runs/novel-simple

      elman inspect runs/novel states --text "The cats, which ate, were full" --unit 12
    """
    from elman.cli import inspect_text

    unit_options = {"--unit": unit, "--state": state, "--layer": layer}
    _check(what, steps, beside, unit_options, text is not None and file is not None)
    most = steps or (100 if what in ("states", "gates") else 200)
    place = _place(run, out)
    reading = inspect_text.read(run, text, file, most, unknown)
    _tell(reading)
    data, lines = _look(reading, what, place, unknown, beside or [], unit, state, layer)
    written = inspect_text.write(place / f"{what}.json", data)
    if as_json:
        print_json(data)
        return
    print(*lines, sep="\n")
    print(f"pictures: {', '.join(data['pictures'])}; figures: {written}")


def _check(
    what: str, steps: int | None, beside: Any, unit_options: Mapping[str, Any], both: bool
) -> None:
    """See that the options go together."""
    from elman.errors import InputError, nearest

    if what not in KINDS:
        known = ", ".join(KINDS)
        raise InputError(f"inspect: there is no {what!r}; there are {known}.{nearest(what, KINDS)}")
    if steps is not None and steps < 2:
        raise InputError(f"inspect: --steps is {steps}; expected a whole number >= 2.")
    if beside and what != "gradients":
        raise InputError(f"inspect: --beside goes with gradients, not with {what}.")
    if what != "states":
        for flag, value in unit_options.items():
            if value is not None:
                raise InputError(f"inspect: {flag} goes with states, not with {what}.")
    if both:
        raise InputError("inspect: give --text or --file, not both.")


def _look(
    reading: Reading, what: str, place: Path, unknown: str, others: list[str],
    unit: int | None, state: str | None, layer: int | None,
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """Measure and draw; the figures as data, and as lines to read."""
    from elman.cli import inspect_look

    place.mkdir(parents=True, exist_ok=True)
    if what == "gradients":
        return inspect_look.gradients(reading, place, others, unknown)
    if what == "states":
        return inspect_look.states(reading, place, unit, state, layer)
    if what == "gates":
        return inspect_look.gates(reading, place)
    return inspect_look.spectrum(reading, place)


def _place(run: str, out: str | None) -> Path:
    """The folder to write to, seen to be one before anything is computed."""
    from elman.errors import InputError

    if out is None and Path(run).is_file():
        raise InputError(
            f"inspect: {run} is a model file, not a run folder; name a folder (--out)."
        )
    place = Path(run) / "inspect" if out is None else Path(out)
    if place.exists() and not place.is_dir():
        raise InputError(f"inspect: {place} is a file; name a folder (--out).")
    return place


def _tell(reading: Reading) -> None:
    """Say beside the result what was read and what cannot be drawn."""
    from elman.plots.style import lacking

    for line in reading.notes:
        note(f"note: {line}")
    note_unseen("the text", reading.unseen, reading.used)
    missing = lacking("".join(reading.tokens))
    if missing:
        shown = missing[:10] + ("…" if len(missing) > 10 else "")
        note(
            f"note: no font of this machine has {shown}; the pictures show code points (install a "
            "font such as Noto Sans CJK)."
        )
