"""What training must not do: lose data, restart in silence, fail without a plain word."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training_toy import Toy

import elman.tasks
from elman.errors import FileError, InputError, RunError
from elman.tasks import model_file
from elman.training import Result, train
from elman.training.folder import RunFolder, next_name, read_metrics

TEXT = "".join(f"{number} is the number after {number - 1}\n" for number in range(1, 400))
PLAIN: dict[str, Any] = {"device": "cpu", "precision": "32", "quiet": True}


@pytest.fixture(autouse=True)
def one_thread():
    """The models are too small for two threads, which would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    return path


def pipe(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def learn(data: Any, run: Path, **options: Any) -> Result:
    """Train a tiny language model for two steps."""
    return train("lm", data, run=run, **{"steps": 2, "hidden": 8, **PLAIN, **options})


def go(run: Path, task: Toy | None = None, **options: Any) -> Result:
    return train(task or Toy(), run=run, **{"steps": 8, "validate_every": 4, **PLAIN, **options})


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the log."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "train.log"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# -- nothing is lost ---------------------------------------------------------------------------


def test_data_within_the_folder_to_be_overwritten_are_refused(tmp_path, monkeypatch, text):
    pipe(monkeypatch, TEXT.encode())
    run = learn("-", tmp_path / "run").run
    before = content(run)
    (tmp_path / "link.txt").symlink_to(run / "data.txt")
    (tmp_path / "other").symlink_to(run)
    for name in ("run/data.txt", "link.txt", "other/data.txt", "run/../run/data.txt"):
        with pytest.raises(RunError, match=r"inside .*move it"):
            learn(tmp_path / name, run, overwrite=True)
    with pytest.raises(RunError, match=r"inside .*move it"):
        learn(text, run, overwrite=True, valid_file=str(run / "data.txt"))
    for source in (run, run / "model.safetensors"):
        with pytest.raises(RunError, match=r"inside .*move it"):
            learn(text, run, overwrite=True, init_from=source)
    assert content(run) == before
    moved = (run / "data.txt").rename(tmp_path / "moved.txt")
    assert learn(moved, run, overwrite=True).steps == 2
    learn(moved, tmp_path / "new", init_from=run)


def test_everything_is_read_before_anything_is_deleted(tmp_path, text, monkeypatch):
    run = learn(text, tmp_path / "run").run
    before = content(run)

    def gone(path: Path) -> None:
        raise FileError(f"{path}: no such file or directory.")

    monkeypatch.setattr("elman.training.config.fingerprint", gone)
    with pytest.raises(FileError, match="no such file"):
        learn(text, run, overwrite=True)
    assert content(run) == before


def test_a_missing_checkpoint_is_said_and_nothing_is_touched(tmp_path):
    run = go(tmp_path / "run").run
    folder = RunFolder(run)
    folder.last.unlink()
    before = content(run)
    more: dict[str, Any]
    for more in ({}, {"steps": 20}):
        with pytest.raises(RunError, match=r"last\.safetensors is missing.*init_from") as caught:
            train(Toy(), run=run, resume=True, quiet=True, **more)
        assert "\n" not in str(caught.value)
        assert "nothing was changed" in str(caught.value)
        assert content(run) == before
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunError, match="--init-from"):
        train(Toy(), run=run, resume=True, quiet=True, steps=20)
    for name in ("model.safetensors", "result.json"):
        (run / name).unlink()
    with pytest.raises(RunError, match=r"last\.safetensors is missing") as caught:
        train(Toy(), run=run, resume=True, quiet=True)
    assert "init_from" not in str(caught.value)  # there are no weights to begin with
    assert len(list(read_metrics(folder.metrics))) == 10


def test_a_run_killed_before_its_first_checkpoint_begins(tmp_path):
    whole = content(go(tmp_path / "whole").run)
    run = go(tmp_path / "run").run
    for name in whole:
        if name != "config.yaml":
            (run / name).unlink()
    (run / "metrics.jsonl").touch()
    (run / "checkpoints").rmdir()
    assert train(Toy(), run=run, resume=True, quiet=True).steps == 8
    _, _, ours = model_file.read(run / "model.safetensors")
    _, _, theirs = model_file.read(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_refused_resume_leaves_the_configuration(tmp_path):
    run = go(tmp_path / "run").run
    folder = RunFolder(run)
    folder.last.write_bytes(folder.last.read_bytes()[:-1])
    before = content(run)
    with pytest.raises(FileError, match=r"last\.safetensors"):
        train(Toy(), run=run, resume=True, quiet=True, steps=20)
    assert content(run) == before


def test_the_best_weights_are_missed_before_the_run_goes_on(tmp_path):
    run = go(tmp_path / "run").run
    RunFolder(run).best.unlink()
    before = content(run)
    with pytest.raises(RunError, match=r"best\.safetensors is missing"):
        train(Toy(), run=run, resume=True, quiet=True, steps=20)
    assert content(run) == before
    assert train(Toy(), run=run, resume=True, quiet=True).steps == 8  # finished, and whole


# -- what cannot be done, in one line ----------------------------------------------------------


def test_a_folder_that_cannot_be_made(tmp_path, text, monkeypatch):
    for run in (text / "x", text / "x" / "y", Path("/proc/xx")):
        with pytest.raises(RunError, match="cannot be made") as caught:
            go(run)
        assert "\n" not in str(caught.value)
        assert str(run) in str(caught.value)
    with pytest.raises(RunError, match="cannot be made"):
        next_name("lm", "a", text)


def test_a_model_too_large_for_memory(tmp_path, text):
    with pytest.raises(InputError, match=r"40,000,\d\d\d,\d\d\d,\d\d\d,\d\d\d weights") as caught:
        learn(text, tmp_path / "run", hidden=99_999_999)
    assert "\n" not in str(caught.value)
    assert "TB" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_only_a_lack_of_memory_is_called_so(tmp_path, text, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(elman.tasks, "build", broken)
    with pytest.raises(RuntimeError, match="something else"):
        learn(text, tmp_path / "run")


@pytest.mark.parametrize(("data", "fault"), [(b"ab\xff\xfe" * 9, "not UTF-8"), (b"", "is empty")])
def test_bad_standard_input_is_named(tmp_path, monkeypatch, data, fault):
    pipe(monkeypatch, data)
    with pytest.raises(FileError, match=f"^standard input: {fault}"):
        learn("-", tmp_path / "run")
    with pytest.raises(InputError, match=r"^the lines given: binary"):
        learn(["a\0b"], tmp_path / "run")
