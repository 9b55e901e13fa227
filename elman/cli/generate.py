"""`elman generate`: a trained model writes."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from elman.cli.terminal import Json, Run, check_text, note_unseen, print_json

UNKNOWN_HELP = (
    "What to do with tokens rare or unseen in training: error, use (as <unk>), skip, or auto: use "
    "where the model has an <unk>, else error."
)


def command(
    run: Run,
    prompt: Annotated[
        str, Option("--prompt", "-p", help="Text to go on from; - reads standard input.")
    ] = "",
    length: Annotated[int, Option("--length", "-n", help="Tokens to write.")] = 500,
    temperature: Annotated[
        float,
        Option("--temperature", "-t", help="Below 1 plays safe, 0 always takes the likeliest."),
    ] = 1.0,
    top_k: Annotated[
        int | None, Option("--top-k", help="Draw from the k likeliest tokens only.")
    ] = None,
    count: Annotated[int, Option("--count", "-c", help="How many texts.")] = 1,
    seed: Annotated[int, Option("--seed", "-s", help="The same seed writes the same text.")] = 0,
    sentence: Annotated[
        bool, Option("--sentence", help="Stop at the first end of a line.")
    ] = False,
    unknown: Annotated[str, Option("--unknown", help=UNKNOWN_HELP)] = "auto",
    as_json: Json = False,
) -> None:
    """Let a trained model write; the text appears as it is drawn.

    [bold]Examples[/bold]

      elman generate runs/novel --prompt "It was " --temperature 0.7

      elman generate runs/novel --count 3 --sentence --json
    """
    from elman.data import read_text
    from elman.errors import InputError
    from elman.tasks import load

    model = load(run, "lm")
    prompt = read_text("-").removesuffix("\n") if prompt == "-" else check_text(prompt, "--prompt")
    if count < 1:
        raise InputError(f"generate: --count is {count}; expected a whole number >= 1.")
    lacking = [token for _, token in model.vocabulary.unseen(prompt)]
    treated = unknown == "use" or (unknown == "auto" and model.vocabulary.unknown is not None)
    settings = {"temperature": temperature, "top_k": top_k, "seed": seed}
    if as_json:
        texts = model.generate(
            prompt, length, temperature, top_k, count, seed, sentence=sentence, unknown=unknown
        )
        note_unseen("the prompt", lacking, treated)
        print_json({"texts": texts, "prompt": prompt, **settings})
        return
    for index in range(count):
        if index:
            print("\n" + "─" * 24)
        pieces = model.generate_stream(
            prompt, length, temperature, top_k, seed, index, sentence=sentence, unknown=unknown
        )
        if not index:
            note_unseen("the prompt", lacking, treated)
        last = ""
        for piece in pieces:
            print(piece, end="", flush=True)
            last = piece or last
        if not last.endswith("\n"):
            print()
