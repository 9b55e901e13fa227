"""Systems and a chaotic series: NARX against linear models and against sysidentpy's NARXNN.

    python benchmarks/system_id.py gas --data DIR [--seeds 3]
    python benchmarks/system_id.py silverbox --data DIR [--minutes 12]
    python benchmarks/system_id.py sunspots --data DIR [--seeds 3]

Training names a file, its columns, the model and minutes; everything else is chosen by
`elman train forecast`. Gas furnace: rows 1 to 200 are trained on (the last 15 % of them judge while
training), rows 201 to 296 are the test. Silverbox: the first 75 % of the multisine rows 40,650 to
127,399 are trained on, the arrow rows 100 to 40,574 are the test, in one free run from its first
outputs; the part without extrapolation is its first 32,000 rows. Sunspots: 1700 to 1920 and 1921 to
2008, one step ahead. Rows are counted from 0 in Silverbox, as its users do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

import elman

GAS, SILVERBOX, SUNSPOTS = (
    "system-id/gasrate_co2.csv", "system-id/silverbox.csv", "chaotic/sunspots.csv",
)  # fmt: skip
GAS_TRAIN, GAS_VALID = 200, 170


def rows_of(source: Path, target: Path, first: int, end: int) -> Path:
    """Write the header and some rows, counted from 0, of a file into another."""
    header, *rows = source.read_text().splitlines()
    target.write_text("\n".join([header, *rows[first:end]]) + "\n")
    return target


def train(file: Path, run: Path, minutes: float, seed: int, **columns: str) -> tuple[Any, float]:
    """Train as the command line does and return the model and the seconds it took."""
    began = time.monotonic()
    elman.train("forecast", file, run=run, model="narx", minutes=minutes, seed=seed, quiet=True,
                **columns)  # fmt: skip
    return elman.load(run), time.monotonic() - began


def say(name: str, found: Mapping[str, Any], unit: float = 1.0) -> None:
    low, high = (unit * v for v in found["intervals"]["rmse"])
    print(f"  {name}: RMSE {unit * found['rmse']:.4g} ({low:.4g}–{high:.4g})", flush=True)


def both_modes(found: Mapping[str, Any], unit: float = 1.0) -> None:
    """Print one-step and free-run figures of a model and of the simple forecasts."""
    for mode, part in (("one-step", found), ("free run", found["free_run"])):
        say(f"{mode}, NARX", part, unit)
        for name, other in part["baselines"].items():
            say(f"{mode}, {name}", other, unit)


# -- gas furnace -------------------------------------------------------------------------------


def gas(data: Path, folder: Path, seeds: int) -> None:
    """Gas rate in, CO2 out."""
    source = data / GAS
    file = rows_of(source, folder / "gas.csv", 0, GAS_TRAIN)
    columns = {"target": "CO2%", "future": "GasRate(ft3/min)"}
    ours = []
    for seed in range(seeds):
        model, seconds = train(file, folder / f"gas{seed}", 5, seed, **columns)
        found = model.evaluate(source, start=str(GAS_TRAIN + 1))
        ours.append((found["rmse"], found["free_run"]["rmse"]))
        print(f"gas furnace, seed {seed}, {seconds:.0f} s, lags {model.options.lags}")
        both_modes(found)
    one, free = (mean(v) for v in zip(*ours, strict=True))
    print(f"gas furnace, mean of {seeds} seeds: one-step {one:.4f}, free run {free:.4f}")
    order = [int(part) for part in model.options.lags.split(",")]
    others(np.loadtxt(source, delimiter=",", skiprows=1), order, seeds)


def others(table: np.ndarray, order: list[int], seeds: int) -> None:
    """Print sysidentpy's NARXNN at the same lags, over settings of its own.

    Its inputs begin at delay 1, so the last delay of ours is its number of input lags.
    """
    outputs, inputs = order[0], order[1] + order[2] - 1
    rows = []
    for hidden in (8, 30):
        for rate in (1e-2, 1e-3):
            for epochs in (200, 1000):
                tried = [peer(table, outputs, inputs, hidden, rate, epochs, s) for s in
                         range(seeds)]  # fmt: skip
                figures = np.mean(tried, 0)
                rows.append((*figures, f"{hidden} tanh units, rate {rate:g}, {epochs} epochs"))
                print(f"  sysidentpy, {rows[-1][-1]}: validation {figures[0]:.4f}, test one-step "
                      f"{figures[1]:.4f}, free run {figures[2]:.4f}", flush=True)  # fmt: skip
    chosen = min(rows)
    print(f"sysidentpy NARXNN, setting by validation ({chosen[-1]}), mean of {seeds} seeds: "
          f"one-step {chosen[1]:.4f}, free run {chosen[2]:.4f}")  # fmt: skip
    print(f"sysidentpy NARXNN, the best setting on the test itself: one-step "
          f"{min(r[1] for r in rows):.4f}, free run {min(r[2] for r in rows):.4f}")  # fmt: skip


def peer(
    table: np.ndarray,
    outputs: int,
    inputs: int,
    hidden: int,
    rate: float,
    epochs: int,
    seed: int,
) -> tuple[float, float, float]:
    """Train sysidentpy's NARXNN on standardised data; RMSE of validation, one step, free run."""
    from sysidentpy.basis_function import Polynomial
    from sysidentpy.neural_network import NARXNN

    torch.manual_seed(seed)
    middle, deviation = table[:GAS_VALID].mean(0), table[:GAS_VALID].std(0)
    scaled = (table - middle) / deviation
    x, y = scaled[:, :1], scaled[:, 1:]
    net = torch.nn.Sequential(torch.nn.Linear(outputs + inputs, hidden), torch.nn.Tanh(),
                              torch.nn.Linear(hidden, 1))  # fmt: skip
    model = NARXNN(ylag=outputs, xlag=inputs, basis_function=Polynomial(degree=1),
                   model_type="NARMAX", batch_size=32, learning_rate=rate, epochs=epochs,
                   loss_func="mse_loss", optim_params={}, optimizer="Adam", net=net)  # fmt: skip
    model.fit(X=x[:GAS_VALID], y=y[:GAS_VALID])
    reach = max(outputs, inputs)

    def error(first: int, end: int, steps_ahead: int | None) -> float:
        cut = slice(first - reach, end)
        told = model.predict(X=x[cut], y=y[cut], steps_ahead=steps_ahead)
        off = (told[reach:] - y[cut][reach:]) * deviation[1]
        return float(np.sqrt(np.mean(np.square(off))))

    end = len(table)
    return (error(GAS_VALID, GAS_TRAIN, 1), error(GAS_TRAIN, end, 1), error(GAS_TRAIN, end, None))


# -- Silverbox ---------------------------------------------------------------------------------


def silverbox(data: Path, folder: Path, minutes: float, seed: int) -> None:
    """An electronic circuit like a mass on a stiffening spring."""
    source = data / SILVERBOX
    end = 40_650 + int(0.75 * (127_400 - 40_650))
    file = rows_of(source, folder / "multisine.csv", 40_650, end)
    model, seconds = train(file, folder / "silverbox", minutes, seed, target="V2", future="V1")
    print(f"Silverbox, seed {seed}, {seconds:.0f} s, lags {model.options.lags}; figures in mV")
    for name, last in (("arrow", 40_575), ("arrow without extrapolation", 32_100)):
        found = model.evaluate(rows_of(source, folder / "arrow.csv", 100, last))
        print(f"{name}: {found['free_run']['steps']:,} steps scored in free run")
        both_modes(found, 1000.0)


# -- sunspots ----------------------------------------------------------------------------------


def sunspots(data: Path, folder: Path, seeds: int) -> None:
    """The yearly number of sunspots."""
    source = data / SUNSPOTS
    file = rows_of(source, folder / "sunspots.csv", 0, 221)
    ours = []
    columns = {"target": "SUNACTIVITY", "time": "YEAR"}
    for seed in range(seeds):
        model, seconds = train(file, folder / f"sunspots{seed}", 5, seed, **columns)
        found = model.evaluate(source, start="1921")
        ours.append(found["rmse"])
        print(f"sunspots, seed {seed}, {seconds:.0f} s, lags {model.options.lags}, "
              f"scaling {model.options.scaling}")  # fmt: skip
        say("one-step, NARX", found)
        for name, other in found["baselines"].items():
            say(f"one-step, {name}", other)
    print(f"sunspots, mean of {seeds} seeds: one-step {mean(ours):.3f}")
    y = np.loadtxt(source, delimiter=",", skiprows=1)[:, 1]
    for name, change, back in (("AR(9)", np.array, np.array), ("AR(9) on √y", np.sqrt, np.square)):
        z = change(y)
        rows = np.column_stack(
            [z[9 - k : len(z) - k] for k in range(1, 10)] + [np.ones(len(z) - 9)]
        )
        weights = np.linalg.lstsq(rows[:212], z[9:221], rcond=None)[0]
        off = back(rows[212:] @ weights) - y[221:]
        print(f"  {name} fitted on 1700–1920: RMSE {np.sqrt(np.mean(off**2)):.3f}")


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=("gas", "silverbox", "sunspots"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.which == "silverbox":
            silverbox(given.data, folder, given.minutes, given.seed)
        elif given.which == "gas":
            gas(given.data, folder, given.seeds)
        else:
            sunspots(given.data, folder, given.seeds)


if __name__ == "__main__":
    main()
