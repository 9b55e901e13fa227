"""Tagging on real data: UD English-EWT (UPOS), WNUT17 (entities), and our scorer on submissions.

    python benchmarks/tag.py ewt --data DIR [--minutes 15]
    python benchmarks/tag.py scorer --data DIR
    python benchmarks/tag.py wnut --data DIR [--minutes 20] [--seeds 3] [--only with|without]

Training names files and minutes; everything else is chosen by `elman train tag`. Each row has the
figure, its 95 % interval by the bootstrap over sentences, the baseline's, and the seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import torch

import elman
from elman.data.conll import read_blocks
from elman.tasks.intervals import in_words
from elman.tasks.tag.measure import span_f1

# The shared task's table (Derczynski et al. 2017), entity F1 in per cent.
PUBLISHED = {
    "uh_ritual": 41.86,
    "spinningbytes.txt": 40.78,
    "sjtu_adapt.txt": 40.42,
    "arcada": 39.98,
    "flytxt": 38.35,
    "mic-cis.txt": 37.06,
    "drexel_cci": 26.30,
}


def tags_of(path: Path) -> Iterator[list[str]]:
    """The tags of each sentence of a file, from its last column."""
    layout, blocks = read_blocks(path)
    for block in blocks:
        yield block.column(layout.width - 1)


def scorer(data: Path) -> None:
    """Score the stored submissions by position, in the sentences of the test file."""
    gold = list(tags_of(data / "wnut17/test.conll"))
    print("| submission | published | ours |\n|---|---|---|")
    for name, published in PUBLISHED.items():
        told = [tag for tags in tags_of(data / "wnut17/submissions" / name) for tag in tags]
        if len(told) != sum(map(len, gold)):
            raise SystemExit(f"{name}: {len(told)} tokens, the test file has another number")
        walk = iter(told)
        ours = 100 * span_f1(gold, ([next(walk) for _ in tags] for tags in gold))
        agrees = "equal" if f"{ours:.2f}" == f"{published:.2f}" else "DIFFERENT"
        print(f"| {name} | {published:.2f} | {ours:.2f} ({agrees}) |", flush=True)


def train(data: Path, name: str, ending: str, minutes: float, seed: int, crf: bool | None) -> dict:
    """Train on files and minutes alone, and evaluate on the test file."""
    folder = data / name
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        result = elman.train(
            "tag", folder / f"train{ending}", valid_file=str(folder / f"dev{ending}"),
            minutes=minutes, seed=seed, crf=crf, run=Path(place) / "run", quiet=True, reports=[],
        )  # fmt: skip
        seconds = time.monotonic() - began
        found = result.model.evaluate(folder / f"test{ending}")
    return {**found, "seconds": seconds, "dev": result.metrics, "steps": result.steps}


def ewt(data: Path, minutes: float, seeds: int) -> None:
    """UPOS accuracy on the test file of English-EWT."""
    for seed in range(seeds):
        found = train(data, "ud-ewt", ".conllu", minutes, seed, None)
        base = found["baseline"]
        print(
            f"| UD English-EWT, UPOS accuracy, test | ≥ 94.5 | "
            f"{in_words(found['accuracy'], found['intervals']['accuracy'])} "
            f"(dev {found['dev']['accuracy']:.2%}; unseen words {found['accuracy_unseen']:.1%}); "
            f"{base['name']} {in_words(base['accuracy'], base['intervals']['accuracy'])} | seed "
            f"{seed} | {found['seconds']:.0f} s, {found['steps']} steps |",
            flush=True,
        )


def wnut(data: Path, minutes: float, seeds: int, only: str | None) -> None:
    """Entity F1 on the test file of WNUT17, with and without a CRF."""
    means = {}
    for crf in {"with": (True,), "without": (False,), None: (True, False)}[only]:
        figures = []
        for seed in range(seeds):
            found = train(data, "wnut17", ".conll", minutes, seed, crf)
            base = found["baseline"]
            figures.append(found["span_f1"])
            print(
                f"| WNUT17, entity F1, test, {'with' if crf else 'without'} CRF | seed {seed} | "
                f"{in_words(found['span_f1'], found['intervals']['span_f1'])} (dev "
                f"{found['dev']['span_f1']:.1%}); {base['name']} "
                f"{in_words(base['span_f1'], base['intervals']['span_f1'])} | "
                f"{found['seconds']:.0f} s, {found['steps']} steps |",
                flush=True,
            )
        means["with CRF" if crf else "without"] = mean(figures)
    found = ", ".join(f"{name} {figure:.2%}" for name, figure in means.items())
    print(f"| WNUT17, entity F1, test, mean of {seeds} seeds | with CRF above without | {found} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["ewt", "scorer", "wnut"])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--minutes", type=float, help="of each training; 15 for ewt, 20 for wnut")
    parser.add_argument("--seeds", type=int, help="how many; 1 for ewt, 3 for wnut")
    parser.add_argument("--only", choices=["with", "without"], help="wnut: with a CRF or without")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.what == "scorer":
        scorer(given.data)
    elif given.what == "ewt":
        ewt(given.data, given.minutes or 15.0, given.seeds or 1)
    else:
        wnut(given.data, given.minutes or 20.0, given.seeds or 3, given.only)


if __name__ == "__main__":
    main()
