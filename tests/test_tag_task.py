"""Tagging as a task: learned, resumed, kept in a file, asked, judged, told what is wrong."""

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
from elman.data.conll import read_blocks
from elman.errors import InputError
from elman.tasks import build, load
from elman.tasks.tag import Tagging
from elman.tasks.tag.measure import span_f1
from elman.training.signals import Interrupted

SMALL = {
    "hidden": 20, "embedding": 8, "characters": 4, "character_embedding": 4, "affixes": 3,
    "sentences": 8,
}  # fmt: skip
DEMO = Path(elman.__file__).parent / "demo_data" / "apple.conll"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _sentence(draw: random.Random) -> list[tuple[str, str]]:
    """Words and tags: "to" makes the next one or two a place; else they are nothing."""
    rows: list[tuple[str, str]] = []
    for _ in range(draw.randrange(1, 4)):
        if draw.random() < 0.5:
            rows.append((draw.choice(["go", "walk"]), "O"))
            rows.append(("to", "O"))
            rows.append((draw.choice(["alma", "bern", "cork"]), "B-place"))
            if draw.random() < 0.5:
                rows.append((draw.choice(["hill", "road"]), "I-place"))
        else:
            rows.append(("see", "O"))
            rows.append((draw.choice(["alma", "bern", "cork", "hill"]), "O"))
    return rows


def _write(path: Path, count: int, seed: int, gap: str = "\t") -> Path:
    draw = random.Random(seed)
    sentences = [_sentence(draw) for _ in range(count)]
    path.write_text("\n".join("".join(f"{w}{gap}{t}\n" for w, t in s) for s in sentences))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tags")
    _write(folder / "train.conll", 120, 1)
    _write(folder / "valid.conll", 30, 2)
    return folder


@pytest.fixture(scope="module")
def run(data):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = elman.train(
        "tag", data / "train.conll", valid_file=str(data / "valid.conll"), run=data / "run",
        steps=120, lr=2e-2, dropout=0.0, quiet=True, reports=[], **SMALL,
    )  # fmt: skip
    torch.set_num_threads(before)
    return result


@pytest.fixture
def call(capsys, monkeypatch):
    """Call the command; the exit code, standard output and standard error."""

    def run_it(*arguments, stdin=b""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


# Learning.


def test_it_learns_what_a_word_alone_cannot_tell(run):
    assert run.metrics["span_f1"] >= 0.95
    assert run.baseline["span_f1"] < 0.75
    assert "ahead of the most frequent tag" in run.verdict


def test_the_shipped_example_is_tagged_by_its_context(tmp_path):
    result = elman.train("tag", DEMO, steps=350, run=tmp_path / "r", quiet=True, reports=[])
    said = result.model.predict(["I like eating apple", "The Apple is a great company"])
    assert [s["spans"] for s in said] == [
        [{"type": "fruit", "start": 3, "end": 4, "text": "apple"}],
        [{"type": "company", "start": 1, "end": 2, "text": "Apple"}],
    ]
    texts = [" ".join(b.column(0)).lower() for b in read_blocks(DEMO)[1]]
    assert "i like eating apple" not in texts
    assert "the apple is a great company" not in texts


def test_a_batch_is_a_function_of_the_step_and_the_seed(data):
    tasks = [build("tag", [data / "train.conll"], SMALL, seed=3) for _ in range(2)]
    for step in (40, 0, 7):
        for one, other in zip(*(t.batch(step) for t in tasks), strict=True):
            assert torch.equal(one, other)
    steps = range(tasks[0].steps_per_epoch)
    assert sum(len(tasks[0].batch(s)[1]) for s in steps) == len(tasks[0].corpus.train)


@pytest.mark.parametrize("crf", [True, False])
def test_padding_and_neighbours_change_no_loss_and_no_label(data, crf):
    task = build("tag", [data / "train.conll"], {**SMALL, "crf": crf, "unknown_rate": 0.0})
    assert isinstance(task, Tagging)
    task.model.eval()
    tags, lengths, *inputs = task.batch(0)
    assert len(set(lengths.tolist())) > 1
    whole = task.network.loss(tuple(inputs), lengths, tags)
    scores = task.network(tuple(inputs), lengths)
    told = task.network.decode(scores, lengths)
    total = 0.0
    for row, n in enumerate(lengths.tolist()):
        alone = (*(x[row : row + 1, :n] for x in inputs[:2]), *inputs[2:])
        size = torch.tensor([n])
        total += n * task.network.loss(alone, size, tags[row : row + 1, :n]).item()
        own = task.network(alone, size)
        assert torch.equal(own[0], scores[row, :n])
        assert task.network.decode(own, size)[0] == told[row]
    assert whole.item() == pytest.approx(total / int(lengths.sum()), rel=1e-5)


def test_the_loss_without_a_crf_is_the_mean_over_known_labels(data):
    task = build("tag", [data / "train.conll"], {**SMALL, "crf": False, "dropout": 0.0})
    tags, lengths, *inputs = task.batch(0)
    tags[0, 0] = -1
    loss, carry, count = task.loss((tags, lengths, *inputs), None)
    logs = task.network(tuple(inputs), lengths).log_softmax(2)
    known = [(b, t) for b in range(len(tags)) for t in range(tags.shape[1]) if tags[b, t] >= 0]
    expected = -sum(logs[b, t, tags[b, t]] for b, t in known) / len(known)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert (carry, count) == (None, len(known))


def test_a_word_is_unknown_as_often_as_its_rate_says(data):
    task = build("tag", [data / "train.conll"], {**SMALL, "unknown_rate": 5.0})
    n = task.corpus.counts()["alma"]
    seen = lost = 0
    number = task.vocabulary.words.number("alma")
    names = np.array(task.corpus.words)
    for step in range(40 * task.steps_per_epoch):
        _, lengths, words, *_ = task.batch(step)
        spans = task.batches.examples(step)
        for row, k in enumerate(spans.tolist()):
            first, end = task._pieces[k]
            here = names[task.corpus.train.items[first:end]] == "alma"
            seen += here.sum()
            lost += (words[row, : lengths[row]].numpy()[here] != number).sum()
    assert lost / seen == pytest.approx(5 / (5 + n), abs=0.02)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(data, tmp_path, monkeypatch):
    def options(name):
        return {"run": tmp_path / name, "steps": 24, "validate_every": 10, "quiet": True,
                "reports": [], **SMALL}  # fmt: skip

    whole = elman.train("tag", data / "train.conll", **options("whole"))
    batch = Tagging.batch

    def stopping(self, step):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(Tagging, "batch", stopping)
    with pytest.raises(Interrupted):
        elman.train("tag", data / "train.conll", **options("part"))
    monkeypatch.undo()
    again = elman.train("tag", run=tmp_path / "part", resume=True, quiet=True, reports=[])
    names = ("model.safetensors", "baseline.safetensors")
    for name in names:
        assert (whole.run / name).read_bytes() == (again.run / name).read_bytes()


def test_a_long_sequence_is_learned_from_in_pieces(tmp_path, data):
    lines = "".join(f"{w}\tN\n" if k % 3 else f"{w}\tV\n" for k, w in enumerate("abcdefghij" * 20))
    file = tmp_path / "long.conll"
    file.write_text(f"{lines}\nb\tV\nc\tN\n")
    task = build("tag", [file], {**SMALL, "longest": 64, "valid_file": str(file)})
    lengths = sorted(n for s in range(task.steps_per_epoch) for n in task.batch(s)[1].tolist())
    assert lengths == [2, 50, 50, 50, 50]
    assert "pieces (5 in all)" in "\n".join(task.describe())


# Asking and judging.


def test_the_file_comes_back_with_other_tags_and_nothing_else(run, tmp_path, call):
    text = "# one\n-DOCSTART- O\n\ngo ?\nto ?\n\t\n\n#see ?\ncork ?"
    text = text.replace(" ?", "\t?").replace("# one", "# one")
    file = tmp_path / "new.conll"
    file.write_bytes(text.replace("\n", "\r\n").encode())
    code, out, err = call("predict", run.run, file)
    assert (code, err) == (0, "")
    given, got = text.split("\n"), out.removesuffix("\n").split("\n")
    assert len(got) == len(given)
    for one, other in zip(given, got, strict=True):
        assert other == one or (other.split("\t")[0] == one.split("\t")[0] and "?" in one)
    assert "?" not in out


def test_words_without_tags_and_plain_sentences_are_tagged(run, call):
    code, out, _ = call("predict", run.run, stdin=b"go\nto\nalma\nroad\n\nsee\nalma\n")
    assert code == 0
    assert out == "go\tO\nto\tO\nalma\tB-place\nroad\tI-place\n\nsee\tO\nalma\tO\n"
    code, out, err = call("predict", run.run, stdin=b"go to alma road\nsee alma bern\n")
    assert code == 0
    assert out.startswith("go\tO\nto\tO\nalma\tB-place\nroad\tI-place\n\nsee\tO\n")
    assert "read as plain sentences" in err
    code, out, _ = call("predict", run.run, "--json", stdin=b"go to alma road\n")
    record = json.loads(out)
    assert record["spans"] == [{"type": "place", "start": 2, "end": 4, "text": "alma road"}]
    assert all(0 <= p <= 1 for p in record["probabilities"])


def test_evaluation_is_that_of_its_own_answers(run, data, call):
    code, out, err = call("evaluate", run.run, data / "valid.conll", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    gold = [block.column(1) for block in read_blocks(data / "valid.conll")[1]]
    words = [block.column(0) for block in read_blocks(data / "valid.conll")[1]]
    told = [said.labels for said in run.model.tag(words)]
    assert found["span_f1"] == pytest.approx(span_f1(gold, told))
    right = sum(a == b for x, y in zip(gold, told, strict=True) for a, b in zip(x, y, strict=True))
    assert found["accuracy"] == pytest.approx(right / sum(map(len, gold)))
    base = found["baseline"]
    assert base["span_f1"] == pytest.approx(run.baseline["span_f1"])
    assert base["intervals"]["span_f1"][0] <= base["span_f1"] <= base["intervals"]["span_f1"][1]
    assert found["by_type"]["place"]["spans"] == found["spans"]
    assert "ahead of" in found["verdict"]
    code, out, _ = call("evaluate", run.run, data / "valid.conll")
    assert out.startswith("30 sequences, ")
    assert "span F1: " in out


def test_the_baseline_is_the_most_frequent_tag_and_wins_over_an_untrained_network(data, tmp_path):
    result = elman.train(
        "tag", data / "train.conll", steps=0, run=tmp_path / "r", quiet=True, reports=[], **SMALL
    )
    assert "Use the baseline" in result.verdict
    found = result.model.evaluate(data / "valid.conll")
    assert "use the baseline" in found["verdict"]
    tags: dict[str, list[str]] = {}
    task = build("tag", [data / "train.conll"], SMALL)
    for row in range(len(task.corpus.train)):
        span = slice(*task.corpus.train.offsets[row : row + 2])
        words = [task.corpus.words[w] for w in task.corpus.train.items[span]]
        for word, tag in zip(words, task.corpus.texts(task.corpus.train, row), strict=True):
            tags.setdefault(word, []).append(tag)
    every = [tag for found in tags.values() for tag in found]
    most = {w: max(set(t), key=lambda x: (t.count(x), every.count(x))) for w, t in tags.items()}
    gold = [(b.column(0), b.column(1)) for b in read_blocks(data / "valid.conll")[1]]
    told = [[most.get(w, "O") for w in words] for words, _ in gold]
    assert found["baseline"]["span_f1"] == pytest.approx(span_f1([t for _, t in gold], told))


def test_one_record_says_the_same_as_another_way_in(run, data, tmp_path):
    rows = [
        {"words": ["go", "to", "cork"], "tags": ["O", "O", "B-place"]},
        {"words": ["see", "alma"], "tags": ["O", "O"]},
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    by_file = run.model.predict(file)
    assert by_file == run.model.predict(rows)
    assert by_file == run.model.predict(["go to cork", "see alma"])
    assert run.model.evaluate(rows)["tokens"] == 5
    lines = [json.loads(line) for line, _ in run.model.answers(file)]
    assert [line["words"] for line in lines] == [row["words"] for row in rows]
    assert [line["tags"] for line in lines] == [said["tags"] for said in by_file]


def test_arrow_tables_are_read(run):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"words": [["go", "to", "cork"]], "tags": [["O", "O", "B-place"]]})
    assert run.model.predict(table)[0]["words"] == ["go", "to", "cork"]
    assert run.model.evaluate(table)["tokens"] == 3


def test_a_label_unseen_in_training_counts_as_wrong_and_is_said(run, tmp_path, call):
    (tmp_path / "a.conll").write_text("go\tO\nto\tO\n\nalma\tB-river\n")
    code, out, err = call("evaluate", run.run, tmp_path / "a.conll", "--json")
    assert code == 0
    assert "a.conll, line 4: the label 'B-river' was not seen in training" in err
    assert json.loads(out)["accuracy"] == pytest.approx(2 / 3)


def test_a_hundred_thousand_words_in_one_sentence(run, data):
    words = ["go", "to", "alma", "see"] * 25_000
    said = run.model.tag([words[:4000]])[0]
    assert said.labels[2::4] == ["B-place"] * 1000
    task = build("tag", [data / "train.conll"], {**SMALL, "crf": False})
    assert len(task.trained().tag([words])[0].labels) == 100_000


def test_the_model_file_has_all_that_is_needed(run, data):
    model = load(run.run)
    words = [block.column(0) for block in read_blocks(data / "valid.conll")[1]]
    assert model.tag(words) == run.model.tag(words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": 3}, "do not describe"),
        ({"labels": {"names": []}}, "its labels"),
        ({"vocabulary": ["a"]}, "vocabulary"),
        ({"config": {"hidden": "x"}}, "hidden"),
        ({"config": {"hidden": 10**9, "layers": 1, "embedding": 8}}, "sizes do not fit"),
    ],
)
def test_a_model_file_that_says_nonsense_is_refused(run, tmp_path, change, message):
    from elman.tasks import model_file

    _, metadata, tensors = model_file.read(run.run / "model.safetensors")
    model_file.write(tmp_path / "m.safetensors", "tag", metadata | change, tensors)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "m.safetensors")


# CoNLL-U, and other labels.


def test_conllu_is_tagged_with_ranges_and_empty_nodes_in_place(tmp_path, call):
    draw = random.Random(3)
    verbs, nouns = ["sing", "jump", "read"], ["bird", "song", "tree"]
    rest = "\t_\t_\t_\t_\t_\t_"
    blocks = []
    for k in range(60):
        rows = []
        for at in range(1, draw.randrange(3, 6)):
            verb = draw.random() < 0.5
            word = draw.choice(verbs if verb else nouns)
            rows.append(f"{at}\t{word}\t_\t{'VERB' if verb else 'NOUN'}{rest}")
        rows.insert(1, f"1.1\tnull\t_\tX{rest}")
        blocks.append(f"# sent_id = {k}\n" + "\n".join([f"1-2\tboth\t_\t_{rest}", *rows]) + "\n")
    file = tmp_path / "a.conllu"
    file.write_text("\n".join(blocks) + "\n")
    run = tmp_path / "r"
    sizes = ("--hidden", 8, "--embedding", 8, "--characters", 4)
    code, _, err = call("train", "tag", file, "--steps", 60, "--run", run, "--lr", 0.02, *sizes)
    assert code == 0, err
    assert "labels in upos" in err
    blank = file.read_text().replace("\tVERB", "\t_").replace("\tNOUN", "\t_")
    (tmp_path / "b.conllu").write_text(blank)
    code, out, _ = call("predict", run, tmp_path / "b.conllu")
    assert code == 0
    assert out == file.read_text()


# Frames.


def _frames(count: int, seed: int) -> list[dict]:
    """Two numbers a frame; the label is whether the first number was positive one frame before."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        x = draw.standard_normal((draw.integers(4, 12), 2))
        labels = ["start", *("up" if v > 0 else "down" for v in x[:-1, 0])]
        rows.append({"vectors": x.round(3).tolist(), "labels": labels})
    return rows


def test_frames_are_labelled_by_what_came_before(tmp_path, call):
    file, where = tmp_path / "a.jsonl", tmp_path / "r"
    file.write_text("".join(json.dumps(row) + "\n" for row in _frames(150, 1)))
    code, _, err = call(
        "train", "tag", file, "--steps", 150, "--hidden", 12, "--lr", 0.02, "--dropout", 0,
        "--sentences", 10, "--run", where,
    )  # fmt: skip
    assert code == 0, err
    assert "vectors of 2" in err
    result = json.loads((where / "result.json").read_text())
    assert result["metrics"]["accuracy"] > 0.85
    assert result["baseline"]["name"] == "softmax regression on the frame"
    assert result["baseline"]["accuracy"] < 0.75
    model = load(where)
    rows = _frames(3, 5)
    said = model.predict(rows)
    for row, told in zip(rows, said, strict=True):
        alone = model.tag([np.array(row["vectors"], dtype=np.float32)])[0]
        assert alone.labels == told["labels"]
    code, out, _ = call("evaluate", where, file, "--json")
    assert json.loads(out)["frames"] == sum(len(r["labels"]) for r in _frames(150, 1))
    code, out, err = call("predict", where, stdin=b"go to alma\n")
    assert code == 2
    assert "holds words; this model reads vectors" in err


def test_frames_of_a_table_and_of_arrays_are_the_same_frames(tmp_path):
    rows = _frames(40, 2)
    lines = ["run,a,b,label"]
    for k, row in enumerate(rows):
        for (a, b), label in zip(row["vectors"], row["labels"], strict=True):
            lines.append(f"r{k},{a},{b},{label}")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.savez(
        tmp_path / "a.npz",
        vectors=np.concatenate([np.array(row["vectors"], dtype=np.float32) for row in rows]),
        labels=np.concatenate([row["labels"] for row in rows]),
        lengths=np.array([len(row["labels"]) for row in rows]),
    )
    built = [
        build("tag", [tmp_path / "a.csv"], {"id": "run", **SMALL}),
        build("tag", [tmp_path / "a.jsonl"], SMALL),
        build("tag", [tmp_path / "a.npz"], SMALL),
    ]
    first = built[0]
    for other in built[1:]:
        assert np.array_equal(other.corpus.train.items, first.corpus.train.items)
        assert np.array_equal(other.corpus.train.labels, first.corpus.train.labels)
        for one, two in zip(first.batch(0), other.batch(0), strict=True):
            assert torch.equal(one, two)
    model = first.trained()
    text = "\n".join(line for line, _ in model.answers(tmp_path / "a.csv"))
    assert text.startswith("run,a,b,label\nr0,")
    assert [line.rsplit(",", 1)[0] for line in text.split("\n")] == [
        line.rsplit(",", 1)[0] for line in lines
    ]


def test_a_table_with_a_word_a_row(tmp_path):
    (tmp_path / "a.csv").write_text(
        "Sentence #,Word,POS,Tag\n1,go,V,O\n,to,P,O\n,alma,N,B-x\n2,see,V,O\n3,bern,N,B-x\n"
    )
    options = {"id": "Sentence #", "label": "Tag", "valid_fraction": 0.3, **SMALL}
    task = build("tag", [tmp_path / "a.csv"], options)
    lengths = [*task.corpus.train.lengths.tolist(), *task.corpus.valid.lengths.tolist()]
    assert sorted(lengths) == [1, 1, 3]
    assert set(task.corpus.words) == {"go", "to", "alma", "see", "bern"}


# What is wrong.


@pytest.mark.parametrize(
    ("name", "text", "arguments", "message"),
    [
        ("a.conll", "a\tO\nb\tO\tx\nc\tB\n", [], "a.conll, line 2: 3 column(s)"),
        ("a.conll", "a\tX\n\nb\tY\n", ["--label", "7"], "no column '7' for label; there are 1, 2."),
        ("a.conll", "a\nb\n\nc\n", [], "there is no column of labels; its lines have 1 column(s)"),
        ("a.conll", "a\tX\n\nb\tX\n", [], "1 label(s) in"),
        ("a.conll", "a\tX\nb\tY\n", [], "cannot be divided into training and validation"),
        ("a.conll", "a\tX\n\nb\tY\n" * 9, ["--scheme", "bio"], "a.conll, line 1: the label 'X' is"),
        ("a.conll", "", [], "empty"),
        ("a.conll", "\n\n", [], "there is no word in it"),
        ("a.jsonl", '{"words": ["a"], "tags": ["X", "Y"]}\n', [], "line 1: 1 words and 2 labels"),
        ("a.jsonl", '{"wrds": ["a"], "tags": ["X"]}\n', [], "there are 'wrds', 'tags'"),
        ("a.jsonl", '{"words": ["a"]}\n', [], "no column of labels; there are 'words'"),
        ("a.jsonl", '{"words": ["a", 3.5], "tags": ["X", "Y"]}\n', [], "line 1: expected a list"),
        ("a.jsonl", '{"vectors": [[1], [2, 3]], "labels": ["X", "Y"]}\n', [], "line 1: expected a"),
        (
            "a.jsonl",
            '{"vectors": [[1]], "labels": ["X"]}\n{"vectors": [[1, 2]], "labels": ["Y"]}\n',
            [],
            "line 2, item 1: vectors of 2 numbers; those before have 1",
        ),
        ("a.csv", "id,x,label\n1,2,X\n1,,Y\n2,3,X\n", [], "a.csv, line 3: column x has no number"),
        ("a.csv", "id,x,label\n1,2,X\n2,4,Y\n1,3,X\n", [], "line 4: the rows of id '1' do not"),
        ("a.csv", "id,x,label\n1,2,X\n2,4,Y\n", ["--label", "lable"], "Did you mean 'label'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_before_anything_is_learned(
    name, text, arguments, message, tmp_path, call
):
    file = tmp_path / name
    file.write_text(text)
    where = tmp_path / "run"
    code, out, err = call("train", "tag", file, "--steps", 2, "--run", where, *arguments)
    assert (code, out) == (2, ""), err
    assert message in err
    assert err.count("\n") == 1
    assert not where.exists()


def test_tags_that_break_their_scheme_are_named_and_read_as_conlleval_does(tmp_path, call):
    good = "".join(f"w{k}\tB-x\nv{k}\tI-x\nu{k}\tO\n\n" for k in range(12))
    file = tmp_path / "a.conll"
    file.write_text(good + "so\tO\nhere\tI-x\nnow\tI-x\n")
    code, _, err = call(
        "train", "tag", file, "--valid-file", file, "--steps", 2, "--run", tmp_path / "r"
    )
    assert code == 0
    assert (
        f"1 tag(s) break the scheme bio, the first in {file}, line 50: I-x after O; spans are read"
        in err
    )


def test_small_and_odd_data_are_learned_from(tmp_path, call):
    one_word = "a\tX\n\na\tY\n\nb\tX\n"  # sentences of one token, next to no vocabulary
    file = tmp_path / "a.conll"
    file.write_bytes(b"\xef\xbb\xbf" + ("ünï\tX\r\n\r\n" + one_word.replace("\n", "\r\n")).encode())
    where = tmp_path / "r"
    code, _, err = call(
        "train", "tag", file, "--valid-file", file, "--steps", 2, "--run", where, "--min-count", 9
    )
    assert code == 0, err
    code, out, _ = call("predict", where, file)
    assert code == 0
    assert [line.split("\t")[0] for line in out.split("\n")] == [
        "ünï",
        "",
        "a",
        "",
        "a",
        "",
        "b",
        "",
    ]


def test_gru_two_layers_and_a_cell_of_ones_own(tmp_path, data):
    for options in ({"cell": "gru", "layers": 2}, {"cell": "mgu"}, {"characters": 0, "affixes": 0}):
        task = build("tag", [data / "train.conll"], {**SMALL, **options})
        loss, _, count = task.loss(task.batch(0), None)
        loss.backward()
        assert count > 0
        assert all(w.grad is not None for w in task.model.parameters())
    with pytest.raises(InputError, match="no cell of plain sequences"):
        build("tag", [data / "train.conll"], {**SMALL, "cell": "tree_gru"})


def test_pictures(run, data, tmp_path, call):
    code, _, err = call("predict", run.run, data / "valid.conll", "--plot", tmp_path / "t.png")
    assert code == 0, err
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    from elman.plots import tag as pictures

    assert [path.name for path in pictures.of_run(run.run)] == ["confusion.png"]
    pictures.frames(["up", "down", "up"], [0.5, 0.9, 1.0], tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="201 words; a picture shows at most 200"):
        pictures.sentence(["a"] * 201, ["O"] * 201, [1.0] * 201, tmp_path / "l.png")
