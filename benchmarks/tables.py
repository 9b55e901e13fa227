"""How fast tables are read, and how much memory a large one takes.

    python benchmarks/tables.py                     # rows of the page docs/tables.md
    python benchmarks/tables.py --memory 500        # a TSV of 500 MB under a limit of 1 GiB of data

The files are made up here, in a temporary folder: rows of a label and 5 to 40 words.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from elman.data.tables import read_table

WORDS = [f"word{i}" for i in range(5000)] + ["café", "naïve", "don't"]


def rows(seed: int = 0, count: int = 20_000) -> list[tuple[float, str, str]]:
    """Rows of a number, a label and a text."""
    draw = random.Random(seed)
    return [
        (draw.gauss(0, 1), draw.choice(("pos", "neg")), " ".join(draw.choices(WORDS, k=k)))
        for k in (draw.randint(5, 40) for _ in range(count))
    ]


def as_json(x: float, label: str, text: str) -> str:
    """A row as a line of JSON."""
    return json.dumps({"x": x, "label": label, "text": text}, ensure_ascii=False)


WRITERS: dict[str, tuple[str, str, Callable[[float, str, str], str]]] = {
    "TSV": ("tsv", "", lambda x, label, text: f"{label}\t{text}"),
    "CSV without quotes": ("csv", "x,label,text\n", lambda x, label, text: f"{x},{label},{text}"),
    "CSV with quotes": (
        "csv",
        "x,label,text\n",
        lambda x, label, text: f'{x},{label},"{text}, ""so"""',
    ),
    "CSV of 8 numbers": ("csv", "", lambda x, label, text: ",".join(repr(x + i) for i in range(8))),
    "JSONL": ("jsonl", "", as_json),
}


def make(folder: Path, kind: str, megabytes: float) -> Path:
    """Write a file of a kind."""
    suffix, header, line = WRITERS[kind]
    block = "".join(f"{line(*row)}\n" for row in rows()).encode()
    path = folder / f"table.{suffix}"
    with path.open("wb") as file:
        file.write(header.encode())
        for _ in range(max(1, round(megabytes * 1e6 / len(block)))):
            file.write(block)
    return path


def speed(megabytes: float) -> None:
    """Print a row for each kind: seconds of processor time."""
    print(f"| {megabytes:g} MB of | MB/s | numbers, million cells/s |\n|---|---|---|")
    for kind in WRITERS:
        with tempfile.TemporaryDirectory() as folder:
            path = make(Path(folder), kind, megabytes)
            began = time.process_time()
            table = read_table(path)
            seconds = time.process_time() - began
            numeric = table.names[0] if table.facts(table.names[0]).numeric == 1 else None
            began, rate = time.process_time(), "–"
            if numeric is not None:
                table.numbers(numeric)
                rate = f"{len(table) / (time.process_time() - began) / 1e6:.2f}"
            print(f"| {kind} | {path.stat().st_size / seconds / 1e6:.0f} | {rate} |", flush=True)


def data_size() -> int:
    """Bytes of data of this process, as RLIMIT_DATA counts them (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))


def memory(megabytes: float) -> None:
    """Read a large TSV under a limit of 1 GiB of data, go through it, and print the peak."""
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder), "TSV", megabytes)
        before, peak, done = data_size(), [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                peak[0] = max(peak[0], data_size())

        resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
        watcher = threading.Thread(target=watch)
        watcher.start()
        table = read_table(path)
        characters = sum(map(len, table.text("2")))
        done.set()
        watcher.join()
        print(
            f"{os.path.getsize(path) / 1e6:.0f} MB, {len(table):,} rows, {characters:,} characters:"
            f" {(peak[0] - before) >> 20} MiB of data at most, above {before >> 20} MiB before"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100, help="of each file")
    parser.add_argument("--memory", type=float, help="megabytes of a TSV to read under a limit")
    given = parser.parse_args()
    if given.memory is None:
        speed(given.megabytes)
    else:
        memory(given.memory)
