"""What a run is given that is no file: rows, tables, lines; kept in its folder, resumed from it."""

import datetime
import io
import json
import math
import sys

import numpy as np
import polars
import pyarrow
import pytest

import elman
from elman.errors import FileError, InputError, RunError
from elman.training.sources import data_source, named_files

ROWS = [
    {"session": f"s{s}", "item": f"i{(s % 5 + t) % 7}", "time": t + 0.1}
    for s in range(40)
    for t in range(4)
]


def stored(data, task="next"):
    """What a run's folder would get, and under which name."""
    with data_source(data, task) as source:
        assert source.files == []
        return source.kept.read_bytes(), source.name


@pytest.mark.parametrize(
    "data",
    [
        lambda: ROWS,
        lambda: tuple(ROWS),
        lambda: iter(ROWS),
        lambda: (dict(row) for row in ROWS),
        lambda: polars.DataFrame(ROWS),
        lambda: pyarrow.Table.from_pylist(ROWS),
    ],
    ids=["list", "tuple", "iterator", "generator", "polars", "pyarrow"],
)
def test_rows_become_json_lines(data):
    text, name = stored(data())
    assert name == "data.jsonl"
    assert [json.loads(line) for line in text.splitlines()] == ROWS


def test_values_are_kept_exactly():
    values = [0.1, 1e-320, -(2**53) - 1.0, np.float32(0.1).item(), 2**70, True, None, "ü\u2028\n"]
    rows = [{"v": value, "list": [value, [value]]} for value in values]
    text, _ = stored(rows)
    assert len(text.split(b"\n")) == len(rows) + 1
    back = [json.loads(line) for line in text.decode().split("\n")[:-1]]
    assert back == rows
    assert [type(row["v"]) for row in back] == [type(value) for value in values]


def test_missing_values_and_dates():
    text, _ = stored(
        [
            {"x": math.nan, "t": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)},
            {"x": [1.0, math.nan], "t": datetime.date(2020, 1, 2)},
        ]
    )
    assert [json.loads(line) for line in text.splitlines()] == [
        {"x": None, "t": "2020-01-02T00:00:00+00:00"},
        {"x": [1.0, None], "t": "2020-01-02"},
    ]


def test_paths_and_lines_are_what_they_were(tmp_path):
    file = tmp_path / "text"
    file.write_text("a\n")
    assert named_files(file) == named_files(str(file)) == named_files([str(file)]) == [file]
    assert [str(path) for path in named_files(["a.csv", "b.txt"]) or ()] == ["a.csv", "b.txt"]
    assert named_files(["one line", "ends in .csv"]) is None
    assert named_files("-") is named_files(ROWS) is named_files(iter([file])) is None
    assert stored(["one ", "two\n"], "lm") == (b"one\ntwo\n", "data.txt")
    assert stored((line for line in ("one", "two")), "lm") == (b"one\ntwo\n", "data.txt")
    with data_source(iter([file, "b"]), "lm") as source:
        assert [path.name for path in source.files] == ["text", "b"]
        assert source.kept is None


def test_standard_input_goes_to_a_file(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"a,b\r\n\xff"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert stored("-") == (b"a,b\r\n\xff", "data.txt")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "name the data"),
        ([], "the list of data is empty"),
        (iter([]), "the list of data is empty"),
        (7, "got int"),
        ({"a": [1]}, "got dict"),
        ([1, 2], "paths, lines or rows, got int"),
        (["a", 2], "paths, lines or rows, got int"),
        ([{"a": 1}, 2], "train, row 2: expected a dictionary, got int"),
        ([{"a": math.inf}], "train, row 1, a: the number is infinite"),
        ([{"a": "\ud800"}], "row 1: a text holds half a surrogate pair"),
        (polars.DataFrame({"a": []}), "the table of data is empty"),
    ],
    ids=["none", "empty", "no-more", "number", "dict", "numbers", "mixed", "row", "inf", "half",
         "no-rows"],
)  # fmt: skip
def test_what_is_no_data(data, says):
    with pytest.raises(InputError, match=says), data_source(data, "next"):
        pass


def test_a_task_of_text_takes_no_rows():
    with pytest.raises(InputError, match="lm learns from text and knows no columns"):
        stored(ROWS, "lm")


def learn(data, run, **options):
    return elman.train("next", data, run=run, quiet=True, reports=[], hidden=8, **options)


def test_a_run_from_rows_is_that_from_their_file(tmp_path):
    rows = learn(ROWS, tmp_path / "rows", steps=6)
    frame = learn(polars.DataFrame(ROWS), tmp_path / "frame", steps=6)
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    named = learn(file, tmp_path / "file", steps=6)
    assert rows.metrics == frame.metrics == named.metrics
    kept = tmp_path / "rows" / "data.jsonl"
    assert kept.read_bytes() == file.read_bytes()
    log = (tmp_path / "rows" / "train.log").read_text()
    assert "the rows given: JSONL, 160 rows, 3 columns" in log
    assert str(kept) in (tmp_path / "rows" / "config.yaml").read_text()


def test_resume_goes_on_from_what_was_kept(tmp_path):
    whole = learn(iter(ROWS), tmp_path / "whole", steps=8)
    learn(iter(ROWS), tmp_path / "parts", steps=4)
    with pytest.raises(RunError, match="resume takes the data the run began with"):
        elman.train("next", ROWS, run=tmp_path / "parts", resume=True, quiet=True)
    result = elman.train("next", run=tmp_path / "parts", resume=True, quiet=True, steps=8)
    assert result.steps == whole.steps == 8
    kept = tmp_path / "parts" / "data.jsonl"
    kept.write_bytes(kept.read_bytes() + b'{"session": "s", "item": "x", "time": 1}\n')
    with pytest.raises(FileError, match="has changed since this run began"):
        elman.train("next", run=tmp_path / "parts", resume=True, quiet=True, steps=9)


def test_overwriting_takes_the_old_rows_away(tmp_path):
    run = tmp_path / "run"
    learn(ROWS, run, steps=1)
    elman.train("lm", ["some text " * 40] * 20, run=run, overwrite=True, quiet=True, reports=[],
                steps=1, hidden=8)  # fmt: skip
    assert (run / "data.txt").exists()
    assert not (run / "data.jsonl").exists()


def test_errors_call_the_rows_what_they_are(tmp_path):
    with pytest.raises(InputError) as caught:
        learn([{"a": "x"}] * 9, tmp_path / "run", steps=1, text="b")
    assert "/data.jsonl" not in str(caught.value)
    assert "the rows given" in str(caught.value)
    assert not (tmp_path / "run").exists()
