"""The next item as a task: learned, kept, resumed, asked and measured, from every kind of file."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import elman
from elman.cli import main
from elman.errors import FileError, InputError
from elman.tasks import build, load, model_file
from elman.tasks.next import NextItem
from elman.tasks.next.task import cut
from elman.training.signals import Interrupted

OUTFITS = Path(elman.__file__).parent / "demo_data" / "outfits.csv"
SMALL = {"hidden": 8, "embedding": 6, "batch": 8}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("next")
    result = elman.train(
        "next", OUTFITS, id="week", text="worn", run=folder / "run", epochs=20, quiet=True,
        reports=[], hidden=32,
    )  # fmt: skip
    torch.set_num_threads(before)
    return result


def _lines(path: Path, count: int = 40) -> Path:
    draw = np.random.default_rng(0)
    rows = [" ".join(f"i{k}" for k in draw.integers(7, size=draw.integers(2, 9)))
            for _ in range(count)]  # fmt: skip
    path.write_text("\n".join(rows) + "\n")
    return path


# Learning.


def test_what_was_worn_this_week_tells_more_than_yesterday_alone(run):
    assert run.metrics["mrr"] > run.baseline["mrr"] + 0.1
    assert run.baseline["mrr"] > run.baseline["popularity"]["mrr"] + 0.05
    assert "ahead of bigram" in run.verdict


def test_what_is_in_the_wash_is_not_worn_again(run):
    week = ["shirt", "jeans", "dress"]
    rows = [{"week": "w", "day": day, "worn": worn} for day, worn in enumerate(week)]
    said = run.model.predict(rows, 3)[0]
    assert said["next"][0] == "cardigan"
    assert not set(said["next"][:1]) & set(week)


def test_a_batch_is_a_function_of_the_step_and_the_seed(tmp_path):
    file = _lines(tmp_path / "s.txt")
    tasks = [build("next", [file], SMALL, seed=3) for _ in range(2)]
    for step in (40, 0, 7):
        for one, other in zip(*(t.batch(step) for t in tasks), strict=True):
            assert torch.equal(one, other)
    told = sum(int((tasks[0].batch(s)[1] >= 0).sum()) for s in range(tasks[0].steps_per_epoch))
    assert isinstance(tasks[0], NextItem)
    assert told == sum(len(s) - 1 for s in tasks[0].corpus.train)


def test_shares_of_two_processes_make_up_the_batch(tmp_path):
    file = tmp_path / "s.txt"
    file.write_text("".join(f"a b{k} c d{k}\n" for k in range(40)))  # all b and d once: hidden
    whole, *parts = (build("next", [file], {**SMALL, "dropout": 0.0}) for _ in range(3))
    for rank, part in enumerate(parts):
        part.rank, part.world = rank, 2
    losses = [part.loss(part.batch(1), None) for part in parts]
    total = sum(float(loss.detach()) * count for loss, _, count in losses)
    mean = total / sum(count for *_, count in losses)
    loss, _, count = whole.loss(whole.batch(1), None)
    assert sum(c for *_, c in losses) == count
    assert mean == pytest.approx(float(loss.detach()), rel=1e-5)


def test_the_loss_is_the_mean_over_known_items(tmp_path):
    file = tmp_path / "s.txt"
    file.write_text("a b c\nb a\n" * 20 + "a rare b\n" * 2)
    task = build("next", [file], {**SMALL, "dropout": 0.0, "min_count": 3, "unknown_rate": 0.0})
    assert isinstance(task, NextItem)
    sessions = [np.array([2, 3, 1, 2]), np.array([3, 2])]
    task.pieces[:2] = sessions
    tokens, targets, lengths = task.batch(0)
    loss, _, count = task.loss((tokens, targets, lengths), None)
    total, known = 0.0, 0
    for row, session in enumerate(tokens):
        for t in range(int(lengths[row])):
            if targets[row, t] < 0:
                continue
            out, _ = task.network(session[None, : t + 1], torch.tensor([t + 1]))
            logs = task.network.scores(out[0, -1]).log_softmax(0)
            total, known = total - float(logs[targets[row, t]].detach()), known + 1
    assert count == known
    assert float(loss.detach()) == pytest.approx(total / known, rel=1e-4)


def test_long_sessions_are_cut_so_that_every_item_is_told_once():
    pieces = cut([np.arange(10), np.arange(2)], 4)
    assert [p.tolist() for p in pieces] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9], [0, 1]]


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    file = _lines(tmp_path / "s.txt")

    def options(name):
        return {"run": tmp_path / name, "steps": 24, "validate_every": 10, "quiet": True,
                "reports": [], **SMALL}  # fmt: skip

    elman.train("next", file, **options("whole"))
    batch = NextItem.batch

    def stopping(self, step):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(NextItem, "batch", stopping)
    with pytest.raises(Interrupted, match=r"elman train next --run .* --resume"):
        elman.train("next", file, **options("cut"))
    monkeypatch.undo()
    elman.train("next", run=tmp_path / "cut", resume=True, quiet=True, reports=[])
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


# The model file and its baseline.


def test_the_model_file_gives_the_same_answers_and_the_baseline(run):
    again = load(run.run)
    assert again.predict(OUTFITS) == run.model.predict(OUTFITS)
    told = again.evaluate(OUTFITS)
    assert told == run.model.evaluate(OUTFITS)
    assert told["verdict"].endswith("ahead of bigram.")
    again.followers = None
    assert "no baseline was kept" in again.evaluate(OUTFITS)["note"]
    low, high = told["intervals"]["mrr"]
    assert low < told["mrr"] < high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["config"].update(hidden=33), "weight"),
        (lambda m: m["config"].update(hidden=10**9), "sizes do not fit"),
        (lambda m: m["items"].append("new"), "weight"),
        (lambda m: m["items"].append("suit"), "twice"),
        (lambda m: m.update(items=[1]), "no list of tokens"),
        (lambda m: m.pop("items"), "do not describe a model of the next item"),
        (lambda m: m.update(equation={"nodes": []}), "equation|cell|graph|nodes"),
    ],
)
def test_an_altered_model_file_is_refused(run, tmp_path, change, message):
    name, metadata, tensors = model_file.read(run.run / "model.safetensors")
    change(metadata)
    model_file.write(tmp_path / "m", name, metadata, tensors)
    with pytest.raises(FileError, match=message):
        load(tmp_path / "m")


def test_a_baseline_that_does_not_fit_is_refused(run):
    _, metadata, tensors = model_file.read(run.run / "baseline.safetensors")
    model = load(run.run / "model.safetensors")
    tensors["next"] = tensors["next"] + 100
    with pytest.raises(FileError, match="do not fit the items"):
        model.take_baseline(metadata, tensors, "here")
    with pytest.raises(FileError, match="missing"):
        model.take_baseline(metadata, {}, "here")


# The command line and Python.


def test_train_predict_and_evaluate(tmp_path, call):
    file, where = _lines(tmp_path / "s.txt"), tmp_path / "r"
    code, out, err = call("train", "next", file, "--steps", 6, "--hidden", 6, "--run", where)
    assert code == 0, err
    assert out.strip() == str(where)
    assert "items/s" in err
    code, out, err = call("predict", where, file)
    assert code == 0, err
    assert len(out.splitlines()) == 40
    assert out.startswith("line 1\t")
    code, out, err = call("predict", where, "--json", stdin="i1 i2\n\ni3 new\n")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["session"] for row in rows] == ["line 1", "line 3", "line 2"]
    assert [len(row["next"]) for row in rows] == [5, 5, 0]
    assert "note: line 3: 1 item(s) that training had not" in err
    code, out, err = call("evaluate", where, file, "--json")
    found = json.loads(out)
    assert found["recall@5"] <= found["recall@10"] <= found["recall@20"] == 1.0
    assert found["baseline"]["name"] == "bigram"
    code, out, err = call("evaluate", where, file)
    assert "recall@5: " in out
    assert "popularity" in out


def test_items_that_training_had_not_are_missed_and_have_no_nats(tmp_path, run, call):
    lines = ["week,day,worn"]
    item = run.model.lexicon.token(run.model.network.items)
    lines += [f"{week},{day},{worn}" for week in "ab"
              for day, worn in enumerate([item, "zzz", "qqq"])]  # fmt: skip
    (tmp_path / "u.csv").write_text("\n".join(lines) + "\n")
    code, out, _ = call("evaluate", run.run, tmp_path / "u.csv")
    assert code == 0
    assert "recall@20: 0.0%" in out
    assert "nats per item: –" in out
    code, out, _ = call("evaluate", run.run, tmp_path / "u.csv", "--json")
    told = json.loads(out)
    assert (code, told["mrr"], told["nats_per_item"]) == (0, 0, None)
    assert told["baseline"]["nats_per_item"] is None
    assert "Use the baseline" in told["verdict"]


def test_the_nearest_vectors_can_be_asked_for(run, call):
    code, out, err = call("neighbours", run.run, "shirt", "-n", "2")
    assert code == 0, err
    assert out.splitlines()[0].split() == ["shirt", "cosine"]
    names, vectors = run.model.vectors()
    assert len(names) == len(vectors) == 8
    assert torch.equal(vectors[0], run.model.network.embedding.weight[2])


def test_rows_in_memory_train_and_are_told(tmp_path):
    rows = [
        {"session": s, "item": item, "time": t}
        for s in range(30)
        for t, item in enumerate(["tea", "milk", "cup"])
    ]
    rows.reverse()  # the times say the order
    result = elman.train(
        "next", rows, run=tmp_path / "r", epochs=30, quiet=True, reports=[], dropout=0.0,
        hidden=8, lr=2e-2,
    )  # fmt: skip
    assert result.metrics["recall@1"] == 1.0
    said = result.model.predict(rows[:3] + rows[-2:], 1)
    assert [(row["session"], row["items"], row["next"]) for row in said] == [
        ("29", 3, said[0]["next"]),
        ("0", 2, ["cup"]),
    ]
    arrow = pytest.importorskip("pyarrow")
    table = arrow.Table.from_pylist(rows[-2:])
    assert result.model.predict(table, 1) == said[1:]
    lists = load(result.run)
    assert lists.predict([["tea"], ["tea", "milk"]], 1)[1]["next"] == ["cup"]


def test_standard_input_is_learned_from_and_resumed(tmp_path, call):
    text = _lines(tmp_path / "s.txt").read_text()
    where = tmp_path / "r"
    sizes = ["--hidden", 4, "-q", "--run", where]
    assert call("train", "next", "--steps", 3, *sizes, stdin=text)[0] == 0
    assert call("train", "next", "--run", where, "--resume", "--steps", 5, "-q")[0] == 0


def test_a_session_of_100000_items(tmp_path):
    draw = np.random.default_rng(0)
    long = " ".join(f"i{k}" for k in draw.integers(20, size=100_000))
    (tmp_path / "s.txt").write_text(f"{long}\n" + "i1 i2 i3\n" * 20)
    task = build("next", [tmp_path / "s.txt"], {**SMALL, "valid_fraction": 0.3, "window": 64})
    tokens = task.batch(0)[0]
    assert tokens.numel() <= 4096
    said = task.trained().predict([long, "i1"], 2)
    assert [row["items"] for row in said] == [100_000, 1]
    assert sum(task.trained().predict([long], 22)[0]["probabilities"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "text", "arguments", "message"),
    [
        ("s.csv", "user,thing\n1,a\n1,b\n", ["--id", "usr"], "no column 'usr'"),
        ("s.csv", "user,thing\n1,a\n1,b\n", ["--id", "usr"], "Did you mean 'user'?"),
        ("s.csv", "user,item\n1,a\n1,\n", [], "s.csv, line 3: column 'item' is empty"),
        ("s.csv", "user,item\n1,a\n,b\n", [], "s.csv, line 3: column 'user' is empty"),
        ("s.csv", "user,item,at\n1,a,1\n1,b,2\n1,b,soon\n", ["--time", "at"], "line 4: column at"),
        ("s.csv", "user,item,at\n1,a,2020-01-01\n1,b,soon\n", ["--time", "at"], "line 3: 'soon'"),
        ("s.csv", "user,item,at\n1,a,1\n1,b,\n", ["--time", "at"], "line 3: column 'at' has no"),
        ("s.csv", "a,b\n1,2\n", [], "no column could be found that holds the items"),
        ("s.csv", "user,a,b\n1,2,3\n", ["--id", "user"], "holds the items; name it (--text)"),
        ("s.csv", "user,item\n1,a\n2,b\n3,b\n", [], "none of two items or more"),
        ("s.txt", "a\nb\n\n", [], "2 session(s), none of two items or more"),
        ("s.txt", "", [], "empty"),
        ("s.txt", "a a\n" * 20, [], "1 item(s) in the training part"),
        ("s.txt", "a b\n", [], "cannot be divided into training and validation"),
        ("s.txt", "a b\n" * 20, ["--text", "x", "--target", "y"], "both name the column"),
        ("s.txt", "a b\n" * 20, ["--cell", "gruu"], "Did you mean 'gru'?"),
        ("s.txt", "a b\n" * 20, ["--cell", "nary_tree_lstm"], "no cell of sequences"),
        ("s.txt", "a b\n" * 20, ["--hiden", "3"], "Did you mean '--hidden'?"),
        ("s.txt", "a b\n" * 20, ["--window", "1"], "window"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_learned(
    name, text, arguments, message, tmp_path, call
):
    file = tmp_path / name
    file.write_text(text)
    code, out, err = call("train", "next", file, "--steps", 2, "--run", tmp_path / "r", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_files_may_come_from_anywhere(tmp_path, call):
    file = tmp_path / "s.txt"
    file.write_bytes(b"\xef\xbb\xbf" + ("茶 схід\r\ncafé 茶 схід\r\n" * 9 + "茶 café").encode())
    where = tmp_path / "r"
    assert call("train", "next", file, "--steps", 2, "--hidden", 3, "--run", where, "-q")[0] == 0
    assert sorted(load(where).lexicon.tokens[2:]) == ["café", "схід", "茶"]


@pytest.mark.parametrize("count", [0, 2.5, True])
def test_a_count_of_answers_must_be_a_number(run, count):
    with pytest.raises(InputError, match="count"):
        run.model.predict(OUTFITS, count)
    with pytest.raises(InputError, match="session 1 is a int"):
        run.model.predict([3])
