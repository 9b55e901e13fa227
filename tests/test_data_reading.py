"""Reading text: what is accepted, and what every malformed file is told."""

import io
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.data import read_chunks, read_text
from elman.errors import FileError, InputError


def written(folder, data: bytes, name="text.txt"):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"one\ntwo\n", "one\ntwo\n"),
        (b"one\ntwo", "one\ntwo\n"),
        (b"one\r\ntwo\r\n", "one\ntwo\n"),
        (b"\xef\xbb\xbfone\n", "one\n"),
        (b"\r\n", "\n"),
        (b"lone\rreturn\n", "lone\rreturn\n"),
        ("我家有庭樹\n".encode(), "我家有庭樹\n"),
        ("a\u2028b\u0085c 😀\n".encode(), "a\u2028b\u0085c 😀\n"),
        (b"tab\tand form\x0cfeed\n", "tab\tand form\x0cfeed\n"),
    ],
)
def test_text_is_read(tmp_path, data, text):
    path = written(tmp_path, data)
    assert read_text(path) == text
    for size in (4, 5, 7):
        assert "".join(read_chunks(path, chunk_bytes=size)) == text


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    ends=st.lists(st.sampled_from(["\n", "\r\n", " "]), max_size=20),
    size=st.integers(4, 40),
)
def test_any_text_in_any_chunks(tmp_path_factory, text, ends, size):
    whole = text + "".join(end + text[:3] for end in ends)
    expected = whole.removeprefix("\ufeff").replace("\r\n", "\n")
    path = written(tmp_path_factory.mktemp("read"), whole.encode())
    if not expected:
        with pytest.raises(FileError, match="is empty"):
            read_text(path)
        return
    expected += "" if expected.endswith("\n") else "\n"
    assert "".join(read_chunks(path, chunk_bytes=size)) == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"caf\xe9 au lait\n", "not UTF-8 at byte 3 (0xe9"),
        (b"x" * 1000 + b"\xff\n", "not UTF-8 at byte 1000 (0xff"),
        (b"x" * 10 + b"\xc3", "not UTF-8 at byte 10 (0xc3"),
        (b"\xed\xa0\x80\n", "not UTF-8 at byte 0"),
        (b"a\xc0\x80\n", "not UTF-8 at byte 1"),
        (b"text\n" * 50 + b"\0\n", "binary: a NUL at byte 250"),
        (b"ab\x01\x02" * 20, "binary: 40 control characters in 80 bytes, the first at byte 2"),
        ("text".encode("utf-16"), "UTF-16"),
        ("text".encode("utf-32"), "UTF-16"),
        (b"\x1f\x8b\x08\x00abc", "gzip"),
        (b"PK\x03\x04abc", "zip"),
        (b"%PDF-1.4", "PDF"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "binary: a NUL at byte 8"),
    ],
)
def test_malformed_files(tmp_path, data, says):
    path = written(tmp_path, data)
    for size in (16, 1 << 20):
        with pytest.raises(FileError) as caught:
            list(read_chunks(path, chunk_bytes=max(size, 4)))
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        assert caught.value.exit_code == 2
        if size > 16:
            assert says in message


def test_offset_is_right_in_any_chunk(tmp_path):
    good = "añ😀我".encode() * 20
    path = written(tmp_path, good + b"\xfe" + good)
    for size in range(4, 40):
        with pytest.raises(FileError, match=f"byte {len(good)} "):
            list(read_chunks(path, chunk_bytes=size))


def test_only_files_of_a_similar_name_are_suggested(tmp_path):
    (tmp_path / "corpus.tx").mkdir()
    written(tmp_path, b"x", "opt")
    for name in ("nope.txt", "corpus.txt"):
        with pytest.raises(FileError, match=r"there is no such file\.$"):
            read_text(tmp_path / name)


def test_missing_file_and_folder(tmp_path):
    written(tmp_path, b"x", "corpus.txt")
    with pytest.raises(FileError, match=r"no such file. Did you mean 'corpus.txt'\?"):
        read_text(tmp_path / "corpsu.txt")
    with pytest.raises(FileError, match="no such file"):
        read_text(tmp_path / "nowhere" / "a.txt")
    with pytest.raises(FileError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(InputError):
        read_text(tmp_path)


class _Standard:
    def __init__(self, data: bytes):
        self.buffer = io.BytesIO(data)

    def fileno(self):
        raise OSError("in memory")


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", _Standard(b"\xef\xbb\xbfone\r\ntwo"))
    assert read_text("-") == "one\ntwo\n"
    monkeypatch.setattr(sys, "stdin", _Standard(b"ab\xff"))
    with pytest.raises(FileError, match="standard input: not UTF-8 at byte 2"):
        read_text("-")
    monkeypatch.setattr(sys, "stdin", _Standard(b""))
    with pytest.raises(FileError, match="standard input: is empty"):
        read_text("-")
