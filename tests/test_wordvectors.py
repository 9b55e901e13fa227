"""Vectors of tokens: read from files, one-hot, learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elman.data.wordvectors import read_vectors
from elman.errors import FileError, InputError
from elman.layers.tokens import TokenVectors


def _write(tmp_path, text):
    path = tmp_path / "v.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    ["dog 1 2 3\ncat 4 5 6\n", "2 3\ndog 1 2 3 \ncat 4 5 6 \n", "dog 1 2 3\r\ncat 4 5 6",
     b"\xef\xbb\xbfdog 1 2 3\ncat 4 5 6\ndog 7 7 7\n"],
    ids=["glove", "header and blanks at the ends", "crlf, no last line end", "bom, a word twice"],
)  # fmt: skip
def test_the_same_vectors_in_several_dresses(tmp_path, text):
    found, size = read_vectors(_write(tmp_path, text), ["dog", "cat", "cow"])
    assert size == 3
    assert sorted(found) == ["cat", "dog"]
    np.testing.assert_array_equal(found["dog"], np.array([1, 2, 3], np.float32))


def test_words_with_blanks_and_words_that_look_like_numbers(tmp_path):
    found, size = read_vectors(_write(tmp_path, "a 1 2\n. . . 3 4\n1984 5 6\n"), [". . .", "1984"])
    assert size == 2
    assert found[". . ."].tolist() == [3, 4]
    assert found["1984"].tolist() == [5, 6]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dog 1 2 3\ncat 4 5\n", "line 2: 2 numbers, not 3 as before"),
        ("dog 1 2 3\ncat 4 x 6\n", "line 2: a number of the vector is none"),
        ("dog 1 2 3\ncat 4 nan 6\n", "line 2"),
        ("a line of prose\n", "line 1: expected a word and its numbers"),
        ("2 3\n", "holds no vectors"),
    ],
    ids=["short", "no number", "nan", "prose", "header alone"],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, words):
    with pytest.raises(FileError, match=words):
        read_vectors(_write(tmp_path, text), ["dog", "cat"])


def test_one_hot_vectors_are_rows_of_the_identity():
    layer = TokenVectors(5, kind="one-hot")
    tokens = torch.tensor([[3, 0, 1]])
    expected = torch.eye(5)[tokens]
    expected[0, 1] = 0  # padding
    assert torch.equal(layer(tokens), expected)
    assert not list(layer.parameters())
    assert "5 columns" in layer.cost()
    assert "0.0 kB" in layer.cost()


def test_learned_vectors_begin_where_they_are_told():
    table = torch.randn(4, 3)
    layer = TokenVectors(4, 3, pretrained=table)
    tokens = torch.tensor([1, 0, 3])
    assert torch.equal(layer(tokens)[[0, 2]], table[[1, 3]])
    assert torch.equal(layer(tokens)[1], torch.zeros(3))
    layer(tokens).sum().backward()
    assert torch.equal(layer.weight.grad[:, 0], torch.tensor([0.0, 1.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"count": 0, "size": 1},
        {"count": 3},
        {"count": 3, "size": 0},
        {"count": 3, "size": 2, "kind": "one-hot"},
        {"count": 3, "size": 2, "pretrained": torch.zeros(2, 2)},
        {"count": 3, "size": 2, "kind": "warm"},
    ],
    ids=["none", "no size", "size 0", "one-hot size", "table", "kind"],
)
def test_vectors_that_cannot_be(arguments):
    with pytest.raises(InputError, match="TokenVectors"):
        TokenVectors(**arguments)
