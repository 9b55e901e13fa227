"""Columns of words: read, told apart, and given back with other tags and nothing else changed."""

from __future__ import annotations

import pytest

from elman.data.conll import CONLLU_COLUMNS, Layout, parse_blocks, read_blocks
from elman.errors import FileError, InputError

CONLLU = (
    "# newdoc\n# text = don't go\n"
    "1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "1\tdo\tdo\tAUX\tVBP\t_\t3\taux\t_\t_\n"
    "2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_\n"
    "2.1\tsoon\t_\tADV\tRB\t_\t_\t_\t_\t_\n"
    "3\tgo\tgo\tVERB\tVB\tA=1|B=2\t0\troot\t_\tSpaceAfter=No\n\n"
    "# text = Yes\n1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_\n\n# the end\n"
)


def _read(text: str, expected: Layout | None = None):
    layout, blocks = parse_blocks([text], "f", expected=expected)
    return layout, list(blocks)


def test_conllu_numbers_words_and_keeps_the_rest():
    layout, (first, second) = _read(CONLLU)
    assert (layout.kind, layout.names) == ("conllu", CONLLU_COLUMNS)
    assert first.column(1) == ["do", "n't", "go"]
    assert second.column(3) == ["INTJ"]
    assert [first.line_of(k) for k in range(3)] == [4, 5, 7]
    assert second.line_of(0) == 10


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_all_lines_come_back_in_order_however_the_text_is_cut(size):
    pieces = [CONLLU[k : k + size] for k in range(0, len(CONLLU), size)]
    _, blocks = parse_blocks(pieces, "f")
    lines = [line for block in blocks for line in block.lines]
    assert "\n".join(lines) + "\n" == CONLLU


@pytest.mark.parametrize(
    ("text", "kind", "tab", "sentences"),
    [
        ("I\tO\nam\tO\n\nRome\tB-x\n", "columns", True, [["I", "am"], ["Rome"]]),
        ("I O\nam O\n\t\nRome B-x\n", "columns", False, [["I", "am"], ["Rome"]]),
        ("I\tO\nam\tO\n\t\nRome\tB-x", "columns", True, [["I", "am"], ["Rome"]]),
        ("\n\n\nI  NN\t O\nam V  O\n \n\n", "columns", False, [["I", "am"]]),
        ("-DOCSTART- -X- O\n\nI NN O\n", "columns", False, [["I"]]),
        ("-DOCSTART-\n\nI NN O\n\n-DOCSTART-\n\nhe NN O", "columns", False, [["I"], ["he"]]),
        ("# a comment\n#tag\tO\nis\tO\n", "columns", True, [["#tag", "is"]]),
        ("# id = 3 4\n# B-x\nis O\n# O\n", "columns", False, [["#", "is", "#"]]),
        ("word\nby\n\nword\n", "columns", False, [["word", "by"], ["word"]]),
        ("a b\tO\nc\u00a0d\tO\n", "columns", True, [["a b", "c\u00a0d"]]),
        ("c\u00a0d O\ne\u2028f O\n", "columns", False, [["c\u00a0d", "e\u2028f"]]),
    ],
)
def test_kinds_of_columns(text, kind, tab, sentences):
    layout, blocks = _read(text)
    assert (layout.kind, layout.tab) == (kind, tab)
    assert [block.column(0) for block in blocks] == sentences
    assert [line for block in blocks for line in block.lines] == text.removesuffix("\n").split("\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tO\nb\tO\nc\tO\tx\n", "f, line 3: 3 column(s) in 'c\\tO\\tx'; the file has 2, separat"),
        ("a O\nb O\n\nc\n" + "d O\n" * 9, "f, line 4: 1 column(s) in 'c'; the file has 2"),
        ("a\tO\n\tO\nb\tO\n", "f, line 2: the word is empty"),
        ("\n\n", "there is no word in it"),
        ("-DOCSTART- O\n\n", "there is no word in it"),
        (CONLLU.replace("2.1\t", "2,1\t"), "f, line 6: '2,1' in the column of numbers"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, message):
    with pytest.raises(FileError) as caught:
        _read(text)
    assert message in str(caught.value)


def test_a_text_of_sentences_is_known_only_where_another_layout_was_expected():
    text = "I like eating apple\nThe Apple is a great company\n"
    with pytest.raises(FileError, match="column"):
        _read(text)
    layout, blocks = _read(text, Layout("columns", True, 2))
    assert layout.kind == "plain"
    assert blocks[1].column(0) == ["The", "Apple", "is", "a", "great", "company"]
    assert _read("one\nword\n", Layout("columns", True, 2))[0].kind == "columns"
    assert _read("one O\nword O\n", Layout("columns", False, 2))[0].kind == "columns"
    assert _read("one two\nthree four\n", Layout("columns", True, 2))[0].kind == "plain"


@pytest.mark.parametrize(
    ("layout", "line", "column", "expected"),
    [
        (Layout("columns", True, 3), "a\tb\tc", 1, "a\tX\tc"),
        (Layout("columns", True, 2), "a\tb", 2, "a\tb\tX"),
        (Layout("columns", False, 3), "a  b   c ", 1, "a  X   c "),
        (Layout("columns", False, 2), "a  b ", 2, "a  b X"),
    ],
)
def test_a_cell_is_replaced_and_nothing_else(layout, line, column, expected):
    assert layout.with_cell(line, column, "X") == expected


def test_columns_go_by_name_or_number():
    layout = Layout("conllu", True, 10)
    assert [layout.column(c, "label", "f") for c in ("upos", "UPOS", "4")] == [3, 3, 3]
    with pytest.raises(InputError, match=r"no column 'deprell' .* there are id, form.*'deprel'\?"):
        layout.column("deprell", "label", "f")
    with pytest.raises(InputError, match=r"no column '3' for label; there are 1, 2\."):
        Layout("columns", True, 2).column("3", "label", "f")


def test_line_ends_and_marks_of_order_are_no_part_of_words(tmp_path):
    file = tmp_path / "a.conll"
    file.write_bytes(b"\xef\xbb\xbfI\tO\r\nam\tO\r\n\r\nR\xc3\xb6m\tB-x\r\n")
    _, blocks = read_blocks(file)
    assert [block.column(0) for block in blocks] == [["I", "am"], ["Röm"]]
    file.write_bytes(b"I\tO\nR\xf6m\tO\n")
    with pytest.raises(FileError, match="not UTF-8 at byte 5"):
        list(read_blocks(file)[1])
