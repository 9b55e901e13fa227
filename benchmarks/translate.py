"""English to French: BLEU on sentences that are not in training, with attention and without.

    python benchmarks/translate.py --data DIR [--minutes 60] [--attention multiplicative]
        [--seed 0] [--out RUN] [--evaluate-only]

DIR holds eng-fra/train.tsv and test.tsv (English TAB French). Training is
`elman train translate train.tsv --minutes M`, everything else by default; validation pairs are held
out of train.tsv. Reported are the test pairs whose English side does not stand in train.tsv, with
sentence lengths, and all test pairs; one reference each. Beside them stands the translation memory:
the French side of the likest English sentence of training.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import elman
from elman.tasks.intervals import in_words


def read(path: Path) -> list[tuple[str, str]]:
    """The pairs of a file."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [(a, b) for a, _, b in (line.partition("\t") for line in lines if line)]


def row(name: str, found: dict[str, Any]) -> str:
    """One row of the table."""
    spans, theirs = found["intervals"], found["baseline"]
    bleu = in_words(found["bleu"], tuple(spans["bleu"]), ".1f")
    chrf = in_words(found["chrf"], tuple(spans["chrf"]), ".1f")
    return (
        f"{name:34s} {found['sentences']:5,} pairs  BLEU {bleu}  chrF {chrf}  "
        f"exact {found['exact']:.1%}  memory: BLEU {theirs['bleu']:.1f}, {theirs['exact']:.1%}"
    )


def report(run: Path, data: Path) -> None:
    """Translate the test pairs and print the rows."""
    model = elman.load(run)
    known = {source for source, _ in read(data / "train.tsv")}
    test = read(data / "test.tsv")
    for name, pairs in (
        ("test, English not in train", [p for p in test if p[0] not in known]),
        ("test, all", test),
    ):
        began = time.monotonic()
        found = model.evaluate([{"1": a, "2": b} for a, b in pairs])
        print(row(name, found), f"({time.monotonic() - began:.0f} s)", flush=True)
        for part in found["by_length"]:
            print(
                f"    {part['words']:>12s} words {part['sentences']:5,} pairs  "
                f"BLEU {part['bleu']:5.1f}  chrF {part['chrf']:5.1f}  exact {part['exact']:.1%}"
            )
    print(found["signature"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--attention", default="multiplicative")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the run, kept")
    parser.add_argument("--evaluate-only", action="store_true", help="of a run that is in --out")
    given = parser.parse_args()
    data = given.data / "eng-fra"
    with tempfile.TemporaryDirectory() as place:
        run = given.out or Path(place) / "run"
        if not given.evaluate_only:
            result = elman.train(
                "translate",
                data / "train.tsv",
                minutes=given.minutes,
                attention=given.attention,
                seed=given.seed,
                run=run,
            )
            print(
                json.dumps(
                    {
                        "attention": given.attention,
                        "seed": given.seed,
                        "seconds": round(result.seconds),
                        "steps": result.steps,
                        "validation": result.metrics,
                    }
                )
            )
        report(run, data)


if __name__ == "__main__":
    main()
