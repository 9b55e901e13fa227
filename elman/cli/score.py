"""`elman score`: how likely a trained model finds sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from elman.cli.generate import UNKNOWN_HELP
from elman.cli.terminal import Json, Run, check_text, flow, note_unseen, piped, print_json

if TYPE_CHECKING:
    from elman.tasks.lm import Score


def command(
    run: Run,
    sentences: Annotated[
        list[str] | None,
        Argument(
            help="Sentences; - reads standard input, one a line, and so does a pipe.",
            show_default=False,
        ),
    ] = None,
    unfinished: Annotated[
        bool, Option("--unfinished", help="Do not count the end: P(a text begins so).")
    ] = False,
    unknown: Annotated[str, Option("--unknown", help=UNKNOWN_HELP)] = "auto",
    as_json: Json = False,
) -> None:
    """Say how likely sentences are, token by token, and which is likeliest.

    [bold]Examples[/bold]

      elman score runs/novel "the apple and pear salad" "the apple and pair salad"

      elman score runs/novel --json < sentences.txt
    """
    from elman.errors import InputError
    from elman.tasks import load
    from elman.tasks.lm import compare

    model = load(run, "lm")
    given = _sentences(sentences)
    if not given:
        raise InputError("score: there is no sentence; give some, or pipe them in, one a line.")
    scores = model.score(given, finished=not unfinished, unknown=unknown)
    comparison = compare(scores) if len(scores) > 1 else None
    if as_json:
        data: dict = {"sentences": [score.to_json() for score in scores]}
        if comparison:
            data["order"] = list(comparison.order)
            data["log_factors"] = list(comparison.log_factors)
            data["words"] = list(comparison.words)
        print_json(data)
        return
    show(scores)
    if comparison:
        print(*comparison.words, sep="\n")


def show(scores: list[Score]) -> None:
    """Print scores, each with ln p of its tokens."""
    from elman.data import UNKNOWN

    for score in scores:
        note_unseen(repr(score.sentence), score.unseen, UNKNOWN in score.tokens)
        print(score.sentence)
        print(f"  ln P = {score.log_prob:.3f}, perplexity {score.perplexity:.3f} a token; ln p:")
        pairs = zip(score.tokens, score.per_token, strict=True)
        print(*flow(f"{visible(token)} {value:.2f}" for token, value in pairs), sep="\n")
        print()


def visible(token: str) -> str:
    """A token as it can be seen in a list.

    Example:
        >>> visible("a"), visible(" "), visible("\\n")
        ('a', '␣', '⏎')
    """
    return {" ": "␣", "\n": "⏎", "\t": "⇥"}.get(token, token)


def _sentences(given: list[str] | None) -> list[str]:
    from elman.data import read_text

    if given and given != ["-"]:
        return [check_text(text, f"sentence {i}") for i, text in enumerate(given, 1)]
    if given == ["-"] or piped():
        return [line for line in read_text("-").split("\n") if line]
    return []
