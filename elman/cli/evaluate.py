"""`elman evaluate`: a trained model measured on data it has not seen."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from elman.cli.generate import UNKNOWN_HELP
from elman.cli.terminal import Json, Run, note, piped, print_json


def command(
    run: Run,
    files: Annotated[
        list[str] | None,
        Argument(
            help="Files of the kind it was trained on; - or a pipe is standard input.",
            show_default=False,
        ),
    ] = None,
    unknown: Annotated[
        str | None, Option("--unknown", help=f"Language models: {UNKNOWN_HELP}")
    ] = None,
    start: Annotated[
        str | None,
        Option("--from", help="Series: time stamp of the first step that is scored."),
    ] = None,
    context: Annotated[
        str | None, Option("--context", help="Series: a file of the steps before, read only.")
    ] = None,
    stride: Annotated[int | None, Option("--stride", help="Series: steps between origins.")] = None,
    origins: Annotated[
        int | None, Option("--origins", help="Series: at most so many origins, evenly spread.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a trained model on files.

    Accuracy and macro-F1 of classes, accuracy or F1 of spans of tags, BLEU and chrF of
    translations, a backtest over rolling origins of series, recall and MRR of next items, nats and
    bits a character of captions, labels right at roots and nodes of trees: each with its 95 %
    interval, and beside a simple baseline on the same data, which the report says to use where the
    model is not ahead. A language model is measured in nats and bits a character, and perplexity.

    For a language model, tokens that its vocabulary lacks count as in validation: as <unk> where it
    has one. A note says how many, and a model that has none refuses them.

    [bold]Examples[/bold]

      elman evaluate runs/novel sequel.txt

      head -n 100 sequel.txt | elman evaluate runs/novel --json

      elman evaluate runs/trees test.txt

      elman evaluate runs/load all.csv --from 2018-01-01
    """
    from elman.errors import InputError
    from elman.tasks import load

    names = files or (["-"] if piped() else [])
    if not names:
        raise InputError("evaluate: name a file, or pipe one in.")
    model = load(run)
    if hasattr(model, "generate_stream"):
        metrics = model.evaluate(names, unknown=unknown or "auto")
    elif unknown is not None:
        raise InputError("evaluate: --unknown is for language models; leave it out.")
    else:
        given = {"start": start, "context": context, "stride": stride, "origins": origins}
        given = {name: value for name, value in given.items() if value is not None}
        if given and model.task != "forecast":
            name = {"start": "from"}.get(next(iter(given)), next(iter(given)))
            raise InputError(f"evaluate: --{name} is for models of series; leave it out.")
        metrics = model.evaluate(names, **given)
    if "note" in metrics:
        note(f"note: {metrics['note']}")
    if as_json:
        print_json(metrics)
        return
    print(*model.in_words(metrics), sep="\n")
