"""Translation: learned, resumed, kept in a file, asked, measured, and told what is wrong."""

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
from elman.tasks.translate import Translation, decode
from elman.training.folder import read_metrics
from elman.training.signals import Interrupted

SMALL = {"hidden": 12, "embedding": 6, "pairs": 16}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _pairs(count, seed):
    """Digits into words, of one to four digits."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randint(1, 4))]
        found.append(("".join(map(str, digits)), " ".join(NUMBERS[d] for d in digits)))
    return found


def _tsv(pairs):
    return "".join(f"{a}\t{b}\n" for a, b in pairs)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "train.tsv").write_text(_tsv(_pairs(600, 1)))
    (folder / "test.tsv").write_text(_tsv(_pairs(40, 2)))
    for side, name in enumerate(("a.num", "a.word")):
        (folder / name).write_text("".join(f"{p[side]}\n" for p in _pairs(200, 3)))
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    where = tmp_path_factory.mktemp("runs") / "words"
    result = elman.train(
        "translate", data / "train.tsv", run=where, quiet=True, steps=260, hidden=48, embedding=24,
        pairs=32,
    )  # fmt: skip
    torch.set_num_threads(threads)
    return result


@pytest.fixture
def call(capsys, monkeypatch):
    def run_main(*arguments, stdin=None):
        class Input(io.TextIOWrapper):
            def isatty(self):
                return stdin is None

        monkeypatch.setattr("sys.stdin", Input(io.BytesIO((stdin or "").encode())))
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run_main


# What is learned and told.


def test_digits_become_words(run, data):
    assert run.metrics["exact"] > 0.9
    model = load(run.run)
    assert model.translate(["7", "3051"]) == ["seven", "three zero five one"]
    found = model.evaluate(data / "test.tsv")
    told = model.translate([a for a, _ in _pairs(40, 2)])
    right = [b for _, b in _pairs(40, 2)]
    assert found["exact"] == np.mean([a == b for a, b in zip(told, right, strict=True)])
    assert found["exact"] > 0.9 > found["baseline"]["exact"]
    assert found["baseline"]["name"] == "translation memory"
    assert "ahead of the translation memory" in found["verdict"]
    json.dumps(found, allow_nan=False)
    assert sum(row["sentences"] for row in found["by_length"]) == 40


@pytest.mark.parametrize("beam", [1, 4])
def test_a_text_of_a_batch_is_translated_as_if_alone(run, beam):
    model = load(run.run)
    model.network.double()
    texts = [a for a, _ in _pairs(30, 5)]
    together = model.translate(texts, beam=beam)
    assert together == [model.translate([text], beam=beam)[0] for text in texts]


def test_padding_changes_no_loss(data):
    task = build("translate", [data / "train.tsv"], SMALL)
    task.model.double().eval()
    rows = np.arange(12)
    batch = task.corpus.train.batch(rows)
    loss, _, count = task.loss(batch, None)
    alone = [task.loss(task.corpus.train.batch(rows[i : i + 1]), None) for i in range(12)]
    assert count == sum(n for *_, n in alone)
    total = sum(one.item() * n for one, _, n in alone)
    assert loss.item() * count == pytest.approx(total, rel=1e-12)


def test_the_search_finds_what_the_network_says(run):
    """ln p of a hypothesis is the loss of telling it."""
    model = load(run.run)
    model.network.double()
    numbers = list(model.units[0].numbers(["42", "9"]))
    found = decode.search(model.network, numbers, beam=3, length_penalty=1.0, ratio=2.0, longest=20)
    for source, hypotheses in zip(numbers, found, strict=True):
        for hypothesis in hypotheses:
            padded, lengths = torch.tensor([[*source, 3]]), torch.tensor([len(source) + 1])
            inputs = torch.tensor([[2, *hypothesis.tokens]])
            steps = torch.tensor([inputs.shape[1]])
            with torch.no_grad():
                told = model.network(padded, lengths, inputs, steps)
                targets = torch.tensor([[*hypothesis.tokens, 3]])
                loss, _ = model.network.decoder.loss(told.features, targets, steps)
            # The search never says padding or the start, which the network gives next to nothing.
            assert hypothesis.log_probability == pytest.approx(-loss.item(), abs=1e-2)


def test_attention_looks_at_the_digit_that_is_told(run):
    found = load(run.run).alignment("3051")
    assert found.source == ["3", "0", "5", "1", "</s>"]
    assert found.target == [" three", " zero", " five", " one", "</s>"]
    assert found.weights.shape == (5, 5)
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-5)


def test_the_vectors_of_the_source_can_be_asked_for(run, call):
    names, vectors = load(run.run).vectors()
    assert sorted(names) == list("0123456789")
    assert vectors.shape == (10, 24)
    code, out, _ = call("neighbours", run.run, "7")
    assert code == 0
    assert out.startswith("7")


def test_an_unknown_target_becomes_the_source_looked_at(tmp_path):
    names = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}{'xyz'[i % 3]}" for i in range(300)]
    lines = [f"call {name} now\tappelle {name} maintenant\n" for name in names]
    (tmp_path / "t.tsv").write_text("".join(lines))
    task = build("translate", [tmp_path / "t.tsv"], {**SMALL, "level": "word", "target_units": 2})
    model = task.trained()
    told = [model.units[1].lexicon.number(" appelle"), 1]
    with torch.no_grad():  # attention that looks at the second unit alone
        model.network.decoder.attention.of_key.weight.zero_()
    number = next(model.units[0].numbers(["call Bob now"]))
    copied = model._copied(["call Bob now"], [number], [told])[0]
    assert len(copied) == 2
    assert set(copied) <= {" call", " Bob", " now", ""}
    assert model.units[1].text(told, ["", " Bob"]) == "appelle Bob"


@pytest.mark.parametrize("attention", ["additive", "none"])
@pytest.mark.parametrize("cell", ["gru", "mgu"])
def test_other_networks_train(data, tmp_path, attention, cell):
    result = elman.train(
        "translate", data / "train.tsv", run=tmp_path / "r", quiet=True, steps=3, cell=cell,
        attention=attention, layers=2, tied=True, dropout=0.1, **SMALL,
    )  # fmt: skip
    model = load(result.run)
    assert len(model.translate(["12", "3"])) == 2
    if attention == "none":
        with pytest.raises(InputError, match="without attention"):
            model.alignment("12")


def test_outputs_fed_back_train_too(data):
    task = build("translate", [data / "train.tsv"], {**SMALL, "feed_back": 0.5})
    torch.manual_seed(0)
    loss, _, count = task.loss(task.batch(0), None)
    loss.backward()
    assert count > 0
    assert task.network.decoder.layer.weight_hh_l0.grad.abs().sum() > 0
    assert any("fed back 0.5" in line for line in task.describe())


@pytest.mark.parametrize(("column", "level"), [("english", "word"), ("chinese", "char")])
def test_the_numbers_we_ship_are_right_and_are_read(column, level):
    file = Path(elman.__file__).parent / "demo_data" / "numbers.csv"
    task = build("translate", [file], {**SMALL, "text": "number", "target": column})
    assert (task.options.source_level, task.options.target_level) == ("char", level)
    assert task.metadata()["tokenizer"] == ("zh" if column == "chinese" else "13a")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2001
    for line in (
        "498055,four hundred ninety eight thousand fifty five,四十九万八千零五十五",
        "10276,ten thousand two hundred seventy six,一万零二百七十六",
        "1464,one thousand four hundred sixty four,一千四百六十四",
        "22,twenty two,二十二",
    ):
        assert line in lines


# The run.


def test_a_resumed_run_is_the_unbroken_one(data, tmp_path):
    settings = {"steps": 6, "quiet": True, "dropout": 0.2, "validate_every": 3, **SMALL}
    unbroken = elman.train("translate", data / "train.tsv", run=tmp_path / "one", **settings)
    step = Translation.batch

    def stop(task, number):
        if number == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(task, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Translation, "batch", stop)
        with pytest.raises(Interrupted):
            elman.train("translate", data / "train.tsv", run=tmp_path / "two", **settings)
    resumed = elman.train("translate", run=tmp_path / "two", resume=True, quiet=True)
    assert resumed.steps == unbroken.steps == 6
    losses = [
        [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl")
         if row["kind"] == "train"] for name in ("one", "two")
    ]  # fmt: skip
    assert losses[0] == losses[1]
    files = [model_file.read(tmp_path / name / "model.safetensors")[2] for name in ("one", "two")]
    for name, weight in files[0].items():
        assert torch.equal(weight, files[1][name]), name


def test_a_model_file_comes_back(run, tmp_path):
    kind, metadata, tensors = model_file.read(run.run / "model.safetensors")
    assert kind == "translate"
    model_file.write(tmp_path / "m.safetensors", kind, metadata, tensors)
    again = load(tmp_path / "m.safetensors")
    texts = [a for a, _ in _pairs(10, 8)]
    assert again.translate(texts) == run.model.translate(texts)
    assert again.evaluate([{"1": "1", "2": "one"}])["baseline"] is None


def test_a_damaged_model_file_is_refused(run, tmp_path):
    kind, good, tensors = model_file.read(run.run / "model.safetensors")
    for change in (
        {"bounds": [1.0]}, {"bounds": [-1.0, 5]}, {"tokenizer": "exec"}, {"vocabulary": {}},
        {"config": {**good["config"], "hidden": 10**9}}, {"more": 1},
        {"config": {**good["config"], "attention": "none"}},
        {"config": {**good["config"], "layers": 10**12}},
    ):  # fmt: skip
        model_file.write(tmp_path / "m.safetensors", kind, {**good, **change}, tensors)
        with pytest.raises(FileError, match=r"m\.safetensors: "):
            load(tmp_path / "m.safetensors")


def test_equal_sources_are_never_on_both_sides(data):
    corpus = build("translate", [data / "train.tsv"], SMALL).corpus
    sides = [set(part.texts(np.arange(len(part)))[0]) for part in (corpus.train, corpus.valid)]
    assert not sides[0] & sides[1]
    assert len(corpus.train) + len(corpus.valid) == 600


def test_two_files_are_one_table(data, tmp_path):
    (tmp_path / "b.tsv").write_text(_tsv(_pairs(200, 3)))
    aligned = build("translate", [data / "a.num", data / "a.word"], SMALL)
    table = build("translate", [tmp_path / "b.tsv"], SMALL)
    for step in range(3):
        for one, two in zip(aligned.batch(step), table.batch(step), strict=True):
            assert torch.equal(one, two)


def test_data_from_python(run):
    model = run.model
    rows = [{"1": "12", "2": "one two"}, {"1": "8", "2": "eight"}]
    assert [r["translation"] for r in model.predict(rows)] == model.translate(["12", "8"])
    assert [r["translation"] for r in model.predict(["12", "8"])] == model.translate(["12", "8"])
    named = [{"digits": "12", "words": "one two"}] * 5 + [{"digits": "8", "words": "eight"}] * 5
    task = elman.train(
        "translate", named, text="digits", target="words", steps=1, quiet=True, valid_fraction=0.5,
        run=run.run.parent / "p", **SMALL,
    )  # fmt: skip
    assert task.model.options.text == "digits"
    assert len(task.model.predict([{"digits": "8"}])) == 1


def test_columns_are_found_by_name(tmp_path):
    lines = [
        json.dumps({"id": i, "target": b, "source": a}) for i, (a, b) in enumerate(_pairs(40, 1))
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    task = build("translate", [tmp_path / "t.jsonl"], SMALL)
    assert (task.options.text, task.options.target) == ("source", "target")
    assert task.corpus.train.texts([0])[1][0].split()[0] in NUMBERS


# The command line.


def test_train_predict_and_evaluate(data, tmp_path, call):
    where = tmp_path / "r"
    code, out, err = call(
        "train", "translate", data / "train.tsv", "--valid-file", data / "test.tsv", "--steps", 20,
        "--hidden", 8, "--embedding", 4, "--run", where,
    )  # fmt: skip
    assert code == 0, err
    assert out.strip() == str(where)
    assert "40 to validate on" in err
    code, out, err = call("predict", where, data / "test.tsv")
    assert (code, out.count("\n")) == (0, 40)
    code, out, err = call("predict", where, "--json", stdin="12\n3\n")
    first, second = map(json.loads, out.splitlines())
    assert (first["source"], second["source"]) == ("12", "3")
    code, piped, err = call("predict", where, stdin="12\tone two\n3\tthree\n")
    assert piped.splitlines() == [first["translation"], second["translation"]]
    code, out, err = call("evaluate", where, data / "test.tsv", "--json")
    found = json.loads(out)
    assert {"bleu", "chrf", "exact", "signature", "intervals", "baseline", "verdict"} <= set(found)
    assert "version:" in found["signature"]
    code, out, err = call("evaluate", where, data / "test.tsv")
    assert out.startswith("40 pairs\nBLEU: ")
    code, out, err = call("evaluate", where, data / "a.num", data / "a.word")
    assert (code, out.startswith("200 pairs")) == (0, True)


def test_attention_is_drawn(run, data, tmp_path, call):
    code, _, err = call("predict", run.run, data / "test.tsv", "--plot", tmp_path / "t.png")
    assert code == 0, err
    assert "39 more are not drawn" in err
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "long.txt").write_text("12" * 100 + "\n")
    code, _, err = call("predict", run.run, tmp_path / "long.txt", "--plot", tmp_path / "u.png")
    assert (code, "a picture shows at most 80" in err) == (2, True)


def test_odd_texts_are_translated_with_a_note(run, call):
    code, out, err = call("predict", run.run, stdin="1\n\n日本\n" + "123" * 2000 + "\n")
    assert code == 0
    assert out.splitlines()[:2] == ["one", ""]
    assert out.count("\n") == 4
    assert err.count("\n") == 1
    assert "empty" in err


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("a\tb\n", [], "1 example(s), all alike, cannot be divided"),
        ("a\tb\n" * 20, [], "20 example(s), all alike"),
        ("a b c\nd e f\n", [], "one column holds no pairs"),
        ("", [], "is empty"),
        ("\tb\n" * 9, [], "no pair has both sides"),
        ("a\tb\nc\td\n" * 9, ["--text", "3"], "there is no column '3' (text, the source)"),
        ("a\tb\nc\td\n" * 9, ["--text", "2", "--target", "2"], "source and the target at once"),
        ("a\tb\nc\td\te\n" * 9, [], "line 2"),
        ("aaa\tb\nccc\td\n" * 9, ["--longest", "2", "--level", "char"], "more than 2 units"),
        ("a\tb\nc\td\n" * 9, ["--cell", "lsmt"], "lstm"),
        ("a\tb\nc\td\n" * 9, ["--valid-file", "no.tsv"], "no.tsv: there is no such file"),
        ("a\tb\nc\td\n" * 9, ["--attention", "aditive"], "aditive"),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_learned(text, arguments, message, tmp_path, call):
    (tmp_path / "t.tsv").write_text(text)
    code, out, err = call(
        "train",
        "translate",
        tmp_path / "t.tsv",
        *arguments,
        "--steps",
        2,
        "--run",
        tmp_path / "run",
    )
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_files_of_different_lengths_name_the_first_line_without_a_partner(tmp_path, call):
    (tmp_path / "a.en").write_text("one\ntwo\nthree\n")
    (tmp_path / "a.fr").write_text("un\ndeux")
    code, _, err = call("train", "translate", tmp_path / "a.en", tmp_path / "a.fr", "--steps", 1)
    assert code == 2
    assert f"{tmp_path / 'a.en'}, line 3: has no partner" in err
    assert "3 lines" in err
    (tmp_path / "a.de").write_bytes("eins\nzwei\nf\xfcnf\n".encode("latin-1"))
    code, _, err = call("train", "translate", tmp_path / "a.en", tmp_path / "a.de", "--steps", 1)
    assert (code, "not UTF-8" in err) == (2, True)


def test_empty_sides_are_left_out_and_said_with_the_first_line(tmp_path):
    lines = _tsv(_pairs(30, 1)).splitlines()
    lines[4] = "12\t "
    lines[9] = "\tone"
    (tmp_path / "t.tsv").write_text("\n".join(lines))
    task = build("translate", [tmp_path / "t.tsv"], SMALL)
    told = [line for line in task.describe() if "empty side" in line]
    assert told == [
        f"2 pairs with an empty side are left out, the first in {tmp_path}/t.tsv, line 5"
    ]
    assert len(task.corpus.train) + len(task.corpus.valid) == 28


def test_a_very_long_pair_is_not_learned_from_and_one_is_translated(tmp_path, run):
    long = "12" * 50_000
    (tmp_path / "t.tsv").write_text(_tsv([*_pairs(40, 1), (long, "one")]))
    task = build("translate", [tmp_path / "t.tsv"], {**SMALL, "valid_fraction": 0.05})
    parts = [task.corpus.train, task.corpus.valid]
    if len(parts[0]) + len(parts[1]) < 41:
        assert any("the longest has 100,000" in line for line in task.describe())
    assert task.validate()["nats_per_token"] > 0
    record = run.model.predict([long])[0]
    assert "did not end" in record.get("note", "did not end")


def test_a_vocabulary_of_one_trains(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\naa\tbb\naaa\tbbb\n" * 5)
    result = elman.train(
        "translate", tmp_path / "t.tsv", run=tmp_path / "r", quiet=True, steps=2, **SMALL
    )
    assert set(load(result.run).translate(["aa"])[0]) <= {"b"}


def test_line_ends_and_marks_of_files_do_not_matter(tmp_path):
    plain = _tsv(_pairs(60, 4))
    (tmp_path / "a.tsv").write_text(plain)
    (tmp_path / "b.tsv").write_bytes(
        b"\xef\xbb\xbf" + plain.rstrip("\n").replace("\n", "\r\n").encode()
    )
    one, two = (build("translate", [tmp_path / f"{n}.tsv"], SMALL) for n in "ab")
    assert all(torch.equal(x, y) for x, y in zip(one.batch(0), two.batch(0), strict=True))
