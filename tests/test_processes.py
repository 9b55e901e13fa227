"""Several processes that train one model: what one process finds, no file twice, one word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import shared_toy
import torch
from shared_toy import Group

from elman.errors import InputError
from elman.tasks import model_file
from elman.training.folder import RunFolder
from elman.training.launcher import launched

STEPS = 100
PLAIN: dict[str, Any] = {
    "steps": STEPS,
    "optimizer": "adamw",
    "lr": 0.01,
    "precision": "32",
    "device": "cpu",
    "validate_every": 40,
    "checkpoint_every": 7,
    "quiet": True,
}


@pytest.fixture(scope="module", autouse=True)
def path():
    """Processes find the modules of the tests, and warn of nothing."""
    folder = str(Path(__file__).parent)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = folder if before is None else f"{folder}{os.pathsep}{before}"
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def rows(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in RunFolder(run).metrics.read_text().splitlines()]
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in r.items() if k not in timed} for r in found if r["kind"] == kind]


def assert_near(run: Path, other: Path, first: int = 0) -> None:
    ours, theirs = rows(run)[first:], rows(other)[first:]
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert [row["tokens"] for row in ours] == [row["tokens"] for row in theirs]
    assert [row["loss"] for row in ours] == pytest.approx([r["loss"] for r in theirs], rel=1e-5)
    assert theirs[0]["loss"] > 1.05 * theirs[-1]["loss"]


def toys(world: int, run: Path, toy: dict[str, Any] | None = None, **options: Any) -> Group:
    given = (run, toy or {}, {**PLAIN, **options})
    return Group(world, run.parent, shared_toy.run_toy, given)


def wait_for_step(run: Path, step: int) -> None:
    metrics, until = RunFolder(run).metrics, time.monotonic() + 150
    while time.monotonic() < until:
        if metrics.exists() and metrics.read_bytes().count(b"\n") > step:
            return
        time.sleep(0.002)
    raise TimeoutError(run)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The toy in one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert toys(1, run).finish() == [0]
    return run


# -- the same figures --------------------------------------------------------------------------


# Four streams: an even share, an uneven one, and more processes than streams.
@pytest.mark.parametrize("world", [2, 3, 5])
def test_any_number_of_processes_finds_what_one_does(alone, tmp_path, world):
    assert toys(world, tmp_path / "run").finish() == [0] * world
    assert_near(tmp_path / "run", alone)
    assert [r["best"] for r in rows(tmp_path / "run", "validation")] == [True, True, True]


LINES = ["an apple and a pear", "a pear or an apple", "apples are no pears", "pears and plums"]


def test_torchrun_trains_a_language_model_as_one_process_does(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{LINES[i * i % 7 % 4]}\n" for i in range(300)))
    sizes = {"hidden": 16, "embedding": 8, "window": 8, "streams": 5, "dropout": 0.0}
    options = {**PLAIN, **sizes, "dropout_input": 0.0, "optimizer": "muon"}
    one = Group(1, tmp_path, shared_toy.run_task, ("lm", text, tmp_path / "one", _spoken(options)))
    given = [f"--{n.replace('_', '-')}={v}" for n, v in _spoken(options).items()]
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "--", "elman", "train"]
    two = subprocess.run(
        [sys.executable, *command, "lm", text, "--run", tmp_path / "two", *given],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert two.returncode == 0, two.stderr
    assert one.finish() == [0]
    assert_near(tmp_path / "two", tmp_path / "one")
    assert two.stdout == f"{tmp_path / 'two'}\n"
    for words in ("model: lstm", "finished: 100 steps", "Kneser-Ney"):
        assert two.stderr.count(words) == 1, words


def _spoken(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "quiet"}


TREES = ["(1 (0 bad) (1 (1 very) (1 good)))", "(0 (1 good) (0 (1 not) (1 good)))",
         "(1 (1 good) (1 plum))", "(0 (0 bad) (0 plum))", "(0 bad)"]  # fmt: skip


def test_two_processes_share_trees(tmp_path):
    file = tmp_path / "trees.txt"
    file.write_text("".join(f"{TREES[i * i % 7 % 5]}\n" for i in range(60)))
    own = {"hidden": 8, "embedding": 6, "trees": 7, "dropout_input": 0.0, "dropout_output": 0.0}
    options = _spoken({**PLAIN, **own, "steps": 30, "unknown_rate": 0.3, "valid_fraction": 0.2})
    for world in (1, 2):
        arguments = ("tree", file, tmp_path / str(world), options)
        assert Group(world, tmp_path, shared_toy.run_task, arguments).finish() == [0] * world
    assert_near(tmp_path / "2", tmp_path / "1")


def test_credit_carried_along_streams_is_shared_and_put_together_again(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{LINES[i * i % 7 % 4]}\n" for i in range(60)))
    sizes = {"hidden": 6, "embedding": 4, "window": 3, "streams": 3, "dropout": 0.0}
    further = {"dropout_input": 0.0, "carry": "exact", "restart": 0.1, "steps": 40, "lr": 0.03}
    options = _spoken({**PLAIN, **sizes, **further})
    for world in (1, 2):
        arguments = ("lm", text, tmp_path / str(world), options)
        assert Group(world, tmp_path, shared_toy.run_task, arguments).finish() == [0] * world
    again = ("lm", None, tmp_path / "2", {"resume": True, "steps": 50})
    assert Group(1, tmp_path, shared_toy.run_task, again).finish() == [0]
    again = ("lm", None, tmp_path / "1", {"resume": True, "steps": 50})
    assert Group(1, tmp_path, shared_toy.run_task, again).finish() == [0]
    assert_near(tmp_path / "2", tmp_path / "1")


# -- going on ----------------------------------------------------------------------------------


def tensors(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    _, metadata, found = model_file.read(file)
    if "position" in metadata:
        del metadata["position"]["seconds"], metadata["position"]["validated_seconds"]
    return metadata, found


def test_after_a_kill_of_all_the_run_goes_on_to_the_same_bits(tmp_path):
    dropout = {"dropout": 0.3}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert toys(2, whole, dropout, ema=0.2).finish() == [0, 0]
    for step, resume in ((20, False), (60, True)):
        group = toys(2, broken, {**dropout, "pause": 0.005}, ema=0.2, resume=resume)
        wait_for_step(broken, step)
        for process in group.processes:
            process.kill()
        assert group.finish() == [-signal.SIGKILL] * 2
    assert toys(2, broken, dropout, ema=0.2, resume=True).finish() == [0, 0]
    for path in ("checkpoints/last", "checkpoints/best", "model"):
        ours, found = tensors(broken / f"{path}.safetensors")
        theirs, expected = tensors(whole / f"{path}.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert ours == theirs
    assert rows(broken) == rows(whole)
    # Each process draws its own dropout.
    _, saved = tensors(whole / "checkpoints/last.safetensors")
    assert not torch.equal(saved["random.torch"], saved["process.1.random.torch"])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3)])
def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path, before, after):
    run = tmp_path / "run"
    group = toys(before, run, {"pause": 0.004})
    wait_for_step(run, 30)
    for process in group.processes:
        process.kill()
    group.finish()
    assert toys(after, run, resume=True).finish() == [0] * after
    assert_near(run, alone)


# -- what ends a run ---------------------------------------------------------------------------


@pytest.mark.parametrize("to", [0, 1])
def test_a_signal_to_any_process_saves_and_ends_all(alone, tmp_path, to):
    run = tmp_path / "run"
    group = toys(2, run, {"pause": 0.004})
    wait_for_step(run, 20)
    os.kill(group.processes[to].pid, signal.SIGTERM)
    assert group.finish() == [143, 143]
    assert "stopped by SIGTERM after step" in group.said(0)
    assert toys(2, run, resume=True).finish() == [0, 0]
    assert_near(run, alone)


@pytest.mark.parametrize(
    ("toy", "words"),
    [
        ({"fail_at": 5}, "process 1 of 2 (on "),
        ({"fail_at": 5}, "): the toy is broken here"),
        ({"fail_at": 5, "fail_in": 0}, "the toy is broken here"),
        ({"differ_in": 1}, "the content of the data of process 1"),
    ],
    ids=["named", "said", "first", "data"],
)
def test_what_fails_in_one_process_ends_all_with_one_error(tmp_path, toy, words):
    group = toys(2, tmp_path / "run", toy)
    assert group.finish() == [2, 2]
    assert words in group.said(0)
    assert group.said(0).count("\n") == 1


def test_a_process_that_dies_ends_the_others(tmp_path):
    group = toys(2, tmp_path / "run", {"pause": 0.004})
    wait_for_step(tmp_path / "run", 10)
    group.processes[1].kill()
    assert group.finish() == [1, -signal.SIGKILL]
    assert "has lost another one" in group.said(0)


def test_what_cannot_be_shared_is_refused(tmp_path):
    given = (tmp_path / "run", 0.0, PLAIN)
    group = Group(2, tmp_path, shared_toy.run_alone, given)
    assert group.finish() == [2, 2]
    assert "'toy' cannot be shared by several processes" in group.said(0)
    group = toys(2, tmp_path / "other", fidelity=3)
    assert group.finish() == [2, 2]
    assert "fidelity needs the whole batch" in group.said(0)


def test_all_begin_with_the_weights_of_the_first(alone, tmp_path):
    assert toys(2, tmp_path / "run", {"unlike_in": 1}).finish() == [0, 0]
    assert_near(tmp_path / "run", alone)


# -- launchers ---------------------------------------------------------------------------------


def test_srun_starts_processes_too(alone, tmp_path):
    given = (tmp_path / "run", {}, PLAIN)
    assert Group(2, tmp_path, shared_toy.run_toy, given, slurm=True).finish() == [0, 0]
    assert_near(tmp_path / "run", alone)


def test_what_a_launcher_says():
    three = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    found = launched(three)
    assert found is not None
    assert (found.kind, found.rank, found.world, found.here) == ("torchrun", 2, 4, 2)
    assert launched({**three, "WORLD_SIZE": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "1"}) is None
    assert launched({"RANK": "1", "WORLD_SIZE": "2"}) is None
    with pytest.raises(InputError, match="WORLD_SIZE is 'two'"):
        launched({**three, "WORLD_SIZE": "two"})
    with pytest.raises(InputError, match="process 4 of 4"):
        launched({**three, "RANK": "4"})
    with pytest.raises(InputError, match="4 processes do not divide into 3"):
        launched({**three, "LOCAL_WORLD_SIZE": "3"})
    step = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_NNODES": "2"}
    found = launched(step)
    assert found is not None
    assert (found.kind, found.rank, found.here, found.machines) == ("slurm", 3, 2, 2)
    assert launched({**step, "SLURM_JOB_NAME": "interactive"}) is None
    assert launched({n: v for n, v in step.items() if n != "SLURM_STEP_ID"}) is None
