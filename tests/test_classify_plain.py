"""What `predict` takes for a table of texts, and what for plain lines."""

from __future__ import annotations

import io
import sys

import pytest

from elman.errors import FileError
from elman.tasks import build

PLAIN = "a bad awful nasty film, it was\nbad and broken, the day\n\nfine\tgood; good, very\n"


@pytest.fixture(scope="module", params=["headed", "numbered"])
def model(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("plain") / "train.tsv"
    head = "label\ttext\n" if request.param == "headed" else ""
    file.write_text(head + "pos\ta good film\nneg\ta bad film\n" * 20 + "pos\tgood\nneg\tbad\n")
    return build("classify", [file], {"hidden": 4, "embedding": 4, "members": 1}).trained()


def test_a_text_a_line_is_read_whole(model, tmp_path):
    file = tmp_path / "c.txt"
    file.write_text(PLAIN)
    told = model.predict(str(file))
    assert told == model.predict(PLAIN.removesuffix("\n").split("\n")) or [
        {k: v for k, v in t.items() if k != "note"} for t in told
    ] == [
        {k: v for k, v in t.items() if k != "note"}
        for t in model.predict(PLAIN.removesuffix("\n").split("\n"))
    ]
    assert "line 3" in told[2]["note"]


def test_standard_input_is_seen_alike(model, tmp_path, monkeypatch):
    file = tmp_path / "c.txt"
    for text in (PLAIN, "neg\ta good film, with\npos\tbad\n"):
        if model.columns["headed"] and "\nfine" not in text:
            text = f"label\ttext\n{text}"
        file.write_text(text)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        from_pipe = [line for line, _ in model.answers("-")]
        assert from_pipe == [line for line, _ in model.answers(str(file))]
        assert len(from_pipe) == (4 if text == PLAIN else 2)


def test_a_table_of_texts_is_no_plain_text(model, tmp_path):
    file = tmp_path / "c.txt"
    head = "label\ttext\n" if model.columns["headed"] else ""
    file.write_text(f"{head}neg\ta good film, with\npos\tbad\n")
    assert [t["label"] for t in model.predict(str(file))] == [
        t["label"] for t in model.predict(["a good film, with", "bad"])
    ]


def test_standard_input_is_named_in_errors(model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(FileError, match="standard input"):
        list(model.answers("-"))
