"""Vocabularies, the split, and the streams of training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.data import END, UNKNOWN, Streams, Vocabulary, read_corpus
from elman.data import tokens as tokens_module
from elman.data.tokens import TokenArray, Tokeniser
from elman.data.vocabulary import count_characters, join_words
from elman.errors import FileError, InputError


def file_of(folder, text, name="text.txt"):
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_characters_are_split_and_numbered(tmp_path):
    text = "the pear and the apple\n" * 20
    corpus = read_corpus([file_of(tmp_path, text)])
    assert corpus.vocabulary.tokens == ("\n", *sorted(set(text) - {"\n"}))
    assert corpus.vocabulary.decode(corpus.train) + corpus.vocabulary.decode(corpus.valid) == text
    assert len(corpus.train) == int(0.9 * len(text))
    assert corpus.train.dtype == np.uint8
    assert corpus.valid_chars == len(corpus.valid)
    assert corpus.follows
    assert corpus.vocabulary.unknown is None


def test_vocabulary_is_of_the_training_part(tmp_path):
    corpus = read_corpus([file_of(tmp_path, "ab\n" * 30 + "abé\n" * 2)])
    assert "é" not in corpus.vocabulary.ids
    assert corpus.vocabulary.tokens[-1] == UNKNOWN
    assert (corpus.train_unknown, corpus.valid_unknown) == (0, 2)
    assert (corpus.valid == corpus.vocabulary.unknown).sum() == 2


def test_rare_characters_of_a_large_alphabet(tmp_path):
    common = "".join(chr(0x4E00 + i) for i in range(600))
    corpus = read_corpus([file_of(tmp_path, common + "\n" + common + "龘\n" + common)])
    assert corpus.min_count == 2
    assert "龘" not in corpus.vocabulary.ids
    assert corpus.vocabulary.unknown == len(corpus.vocabulary) - 1
    assert len(corpus.train) + len(corpus.valid) == 600 * 3 + 1 + 3


def test_words(tmp_path):
    text = "the pear  and\tthe apple\n\nthe pear\n" * 30 + "a quince\n"
    corpus = read_corpus([file_of(tmp_path, text)], level="word")
    vocabulary = corpus.vocabulary
    assert vocabulary.tokens[:3] == ("\n", "the", "pear")
    joined = vocabulary.decode(corpus.train) + vocabulary.decode(corpus.valid)
    assert joined.startswith("the pear and the apple\n\nthe pear\n")
    assert joined.endswith(f"{UNKNOWN} {UNKNOWN}\n")
    tokens = text.replace("\n", " \n ").split(" ")
    tokens = [t for part in tokens for t in part.split("\t") if t]
    assert len(corpus.train) + len(corpus.valid) == len(tokens)
    valid_text = join_words(tokens[len(corpus.train) :])
    assert corpus.valid_chars == len(valid_text) == count_characters(valid_text, "word")


def test_marked_words_are_detected(tmp_path):
    marked = file_of(tmp_path, "the <unk> is on the <unk> now and then\n" * 30)
    corpus = read_corpus([marked])
    assert corpus.vocabulary.level == "word"
    assert corpus.train_unknown == (corpus.train == corpus.vocabulary.unknown).sum() > 0
    assert read_corpus([marked], level="char").vocabulary.level == "char"


def test_word_vocabulary_is_kept_within_bounds(tmp_path):
    words = [f"w{i}" for i in range(40_000)]
    text = "\n".join(words * 2 + words[:10_000]) + "\nend\n"
    corpus = read_corpus([file_of(tmp_path, text)], level="word", valid_fraction=0.0001)
    assert corpus.min_count == 3
    assert len(corpus.vocabulary) <= 30_000


def test_validation_file(tmp_path):
    a, b = file_of(tmp_path, "abc\n" * 5, "a"), file_of(tmp_path, "cab\n", "b")
    corpus = read_corpus([a, a], valid_file=b)
    assert corpus.vocabulary.decode(corpus.valid) == "cab\n"
    assert len(corpus.train) == 40
    assert not corpus.follows


def test_fingerprint_follows_the_data(tmp_path):
    a = read_corpus([file_of(tmp_path, "abc\n" * 20)])
    b = read_corpus([file_of(tmp_path, "abc\n" * 19 + "acb\n")])
    again = read_corpus([file_of(tmp_path, "abc\n" * 20)])
    assert a.fingerprint == again.fingerprint != b.fingerprint


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"files": []}, "no file named"),
        ({"files": ["-", "-"]}, "only once"),
        ({"files": ["-"], "valid_file": "-"}, "only once"),
        ({"valid_fraction": 1.0}, "between 0 and 1"),
        ({"min_count": 0}, "at least 1"),
        ({"valid_file": "missing.txt"}, "no such file"),
    ],
)
def test_bad_splits(tmp_path, values, says):
    values = {"files": [file_of(tmp_path, "abc\n")]} | values
    with pytest.raises(InputError, match=says):
        read_corpus(**values)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abc \n\t我é😀", max_size=30), max_size=8), st.sampled_from(["char", "word"])
)
def test_tokenising_pieces_is_tokenising_the_whole(pieces, level):
    pieces = [*pieces, "\n"]
    whole = "".join(pieces)
    tokeniser = Tokeniser(level)
    ids = tokeniser.read(iter(pieces))
    tokens = [tokeniser.tokens[i] for i in ids]
    vocabulary = Vocabulary(level, tokeniser.tokens)
    # Of words, white space at the start of a line and blank runs are not tokens.
    assert tokens == vocabulary.split(whole)
    assert vocabulary.decode(vocabulary.encode(whole)) == (
        whole if level == "char" else join_words(tokens)
    )


def test_large_texts_lie_on_disk():
    array, expected = TokenArray(memory_bytes=100), []
    for i in range(20):
        part = np.arange(i * 30, (i + 1) * 30)
        array.append(part)
        expected.append(part)
    result = array.finish()
    assert isinstance(result, np.memmap)
    assert np.array_equal(result, np.concatenate(expected))
    result[:] = 1
    assert result.sum() == 600


@pytest.mark.parametrize("memory", [0, 10**6, 10**9])
def test_ids_of_any_size_in_any_pieces(memory, monkeypatch):
    monkeypatch.setattr(tokens_module, "_FEW", 50)
    monkeypatch.setattr(tokens_module, "_BLOCK", 64)
    draw = np.random.default_rng(0)
    parts = [draw.integers(0, top, draw.integers(0, 40)) for top in (9, 9, 200, 9, 70_000, 9) * 9]
    array = TokenArray(memory_bytes=memory)
    for part in parts:
        array.append(part)
    result = array.finish()
    assert np.array_equal(result, np.concatenate(parts))
    assert result.dtype == np.uint32
    assert isinstance(result, np.memmap) == (memory == 0)
    small = TokenArray(memory_bytes=memory)
    small.append(np.array([1, 255]))
    assert small.finish().dtype == np.uint8


def test_characters_seen_early_and_late_have_one_id():
    pieces = ["abc\n", "cab", "xé€a", "\n", "éx" * 3, "zyx€" * 40, "z\x7f~", chr(0x10FFFF)]
    pieces.append("".join(chr(0x4E00 + i) for i in range(300)) + "newASCII!")
    pieces.append("newASCII! and more")
    tokeniser = Tokeniser("char")
    ids = tokeniser.read(iter(pieces))
    assert "".join(tokeniser.tokens[i] for i in ids) == "".join(pieces)
    assert len(set(tokeniser.tokens)) == len(tokeniser.tokens)


def test_vocabulary_refuses_what_is_none():
    for level, tokens in (
        ("char", ["a", "b"]),
        ("char", ["\n", "ab"]),
        ("char", ["\n", "a", "a"]),
        ("word", ["\n", "a b"]),
        ("word", ["\n", ""]),
        ("syllable", ["\n"]),
    ):
        with pytest.raises(InputError):
            Vocabulary(level, tokens)
    for value in (None, {}, {"level": "char", "tokens": "ab"}, {"level": "char", "tokens": [1]}):
        with pytest.raises(InputError):
            Vocabulary.from_json(value)


def test_unseen_tokens():
    letters = Vocabulary("char", [END, "a", "b"])
    with pytest.raises(InputError, match=r"character 3 is 'ß' \(U\+00DF\), unseen in training"):
        letters.encode("abßß")
    with pytest.raises(InputError, match="--unknown skip leaves it out"):
        letters.encode("ß", unknown="use")
    assert letters.encode("aßbß", unknown="skip").tolist() == [1, 2]
    words = Vocabulary("word", [END, "a", UNKNOWN])
    assert words.encode("a pear\n", unknown="use").tolist() == [1, 2, 0]
    with pytest.raises(InputError, match=r"word 2 is 'pear'.*--unknown use takes it as <unk>"):
        words.encode("a pear")


def test_json_round_trip():
    vocabulary = Vocabulary("word", [END, "我", "pear", UNKNOWN])
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    assert hash(Vocabulary.from_json(vocabulary.to_json())) == hash(vocabulary)


def test_streams_read_everything_in_order():
    text = np.arange(103)
    streams = Streams(text, streams=4, window=5)
    rows = [[] for _ in range(4)]
    for step in range(30):
        x, y, anew = streams.batch(step)
        assert x.shape == y.shape == (5, 4)
        assert torch.equal((x + 1) % 103, y)
        assert not anew.any()
        for b in range(4):
            rows[b] += x[:, b].tolist()
    for b in range(4):
        assert rows[b] == [(b * 103 // 4 + i) % 103 for i in range(150)]
    assert streams.steps_per_epoch == 103 // 20


def test_batches_are_pure_functions_of_step():
    text = np.arange(1000) % 7
    one, other = (Streams(text, 8, 10, restart=0.3, seed=3) for _ in range(2))
    for step in (17, 3, 17):
        for a, b in zip(one.batch(step), other.batch(step), strict=True):
            assert torch.equal(a, b)
    share = np.mean([one.batch(i)[2].float().mean().item() for i in range(300)])
    assert 0.25 < share < 0.35


def test_text_shorter_than_a_window():
    with pytest.raises(InputError, match="fewer than one window"):
        Streams(np.arange(8), streams=2, window=8)


def test_text_that_cannot_be_split(tmp_path):
    with pytest.raises(InputError, match="1 tokens cannot be split"):
        read_corpus([file_of(tmp_path, "\n")])


def test_empty_file_is_a_file_error(tmp_path):
    with pytest.raises(FileError, match="is empty"):
        read_corpus([file_of(tmp_path, "")])
