"""Forecasting as a task: tables read, learned, resumed, kept, asked, and told what is wrong."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import polars
import pytest
import torch

import elman
from elman.cli import main
from elman.errors import FileError, InputError
from elman.tasks import build, load, model_file
from elman.tasks.forecast import Forecasting
from elman.tasks.forecast.trained import TrainedForecast
from elman.training.signals import Interrupted

SMALL = {"hidden": 4, "lags": "8", "windows": 16}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _wave(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A season of twelve, pushed by an input that is known ahead."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=count)
    return np.sin(np.arange(count) * np.pi / 6) + 0.5 * u + 0.05 * rng.normal(size=count), u


def _write(path: Path, y, u=None, first="2020-01-01", header="ds,y,u") -> Path:
    days = np.datetime64(first) + np.arange(len(y))
    u = np.zeros(len(y)) if u is None else u
    rows = (f"{d},{'' if np.isnan(a) else f'{a:.6f}'},{b:.6f}\n"
            for d, a, b in zip(days, y, u, strict=True))  # fmt: skip
    path.write_text(f"{header}\n" + "".join(rows))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    y, u = _wave(340)
    _write(folder / "train.csv", y[:240], u[:240])
    _write(folder / "test.csv", y[240:], u[240:], first="2020-08-28")
    _write(folder / "all.csv", y, u)
    return folder


@pytest.fixture(scope="module")
def run(data):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = elman.train("forecast", data / "train.csv", future="u", horizon=4, run=data / "run",
                         epochs=8, quiet=True, reports=[], **SMALL)  # fmt: skip
    torch.set_num_threads(before)
    return result


@pytest.fixture
def call(capsys, monkeypatch):
    """Call the command; the exit code, standard output and standard error."""

    def run_it(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


def test_it_learns_what_is_known_ahead(run, data):
    found = run.model.evaluate(data / "test.csv")
    assert found["rmse"] < 0.1  # the noise is 0.05; without the input it would be 0.5
    assert found["skill"] > 0.8
    assert found["mode"] == "4 steps ahead, in free run"
    assert found["baseline"]["name"] in found["baselines"]
    assert found["baselines"]["persistence"]["rmse"] > 0.5
    assert 0.6 < found["coverage"]["80"] <= found["coverage"]["95"] <= 1
    low, high = found["intervals"]["rmse"]
    assert low < found["rmse"] < high
    ends = found["baseline"]["gain"]
    assert ends[0] < found["baseline"]["rmse"] - found["rmse"] < ends[1]
    assert ("Use the baseline" in found["verdict"]) == (ends[0] <= 0)


def test_a_hair_better_is_level_in_training_and_in_evaluation(tmp_path):
    y = np.random.default_rng(4).normal(size=200)
    (tmp_path / "noise.csv").write_text("y\n" + "".join(f"{v:.4f}\n" for v in y))
    result = elman.train("forecast", tmp_path / "noise.csv", horizon=1, steps=3, lr=1e-4,
                         quiet=True, run=tmp_path / "r", reports=[], **SMALL)  # fmt: skip
    assert 0.999 < result.metrics["rmse"] / result.baseline["rmse"] < 1
    assert result.verdict.endswith("is level or ahead. Use the baseline, or train longer.")
    found = result.model.evaluate(tmp_path / "noise.csv")
    low, high = found["baseline"]["gain"]
    assert low <= 0 <= high
    assert "Use the baseline" in found["verdict"]
    said = result.model.in_words(found)
    assert any(line.startswith(f"rmse below that of {found['baseline']['name']}") for line in said)


def test_the_backtest_is_that_of_a_loop_over_origins(run, data):
    model, y = run.model, _wave(340)[0].round(6)
    found = model.evaluate(data / "test.csv")
    whole = model.read(data / "all.csv")[0]
    off = [
        model._forecast(whole, origin, 4).yhat - y[origin + 1 : origin + 5]
        for origin in range(239, 336)
    ]
    assert found["windows"] == len(off)
    assert found["values"] == 4 * len(off)
    assert found["rmse"] == pytest.approx(np.sqrt(np.square(off).mean()), rel=1e-5)
    assert found["mae"] == pytest.approx(np.abs(off).mean(), rel=1e-5)
    train = y[:240]
    cut = 240 - 36
    naive = np.abs(train[12:cut] - train[: cut - 12]).mean()
    assert found["mase"] == pytest.approx(np.abs(off).mean() / naive, rel=1e-5)
    last = np.stack([y[o + 1 : o + 5] - y[o] for o in range(239, 336)])
    persistence = np.sqrt(np.square(last).mean())
    assert found["baselines"]["persistence"]["rmse"] == pytest.approx(persistence, rel=1e-9)
    assert found["skill"] == pytest.approx(1 - found["rmse"] / persistence)


def test_context_may_come_from_training_from_a_file_or_from_the_same_file(run, data):
    plain = run.model.evaluate(data / "test.csv")
    given = run.model.evaluate(data / "test.csv", context=data / "train.csv")
    inside = run.model.evaluate(data / "all.csv", start="2020-08-28")
    assert plain == given == inside
    assert "note" not in plain
    seen = run.model.evaluate(data / "all.csv", start="2020-08-27")["note"]
    assert "steps up to 2020-08-27 were known" in seen
    thin = run.model.evaluate(data / "test.csv", stride=5)
    assert thin["windows"] == 20
    assert run.model.evaluate(data / "test.csv", origins=7)["windows"] == 7


def test_without_context_the_first_steps_are_read_and_not_scored(run, data, tmp_path):
    y, u = _wave(340)
    file = _write(tmp_path / "later.csv", y[300:], u[300:], first="2030-01-01")
    read = run.model.context  # of the seasonal naive forecast, twelve
    assert read == 12
    assert run.model.evaluate(file)["values"] == 4 * (40 - read - 3)


def test_forecasts_begin_behind_the_last_value_and_read_what_is_known_ahead(run, data, tmp_path):
    y, u = _wave(340)
    y[336:] = np.nan
    file = _write(tmp_path / "next.csv", y, u)
    rows = run.model.predict(file)
    assert [r["ds"] for r in rows] == ["2020-12-02", "2020-12-03", "2020-12-04", "2020-12-05"]
    truth = _wave(340)[0][336:]
    assert np.abs([r["yhat"] for r in rows] - truth).max() < 0.25
    for row in rows:
        assert row["lo-95"] <= row["lo-80"] <= row["yhat"] <= row["hi-80"] <= row["hi-95"]
    assert run.model.predict(file, horizon=2) == rows[:2]
    frame = polars.read_csv(file)
    assert run.model.predict(frame) == rows
    assert run.model.predict(frame.to_dicts()) == rows


def test_the_model_file_gives_the_same_model(run, data):
    again = load(run.run)
    assert isinstance(again, TrainedForecast)
    assert again.evaluate(data / "test.csv") == run.model.evaluate(data / "test.csv")
    (run.run / "baseline.safetensors").rename(run.run / "away")
    try:
        bare = load(run.run).evaluate(data / "all.csv", start="2020-08-28")
    finally:
        (run.run / "away").rename(run.run / "baseline.safetensors")
    assert "baseline" not in bare
    assert "no baseline was kept" in bare["note"]
    assert bare["rmse"] == pytest.approx(run.model.evaluate(data / "test.csv")["rmse"])


@pytest.mark.parametrize("options", [
    {"output": "gaussian"}, {"output": "quantile", "levels": "50,90"}, {"scaling": "log"},
    {"model": "encoder_decoder", "teacher_forcing": 0.5}, {"anchor": False, "linear": False},
    {"cell": "gru", "layers": 2, "dropout": 0.1},
], ids=lambda o: str(next(iter(o.values()))))  # fmt: skip
def test_every_kind_trains_and_comes_back(options, data, tmp_path):
    y, u = _wave(120)
    file = _write(tmp_path / "t.csv", y + 3, u)
    result = elman.train("forecast", file, future="u", horizon=3, epochs=3, run=tmp_path / "r",
                         quiet=True, reports=[], **(SMALL | options))  # fmt: skip
    again = load(tmp_path / "r")
    metrics = again.evaluate(file, start="2020-04-01")
    assert metrics == result.model.evaluate(file, start="2020-04-01")
    assert set(metrics["coverage"]) == {f"{v:g}" for v in again.network.output.levels}
    assert {"rmse", "mae", "mse", "mase", "skill"} <= set(metrics)
    if "model" in options:
        assert metrics["one_step"]["rmse"] > 0
        assert metrics["free_run"]["steps"] == 29
        ahead = [{"ds": f"2020-04-{30 + k:02d}" if k == 0 else f"2020-05-{k:02d}", "y": None,
                  "u": 0.0} for k in range(9)]  # fmt: skip
        rows = polars.read_csv(file).to_dicts() + ahead
        assert len(again.predict(rows, horizon=9)) == 9
        first, second = [record for _, record in again.answers(rows, horizon=9)][:2]
        assert "no intervals" in first["note"]
        assert "note" not in second


def test_a_batch_is_a_function_of_the_step_and_the_seed(data):
    tasks = [build("forecast", [data / "train.csv"], {"horizon": 2, **SMALL}, seed=3)
             for _ in range(2)]  # fmt: skip
    assert isinstance(tasks[0], Forecasting)
    for step in (40, 0, 7):
        for one, other in zip(*(t.batch(step) for t in tasks), strict=True):
            assert torch.equal(one, other)
    steps = tasks[0].steps_per_epoch
    seen = torch.cat([tasks[0].batch(s)[0] for s in range(steps)])
    assert len(torch.unique(seen, dim=0)) == len(tasks[0].windows)


def test_a_built_task_builds_itself_again(data):
    task = build("forecast", [data / "train.csv"], {"future": "u", "horizon": 2})
    again = build("forecast", [data / "train.csv"], task.config)
    assert again.config == task.config
    for one, other in zip(task.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(data, tmp_path, monkeypatch):
    def options(name):
        return {"run": tmp_path / name, "steps": 24, "validate_every": 10, "quiet": True,
                "reports": [], "horizon": 2, "dropout": 0.2, **SMALL}  # fmt: skip

    elman.train("forecast", data / "train.csv", **options("whole"))
    batch = Forecasting.batch

    def stopping(self, step):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(Forecasting, "batch", stopping)
    with pytest.raises(Interrupted):
        elman.train("forecast", data / "train.csv", **options("cut"))
    monkeypatch.undo()
    elman.train("forecast", run=tmp_path / "cut", resume=True, quiet=True, reports=[])
    for name in ("model.safetensors", "baseline.safetensors"):
        files = [tmp_path / folder / name for folder in ("whole", "cut")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["config"].update(hidden=5), "weight"),
        (lambda m: m["config"].update(hidden=10**9), "sizes do not fit"),
        (lambda m: m["series"].update(y=[0.0, -1.0, 0.0]), "scales of series"),
        (lambda m: m.update(grid={}), "grid of time"),
        (lambda m: m.pop("season"), "do not describe a model of series"),
        (lambda m: m["config"].update(future=""), "covariates do not fit"),
    ],
)
def test_an_altered_model_file_is_refused(run, tmp_path, change, message):
    name, metadata, tensors = model_file.read(run.run / "model.safetensors")
    change(metadata)
    model_file.write(tmp_path / "m", name, metadata, tensors)
    with pytest.raises(FileError, match=message):
        load(tmp_path / "m")


# Kinds of tables.


def _long(path: Path, lengths: dict[str, int], step: str = "D") -> Path:
    rows = ["unique_id,ds,y"]
    for i, (name, count) in enumerate(lengths.items()):
        days = np.datetime64("2021-01-01", step) + np.arange(count)
        rows += [f"{name},{d},{(k % 7) * (i + 1) + i:.3f}" for k, d in enumerate(days)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_long_table_is_several_series_each_with_its_scale(tmp_path):
    file = _long(tmp_path / "long.csv", {"a": 80, "b": 60, "short": 4})
    result = elman.train("forecast", file, horizon=3, epochs=4, run=tmp_path / "r", quiet=True,
                         reports=[], **SMALL)  # fmt: skip
    log = (tmp_path / "r/train.log").read_text()
    assert "id unique_id" in log
    assert "1 of 3 are too short for a horizon of 3" in log
    assert set(result.model.meaning.scale.y) == {"a", "b"}
    assert result.baseline["name"] == "seasonal naive (7)"
    assert result.baseline["rmse"] == 0
    assert "Use the baseline" in result.verdict
    rows = result.model.predict(_long(tmp_path / "new.csv", {"b": 61}))
    assert [r["unique_id"] for r in rows] == ["b"] * 3
    with pytest.raises(InputError, match=r"'short' was not in training.*training had a, b"):
        result.model.predict(file)


def test_columns_of_a_wide_table_are_series(tmp_path):
    t = np.arange(60)
    rows = [f"{d};{np.sin(k):.4f};{np.cos(k):.4f}" for k, d in enumerate(1900 + t)]
    (tmp_path / "w.csv").write_text("Year;north;south\n" + "\n".join(rows))
    task = build("forecast", [tmp_path / "w.csv"], {**SMALL})
    assert isinstance(task, Forecasting)
    assert "target north, south; time Year (one 1 a step)" in "\n".join(task.describe())
    one = build("forecast", [tmp_path / "w.csv"], {"target": "south", **SMALL})
    assert list(one.corpus.meaning.scale.y) == ["south"]


def test_rows_out_of_order_make_the_same_series(data, tmp_path):
    lines = (data / "train.csv").read_text().splitlines()
    mixed = np.random.default_rng(0).permutation(lines[1:])
    (tmp_path / "m.csv").write_text("\r\n".join(["\ufeff" + lines[0], *mixed]))
    tasks = [build("forecast", [f], SMALL) for f in (data / "train.csv", tmp_path / "m.csv")]
    for one, other in zip(*(t.batch(0) for t in tasks), strict=True):
        assert torch.equal(one, other)
    assert "not in order of time" in "\n".join(tasks[1].describe())


def test_holes_are_said_filled_and_never_scored(tmp_path):
    y, u = _wave(150)
    y[[30, 31, 120]] = np.nan
    file = _write(tmp_path / "h.csv", y, u)
    lines = file.read_text().splitlines()
    del lines[61]  # a day without a row
    file.write_text("\n".join(lines))
    task = build("forecast", [file], {"future": "u", "horizon": 2, **SMALL})
    said = "\n".join(task.describe())
    assert f"y: 3 of 149 values are missing (the first in {file}, line 32)" in said
    assert "1 of 150 steps have no row" in said
    result = elman.train("forecast", file, future="u", horizon=2, epochs=2, run=tmp_path / "r",
                         quiet=True, reports=[], **SMALL)  # fmt: skip
    found = result.model.evaluate(file)
    known = np.isfinite(y)
    known[60] = False
    first = result.model.context
    values = [known[o + 1 : o + 3].sum() for o in range(first - 1, 148) if known[o]]
    assert found["values"] == sum(values)


def test_validation_goes_on_where_training_ends(data):
    options = {"valid_file": str(data / "test.csv"), "horizon": 4, **SMALL}
    task = build("forecast", [data / "train.csv"], options)
    assert "goes on where training ends" in "\n".join(task.describe())
    assert len(task.valid) == 100 - 3
    assert len(task.windows) == 240 - 8 - 3


# The command line.


def test_train_predict_and_evaluate(data, tmp_path, call):
    where = tmp_path / "r"
    code, out, err = call("train", "forecast", data / "train.csv", "--future", "u", "--horizon",
                          4, "--epochs", 2, "--hidden", 4, "--run", where)  # fmt: skip
    assert code == 0, err
    assert out.strip() == str(where)
    assert "columns: target y; time ds (one day a step); future u" in err
    assert "diverged" not in err
    code, out, err = call("evaluate", where, data / "all.csv", "--from", "2020-08-28", "--json")
    found = json.loads(out)
    assert found == load(where).evaluate(data / "test.csv")
    code, out, err = call("evaluate", where, data / "test.csv", "--context", data / "train.csv",
                          "--stride", 4, "--origins", 9)  # fmt: skip
    assert code == 0, err
    assert out.startswith("4 steps ahead, in free run: 9 windows, 36 values scored\n")
    assert "persistence: rmse" in out
    rows = (data / "all.csv").read_text().splitlines()
    text = "\n".join([*rows[:-3], *(",".join([r.split(",")[0], "", r.split(",")[2]])
                                    for r in rows[-3:])])  # fmt: skip
    code, out, err = call("predict", where, "--horizon", 3, stdin=text)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "unique_id,ds,yhat,lo-80,hi-80,lo-95,hi-95"
    assert [line.split(",")[1] for line in lines[1:]] == ["2020-12-03", "2020-12-04", "2020-12-05"]
    code, out, _ = call("predict", where, "--horizon", 3, "--json", stdin=text)
    assert json.loads(out.splitlines()[0])["ds"] == "2020-12-03"


ROWS = "".join(f"2020-01-{d:02d},{d % 5}\n" for d in range(1, 32))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("ds,y\n" + ROWS, ["--target", "z"], "z"),
        ("ds,y\n" + ROWS, ["--future", "temp"], "temp"),
        ("ds,name\n2020-01-01,a\n2020-01-02,b\n", [], "no column of numbers to forecast"),
        ("ds,y\n" + ROWS + "2020-02-01,inf\n", [], "line 33"),
        ("ds,y\n" + ROWS + "2020-02-01,x1\n", [], "line 33"),
        ("ds,y\n" + ROWS + "2020-02-01,1,2\n", [], "line 33"),
        ("ds,y\n" + ROWS + "2020-01-05,1\n", [], "line 33: a second row for 2020-01-05"),
        ("ds,y\n" + ROWS + "someday,1\n", [], "'someday' of line 33 is no number and no date"),
        ("ds,y\n\n" + ROWS + ",1\n", [], "the time stamp of line 34 is missing"),
        ("ds,y\n" + ROWS, ["--horizon", "40"], "the longest series has 31 steps"),
        ("ds,y\n" + ROWS, ["--levels", "200"], "levels is '200'"),
        ("ds,y\n" + ROWS, ["--lags", "no"], "lags is 'no'"),
        ("ds,y\n" + ROWS, ["--cell", "lsmt"], "Did you mean 'lstm'?"),
        ("ds,y\n" + ROWS, ["--horizen", "3"], "Did you mean '--horizon'?"),
        (
            "ds,y,y2,id\n" + ROWS.replace("\n", ",1,a\n"),
            ["--target", "y,y2"],
            "name one with target",
        ),
        ("ds,y\n" + ROWS, ["--target", "y", "--future", "y"], "is the target and something else"),
        ("ds,y\n" + ROWS, ["--scaling", "log"], "has the value 0"),
        ("ds,y\n", [], ""),
        ("ds,y\n2020-01-01,1\n", [], "single time stamp"),
        ("ds,y\n" + ROWS.replace(",", ",nan #"), [], "line 2: column y: expected a number"),
        ("ds,y\n" + ROWS.replace(",", ",nan "), [], ""),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else v[-30:],
)
def test_what_is_wrong_is_said_before_anything_is_learned(text, options, message, tmp_path, call):
    file = tmp_path / "t.csv"
    file.write_text(text)
    code, out, err = call("train", "forecast", file, "--steps", 2, "--run", tmp_path / "run",
                          *options)  # fmt: skip
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "RUN", "TEST", "--stride", "0"], "stride is 0; expected 1 or more"),
        (["evaluate", "RUN", "TEST", "--from", "soon"], "'soon' of row 1 is no number"),
        (["evaluate", "RUN", "TEST", "--from", "12"], "are numbers; in training they were dates"),
        (["evaluate", "RUN", "TEST", "--from", "2031-01-01"], "there is no window to judge"),
        (["evaluate", "RUN", "TRAIN", "--context", "TEST"], "does not go on where the context"),
        (["predict", "RUN", "TEST"], "u must be known ahead, and of series 'y' it has no value at"),
        (["predict", "RUN", "TEST", "--horizon", "5"], "this model tells 4 steps"),
        (["evaluate", "RUN", "TEST", "--unknown", "skip"], "--unknown is for language models"),
    ],
    ids=lambda v: v if isinstance(v, str) else " ".join(v),
)
def test_a_wrong_question_is_one_line(arguments, message, run, data, call):
    places = {"TEST": data / "test.csv", "TRAIN": data / "train.csv", "RUN": run.run}
    code, out, err = call(*(places.get(a, a) for a in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_constant_series_is_learned_as_one(tmp_path):
    (tmp_path / "c.csv").write_text("y\n" + "5\n" * 60)
    result = elman.train("forecast", tmp_path / "c.csv", horizon=2, epochs=2, run=tmp_path / "r",
                         quiet=True, reports=[], **SMALL)  # fmt: skip
    assert "1 never change in training" in (tmp_path / "r/train.log").read_text()
    found = result.model.evaluate(tmp_path / "c.csv")
    assert found["mase"] is None
    assert "Use the baseline" in found["verdict"]
    json.dumps(found, allow_nan=False)
    told = [row["yhat"] for row in result.model.predict(tmp_path / "c.csv")]
    np.testing.assert_allclose(told, 5, atol=1e-3)
