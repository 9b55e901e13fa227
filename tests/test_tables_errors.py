"""What malformed tables are told: files, rows in memory, and what is missing to read them."""

import io
import math
import re
import sys
from pathlib import Path

import polars
import pyarrow
import pytest
from pyarrow import parquet

from elman.data import delimited
from elman.data.tables import read_table
from elman.errors import FileError, InputError


def written(folder, data, name="table.csv"):
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.csv", "", "is empty (0 bytes)"),
        ("a.csv", "\n\n", "holds no rows"),
        ("a.csv", "text,label\n", "holds only a header and no rows"),
        ("a.csv", "x,y\n1,2\n\n3,4,5\n", "line 4: 3 columns, expected 2 as in its header, line 1"),
        ("a.tsv", "a\tb\nc\n", "line 2: 1 columns, expected 2 as in line 1; columns are separated"),
        ("a.csv", 'x,y\n"a\nb",c\n"d\n', "line 4: a cell of this row opens a quote"),
        ("a.csv", 'x,y\na,"b"c\n', "line 2: behind the closing quote of a cell stands 'c'"),
        ("a.csv", 'x,y\n1,"a\n2,b\n3,"c"\n', "line 4: behind the closing quote"),
        ("a.csv", "x,y\na,b\rc\n", "line 2: a carriage return within a row"),
        ("a.csv", "x,y\ra,b\r", "lines end in carriage returns alone"),
        ("a.csv", "x,y,x\n1,2,3\n", None),
        ("a.csv", b"ok,b\nfine,caf\xe9\n", "(0xe9: invalid continuation byte), in line 2"),
        ("a.csv", "x,y\n".encode("utf-16"), "the mark of UTF-16"),
        ("a.csv", b"x,y\n1,\x00\n", "a NUL at byte 6"),
        ("a.jsonl", '{"a": 1}\n{"a": }\n', "line 2: not JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2: expected an object ({name: value, …}), got list"),
        ("a.json", '[\n{"a": 1}]\n', "is one JSON array; expected one object a line"),
        ("a.jsonl", '{"a": "\\ud800"}\n', "line 1: a text holds half a surrogate pair"),
        ("a.jsonl", " \n", "holds no rows"),
        ("a.jsonl", '{"a":' * 9000 + "1" + "}" * 9000, "line 1: not JSON"),
        ("a.parquet", "text\n", "is no Parquet file: it begins with b'text"),
        ("a.parquet", b"PAR1" + b"x" * 40, "damaged, or no Parquet"),
        ("a.arrow", b"ARROW1" + b"x" * 40, "damaged, or no Arrow"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_malformed_files(tmp_path, name, data, says):
    path = written(tmp_path, data, name)
    with pytest.raises(FileError) as caught:
        read_table(path, header=True if says is None else None)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert (says or "two columns are called 'x'") in message
    assert "\n" not in message


def test_files_that_do_not_fit(tmp_path):
    one = written(tmp_path, "x,y\n1,2\n", "one.csv")
    cases = {
        "two.csv": ("x,z\n1,2\n", "its columns are 'x', 'z'; expected 'x', 'y' as in"),
        "three.csv": ("x\n1\n", "its columns are 'x'; expected 'x', 'y'"),
        "four.jsonl": ('{"a": 1}\n', "its columns are 'a'; expected 'x', 'y'"),
        "five.csv": ("x,y\n", "holds only a header and no rows"),
    }
    for name, (data, says) in cases.items():
        two = written(tmp_path, data, name)
        with pytest.raises(FileError, match=says) as caught:
            read_table([one, two])
        assert str(caught.value).startswith(str(two))
    bare = [written(tmp_path, "1\t2\n", "a.tsv"), written(tmp_path, "1\t2\t3\n", "b.tsv")]
    with pytest.raises(FileError, match=r"b.tsv, line 1: 3 columns, expected 2 as in .*a.tsv"):
        read_table(bare)
    with pytest.raises(FileError, match=r"there is no such file. Did you mean 'a.tsv'"):
        read_table(tmp_path / "aa.tsv")
    with pytest.raises(FileError, match="is a folder"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "holds no rows"),
        ([{"a": 1}, ["b"]], "row 2: expected a dictionary, got list"),
        ([{1: "a"}], "row 1: a column's name is text, got 1"),
        ([{"a": object()}], "row 1, a: a object cannot be a cell"),
        ([{"a": 1}, {"a": math.inf}], "row 2, a: the number is infinite"),
        ([{"a": [1, {"b": -math.inf}]}], "row 1, a: the number is infinite"),
        ([{"a": "\ud800"}], "row 1: a text holds half a surrogate pair"),
        (7, "data in memory are dictionaries"),
        ({"a": [1]}, "data in memory are dictionaries"),
        (pyarrow.table({"a": [b"x"]}), "column a is bytes"),
        (pyarrow.Table.from_arrays([pyarrow.array([1])] * 2, ["a", "a"]), "called 'a'"),
        (pyarrow.table({"a": pyarrow.array([], pyarrow.int64())}), "holds no rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_malformed_rows(rows, says):
    with pytest.raises(InputError, match=re.escape(says)):
        read_table(rows, where="predict")


def test_without_pyarrow(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": [1]}), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for source in (path, polars.DataFrame({"a": [1]})):
        with pytest.raises(FileError, match=r"needs pyarrow.*pip install 'elman\[tables\]'"):
            read_table(source)


def test_a_quote_never_closed_is_found_before_memory_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "LONGEST_RECORD", 10_000)
    path = written(tmp_path, 'x,y\n1,"a\n' + "b,c\n" * 5000)
    with pytest.raises(FileError, match="line 2: a cell of this row opens a quote"):
        read_table(path)


def test_a_cell_of_a_million_characters(tmp_path):
    long = "word " * 200_000
    path = written(tmp_path, f'label,text\nx,{long}\ny,"{long}, ""z"""\n')
    assert list(read_table(path).text("text")) == [long, f'{long}, "z"']


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("rows", [10, 20_000])
def test_a_full_disk(monkeypatch, rows):
    def full(buffering: int) -> io.RawIOBase:
        return open("/dev/full", "wb", buffering=buffering)

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(FileError, match=r"no space left on device\. Name another .*TMPDIR"):
        read_table(({"a": "x" * 100} for _ in range(rows)), memory_bytes=0)


def test_a_failure_leaves_no_file_open(tmp_path):
    files = [written(tmp_path, "x,y\n1,2\n", "a.csv"), written(tmp_path, "x,y\n1\n", "b.csv")]
    with pytest.raises(FileError, match=r"b.csv, line 2: 1 columns"):  # a warning is an error
        read_table(files, memory_bytes=0)
