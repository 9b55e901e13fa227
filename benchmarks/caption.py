"""Captions: family names written from their nationality, beside n-grams given the nationality.

    python benchmarks/caption.py --data DIR [--minutes 4] [--seeds 0 1 2]

DIR/names has a file of names a nationality. Each pair of name and nationality counts once. A name
is in the test part if the first four bytes of its SHA-256, as a number, are divisible by 10; so
equal names are on one side, whatever their nationalities. Everything else is
`elman train caption`: its own validation part is cut out of the training part. Nats a character
count the end of a name as a character.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import elman


def prepare(data: Path, to: Path) -> tuple[Path, Path]:
    """Write the training and the test part as tables of nationality and name."""
    rows: dict[bool, list[str]] = {True: [], False: []}
    for file in sorted((data / "names").glob("*.txt")):
        lines = file.read_text(encoding="utf-8").split("\n")
        for name in sorted({line.strip() for line in lines} - {""}):
            digest = hashlib.sha256(name.encode()).digest()[:4]
            rows[int.from_bytes(digest, "little") % 10 == 0].append(f"{file.stem}\t{name}\n")
    train, test = to / "train.tsv", to / "test.tsv"
    train.write_text("".join(rows[False]), encoding="utf-8")
    test.write_text("".join(rows[True]), encoding="utf-8")
    return train, test


def main() -> None:
    """Train, and print a row for each seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        train, test = prepare(given.data, Path(aside))
        for seed in given.seeds:
            began = time.monotonic()
            run = Path(aside) / f"run-{seed}"
            result = elman.train(
                "caption", train, label="1", text="2", minutes=given.minutes, seed=seed, run=run,
                quiet=True, reports=[],
            )  # fmt: skip
            found = result.model.evaluate(test)
            minutes = (time.monotonic() - began) / 60
            low, high = found["intervals"]["nats_per_char"]
            base = found["baseline"]
            plain, own = (base[f"nats_per_char_by_ngram{g}"] for g in ("", "_given_class"))
            print(
                f"| names from nationality, {found['captions']:,} held-out names, nats a character "
                f"| below the bigram given the class, {own['bigram']:.3f} | "
                f"{found['nats_per_char']:.3f} ({low:.3f}–{high:.3f}); {base['name']} "
                f"{base['nats_per_char']:.3f}, trigram given the class {own['trigram']:.3f}, "
                f"without the class bigram {plain['bigram']:.3f}, trigram {plain['trigram']:.3f} | "
                f"`elman train caption train.tsv --label 1 --text 2 --minutes {given.minutes:g}` | "
                f"{minutes:.1f} ({result.steps:,} steps) | {seed} |",
                flush=True,
            )
            texts = ", ".join(
                f"{label} {result.model.generate(label, temperature=0.7, seed=seed)[0]}"
                for label in result.model.meaning.classes[:8]
            )
            print(f"<!-- {texts}; {found['verdict']} -->", flush=True)


if __name__ == "__main__":
    main()
