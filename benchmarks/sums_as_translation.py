"""Sums of two numbers of ten digits as a translation: exact on sums that were never seen.

    python benchmarks/sums_as_translation.py [--data DIR] [--minutes 8] [--order interleaved]
        [--sums 200000] [--seed 0]

The sums are drawn by this script (--data is taken for company and not read). Digits are written
least first. `interleaved`: the source is a₀b₀a₁b₁…a₉b₉, ten digits of each number with zeros in
front, the target the digits of the sum, least first; so 12 + 9 in two digits is "2910" → "12".
`apart`: the source is the one number, a plus sign, the other. Training is
`elman train translate sums.tsv --minutes M`, everything else by default. Tested on 2,000 further
sums; the translation memory, which knows the likest sum of training, stands beside.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import elman
from elman.tasks.intervals import in_words

DIGITS, TESTED = 10, 2000


def written(a: int, b: int, order: str) -> tuple[str, str]:
    """A sum as source and target."""
    one, two = (str(n).zfill(DIGITS)[::-1] for n in (a, b))
    source = "".join(x + y for x, y in zip(one, two, strict=True))
    return source if order == "interleaved" else f"{one}+{two}", str(a + b)[::-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--order", choices=("interleaved", "apart"), default="interleaved")
    parser.add_argument("--sums", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    drawn = {(draw.randrange(10**DIGITS), draw.randrange(10**DIGITS)): None
             for _ in range(given.sums + TESTED)}  # fmt: skip
    pairs = [written(a, b, given.order) for a, b in drawn]
    train, test = pairs[:-TESTED], pairs[-TESTED:]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "sums.tsv"
        file.write_text("".join(f"{a}\t{b}\n" for a, b in train))
        result = elman.train(
            "translate", file, minutes=given.minutes, seed=given.seed, run=Path(place) / "run"
        )
        found = result.model.evaluate([{"1": a, "2": b} for a, b in test])
    exact = in_words(found["exact"], tuple(found["intervals"]["exact"]), ".2%")
    print(
        f"sums of {DIGITS} digits, least first, {given.order}: {exact} exact of {TESTED:,} unseen; "
        f"translation memory {found['baseline']['exact']:.2%}; {len(train):,} sums to learn from, "
        f"{result.steps:,} steps, {result.seconds:.0f} s, seed {given.seed}"
    )


if __name__ == "__main__":
    main()
