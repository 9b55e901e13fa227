"""The pictures of forecasts, by what is drawn in them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import elman
from elman.cli import main
from elman.errors import FileError
from elman.plots import forecast as pictures
from elman.plots import runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    u = rng.normal(size=200)
    y = np.sin(np.arange(200) / 3) + 0.3 * u + 0.1 * rng.normal(size=200)
    rows = "".join(f"{a:.4f},{b:.4f}\n" for a, b in zip(y, u, strict=True))
    (folder / "t.csv").write_text("y,u\n" + rows)
    result = elman.train("forecast", folder / "t.csv", target="y", past="u", horizon=3, epochs=2,
                         hidden=3, lags="6", run=folder / "run", quiet=True)  # fmt: skip
    torch.set_num_threads(before)
    return result


def test_a_finished_run_has_its_forecasts_and_what_is_left_in_its_errors(run):
    kept = json.loads((run.run / "keepsake.json").read_text())
    y = np.loadtxt(run.run.parent / "t.csv", delimiter=",", skiprows=1)[:, 0]
    for one in kept["forecasts"]:
        first = int(one["from"]) - 1
        np.testing.assert_allclose(one["came"], y[first : first + 3], rtol=1e-5)
        np.testing.assert_allclose(one["history"], y[max(0, first - 200) : first], rtol=1e-5)
    errors = np.array(kept["residuals"]["errors"], dtype=float)
    cut = 200 - 30  # the last 15 %
    series = run.model.read(run.run.parent / "t.csv")[0]
    told = [run.model._forecast(series, origin, 1).yhat[0] for origin in range(cut - 1, 197)]
    mean, deviation = run.model.meaning.scale.y["y"]
    np.testing.assert_allclose(errors * deviation, y[cut:198] - told, atol=1e-4)
    assert np.isfinite(mean)
    for name in ("forecast.png", "residuals.png", "training.png"):
        assert (run.run / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_a_forecast_is_drawn_behind_its_history(tmp_path):
    axes = Figure().subplots()
    told = np.array([1.0, 2.0])
    ends = {"80": told - 1, "95": told - 2}, {"80": told + 1, "95": told + 2}
    pictures.forecast(axes, np.arange(100.0), told, np.array([3.0]), low=ends[0], high=ends[1],
                      title="a")  # fmt: skip
    history, came, line = axes.lines[:3]
    assert history.get_xdata().tolist() == list(range(-39, 1))
    assert history.get_ydata()[-1] == 99
    assert (came.get_xdata().tolist(), came.get_ydata().tolist()) == ([1], [3.0])
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1, 2], [1.0, 2.0])
    assert [c.get_label() for c in axes.collections] == ["95 % interval", "80 % interval"]


def test_the_next_steps_are_drawn(run, tmp_path, capsys):
    file = run.run.parent / "t.csv"
    assert main(["predict", str(run.run), str(file), "--plot", str(tmp_path / "n.png")]) == 0
    assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")
    assert "picture:" in capsys.readouterr().err


def test_a_damaged_keepsake_is_named(run, tmp_path):
    (tmp_path / "keepsake.json").write_text('{"forecasts": 3}')
    with pytest.raises(FileError, match=r"keepsake\.json: damaged"):
        pictures.of_run(tmp_path)
    with pytest.raises(FileError, match=r"keepsake\.json: damaged"):
        pictures.residuals_of_run(tmp_path)
    assert pictures.of_run(tmp_path / "nowhere") == []
    assert pictures.residuals_of_run(tmp_path / "nowhere") == []


def test_a_picture_that_cannot_be_drawn_is_a_line_and_ends_no_run(tmp_path, capsys, monkeypatch):
    (tmp_path / "c.csv").write_text("ds,y\n" + "".join(f"{i},5\n" for i in range(300)))
    options = ["--steps", "1", "--hidden", "3", "--lags", "4", "--run", str(tmp_path / "r")]
    assert main(["train", "forecast", str(tmp_path / "c.csv"), *options]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'r'}\n"
    assert "forecast.png" in err
    assert "a picture is missing: residuals: the errors are all alike" in err

    def broken(*arguments, **options):
        raise RuntimeError("no paper")

    monkeypatch.setattr(pictures, "examples", broken)
    assert runs.report(tmp_path / "r")[-2] == "a picture is missing: RuntimeError: no paper"


def test_what_a_metric_is_of_has_its_article():
    units = [runs._unit(name) for name in ("nats_per_item", "nats_per_char", "rmse")]
    assert units == ["nats an item", "nats a character", "rmse"]
