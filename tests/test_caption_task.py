"""Captions as a task: learned, kept, resumed, written and measured, from classes and vectors."""

from __future__ import annotations

import io
import json
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import elman
from elman.cli import main
from elman.errors import FileError, InputError
from elman.tasks import build, load, model_file
from elman.tasks.caption import Captioning
from elman.training.signals import Interrupted

DIGITS = Path(elman.__file__).parent / "demo_data" / "digits.jsonl"
SMALL = {"hidden": 8, "embedding": 4, "condition": 4, "batch": 8}


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


def _trained(*arguments, **options):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = elman.train("caption", *arguments, quiet=True, reports=[], **options)
    torch.set_num_threads(before)
    return result


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    run = tmp_path_factory.mktemp("digits") / "run"
    return _trained(DIGITS, run=run, epochs=7, lr=1e-2, hidden=32, dropout=0.2)


def _names(count: int = 120) -> str:
    """Names of two classes that a bigram of all cannot tell apart, as the lines of a table."""
    draw = random.Random(0)
    lines = ["kind,name"]
    for _ in range(count):
        kind = draw.choice("xy")
        letters = "ab" if kind == "x" else "ba"
        lines.append(f"{kind},{letters * draw.randint(1, 3)}{draw.choice('cdefg')}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    (folder / "n.csv").write_text(_names())
    return _trained(folder / "n.csv", run=folder / "run", epochs=10, lr=1e-2, hidden=16)


# Learning.


def test_pictures_of_digits_are_spelled(digits):
    assert digits.metrics["exact"] >= 0.85
    assert digits.metrics["nats_per_char"] < 0.3
    assert "nearest" in digits.baseline["name"]
    assert digits.baseline["exact"] > 0.5


def test_the_class_decides_how_a_text_begins(names):
    model = names.model
    assert model.predict([{"kind": "x"}])[0]["text"].startswith("ab")
    drawn = model.generate("y", count=20, seed=1)
    assert np.mean([text.startswith("ba") for text in drawn]) > 0.8
    assert len(set(drawn)) > 3
    ngrams = names.baseline["nats_per_char_by_ngram"]
    given = names.baseline["nats_per_char_by_ngram_given_class"]
    assert given["bigram"] < ngrams["bigram"]
    assert "exact" not in names.metrics  # many names are right


def test_a_batch_is_a_function_of_the_step_and_the_seed(tmp_path):
    (tmp_path / "n.csv").write_text(_names())
    tasks = [build("caption", [tmp_path / "n.csv"], SMALL, seed=3) for _ in range(2)]
    for step in (40, 0, 7):
        for one, other in zip(*(t.batch(step) for t in tasks), strict=True):
            assert torch.equal(one, other)
    rows = sum(len(tasks[0].batch(s)[0]) for s in range(tasks[0].steps_per_epoch))
    assert isinstance(tasks[0], Captioning)
    assert rows == len(tasks[0].corpus.train.tokens)


def test_a_batch_tells_each_text_and_its_end(tmp_path):
    (tmp_path / "n.csv").write_text(_names())
    task = build("caption", [tmp_path / "n.csv"], {**SMALL, "unknown_rate": 0.0})
    assert isinstance(task, Captioning)
    inputs, targets, lengths, labels, vectors = task.batch(2)
    meaning, examples = task.corpus.meaning, task.batches.examples(2)
    assert vectors.shape == (len(examples), 0)
    for row, example in enumerate(examples):
        text, n = task.corpus.train.tokens[example], int(lengths[row])
        assert inputs[row, :n].tolist() == [meaning.end, *text]
        assert targets[row, :n].tolist() == [*text, meaning.end]
        assert not inputs[row, n:].any()
        assert int(labels[row]) == task.corpus.train.labels[example]


def test_shares_of_two_processes_make_up_the_batch(tmp_path):
    (tmp_path / "n.csv").write_text(_names(60) + "x,Z\nx,Q\n")  # letters seen once: hidden
    whole, *parts = (build("caption", [tmp_path / "n.csv"], {**SMALL, "dropout": 0.0})
                     for _ in range(3))  # fmt: skip
    for rank, part in enumerate(parts):
        part.rank, part.world = rank, 2
    for step in range(whole.steps_per_epoch):
        found = [part.loss(part.batch(step), None) for part in parts]
        total = sum(float(loss.detach()) * count for loss, _, count in found)
        loss, _, count = whole.loss(whole.batch(step), None)
        assert sum(n for *_, n in found) == count
        assert total / count == pytest.approx(float(loss.detach()), rel=1e-5)


def test_validation_and_loss_agree(tmp_path):
    (tmp_path / "n.csv").write_text(_names(60))
    options = {**SMALL, "dropout": 0.0, "unknown_rate": 0.0, "batch": 500}
    valid = {"valid_file": str(tmp_path / "n.csv")}
    task = build("caption", [tmp_path / "n.csv"], options | valid)
    loss, _, count = task.loss(task.batch(0), None)
    task.model.eval()
    found = task.validate()
    assert task.steps_per_epoch == 1
    assert found["nats_per_token"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert found["nats_per_char"] == found["nats_per_token"]
    assert count == sum(len(line.split(",")[1]) + 1 for line in _names(60).splitlines()[1:])


def test_words_are_told_where_texts_are_sentences(tmp_path):
    (tmp_path / "s.csv").write_text(
        "label,text\n" + "".join(f"{k},it is a fine {k} today {i}\n" for i in range(30)
                                 for k in ("day", "night"))
    )  # fmt: skip
    task = build("caption", [tmp_path / "s.csv"], SMALL)
    assert isinstance(task, Captioning)
    assert task.corpus.meaning.level == "word"
    task.model.eval()
    found = task.validate()
    characters = sum(len(text) + 1 for text in task.corpus.right)
    tokens = sum(len(text.split()) + 1 for text in task.corpus.right)
    ratio = found["nats_per_char"] / found["nats_per_token"]
    assert ratio == pytest.approx(tokens / characters)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    (tmp_path / "n.csv").write_text(_names())

    def options(name):
        return {"run": tmp_path / name, "steps": 24, "validate_every": 10, "quiet": True,
                "reports": [], **SMALL}  # fmt: skip

    elman.train("caption", tmp_path / "n.csv", **options("whole"))
    batch = Captioning.batch

    def stopping(self, step):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(Captioning, "batch", stopping)
    with pytest.raises(Interrupted, match=r"elman train caption --run .* --resume"):
        elman.train("caption", tmp_path / "n.csv", **options("cut"))
    monkeypatch.undo()
    elman.train("caption", run=tmp_path / "cut", resume=True, quiet=True, reports=[])
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


# The model file, evaluation and writing.


def test_the_model_file_gives_the_same_model_and_its_baseline(digits, names):
    for result in (digits, names):
        again = load(result.run)
        data = DIGITS if result is digits else result.run.parent / "n.csv"
        assert again.predict(data) == result.model.predict(data)
        told = again.evaluate(data)
        assert told == result.model.evaluate(data)
        low, high = told["intervals"]["nats_per_char"]
        assert low < told["nats_per_char"] < high
        assert told["baseline"]["name"] == result.baseline["name"]
        assert any(words in told["verdict"] for words in ("ahead of", "Use the baseline"))
        assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_exact_texts_and_their_probabilities(digits):
    rows = [json.loads(line) for line in DIGITS.read_text().splitlines()[:50]]
    said = digits.model.predict([{"pixels": row["pixels"]} for row in rows])
    share = np.mean([a["text"] == row["word"] for a, row in zip(said, rows, strict=True)])
    told = digits.model.evaluate(rows)
    assert told["exact"] == pytest.approx(share)
    assert told["captions"] == 50
    assert all(0 < row["probability"] <= 1 for row in said)
    alone = digits.model.predict([{"pixels": rows[7]["pixels"]}])[0]
    assert alone["text"] == said[7]["text"]
    assert alone["probability"] == pytest.approx(said[7]["probability"], rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["config"].update(hidden=33), "weight"),
        (lambda m: m["config"].update(hidden=10**9), "sizes do not fit"),
        (lambda m: m["config"].update(hidden=None), "sizes do not fit"),
        (lambda m: m["tokens"].append("new"), "weight"),
        (lambda m: m.update(features=65), "weight"),
        (lambda m: m.update(features=0), "cannot be"),
        (lambda m: m.update(features="64"), "cannot be"),
        (lambda m: m.update(classes=[1]), "no list of names"),
        (lambda m: m.pop("classes"), "do not describe a model of captions"),
        (lambda m: m["config"].update(cell="nosuch"), "nosuch"),
    ],
)
def test_an_altered_model_file_is_refused(digits, tmp_path, change, message):
    name, metadata, tensors = model_file.read(digits.run / "model.safetensors")
    change(metadata)
    model_file.write(tmp_path / "m", name, metadata, tensors)
    with pytest.raises(FileError, match=message):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "writes from a class"),
        ({"label": "x", "vector": [1.0]}, "writes from a class"),
        ({"label": "z"}, "'z' is not among those of training, x, y"),
        ({"label": "x", "count": 0}, "count 0"),
        ({"label": "x", "temperature": -1.0}, "temperature -1"),
        ({"label": "x", "top_p": 0.0}, "top_p 0"),
        ({"label": "x", "seed": -1}, "seed -1"),
    ],
)
def test_what_cannot_be_written_is_said(names, arguments, message):
    with pytest.raises(InputError, match=message):
        names.model.generate(**arguments)


def test_a_vector_must_be_one_of_training(digits):
    assert digits.model.generate(vector=[0] * 64, count=2, seed=1)
    with pytest.raises(InputError, match="expected 64 finite numbers"):
        digits.model.generate(vector=[1.0, 2.0])
    with pytest.raises(InputError, match="expected 64 finite numbers"):
        digits.model.generate(vector=[float("nan")] * 64)
    with pytest.raises(FileError, match="3 numbers a row; the model writes from 64"):
        digits.model.predict([{"pixels": [1, 2, 3]}])


# The command line.


def test_train_predict_and_evaluate(tmp_path, call):
    (tmp_path / "n.csv").write_text(_names())
    where = tmp_path / "r"
    code, out, err = call(
        "train", "caption", tmp_path / "n.csv", "--label", "kind", "--text", "name", "--steps", 9,
        "--hidden", 6, "--run", where,
    )  # fmt: skip
    assert code == 0, err
    assert out.strip() == str(where)
    assert "nats/char" in err
    assert "2 classes" in err
    code, out, err = call("predict", where, stdin="kind\nx\ny\nx\n")
    assert code == 0, err
    assert [line.split("\t")[0] for line in out.splitlines()] == ["x", "y", "x"]
    code, out, err = call("predict", where, tmp_path / "n.csv", "--json")
    assert sorted(json.loads(out.splitlines()[0])) == ["label", "probability", "text"]
    code, out, err = call("predict", where, stdin="kind\nx\nz\n")
    assert code == 2
    assert "line 3: the class 'z' is not among those of training, x, y" in err
    code, out, err = call("evaluate", where, tmp_path / "n.csv", "--json")
    found = json.loads(out)
    assert found["captions"] == 120
    assert found["baseline"]["nats_per_char_by_ngram"]["bigram"] > 0
    code, out, err = call("evaluate", where, tmp_path / "n.csv")
    assert out.startswith("120 texts, ")
    assert "bigram given the class" in out


def test_generate_writes_texts_of_a_class(names, digits, call):
    code, out, err = call("generate", names.run, "--label", "x", "--count", 3, "--seed", 4)
    assert code == 0, err
    assert out.splitlines() == names.model.generate("x", count=3, seed=4)
    code, out, err = call("generate", names.run, "--label", "x", "--json", "-t", 0)
    assert json.loads(out)["texts"] == names.model.generate("x", temperature=0.0)
    code, _, err = call("generate", names.run)
    assert code == 2
    assert "writes from a class (label), one of x, y" in err
    code, _, err = call("generate", digits.run, "--label", "x")
    assert code == 2
    assert "elman predict" in err


def test_the_vectors_of_tokens_can_be_asked_for(names, call):
    code, out, err = call("neighbours", names.run, "a", "--json")
    assert code == 0, err
    assert json.loads(out)[0]["token"] == "a"
    tokens, vectors = names.model.vectors()
    assert set(tokens) == set("abcdefg")
    assert vectors.shape == (7, 64)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("label,text\nx,one\nx,two\n", ["--label", "lable"], "no column 'lable'"),
        ("label,text\nx,one\nx,\n", [], "t.csv, line 3: column 'text' is empty"),
        ("label,text\n" + "x,one\n" * 30, [], "all alike"),
        ("label,text\nx,one\n", [], "cannot be divided"),
        ("label,text\n" + "x,one\nx,two\n" * 9, ["--cell", "gruu"], "Did you mean 'gru'"),
        ("label,text\n" + "x,one\nx,two\n" * 9, ["--beam", "0"], "beam"),
        ("p,text\n" + "1,one\n2,two\n" * 9 + ",one\n", ["--past", "p"], "line 20: column 'p'"),
        ("p,text\n" + "1,one\n2,two\n" * 9, ["--past", "q"], "no column 'q'"),
        ("label,text\n" + "x,one\nx,two\n" * 9, ["--hiden", "3"], "Did you mean '--hidden'?"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_learned(text, arguments, message, tmp_path, call):
    file = tmp_path / "t.csv"
    file.write_text(text)
    where = tmp_path / "run"
    code, out, err = call("train", "caption", file, "--steps", 2, "--run", where, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not where.exists()


def test_a_class_that_training_had_not_is_named_at_validation(tmp_path):
    (tmp_path / "t.csv").write_text("label,text\nx,one\ny,two\nx,three\n")
    (tmp_path / "v.csv").write_text("label,text\nx,one\nz,two\n")
    with pytest.raises(FileError, match=r"v\.csv, line 3: the class 'z'"):
        build("caption", [tmp_path / "t.csv"], {"valid_file": str(tmp_path / "v.csv")})


def test_files_may_come_from_anywhere(tmp_path):
    lines = "label,text\r\n" + "日,Μαρία\r\nя,Šárka\r\nя,José\r\n日,春\r\n" * 5
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + lines.removesuffix("\r\n").encode())
    task = build("caption", [tmp_path / "t.csv"], SMALL)
    assert isinstance(task, Captioning)
    assert task.corpus.meaning.classes == ("я", "日")
    assert "Μ" in task.corpus.meaning.lexicon
    assert task.sample()


# What we ship.


def test_the_data_of_our_own_are_what_their_program_makes(tmp_path):
    import importlib.util

    folder = DIGITS.parent
    place = importlib.util.spec_from_file_location("make", folder / "make.py")
    assert place is not None
    assert place.loader is not None
    made = importlib.util.module_from_spec(place)
    place.loader.exec_module(made)
    made.main(str(tmp_path))
    for name in ("digits.jsonl", "outfits.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
