"""NARX from a file to figures: trained in closed loop, ahead of the linear model, and restored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import elman
from elman.cli import main
from elman.errors import InputError
from elman.tasks import build


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _write(path: Path, rows: int, seed: int) -> Path:
    """A driven oscillator on a stiffening spring."""
    draw = np.random.default_rng(seed)
    u = np.convolve(draw.normal(size=rows + 4), np.ones(5) / 5, mode="valid")
    y = np.zeros(rows)
    for t in range(2, rows):
        y[t] = 1.5 * y[t - 1] - 0.7 * y[t - 2] + 0.4 * u[t - 1] - 0.15 * y[t - 1] ** 3
    table = np.column_stack([u, y + 0.01 * draw.normal(size=rows)])
    text = "".join(f"{a:.5f},{b:.5f}\n" for a, b in table)
    path.write_text("force,place\n" + text)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("systems")
    return _write(folder / "train.csv", 700, 1), _write(folder / "test.csv", 250, 2)


@pytest.fixture(scope="module")
def run(files, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "spring"
    elman.train(
        "forecast", files[0], run=folder, target="place", future="force", model="narx",
        lags="2,1,1", window=40, steps=60, lr=0.006, quiet=True,
    )  # fmt: skip
    return folder


def test_it_is_ahead_of_the_linear_model_in_both_ways(run, files):
    found = elman.load(run).evaluate(files[1])
    assert found["mode"] == "one-step"
    for part in (found, found["free_run"]):
        linear = part["baselines"]["linear ARX (2, 1, 1)"]
        assert part["rmse"] < 0.9 * linear["rmse"]
        low, high = part["intervals"]["rmse"]
        assert low < part["rmse"] < high
    assert found["free_run"]["rmse"] > 0.8 * found["rmse"]  # of its own values it knows no more
    assert "this model is ahead" in found["verdict"]
    lines = elman.load(run).in_words(found)
    assert f"one-step: {found['verdict']}" in lines
    assert f"free run over all steps: {found['free_run']['verdict']}" in lines


def test_free_run_is_the_network_on_the_whole_file(run, files):
    model = elman.load(run)
    found = model.evaluate(files[1])
    table = np.loadtxt(files[1], delimiter=",", skiprows=1)
    steps = found["free_run"]["steps"]
    start = len(table) - steps
    scale = model.meaning.scale
    mean, deviation = scale.y["place"]
    u = (table[:, 0] - scale.future[0, 0]) / scale.future[0, 1]
    y = ((table[:, 1] - mean) / deviation).tolist()[:start]
    weight = {
        n: w.detach().double().numpy() for n, w in model.network.forecaster.layer.named_parameters()
    }
    for t in range(start, len(table)):
        a = weight["b_l0"] + weight["W_1_l0"][:, 0] * u[t - 1]
        a = a + weight["U_1_l0"][:, 0] * y[t - 1] + weight["U_2_l0"][:, 0] * y[t - 2]
        line = weight["d_l0"] + weight["B_1_l0"][:, 0] * u[t - 1]
        line = line + weight["A_1_l0"][:, 0] * y[t - 1] + weight["A_2_l0"][:, 0] * y[t - 2]
        y.append(float((line + weight["V_l0"] @ (a - np.tanh(a)))[0]))
    told = np.array(y[start:]) * deviation + mean
    error = np.sqrt(np.mean((told - table[start:, 1]) ** 2))
    assert found["free_run"]["rmse"] == pytest.approx(error, rel=1e-6)


def test_the_next_steps_are_told_where_the_input_is_known(run, files, tmp_path, capsys):
    lines = files[1].read_text().splitlines()
    ahead = tmp_path / "ahead.csv"
    ahead.write_text(
        "\n".join([*lines[:101], *(f"{line.split(',')[0]}," for line in lines[101:111])])
    )
    assert main(["predict", str(run), str(ahead), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 1
    told = elman.load(run).predict(ahead, horizon=10)
    came = [float(line.split(",")[1]) for line in lines[101:111]]
    assert len(told) == 10
    off = np.array([r["yhat"] for r in told]) - came
    last = float(lines[100].split(",")[1])
    assert np.square(off).mean() < 0.1 * np.square(np.array(came) - last).mean()
    assert told[0]["yhat"] == pytest.approx(rows[0]["yhat"], rel=1e-5)


def test_the_same_seed_is_the_same_model_and_another_is_not(files):
    def weights(seed: int) -> torch.Tensor:
        options = {"target": "place", "future": "force", "model": "narx", "lags": "2,1,1"}
        return build("forecast", [files[0]], options, seed=seed).model.forecaster.as_vector()

    assert weights(4).equal(weights(4))
    assert not weights(4).equal(weights(5))


def test_lags_are_found_and_said(files):
    task = build("forecast", [files[0]], {"target": "place", "future": "force", "model": "narx"})
    outputs, inputs, dead = map(int, task.config.lags.split(","))
    assert outputs >= 2
    assert dead <= 1 < dead + inputs
    words = "\n".join(task.describe())
    assert f"y at delays 1 to {outputs}" in words
    assert "closed loop (parallel: its own values fed)" in words
    assert any(name.startswith("linear ARX") for name in task.baselines.names())


def test_closed_after_open_begins_better_than_the_linear_model(files):
    options = {
        "target": "place", "future": "force", "model": "narx", "lags": "2,1,1",
        "training": "closed-after-open",
    }  # fmt: skip
    task = build("forecast", [files[0]], options)
    began = task.validate()["rmse"]
    assert (
        began
        < 0.95 * build("forecast", [files[0]], options | {"training": "closed"}).validate()["rmse"]
    )
    assert "Levenberg" in task.network.forecaster.describe()


def test_a_sure_forecast_trained_on_one_step_is_refused(files):
    options = {"target": "place", "future": "force", "model": "narx", "output": "quantile",
               "training": "open", "horizon": 4}  # fmt: skip
    with pytest.raises(InputError, match="train it closed"):
        build("forecast", [files[0]], options)


@pytest.mark.parametrize("output", ["gaussian", "quantile"])
def test_intervals_of_a_closed_loop_hold_about_what_they_say(files, tmp_path, output):
    elman.train(
        "forecast", files[0], run=tmp_path / "r", target="place", future="force", model="narx",
        lags="2,1,1", window=8, horizon=8, steps=120, lr=0.006, output=output, quiet=True,
    )  # fmt: skip
    coverage = elman.load(tmp_path / "r").evaluate(files[1])["coverage"]
    assert 0.6 < coverage["80"] < 0.97
    assert coverage["95"] > coverage["80"]
