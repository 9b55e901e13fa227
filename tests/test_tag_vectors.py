"""Word vectors of a tagger: learned, from a file, one-hot, and which lie nearest."""

from __future__ import annotations

import json

import pytest
import torch

import elman
from elman.cli import main
from elman.errors import FileError, InputError
from elman.tasks import build

SMALL = {"hidden": 6, "embedding": 4, "characters": 0, "affixes": 0, "sentences": 8}


@pytest.fixture
def data(tmp_path):
    rows = ["go\tO\nto\tO\nBern\tB-place\n", "see\tO\nbern\tO\nhill\tO\n"]
    file = tmp_path / "a.conll"
    file.write_text("\n".join(rows[i % 2] + f"word{i // 8}\tO\n" for i in range(80)))
    return file


def test_pretrained_vectors_are_where_learning_begins(data, tmp_path):
    (tmp_path / "v.txt").write_text("bern 1 2 3\nto 0 1 0\nzebra 1 1 1\n")
    named = {key: value for key, value in SMALL.items() if key != "embedding"}
    task = build("tag", [data], {**named, "vectors": str(tmp_path / "v.txt")})
    words, vectors = task.trained().vectors()
    assert vectors.shape == (len(words), 3)
    assert vectors[words.index("bern")].tolist() == [1, 2, 3]
    assert any("v.txt: 3 numbers, of" in line for line in task.describe())
    again = build("tag", [data], task.config.model_dump())
    assert torch.equal(again.trained().vectors()[1], vectors)
    with pytest.raises(InputError, match="one-hot"):
        build("tag", [data], {**named, "vectors": str(tmp_path / "v.txt"), "one_hot": True})
    (tmp_path / "v.txt").write_text("zebra 1 1 1\n")
    with pytest.raises(FileError, match="none of the words"):
        build("tag", [data], {**named, "vectors": str(tmp_path / "v.txt")})


def test_one_hot_words_cost_what_is_said(data, tmp_path):
    task = build("tag", [data], {**SMALL, "one_hot": True})
    known = len(task.vocabulary.words)
    assert any(f"one-hot vectors of {known}" in line for line in task.describe())
    assert task.network.reader.output_size == known
    run = elman.train("tag", data, run=tmp_path / "r", steps=3, quiet=True, reports=[],
                      one_hot=True, **SMALL)  # fmt: skip
    assert elman.load(run.run).predict(["go to bern"])[0]["words"] == ["go", "to", "bern"]
    with pytest.raises(InputError, match="one-hot"):
        elman.load(run.run).vectors()


def test_neighbours_of_a_word(data, tmp_path, capsys):
    elman.train("tag", data, run=tmp_path / "r", steps=2, quiet=True, reports=[], **SMALL)
    assert main(["neighbours", str(tmp_path / "r"), "Bern", "-n", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    words, vectors = elman.load(tmp_path / "r").vectors()
    near = torch.cosine_similarity(vectors[words.index("bern")], vectors, dim=1)
    near[words.index("bern")] = -2
    assert [n["token"] for n in found["neighbours"]] == [
        words[i] for i in near.topk(2).indices.tolist()
    ]
