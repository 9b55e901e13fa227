"""`elman evaluate`: a trained model measured on text."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from elman.cli.generate import UNKNOWN_HELP
from elman.cli.terminal import Json, Run, note, piped, print_json


def command(
    run: Run,
    files: Annotated[
        list[str] | None,
        Argument(help="Text files, joined; - or a pipe is standard input.", show_default=False),
    ] = None,
    unknown: Annotated[str, Option("--unknown", help=UNKNOWN_HELP)] = "auto",
    as_json: Json = False,
) -> None:
    """Measure a trained model on text files: nats and bits a character, perplexity.

    Tokens that the model's vocabulary lacks count as in validation: as <unk> where it has one. A
    note says how many, and a model that has none refuses them.

    [bold]Examples[/bold]

      elman evaluate runs/novel sequel.txt

      head -n 100 sequel.txt | elman evaluate runs/novel --json
    """
    from elman.errors import InputError
    from elman.tasks import load

    names = files or (["-"] if piped() else [])
    if not names:
        raise InputError("evaluate: name a text file, or pipe a text in.")
    metrics = load(run).evaluate(names, unknown=unknown)
    if "note" in metrics:
        note(f"note: {metrics['note']}")
    if as_json:
        print_json(metrics)
        return
    print(
        f"{metrics['tokens']:,} tokens" + (", not comparable: see the note" * ("note" in metrics))
    )
    for unit in ("char", "token"):
        nats, bits = metrics[f"nats_per_{unit}"], metrics[f"bits_per_{unit}"]
        word = {"char": "character", "token": "token"}[unit]
        print(f"{nats:.4f} nats a {word} ({bits:.4f} bits)")
    print(f"perplexity {metrics['perplexity']:.3f} a token")
