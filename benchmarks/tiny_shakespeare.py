"""Nats a character on tiny-shakespeare after a number of minutes, nothing named but file and time.

    python benchmarks/tiny_shakespeare.py --data DIR [--minutes 3 15] [--seeds 1]

DIR holds `tiny-shakespeare/input.txt` (1,115,394 characters). The last 10 % are the validation
part. Prints one row a run, as the table in benchmarks/RESULTS.md has them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3.0, 15.0])
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    text = arguments.data / "tiny-shakespeare" / "input.txt"
    print("| minutes | seed | nats a character | Kneser–Ney | wall seconds |")
    print("|---|---|---|---|---|")
    for minutes in arguments.minutes:
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                start = time.perf_counter()
                command = ["train", "lm", text, "--minutes", minutes, "--seed", seed, "--run", run]
                done = subprocess.run(
                    [sys.executable, "-m", "elman", *map(str, command), "--quiet", "--json"],
                    stdout=subprocess.PIPE,
                    check=True,
                )
                seconds = time.perf_counter() - start
                result = json.loads(done.stdout)
                print(
                    f"| {minutes:g} | {seed} | {result['metrics']['nats_per_char']:.4f} "
                    f"| {result['baseline']['nats_per_char']:.4f} | {seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
