"""Options of `elman train TASK`: those of the task and of training, from their definitions."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import typer
from pydantic.fields import FieldInfo

from elman.cli.find_cell import find_cell, read_settings
from elman.cli.terminal import Json, note, piped, print_json
from elman.errors import InputError
from elman.tasks import options_of
from elman.training import Result, TrainingOptions
from elman.training.launcher import leads

_BUDGET = ("minutes", "steps", "epochs", "patience", "seed")
_SETTINGS = ("hyper", "sizes")

RunFolder = Annotated[
    str | None,
    typer.Option("--run", help="Folder of the run; runs/TASK-NAME-001 or so if not given."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on, exactly, with the run in --run.")]
InitFrom = Annotated[
    str | None,
    typer.Option("--init-from", help="A run folder or model file: begin with its weights."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write over a run that is in the folder.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; train.log has it all.")]

__all__ = ["read_options", "train_command"]


def _train(
    task: str,
    data: Any,
    run: str | None,
    resume: bool,
    init_from: str | None,
    overwrite: bool,
    quiet: bool,
    options: Mapping[str, Any],
) -> Result:
    from elman import train

    result: Result = train(
        task,
        data,
        run=run,
        resume=resume,
        init_from=init_from,
        overwrite=overwrite,
        quiet=quiet,
        **read_options(options),
    )
    return result


def _say(result: Result, next_step: str, *, quiet: bool, as_json: bool) -> None:
    """Print where the run is, or all that came of it."""
    if not leads():  # another process of the same run prints this
        return
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
        note(f"now: {next_step} {result.run}{' FILE' if next_step.endswith('predict') else ''}")
    print(result.run)


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as `elman.train` takes them: cells found, settings read."""
    given = {name: value for name, value in options.items() if value not in (None, [])}
    if ".py" in str(given.get("cell", "")):
        given["cell"] = find_cell(given["cell"])
    for name in _SETTINGS:
        if name in given:
            given[name] = read_settings(given[name], f"--{name}")
    return given


def _files(task: str, files: Sequence[str] | None, resume: bool, what: str, pipe: bool) -> Any:
    """What `elman.train` takes as data, of the file names of a command line.

    Raises:
        InputError: no file and no pipe, or standard input beside files.
    """
    if not files:
        if resume:
            return None
        if not pipe or not piped():
            way = ", or pipe one in" if pipe else ""
            raise InputError(f"train {task}: name the {what}{way}.")
        return "-"
    if pipe and "-" in files:
        if len(files) > 1:
            raise InputError(f"train {task}: standard input (-) does not go with other files.")
        return "-"
    return [Path(name) for name in files]


# -- a command from the definitions of its options ----------------------------------------------


def train_command(
    task: str,
    text: str,
    *,
    files_help: str,
    what: str,
    data: Sequence[str],
    training: Sequence[str] = (),
    cell_help: str,
    next_step: str = "elman predict",
    pipe: bool = True,
) -> Callable[..., None]:
    """Make the command that trains a task, with an option for each field of it and of training.

    Args:
        task: its name.
        text: what the help says, with examples.
        files_help: what the help says of the files.
        what: the kind of files in the plural, for the error where none is named.
        data: fields of the task that the help shows as options of the data.
        training: those that it shows as options of training; the others are the model's.
        cell_help: help of the option "cell".
        next_step: the command that users are told of in the end, without the run's folder.
        pipe: whether the data may come from standard input.
    """

    def command(
        files: list[str] | None = None,
        run: RunFolder = None,
        resume: Resume = False,
        init_from: InitFrom = None,
        overwrite: Overwrite = False,
        quiet: Quiet = False,
        as_json: Json = False,
        **options: Any,
    ) -> None:
        given = _files(task, files, resume, what, pipe)
        result = _train(task, given, run, resume, init_from, overwrite, quiet, options)
        _say(result, next_step, quiet=quiet, as_json=as_json)

    hints = typing.get_type_hints(command, include_extras=True)
    hints["files"] = Annotated[
        list[str] | None, typer.Argument(help=files_help, show_default=False)
    ]
    own = [
        p.replace(annotation=hints[p.name])
        for p in inspect.signature(command).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    panels = _panels(options_of(task), data, training, cell_help)
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*own, *(p for panel in panels.values() for p in panel)]
    )
    command.__doc__ = inspect.cleandoc(text)
    return command


def _panels(
    options: type[pydantic.BaseModel],
    data: Sequence[str],
    training: Sequence[str],
    cell_help: str,
) -> dict[str, list[inspect.Parameter]]:
    """An option for each field, in the panels of the help."""
    panels: dict[str, list[inspect.Parameter]] = {
        "Budget": [],
        "Model": [],
        "Data": [],
        "Training": [],
    }
    for kind, panel in ((options, "Model"), (TrainingOptions, "Training")):
        described = _described(kind)
        for name, field in kind.model_fields.items():
            where = "Budget" if name in _BUDGET else "Data" if name in data else panel
            where = "Training" if name in training else where
            text = cell_help if name == "cell" else described.get(name, "")
            panels[where].append(_parameter(name, field, text, where))
    return panels


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
        kind, values = str, "NAME"
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
