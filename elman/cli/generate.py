"""`elman generate`: a trained model writes."""

from __future__ import annotations

from typing import Annotated, Any

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
    label: Annotated[
        str | None, Option("--label", help="Models of captions: the class to write from.")
    ] = None,
    top_p: Annotated[
        float | None,
        Option("--top-p", help="Models of captions: draw from the likeliest of this share."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a trained model write; the text appears as it is drawn.

    A language model goes on from a prompt, a model of captions writes from a class.

    [bold]Examples[/bold]

      elman generate runs/novel --prompt "It was " --temperature 0.7

      elman generate runs/novel --count 3 --sentence --json

      elman generate runs/names --label Irish --count 5
    """
    from elman.data import read_text
    from elman.errors import InputError
    from elman.tasks import load

    model = load(run)
    if getattr(model, "task", None) == "caption":
        texts = _from_class(model, label, count, temperature, top_p, seed)
        if as_json:
            print_json({"texts": texts, "label": label, "temperature": temperature, "seed": seed})
        else:
            print(*texts, sep="\n")
        return
    if label is not None or top_p is not None:
        raise InputError("generate: --label and --top-p are for models of captions.")
    model = model if hasattr(model, "generate_stream") else load(run, "lm")
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


def _from_class(
    model: Any, label: str | None, count: int, temperature: float, top_p: float | None, seed: int
) -> list[str]:
    """Texts that a model of captions draws; one that reads numbers needs a file of them."""
    from elman.errors import InputError

    if not model.meaning.classes or model.meaning.features:
        raise InputError(
            "generate: this model writes from numbers; elman predict reads them from a file."
        )
    share = 1.0 if top_p is None else top_p
    return model.generate(label, count=count, temperature=temperature, top_p=share, seed=seed)
