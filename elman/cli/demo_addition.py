"""`elman demo addition`: a network learns to add, and when it finds the carry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from elman.cli.terminal import Json, note, print_json

if TYPE_CHECKING:
    from elman.tasks.addition import Result

_SUM = (144, 177)


def command(
    base: Annotated[int, Option("--base", help="Of the digits, 2 to 16.")] = 2,
    seed: Annotated[
        int, Option("--seed", help="Of weights and sums; 0 in base 2 are the study notes' own.")
    ] = 0,
    out: Annotated[str, Option("--out", help="Folder for the picture.")] = "runs/addition",
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress, only the result.")] = False,
    as_json: Json = False,
) -> None:
    """Watch a recurrent network learn to add, and see when its units begin to hold the carry.

    Base 2 is the program of the well-known study notes: eight bits, 16 logistic units, 10,000 sums.

    [bold]Examples[/bold]

      elman demo addition

      elman demo addition --base 10 --out pictures
    """
    from elman import plots
    from elman.errors import FileError
    from elman.tasks.addition import learn

    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"--out {out}: cannot be made a folder: {error.strerror}.") from None
    result = learn(base, seed, (lambda line: None) if quiet or as_json else note)
    picture = folder / f"addition-base{base}.png"
    plots.addition(result, picture)
    said = result.add(*_SUM)
    if as_json:
        print_json(
            result.to_json() | {"sum": [*_SUM, said], "picture": str(picture)},
        )
    else:
        _show(result, said, picture)


def _show(result: Result, said: int, picture: Path) -> None:
    digits = "bits" if result.base == 2 else "digits"
    right = "right" if said == sum(_SUM) else "wrong"
    print(f"\n{_SUM[0]} + {_SUM[1]} = {said} says the network, in base {result.base}: {right}.")
    print(f"It learned from {result.sums:,} sums of numbers of {result.width} {digits}.")
    print(f"  1,000 held-out sums  {result.accuracy:7.1%} right in every digit")
    for width, part in result.longer.items():
        print(f"  {f'{width} {digits} each':20s} {part:7.1%}")
    print(result.held())
    question = "Why does the error fall so suddenly" if result.base == 2 else "When is it learned"
    print(f"\n{question}? {result.why()}")
    print(f"\npicture: {picture}")
