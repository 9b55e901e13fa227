"""ETTh1, one series (oil temperature): many steps ahead, on the standard split.

    python benchmarks/ett.py --data DIR [--horizons 24 48 168 336 720] [--minutes 3] [--seeds 0]

DIR holds ett/ETTh1.csv. Rows 0–8,639 are for training, 8,640–11,519 for validation, 11,520–14,399
for testing (Zhou et al. 2021). The script writes the three parts into a temporary folder and trains
as the command line does, with file, columns, horizon and minutes only:

    elman train forecast train.csv --valid-file dev.csv --target OT --time date --horizon 24 \
        --minutes 3

Every window whose targets lie in the test part is counted (stride 1); what it reads may reach back.
Errors are squared, in deviations of the training part. Beside the network stand persistence; ridge
regression on 96 lags with an intercept, fitted here with NumPy alone, its strength the best on the
validation part; the best simple forecast that the run kept; and LSTMa and DeepAR as published (Zhou
et al. 2021, table 1).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np

import elman

CUTS = {"train": (0, 8640), "dev": (8640, 11520), "test": (11520, 14400)}
PUBLISHED = {24: (0.114, 0.107), 48: (0.193, 0.162), 168: (0.236, 0.239), 336: (0.590, 0.445),
             720: (0.683, 0.658)}  # fmt: skip
RIDGE_LAGS = 96


def divide(file: Path, folder: Path) -> np.ndarray:
    """Write the parts as files and return the target, scaled by its training part."""
    lines = file.read_text(encoding="utf-8").splitlines()
    for name, (start, end) in CUTS.items():
        part = [lines[0], *lines[start + 1 : end + 1]]
        (folder / f"{name}.csv").write_text("\n".join(part) + "\n", encoding="utf-8")
    values = np.array([float(row["OT"]) for row in csv.DictReader(lines)])
    train = values[slice(*CUTS["train"])]
    return (values - train.mean()) / train.std()


def windows(values: np.ndarray, part: str, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """What is read and told in all windows whose targets lie in a part."""
    start, end = CUTS[part]
    first = np.arange(max(start, RIDGE_LAGS), end - horizon + 1)
    read = np.lib.stride_tricks.sliding_window_view(values, RIDGE_LAGS)[first - RIDGE_LAGS]
    return read, np.lib.stride_tricks.sliding_window_view(values, horizon)[first]


def persistence(values: np.ndarray, horizon: int) -> float:
    """Mean squared error of the last value."""
    read, told = windows(values, "test", horizon)
    return float(np.square(told - read[:, -1:]).mean())


def ridge(values: np.ndarray, horizon: int) -> float:
    """Mean squared error of ridge regression, its strength chosen on the validation part."""
    read, told = windows(values, "train", horizon)
    mean_x, mean_y = read.mean(0), told.mean(0)
    x, y = read - mean_x, told - mean_y
    best = (np.inf, np.inf)
    for strength in 10.0 ** np.arange(-2, 7):
        weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)
        errors = []
        for part in ("dev", "test"):
            inputs, targets = windows(values, part, horizon)
            errors.append(np.square((inputs - mean_x) @ weights + mean_y - targets).mean())
        best = min(best, (errors[0], errors[1]))
    return float(best[1])


def main() -> None:
    """Train and print a row a horizon."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--horizons", type=int, nargs="+", default=sorted(PUBLISHED))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, help="where runs are kept; nowhere if not given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        values = divide(given.data / "ett" / "ETTh1.csv", folder)
        runs = given.runs or folder
        for horizon in given.horizons:
            print(row(values, folder, runs, horizon, given.minutes, given.seeds), flush=True)


def row(
    values: np.ndarray, folder: Path, runs: Path, horizon: int, minutes: float, seeds: list[int]
) -> str:
    """Train at one horizon and return its row."""
    found, seconds = [], []
    for seed in seeds:
        began = time.monotonic()
        result = elman.train(
            "forecast", folder / "train.csv", valid_file=str(folder / "dev.csv"), target="OT",
            time="date", horizon=horizon, minutes=minutes, seed=seed, quiet=True, reports=[],
            run=runs / f"ett-{horizon}-{seed}", overwrite=True,
        )  # fmt: skip
        seconds.append(time.monotonic() - began)
        found.append(result.model.evaluate(folder / "test.csv"))
    errors = [f["mse_scaled"] for f in found]
    low, high = found[0]["intervals"]["mse_scaled"]
    simple, naive = found[0]["baseline"], ridge(values, horizon)
    kept = found[0]["baselines"]["persistence"]["mse_scaled"]
    theirs = persistence(values, horizon)
    if abs(kept - theirs) > 1e-6:
        raise SystemExit(f"persistence is {kept} in the backtest and {theirs} here")
    cover = found[0]["coverage"]
    lstma, deepar = PUBLISHED.get(horizon, (float("nan"),) * 2)
    return (
        f"horizon {horizon}: MSE {np.mean(errors):.4f} (95 % {low:.4f}–{high:.4f}; seeds "
        f"{', '.join(f'{e:.4f}' for e in errors)}); persistence {theirs:.4f}; ridge on "
        f"{RIDGE_LAGS} lags {naive:.4f} (ours / ridge {np.mean(errors) / naive:.3f}); best simple "
        f"forecast of the run {simple['name']} {simple['mse_scaled']:.4f}; LSTMa {lstma:.3f}, "
        f"DeepAR {deepar:.3f}; {found[0]['windows']:,} windows; coverage 80 % {cover['80']:.1%}, "
        f"95 % {cover['95']:.1%}; {np.mean(seconds):.0f} s"
    )


if __name__ == "__main__":
    main()
