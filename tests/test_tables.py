"""Tables: every kind of file against an independent reader, and what malformed ones are told."""

import csv
import datetime
import io
import json
import math
import re
import sys

import numpy as np
import polars
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from elman.data import delimited
from elman.data.delimited import Form, read_rows
from elman.data.table_kinds import has_header
from elman.data.tables import read_table
from elman.errors import FileError, InputError


def written(folder, data, name="table.csv"):
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def columns(table):
    return {name: list(table.text(name)) for name in table.names}


# -- kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "words", "found"),
    [
        ("a.csv", "text,label\na b,x\n", "CSV with header", {"text": ["a b"], "label": ["x"]}),
        ("a.csv", "x;y\n1,5;2\n", "CSV (;) with header", {"x": ["1,5"], "y": ["2"]}),
        ("a.csv", 'x\ty\n1\t"a\tb"\n', "CSV (TAB) with header", {"x": ["1"], "y": ["a\tb"]}),
        ("a.csv", 'id,text\r\n1,"a,\r\nb ""c"""', "CSV", {"id": ["1"], "text": ['a,\nb "c"']}),
        ("a.csv", "\ufeffx,y\n1,2\n", "CSV", {"x": ["1"], "y": ["2"]}),
        ("a.csv", 'a,5" x\nb,7" x\n', "CSV without", {"1": ["a", "b"], "2": ['5" x', '7" x']}),
        ("a.csv", "date,\n2020,1\n", "CSV", {"date": ["2020"], "2": ["1"]}),
        ("a.tsv", 'p\t"a film\nn\ta "bore"\n', "TSV without",
         {"1": ["p", "n"], "2": ['"a film', 'a "bore"']}),
        ("a.tsv", "u\u2028v\tw\u0085\n\tx\u00a0", "TSV",
         {"1": ["u\u2028v", ""], "2": ["w\u0085", "x\u00a0"]}),
        ("a.txt", "one\t1\ntwo\t2\n", "TSV without", {"1": ["one", "two"], "2": ["1", "2"]}),
        ("a.txt", 'p\t"a film\nn\ta bore\np\t"so so\n', "TSV without",
         {"1": ["p", "n", "p"], "2": ['"a film', "a bore", '"so so']}),
        ("a.txt", f"p\t{'long ' * 60_000}\nn\tb\n", "TSV without",
         {"1": ["p", "n"], "2": ["long " * 60_000, "b"]}),
        ("a.txt", '"a, b",c\n"d, e",f\n', "CSV without", {"1": ["a, b", "d, e"], "2": ["c", "f"]}),
        ("a.txt", "yes, well\nno\n", "one column", {"1": ["yes, well", "no"]}),
        ("a.jsonl", '{"a": 1, "b": [1, 2.5]}\n\n{"c": null, "a": "é"}\n', "JSONL",
         {"a": ["1", "é"], "b": ["[1, 2.5]", ""], "c": ["", ""]}),
        ("data.txt", '{"a": true, "b": 1e-3}\n', "JSONL", {"a": ["true"], "b": ["0.001"]}),
    ],
    ids=lambda value: None if isinstance(value, dict) else repr(value)[:40],
)  # fmt: skip
def test_kinds_of_text(tmp_path, name, data, words, found):
    table = read_table(written(tmp_path, data, name))
    assert columns(table) == found
    assert words in table.source_words
    assert table.source_words.startswith(str(tmp_path / name))


def test_words_for_people(tmp_path):
    table = read_table(written(tmp_path, "a\tb\n" * 1200, "x.tsv"))
    assert table.source_words == f"{tmp_path / 'x.tsv'}: TSV without header, 1,200 rows, 2 columns"


FRAME = {
    "text": ["a", 'b\n"c"', None, "ü"],
    "number": [0.1, None, -1e300, 2.0],
    "count": [1, 2, None, 2**60 + 1],
    "time": [datetime.datetime(2020, 1, 2, 3), None, None, datetime.datetime(1999, 12, 31, 23, 59)],
    "vector": [[1.0, 2.0], [0.1], [], [3.0, 4.0, 5.0]],
    "kind": ["u", "v", "u", "v"],
}


def binary(folder, suffix):
    table = pyarrow.table({**FRAME, "kind": pyarrow.array(FRAME["kind"]).dictionary_encode()})
    path = folder / f"table.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, path, row_group_size=3)
    elif suffix == "arrow":
        with ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=2)
    else:
        with ipc.new_stream(path, table.schema) as file:
            file.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("kind", ["parquet", "arrow", "ipc", "pyarrow", "polars", "rows", "jsonl"])
def test_kinds_with_types(tmp_path, kind):
    rows = [dict(zip(FRAME, row, strict=True)) for row in zip(*FRAME.values(), strict=True)]
    if kind == "polars":
        source = polars.DataFrame(FRAME)
    elif kind == "pyarrow":
        source = pyarrow.table(FRAME)
    elif kind == "rows":
        source = (dict(row) for row in rows)
    elif kind == "jsonl":
        lines = (json.dumps(row, default=lambda time: time.isoformat()) for row in rows)
        source = written(tmp_path, "\n".join(lines), "table.jsonl")
    else:
        source = binary(tmp_path, kind)
    table = read_table(source)
    assert table.names == tuple(FRAME)
    assert list(table.text("text")) == ["a", 'b\n"c"', "", "ü"]
    assert list(table.text("count")) == ["1", "2", "", str(2**60 + 1)]
    assert list(table.text("kind")) == FRAME["kind"]
    assert list(table.text("time")) == ["2020-01-02T03:00:00", "", "", "1999-12-31T23:59:00"]
    np.testing.assert_array_equal(table.numbers("number"), [0.1, math.nan, -1e300, 2.0])
    vectors = table.vectors("vector")
    assert [v.tolist() for v in vectors] == [np.float32(v).tolist() for v in FRAME["vector"]]
    assert {v.dtype for v in vectors} == {np.dtype(np.float32)}
    place = {"rows": "train: the data, row 3", "jsonl": "table.jsonl, line 3"}
    assert table.place(2).endswith(place.get(kind, "row 3"))


def test_rows_of_numpy_values():
    rows = [
        {"f": np.float32(0.5), "i": np.int64(7), "v": np.arange(3), "s": np.str_("x"),
         "t": np.datetime64("2020-01-01T00:00:00.000000001"), "b": np.True_},
        {"f": np.float64("nan"), "t": np.datetime64("NaT"), "v": [np.float32(1), 2]},
    ]  # fmt: skip
    assert columns(read_table(rows)) == {
        "f": ["0.5", ""],
        "i": ["7", ""],
        "v": ["[0, 1, 2]", "[1.0, 2]"],
        "s": ["x", ""],
        "t": ["2020-01-01T00:00:00.000000001", ""],
        "b": ["true", ""],
    }


class Frame:
    """What pandas is where it has no Arrow interface."""

    columns = ("a",)

    def to_dict(self, orient):
        assert orient == "records"
        return [{"a": 1.5}, {"a": math.nan}]


def test_a_frame_with_to_dict():
    assert columns(read_table(Frame())) == {"a": ["1.5", ""]}


def test_nanoseconds_that_microseconds_cannot_hold():
    times = pyarrow.array([1, None, 10**9], pyarrow.timestamp("ns"))
    table = read_table(pyarrow.table({"t": times}))
    assert table.text("t")[0].endswith(".000000001")


def test_standard_input(monkeypatch):
    data = b'text,label\n"a, b",x\n'

    class Pipe:
        buffer = io.BytesIO(data)

        def fileno(self):
            raise io.UnsupportedOperation

    monkeypatch.setattr(sys, "stdin", Pipe())
    table = read_table("-")
    assert columns(table) == {"text": ["a, b"], "label": ["x"]}
    assert table.place(0) == "standard input, line 2"


def test_files_are_joined(tmp_path):
    one = written(tmp_path, "x,y\n1,2\n", "one.csv")
    two = written(tmp_path, "\nx,y\n\n3,4\n5,6\n", "two.csv")
    three = written(tmp_path, '{"y": 8, "x": 7}\n', "three.jsonl")
    table = read_table([one, two, three])
    assert columns(table) == {"x": list("1357"), "y": list("2468")}
    places = [table.place(row) for row in range(4)]
    assert places == [f"{one}, line 2", f"{two}, line 4", f"{two}, line 5", f"{three}, line 1"]
    assert "one.csv, " in table.source_words


# -- the header ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "headed"),
    [
        (["date,load", "2016-07-01,5.8"], True),
        (["GasRate(ft3/min),CO2%", "-0.1,53.8"], True),
        (["Label,Sentence", "a,b"], True),
        (["kind,words"] + ["u,a b", "v,c d e"] * 3, True),
        (["kind,tone"] + ["u,low", "v,high"] * 4, True),
        (["greek,latin"] + ["alpha beta,a b", "gamma delta,c d"] * 3, True),
        (["Go.,Va !", "Hi.,Salut !", "Run!,Cours !", "Wow!,Ça alors !", "Help!,À l'aide !"], False),
        (["walk,walked", "go,went", "see,saw", "run,ran", "eat,ate"], False),
        (["DESC,How did it", "ENTY,What is", "DESC,How far", "LOC,Where is", "ENTY,What"], False),
        (["0,633", "0,1862"], False),
        (["a,a", "b,1"], False),
        (["NA,null", "1.5,2", "3,4"], False),
        (["pos,a film", "neg,a bore"] * 9, False),
        (["text,text", "1,2"], False),
        (["x" * 50 + ",y", "1,2"], False),
        (["Smith", "Jones", "Khoury", "Nahas", "Daher"], False),
    ],
)  # fmt: skip
def test_header_is_told(rows, headed):
    assert has_header(list(csv.reader(rows))) is headed


def test_header_can_be_said(tmp_path):
    path = written(tmp_path, "walk,walked\ngo,went\n")
    assert columns(read_table(path)) == {"1": ["walk", "go"], "2": ["walked", "went"]}
    assert columns(read_table(path, header=True)) == {"walk": ["go"], "walked": ["went"]}
    named = written(tmp_path, "text,label\na,b\n")
    table = read_table(named, header=False)
    assert (len(table), table.names, table.headed) == (2, ("1", "2"), False)


# -- against the csv module ------------------------------------------------------------------


CELLS = st.text(st.sampled_from('ab 1é\u2028\u0085\u00a0"\n,;\t😀'), max_size=8)
ROWS = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=12)
)


def by_csv(text, mark=","):
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    return [row for row in rows if len(row) > 1 or (row and row[0].strip(" "))]


def by_us(text, size, mark=","):
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    parts = list(read_rows(chunks, Form(mark.encode(), True), "x"))
    return [row for part in parts for row in part.cells(10**9)], parts


def _first_lines(text, mark):
    """The line each row begins in: one behind the last one that the csv module had read."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    lines, read = [], 0
    for row in reader:
        if len(row) > 1 or (row and row[0].strip(" ")):
            lines.append(read + 1)
        read = reader.line_num
    return lines


@settings(max_examples=200, deadline=None)
@given(
    rows=ROWS,
    mark=st.sampled_from(",;\t"),
    size=st.integers(1, 200),
    every=st.booleans(),
)
def test_quoted_cells_as_the_csv_module_reads_them(rows, mark, size, every):
    file = io.StringIO()
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=mark, lineterminator="\n", quoting=quoting).writerows(rows)
    text = file.getvalue()
    found, parts = by_us(text, size, mark)
    kept = [row for row in found if len(row) > 1 or row[0].strip(" ")]
    assert kept == by_csv(text, mark)
    lines = [part.line(i) for part in parts for i in range(len(part.counts))]
    assert [n for n, row in zip(lines, found, strict=True) if row in kept] == _first_lines(
        text, mark
    )


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(st.text('ab ",', max_size=5), min_size=2, max_size=2), min_size=1),
    size=st.integers(1, 60),
)
def test_quotes_amid_a_cell_as_the_csv_module_reads_them(rows, size):
    cells = [["x" + cell.replace(",", "") for cell in row] for row in rows]
    text = "".join(",".join(row) + "\n" for row in cells)
    assert by_us(text, size)[0] == by_csv(text) == cells


@settings(max_examples=100, deadline=None)
@given(rows=ROWS)
def test_both_ways_of_parsing_agree(rows):
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    data = file.getvalue().encode()
    fast = delimited._by_parity(data, b",", 5)
    slow = delimited._one_by_one(data, b",", "x", 5)
    if fast is None:
        return
    assert fast[1:] == slow[1:]
    assert fast[0].text == slow[0].text
    np.testing.assert_array_equal(fast[0].starts, slow[0].starts)
    np.testing.assert_array_equal(fast[0].counts, slow[0].counts)
    for row in range(len(fast[0].counts)):
        assert fast[0].line(row) == slow[0].line(row)


def test_a_single_quote_at_the_end_of_what_was_held_back():
    found = read_rows(['1,"aaaaaaaaaaaaaaaaaaaa\n', 'b"\n2,5" x\n'], Form(b",", True), "x")
    assert [rows.cells(9) for rows in found] == [[["1", f"{'a' * 20}\nb"], ["2", '5" x']]]


def test_the_fast_way_is_taken():
    data = b'a,"b, c"\n"d\ne","say ""x"""\n"",f\n'
    rows, used, lines = delimited._by_parity(data, b",", 1)
    assert rows.cells(9) == [["a", "b, c"], ["d\ne", 'say "x"'], ["", "f"]]
    assert (used, lines, [rows.line(i) for i in range(3)]) == (len(data), 4, [1, 2, 4])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text(max_size=9), st.floats(allow_nan=False, allow_infinity=False)),
        min_size=1,
        max_size=30,
    ),
    memory=st.sampled_from([0, 1 << 20]),
)
def test_any_rows_in_memory(rows, memory):
    clean = [(t.encode(errors="replace").decode(), x) for t, x in rows]
    table = read_table(({"t": t, "x": x} for t, x in clean), memory_bytes=memory)
    assert list(table.text("t")) == [t for t, _ in clean]
    assert table.numbers("x").tolist() == [x for _, x in clean]


# -- columns ---------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    rows = [f"{i},row {i} é\n" for i in range(30_000)]
    return written(tmp_path, "id,text\n" + "".join(rows))


@pytest.mark.parametrize("memory", [0, 100_000, 1 << 28])
def test_memory_makes_no_difference(many, memory):
    table = read_table(many, memory_bytes=memory)
    text = table.text("text")
    assert list(text) == [f"row {i} é" for i in range(30_000)]
    assert (text[0], text[29_999], text[-1]) == ("row 0 é", "row 29999 é", "row 29999 é")
    assert text[np.int64(12_345)] == "row 12345 é"
    assert list(text[28_000:28_003]) == ["row 28000 é", "row 28001 é", "row 28002 é"]
    assert list(text[10:0:-4]) == ["row 10 é", "row 6 é", "row 2 é"]
    assert list(text[100:200][50:52]) == ["row 150 é", "row 151 é"]
    assert (len(text[5:5]), list(text[5:5])) == (0, [])
    np.testing.assert_array_equal(table.numbers("id"), np.arange(30_000))
    assert table.place(29_999) == f"{many}, line 30001"
    assert table.fingerprint == read_table(many).fingerprint
    with pytest.raises(IndexError):
        text[30_000]
    with pytest.raises(IndexError):
        table.place(30_000)


def test_pieces_of_a_file_make_no_difference(many, monkeypatch):
    whole = read_table(many)
    monkeypatch.setattr("elman.data.reading._decode.__defaults__", None)
    monkeypatch.setattr("elman.data.tables.read_chunks", _small_chunks)
    parts = read_table(many)
    assert parts.fingerprint == whole.fingerprint
    assert list(parts.text("text")) == list(whole.text("text"))
    assert parts.place(29_999) == whole.place(29_999)


def _small_chunks(path):
    text = path.read_text()
    for at in range(0, len(text), 777):
        yield text[at : at + 777]


def test_the_fingerprint_is_of_names_and_cells(tmp_path):
    def print_of(text):
        return read_table(written(tmp_path, text)).fingerprint

    first = print_of("x,y\n1,2\n")
    assert first == print_of('"x",y\r\n\r\n"1",2')
    others = ["x,z\n1,2\n", "x,y\n1,3\n", "x,y\n12,\n", "x,y\n1,2\n1,2\n"]
    assert len({first, *map(print_of, others)}) == 5


def test_columns_that_come_late():
    rows = [{"a": i} for i in range(20_000)] + [{"b": "x", "a": -1}]
    table = read_table(rows, memory_bytes=1000)
    assert len(table) == 20_001
    b = list(table.text("b"))
    assert (b[-1], set(b[:-1])) == ("x", {""})
    assert table.text("b")[0] == ""


def test_column_by_name_number_or_guess(tmp_path):
    table = read_table(written(tmp_path, "Label,review,3\nx,y,z\n"), header=True)
    guesses = ("text", "REVIEW", "label")
    assert table.column("Label", guesses, "text") == "Label"
    assert table.column("3", guesses, "text") == "3"
    assert table.column("2", guesses, "text") == "review"
    assert table.column(None, guesses, "text") == "review"
    assert table.column(None, ("target",), "text") is None
    with pytest.raises(InputError) as caught:
        table.column("revew", guesses, "text")
    assert str(caught.value) == (
        f"train: there is no column 'revew' (text); {tmp_path / 'table.csv'} has 'Label', "
        "'review', '3'. Did you mean 'review'?"
    )
    for wrong in ("0", "4", "label", ""):
        with pytest.raises(InputError, match="there is no column"):
            table.column(wrong, guesses, "text")
    with pytest.raises(InputError, match="no column 'x'"):
        table.text("x")
    unheaded = read_table(written(tmp_path, "a b\t1\nc d\t2\n", "t.tsv"), where="predict")
    with pytest.raises(InputError, match=r"^predict: .*'1', '2' \(the file has no header"):
        unheaded.column("text", (), "text")


def test_facts(tmp_path):
    rows = ["x,t,v"] + [f"{i % 7}.5,{'a b' if i % 2 else ''},[1]" for i in range(20_000)]
    table = read_table(written(tmp_path, "\n".join(rows)))
    x, t = table.facts("x"), table.facts("t", whole=True)
    assert (x.rows, x.empty, x.distinct, x.numeric, x.words) == (10_000, 0, 7, 1.0, 1.0)
    assert (t.rows, t.empty, t.distinct, t.numeric, t.words) == (20_000, 10_000, 1, 0.0, 2.0)
    assert table.facts("v").vectors == 1.0


def test_numbers(tmp_path):
    cells = ["1", " 2.5 ", "", "nan", "NULL", "N/A", "-1e-3", " "]
    path = written(tmp_path, "x,y\n" + "".join(f"{cell},a\n" for cell in cells))
    expected = [1, 2.5, math.nan, math.nan, math.nan, math.nan, -0.001, math.nan]
    np.testing.assert_array_equal(read_table(path).numbers("x"), expected)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("two", "line 3: column x: expected a number, got 'two'"),
        ("inf", "line 3: column x: 'inf' is infinite"),
        ("1e999", "line 3: column x: '1e999' is infinite"),
        ("1_0", "line 3: column x: expected a number, got '1_0'"),
        ("0x1", "expected a number, got '0x1'"),
        ('"1,5"', "got '1,5' (decimal commas: write points)"),
        ("9" * 90, None),
        ("z" * 90, f"got '{'z' * 40}…'"),
    ],
)
def test_what_is_no_number(tmp_path, cell, says):
    table = read_table(written(tmp_path, f"x,y\n1,a\n{cell},b\n"), header=True)
    if says is None:
        assert table.numbers("x")[1] == float(cell)
        return
    with pytest.raises(FileError, match=re.escape(says)):
        table.numbers("x")


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("", "expected a list of numbers"),
        ("3", "expected a list of numbers"),
        ("[1, [2]]", "expected a list of numbers"),
        ('["a"]', "expected a list of numbers"),
        ("[true]", "expected a list of numbers"),
        ("[1, null]", "expected a list of numbers"),
        ("[1, NaN]", "entry 1 is nan"),
        ("[[1, 2], [3, 1e999]]", "entry 1, 1 is inf"),
        ("[[[1]]]", "expected a list of numbers"),
        ("[" * 5000, "expected a list of numbers"),
    ],
)
def test_what_is_no_vector(tmp_path, cell, says):
    lines = [json.dumps({"v": "[0.5]"}), json.dumps({"v": cell})]
    table = read_table(written(tmp_path, "\n".join(lines), "v.jsonl"))
    with pytest.raises(FileError, match=f"line 2: column v.*{says}"):
        table.vectors("v")


def test_vectors_of_several_steps():
    found = read_table([{"v": [[1, 2], [3, 4], [5, 6]]}, {"v": []}]).vectors("v")
    assert [array.shape for array in found] == [(3, 2), (0,)]
