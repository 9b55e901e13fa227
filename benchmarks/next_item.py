"""The next item: notes of melodies, words of sentences, outfits; beside bigram and popularity.

    python benchmarks/next_item.py --data DIR [--seeds 0 1 2] [--only jsb nottingham lemmas outfits]

None of the public data that we have are sessions of a shop, so sessions are

- **jsb**, **nottingham**: the highest note of each frame of a piece (DIR/polyphonic, its parts);
- **lemmas**: the lemmas of a sentence (DIR/ud-ewt, parts as given);
- **outfits**: the weeks of the file that comes with Elman, the last 52 of 260 for the test.

Each is `elman train next` on the training part with its validation part (`--valid-file`; of outfits
the command's own), and nothing else is named but the minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import elman
from elman.tasks.intervals import in_words

MINUTES = {"jsb": 1.0, "nottingham": 3.0, "lemmas": 5.0, "outfits": 1.0}


def melodies(data: Path, to: Path, name: str) -> dict[str, Path]:
    """Write the highest note of each frame, a piece a line; 0 is silence."""
    from scipy.io import loadmat

    found = loadmat(data / "polyphonic" / f"{name}.mat")
    files = {}
    for part in ("train", "valid", "test"):
        files[part] = to / f"{name}-{part}.txt"
        with files[part].open("w", encoding="utf-8") as file:
            for piece in found[f"{part}data"].ravel():
                notes = (int(np.flatnonzero(frame)[-1]) + 21 if frame.any() else 0
                         for frame in piece)  # fmt: skip
                file.write(" ".join(map(str, notes)) + "\n")
    return files


def lemmas(data: Path, to: Path) -> dict[str, Path]:
    """Write the lemmas of the words of each sentence, a sentence a line."""
    files = {}
    for part, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        files[part] = to / f"lemmas-{part}.txt"
        text = (data / "ud-ewt" / f"{name}.conllu").read_text(encoding="utf-8")
        with files[part].open("w", encoding="utf-8") as file:
            for sentence in text.strip().split("\n\n"):
                rows = (line.split("\t") for line in sentence.split("\n") if line[:1] != "#")
                words = (row[2].replace(" ", "_") for row in rows if row[0].isdigit())
                file.write(" ".join(words) + "\n")
    return files


def outfits(to: Path) -> dict[str, Path]:
    """Divide the weeks that come with Elman."""
    place = Path(elman.__file__).parent / "demo_data" / "outfits.csv"
    head, *rows = place.read_text(encoding="utf-8").splitlines(keepends=True)
    files = {"train": to / "outfits-train.csv", "test": to / "outfits-test.csv"}
    for part, some in (("train", rows[: -7 * 52]), ("test", rows[-7 * 52 :])):
        files[part].write_text("".join([head, *some]), encoding="utf-8")
    return files


def row(name: str, files: dict[str, Path], seed: int, run: Path) -> str:
    """Train and judge on one set of sessions, and return a row."""
    options: dict[str, Any] = {"id": "week", "text": "worn"} if name == "outfits" else {}
    if "valid" in files:
        options["valid_file"] = str(files["valid"])
    began = time.monotonic()
    result = elman.train(
        "next", files["train"], minutes=MINUTES[name], seed=seed, run=run, quiet=True, reports=[],
        **options,
    )  # fmt: skip
    found = result.model.evaluate(files["test"])
    minutes = (time.monotonic() - began) / 60
    base, parts = found["baseline"], []
    for key, form in (("recall@5", ".1%"), ("mrr", ".3f")):
        ours = in_words(found[key], found["intervals"][key], form)
        theirs, popular = base[key], base["popularity"][key]
        parts.append(f"{key} {ours} against {theirs:{form}} and {popular:{form}}")
    given = {"outfits": " --id week --text worn"}.get(name, " --valid-file valid.txt")
    return (
        f"| next item, {name}: {found['sessions']:,} sessions, {found['judged']:,} items | above "
        f"bigram and popularity | {'; '.join(parts)}; {found['nats_per_item']:.3f} nats an item "
        f"against {base['nats_per_item']:.3f} | `elman train next{given} --minutes "
        f"{MINUTES[name]:g}` | {minutes:.1f} ({result.steps:,} steps) | {seed} |"
    )


def main() -> None:
    """Print a row for each set and seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(MINUTES), default=list(MINUTES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        to = Path(aside)
        for name in given.only:
            if name == "outfits":
                files = outfits(to)
            elif name == "lemmas":
                files = lemmas(given.data, to)
            else:
                mat = {"jsb": "JSB_Chorales", "nottingham": "Nottingham"}[name]
                files = melodies(given.data, to, mat)
            for seed in given.seeds:
                print(row(name, files, seed, to / f"{name}-{seed}"), flush=True)


if __name__ == "__main__":
    main()
