"""The parts of a classifier: n-grams, naive Bayes, columns, arrays, reading, pooling, measures."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.naive_bayes import MultinomialNB

import elman.cells
from elman.data.tables import read_table
from elman.errors import FileError, InputError
from elman.tasks.classify import baseline, bayes, logistic, measure
from elman.tasks.classify.arrays import read_labelled
from elman.tasks.classify.columns import find
from elman.tasks.classify.features import ngrams
from elman.tasks.classify.meaning import piece_numbers
from elman.tasks.classify.network import (
    REACHES,
    ClassifyModel,
    DelayMember,
    Dropout,
    Inputs,
    Pool,
    Shape,
    mean_of,
)
from elman.tasks.classify.options import ClassifyOptions
from elman.tasks.classify.texts import Reading, choose

WORDS = ["a", "fine", "film", "of", "a", "bad", "bore", "and", "fine", "fine", "acting", "in", "it"]


def _texts(count, seed=0):
    draw = random.Random(seed)
    texts = [[draw.choice(WORDS) for _ in range(draw.randint(1, 9))] for _ in range(count)]
    labels = [min(2, text.count("fine") + draw.randint(0, 1)) for text in texts]
    return texts, np.array(labels)


# -- n-grams ---------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [False, True])
def test_ngrams_are_equal_exactly_where_the_tokens_are(edges):
    texts, _ = _texts(60)
    seen: dict[int, tuple] = {}
    for text in texts:
        tokens = ["<s>", *text, "</s>"] if edges else text
        tokens = ["\u0002", *text, "\u0002"] if edges else tokens
        expected = Counter((token,) for token in text)
        for n in (2, 3):
            expected.update(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
        found = ngrams(text, 3, edges=edges).tolist()
        assert len(found) == sum(expected.values())
        assert sorted(Counter(found).values()) == sorted(expected.values())
        order = [(token,) for token in text]
        for n in (2, 3):
            order += [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        for number, gram in zip(found, order, strict=True):
            assert seen.setdefault(number, gram) == gram
    assert len(set(seen.values())) == len(seen)


def test_no_two_of_many_ngrams_share_a_number():
    texts = [[str(i), str(j)] for i, j in combinations(range(300), 2)]
    found = np.concatenate([ngrams(text, 2)[2:] for text in texts])
    assert len(np.unique(found)) == len(texts)


def test_ngrams_of_nothing():
    assert len(ngrams([], 3)) == 0
    assert len(ngrams([], 3, edges=True)) == 1  # both ends, side by side
    assert len(ngrams(["a"], 5)) == 1


def test_pieces_of_a_word_are_its_runs_of_three_to_five_with_its_ends():
    characters = ["<", *"naïve", ">"]
    runs = {
        "".join(characters[i : i + n]) for n in (3, 4, 5) for i in range(len(characters) - n + 1)
    }
    assert len(piece_numbers("naïve", 1 << 40)) == len(runs)
    assert len(piece_numbers("a", 1000)) == 1
    assert len(piece_numbers("", 1000)) == 1
    assert piece_numbers("word", 7).max() < 7


# -- naive Bayes -----------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_naive_bayes_is_that_of_another_library(smoothing):
    texts, labels = _texts(200)
    features = [ngrams(text, 2) for text in texts]
    bag = bayes.fit(features, labels, 3)
    counts = np.zeros((len(texts), len(bag.features)))
    for row, text in enumerate(features):
        for feature in text:
            counts[row, np.searchsorted(bag.features, feature)] += 1
    other = MultinomialNB(alpha=smoothing).fit(counts[:150], labels[:150])
    bag = bayes.fit(features[:150], labels[:150], 3)
    ours = bayes.scores(bag, bag.find(features[150:]), smoothing)
    ours -= np.log(np.exp(ours).sum(1, keepdims=True))
    known = counts[:150].sum(0) > 0
    other = MultinomialNB(alpha=smoothing).fit(counts[:150][:, known], labels[:150])
    np.testing.assert_allclose(ours, other.predict_log_proba(counts[150:][:, known]), atol=1e-6)


def test_a_text_left_out_is_judged_as_by_the_counts_of_all_others():
    texts, labels = _texts(40, seed=3)
    features = [ngrams(text, 2) for text in texts]
    bag = bayes.fit(features, labels, 3)
    found = bayes.scores(bag, bag.find(features), 0.3, without=labels)
    for row in range(len(texts)):
        rest = [f for i, f in enumerate(features) if i != row]
        alone = bayes.fit(rest, np.delete(labels, row), 3)
        known = np.isin(features[row], alone.features)
        expected = np.log(alone.rows)
        for feature in features[row][known]:
            place = np.searchsorted(alone.features, feature)
            # the number of features stays that of the whole bag
            share = (alone.counts[place] + 0.3) / (alone.totals + 0.3 * len(bag.features))
            expected = expected + np.log(share)
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


def test_naive_bayes_without_features_and_without_texts():
    bag = bayes.fit([np.zeros(0, np.uint64)] * 3, np.array([0, 0, 1]), 2)
    found = bayes.scores(bag, bag.find([ngrams(["new"], 1)]), 1.0)
    np.testing.assert_allclose(found, [[math.log(2), 0.0]])
    assert bayes.scores(bag, bag.find([]), 1.0).shape == (0, 2)
    with pytest.raises(FileError, match="belong together"):
        bayes.Bag(np.array([2, 1], np.uint64), np.zeros((2, 2)), np.zeros(2))


def test_tuning_takes_what_tells_most_texts_right():
    texts, labels = _texts(120)
    best = baseline.tune(texts[:90], labels[:90], texts[90:], labels[90:], 3, "word")
    rights = {}
    for order in (1, 2, 3):
        for smoothing in baseline.SMOOTHINGS:
            count = baseline.Counting(order, "word", smoothing)
            features = [count.features(text) for text in texts]
            bag = bayes.fit(features[:90], labels[:90], 3)
            alone = bayes.scores(bag, bag.find(features[:90]), smoothing, without=labels[:90])
            held = bayes.scores(bag, bag.find(features[90:]), smoothing)
            told = np.concatenate([alone.argmax(1), held.argmax(1)])
            rights[order, smoothing] = int((told == labels).sum())
    assert rights[best.counting.order, best.counting.smoothing] == max(rights.values())
    again = baseline.taken(*best.keep(), classes=3, where="here")
    np.testing.assert_array_equal(again.scores(texts[90:]), best.scores(texts[90:]))


@pytest.mark.parametrize(
    "change",
    [{"order": 0}, {"level": "line"}, {"smoothing": 0.0}, {"smoothing": "1"}, {"kind": "guess"}],
    ids=str,
)
def test_a_damaged_baseline_is_refused(change):
    texts, labels = _texts(30)
    metadata, tensors = baseline.tune(texts, labels, texts, labels, 3, "word").keep()
    with pytest.raises(FileError, match="here"):
        baseline.taken(metadata | change, tensors, 3, "here")
    with pytest.raises(FileError, match="other classes"):
        baseline.taken(metadata, tensors, 4, "here")
    with pytest.raises(FileError, match="lack"):
        baseline.taken(metadata, {}, 3, "here")


# -- logistic regression ---------------------------------------------------------------------


def test_logistic_regression_is_that_of_another_library(monkeypatch):
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 3
    data = [draw.normal(label, 1.0, (draw.integers(3, 9), 2)) for label in labels]
    monkeypatch.setattr(logistic, "RIDGES", (1e-2,))
    model = logistic.tune(data, labels, data, labels, 3)
    v = np.stack([np.r_[s.mean(0), s.std(0)] for s in data])
    v = (v - v.mean(0)) / v.std(0)
    # its penalty is half the squares over C times the sum of the losses
    other = LogisticRegression(C=1 / (2 * 1e-2 * len(v)), tol=1e-10, max_iter=10_000).fit(v, labels)
    ours = torch.from_numpy(model.scores(data)).softmax(1).numpy()
    np.testing.assert_allclose(ours, other.predict_proba(v), atol=1e-4)
    again = baseline.taken(*model.keep(), classes=3, where="here")
    np.testing.assert_array_equal(again.scores(data), model.scores(data))
    with pytest.raises(FileError, match="no baseline"):
        baseline.taken({"kind": "logistic"}, model.keep()[1], 4, "here")


def test_a_constant_feature_does_no_harm():
    data = [np.full((4, 2), [label, 7.0]) for label in (0, 1, 0, 1)]
    model = logistic.tune(data, np.array([0, 1, 0, 1]), data, np.array([0, 1, 0, 1]), 2)
    assert model.scores(data).argmax(1).tolist() == [0, 1, 0, 1]


# -- measures --------------------------------------------------------------------------------


def test_figures_are_those_of_another_library():
    draw = np.random.default_rng(1)
    true, told = draw.integers(0, 5, 200), draw.integers(0, 4, 200)
    found = measure.figures(true, told, 4)  # class 4 is unknown to the model
    assert found["accuracy"] == pytest.approx((true == told).mean())
    assert found["macro_f1"] == pytest.approx(
        f1_score(true, told, average="macro", zero_division=0)
    )
    by = measure.by_class(true, told, list("abcde"))
    assert by["e"]["recall"] == 0
    assert by["e"]["count"] == (true == 4).sum()
    expected = f1_score(true, told, average=None, zero_division=0)
    assert [by[name]["f1"] for name in "abcde"] == pytest.approx(list(expected))


def test_intervals_hold_their_figure_and_shrink_with_more_examples():
    draw = np.random.default_rng(2)
    widths = []
    for count in (100, 1600):
        true = draw.integers(0, 3, count)
        told = np.where(draw.random(count) < 0.8, true, (true + 1) % 3)
        figures, found = measure.figures(true, told, 3), measure.intervals(true, told, 3)
        for name, value in figures.items():
            low, high = found[name]
            assert low < value < high
        widths.append(found["accuracy"][1] - found["accuracy"][0])
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.2)
    low, high = measure.ahead(true, told, told)
    assert (low, high) == (0.0, 0.0)


# -- reading ---------------------------------------------------------------------------------


def test_reading_suits_the_texts():
    options = ClassifyOptions()
    assert choose(options, ["Smith", "Ivanov", "O'Neil"] * 9).level == "char"
    assert choose(options, ["今天天气很好", "我不喜欢这部电影"] * 9).level == "char"
    assert choose(options, ["สวัสดีชาวโลก"]).level == "char"
    tokenised = choose(options, ["A fine film , it said .", "Who is it ?"])
    assert (tokenised.level, tokenised.split) == ("word", "blanks")
    plain = choose(options, ["A fine film, it said.", "Who is it?"])
    assert plain.split == "punctuation"
    assert choose(ClassifyOptions(level="word"), ["Smith"]).level == "word"
    assert choose(ClassifyOptions(case="keep", digits=False), ["A film"]).lower is False


def test_tokens_of_a_text():
    words = Reading("word", "punctuation", True, True, longest=6)
    assert words.tokens("Don’t say 'no' at 10:45!") == ["don’t", "say", "'", "no", "'", "at"]
    assert Reading("word", "blanks", False, False).tokens("a\u00a0b  C") == ["a", "b", "C"]
    assert words.tokens(" \t ") == []


# -- columns ---------------------------------------------------------------------------------


def _table(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_table(tmp_path / name)


def test_columns_are_found_by_content_where_they_have_no_names(tmp_path):
    rows = "".join(
        f"{'AB'[i % 2]}\twho is number {i} here\t{'AB'[i % 2]}:{i % 7}\n" for i in range(40)
    )
    found = find(_table(tmp_path, "a.tsv", rows), None, None, None, None)
    assert (found.label, found.text) == ("1", ("2",))
    found = find(_table(tmp_path, "a.tsv", rows), None, "3", None, None)
    assert (found.label, found.text) == ("3", ("2",))


def test_columns_are_found_by_their_names(tmp_path):
    rows = "number,Label,title,Text\n" + "".join(
        f"{i},{'xy'[i % 2]},t{i},some words {i}\n" for i in range(20)
    )
    table = _table(tmp_path, "a.csv", rows)
    found = find(table, None, None, None, None)
    assert (found.label, found.text) == ("Label", ("Text",))
    assert find(table, "title,Text", None, None, None).text == ("title", "Text")
    with pytest.raises(InputError, match=r"no column 'txt' \(text\).*'Text'.*Did you mean"):
        find(table, "txt", None, None, None)
    with pytest.raises(InputError, match="both the label and the data"):
        find(table, "Text", "Text", None, None)


def test_columns_of_time_steps(tmp_path):
    rows = "walk,kind,x,y\n" + "".join(f"{i // 4},{'ab'[i // 8]},{i},{-i}\n" for i in range(16))
    table = _table(tmp_path, "a.csv", rows)
    found = find(table, None, "kind", "walk", None)
    assert (found.id, found.label, found.features) == ("walk", "kind", ("x", "y"))
    assert find(table, None, "kind", "walk", "y").features == ("y",)
    with pytest.raises(InputError, match="rows are one sequence"):
        find(table, None, "kind", None, "x")


def test_measurements_are_no_classes(tmp_path):
    rows = "date,load\n" + "".join(f"day {i},{i % 50}.5\n" for i in range(300))
    with pytest.raises(InputError, match="no column looks like a class"):
        find(_table(tmp_path, "a.csv", rows), None, None, None, None)
    grades = "note,grade\n" + "".join(f"said {i} so,{i % 5}\n" for i in range(300))
    assert find(_table(tmp_path, "b.csv", grades), None, None, None, None).label == "grade"


def test_a_table_without_a_class_or_a_text_is_refused(tmp_path):
    numbers = "".join(f"{i},{i * i}\n" for i in range(20))
    with pytest.raises(InputError, match="no column looks like a class"):
        find(_table(tmp_path, "a.csv", numbers), None, None, None, None)
    rows = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(20))
    with pytest.raises(InputError, match="no column of text"):
        find(_table(tmp_path, "b.csv", rows), None, None, None, None)


# -- arrays ----------------------------------------------------------------------------------


def test_layouts_of_arrays(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3, 5, 2))
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1, 1], lengths=[5, 2, 4])
    found = read_labelled(tmp_path / "a.npz")
    assert [len(s) for s in found.sequences] == [5, 2, 4]
    assert found.labels == ["0", "1", "1"]
    np.testing.assert_allclose(found.sequences[2], x[2, :4], rtol=1e-6)
    np.savez(tmp_path / "b.npz", first=x[0], second=x[1, :2], y=["up", "down"])
    found = read_labelled(tmp_path / "b.npz")
    assert [len(s) for s in found.sequences] == [5, 2]
    assert found.labels == ["up", "down"]
    np.save(tmp_path / "x.npy", x[:, :, 0])
    np.save(tmp_path / "y.npy", np.array([0.5, 1.0, 2.0]))
    found = read_labelled(tmp_path / "x.npy", str(tmp_path / "y.npy"))
    assert found.sequences[0].shape == (5, 1)
    assert found.labels == ["0.5", "1", "2"]
    assert read_labelled(tmp_path / "x.npy").labels == ["", "", ""]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 3, 1)), "y": [0]}, "2 sequences and 1 labels"),
        ({"x": np.zeros((2, 3, 1)), "y": [0, 1], "lengths": [3, 4]}, "lengths are 2 from 3 to 4"),
        ({"x": np.zeros((2, 3, 1)), "y": [0, 1], "lengths": [3, 0]}, "sequence 1: is empty"),
        ({"x": np.array([[1.0, np.nan]]), "y": [0]}, "sequence 0, time step 1, feature 0: is nan"),
        ({"x": np.zeros(4), "y": [0]}, "shape"),
        ({"a": np.zeros((2, 1)), "b": np.zeros((2, 2)), "y": [0, 1]}, "features; all need"),
        ({"x": np.zeros((2, 3, 1)), "y": np.zeros((2, 2))}, "labels are float64 of shape"),
        ({"y": [0, 1]}, "holds no sequence"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_do_not_belong_together(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FileError, match=words):
        read_labelled(tmp_path / "a.npz")


# -- the network -----------------------------------------------------------------------------


def _inputs(x, lengths):
    none = torch.zeros(0, dtype=torch.int64)
    return Inputs(x, lengths, none, none, none, torch.zeros(0))


@pytest.mark.parametrize("pool", ["last", "mean", "max", "attention"])
def test_padding_and_company_never_change_an_answer(pool):
    torch.manual_seed(0)
    shape = Shape(3, 9, 4, "learned", 0, 5, 2, True, pool, True, 2, 1, 0)
    model = ClassifyModel(shape, elman.cells.get("gru"), Dropout()).eval()
    rows = [torch.randint(1, 9, (n,)) for n in (1, 4, 7)]
    x = torch.zeros(3, 11, dtype=torch.int64)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row
    with torch.no_grad():
        together = model(_inputs(x, torch.tensor([1, 4, 7])))
        for i, row in enumerate(rows):
            alone = model(_inputs(row[None], torch.tensor([len(row)])))
            torch.testing.assert_close(together[:, i], alone[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", ["last", "mean", "max", "attention"])
def test_pools_are_what_they_say(pool):
    torch.manual_seed(1)
    outputs, last = torch.randn(2, 4, 6), torch.randn(2, 6)
    lengths = torch.tensor([4, 2])
    outputs[1, 2:] = 0
    layer = Pool(pool, 6)
    found = layer(outputs, last, lengths)
    for i, n in enumerate(lengths.tolist()):
        real = outputs[i, :n]
        if pool == "last":
            expected = last[i]
        elif pool == "mean":
            expected = real.mean(0)
        elif pool == "max":
            expected = real.max(0).values
        else:
            told = torch.stack([layer.query.weight[0] @ torch.tanh(layer.key(h)) for h in real])
            expected = (told.exp() / told.exp().sum()) @ real
        torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-6)


def test_the_answer_is_the_mean_of_the_members():
    logits = torch.randn(3, 2, 4)
    expected = logits.softmax(-1).mean(0).log()
    torch.testing.assert_close(mean_of(logits), expected)


def test_a_delay_network_is_the_largest_of_its_windows():
    shape = Shape(classes=3, tokens=0, width=2, kind="learned", pieces=0, hidden=4, layers=1,
                  bidirectional=False, pool="max", skip=False, members=1, delay_members=1,
                  ngrams=0)  # fmt: skip
    member = DelayMember(shape, Dropout()).eval()
    x, lengths = torch.randn(2, 6, 2), torch.tensor([6, 1])
    got = member.read(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        parts = []
        for reach, layer in zip(REACHES, member.layers, strict=True):
            weights = [getattr(layer, f"W_{k}_l0") for k in range(reach)]
            padded = [torch.zeros(2)] * (reach - 1) + list(x[row, :length])
            padded += [torch.zeros(2)] * (reach - 1)
            windows = [padded[t : t + reach] for t in range(len(padded) - reach + 1)]
            told = [
                layer.b_l0 + sum(w @ v for w, v in zip(weights, reversed(window), strict=True))
                for window in windows
            ]
            parts.append(torch.stack(told).amax(0).relu())
        assert torch.allclose(got[row], torch.cat(parts), atol=1e-6)
    longer = torch.cat([x, torch.full((2, 3, 2), 7.0)], 1)
    assert torch.equal(member.read(longer, lengths)[1], got[1])
