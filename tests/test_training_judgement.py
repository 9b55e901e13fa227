"""The last judgement of a run: on all of the validation part, or it says so; and divergence."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from training_toy import Toy

from elman.training import Result, judging, train
from elman.training.folder import RunFolder

PLAIN: dict[str, Any] = {"device": "cpu", "precision": "32", "quiet": True}


@pytest.fixture(autouse=True)
def one_thread():
    """The toy is too small for two threads, which would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def go(run: Path, task: Toy | None = None, **options: Any) -> Result:
    return train(task or Toy(), run=run, **{"steps": 8, "validate_every": 4, **PLAIN, **options})


# -- the last judgement ------------------------------------------------------------------------


class Long(Toy):
    """A toy with so much text that only a part of it is validated while it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.steps_per_epoch = 30
        self.limits: list[float | None] = []

    def validate(self, limit: float | None = None) -> dict[str, float]:
        self.limits.append(limit)
        return super().validate(limit)


def test_the_last_judgement_is_on_the_whole_validation_part(tmp_path):
    task = Long()
    result = go(tmp_path / "run", task)
    assert task.limits == [pytest.approx(8 / 120)] * 2 + [None]
    assert result.validated_part == 1.0
    assert "validation part" not in result.verdict
    task = Long()
    go(tmp_path / "timed", task, steps=None, minutes=0.02, validate_every=3)
    assert task.limits[-1] is None


def test_a_last_judgement_on_a_part_says_so(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(judging, "_FINAL_SECONDS", 0.0)
    monkeypatch.setattr(judging, "_FINAL_SHARE", 0.0)
    task = Long()
    task.steps_per_epoch = 10**7
    result = go(tmp_path / "run", task, steps=None, minutes=0.02, validate_every=3, quiet=False)
    part = result.validated_part
    assert part < 1.0
    assert f"on {part:.0%} of the validation part" in result.verdict
    assert json.loads(RunFolder(result.run).result.read_text())["validated_part"] == part
    assert f"on {part:.0%} of the validation part" in capfd.readouterr().err


def test_of_a_very_large_validation_part_less_is_used(tmp_path):
    task = Long()
    task.steps_per_epoch, task.validation_units = 10**7, 10**9
    go(tmp_path / "run", task)
    assert task.limits == [1e-3, 1e-3, None]


def test_learning_has_half_of_the_minutes_however_long_reading_took(tmp_path, capfd):
    class Slow(Toy):
        def describe(self) -> list[str]:
            time.sleep(0.8)
            return super().describe()

    result = go(tmp_path / "run", Slow(), steps=None, minutes=0.02, quiet=False)
    assert result.steps > 0
    assert result.seconds > 0.5
    assert "learning is given half of the 0.02 minutes" in capfd.readouterr().err


# -- divergence --------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 8])
def test_a_finite_but_absurd_loss_is_called_divergence(tmp_path, steps, capfd):
    wild: dict[str, Any] = {"optimizer": "sgd", "lr": 1e30, "clip_norm": 0.0, "warmup": 0.0}
    result = go(tmp_path / "run", steps=steps, quiet=False, validate_every=0, **wild)
    assert "The run diverged" in result.verdict
    assert "Try a smaller learning rate (lr=0.1), clipping (clip_norm=1)" in result.verdict
    said = capfd.readouterr().err
    assert "The run diverged" in said
    assert "00000000" not in said
    again = train(Toy(), run=result.run, resume=True, quiet=True)
    assert again.verdict == result.verdict


def test_divergence_is_not_said_of_other_runs(tmp_path):
    assert "diverged" not in go(tmp_path / "run").verdict
    assert "diverged" not in go(tmp_path / "none", steps=0).verdict
