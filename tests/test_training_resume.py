"""A run that is killed, interrupted or damaged, and goes on: to the same bits, or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import training_toy
from training_toy import Toy

from elman.errors import FileError, RunError
from elman.tasks import model_file
from elman.training import train
from elman.training.folder import RunFolder, cut_metrics

STEPS = 96
OPTIONS: dict[str, Any] = {
    "steps": STEPS,
    "ema": 0.2,
    "optimizer": "muon",
    "l1": 1e-4,
    "checkpoint_every": 7,
    "validate_every": 20,
    "device": "cpu",
    "precision": "32",
    "quiet": True,
}


@pytest.fixture(autouse=True)
def one_thread():
    """The toy is too small for two threads, which would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_toy(run: Path, pause: float, die_at_write: int, options: dict[str, Any]) -> None:
    """Train the toy in a process of its own; exit codes as at the command line."""
    torch.set_num_threads(1)
    if die_at_write:
        whole, writes = Path.replace, []

        def replace(aside: Path, target: Path) -> Path:
            writes.append(target)
            if len(writes) == die_at_write:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(aside, target)

        Path.replace = replace  # type: ignore[method-assign]
    training_toy.run(run, pause, options)


@pytest.fixture(scope="module")
def start():
    """A function that starts the toy in a fresh process, forked from one that has loaded torch."""
    folder = str(Path(__file__).parent)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = folder if before is None else f"{folder}{os.pathsep}{before}"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_toy", "elman.training", "lightning_fabric"])

    def begin(run: Path, pause: float = 0.0, die_at_write: int = 0, **options: Any):
        arguments = (run, pause, die_at_write, {**OPTIONS, **options})
        process = context.Process(target=run_toy, args=arguments)
        process.start()
        return process

    yield begin
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def finish(process) -> int:
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def wait_for_step(run: Path, step: int) -> None:
    """Wait until the metrics of a run have reached a step (0: until the folder has a config)."""
    folder, until = RunFolder(run), time.monotonic() + 60
    while time.monotonic() < until:
        if step == 0 and folder.config.exists():
            return
        if step and folder.metrics.exists():
            rows = folder.metrics.read_bytes().splitlines()
            if len(rows) > 1 and json.loads(rows[-2])["step"] >= step:
                return
        time.sleep(0.002)
    raise TimeoutError(run)


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    assert finish(start(run)) == 0
    return run


def rows(run: Path) -> list[dict[str, Any]]:
    """Metrics without what counts time."""
    found = [json.loads(line) for line in RunFolder(run).metrics.read_text().splitlines()]
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in row.items() if k not in timed} for row in found]


def weights(run: Path) -> list[torch.Tensor]:
    """The tensors of a finished model, by name."""
    _, _, tensors = model_file.read(RunFolder(run).model)
    return [tensors[name] for name in sorted(tensors)]


def assert_same(run: Path, other: Path) -> None:
    for path in ("checkpoints/last", "checkpoints/best", "model"):
        path += ".safetensors"
        _, ours, tensors = model_file.read(run / path)
        _, theirs, expected = model_file.read(other / path)
        assert tensors.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(tensors[name], value), name
        if "position" in ours:
            for position in (ours["position"], theirs["position"]):
                del position["seconds"], position["validated_seconds"]
        assert ours == theirs
    assert rows(run) == rows(other)


def test_five_kills_later_the_bits_are_the_same(start, unbroken, tmp_path):
    run = tmp_path / "run"
    moments = sorted(random.Random(time.time_ns()).sample(range(1, STEPS - 12), 5))
    for number, step in enumerate(moments):
        process = start(run, pause=0.004, resume=number > 0)
        wait_for_step(run, step)
        process.kill()
        assert finish(process) == -signal.SIGKILL
        assert not RunFolder(run).result.exists()
    assert finish(start(run, resume=True)) == 0
    assert_same(run, unbroken)


# The writes by rename of a run: checkpoint of step 0, then one each seven steps, and at 20, 40, ...
# the best model before it.
@pytest.mark.parametrize("write", [1, 2, 4, 5])
def test_a_kill_while_a_checkpoint_is_written(start, unbroken, tmp_path, write):
    run = tmp_path / "run"
    assert finish(start(run, die_at_write=write)) == -signal.SIGKILL
    folder = RunFolder(run)
    assert list(folder.last.parent.glob(".*.part"))
    assert folder.last.exists() == (write > 1)
    assert finish(start(run, resume=True)) == 0
    assert_same(run, unbroken)
    assert not list(folder.last.parent.glob(".*"))


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_saves_and_the_run_goes_on(start, unbroken, tmp_path, name, code):
    run = tmp_path / "run"
    process = start(run, pause=0.004)
    wait_for_step(run, 25)
    os.kill(process.pid, getattr(signal, name))
    assert finish(process) == code
    said = RunFolder(run).log.read_text(encoding="utf-8")
    assert f"stopped by {name} after step" in said
    assert f"elman train toy --run {run} --resume" in said
    _, metadata, _ = model_file.read(RunFolder(run).last)
    assert metadata["position"]["step"] == rows(run)[-1]["step"]
    assert finish(start(run, resume=True)) == 0
    assert_same(run, unbroken)


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = b'{"step": 1}\n{"step": 2}\n{"step": 2}\n'
    for rest in (b"", b'{"step": 3}\n', b'{"ste', b"\0\0\0\n", b'{"step": 3}\n{"step": 2}\n'):
        path.write_bytes(kept + rest)
        cut_metrics(path, 2)
        assert path.read_bytes() == kept
    cut_metrics(path, 0)
    assert path.read_bytes() == b""
    cut_metrics(tmp_path / "none.jsonl", 2)


SHORT = {"steps": 9, "validate_every": 4, "device": "cpu", "precision": "32", "quiet": True}


@pytest.fixture
def short(tmp_path) -> Path:
    return train(Toy(), run=tmp_path / "run", **SHORT).run


def test_a_damaged_checkpoint_is_refused_and_left_alone(short):
    folder = RunFolder(short)
    whole = folder.last.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (flipped, whole[:-1], whole[:100], b""):
        folder.last.write_bytes(damaged)
        metrics = folder.metrics.read_bytes()
        with pytest.raises(FileError, match=r"last\.safetensors"):
            train(Toy(), run=short, resume=True, steps=20, quiet=True)
        assert folder.metrics.read_bytes() == metrics
        assert folder.last.read_bytes() == damaged


def test_a_checkpoint_of_another_model_is_refused(short):
    folder = RunFolder(short)
    kind, metadata, tensors = model_file.read(folder.last)
    del tensors["model.head.bias"]
    model_file.write(folder.last, kind, metadata, tensors)
    with pytest.raises(FileError, match=r"there is no tensor 'head\.bias'"):
        train(Toy(), run=short, resume=True, steps=20, quiet=True)
    model_file.write(folder.last, kind, {**metadata, "position": {}}, tensors)
    with pytest.raises(FileError, match="no checkpoint"):
        train(Toy(), run=short, resume=True, steps=20, quiet=True)


def test_a_finished_run_says_so_and_a_larger_budget_goes_on(short, capfd):
    before = RunFolder(short).last.read_bytes()
    again = train(Toy(), run=short, resume=True)
    assert "this run is finished (9 steps)" in capfd.readouterr().err
    assert (again.steps, again.ended) == (9, "9 steps")
    assert RunFolder(short).last.read_bytes() == before
    more = train(Toy(), run=short, resume=True, steps=18)
    assert "going on after step 9" in (said := capfd.readouterr().err)
    assert "the learning rate is that of 50% of the new budget" in said
    assert (more.steps, more.ended) == (18, "18 steps")
    assert [row["step"] for row in rows(short) if row["kind"] == "train"] == list(range(1, 19))


def test_a_larger_budget_in_epochs_takes_the_place_of_steps(short):
    result = train(Toy(), run=short, resume=True, epochs=1, quiet=True)
    assert (result.steps, result.ended) == (Toy().steps_per_epoch, "1 epochs")


def test_what_may_not_change_on_resume_is_refused(short):
    with pytest.raises(RunError, match="optimizer is 'adamw' in this run and cannot become"):
        train(Toy(), run=short, resume=True, optimizer="sgd")
    with pytest.raises(RunError, match="takes the data the run began with"):
        train(Toy(), ["some text"], run=short, resume=True)
    with pytest.raises(RunError, match="a run of 'toy', not of 'lm'"):
        train("lm", run=short, resume=True)


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        train(Toy(), run=tmp_path / "none", resume=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"no config\.yaml"):
        train(Toy(), run=tmp_path / "empty", resume=True)
    with pytest.raises(RunError, match="name the run folder"):
        train(Toy(), resume=True)


def test_a_kill_before_the_first_checkpoint(short):
    folder = RunFolder(short)
    whole = weights(short)
    for path in (folder.last, folder.best, folder.model, folder.result, folder.metrics):
        path.unlink()
    (folder.last.parent / ".last.safetensors.1.part").write_bytes(b"half")
    train(Toy(), run=short, resume=True, quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(weights(short), whole, strict=True))
    assert not list(folder.last.parent.glob(".*"))
