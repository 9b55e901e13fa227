"""`elman demo`: the main job on the text that comes with Elman, and small shows beside it."""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from elman.cli import demo_addition
from elman.cli.score import show
from elman.cli.terminal import Json, print_json

if TYPE_CHECKING:
    from elman.training import Result

app = typer.Typer(rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]})
app.command("addition")(demo_addition.command)

_MINUTES = 4.0
_TEXTS = {
    "en": ("english.txt", "Jane Austen, Pride and Prejudice, 1813"),
    "zh": ("chinese.txt", "3,744 poems of the Tang dynasty (全唐詩)"),
}
_PROMPTS = {"en": ("", "Mr. Darcy ", '"I am ', "It is a truth "), "zh": ("", "春", "明月", "江")}
_PAIRS = {
    "en": ("She was very glad to see him.", "She were very glad to see him."),
    "zh": ("明月照江水，春風入夜來。", "明月照江水，春風來夜入。"),
}


@app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    lang: Annotated[str, Option("--lang", help="en: a novel; zh: poems.", metavar="en|zh")] = "en",
    minutes: Annotated[float, Option("--minutes", help="Time to train.")] = _MINUTES,
    run: Annotated[
        str | None,
        Option("--run", help="Folder of the run; runs/lm-english-001 or so if not given."),
    ] = None,
    seed: Annotated[int, Option("--seed", help="Of weights, data order and samples.")] = 0,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress, only the result.")] = False,
    as_json: Json = False,
) -> None:
    """Train on real text that comes with Elman, then read, score and compare; under six minutes.

    [bold]Examples[/bold]

      elman demo

      elman demo --lang zh

      elman demo addition      a network learns to add, and when it finds the carry
    """
    if context.invoked_subcommand is not None:
        return
    from elman import train
    from elman.errors import InputError, nearest
    from elman.training.options import check

    if lang not in _TEXTS:
        raise InputError(f"demo: --lang is {lang!r}; expected en or zh.{nearest(lang, _TEXTS)}")
    check({"minutes": minutes, "seed": seed}, "demo")
    name, what = _TEXTS[lang]
    began = time.monotonic()
    with resources.as_file(resources.files("elman") / "demo_data" / name) as text:
        if not as_json:
            print(
                f"{what}: {text.stat().st_size:,} bytes. Training for {minutes:g} minutes.\n",
                flush=True,
            )
        result = train(
            "lm",
            Path(text),
            run=run,
            minutes=minutes,
            seed=seed,
            quiet=quiet or as_json,
        )
    seconds = time.monotonic() - began
    if as_json:
        print_json(_facts(result, lang, seed, seconds))
    else:
        _show(result, lang, seed, seconds)


def _samples(result: Result, lang: str, seed: int) -> list[str]:
    """Three texts, each from a prompt that the vocabulary has."""
    model = result.model
    prompts = [p for p in _PROMPTS[lang] if not model.vocabulary.unseen(p)][:3]
    length = 300 if lang == "en" else 60
    return [model.generate(p, length, 0.7, seed=seed + i)[0] for i, p in enumerate(prompts)]


def _show(result: Result, lang: str, seed: int, seconds: float) -> None:
    from elman.tasks.lm import compare

    for number, sample in enumerate(_samples(result, lang, seed), 1):
        print(f"\n── sample {number}, temperature 0.7 " + "─" * 40)
        print(sample.strip("\n"))
    print("\n── which is likelier? " + "─" * 40)
    scores = result.model.score(_PAIRS[lang])
    show(scores)
    print(*compare(scores).words, sep="\n")
    print("\n── figures " + "─" * 40)
    print(result.baseline["words"])
    print(result.verdict)
    print(f"pictures: {result.run / 'plots'}")
    print(f"the run: {result.run} ({seconds / 60:.1f} minutes in all)")
    print(f"go on: elman generate {result.run} --prompt …; elman train lm YOUR.txt --minutes 5")


def _facts(result: Result, lang: str, seed: int, seconds: float) -> dict[str, Any]:
    from elman.tasks.lm import compare

    scores = result.model.score(_PAIRS[lang])
    return {
        "lang": lang,
        "run": str(result.run),
        "metrics": result.metrics,
        "baseline": result.baseline,
        "verdict": result.verdict,
        "samples": _samples(result, lang, seed),
        "scores": [score.to_json() for score in scores],
        "words": list(compare(scores).words),
        "pictures": sorted(str(path) for path in (result.run / "plots").glob("*.png")),
        "seconds": round(seconds, 1),
    }
