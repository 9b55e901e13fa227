"""Sessions, baselines and measures of the next item, each against a plain computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elman.errors import FileError
from elman.tasks.next import measure
from elman.tasks.next.baseline import Followers
from elman.tasks.next.measure import adds, figures, rank, score, told
from elman.tasks.next.network import NextItemModel
from elman.tasks.next.options import NextOptions
from elman.tasks.next.sessions import read_sessions
from elman.tasks.next.task import told_by


def _network(tokens: int = 9, seed: int = 0, **options) -> NextItemModel:
    from elman import cells

    torch.manual_seed(seed)
    return NextItemModel(tokens, cells.get(options.pop("cell", "gru")), 5, 1, 4, **options).eval()


def _sessions(seed: int, count: int, items: int, longest: int = 9) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    # Some unknown items (1) among them.
    return [draw.integers(1, items + 2, size=draw.integers(2, longest)) for _ in range(count)]


# Measures.


def test_measures_by_hand():
    sums = adds(np.array([1, 3, 7, 0]), np.array([0.5, 1.0, 2.5, 9.9])).sum(0)
    found = figures(sums)
    assert found["recall@1"] == 0.25
    assert found["recall@5"] == 0.5
    assert found["recall@10"] == found["recall@20"] == 0.75
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 7) / 4)
    assert found["nats_per_item"] == pytest.approx(4 / 3)
    assert found["judged"] == 4


def test_ranks_are_those_of_a_sort(monkeypatch):
    monkeypatch.setattr(measure, "_MOST_SCORES", 20)  # several rounds
    network = _network()
    with torch.no_grad():
        network.embedding.weight[5] = network.embedding.weight[3]  # ties
        network.embedding.weight[8] = network.embedding.weight[3]
        network.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.2, 0.5, 0.6, 0.2]))
    vectors = torch.randn(30, 4)
    targets = np.random.default_rng(1).integers(1, 9, size=30)
    ranks, nats = rank(network, vectors, targets)
    logs = network.scores(vectors).log_softmax(1).detach().numpy()
    for row, target in enumerate(targets):
        if target == 1:
            assert (ranks[row], nats[row]) == (0, 0)
            continue
        order = sorted(range(7), key=lambda i, row=row: (-logs[row, i], i))
        assert ranks[row] == order.index(target - 2) + 1
        assert nats[row] == pytest.approx(-logs[row, target - 2], rel=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm", "peephole_lstm"])
def test_neither_padding_nor_cutting_changes_what_is_told(cell, monkeypatch):
    network = _network(cell=cell)
    sessions = _sessions(0, 12, 7, 14)
    alone = [score(network, [session])[0] for session in sessions]
    monkeypatch.setattr(measure, "_STEPS", 4)
    np.testing.assert_allclose(score(network, sessions), alone, rtol=2e-5, atol=1e-6)
    seen = sorted((r, p) for rows, places, _ in told(network, sessions)
                  for r, p in zip(rows.tolist(), places.tolist(), strict=True))  # fmt: skip
    assert seen == [(r, p) for r, s in enumerate(sessions) for p in range(len(s))]


def test_padding_changes_no_output_of_the_network():
    network = _network()
    tokens = torch.tensor([[3, 4, 5, 0, 0], [2, 3, 2, 7, 8]])
    out, state = network(tokens, torch.tensor([3, 5]))
    short, alone = network(tokens[:1, :3], torch.tensor([3]))
    assert torch.equal(out[0, :3], short[0])
    assert torch.equal(state[:, :1], alone)


# Baselines.


def test_followers_by_hand():
    # a b a | a b: pairs a b twice, b a once; a 3 times, b twice.
    found = Followers.count_in([np.array([2, 3, 2]), np.array([2, 3])], 3)
    assert found.popularity.tolist() == [3, 2, 0]
    discount = 1 / (1 + 2 * 1)
    share = np.array([3.5, 2.5, 0.5]) / 6.5
    expected = share * discount / 2  # after a: one kind, of two
    expected[1] += (2 - discount) / 2
    np.testing.assert_allclose(found.probabilities(0), expected)
    np.testing.assert_allclose(found.probabilities(2), share)  # nothing followed c
    np.testing.assert_allclose(found.probabilities(None), share)


@pytest.mark.parametrize("seed", range(4))
def test_followers_rank_as_a_sort_of_their_probabilities_does(seed):
    items = 12
    found = Followers.count_in(_sessions(seed, 30, items, 6), items)
    place = np.argsort(np.argsort(-found.popularity, kind="stable"))
    for last in (None, -1, *range(items)):
        p = found.probabilities(last)
        assert p.sum() == pytest.approx(1)
        order = sorted(range(items), key=lambda i, p=p: (-p[i], place[i]))
        for target in range(items):
            position, value = found.rank(last, target)
            assert value == pytest.approx(p[target])
            assert position == order.index(target) + 1


def test_a_baseline_is_judged_session_by_session():
    sessions = _sessions(3, 20, 6)
    found = Followers.count_in(sessions[:10], 6)
    sums = found.judge(sessions, "bigram")
    for session, mine in zip(sessions, sums, strict=True):
        expected = np.zeros(measure.COLUMNS)
        for last, target in zip(session[:-1] - 2, session[1:] - 2, strict=True):
            if target < 0:
                expected += adds(np.array([0]), np.array([0.0]))[0]
                continue
            position, p = found.rank(int(last), int(target))
            expected += adds(np.array([position]), np.array([-np.log(p)]))[0]
        np.testing.assert_allclose(mine, expected)
    again = Followers.of(found.keep(), 6, "here")
    np.testing.assert_array_equal(again.judge(sessions, "bigram"), sums)


# Reading.


def _read(tmp_path, name, text, **options):
    (tmp_path / name).write_text(text)
    found = read_sessions([tmp_path / name], NextOptions(**options))
    return {key: found.items(i) for i, key in enumerate(found.keys)}, found


def test_rows_are_put_into_the_order_of_their_times(tmp_path):
    text = "user,item,time\nA,x,3\nB,p,1\nA,y,1\nA,z,2.5\nB,q,1\n"
    found, sessions = _read(tmp_path, "s.csv", text)
    assert found == {"A": ["y", "z", "x"], "B": ["p", "q"]}  # of equal times the file's order
    assert sessions.layout == ("rows", "blank", "user", "item", "time")
    dates = ["2020-01-02", "2019-12-31T10:00+02:00", "2019-12-31T09:30Z", "2020-01-01"]
    rows = "".join(f"A\tw{i}\t{day}\n" for i, day in enumerate(dates))
    found, _ = _read(tmp_path, "s.tsv", f"session\titem\tdate\n{rows}")
    assert found == {"A": ["w1", "w2", "w3", "w0"]}


def test_a_column_that_only_looks_like_times_is_not_taken(tmp_path):
    text = "week,day,worn\n1,Monday,a\n1,Tuesday,b\n"
    found, sessions = _read(tmp_path, "s.csv", text)
    assert found == {"1": ["a", "b"]}
    assert sessions.layout.time is None


def test_a_session_may_stand_in_a_cell_or_a_line(tmp_path):
    cells = '{"id": "A", "items": ["red wine", "rice"]}\n{"id": "B", "items": ["tea"]}\n'
    found, sessions = _read(tmp_path, "s.jsonl", cells)
    assert found == {"A": ["red wine", "rice"], "B": ["tea"]}
    assert sessions.layout.kind == "cells"
    found, _ = _read(tmp_path, "s.txt", "red wine, rice\n\ntea\n")
    assert found == {"line 1": ["red wine", "rice"], "line 3": ["tea"]}
    found, _ = _read(tmp_path, "s.txt", "[ open bracket\na  b\t c\n")
    assert found == {"line 1": ["[", "open", "bracket"], "line 2": ["a", "b", "c"]}
    found, _ = _read(tmp_path, "s.txt", "yes , he did\nno , not he\n")  # a comma is a word
    assert found["line 1"] == ["yes", ",", "he", "did"]
    found, _ = _read(tmp_path, "s.txt", "he came\nhe saw, he won\nthey left\n")
    assert found["line 2"] == ["he", "saw,", "he", "won"]
    found, _ = _read(tmp_path, "s.txt", "a,b c\n", separator="blank")
    assert found == {"line 1": ["a,b", "c"]}


def test_another_file_is_read_as_the_first_was(tmp_path):
    _, sessions = _read(tmp_path, "s.csv", "user,item\n1,a\n1,b\n")
    options = told_by(sessions, NextOptions())
    (tmp_path / "t.csv").write_text("time,user,item\n1,7,a\n")
    found = read_sessions([tmp_path / "t.csv"], options)
    assert (found.keys, found.items(0)) == (["7"], ["a"])
    (tmp_path / "u.csv").write_text("person,item\n1,a\n")
    with pytest.raises(ValueError, match="no column 'user'"):
        read_sessions([tmp_path / "u.csv"], options)


def test_a_table_without_any_row_is_refused(tmp_path):
    (tmp_path / "s.csv").write_text("user,item\n")
    with pytest.raises(FileError, match="no rows"):
        read_sessions([tmp_path / "s.csv"], NextOptions())


def test_items_are_numbered_by_how_often_they_come_in_the_training_part(tmp_path):
    _, sessions = _read(tmp_path, "s.txt", "b a\na c\nc c c\n")
    lexicon = sessions.count([0, 1], 1)
    assert lexicon.to_json() == ["a", "b", "c"]
    assert [n.tolist() for n in sessions.numbers(lexicon)] == [[3, 2], [2, 4], [4, 4, 4]]
    assert sessions.count([0, 1, 2], 2).to_json() == ["c", "a"]
