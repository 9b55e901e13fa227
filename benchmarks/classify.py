"""Classes of real texts: questions, opinions, names; each beside naive Bayes on the same split.

    python benchmarks/classify.py --data DIR [--only trec,subj,mr,names] [--seeds 3]

DIR is the folder with trec/, subjectivity/, sentence-polarity/ and names/. Every row is what
`elman train classify FILE --minutes M` gives, with the file and the columns alone; the test part is
read once, by `evaluate`. Of subj and mr, rows with index mod 10 = 0 are the test part, those with
1 the validation part. Of names, each pair of a name and a nationality is one row; names whose hash
falls into the first tenth are the test part, with all their nationalities, so that no name is in
both parts; a name of several nationalities can be right for one of its rows only.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import elman
from elman.data.parts import held_out
from elman.tasks.intervals import in_words

Rows = Sequence[tuple[str, str]]  # label, text


class Job(NamedTuple):
    """Files of one row of the table, and the minutes it may take."""

    train: Path
    valid: Path | None
    test: Path
    minutes: float
    seeds: int
    columns: dict[str, str]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(f"{label}\t{text}\n" for label, text in rows), encoding="utf-8")
    return path


def trec(data: Path, folder: Path, seeds: int) -> Job:
    """Questions: the published parts, coarse labels."""
    here = data / "trec"
    return Job(here / "train.tsv", None, here / "test.tsv", 5, seeds, {"text": "2", "label": "1"})


def _every_tenth(file: Path, folder: Path, seeds: int) -> Job:
    rows = [(line.split("\t", 1)[0], line.split("\t", 1)[1]) for line in _lines(file)]
    parts = {
        name: _write(folder / f"{name}.tsv", [row for i, row in enumerate(rows) if i % 10 in tens])
        for name, tens in (("test", {0}), ("valid", {1}), ("train", set(range(2, 10))))
    }
    columns = {"text": "2", "label": "1"}
    return Job(parts["train"], parts["valid"], parts["test"], 10, min(seeds, 1), columns)


def subj(data: Path, folder: Path, seeds: int) -> Job:
    """Subjective or objective sentences."""
    return _every_tenth(data / "subjectivity" / "subj.tsv", folder, seeds)


def mr(data: Path, folder: Path, seeds: int) -> Job:
    """Positive or negative snippets of reviews."""
    return _every_tenth(data / "sentence-polarity" / "mr.tsv", folder, seeds)


def names(data: Path, folder: Path, seeds: int) -> Job:
    """Family names and nationalities, divided by distinct name."""
    pairs = sorted(
        {
            (file.stem, line.strip())
            for file in (data / "names").glob("*.txt")
            for line in _lines(file)
        }
    )
    test = held_out((name for _, name in pairs), 0.1, seed=1)
    parts = [
        _write(
            folder / f"{part}.tsv",
            [pair for pair, t in zip(pairs, test, strict=True) if bool(t) is side],
        )
        for part, side in (("train", False), ("test", True))
    ]
    return Job(parts[0], None, parts[1], 10, seeds, {"text": "2", "label": "1"})


JOBS = {"trec": trec, "subj": subj, "mr": mr, "names": names}


def measured(job: Job, folder: Path, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Train and evaluate, once a seed."""
    more: dict[str, Any] = {} if job.valid is None else {"valid_file": str(job.valid)}
    more |= {**job.columns, **options}
    for seed in range(job.seeds):
        began, began_cpu = time.monotonic(), time.process_time()
        result = elman.train(
            "classify", job.train, run=folder / f"run{seed}", minutes=job.minutes, seed=seed,
            quiet=True, reports=[], **more,
        )  # fmt: skip
        seconds, of_cpu = time.monotonic() - began, time.process_time() - began_cpu
        found = result.model.evaluate(job.test)
        yield {**found, "seconds": seconds, "cpu": of_cpu, "seed": seed, "ended": result.ended,
               "validation": result.metrics["accuracy"]}  # fmt: skip


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default=",".join(JOBS))
    parser.add_argument("--seeds", type=int, default=3, help="of trec and names")
    parser.add_argument("--no-ngrams", action="store_true", help="the recurrent network alone")
    parser.add_argument("--threads", type=int, help="of torch; all cores if not given")
    parser.add_argument(
        "--minutes", type=float, help="instead of the table's, where the machine is shared"
    )
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    options = {"ngrams": False} if given.no_ngrams else {}
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            job = JOBS[name](given.data, folder, given.seeds)
            job = job._replace(minutes=given.minutes or job.minutes)
            every = []
            for found in measured(job, folder, options):
                every.append(found)
                base = found["baseline"]
                print(
                    f"{name}, seed {found['seed']}: "
                    f"{in_words(found['accuracy'], found['intervals']['accuracy'])} of "
                    f"{found['sequences']:,}, macro-F1 {found['macro_f1']:.3f}; {base['name']} "
                    f"{in_words(base['accuracy'], base['intervals']['accuracy'])}; validation "
                    f"{found['validation']:.1%}; {found['seconds']:.0f} s, {found['cpu']:.0f} of "
                    f"the processor ({found['ended']})",
                    flush=True,
                )
            mean = sum(found["accuracy"] for found in every) / len(every)
            theirs = sum(found["baseline"]["accuracy"] for found in every) / len(every)
            print(f"{name}: mean of {len(every)}: {mean:.1%}, naive Bayes {theirs:.1%}", flush=True)


if __name__ == "__main__":
    main()
