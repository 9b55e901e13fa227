"""Rows, baselines, likeness and writing of captions, each against a plain computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from elman.errors import FileError, InputError
from elman.tasks.caption.baseline import ORDERS, Baseline, NGrams, Texts
from elman.tasks.caption.likeness import chrf, compare, ngram_counts
from elman.tasks.caption.measure import against, conditions, difference, figures, nats_of
from elman.tasks.caption.network import CaptionModel
from elman.tasks.caption.options import CaptionOptions
from elman.tasks.caption.rows import read_rows
from elman.tasks.caption.writing import drawn, likeliest
from elman.tasks.lm.kneser_ney import KneserNey

END = 2
SIZES = {"hidden": 6, "layers": 1, "embedding": 4, "condition": 3, "dropout": 0.0}


def _model(tokens: int = 6, labels: int = 2, features: int = 0, seed: int = 0, **options):
    torch.manual_seed(seed)
    model = CaptionModel(tokens, labels, features, CaptionOptions(**{**SIZES, **options}))
    with torch.no_grad():  # sharper than a new network is
        model.decoder.output.weight.mul_(6)
    return model.eval()


def _texts(seed: int = 0, count: int = 30, tokens: int = 6, longest: int = 5) -> Texts:
    draw = np.random.default_rng(seed)
    texts = [draw.integers(3, tokens, size=draw.integers(1, longest)) for _ in range(count)]
    return Texts(texts, draw.integers(2, size=count), None)


# Likeness.


@pytest.mark.parametrize("seed", range(3))
def test_chrf_is_that_of_sacrebleu(seed):
    sacrebleu = pytest.importorskip("sacrebleu")
    draw = np.random.default_rng(seed)
    letters = np.array(list("abcd é日"))
    texts = ["".join(draw.choice(letters, size=draw.integers(1, 14))).strip() for _ in range(20)]
    right = ["".join(draw.permutation(list(text)))[: draw.integers(1, 15)] for text in texts]
    sums = compare(texts, right)[:, 1:].sum(0)
    expected = sacrebleu.corpus_chrf(texts, [right]).score
    assert float(chrf(sums)) == pytest.approx(expected, abs=1e-9)
    assert float(chrf(np.array(ngram_counts("", "ab")))) == 0.0
    assert float(chrf(np.zeros((3, 18)))[1]) == 0.0


def test_exact_texts_are_counted():
    found = figures(np.ones(4), np.full(4, 2), compare(["a", "b", "c", ""], ["a", "b", "x", "y"]))
    assert found["exact"] == 0.5
    assert found["nats_per_char"] == 0.5
    assert found["bits_per_char"] == pytest.approx(0.5 / math.log(2))


def test_a_model_is_ahead_only_where_the_difference_is_sure():
    draw = np.random.default_rng(0)
    ours, characters = draw.normal(20, 5, size=200), np.full(200, 10)
    for shift, ahead in ((0.1, False), (5.0, True), (-5.0, False)):
        theirs = ours + shift + draw.normal(0, 4, size=200)
        low, high = difference(ours, theirs, characters)
        mean = float((theirs - ours).sum() / characters.sum())
        assert low < mean < high
        metrics = {"nats_per_char": ours.sum() / 2000}
        baseline = {"name": "b", "nats_per_char": theirs.sum() / 2000, "gain": [low, high]}
        said = against(metrics, baseline)
        assert said.endswith("ahead of b.") == ahead
        assert ("Use the baseline" in said) != ahead
    for exact, sure, ahead in ((0.52, -0.01, False), (0.6, 0.02, True), (0.4, -0.2, False)):
        metrics = {"nats_per_char": 1.0, "exact": exact}
        baseline = {"name": "b", "nats_per_char": 1.1, "exact": 0.5, "gain": [-0.1, 0.3],
                    "gain_exact": [sure, exact]}  # fmt: skip
        assert against(metrics, baseline).endswith("ahead of b.") == ahead


# N-grams.


def test_contexts_do_not_reach_into_another_text():
    texts = _texts()
    order = np.random.default_rng(1).permutation(len(texts.tokens))
    judged = _texts(seed=5, count=8)
    one, other = (
        NGrams(part, 6, END).nats(judged, ORDERS, 0.5) for part in (texts, texts.some(order))
    )
    np.testing.assert_allclose(one, other, rtol=1e-12)
    alone = [NGrams(texts, 6, END).nats(judged.some(np.array([i])), 4, 0.5)[0] for i in range(8)]
    np.testing.assert_allclose(NGrams(texts, 6, END).nats(judged, 4, 0.5), alone, rtol=1e-12)


def test_bigrams_of_a_class_are_kneser_ney_on_its_texts():
    texts = _texts()
    given = NGrams(texts, 6, END)
    judged = Texts([np.array([3, 4]), np.array([5])], np.array([1, 0]), None)
    p, plain, of = given.probabilities(judged, 2)
    assert of.tolist() == [0, 0, 0, 1, 1]
    marks = list(range(6, 6 + ORDERS - 1))
    for label, rows, expected in ((1, [0, 1, 2], [3, 4, END]), (0, [3, 4], [5, END])):
        own = [t for t, k in zip(texts.tokens, texts.labels, strict=True) if k == label]
        stream = [int(i) for text in own for i in (*marks, *text, END)] + marks
        model = KneserNey(np.array(stream), 6 + ORDERS - 1, ORDERS)
        before = marks[-1]
        for row, token in zip(rows, expected, strict=True):
            assert p[row] == pytest.approx(model.distribution([before], 2)[token])
            before = token
    mixed = given.nats(judged, 2, 0.25)
    by_hand = -np.log(0.25 * p + 0.75 * plain)
    np.testing.assert_allclose(mixed, [by_hand[:3].sum(), by_hand[3:].sum()])


def test_a_class_never_seen_has_the_ngrams_of_all():
    given = NGrams(_texts(), 6, END)
    judged = Texts([np.array([3, 4])], np.array([7]), None)
    p, plain, _ = given.probabilities(judged, 3)
    np.testing.assert_array_equal(p, plain)


def test_order_and_weights_are_the_best_on_the_validation_part():
    train, valid = _texts(count=60), _texts(seed=9, count=20)
    found = Baseline.fit(train, valid, 6, END)
    trials = {(k, w): found.ngrams.nats(valid, k, w).sum()
              for k in range(1, ORDERS + 1) for w in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)}  # fmt: skip
    best = min(trials.values())
    assert found.judge(valid).sum() == pytest.approx(best)
    assert trials[found.order, found.weights[found.order - 1]] == pytest.approx(best)


# Neighbours.


def test_the_texts_of_the_nearest_vectors_come_first():
    draw = np.random.default_rng(0)
    words = [np.array(w) for w in ([3], [4, 5], [5, 3])]
    which = draw.integers(3, size=40)
    vectors = draw.normal(size=(40, 4)).astype(np.float32)
    train = Texts([words[i] for i in which], None, vectors)
    found = Baseline(train, 6, END, neighbours=3, backed_off=0.2, order=2)
    asked = Texts([words[0], words[1], np.array([3, 3])], None, vectors[:3] + 0.1)
    back = np.exp(-found.ngrams.nats(asked, 2, 0.0))
    for row, nats in enumerate(found.judge(asked)):
        distances = ((vectors - asked.vectors[row]) ** 2).sum(1)
        near = which[np.argsort(distances)[:3]]
        share = np.mean([np.array_equal(words[i], asked.tokens[row]) for i in near])
        assert nats == pytest.approx(-math.log(0.8 * share + 0.2 * back[row]), rel=1e-6)
        votes = np.bincount(near, minlength=3)
        told = found.tell(asked)[row]
        assert votes[[np.array_equal(told, w) for w in words].index(True)] == votes.max()


def test_neighbours_of_another_class_come_last():
    vectors = np.zeros((4, 2), np.float32)
    train = Texts([np.array([3 + i]) for i in range(4)], np.array([0, 1, 1, 1]), vectors)
    found = Baseline(train, 8, END, neighbours=1)
    asked = Texts([np.array([3])], np.array([0]), np.ones((1, 2), np.float32))
    assert found.tell(asked)[0].tolist() == [3]


def test_of_a_class_the_usual_text_is_told():
    train = Texts([np.array(t) for t in ([3], [4], [4], [5])], np.array([0, 1, 1, 1]), None)
    found = Baseline(train, 6, END)
    asked = Texts([np.array([3])] * 3, np.array([0, 1, 9]), None)
    assert [t.tolist() for t in found.tell(asked)] == [[3], [4], [4]]


def test_a_baseline_is_kept_and_read_again():
    draw = np.random.default_rng(0)
    texts = _texts()._replace(vectors=draw.normal(size=(30, 3)).astype(np.float32))
    found = Baseline.fit(texts, _texts(2)._replace(vectors=texts.vectors + 0.5), 6, END)
    metadata, tensors = found.keep()
    again = Baseline.of(metadata, tensors, 6, END, "here")
    np.testing.assert_array_equal(again.judge(texts), found.judge(texts))
    assert again.name() == found.name()
    for change in (
        {"tokens": tensors["tokens"] + 9},
        {"lengths": tensors["lengths"][1:]},
        {"vectors": tensors["vectors"][1:]},
    ):
        with pytest.raises(FileError, match="do not fit"):
            Baseline.of(metadata, {**tensors, **change}, 6, END, "here")
    with pytest.raises(FileError, match="no baseline of captions"):
        Baseline.of({}, tensors, 6, END, "here")
    with pytest.raises(FileError, match="do not fit"):
        Baseline.of({**metadata, "order": 99}, tensors, 6, END, "here")


# The network and its writing.


def test_padding_changes_no_probability():
    model = _model(features=2)
    draw = np.random.default_rng(0)
    texts = _texts()._replace(vectors=draw.normal(size=(30, 2)).astype(np.float32))
    alone = [nats_of(model, texts.some(np.array([i])), END)[0] for i in range(30)]
    np.testing.assert_allclose(nats_of(model, texts, END), alone, rtol=1e-5)


def test_the_class_stands_in_the_state_and_at_each_step():
    model = _model()
    texts = Texts([np.array([3, 4, 5])] * 2, np.array([0, 1]), None)
    u = model.condition(*conditions(texts))
    with torch.no_grad():
        model.decoder.bridge.weight.zero_()
    state = model.decoder.begin(u)
    assert torch.equal(state[0][0], state[0][1])
    first, second = nats_of(model, texts, END)  # what is left is the vector at each step
    assert abs(first - second) > 1e-3


@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole_lstm"])
def test_the_likeliest_text_is_found_and_its_probability_is_that_of_the_network(cell):
    model = _model(tokens=5, cell=cell, seed=3)
    u = model.condition(torch.tensor([0, 1]), torch.zeros(2, 0))
    found = likeliest(model, u, end=END, width=400, most=4, length_penalty=0.0)
    every = [list(t) for n in range(4) for t in itertools.product((3, 4), repeat=n)]
    for label, best in enumerate(found):
        texts = Texts([np.array(t, np.int64) for t in every], np.full(len(every), label), None)
        nats = nats_of(model, texts, END)
        assert best[0].tokens == every[int(nats.argmin())]
        assert best[0].log_probability == pytest.approx(-nats.min(), rel=1e-5)


def test_draws_are_as_often_as_the_network_says():
    model = _model(tokens=5, seed=1)
    with torch.no_grad():
        model.decoder.output.bias[:2] = -99.0  # what is never written
    u = model.condition(torch.zeros(4000, dtype=torch.int64), torch.zeros(4000, 0))
    settings = {"end": END, "most": 3, "temperature": 1.0, "top_p": 1.0}
    texts = drawn(model, u, **settings, seed=0)
    assert texts == drawn(model, u, **settings, seed=0)
    assert texts != drawn(model, u, **settings, seed=1)
    every = [[], [3], [4], [3, 4]]
    given = Texts([np.array(t, np.int64) for t in every], np.zeros(4, np.int64), None)
    for text, nats in zip(every, nats_of(model, given, END), strict=True):
        share = sum(t == text for t in texts) / 4000
        assert share == pytest.approx(math.exp(-nats), abs=4 * (0.25 / 4000) ** 0.5)


def test_a_cold_draw_and_a_narrow_one_are_the_greedy_text():
    model = _model(seed=2)
    u = model.condition(torch.tensor([0, 1]), torch.zeros(2, 0))
    greedy = [b[0].tokens for b in likeliest(model, u, end=END, width=1, most=9, length_penalty=0)]
    for settings in ({"temperature": 0.0, "top_p": 1.0}, {"temperature": 1.0, "top_p": 1e-9}):
        assert drawn(model, u, end=END, most=9, seed=5, **settings) == greedy


# Reading.


def _read(tmp_path, name, content, answered=True, **options):
    (tmp_path / name).write_text(content)
    return read_rows([tmp_path / name], CaptionOptions(**options), answered=answered)


def test_columns_are_found_by_name_or_by_what_they_hold(tmp_path):
    found = _read(tmp_path, "a.csv", "nationality,name\nIrish,O Shea\nGreek,Kouris\n")
    assert found.columns == ("name", "nationality", ())
    assert (found.texts, found.labels) == (["O Shea", "Kouris"], ["Irish", "Greek"])
    rows = "".join(f"{k}\tword{i}\n" for i, k in enumerate("ababababab"))
    found = _read(tmp_path, "a.tsv", rows)
    assert found.columns == ("2", "1", ())
    found = _read(tmp_path, "a.jsonl", '{"v": [1, 2.5], "word": "x"}\n{"v": [3, 4], "word": "y"}\n')
    assert found.columns == ("word", None, ("v",))
    np.testing.assert_array_equal(found.vectors, [[1, 2.5], [3, 4]])
    found = _read(tmp_path, "b.csv", "p1,p2,word\n1,2,x\n3,4,y\n")
    assert found.columns == ("word", None, ("p1", "p2"))
    found = _read(tmp_path, "b.csv", "p1,q,word,label\n1,2,x,k\n3,4,y,k\n", past="p*,q")
    assert found.columns == ("word", "label", ("p1", "q"))


def test_texts_need_not_be_there_where_they_are_asked_for(tmp_path):
    found = _read(tmp_path, "a.csv", "label\nIrish\n", answered=False, text="name", label="label")
    assert (found.texts, found.labels, len(found)) == (None, ["Irish"], 1)


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.csv", "label,text\nx,\n", {}, "a.csv, line 2: column 'text' is empty"),
        ("a.csv", "label,text\nx,t\n,t\n", {}, "a.csv, line 3: column 'label' is empty"),
        ("a.csv", "label,text\nx,t\n", {"label": "lable"}, "Did you mean 'label'"),
        ("a.csv", "label,text\nx,t\n", {"past": "p*"}, "no column is called like 'p\\*'"),
        ("a.csv", "p,text\n1,t\nNaN,t\n", {"past": "p"}, "line 3: column 'p' has no number"),
        ("a.csv", "p,text\n1,t\n2,t\nx,t\n", {"past": "p"}, "line 4: column p: expected a number"),
        ("a.csv", "text,b\nu,w\nv,x\ny,z\n", {}, "could be found that holds what the texts"),
        ("a.csv", "a,b,c\nu,w,k\nv,x,k\n", {"label": "c"}, "holds the texts to be written"),
        ("a.jsonl", '{"v": [1], "text": "a"}\n{"v": [1, 2], "text": "b"}\n', {},
         "line 2: column 'v' has 2 numbers; .*line 1 has 1"),
        ("a.jsonl", '{"v": [1], "text": "a"}\n{"v": [NaN], "text": "b"}\n', {}, "line 2"),
        ("a.jsonl", '{"v": [[1]], "text": "a"}\n', {}, "line 1: column 'v' has"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_said_with_its_line(name, text, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        _read(tmp_path, name, text, **options)


def test_arrays_are_read_and_what_is_wrong_with_them_is_said(tmp_path):
    file = tmp_path / "a.npz"
    pictures, words = np.arange(24).reshape(3, 2, 4), np.array(["one", "two", "one"])
    np.savez(file, pictures=pictures, words=words)
    found = read_rows(file, CaptionOptions())
    assert found.columns == ("words", None, ("pictures",))
    assert found.vectors.shape == (3, 8)
    assert found.texts == ["one", "two", "one"]
    for arrays, options, message in (
        ({"pictures": pictures}, {}, "no array of texts"),
        ({"words": words}, {}, "no array of vectors"),
        ({"pictures": pictures[:2], "words": words}, {}, "as many rows"),
        ({"pictures": pictures * np.nan, "words": words}, {}, "row 1: array 'pictures'"),
        ({"pictures": pictures, "words": words}, {"text": "wrods"}, "Did you mean 'words'"),
        ({"pictures": pictures, "words": np.array(["a", "", "b"])}, {}, "row 2: array 'words'"),
        ({"pictures": pictures, "words": words.astype(object)}, {}, "cannot be read"),
    ):
        np.savez(file, **arrays)
        with pytest.raises(InputError, match=message):
            read_rows(file, CaptionOptions(**options))
    file.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(FileError, match="cannot be read"):
        read_rows(file, CaptionOptions())
    with pytest.raises(FileError, match="no such file"):
        read_rows(tmp_path / "b.npz", CaptionOptions())
