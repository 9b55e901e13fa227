"""Scoring, generating and measuring: what probabilities must obey."""

import itertools
import math

import numpy as np
import pytest
import torch

from elman.data import Vocabulary
from elman.errors import InputError
from elman.tasks import build
from elman.tasks.lm import LMOptions, compare, measure
from elman.tasks.lm.network import LanguageModel
from elman.tasks.lm.options import find_cell
from elman.tasks.lm.trained import TrainedLM

WORDS = ("apple", "pear", "pair")


def model_of(level, tokens, *, scale=3.0, **options):
    """A random model whose probabilities are far from uniform."""
    settings = {"hidden": 8, "layers": 1, "embedding": 5} | options
    chosen = LMOptions(level=level, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = LanguageModel(len(tokens), chosen, find_cell(chosen)[0])
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(scale)
    return TrainedLM(network, Vocabulary(level, tokens))


@pytest.fixture(scope="module")
def words():
    return model_of("word", ("\n", *WORDS))


@pytest.fixture(scope="module")
def letters():
    return model_of("char", ("\n", *"abcé我"))


@pytest.mark.parametrize("cell", ["lstm", "gru_cho", "tdnn"])
def test_all_sentences_and_the_unfinished_mass_sum_to_one(cell):
    model = model_of("word", ("\n", *WORDS), cell=cell)
    longest = 8
    finished = [
        " ".join(words)
        for length in range(longest + 1)
        for words in itertools.product(WORDS, repeat=length)
    ]
    whole = math.fsum(math.exp(s.log_prob) for s in model.score(finished))
    unfinished = [" ".join(words) for words in itertools.product(WORDS, repeat=longest + 1)]
    rest = math.fsum(math.exp(s.log_prob) for s in model.score(unfinished, finished=False))
    assert len(finished) == 9841
    assert rest > 1e-6
    assert abs(whole + rest - 1) < 1e-6


def test_score_is_the_sum_of_its_tokens(words):
    score = words.score("apple pear pear")[0]
    assert score.tokens == ("apple", "pear", "pear", "\n")
    assert len(score.per_token) == 4
    assert score.log_prob == pytest.approx(sum(score.per_token), abs=1e-12)
    assert score.perplexity == pytest.approx(math.exp(-score.log_prob / 4))
    begun = words.score("apple pear pear", finished=False)[0]
    assert begun.per_token == pytest.approx(score.per_token[:-1])
    assert words.score("")[0].tokens == ("\n",)
    assert words.score("", finished=False)[0].log_prob == 0.0


def test_batch_equals_alone(letters):
    sentences = ["abc", "", "我é", "a" * 50, "cab" * 7]
    together = letters.score(sentences)
    for sentence, score in zip(sentences, together, strict=True):
        alone = letters.score(sentence)[0]
        assert score.sentence == sentence
        assert score.per_token == pytest.approx(alone.per_token, abs=1e-5)


def test_a_long_sentence_is_read_in_pieces(letters, monkeypatch):
    whole = letters.score("abc我" * 30)[0]
    monkeypatch.setattr("elman.tasks.lm.scoring._MOST_LOGITS", 40)
    assert letters.score("abc我" * 30)[0].per_token == pytest.approx(whole.per_token, abs=1e-5)


def test_final_line_end_is_the_end_mark(letters):
    assert letters.score("abc\n")[0].per_token == letters.score("abc")[0].per_token
    inner = letters.score("ab\nc")[0]
    assert inner.tokens == ("a", "b", "\n", "c", "\n")


def test_unseen_tokens(letters, words):
    with pytest.raises(InputError, match=r"sentence 2: character 1 is 'z'.*--unknown"):
        letters.score(["abc", "zebra"])
    skipped = letters.score("azb", unknown="skip")[0]
    assert skipped.tokens == ("a", "b", "\n")
    assert skipped.unseen == ("z",)
    with pytest.raises(InputError, match="word 2 is 'plum'"):
        words.score("apple plum")
    known = model_of("word", ("\n", *WORDS, "<unk>"))
    score = known.score("apple plum")[0]
    assert score.tokens == ("apple", "<unk>", "\n")
    assert score.unseen == ("plum",)
    with pytest.raises(InputError, match="expected auto, error, use or skip"):
        words.score("apple", unknown="perhaps")


def test_comparison(words):
    scores = words.score(["apple pear", "apple pair", "pear"])
    found = compare(scores)
    logs = [s.log_prob for s in scores]
    assert list(found.order) == sorted(range(3), key=lambda i: -logs[i])
    assert found.log_factors == pytest.approx([max(logs) - x for x in logs])
    assert len(found.words) == 2
    assert "times as likely as" in found.words[0]
    assert "equally likely" in compare([scores[0], scores[0]]).words[0]
    with pytest.raises(InputError, match="at least two"):
        compare(scores[:1])


def test_generation_follows_its_seed(letters):
    text = letters.generate("ab", length=60, seed=5)[0]
    assert text.startswith("ab")
    assert len(text) == 62
    assert letters.generate("ab", length=60, seed=5) == [text]
    assert letters.generate("ab", length=60, seed=6) != [text]
    several = letters.generate("ab", length=60, seed=5, count=3)
    assert several[0] == text
    assert len(set(several)) == 3
    assert "".join(letters.generate_stream("ab", 60, seed=5)) == text
    assert next(iter(letters.generate_stream("", 3, seed=5))) != ""


def test_generation_leaves_the_global_random_state(letters):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    letters.generate(length=5, seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_zero_temperature_takes_the_likeliest(letters):
    text = letters.generate(length=30, temperature=0)[0]
    assert letters.generate(length=30, temperature=0, seed=9)[0] == text
    assert letters.generate(length=30, top_k=1, seed=4)[0] == text
    options = [letters.score(text[:10] + c, finished=False)[0].log_prob for c in "\nabcé我"]
    # A final "\n" is the end mark; score it as such.
    options[0] = letters.score(text[:10])[0].log_prob
    assert "\nabcé我"[int(np.argmax(options))] == text[10]


def test_draws_follow_the_probabilities(letters):
    p = {}
    for token in "abcé我":
        p[token] = math.exp(letters.score(token, finished=False)[0].log_prob)
    p["\n"] = math.exp(letters.score("")[0].log_prob)
    drawn = letters.generate(length=1, count=2000, seed=0)
    for token, expected in p.items():
        share = drawn.count(token) / 2000
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / 2000) + 1e-9


def test_sentence_stops_before_the_end_mark(letters):
    for text in letters.generate("a", length=200, count=5, sentence=True):
        assert "\n" not in text


def test_unknown_is_never_drawn():
    model = model_of("word", ("\n", *WORDS, "<unk>"))
    with torch.no_grad():
        model.network.output.bias[-1] = 1e4
    text = model.generate(length=50, seed=1)[0] + model.generate(length=20, temperature=0)[0]
    assert "<unk>" not in text


def test_words_are_joined_by_spaces(words):
    text = words.generate("apple", length=40, seed=2)[0]
    assert text.split("\n")[0].startswith("apple")
    assert "  " not in text
    assert " \n" not in text
    assert "\n " not in text
    assert words.vocabulary.encode(text).shape[0] == 41


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"length": -1}, "length is -1"),
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"prompt": "Q"}, "prompt: character 1 is 'Q'"),
    ],
)
def test_bad_arguments(letters, values, says):
    with pytest.raises(InputError, match=says):
        letters.generate(**values)
    assert letters.generate("Qa", length=0, unknown="skip") == ["Qa"]


def slow_sum(model, before, text):
    """-ln p of a text, read in one stream from its very beginning."""
    whole = torch.from_numpy(np.concatenate([before, text]).astype(np.int64))
    with torch.inference_mode():
        logits, _ = model.network(whole[:-1, None])
    log_p = logits[:, 0].double().log_softmax(-1)
    return -log_p[len(before) - 1 :].gather(1, whole[len(before) :, None]).sum().item()


@pytest.mark.parametrize("length", [1, 100, 700, 1024, 1537, 5000])
@pytest.mark.parametrize("context", [1, 30, 400])
def test_every_token_is_counted_once(length, context):
    # This network forgets within a few tokens, so streams must equal one long reading.
    model = model_of("char", ("\n", *"abcde"), scale=0.5, cell="simple")
    rng = np.random.default_rng(length)
    text, before = rng.integers(0, 6, length), rng.integers(0, 6, context)
    found = measure.negative_log_likelihood(model.network, before, text)
    assert found.tokens == length
    kept = before[-measure.WARM :]
    assert found.nats == pytest.approx(slow_sum(model, kept, text), rel=1e-5)


def test_a_part_is_spread_over_the_text():
    model = model_of("char", ("\n", *"abcde"), cell="simple")
    rng = np.random.default_rng(0)
    text, before = rng.integers(0, 6, 6000), np.zeros(1, int)
    part = measure.negative_log_likelihood(model.network, before, text, 0.1)
    assert part.tokens == 11 * 55
    assert part == measure.negative_log_likelihood(model.network, before, text, 0.1)


def test_evaluate(tmp_path, letters, words):
    file = tmp_path / "a.txt"
    file.write_text("abc\ncab我\n", encoding="utf-8")
    found = letters.evaluate(file)
    both = letters.score(["abc\ncab我"])[0]
    assert found["tokens"] == 9
    assert found["nats_per_token"] == pytest.approx(-both.log_prob / 9, rel=1e-5)
    assert found["nats_per_char"] == found["nats_per_token"]
    assert found["bits_per_char"] == pytest.approx(found["nats_per_char"] / math.log(2))
    assert found["perplexity"] == pytest.approx(math.exp(found["nats_per_token"]))
    assert letters.evaluate([file, file])["tokens"] == 18
    file.write_text("apple  pear\npair", encoding="utf-8")
    found = words.evaluate(file)
    assert found["tokens"] == 5
    assert found["nats_per_char"] == pytest.approx(found["nats_per_token"] * 5 / 16)
    with pytest.raises(InputError, match=r"a.txt: character 2 is 'p'"):
        letters.evaluate(file)
    assert letters.evaluate(file, unknown="skip")["unseen"] > 0
    file.write_text("zzz", encoding="utf-8")
    assert letters.evaluate(file, unknown="skip")["tokens"] == 1


def test_evaluate_needs_a_known_token(tmp_path, letters):
    file = tmp_path / "a.txt"
    file.write_text("zzz\n", encoding="utf-8")
    assert letters.evaluate(file, unknown="skip")["unseen"] == 3
    with pytest.raises(InputError):
        letters.evaluate([])


def test_rare_characters_are_counted_as_in_validation(tmp_path):
    common = "".join(chr(0x4E00 + i) for i in range(600)) + "\n"
    text, valid = tmp_path / "zh.txt", tmp_path / "valid.txt"
    text.write_text(common + "龘\n" + common + "靐\n", encoding="utf-8")
    valid.write_text(common[::7] + "龘麤\n", encoding="utf-8")
    options = {"hidden": 8, "embedding": 4, "window": 16, "streams": 2, "valid_file": str(valid)}
    task = build("lm", [str(text)], options)
    model = task.trained()
    found = model.evaluate(valid)
    for name, value in task.validate().items():
        assert found[name] == pytest.approx(value, rel=1e-6), name
    assert (found["unseen"], found["skipped"]) == (2, 0)
    assert "2 of " in found["note"]
    assert "counted as <unk>" in found["note"]
    assert model.evaluate(text)["unseen"] == 2
    assert model.score("一龘")[0].tokens == ("一", "<unk>", "\n")
    assert model.generate("龘", length=1)[0].startswith("龘")
    with pytest.raises(InputError, match=r"'龘'.*rare or unseen in training"):
        model.score("龘", unknown="error")


def test_what_is_skipped_counts_nowhere(tmp_path, letters, words):
    file = tmp_path / "a.txt"
    file.write_text("abzzzzc\n", encoding="utf-8")
    found = letters.evaluate(file, unknown="skip")
    file.write_text("abc\n", encoding="utf-8")
    clean = letters.evaluate(file)
    assert found["nats_per_char"] == clean["nats_per_char"]
    assert (found["skipped"], clean["skipped"]) == (4, 0)
    assert "4 of 8 tokens were skipped" in found["note"]
    assert "note" not in clean
    file.write_text("apple plum pear\n", encoding="utf-8")
    found = words.evaluate(file, unknown="skip")
    assert found["nats_per_char"] == pytest.approx(found["nats_per_token"] * 3 / 11)


def test_characters_behind_unk_are_said_not_to_be_comparable(tmp_path):
    model = model_of("word", ("\n", *WORDS, "<unk>"))
    file = tmp_path / "a.txt"
    file.write_text("apple pomegranate <unk>\n", encoding="utf-8")
    found = model.evaluate(file)
    assert found["unseen"] == 1
    assert "2 of 4 tokens (50.00%)" in found["note"]
    assert "not comparable" in found["note"]
    assert "Kneser-Ney" in found["note"]
    file.write_text("apple pear\n", encoding="utf-8")
    assert "note" not in model.evaluate(file)


@pytest.mark.parametrize("given", [3, [3], ["abc", None], [b"abc"]])
def test_only_texts_are_scored(letters, given):
    with pytest.raises(InputError, match="expected a text"):
        letters.score(given)
    with pytest.raises(InputError, match="prompt is 3; expected a text"):
        letters.generate(3)
