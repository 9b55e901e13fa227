"""Trees as a task: built, learned, resumed, kept in a file, asked, and told what is wrong."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import elman
from elman.cli import main
from elman.data.trees import LabelledTree, parse_trees, read_trees
from elman.errors import FileError, InputError
from elman.plots import trees as pictures
from elman.tasks import build, load, model_file
from elman.tasks.tree import TreeLabelling
from elman.tasks.tree.baseline import fit, tell
from elman.training.folder import read_metrics
from elman.training.signals import Interrupted

SMALL = {"hidden": 10, "embedding": 6, "trees": 8}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _tree(draw: random.Random, depth: int) -> tuple[str, int]:
    """A tree of yes, no and not; its label is 1 for yes, and a left "not" turns it round."""
    if depth == 0 or draw.random() < 0.3:
        label = draw.randrange(2)
        return f"({label} {'yes' if label else 'no'})", label
    below, label = _tree(draw, depth - 1)
    if draw.random() < 0.6:
        return f"({1 - label} (0 not) {below})", 1 - label
    return f"({label} (1 and) {below})", label


def _write(path: Path, count: int, seed: int) -> Path:
    draw = random.Random(seed)
    path.write_text("".join(_tree(draw, 4)[0] + "\n" for _ in range(count)))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    _write(folder / "train.txt", 160, 1)
    _write(folder / "valid.txt", 40, 2)
    return folder


@pytest.fixture(scope="module")
def run(data):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = elman.train(
        "tree", data / "train.txt", valid_file=str(data / "valid.txt"), run=data / "run",
        epochs=16, lr=2e-2, dropout=0.0, quiet=True, reports=[], **SMALL,
    )  # fmt: skip
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


def test_it_learns_a_rule_that_a_bag_of_words_cannot_tell(run):
    assert run.metrics["root_accuracy"] >= 0.95
    assert run.baseline["root_accuracy"] < 0.9
    assert "ahead of naive Bayes" in run.verdict
    assert (run.run / "model.safetensors").is_file()


def test_an_unseen_depth_is_told_right(run):
    assert run.model.predict(["(? (? not) (? (? not) (? (? not) (? yes))))"]) == [
        "(0 (0 not) (1 (0 not) (0 (0 not) (1 yes))))"
    ]


def test_a_batch_is_a_function_of_the_step_and_the_seed(data):
    options = {"valid_file": str(data / "valid.txt"), **SMALL}
    tasks = [build("tree", [data / "train.txt"], options, seed=3) for _ in range(2)]
    for step in (40, 0, 7):
        for one, other in zip(*(t.batch(step) for t in tasks), strict=True):
            assert torch.equal(one, other)
    assert not all(
        torch.equal(a, b) for a, b in zip(tasks[0].batch(0), tasks[0].batch(20), strict=True)
    )
    sizes = [int((tasks[0].batch(s)[1] < 0).sum()) for s in range(tasks[0].steps_per_epoch)]
    assert sum(sizes) == 160


def test_the_loss_is_the_mean_over_labelled_nodes(data):
    task = build("tree", [data / "train.txt"], {"dropout": 0.0, "unknown_rate": 0.0, **SMALL})
    assert isinstance(task, TreeLabelling)
    words, parents, labels = task.batch(0)
    labels = labels.clone()
    labels[::3] = -1
    loss, carry, count = task.loss((words, parents, labels), None)
    logits = task.network(words, parents).log_softmax(1)
    kept = [v for v in range(len(labels)) if v % 3]
    expected = -sum(logits[v, labels[v]] for v in kept) / len(kept)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert (carry, count) == (None, len(kept))


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(data, tmp_path, monkeypatch):
    def options(name):
        return {"run": tmp_path / name, "steps": 24, "validate_every": 10, "quiet": True,
                "reports": [], **SMALL}  # fmt: skip

    whole = elman.train("tree", data / "train.txt", **options("whole"))
    batch = TreeLabelling.batch

    def stopping(self, step):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(TreeLabelling, "batch", stopping)
    with pytest.raises(Interrupted, match=r"elman train tree --run .* --resume"):
        elman.train("tree", data / "train.txt", **options("cut"))
    monkeypatch.undo()
    elman.train("tree", run=tmp_path / "cut", resume=True, quiet=True, reports=[])
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    rows = [
        [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl") if "lr" in row]
        for name in ("whole", "cut")
    ]
    assert rows[0] == rows[1]
    assert whole.steps == 24


def test_the_model_file_gives_the_same_model(run, data):
    again = load(run.run)
    trees = read_trees(data / "valid.txt")
    assert again.label(trees) == run.model.label(trees)
    assert again.meaning == run.model.meaning


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["config"].update(hidden=11), "weight"),
        (lambda m: m["config"].update(hidden=10**9), "sizes do not fit"),
        (lambda m: m["classes"].append("9"), "weight"),
        (lambda m: m.update(vocabulary=[1, 2]), "no list of words"),
        (lambda m: m.pop("classes"), "do not describe a model of trees"),
        (lambda m: m.update(equation={"nodes": []}), "equation|cell|graph|nodes"),
    ],
)
def test_an_altered_model_file_is_refused(run, tmp_path, change, message):
    name, metadata, tensors = model_file.read(run.run / "model.safetensors")
    change(metadata)
    model_file.write(tmp_path / "m", name, metadata, tensors)
    with pytest.raises(FileError, match=message):
        load(tmp_path / "m")


def test_a_flipped_bit_is_refused(run, tmp_path):
    content = bytearray((run.run / "model.safetensors").read_bytes())
    (size,) = struct.unpack("<Q", content[:8])
    content[8 + size + 40] ^= 1
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(FileError, match="checksum"):
        load(tmp_path / "m")


def test_naive_bayes_counts():
    bag = fit([(["a", "b"], 0), (["c"], 1), (["c", "c"], 1)], 1.0)
    # Features: a, b, "a b" | c, "c c"; class 0 has 3, class 1 has c twice and "c c" once.
    assert np.exp(bag.prior[1]) == pytest.approx(2 / 3)
    assert np.exp(bag.features[1]["c"]) == pytest.approx((2 + 1) / (3 + 1 * (5 + 1)))
    assert tell(bag, ["c"]) == 1
    assert tell(bag, ["a", "b"]) == 0


def test_binary_leaves_out_neutral_roots_and_nodes(tmp_path, call):
    file = tmp_path / "five.txt"
    file.write_text("(4 (2 a) (3 b))\n(2 (2 a) (2 c))\n(0 (2 a) (1 d))\n" * 12)
    task = build("tree", [file], {"labels": "binary", **SMALL})
    assert isinstance(task, TreeLabelling)
    assert task.corpus.meaning.classes == ("negative", "positive")
    _, parents, labels = task.batch(0)
    assert bool((labels[parents < 0] >= 0).all())
    assert int((labels == -1).sum()) == int((parents < 0).sum())  # of each tree "a" alone is 2
    code, _, err = call("train", "tree", file, "--labels", "binry")
    assert (code, "labels" in err) == (2, True)


# The command line.


def test_train_predict_and_evaluate(data, tmp_path, call):
    where = tmp_path / "r"
    code, out, err = call(
        "train", "tree", data / "train.txt", "--valid-file", data / "valid.txt", "--steps", 20,
        "--hidden", 6, "--embedding", 4, "--run", where,
    )  # fmt: skip
    assert code == 0, err
    assert out.strip() == str(where)
    assert "root error" in err
    assert "nodes/s" in err
    code, out, err = call("predict", where, data / "valid.txt")
    assert code == 0, err
    given = [t.words for t in read_trees(data / "valid.txt")]
    assert [t.words for t in parse_trees([out], "out")] == given
    code, out, err = call("predict", where, "--json", stdin="((not) (yes))\n(no)")
    assert code == 0, err
    first, second = map(json.loads, out.splitlines())
    assert len(first["labels"]) == 3
    assert len(second["probabilities"]) == 1
    code, out, err = call("evaluate", where, data / "valid.txt", "--json")
    found = json.loads(out)
    told = load(where).label(read_trees(data / "valid.txt"))
    right = [
        said.labels[0] == tree.labels[0]
        for said, tree in zip(told, read_trees(data / "valid.txt"), strict=True)
    ]
    assert found["root_accuracy"] == pytest.approx(sum(right) / len(right))
    code, out, err = call("evaluate", where, data / "valid.txt")
    assert out.startswith("40 trees\nroots: ")


def test_standard_input_is_learned_from_and_resumed(data, tmp_path, call):
    text = (data / "train.txt").read_text()
    sizes = ["--hidden", 4, "--embedding", 3, "-q", "--run", tmp_path / "r"]
    assert call("train", "tree", "--steps", 3, *sizes, stdin=text)[0] == 0
    assert call("train", "tree", "--run", tmp_path / "r", "--resume", "--steps", 5, "-q")[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(1 (0 a) (1 b)\n", "line 1, column 1: 1 bracket(s) that open here or before are never"),
        ("(1 (0 a))\n(1 b))\n", "line 2, column 6: a bracket closes that was never opened"),
        ("(1 ())\n", "column 5: an empty tree"),
        ("a (1 b)\n", "line 1, column 1: 'a' stands outside of a tree"),
        ("(1 (0 a) b)\n", "line 1, column 10: the word 'b' stands beside children"),
        ("", "empty"),
        ("\n\n", "no tree"),
        ("((a) (b))\n" * 20, "0 label(s) in the training part"),
        ("(1 a)\n" * 20, "1 label(s) in the training part"),
        ("(1 a)\n", "cannot be divided into training and validation"),
        ("(1 a)\n(0 b)\n" * 9 + "(2 a)\n" * 2, "the label '2'"),
        ("(1 a)\n(0 b)\n" * 9 + "((1 a))\n" * 2, "no root in the validation part has a label"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_before_anything_is_learned(
    text, message, tmp_path, call
):
    file = tmp_path / "t.txt"
    file.write_text(text)
    code, out, err = call("train", "tree", file, "--steps", 2, "--run", tmp_path / "run")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "tree", "--hiden", "3"], "no option '--hiden'. Did you mean '--hidden'?"),
        (["train", "tree", "FILE", "--cell", "lstm"], "lstm is a cell of sequences"),
        (["train", "tree", "FILE", "--cell", "tree_gur"], "Did you mean 'tree_gru'?"),
        (["train", "tree", "FILE", "--hyper", "arity=1"], "give hyper arity=2"),
        (["train", "tree", "no/such.txt"], "no/such.txt: there is no such file"),
        (["train", "tree"], "name the files of trees"),
        (["predict", "RUN", "no/such.txt"], "no/such.txt: there is no such file"),
        (["predict", "RUN", "-", "--plot", "a.png"], "--plot needs a file"),
        (["predict", "RUN", "FILE", "--plot", "a.jpg"], "end its name in .png"),
        (["predict", "RUN", "FILE", "--plot", "no/a.png"], "no/a.png: cannot be written"),
        (["evaluate", "RUN", "FILE", "--unknown", "skip"], "--unknown is for language models"),
        (["generate", "RUN"], "a model of the task 'tree'"),
        (["score", "RUN", "a"], "a model of the task 'tree'"),
        (["inspect", "RUN", "gates", "--text", "a"], "this inspects language models"),
    ],
)
def test_a_wrong_call_is_one_line(arguments, message, run, data, call, monkeypatch):
    monkeypatch.setattr("elman.cli.train_options.piped", lambda: False)
    places = {"FILE": str(data / "train.txt"), "RUN": str(run.run)}
    code, out, err = call(*(places.get(a, a) for a in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_label_that_training_had_not_is_named_at_evaluation(run, tmp_path, call):
    (tmp_path / "t.txt").write_text("(1 yes)\n(7 no)\n")
    code, _, err = call("evaluate", run.run, tmp_path / "t.txt")
    assert code == 2
    assert "t.txt, line 2: the label '7' is not among those of training, 0, 1" in err


def test_labels_may_be_missing_and_files_may_come_from_anywhere(tmp_path, call):
    file = tmp_path / "t.txt"
    lines = "(1 (schön) (1 日本))\r\n((0 bad) (day))\r\n(0 no)\r\n"
    file.write_bytes(b"\xef\xbb\xbf" + (lines * 8).encode())
    where = tmp_path / "r"
    assert call("train", "tree", file, "--steps", 2, "--hidden", 3, "--run", where, "-q")[0] == 0
    code, out, _ = call("predict", where, file)
    assert code == 0
    assert "schön" in out


def test_a_word_in_the_place_of_a_label_is_doubted(run, call):
    code, out, err = call("predict", run.run, stdin="(1 yes)\n((not yes) (no))\n(? no)\n")
    assert code == 0
    assert out.count("\n") == 3
    assert "line 2: (not yes) is read as the word 'yes'" in err
    assert err.count("\n") == 1


# The picture.


def test_leaves_stand_side_by_side_and_parents_above_their_children():
    tree = next(parse_trees(["(a (b (c x) (d y) (e z)) (f w))"], "t"))
    across, up = pictures.places(tree)
    assert across == [2.0, 1.0, 0.0, 1.0, 2.0, 3.0]
    assert up == [2.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_tree_is_drawn(run, data, tmp_path, call):
    code, _, err = call("predict", run.run, data / "valid.txt", "--plot", tmp_path / "t.png")
    assert code == 0
    assert "39 more are not drawn" in err
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_tree_too_wide_to_read_is_not_drawn(run, tmp_path):
    wide = LabelledTree(["1"] * 101, [None, *["yes"] * 100], [-1, *[0] * 100])
    said = run.model.label(["(1 yes)"])[0]
    with pytest.raises(InputError, match="100 leaves; a picture shows at most 80"):
        pictures.labelled(wide, said, ("0", "1"), tmp_path / "t.png")
