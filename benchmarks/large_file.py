"""A file larger than the memory a process may have: it is read, trained on, validated, compared.

    python benchmarks/large_file.py [--task lm|classify] [--gigabytes 3] [--minutes 2]
        [--limit-mib 2048] [--folder DIR | --file FILE]

A file of that size is made in a temporary folder (the text that comes with Elman, its words
changed at random so that no two copies are alike), and `elman train` is called as a user would,
naming file and minutes (and, for a table, the columns) under `ulimit -d`. That limit is on what the
process has for itself: heap and private mappings (VmData). The peak of it is said, and beside it
what was in memory in all (VmHWM, with pages of mapped files that the system may drop at any time).
The file and the run are deleted afterwards; temporary files take about as much room again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

PIECE = 4 << 20  # bytes written at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=("lm", "classify"), default="lm")
    parser.add_argument("--gigabytes", type=float, default=3.0, help="10^9 bytes")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--limit-mib", type=int, default=2048, help="of `ulimit -d`")
    parser.add_argument("--folder", help="where the file is made; a temporary folder if not given")
    parser.add_argument("--file", type=Path, help="one that is there already; it is not deleted")
    parser.add_argument("--data", help="not used: the text is the one that comes with Elman")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        file = given.file or Path(place) / ("big.txt" if given.task == "lm" else "big.tsv")
        if given.file is None:
            began = time.monotonic()
            size = write(file, int(given.gigabytes * 1e9), table=given.task == "classify")
            print(f"{file.name}: {size / 1e9:.2f} GB, made in {time.monotonic() - began:.0f} s")
        measure(given.task, file, Path(place) / "run", given.minutes, given.limit_mib)


def write(file: Path, size: int, table: bool) -> int:
    """Write a text, or a table of texts with labels, of about so many bytes."""
    draw, written = random.Random(0), 0
    words = book().split(" ")
    with open(file, "wb") as out:
        if table:
            out.write(b"label\ttext\n")
        while written < size:
            pieces = rows(words, draw) if table else passages(words, draw)
            data = "".join(pieces).encode()
            out.write(data)
            written += len(data)
    return file.stat().st_size


def book() -> str:
    text = (resources.files("elman") / "demo_data" / "english.txt").read_text(encoding="utf-8")
    return re.sub(r"[ \t]+", " ", text)


def passages(words: list[str], draw: random.Random) -> Iterator[str]:
    """Runs of the book from random places, one word in twenty another one."""
    left = PIECE
    while left > 0:
        start = draw.randrange(len(words) - 400)
        run = words[start : start + 400]
        for place in draw.sample(range(400), 20):
            run[place] = words[draw.randrange(len(words))]
        text = " ".join(run) + "\n"
        left -= len(text)
        yield text


def rows(words: list[str], draw: random.Random) -> Iterator[str]:
    """Sentences of twenty words; what is said of the weather makes the label."""
    signs = {"fair": ("sun", "blue", "warm"), "foul": ("rain", "grey", "cold")}
    left = PIECE
    while left > 0:
        label = draw.choice(("fair", "foul"))
        start = draw.randrange(len(words) - 20)
        run = [word.replace("\n", " ").strip() for word in words[start : start + 19]]
        run.insert(draw.randrange(20), draw.choice(signs[label]))
        text = f"{label}\t{' '.join(filter(None, run))}\n"
        left -= len(text)
        yield text


def measure(task: str, file: Path, run: Path, minutes: float, limit: int) -> None:
    """Train under the limit and say what it took."""
    columns = " --text text --label label" if task == "classify" else ""
    command = (
        f"ulimit -d {limit * 1024}; exec {sys.executable} -m elman train {task} {file}{columns} "
        f"--minutes {minutes:g} --run {run}"
    )
    began, peak = time.monotonic(), {"VmData": 0, "VmHWM": 0}
    process = subprocess.Popen(["bash", "-c", command])
    while process.poll() is None:
        for name, size in status(process.pid).items():
            peak[name] = max(peak[name], size)
        time.sleep(0.05)
    seconds = time.monotonic() - began
    if process.returncode:
        sys.exit(f"it did not train: exit code {process.returncode}")
    found = json.loads((run / "result.json").read_text(encoding="utf-8"))
    print(f"verdict: {found['verdict']}", flush=True)
    print(f"baseline: {found['baseline']['name']}")
    print(
        f"| {file.stat().st_size / 1e9:.2f} GB, {task} | ulimit -d {limit} MiB | "
        f"{found['steps']:,} steps in {seconds:.0f} s, {found['ended']} | "
        f"VmData {peak['VmData'] / 2**20:.2f} GiB at most, VmHWM {peak['VmHWM'] / 2**20:.2f} GiB |"
    )


def status(pid: int) -> dict[str, int]:
    """What /proc says of a process's memory, in KiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    parts = (line.split() for line in lines)
    return {p[0][:-1]: int(p[1]) for p in parts if p and p[0] in ("VmData:", "VmHWM:")}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
