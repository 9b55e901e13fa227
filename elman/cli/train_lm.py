"""`elman train lm`: its options are those of LMOptions and TrainingOptions, read from there."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import typer
from pydantic.fields import FieldInfo

from elman.cli.find_cell import find_cell, read_settings
from elman.cli.terminal import Json, note, piped, print_json
from elman.errors import InputError
from elman.tasks.lm.options import LMOptions
from elman.training import TrainingOptions

_BUDGET = ("minutes", "steps", "epochs", "patience", "seed")
_LEARNING = ("carry", "learning")
_DATA = ("level", "window", "streams", "restart", "min_count", "valid_fraction", "valid_file")
_CELL_HELP = (
    "A cell's name (see elman cells), or FILE.py:NAME for a cell of your own. lstm if not given."
)


def lm(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Text files, joined in order; - or a pipe is standard input.", show_default=False
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="Folder of the run; runs/lm-NAME-001 or so if not given."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on, exactly, with the run in --run.")
    ] = False,
    init_from: Annotated[
        str | None,
        typer.Option("--init-from", help="A run folder or model file: begin with its weights."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over a run that is in the folder.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress; train.log has it all.")
    ] = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Train a language model on text; what you do not say is chosen from the data and the time.

    [bold]Examples[/bold]

      elman train lm novel.txt --minutes 3

      elman train lm part1.txt part2.txt --cell gru --hidden 256 --layers 2 --epochs 10 --run runs/a

      elman train lm novel.txt --cell mine.py:my_cell --hyper alpha=0.2 --steps 2000

      elman train lm novel.txt --window 32 --carry exact --hidden 64 --minutes 3

      elman train lm --run runs/a --resume
    """
    from elman import train

    given = {name: value for name, value in options.items() if value not in (None, [])}
    if "cell" in given and ".py" in given["cell"]:
        given["cell"] = find_cell(given["cell"])
    for name in ("hyper", "sizes"):
        if name in given:
            given[name] = read_settings(given[name], f"--{name}")
    result = train(
        "lm",
        _data(files, resume),
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        **given,
    )
    if as_json:
        print_json(
            {
                "run": str(result.run),
                "metrics": result.metrics,
                "baseline": result.baseline,
                "verdict": result.verdict,
                "steps": result.steps,
                "validated_part": result.validated_part,
                "seconds": result.seconds,
                "ended": result.ended,
            }
        )
        return
    if not quiet:
        note(f"now: elman generate {result.run}")
    print(result.run)


def _data(files: Sequence[str] | None, resume: bool) -> Any:
    """What `train` takes as data."""
    if not files:
        if resume:
            return None
        if not piped():
            raise InputError("train lm: name the text files, or pipe a text in.")
        return "-"
    if "-" in files:
        if len(files) > 1:
            raise InputError("train lm: standard input (-) does not go with other files.")
        return "-"
    return [Path(name) for name in files]


# -- options from their definitions ------------------------------------------------------------


def _described(options: type[pydantic.BaseModel]) -> dict[str, str]:
    """What the docstring says of each option, by name."""
    found: dict[str, str] = {}
    names: list[str] = []
    section = (inspect.getdoc(options) or "").partition("Args:\n")[2]
    for line in section.splitlines():
        entry = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            found.update(dict.fromkeys(names, entry[2]))
        elif line.strip():
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
        else:
            names = []
    return {name: _sentence(text) for name, text in found.items()}


def _sentence(text: str) -> str:
    """The words of a docstring as help: without marks of code, and beginning with a capital."""
    plain = text.replace("`", "").replace('"', "")
    return plain[:1].upper() + plain[1:]


def _kind(field: FieldInfo) -> tuple[Any, str | None]:
    """The type that the command line reads a field as, and what stands for a value in help."""
    kind = field.annotation
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        return str, "|".join(typing.get_args(kind))
    return kind, None


def _parameter(name: str, field: FieldInfo, help_text: str, panel: str) -> inspect.Parameter:
    kind, values = _kind(field)
    flag = "--" + name.replace("_", "-")
    names, default = [flag], None
    if name == "cell":
        kind, help_text, values = str, _CELL_HELP, "NAME"
    elif typing.get_origin(kind) is dict:
        kind, values, help_text = list[str], "NAME=VALUE", f"{help_text} May be repeated."
    elif kind is bool:
        names = [f"{flag}/--no-{flag[2:]}"]
    option = typer.Option(
        *names, help=help_text, metavar=values, rich_help_panel=panel, show_default=False
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind | None, option],
    )


def _all_parameters() -> list[inspect.Parameter]:
    """The command's own parameters, then an option for each field, in the panels of the help."""
    panels: dict[str, list[inspect.Parameter]] = {
        "Budget": [],
        "Model": [],
        "Data": [],
        "Training": [],
    }
    for options, panel in ((LMOptions, "Model"), (TrainingOptions, "Training")):
        described = _described(options)
        for name, field in options.model_fields.items():
            where = "Budget" if name in _BUDGET else "Data" if name in _DATA else panel
            where = "Training" if name in _LEARNING else where
            parameter = _parameter(name, field, described.get(name, ""), where)
            panels[where].append(parameter)
    hints = typing.get_type_hints(lm, include_extras=True)
    own = [
        p.replace(annotation=hints[p.name])
        for p in inspect.signature(lm).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    return [*own, *(p for panel in panels.values() for p in panel)]


lm.__signature__ = inspect.Signature(_all_parameters())  # type: ignore[attr-defined]
