"""Classes of sequences as a task: from a file to a model, resumed, asked, measured, refused."""

from __future__ import annotations

import io
import json
import os
import random
import signal

import numpy as np
import pytest
import torch

import elman
from elman.cli import main
from elman.errors import FileError, InputError
from elman.plots import classify as pictures
from elman.tasks import build, load, model_file
from elman.tasks.classify import Classify
from elman.tasks.classify.credit import coloured, strengths
from elman.training.signals import Interrupted

SMALL = {"hidden": 8, "embedding": 6, "members": 2, "delay_members": 1, "pieces": 50, "batch": 16,
         "ngrams": True}  # fmt: skip
FILL = ["the", "a", "film", "plot", "it", "was", "and", "very", "some", "of"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts with one fine and one bad; the class is which comes first, four words between them."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        first = draw.random() < 0.5
        words = [draw.choice(FILL) for _ in range(draw.randint(4, 7))]
        words.insert(0, "fine" if first else "bad")
        words.append("bad" if first else "fine")
        words += [draw.choice(FILL) for _ in range(draw.randint(0, 2))]
        rows.append((" ".join(words), "up" if first else "down"))
    return rows


def _tsv(path, rows):
    path.write_text("".join(f"{label}\t{text}\n" for text, label in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    _tsv(folder / "train.tsv", _rows(200, 1))
    _tsv(folder / "test.tsv", _rows(60, 2))
    return folder


@pytest.fixture(scope="module")
def run(data):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = elman.train(
        "classify", data / "train.tsv", run=data / "run", epochs=10, lr=3e-2, dropout=0.0,
        quiet=True, pool="last", **SMALL,
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


# -- a run -----------------------------------------------------------------------------------


def test_it_learns_an_order_that_no_count_of_words_can_tell(run, data):
    assert run.metrics["accuracy"] >= 0.95
    found = run.model.evaluate(data / "test.tsv")
    assert found["accuracy"] >= 0.95
    low, high = found["intervals"]["accuracy"]
    assert low <= found["accuracy"] <= high
    assert found["baseline"]["name"].startswith("naive Bayes on word")
    swapped = [
        {"2": text, "1": {"up": "down", "down": "up"}[label]} for text, label in _rows(60, 2)
    ]
    upside_down = run.model.evaluate(swapped)
    assert upside_down["accuracy"] == pytest.approx(1 - found["accuracy"])
    assert "Use the baseline" in upside_down["verdict"]


def test_a_run_keeps_pictures_and_baseline(run, data):
    assert (run.run / "plots" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    kept = json.loads((run.run / "keepsake.json").read_text())
    assert np.trace(np.array(kept["confusion"])) / np.sum(kept["confusion"]) == pytest.approx(
        run.metrics["accuracy"]
    )
    again = load(run.run).evaluate([data / "test.tsv"])
    assert again == run.model.evaluate(str(data / "test.tsv"))


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(data, tmp_path, monkeypatch):
    def options(name):
        return {"run": tmp_path / name, "steps": 24, "validate_every": 10, "quiet": True,
                "reports": [], **SMALL}  # fmt: skip

    elman.train("classify", data / "train.tsv", **options("whole"))
    batch = Classify.batch

    def stopping(self, step):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(Classify, "batch", stopping)
    with pytest.raises(Interrupted, match=r"elman train classify --run .* --resume"):
        elman.train("classify", data / "train.tsv", **options("cut"))
    monkeypatch.undo()
    elman.train("classify", run=tmp_path / "cut", resume=True, quiet=True, reports=[])
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_resolved_options_build_the_same_task(data):
    task = build("classify", [data / "train.tsv"], SMALL, seed=3)
    again = build("classify", [data / "train.tsv"], task.config.model_dump(), seed=3)
    assert task.config == again.config
    for step in (40, 0, 7):
        for one, other in zip(task.batch(step), again.batch(step), strict=True):
            assert torch.equal(one, other)
    for one, other in zip(task.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_two_processes_share_a_batch(data):
    task = build("classify", [data / "train.tsv"], {**SMALL, "unknown_rate": 0.9, "min_count": 2})
    whole = task.batch(5)
    count = task.loss(whole, None)[2]
    task.model.eval()  # no dropout, which differs by process
    loss = task.loss(whole, None)[0].detach()
    total, seen = 0.0, 0
    task.world = 2
    for task.rank in (0, 1):
        part = task.batch(5)
        assert torch.equal(part[0], whole[0][task.rank :: 2])
        value, _, n = task.loss(part, None)
        total, seen = total + float(value.detach()) * n, seen + n
    assert seen == count
    assert total / seen == pytest.approx(float(loss), rel=1e-5)


def test_class_weights_and_smoothing_are_those_of_the_definition(tmp_path):
    rows = [(f"fine {i}", "a") for i in range(30)] + [(f"bad {i}", "b") for i in range(10)]
    options = {**SMALL, "class_weights": "balanced", "smoothing": 0.1, "dropout": 0.0}
    task = build("classify", [_tsv(tmp_path / "a.tsv", rows)], options)
    task.model.eval()
    batch = task.batch(0)
    loss, carry, count = task.loss(batch, None)
    assert carry is None
    assert count == len(batch[0])
    counts = np.bincount(task.train.labels)
    weights = counts.sum() / (2 * counts)
    with torch.no_grad():
        logs = task.model(type(task.meaning.inputs([["a"]]))(*batch[1:])).log_softmax(-1)
    total = 0.0
    for member in logs:
        for row, label in zip(member, batch[0].tolist(), strict=True):
            total -= 0.9 * weights[label] * float(row[label])
            total -= 0.1 / 2 * sum(weights[c] * float(row[c]) for c in (0, 1))
    assert float(loss.detach()) == pytest.approx(total / (count * len(logs)), rel=1e-5)


# -- what is asked of a model ----------------------------------------------------------------


def test_texts_in_every_form_get_the_same_answer(run, tmp_path):
    texts = [text for text, _ in _rows(5, 7)]
    expected = run.model.predict(texts)
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(texts))
    table = _tsv(tmp_path / "new.tsv", [(text, "?") for text in texts])
    rows = [{"2": text} for text in texts]
    for data in (lines, table, rows):
        assert run.model.predict(data) == expected
    assert sum(expected[0]["probabilities"].values()) == pytest.approx(1)
    alone = [run.model.predict([text])[0]["probability"] for text in texts]
    assert alone == pytest.approx([row["probability"] for row in expected], rel=1e-5)


def test_arrow_tables_are_read(run):
    arrow = pytest.importorskip("pyarrow")
    texts = [text for text, _ in _rows(3, 8)]
    assert run.model.predict(arrow.table({"2": texts})) == run.model.predict(texts)


def test_labels_that_training_had_not_are_named_and_count_as_wrong(run):
    rows = [{"2": text, "1": label} for text, label in _rows(8, 4)]
    found = run.model.evaluate([*rows, {"2": "the film was fine", "1": "sideways"}])
    right = run.model.evaluate(rows)["accuracy"]
    assert found["unseen"] == ["sideways"]
    assert "no class 'sideways': 1 of the rows, counted as wrong" in found["note"]
    assert found["accuracy"] == pytest.approx(right * 8 / 9)
    assert found["by_class"]["sideways"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "count": 1}


def test_empty_texts_and_single_tokens_and_very_long_texts(run):
    said = run.model.predict(["", "fine", " ".join(FILL * 10_000)])
    assert [("note" in row) for row in said] == [True, False, False]
    assert "entry 0: the text is empty" in said[0]["note"]
    assert all(np.isfinite(row["probability"]) for row in said)
    rows = [{"2": "", "1": "up"}, {"2": "fine", "1": "up"}, {"2": "bad", "1": ""}]
    found = run.model.evaluate(rows)
    assert found["sequences"] == 1
    assert "1 row has no label" in found["note"]


def test_what_decided_is_what_falls_when_it_is_left_out(run):
    text = "fine it was a plot of some bad"
    found = run.model.decided(text)
    assert found.label == "up"
    assert found.tokens == tuple(text.split())
    whole = run.model.predict([text])[0]["probabilities"]["up"]
    for i, weight in enumerate(found.weights):
        words = text.split()
        del words[i]
        without = run.model.predict([" ".join(words)])[0]["probabilities"]["up"]
        assert weight == pytest.approx(np.log(whole / without), abs=1e-4)
    painted = coloured(found, " ")
    assert "\033[38;5;" in painted
    strongest = int(np.abs(strengths(found.weights)).argmax())
    assert found.tokens[strongest] in ("fine", "bad")
    assert len(run.model.decided("").tokens) == 0


def test_the_commands(run, data, call, tmp_path):
    code, out, _ = call("evaluate", run.run, data / "test.tsv", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"accuracy", "macro_f1", "intervals", "baseline", "verdict"} <= set(found)
    code, out, _ = call("evaluate", run.run, data / "test.tsv")
    assert "right, macro-F1" in out
    code, out, _ = call("predict", run.run, stdin="fine it was a bad\nbad it was a fine\n")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["up", "down"]
    (tmp_path / "q.txt").write_text("fine it was a bad\nmore\n")
    code, _, err = call("predict", run.run, tmp_path / "q.txt", "--plot", tmp_path / "a.png")
    assert code == 0
    assert "1 more are not drawn" in err
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = call("neighbours", run.run, "fine", "-n", "3", "--json")
    (record,) = json.loads(out)
    assert record["token"] == "fine"
    assert len(record["neighbours"]) == 3
    names, vectors = run.model.vectors()
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    cosines = unit @ unit[names.index("fine")]
    best = sorted(range(len(names)), key=lambda i: -float(cosines[i]))[1:4]
    assert [near["token"] for near in record["neighbours"]] == [names[i] for i in best]
    code, _, err = call("neighbours", run.run, "fime")
    assert (code, "Did you mean 'fine'?" in err) == (2, True)


def test_the_command_trains_by_named_columns(data, call, tmp_path):
    code, out, err = call(
        "train", "classify", data / "train.tsv", "--text", "2", "--label", "1", "--steps", "2",
        "--hidden", "4", "--members", "1", "--pieces", "0", "--pool", "mean", "--no-ngrams",
        "--cell", "gru", "--no-bidirectional", "--class-weights", "balanced",
        "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    assert "text in '2'" in err
    model = load(out.strip())
    assert model.network.counts is None
    assert model.network.members[0].layer.directions == 1
    code, _, err = call("train", "classify", data / "train.tsv", "--text", "txt")
    assert (code, "no column 'txt'" in err) == (2, True)


# -- numbers ---------------------------------------------------------------------------------


def _walks(count, seed):
    """Steps up or down whose order alone tells the class."""
    draw = np.random.default_rng(seed)
    walks, labels = [], []
    for i in range(count):
        half = draw.integers(3, 7)
        steps = np.r_[np.ones(half), -np.ones(half)] * (1 if i % 2 else -1)
        walks.append(np.c_[steps + 0.1 * draw.normal(size=2 * half), draw.normal(size=2 * half)])
        labels.append("hill" if i % 2 else "valley")
    return walks, labels


def test_numbers_of_a_table_and_of_arrays(tmp_path, call):
    walks, labels = _walks(120, 0)
    lines = ["walk,kind,x,y"]
    for i, (walk, label) in enumerate(zip(walks, labels, strict=True)):
        lines += [f"w{i},{label},{x:.6f},{y:.6f}" for x, y in walk]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    result = elman.train(
        "classify", tmp_path / "a.csv", id="walk", label="kind", run=tmp_path / "run", hidden=8,
        epochs=10, lr=2e-2, quiet=True, pool="last", valid_fraction=0.3,
    )  # fmt: skip
    assert result.metrics["accuracy"] >= 0.95
    assert result.baseline["name"] == "logistic regression on means and deviations"
    assert result.baseline["accuracy"] < 0.8
    new, true = _walks(10, 9)
    said = result.model.predict([walk.astype(np.float32) for walk in new])
    assert [row["label"] for row in said] == true
    code, _, err = call("predict", result.run, tmp_path / "a.csv", "--plot", tmp_path / "a.png")
    assert code == 0, err
    with pytest.raises(InputError, match=r"shape \(4, 3\); expected \(time, 2\)"):
        result.model.predict([np.zeros((4, 3), np.float32)])
    x = np.zeros((120, 12, 2))
    for i, walk in enumerate(walks):
        x[i, : len(walk)] = walk
    np.savez(tmp_path / "a.npz", x=x, y=labels, lengths=[len(walk) for walk in walks])
    task = build("classify", [tmp_path / "a.npz"], {"hidden": 4})
    other = build("classify", [tmp_path / "a.csv"], {"hidden": 4, "id": "walk", "label": "kind"})
    assert set(task.meaning.classes) == set(other.meaning.classes)
    np.testing.assert_allclose(task.meaning.spread, other.meaning.spread, rtol=0.05)
    rows = [
        {"seq": walk.tolist(), "kind": label} for walk, label in zip(walks, labels, strict=True)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lists = build("classify", [tmp_path / "a.jsonl"], {"hidden": 4, "label": "kind"})
    assert lists.columns["vectors"] == "seq"
    np.testing.assert_allclose(lists.meaning.spread, other.meaning.spread, rtol=0.05)


def test_what_is_wrong_with_numbers_is_said_with_its_line(tmp_path):
    def table(*changed):
        lines = ["walk,kind,x", "a,up,1", "a,up,2", "b,down,3", "b,down,4"]
        lines += [f"{name},up,{i}" for name in "cdefghij" for i in range(5)]
        for at, line in changed:
            lines[at] = line
        (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "a.csv"

    options = {"id": "walk", "label": "kind", "features": "x", "hidden": 4}
    with pytest.raises(FileError, match=r"a\.csv, line 3: column x: a number is missing"):
        build("classify", [table((2, "a,up,"))], options)
    with pytest.raises(FileError, match=r"a\.csv, line 5: sequence 'b' has the label 'up' here"):
        build("classify", [table((4, "b,up,4"))], options)
    with pytest.raises(FileError, match=r"a\.csv, line 4: column x: expected a number, got 'four'"):
        build("classify", [table((3, "b,down,four"))], options)
    with pytest.raises(InputError, match="pieces is for texts"):
        build("classify", [table()], {**options, "pieces": 9})


# -- odd data --------------------------------------------------------------------------------


def test_rows_without_text_or_label_are_left_out_and_named(tmp_path):
    rows = _rows(40, 1)
    lines = [f"{label}\t{text}" for text, label in rows]
    lines[3], lines[9] = "up\t ", "\tno label here"
    (tmp_path / "a.tsv").write_text("\n".join(lines) + "\n")
    task = build("classify", [tmp_path / "a.tsv"], SMALL)
    said = "\n".join(task.describe())
    assert "no label" in said
    assert "a.tsv, line 10" in said
    assert "a.tsv, line 4" in said
    assert len(task.train.labels) + len(task.valid.labels) == 38


def test_equal_texts_stand_on_one_side_and_every_class_in_training(tmp_path):
    rows = [(f"text {chr(97 + i % 26)} number", "ab"[i % 2]) for i in range(120)] + [
        ("rare words", "c")
    ]
    task = build("classify", [_tsv(tmp_path / "a.tsv", rows)], SMALL)
    sides = [{" ".join(s) for s in part.sequences} for part in (task.train, task.valid)]
    assert not sides[0] & sides[1]
    assert set(task.train.labels.tolist()) == {0, 1, 2}
    assert "'c' has one example" in "\n".join(task.describe())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a b", "x")] * 9 + [("c", "x")], "every label is 'x'"),
        ([(f"t {i}", f"l{i}") for i in range(9)], "label of its own"),
        ([("same text", "x")] * 4 + [("same text", "y")] * 4, "all alike"),
    ],
    ids=["one class", "a class each", "one text"],
)
def test_data_that_cannot_be_learned_from(tmp_path, rows, words):
    with pytest.raises(InputError, match=words):
        build("classify", [_tsv(tmp_path / "a.tsv", rows)], {"text": "2", "label": "1"})


def test_a_vocabulary_of_one_and_a_mixed_encoding(tmp_path):
    rows = [("yes " * (1 + i % 5), "ab"[i % 5 > 2]) for i in range(50)]
    task = build("classify", [_tsv(tmp_path / "a.tsv", rows)], SMALL)
    assert task.meaning.lexicon.to_json() == ["yes"]
    assert torch.isfinite(task.loss(task.batch(0), None)[0])
    text = "".join(f"{label}\tcafé {text}\n" for text, label in rows)
    (tmp_path / "b.tsv").write_bytes(text.encode() + "a\tcafé\n".encode("latin-1"))
    with pytest.raises(FileError, match=r"b\.tsv: not UTF-8 at byte .* line 51"):
        build("classify", [tmp_path / "b.tsv"], SMALL)


def test_a_validation_file_with_a_class_of_its_own(data, tmp_path):
    valid = _tsv(tmp_path / "v.tsv", [*_rows(20, 5), ("a fine plot", "upp")])
    task = build("classify", [data / "train.tsv"], {**SMALL, "valid_file": str(valid)})
    said = "\n".join(task.describe())
    assert "class 'upp', which training has not" in said
    assert "Did you mean 'up'?" in said
    assert task.validate()["accuracy"] <= 20 / 21


def test_options_that_do_not_go_together(data, tmp_path):
    files = [data / "train.tsv"]
    with pytest.raises(InputError, match="cell of trees"):
        build("classify", files, {"cell": "nary_tree_lstm"})
    (tmp_path / "v.txt").write_text("fine 1 2 3\nbad 3 2 1\nfilm 0 0 1\n")
    with pytest.raises(InputError, match="one-hot vectors cannot be pretrained"):
        build("classify", files, {"vectors": str(tmp_path / "v.txt"), "one_hot": True})
    task = build(
        "classify", files, {**SMALL, "embedding": None, "vectors": str(tmp_path / "v.txt")}
    )
    names, vectors = task.trained().vectors()
    assert task.model.vectors.weight[task.meaning.lexicon.number("fine")].tolist() == [1, 2, 3]
    assert vectors.shape == (len(names), 3)
    (tmp_path / "v.txt").write_text("zebra 1 2 3\n")
    with pytest.raises(FileError, match="none of the words"):
        build("classify", files, {"vectors": str(tmp_path / "v.txt")})
    hot = build("classify", files, {"hidden": 4, "one_hot": True, "members": 1})
    assert any("one-hot vectors" in line for line in hot.describe())
    assert torch.isfinite(hot.loss(hot.batch(0), None)[0])
    with pytest.raises(InputError, match="no learned token vectors"):
        hot.trained().vectors()


def test_chinese_is_read_by_characters(tmp_path):
    rows = [("这部电影很好看"[: 3 + i % 5] + "好" * (i % 2), "ab"[i % 2]) for i in range(60)]
    task = build("classify", [_tsv(tmp_path / "a.tsv", rows)], {"hidden": 4, "text": "2"})
    assert task.options.level == "char"
    assert "characters" in "\n".join(task.describe())


@pytest.mark.parametrize(
    "change",
    [{"classes": ["up"]}, {"classes": 3}, {"vocabulary": ["a", "a"]}, {"reading": {}},
     {"columns": {"kind": "table"}}, {"counting": {"order": 2}}, {"equation": {}}],
    ids=lambda change: "-".join(f"{k}={v}" for k, v in change.items()),
)  # fmt: skip
def test_a_damaged_model_file_is_refused(run, tmp_path, change):
    kind, metadata, tensors = model_file.read(run.run / "model.safetensors")
    path = tmp_path / "model.safetensors"
    model_file.write(path, kind, metadata | change, tensors)
    with pytest.raises(FileError, match=str(path)):
        load(path)


def test_a_model_without_its_counts_is_refused(run, tmp_path):
    kind, metadata, tensors = model_file.read(run.run / "model.safetensors")
    left = {name: t for name, t in tensors.items() if not name.startswith("counts.")}
    model_file.write(tmp_path / "m.safetensors", kind, metadata, left)
    with pytest.raises(FileError, match="n-grams"):
        load(tmp_path / "m.safetensors")


def test_a_keepsake_that_is_damaged_is_said(tmp_path):
    (tmp_path / "keepsake.json").write_text('{"classes": ["a"], "confusion": [[1, 2]]}')
    with pytest.raises(FileError, match="keepsake"):
        pictures.of_run(tmp_path)
    assert pictures.of_run(tmp_path / "nowhere") == []


def test_a_matrix_of_many_classes_is_drawn(tmp_path):
    table = np.random.default_rng(0).integers(0, 9, (60, 60))
    pictures.confusion([f"class $ {i}" for i in range(60)], table, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_large_data_are_divided_when_they_are_asked_for(data, monkeypatch):
    small = build("classify", [data / "train.tsv"], SMALL)
    monkeypatch.setattr("elman.tasks.classify.sequences._KEPT_TOKENS", 50)
    task = build("classify", [data / "train.tsv"], SMALL)
    assert not isinstance(task.train.sequences, list)
    for one, other in zip(task.batch(3), small.batch(3), strict=True):
        assert torch.equal(one, other)
    assert task.validate() == small.validate()


def test_naive_bayes_on_an_even_share_judges_the_others_by_its_counts(data, monkeypatch):
    monkeypatch.setattr("elman.tasks.classify.baseline._MOST_TOKENS", 500)
    task = build("classify", [data / "train.tsv"], SMALL)
    rows = task.trained().against.rows
    assert 0 < len(rows) < len(task.train.labels) / 2
    chosen = task.batches.examples(0)
    logs = task.batch(0)[-1].numpy()
    plain = task.meaning.logs([task.train.sequences[i] for i in chosen])
    counted = np.isin(chosen, rows)
    assert counted.any()
    np.testing.assert_array_equal(logs[~counted], plain[~counted])
    alone = task.trained().against.alone[np.searchsorted(rows, chosen[counted])]
    np.testing.assert_array_equal(logs[counted], alone)
    assert not np.allclose(logs[counted], plain[counted])


def test_a_text_of_a_hundred_thousand_tokens_is_learned_from(tmp_path):
    rows = [("fine film " * 50_000, "a"), *((f"fine {i}", "a") for i in range(20))]
    rows += [(f"bad {i}", "b") for i in range(20)]
    options = {**SMALL, "hidden": 2, "members": 1, "valid_fraction": 0.2}
    task = build("classify", [_tsv(tmp_path / "a.tsv", rows)], options)
    lengths = [len(task.batches.examples(step)) for step in range(len(task.batches))]
    assert 1 in lengths  # it is a batch of its own
    step = int(np.argmin(lengths))
    if task.batch(step)[1].shape[1] == 100_000:
        loss = task.loss(task.batch(step), None)[0]
        loss.backward()
        assert torch.isfinite(loss.detach())
    cut = build("classify", [tmp_path / "a.tsv"], {**options, "longest": 30})
    assert int(cut.train.lengths.max()) <= 30
