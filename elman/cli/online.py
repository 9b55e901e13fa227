"""`elman online`: models that go on learning while the data come."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer import Option

from elman.cli.find_cell import find_cell
from elman.cli.terminal import note, piped
from elman.errors import InputError

app = typer.Typer(
    rich_markup_mode="rich",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PLACES, _MODEL = "Input and output", "Model"


@app.callback()
def online(context: typer.Context) -> None:
    """Go on learning from an endless stream.

    [bold]Example[/bold]

      tail -n +1 -f sensor.csv | elman online forecast --target y
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def forecast(
    target: Annotated[
        str | None, Option("--target", "-t", help="Column to forecast.", show_default=False)
    ] = None,
    features: Annotated[
        str | None,
        Option(
            "--features", help="Further columns to read, as a,b; all is every one.", metavar="A,B"
        ),
    ] = None,
    horizon: Annotated[
        int | None, Option("--horizon", help="Rows ahead; 1 if not given.", min=1)
    ] = None,
    run: Annotated[
        str | None,
        Option("--run", help="Folder in which everything is kept to go on from.", metavar="DIR"),
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="Go on, exactly, with the run in --run.")
    ] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Write over the run in --run and over --output.")
    ] = False,
    source: Annotated[
        str | None,
        Option(
            "--input",
            help="File to read; - or none is standard input.",
            metavar="FILE",
            rich_help_panel=_PLACES,
        ),
    ] = None,
    output: Annotated[
        str | None,
        Option(
            "--output",
            help="File to write; standard output if not given.",
            metavar="FILE",
            rich_help_panel=_PLACES,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        Option(
            "--columns",
            help="Names of all columns, where the CSV has no header.",
            metavar="A,B,C",
            rich_help_panel=_PLACES,
        ),
    ] = None,
    every: Annotated[
        int, Option("--every", help="Lines between two savings.", min=1, rich_help_panel=_PLACES)
    ] = 10_000,
    strict: Annotated[
        bool,
        Option(
            "--strict",
            help="Stop at a line that cannot be used, instead of skipping it.",
            rich_help_panel=_PLACES,
        ),
    ] = False,
    quiet: Annotated[
        bool, Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=_PLACES)
    ] = False,
    cell: Annotated[
        str | None,
        Option(
            "--cell",
            help="A cell's name (see elman cells), or FILE.py:NAME. lstm if not given.",
            metavar="NAME",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    hidden: Annotated[
        int | None,
        Option("--hidden", help="Units of a layer; 32 if not given.", rich_help_panel=_MODEL),
    ] = None,
    layers: Annotated[
        int | None,
        Option("--layers", help="Recurrent layers; 1 if not given.", rich_help_panel=_MODEL),
    ] = None,
    learning: Annotated[
        str | None,
        Option(
            "--learning",
            help="How credit travels in time: rtrl, exact, if not given.",
            metavar="rtrl|snap1|rflo|uoro|truncated",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    window: Annotated[
        int | None,
        Option(
            "--window",
            help="Rows learned from at a time; 1 if not given, 16 where truncated.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        Option("--lr", help="Learning rate; 0.003 if not given.", rich_help_panel=_MODEL),
    ] = None,
    loss: Annotated[
        str | None,
        Option(
            "--loss",
            help="huber heeds outliers less; mse if not given.",
            metavar="mse|huber",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    seed: Annotated[
        int | None, Option("--seed", help="Of weights; 0 if not given.", rich_help_panel=_MODEL)
    ] = None,
) -> None:
    """Forecast a column of a table that grows, and learn from each line that comes.

    Lines are CSV with a header, or JSONL. Each is answered at once by a line with the number of the
    line, the target, its prediction made before, the prediction for the row to come, the recent and
    the overall error, and the same errors of persistence, which says that the value stays.

    [bold]Examples[/bold]

      tail -n +1 -f sensor.csv | elman online forecast --target y

      elman online forecast -t load --features temperature,hour --horizon 24 --input load.csv

      elman online forecast -t y --input log.jsonl --output out.jsonl --run runs/y

      elman online forecast --run runs/y --resume
    """
    from elman.online.run import Where
    from elman.online.run import forecast as run_forecast

    if source is None and not resume and not piped():
        raise InputError("online forecast: name a file (--input), or pipe lines in.")
    options: dict[str, Any] = {
        "horizon": horizon,
        "cell": None if cell is None else _cell(cell),
        "hidden": hidden,
        "layers": layers,
        "learning": learning,
        "window": window,
        "lr": lr,
        "loss": loss,
        "seed": seed,
    }
    run_forecast(
        target,
        features if features == "all" else _names(features),
        {name: value for name, value in options.items() if value is not None},
        Where(
            source=source,
            output=output,
            run=run,
            every=every,
            strict=strict,
            resume=resume,
            overwrite=overwrite,
            columns=_names(columns) or None,
        ),
        (lambda line: None) if quiet else note,
    )


def _cell(name: str) -> Any:
    """A cell of the user's file; a name of ours stays one."""
    found = find_cell(name)
    return found if ".py" in name else name


def _names(listed: str | None) -> list[str]:
    return [name.strip() for name in (listed or "").split(",") if name.strip()]
