"""Runs of the toy: what they give, when they stop, what they leave behind, what they refuse."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_toy import Toy

from elman.errors import FileError, InputError, RunError, TrainingStopped
from elman.tasks import model_file
from elman.training import Result, train
from elman.training.blowup import worst_gradient
from elman.training.folder import RunFolder, next_name, read_metrics
from elman.training.signals import StopSignals

STEPS = 12


@pytest.fixture(autouse=True)
def one_thread():
    """The toy is too small for two threads, which would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def go(run: Path, task: Toy | None = None, **options: Any) -> Result:
    """Train the toy quietly on the CPU in float32, for twelve steps."""
    plain = {"steps": STEPS, "validate_every": 4, "device": "cpu", "precision": "32", "quiet": True}
    if "minutes" in options or "epochs" in options:
        del plain["steps"]
    return train(task or Toy(), run=run, **{**plain, **options})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return model_file.read(RunFolder(run).model)[2]


def same(first: Path, second: Path) -> bool:
    ours, theirs = weights(first), weights(second)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_learns_and_leaves_its_folder(tmp_path):
    result = go(tmp_path / "run", steps=150, validate_every=0, lr=0.02)
    assert result.metrics["nats_per_char"] < 1.6 < result.baseline["nats_per_char"]
    assert (result.verdict, result.steps) == ("the network is ahead", 150)
    assert result.run == tmp_path / "run"
    names = sorted(p.name for p in result.run.iterdir())
    assert names == [
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "model.safetensors",
        "plots",
        "result.json",
        "train.log",
    ]
    assert len(os.listdir(result.run / "checkpoints")) == 2
    kept = json.loads(RunFolder(result.run).result.read_text())
    assert kept["metrics"] == result.metrics
    assert not result.model.training
    found = result.model(torch.tensor([[0], [1]]), None)[0]
    assert torch.isfinite(found).all()


def test_rows_of_metrics(tmp_path):
    go(tmp_path / "run", l2=0.01, schedule="linear", warmup=0.0, lr=0.1)
    rows = list(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    steps = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    assert steps[3]["lr"] == pytest.approx(0.1 * (1 - 3 / STEPS))
    assert all(row["penalty"] > 0 and row["gradient_norm"] > 0 for row in steps)
    assert steps[-1]["tokens"] == STEPS * 32
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [4, 8, 12]


def test_the_seed_and_nothing_else_decides_the_bits(tmp_path, capfd):
    go(tmp_path / "a", Toy(seed=1), seed=1)
    torch.manual_seed(99)
    go(tmp_path / "b", Toy(seed=1), seed=1, validate_every=1, quiet=False)
    go(tmp_path / "c", Toy(seed=1), seed=2)
    _, _, tensors = model_file.read(RunFolder(tmp_path / "a").last)
    _, _, others = model_file.read(RunFolder(tmp_path / "b").last)
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert not same(tmp_path / "a", tmp_path / "c")
    assert capfd.readouterr().out == ""


def test_settings_of_the_process_are_put_back(tmp_path):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    handler = signal.getsignal(signal.SIGINT)
    go(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002
    assert signal.getsignal(signal.SIGINT) is handler
    assert (torch.tensor([1e-310], dtype=torch.float64) * 1.0).item() != 0.0


class Worse(Toy):
    """A toy whose validations are known beforehand."""

    values = (2.0, 1.5, 1.7, 1.6, 1.5, 0.1)

    def validate(self, limit=None):
        value = self.values[self.validations]
        self.validations += 1
        if value == 1.5 and self.validations == 2:
            self.best = {name: w.clone() for name, w in self.model.state_dict().items()}
        return {"nats_per_char": value}


def test_early_stopping_keeps_the_best(tmp_path):
    task = Worse()
    result = go(tmp_path / "run", task, steps=100, patience=3)
    assert result.ended == "no gain in 3 validations"
    assert (result.steps, result.metrics) == (20, {"nats_per_char": 1.5})
    assert all(torch.equal(value, task.best[name]) for name, value in weights(result.run).items())


def test_patience_goes_on_counting_where_it_stood(tmp_path):
    task = Worse()
    task.blow_up_at = 13  # after the third validation, the first without a gain
    with pytest.raises(TrainingStopped):
        go(tmp_path / "run", task, steps=100, patience=3)
    result = train(task, run=tmp_path / "run", resume=True, quiet=True)
    assert (result.steps, result.ended) == (20, "no gain in 3 validations")
    assert all(torch.equal(value, task.best[name]) for name, value in weights(result.run).items())


def test_the_average_is_what_is_judged_and_kept(tmp_path):
    go(tmp_path / "plain")
    go(tmp_path / "mean", ema=0.5)
    assert not same(tmp_path / "plain", tmp_path / "mean")
    _, _, plain = model_file.read(RunFolder(tmp_path / "plain").last)
    _, _, mean = model_file.read(RunFolder(tmp_path / "mean").last)
    name = "model.head.weight"
    assert torch.equal(plain[name], mean[name])  # the training itself is the same
    kept = weights(tmp_path / "mean")["head.weight"]
    assert any(torch.equal(kept, value) for key, value in mean.items() if "average" in key)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    task = Toy()
    task.blow_up_at = 8  # the ninth step
    with pytest.raises(TrainingStopped) as caught:
        go(tmp_path / "run", task, checkpoint_every=3)
    said = str(caught.value)
    assert "step 9: the loss is not finite" in said
    assert "a gradient that is not finite, the first embed.weight" in said
    assert "Try a smaller learning rate (lr=0.0005), tighter clipping (clip_norm=0.25)" in said
    assert "The last good checkpoint, of step 8" in said
    assert caught.value.exit_code == 1
    folder = RunFolder(tmp_path / "run")
    assert said in folder.log.read_text(encoding="utf-8")
    assert not folder.model.exists()
    _, _, tensors = model_file.read(folder.last)
    assert all(torch.isfinite(value.double()).all() for value in tensors.values())
    resumed = go(tmp_path / "run", resume=True, lr=0.001)
    assert resumed.steps == STEPS


def test_a_validation_that_is_not_finite_stops_the_run(tmp_path):
    class Broken(Toy):
        def validate(self, limit=None):
            return {"nats_per_char": float("nan")}

    with pytest.raises(TrainingStopped, match="step 4: the validation loss is nan"):
        go(tmp_path / "run", Broken(), ema=0.5)


def test_the_worst_gradient_is_named():
    model = Toy().model
    assert worst_gradient(model) == ("", -1.0, 0)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    model.head.bias.grad = torch.full_like(model.head.bias, 1e30)
    assert worst_gradient(model)[0] == "head.bias"
    model.lstm.weight_hh_l0.grad[3, 2] = float("nan")
    model.head.weight.grad[0, 0] = float("inf")
    name, _, bad = worst_gradient(model)
    assert (name, bad) == ("lstm.weight_hh_l0", 2)


def test_the_second_signal_stops_at_once():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_minutes_are_minutes(tmp_path):
    started = time.monotonic()
    result = go(tmp_path / "run", Toy(pause=0.01), minutes=0.05, validate_every=0)
    assert 2.0 < time.monotonic() - started < 4.5
    assert result.ended == "0.05 minutes"
    rows = list(read_metrics(result.run / "metrics.jsonl"))
    judged = [row for row in rows if row["kind"] == "validation"]
    assert 3 <= len(judged) <= 12
    rates = [row["lr"] for row in rows if row["kind"] == "train"]
    assert rates[-1] < 0.1 * max(rates)


def test_on_much_text_only_a_part_is_validated(tmp_path):
    limits = []

    class Long(Toy):
        def validate(self, limit=None):
            limits.append(limit)
            return super().validate(limit)

    task = Long()
    task.steps_per_epoch = 30
    go(tmp_path / "run", task)
    assert limits == [0.1, 0.1, 0.1, None]


@pytest.mark.parametrize("precision", ["bf16", "64"])
def test_other_precisions_train(tmp_path, precision):
    result = go(tmp_path / "run", precision=precision)
    kind = torch.float64 if precision == "64" else torch.float32
    assert all(value.dtype == kind for value in weights(result.run).values())
    resumed = go(tmp_path / "run", resume=True, precision=precision, steps=2 * STEPS)
    assert resumed.steps == 2 * STEPS


def test_a_folder_with_a_run_is_not_written_over_unless_asked(tmp_path):
    run = go(tmp_path / "run").run
    before = weights(run)["head.bias"].clone()
    with pytest.raises(RunError, match="already holds a run"):
        go(run, seed=5)
    with pytest.raises(InputError, match="lr"):
        go(run, overwrite=True, lr=-1.0)
    assert torch.equal(weights(run)["head.bias"], before)
    go(run, overwrite=True, seed=5)
    assert not torch.equal(weights(run)["head.bias"], before)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match=r"thesis\.tex is in it"):
        go(tmp_path, overwrite=True)
    with pytest.raises(RunError, match="is a file"):
        go(tmp_path / "thesis.tex")
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_names_of_runs_are_new(tmp_path):
    assert next_name("lm", "War & Peace", tmp_path).name == "lm-war-peace-001"
    assert next_name("lm", "War & Peace", tmp_path).name == "lm-war-peace-002"
    assert next_name("lm", "红楼梦", tmp_path).name == "lm-红楼梦-001"
    assert next_name("lm", "..", tmp_path).name == "lm-run-001"


def test_weights_of_another_run(tmp_path):
    first = go(tmp_path / "a").run
    go(tmp_path / "b", Toy(seed=4), steps=0, init_from=first)
    assert same(tmp_path / "b", first)
    rows = list(read_metrics(tmp_path / "b" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [0]
    with pytest.raises(FileError, match="there is no model in this folder"):
        go(tmp_path / "c", init_from=tmp_path)
    with pytest.raises(FileError, match="this is a checkpoint"):
        go(tmp_path / "c", init_from=RunFolder(first).last)
    with pytest.raises(InputError, match="resume goes on with a run as it is"):
        go(first, resume=True, init_from=first)
    other = Toy()
    other.metadata = lambda: {"vocabulary": 99}
    with pytest.raises(InputError, match="another vocabulary"):
        go(tmp_path / "c", other, init_from=first)
    assert not (tmp_path / "c").exists()


def test_reports_are_called_when_all_is_done(tmp_path, capfd):
    def report(run: Path) -> list[str]:
        assert RunFolder(run).result.exists()
        return ["pictures: none"]

    train(Toy(), run=tmp_path / "run", steps=2, device="cpu", precision="32", reports=[report])
    out, err = capfd.readouterr()
    assert out == ""
    assert err.rstrip().endswith("pictures: none")


def test_an_unknown_option_or_task(tmp_path):
    with pytest.raises(InputError, match=r"unknown option 'step'. Did you mean 'steps'"):
        go(tmp_path / "run", step=3)
    with pytest.raises(InputError, match=r"no task 'ml'.*Did you mean 'lm'"):
        train("ml", "text.txt")
    with pytest.raises(InputError, match="name the data"):
        train("lm")
