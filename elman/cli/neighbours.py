"""`elman neighbours`: the tokens whose learned vectors lie nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from elman.cli.terminal import Json, Run, check_text, print_json, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def command(
    run: Run,
    tokens: Annotated[
        list[str],
        Argument(help="One or more tokens of the model's vocabulary.", show_default=False),
    ],
    count: Annotated[int, Option("-n", min=1, help="How many neighbours of each.")] = 10,
    as_json: Json = False,
) -> None:
    """List the tokens whose learned vectors point most nearly the same way, by cosine.

    It works for every model that has learned token vectors.

    [bold]Examples[/bold]

      elman neighbours runs/questions dog

      elman neighbours runs/novel king queen -n 5 --json
    """
    from elman.errors import InputError
    from elman.tasks import load

    model = load(run)
    if not hasattr(model, "vectors"):
        raise InputError(f"neighbours: {run} is a model of {model.task!r}, without token vectors.")
    names, vectors = model.vectors()
    asked = [_number(check_text(token, "neighbours"), names) for token in tokens]
    found = [nearest_to(number, vectors, count) for number in asked]
    if as_json:
        listed = [[{"token": names[i], "cosine": c} for i, c in near] for near in found]
        records = zip(asked, listed, strict=True)
        print_json([{"token": names[number], "neighbours": near} for number, near in records])
        return
    for at, (number, near) in enumerate(zip(asked, found, strict=True)):
        if at:
            print()
        rows = [(names[i], f"{cosine:.3f}") for i, cosine in near]
        print(*table((names[number], "cosine"), rows), sep="\n")


def _number(token: str, names: Sequence[str]) -> int:
    """The place of a token, as it stands or in small letters."""
    from elman.errors import InputError, nearest

    places = {name: i for i, name in enumerate(names)}
    for spelling in (token, token.lower()):
        if spelling in places:
            return places[spelling]
    raise InputError(
        f"neighbours: {token!r} is not in the vocabulary of {len(names):,} tokens."
        f"{nearest(token, names) or nearest(token.lower(), names)}"
    )


def nearest_to(number: int, vectors: Tensor, count: int) -> list[tuple[int, float]]:
    """Return the rows nearest to a row by cosine, the nearest first, without the row itself.

    Args:
        number: of the row.
        vectors: (rows, size); the cosine with a row of zeros is 0.
        count: how many, at most.

    Example:
        >>> import torch
        >>> nearest_to(0, torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]), 1)
        [(2, 1.0)]
    """
    from torch.nn import functional

    unit = functional.normalize(vectors.float(), dim=1)
    cosines = unit @ unit[number]
    cosines[number] = -2.0
    best = cosines.topk(min(count, len(vectors) - 1))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
