"""Lines as they arrive and rows out of them: what is read, and what every bad line is told."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.data.lines import MOST_LINE_BYTES, Lines, TooLong
from elman.data.rows import Bad, Row, Rows
from elman.errors import FileError, InputError


def taken(text: str, target="y", features=(), columns=None):
    rows = Rows(target, features, "t.csv", columns)
    return [rows.take(line.encode()) for line in text.split("\n")], rows


@pytest.fixture
def pipe(monkeypatch):
    """Standard input as a pipe; the end to write to."""
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write, "wb", buffering=0) as file:
        monkeypatch.setattr("sys.stdin", stdin)
        yield file


# -- lines -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=9).filter(lambda b: b"\n" not in b and b"\r" not in b)))
def test_lines_are_those_that_were_written(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes(b"".join(line + b"\n" for line in written))
    ends = [sum(len(line) + 1 for line in written[: i + 1]) for i in range(len(written))]
    with Lines(path) as lines:
        assert [(lines.read(), lines.offset) for _ in written] == [*zip(written, ends, strict=True)]
        assert lines.read() is None
        assert lines.ended


def test_a_file_is_gone_on_with_where_it_was_left(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one\r\ntwo\nthree")
    with Lines(path) as lines:
        assert lines.read() == b"one"
        place = lines.offset
    with Lines(path, place) as lines:
        assert [lines.read() for _ in range(3)] == [b"two", b"three", None]
        assert lines.offset == path.stat().st_size
    with pytest.raises(FileError, match=r"has 14 bytes, but 15 of them were read before"):
        Lines(path, 15)


def test_a_line_comes_as_soon_as_its_end_does(pipe):
    lines = Lines("-")
    pipe.write(b"one\ntw")
    assert lines.read() == b"one"
    assert lines.read(0.01) is None
    assert not lines.ended
    pipe.write(b"o\n")
    assert lines.read(1.0) == b"two"
    pipe.write(b"last")
    pipe.close()
    assert [lines.read(), lines.read()] == [b"last", None]
    assert lines.ended


def test_what_was_read_ahead_comes_first_the_next_time(pipe):
    lines = Lines("-")
    pipe.write(b"one\ntwo\nthr")
    assert lines.read() == b"one"
    held = lines.held()
    assert held == b"two\nthr"
    pipe.write(b"ee\n")
    pipe.close()
    again = Lines("-", held=held)
    assert [again.read() for _ in range(3)] == [b"two", b"three", None]


def test_a_line_without_end_takes_no_memory(pipe):
    long = b"x" * (3 * MOST_LINE_BYTES)
    writer = threading.Thread(target=lambda: (pipe.write(long + b"\nafter\n" + long), pipe.close()))
    writer.start()
    lines, most, found = Lines("-"), 0, []
    while not lines.ended:
        line = lines.read(5.0)
        most = max(most, len(lines.held()))
        found.append(line)
    writer.join()
    assert [type(line) for line in found] == [TooLong, bytes, TooLong, type(None)]
    assert found[1] == b"after"
    assert all(len(line) == 80 for line in found[::2] if line)
    assert most <= MOST_LINE_BYTES + (1 << 16)
    assert lines.offset == 2 * len(long) + 7


@pytest.mark.parametrize(("make", "words"), [("folder", "is a folder"), ("none", "no such file")])
def test_what_is_no_file_is_named(tmp_path, make, words):
    path = tmp_path if make == "folder" else tmp_path / "none.csv"
    with pytest.raises(FileError, match=words):
        Lines(path)


# -- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("y\n1\n2.5", [None, (1.0,), (2.5,)]),
        ("\ufeffa,y\n1,2", [None, (2.0,)]),
        ("a;y\n1;2", [None, (2.0,)]),
        ("a\ty\n\t2\n1\t", [None, (2.0,), (None,)]),
        ("a|y\n1|2", [None, (2.0,)]),
        ('"a, b","y"\n"1,5", 2', [None, (2.0,)]),
        (" y , b\n 3 , 4", [None, (3.0,)]),
        ("y\n\n1\n   \n2", [None, None, (1.0,), None, (2.0,)]),
        ("y,b\n1,2\ny,b\n3,4\nb,y\n5,6", [None, (1.0,), None, (3.0,), None, (6.0,)]),
        ("y\nNA\n\nnan\n?\nnull\n-", [None, (None,), None, (None,), (None,), (None,), (None,)]),
        ('{"y": 1, "b": 2}\n{"b": 3}\n{"y": null}', [(1.0,), (None,), (None,)]),
        ('{"y": "1.5"}\n{"y": NaN}\n{"y": -2e-3, "z": [1]}', [(1.5,), (None,), (-0.002,)]),
    ],
)
def test_tables_are_read(text, rows):
    found, _ = taken(text)
    assert found == [None if row is None else Row(row) for row in rows]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1,2,3", "3 cells, not 2: '1,2,3'"),
        ("1", "1 cells, not 2: '1'"),
        ("x,1", "y is no number: 'x'"),
        ("1_000,1", "y is no number: '1_000'"),
        ("inf,1", "y is beyond all measure: 'inf'"),
        ("1e200,1", "y is beyond all measure: '1e200'"),
        ("1,b\0", "a NUL, as in a binary file"),
    ],
)
def test_a_bad_line_of_a_csv_is_told_why(line, why):
    found, rows = taken(f"y,b\n{line}\n1,2")
    assert found[1:] == [Bad(why), Row((1.0,))]
    assert rows.number == 3


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"y": 1', "no JSON"),
        ("[1]", "no JSON object"),
        ("7", "no JSON object"),
        ('{"y": true}', "y is no number: True"),
        ('{"y": {"a": 1}}', "y is no number"),
        ('{"y": 1e999}', "y is beyond all measure"),
        ('{"y": ' + "9" * 400 + "}", "y is no number"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_bad_line_of_jsonl_is_told_why(line, why):
    found, _ = taken('{"y": 0}\n' + line)
    assert isinstance(found[1], Bad)
    assert why in found[1].why
    assert len(found[1].why) < 200


def test_bytes_that_are_no_text():
    rows = Rows("y")
    rows.take(b"y")
    assert rows.take(b"\xff\xfe1") == Bad("not UTF-8 at byte 0 of the line")
    assert isinstance(rows.take(TooLong(b"xxx")), Bad)


@pytest.mark.parametrize(
    ("first", "error", "words"),
    [
        (b"a,b", InputError, "no column 'y'. There are: a, b."),
        (b"Y,b", InputError, "There are: Y, b."),
        (b'{"yy": 1}', InputError, "Did you mean 'yy'"),
        (b"1,2.5", FileError, "tail -n +1 -f FILE"),
        (b"y,y", FileError, "the header has 'y' twice"),
        (b"[1, 2]", FileError, "jq -c"),
        (b"{nothing", FileError, "no JSON"),
        (b"\xff\xfey\0", FileError, "UTF-16"),
        (b"\x1f\x8b\x08", FileError, "gzip"),
        (b"PK\x03\x04", FileError, "zip"),
        (b"\xe4y", FileError, "not UTF-8"),
    ],
)
def test_a_first_line_that_is_no_table(first, error, words):
    with pytest.raises(error) as caught:
        Rows("y", (), "t.csv").take(first)
    assert words in str(caught.value)
    assert str(caught.value).startswith("t.csv")


def test_columns_are_found():
    found, rows = taken("t,y,a\n1,2,3", features=["a", "y", "a"])
    assert (rows.names, rows.others, found[1]) == (["y", "a"], ["t"], Row((2.0, 3.0)))
    found, rows = taken("t,y,a\n1,2,3", features="all")
    assert (rows.names, found[1]) == (["y", "t", "a"], Row((2.0, 1.0, 3.0)))
    found, rows = taken("1,2\n3,4\na,y\n5,6", columns=["a", "y"])
    assert found == [Row((2.0,)), Row((4.0,)), None, Row((6.0,))]


def test_rows_go_on_where_they_were():
    _, rows = taken("t;y\n1;2", features="all")
    again = Rows("y")
    again.load_state_dict(rows.state_dict())
    assert again.take(b"3;4") == Row((4.0, 3.0))
    assert again.take(b"y;t") is None
    assert again.take(b"4;3") == Row((4.0, 3.0))
    assert again.number == 5
