"""Graphs as a task: tables, what they mean, learning, resuming, the model file, the puzzles."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

import elman
from elman import tasks
from elman.cli import main
from elman.data.graph_tasks import babi, rings, with_splits
from elman.data.graphs import GraphData, read_graphs, write_graphs
from elman.errors import ElmanError, FileError, InputError
from elman.tasks import model_file
from elman.tasks.graph.measure import measure
from elman.tasks.graph.network import thinned
from elman.training import train

SHIPPED = Path(elman.__file__).parent / "demo_data" / "deduction"


def tables(folder, features, edges, labels=None, splits=None):
    files = {"features": features, "edges": edges, "labels": labels}
    for name, text in files.items():
        if text is not None:
            (folder / f"{name}.tsv").write_bytes(text.encode())
    if splits is not None:
        (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def ring_of_colours(folder, nodes=24):
    """A circle: the class of a node is the colour of the node before it, which it does not see."""
    colours = ["red" if k % 3 else "blue" for k in range(nodes)]
    features = "".join(f"n{k}\t{colour}\n" for k, colour in enumerate(colours))
    edges = "from\tto\n" + "".join(f"n{k}\tn{(k + 1) % nodes}\n" for k in range(nodes))
    labels = "".join(f"n{k}\t{colours[k - 1]}\n" for k in range(nodes))
    names = [f"n{k}" for k in range(nodes)]
    splits = {"train": names[:12], "val": names[12:18], "test": names[18:]}
    return tables(folder, features, edges, labels, splits)


SMALL = {"hidden": 8, "rounds": 2, "cell": "mean_neighbours", "dropout": 0.0, "decay": 0.0}


# -- tables ----------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path):
    for data in (with_splits(babi(4, 7), 4, 2), rings(3)):
        write_graphs(data, tmp_path)
        found = read_graphs(tmp_path) if data.splits else read_graphs(
            [tmp_path / f"{n}.tsv" for n in ("features", "edges", "labels")])  # fmt: skip
        for name in ("graphs", "nodes", "features", "types", "target", "labels", "directed"):
            assert getattr(found, name) == getattr(data, name), name
        assert (found.edges == data.edges).all()
        assert (found.graph_of == data.graph_of).all()
        assert dict(found.splits) == dict(data.splits)


def test_marks_line_ends_and_names_of_any_script(tmp_path):
    folder = tables(tmp_path, "\ufeff猫\t1 5\r\nß ß\t\r\n狗\t5\r\n", "猫\t狗\r\n", "狗\tja\r\n")
    data = read_graphs(folder)
    assert data.nodes == ("猫", "ß ß", "狗")
    assert data.features == (("1", "5"), (), ("5",))
    assert data.labels == (None, None, "ja")
    assert data.edges.tolist() == [[0, 2]]


def test_graphs_whose_rows_are_mixed(tmp_path):
    folder = tables(tmp_path, "g\ta\tx\nh\ta\ty\ng\tb\tz\n", "g\ta\tb\n", "g\tyes\nh\tno\n")
    data = read_graphs(folder)
    assert data.nodes == ("a", "b", "a")
    assert data.graph_of.tolist() == [0, 0, 1]
    assert data.features == (("x",), ("z",), ("y",))
    assert (data.target, data.edges.tolist()) == ("graph", [[0, 1]])


BAD = [
    ("a\tx\nb\tx\n", "a\tb\nb\tc\n", None, None, r"edges.tsv, line 2: the node 'c' is not there"),
    ("a\tx\na\tx\n", "a\ta\n", None, None, r"features.tsv, line 2: the node 'a' is there twice"),
    ("a\tx\n", "a\ta\tt\na\ta\n", None, None, r"edges.tsv, line 1: 3 columns; expected 2"),
    ("a\tx\n", "a\n", None, None, r"edges.tsv, line 1: 1 columns; expected 2, u and v"),
    ("g\ta\tx\ng\n", "", None, None, r"features.tsv, line 2: 1 columns; expected 3, graph, node"),
    ("", "a\tb\n", None, None, r"features.tsv: is empty"),
    ("\n\n", "a\tb\n", None, None, r"features.tsv: there is no row"),
    ("a\tx\n", "", "b\tc\n", None, r"labels.tsv, line 1: there is no node 'b'"),
    ("a\tx\n", "", "a\tc\na\td\n", None, r"labels.tsv, line 2: the node 'a' is labelled twice"),
    ("a\tx\n", "", "a\tc\td\n", None, r"labels.tsv, line 1: 3 columns; expected 2"),
    ("a\tx\n", "", "a\tc\n", {"train": ["b"]}, r"splits.json: train names the node 'b'"),
    ("a\tx\n", "", "a\tc\n", {"train": ["a"], "val": ["a"]}, "'a' is in train and in val"),
    ("a\tx\n", "", "a\tc\n", {"dev": ["a"]}, "the part 'dev' is not known"),
    ("a\tx\n", "", "a\tc\n", {"train": []}, "the part train is missing or empty"),
    ("u\tx\nv\tx\n", "u\tv\n", None, None, "may name columns or an edge"),
    ("g\ta\tx\n", "", "g\ta\n", None, "say target=graph or target=selection"),
    ("graph\tnode\tfeatures\ng\ta\tx\n", "", "graph\tnode\ng\tb\n", None,
     "labels.tsv, line 2: the node 'b' of the graph 'g' is not there"),
]  # fmt: skip


@pytest.mark.parametrize(("features", "edges", "labels", "splits", "said"), BAD)
def test_bad_tables_are_named_with_their_line(tmp_path, features, edges, labels, splits, said):
    folder = tables(tmp_path, features, edges, labels, splits)
    with pytest.raises(FileError, match=said):
        read_graphs(folder)


def test_files_are_told_by_their_names(tmp_path):
    with pytest.raises(FileError, match=r"no features.tsv or edges.tsv"):
        read_graphs(tmp_path)
    ring_of_colours(tmp_path)
    (tmp_path / "other.tsv").write_text("x")
    with pytest.raises(FileError, match="is this features, edges, labels or splits"):
        read_graphs([tmp_path / "other.tsv"])
    with pytest.raises(FileError, match="there is no table of edges"):
        read_graphs([tmp_path / "features.tsv"])
    (tmp_path / "labels.tsv").rename(tmp_path / "mine")
    with pytest.raises(FileError, match="no labels to learn from"):
        tasks.build("graph", [tmp_path])
    task = tasks.build("graph", [tmp_path], {"labels_file": str(tmp_path / "mine")})
    assert task.meaning.classes == ("red", "blue")


# -- what tables mean ------------------------------------------------------------------------


def one(features, edges, types=(), directed=False):
    labels = tuple("ab"[k % 2] for k in range(len(features)))
    return GraphData("here", ("",), tuple(f"n{k}" for k in range(len(features))),
                     np.zeros(len(features), dtype=np.int64), features,
                     np.array(edges).reshape(-1, 2), types, "node", labels, directed)  # fmt: skip


def test_features_are_ids_or_numbers(tmp_path):
    from elman.tasks.graph.meaning import kind_of_features, meaning_of

    ids = one((("3", "10"), (), ("10",)), [(0, 1)])
    assert kind_of_features(ids) == "ids"
    meaning = meaning_of(ids, "ids", False, True, False)
    assert meaning.features == ("3", "10")
    assert meaning.x(ids).tolist() == [[0.5, 0.5], [0.0, 0.0], [0.0, 1.0]]
    numbers = one((("1.5", "-2"), ("2.5", "-2")), [(0, 1)])
    assert kind_of_features(numbers) == "numbers"
    x = meaning_of(numbers, "numbers", False, True, False).x(numbers)
    assert x.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    with pytest.raises(FileError, match=r"the node 'n0' has the features '3 10 4'; expected 2"):
        meaning_of(numbers, "numbers", False, True, False).x(one((("3", "10", "4"),), []))


def test_edges_go_both_ways_once_or_back_with_a_type_of_their_own():
    from elman.tasks.graph.meaning import meaning_of

    data = one(((), (), ()), [(0, 1), (1, 0), (1, 2)], ("s", "s", "d"))
    plain = meaning_of(data, "ids", False, True, True)
    index, types = plain.edges(data)
    pairs = {(*pair, plain.types[t]) for pair, t in zip(index.T.tolist(), types, strict=True)}
    assert pairs == {(0, 1, "s"), (1, 0, "s"), (1, 2, "d"), (2, 1, "d")}
    assert index.shape[1] == 4
    arrows = meaning_of(data, "ids", True, True, True)
    index, types = arrows.edges(data)
    pairs = {(*pair, arrows.types[t]) for pair, t in zip(index.T.tolist(), types, strict=True)}
    assert pairs == {(0, 1, "s"), (1, 0, "s"), (1, 2, "d"), (1, 0, "back: s"), (0, 1, "back: s"),
                     (2, 1, "back: d")}  # fmt: skip
    assert meaning_of(data, "ids", True, True, False).edges(data)[0].shape[1] == 3
    with pytest.raises(FileError, match="the type of edge 't' is not among"):
        plain.edges(one(((), ()), [(0, 1)], ("t",)))


def test_dropout_of_sets_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.zeros(400, 50)
    x[:, :5] = 0.2
    found = thinned(x, 0.4)
    assert not found[:, 5:].any()
    values = found[:, :5]
    torch.testing.assert_close(values.unique(), torch.tensor([0.0, 0.2 / 0.6]))
    # 2,000 draws of kept or not, √(0.4·0.6/2000) ≈ 0.011.
    assert abs(float((values > 0).float().mean()) - 0.6) < 5 * 0.011
    assert thinned(x, 0.0) is x or torch.equal(thinned(x, 0.0), x)


# -- learning --------------------------------------------------------------------------------


def test_a_class_that_only_the_neighbour_tells(tmp_path):
    folder = ring_of_colours(tmp_path)
    task = tasks.build("graph", [folder], SMALL)
    result = train(task, run=tmp_path / "run", quiet=True, steps=150, lr=0.05, reports=())
    assert result.metrics["accuracy"] == 1.0
    assert result.baseline["accuracy"] < 1.0
    assert "ahead of the features without the graph" in result.verdict
    assert result.model.evaluate(folder)["part"] == "test"
    assert result.model.evaluate(folder)["accuracy"] == 1.0
    told = result.model.predict(folder)
    assert [t.label for t in told] == list(read_graphs(folder).labels)


def test_batches_are_those_of_the_step_and_a_graph_does_not_see_another(tmp_path, monkeypatch):
    write_graphs(with_splits(babi(15, 30), 20, 5), tmp_path)
    task = tasks.build("graph", [tmp_path], {"hidden": 4, "graphs": 7}, seed=3)
    again = tasks.build("graph", [tmp_path], {"hidden": 4, "graphs": 7}, seed=3)
    assert task.steps_per_epoch == 3
    for step in (5, 0, 2):
        for a, b in zip(task.batch(step), again.batch(step), strict=True):
            assert torch.equal(a, b)
    every = {tuple(task.batch(s)[4].tolist()) for s in range(3)}
    assert len(every) == 3
    assert sum(len(t) for t in every) == 20
    alone = [task.trained().predict(_only(task.data, k))[0] for k in range(5)]
    monkeypatch.setattr("elman.tasks.graph.measure._JUDGED", 3)  # the pieces judged at once
    together = task.trained().predict(task.data)[:5]
    for a, b in zip(alone, together, strict=True):
        assert a.label == b.label
        assert abs(a.probability - b.probability) < 1e-5


def _only(data, graph):
    first, end = data.first_nodes[graph : graph + 2]
    kept = (data.edges[:, 0] >= first) & (data.edges[:, 0] < end)
    return GraphData(
        data.name, (data.graphs[graph],), data.nodes[first:end], data.graph_of[first:end] * 0,
        data.features[first:end], data.edges[kept] - first,
        tuple(t for t, k in zip(data.types, kept, strict=True) if k), data.target,
        (data.labels[graph],), data.directed,
    )  # fmt: skip


@pytest.mark.parametrize("cell", ["gated_graph_typed", "message_passing", "gated_graph",
                                  "mean_neighbours", "graph_convolution"])  # fmt: skip
@pytest.mark.parametrize("kind", ["node", "graph", "selection"])
def test_every_cell_learns_and_comes_back_from_its_file(tmp_path, cell, kind):
    if kind == "node":
        ring_of_colours(tmp_path)
    else:
        write_graphs(rings(12) if kind == "graph" else babi(4, 12), tmp_path)
    task = tasks.build("graph", [tmp_path], {"cell": cell, "hidden": 6, "graphs": 4})
    task.model.eval()  # no dropout
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        loss, _, _ = task.loss(task.batch(0), None)
        optimizer.zero_grad()
        loss.backward()
        assert all(w.grad is not None for w in task.model.parameters() if w.requires_grad)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    file = tmp_path / "m.safetensors"
    model_file.write(file, task.name, task.metadata(), task.model.state_dict())
    told = task.trained().predict(task.data)
    assert elman.load(file).predict(task.data) == told
    assert measure(task.model, task.data, task.whole, task.parts["val"], kind) == task.validate()


def test_altered_model_files_are_refused(tmp_path):
    task = tasks.build("graph", [ring_of_colours(tmp_path)], SMALL)
    tensors = task.model.state_dict()

    def refused(said, **changed):
        metadata = {**task.metadata(), **changed}
        with pytest.raises(ElmanError, match=said):
            tasks.graph.restore(metadata, tensors, "here")

    meaning = task.metadata()["vocabulary"]
    refused("what its numbers mean is damaged", vocabulary={**meaning, "classes": [1]})
    refused("do not say what its numbers mean", vocabulary={})
    refused("this model needs", vocabulary={**meaning, "features": ["x"] * 9})
    refused("do not describe", more=1)
    refused("config", config={**task.metadata()["config"], "hidden": "8"})


def test_a_run_that_was_stopped_goes_on_to_the_bit(tmp_path):
    files = write_graphs(with_splits(babi(15, 30), 20, 5), tmp_path / "data")
    given = {"hidden": 4, "rounds": 2, "graphs": 6, "dropout": 0.2, "quiet": True, "reports": ()}
    whole = train("graph", tmp_path / "data", run=tmp_path / "a", steps=30, **given)
    assert [Path(f.path).name for f in elman_config(tmp_path / "a").data] == [f.name for f in files]

    stop = {"at": 12}
    real = tasks.graph.GraphLabelling.batch

    def stopping(self, step):
        if step == stop["at"]:
            stop["at"] = -1
            raise KeyboardInterrupt
        return real(self, step)

    tasks.graph.GraphLabelling.batch = stopping
    try:
        with pytest.raises(KeyboardInterrupt):
            train("graph", tmp_path / "data", run=tmp_path / "b", steps=30, checkpoint_every=5,
                  **given)  # fmt: skip
        halves = train("graph", run=tmp_path / "b", resume=True, quiet=True, reports=())
    finally:
        tasks.graph.GraphLabelling.batch = real
    ours, theirs = (r.model.network.state_dict() for r in (whole, halves))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole.metrics == halves.metrics


def elman_config(run):
    from elman.training import config

    return config.read(run / "config.yaml")


# -- bad input -------------------------------------------------------------------------------


def test_options_that_cannot_be(tmp_path):
    folder = ring_of_colours(tmp_path)
    for options, said in (
        ({"cell": "gru"}, "gru is no cell of graphs"),
        ({"cell": "nary_tree_lstm"}, "is no cell of graphs"),
        ({"hiden": 3}, "unknown key 'hiden'. Did you mean 'hidden'"),
        ({"target": "graph"}, "there is one graph"),
        ({"features": "numbers"}, "expected 1 numbers"),
    ):
        with pytest.raises(ElmanError, match=said):
            tasks.build("graph", [folder], options)
    tables(tmp_path, "a\tx\nb\ty\n", "", "a\tone\nb\tone\n", {"train": ["a"]})
    with pytest.raises(InputError, match="1 class"):
        tasks.build("graph", [folder])
    tables(tmp_path, "a\tx\nb\ty\n", "", "a\tone\nb\ttwo\n", {"train": ["a"], "val": []})
    with pytest.raises(InputError, match="leave 1 to train on and 0"):
        tasks.build("graph", [folder])


def test_one_node_no_edge_and_labels_missing(tmp_path):
    features = "graph\tnode\tfeatures\n" + "".join(
        f"g{k}\ta\t{'x' if k % 2 else 'y'}\n" for k in range(20)
    )
    labels = "graph\tclass\n" + "".join(f"g{k}\t{k % 2}\n" for k in range(18))
    folder = tables(tmp_path, features, "", labels)
    task = tasks.build("graph", [folder], {"hidden": 4})
    assert "20 without an edge" in task.describe()[0]
    assert "2 without a label" in task.describe()[1]
    result = train(task, run=tmp_path / "run", quiet=True, steps=60, lr=0.05, reports=())
    found = result.model.evaluate(folder)
    assert found["labels"] == 18
    assert found["accuracy"] == 1.0
    assert len(result.model.predict(folder)) == 20


# -- the command line ------------------------------------------------------------------------


def test_the_verbs(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", "graph", str(SHIPPED), "--run", run, "--epochs", "30", "--hidden", "8",
                 "--rounds", "3", "--lr", "0.02", "--quiet"]) == 0  # fmt: skip
    capsys.readouterr()
    assert main(["evaluate", run, str(SHIPPED), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["part"], found["labels"]) == ("test", 50)
    assert found["accuracy"] > 0.9
    assert main(["evaluate", run, str(SHIPPED)]) == 0
    assert "50 labels of the test part" in capsys.readouterr().out
    assert main(["predict", run, str(SHIPPED)]) == 0
    rows = [row.split("\t") for row in capsys.readouterr().out.splitlines()]
    labels = read_graphs(SHIPPED).labels
    assert len(rows) == 150
    right = sum(row[1] == label for row, label in zip(rows, labels, strict=True))
    assert right >= 135
    assert main(["train", "graph", str(tmp_path / "none"), "--run", run]) == 2
    assert "elman: " in capsys.readouterr().err


def test_pictures(tmp_path):
    from elman.plots.graphs import layout, neighbourhood, of_answers

    for folder, data in ((tmp_path / "a", babi(4, 3)), (tmp_path / "b", rings(3))):
        write_graphs(data, folder)
        task = tasks.build("graph", [folder], {"hidden": 4})
        assert of_answers(task.trained(), folder, folder / "p.png") == 2
        assert (folder / "p.png").stat().st_size > 5000
    (tmp_path / "c").mkdir()
    model = tasks.build("graph", [ring_of_colours(tmp_path / "c")], SMALL).trained()
    assert of_answers(model, tmp_path / "c", tmp_path / "c" / "p.png") == 0
    at = layout([(0, 1), (2, 3)], 4)
    near, far = np.linalg.norm(at[0] - at[1]), np.linalg.norm(at[0] - at[2:], axis=1).min()
    assert near < far
    star = np.array([(0, k) for k in range(1, 500)])
    assert len(neighbourhood(star, 500)) == 300
    assert 0 in neighbourhood(star, 500)


# -- the puzzles -----------------------------------------------------------------------------


def _facts(data, graph):
    first, end = data.first_nodes[graph : graph + 2]
    facts = [(data.nodes[u], data.nodes[v], kind)
             for (u, v), kind in zip(data.edges.tolist(), data.types, strict=True)
             if first <= u < end]  # fmt: skip
    marks = {data.nodes[k]: data.features[k] for k in range(first, end)}
    return facts, marks


def test_answers_of_task_4_by_a_walk_of_the_facts():
    data = babi(4, 300, seed=5)
    asked = set()
    for graph, answer in enumerate(data.labels):
        facts, marks = _facts(data, graph)
        ((room, (question,)),) = [(node, f) for node, f in marks.items() if f]
        side = question.strip("?")
        asked.add(question)
        if question.startswith("?"):
            found = [u for u, v, kind in facts if v == room and kind == side]
        else:
            found = [v for u, v, kind in facts if u == room and kind == side]
        assert found == [answer]
        # The two neighbours lie on two sides: in the plane no two rooms stand in one place.
        steps = {"n": (0, 1), "s": (0, -1), "e": (1, 0), "w": (-1, 0)}
        places = {room: (0, 0)}
        for u, v, kind in facts:
            dx, dy = steps[kind]
            places |= {u: (dx, dy)} if v == room else {v: (-dx, -dy)}
        assert len(set(places.values())) == 3
    assert len(asked) == 8


def test_answers_of_task_15_by_a_walk_of_the_facts():
    data = babi(15, 300, seed=5)
    for graph, answer in enumerate(data.labels):
        facts, marks = _facts(data, graph)
        (who,) = [node for node, f in marks.items() if f == ("?",)]
        kind = {u: v for u, v, t in facts if t == "is"}[who]
        assert {u: v for u, v, t in facts if t == "fears"}[kind] == answer
        assert len(facts) == 8


def test_rings_by_a_search_for_the_shortest_way_round():
    data = rings(200, seed=2)
    assert sum(label == "ring of six" for label in data.labels) == 100
    for graph, label in enumerate(data.labels):
        first, end = data.first_nodes[graph : graph + 2]
        around = {k: set() for k in range(first, end)}
        for u, v in data.edges.tolist():
            if first <= u < end:
                around[u].add(v)
                around[v].add(u)
        assert max(map(len, around.values())) <= 4
        assert (_girth(around) == 6) == (label == "ring of six")
        assert end - first == 16
        assert sum(map(len, around.values())) == 32


def _girth(around):
    """The shortest ring: leave out each edge and walk from one of its ends to the other."""
    best = 10**9
    for u, others in around.items():
        for v in others:
            seen, waiting = {u: 0}, deque([u])
            while waiting:
                here = waiting.popleft()
                for there in around[here]:
                    if {here, there} != {u, v} and there not in seen:
                        seen[there] = seen[here] + 1
                        waiting.append(there)
            best = min(best, seen.get(v, 10**9) + 1)
    return best


def test_seeds_and_wrong_calls():
    assert babi(15, 5).labels == babi(15, 5).labels
    assert babi(15, 20, seed=1).edges.tolist() != babi(15, 20, seed=2).edges.tolist()
    for call, said in (
        (lambda: babi(3, 4), "there are 4 and 15"),
        (lambda: babi(4, 0), "whole number ≥ 1"),
        (lambda: rings(4, atoms=7), "whole number ≥ 8"),
        (lambda: with_splits(babi(4, 4), 4, 1), "4 and 1 of 4 graphs"),
    ):
        with pytest.raises(InputError, match=said):
            call()
