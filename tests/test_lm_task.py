"""The language model as a task: options, defaults, the protocol, and that it learns."""

import math
import random

import pytest
import torch

from elman.errors import FileError, InputError
from elman.tasks import Budget, build, names
from elman.tasks.lm import LMOptions
from elman.tasks.lm.defaults import choose
from elman.training.options import TrainingOptions

SMALL = {
    "hidden": 12,
    "embedding": 6,
    "window": 8,
    "streams": 4,
    "dropout_input": 0.0,
    "dropout_output": 0.0,
}


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "english.txt"
    draw = random.Random(0)
    words = ["an apple", "a pear", "the salad", "and", "is", "good", "ripe"]
    lines = [" ".join(draw.choices(words, k=4)) for _ in range(150)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "chinese.txt"
    draw = random.Random(0)
    lines = ["".join(draw.choices("春眠不覺曉處處聞啼鳥", k=5)) + "。" for _ in range(200)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def learn(task, steps, rate=0.02):
    optimizer = torch.optim.Adam(task.model.parameters(), lr=rate)
    carry = None
    task.model.train()
    for step in range(steps):
        fresh = task.start(step)
        carry = carry if fresh is None else fresh
        loss, carry, count = task.loss(task.batch(step), carry)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.model.eval()
    return loss, carry, count


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"level": "word", "tied": True},
        {"level": "word", "tied": True, "embedding": 12},
        {"embedding": 0},
        {"cell": "gru", "layers": 2, "residual": True, "output_norm": True},
        {"cell": "lstm_projected", "sizes": {"projection": 5}, "layers": 2},
        {"cell": "narx"},
        {"cell": "jordan"},
        {"cell": "simple", "hyper": {"f": "relu"}, "layer_norm": True, "zoneout": 0.1},
        {"weight_dropout": 0.3},
        {"weight_dropout": 0.3, "cell": "gru_cho"},
        {"recurrent_dropout": 0.2, "initial_state": "learned", "dropout_input": 0.1},
    ],
)
def test_the_protocol(english, options):
    task = build("lm", [english], SMALL | options)
    loss, carry, count = learn(task, 3)
    assert loss.ndim == 0
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item())
    assert count == 32
    flat = torch.utils._pytree.tree_leaves(carry)
    assert flat
    assert not any(t.requires_grad for t in flat)
    found = task.validate()
    assert found["tokens"] == len(task.corpus.valid)
    assert found[task.metric] > 0
    assert task.validate(0.5)["tokens"] <= found["tokens"]
    assert task.sample()
    assert task.baseline()[task.metric] > 0
    assert task.describe()
    again = build("lm", [english], task.config.model_dump(), seed=task.seed)
    assert again.config == task.config
    assert again.fingerprint == task.fingerprint
    assert again.steps_per_epoch == task.steps_per_epoch


def test_it_learns(english):
    task = build("lm", [english], SMALL | {"hidden": 32})
    before = task.validate()["nats_per_char"]
    assert before == pytest.approx(math.log(len(task.vocabulary)), rel=0.1)
    learn(task, 120)
    after = task.validate()["nats_per_char"]
    assert after < 0.5 * before
    model = task.trained()
    good, bad = model.score(["an apple and a pear", "an appel and a paer"])
    assert good.log_prob > bad.log_prob + 2


def test_chinese(chinese):
    task = build("lm", [chinese], SMALL)
    assert task.vocabulary.level == "char"
    learn(task, 5)
    text = task.trained().generate("春", length=20)[0]
    assert text[0] == "春"
    assert set(text) <= set(task.vocabulary.tokens)
    assert task.trained().score("春眠不覺曉。")[0].tokens == (*"春眠不覺曉。", "\n")
    words = build("lm", [chinese], SMALL | {"level": "word"})
    assert any("better modelled by characters" in line for line in words.describe())


def test_carry_makes_windows_one_text(english):
    task = build("lm", [english], SMALL | {"restart": 0.0})
    task.model.eval()
    carry = task.start(0)
    losses = []
    for step in range(4):
        assert (task.start(step) is None) == (step > 0)
        loss, carry, _ = task.loss(task.batch(step), carry)
        losses.append(loss.item())
    batches = [task.batch(step) for step in range(4)]
    whole = tuple(torch.cat([b[i] for b in batches]) for i in (0, 1))
    loss, _, _ = task.loss((*whole, batches[0][2]), task.start(0))
    assert loss.item() == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_restart_forgets_only_its_rows(english):
    task = build("lm", [english], SMALL | {"cell": "tdnn"})
    _, carry, _ = task.loss(task.batch(0), task.start(0))
    inputs, targets, _ = task.batch(1)
    for row in range(4):
        anew = torch.arange(4) == row
        _, after, _ = task.loss((inputs, targets, anew), carry)
        _, kept, _ = task.loss((inputs, targets, torch.zeros(4, dtype=torch.bool)), carry)
        _, fresh, _ = task.loss((inputs, targets, torch.zeros(4, dtype=torch.bool)), task.start(0))
        leaves = zip(*map(torch.utils._pytree.tree_leaves, (after, kept, fresh)), strict=True)
        for a, k, f in leaves:
            others = torch.arange(4) != row
            torch.testing.assert_close(a[:, others], k[:, others])
            torch.testing.assert_close(a[:, row], f[:, row])


@pytest.mark.parametrize("cell", ["lstm", "gru_cho"])
def test_weight_dropout_is_on_recurrent_matrices_only(english, cell):
    options = {"cell": cell, "weight_dropout": 0.999999, "restart": 0.0}
    task = build("lm", [english], SMALL | options)
    inputs, targets, anew = task.batch(0)
    task.model.train()
    with torch.no_grad():
        dropped, _, _ = task.loss((inputs, targets, anew), task.start(0))
        for name, weight in task.model.named_parameters():
            if "weight_hh" in name or ".U_" in name:
                weight.zero_()
        task.model.eval()
        without, _, _ = task.loss((inputs, targets, anew), task.start(0))
    torch.testing.assert_close(dropped, without)


def test_one_dropout_for_all(english):
    task = build("lm", [english], {"dropout": 0.35, "layers": 2, "dropout_between": 0.1})
    assert (task.config.dropout_between, task.config.dropout_output) == (0.1, 0.35)


def test_seed_and_global_random_state(english):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, same, other = (build("lm", [english], SMALL, seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(one.model.parameters(), same.model.parameters(), strict=True):
        assert torch.equal(a, b)
    differs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in differs)
    assert one.sample() == same.sample()


def test_the_report_is_honest(english):
    task = build("lm", [english], SMALL)
    baseline = task.baseline()
    assert 1 <= baseline["order"] <= 6
    theirs = baseline["nats_per_char"]
    assert "of orders 1 to 6" in baseline["words"]
    assert "Use the baseline" in task.verdict({"nats_per_char": theirs + 0.1})
    assert "this model is ahead" in task.verdict({"nats_per_char": theirs - 0.1})
    assert "level with" in task.verdict({"nats_per_char": theirs})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hiden": 3}, r"unknown key 'hiden'. Did you mean 'hidden'\?"),
        ({"hidden": "64"}, r"hidden should be a valid integer, got '64' \(str\)"),
        ({"hidden": 0}, "hidden should be greater than or equal to 1, got 0"),
        ({"hidden": 2.0}, "hidden should be a valid integer"),
        ({"dropout_output": 1.0}, "dropout_output should be less than 1"),
        ({"dropout_output": float("nan")}, "dropout_output should be a finite number"),
        ({"level": "syllable"}, "level should be 'char', 'word' or 'auto'"),
        ({"cell": "lsmt"}, r"Did you mean 'lstm'\?"),
        ({"cell": 3}, "cell should be the name of a cell"),
        ({"hyper": {"g": 1}}, "no hyper-parameter 'g'"),
        ({"window": 10_000}, "fewer than one window"),
        ({"tied": True, "embedding": 0}, "cannot share one-hot vectors"),
    ],
)
def test_bad_options_are_one_line(english, options, says):
    with pytest.raises(InputError, match=says) as caught:
        build("lm", [english], options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_unknown_task_and_bad_files(english, tmp_path):
    assert "lm" in names()
    with pytest.raises(InputError, match="no task 'ml'"):
        build("ml", [english])
    with pytest.raises(FileError, match="no such file"):
        build("lm", [tmp_path / "none.txt"])
    short = tmp_path / "short.txt"
    short.write_text("abc\n", encoding="utf-8")
    with pytest.raises(InputError, match="fewer than one window"):
        build("lm", [short])
    with pytest.raises(InputError, match="names and values"):
        build("lm", [english], [1])


@pytest.mark.parametrize("tokens", [40, 1000, 50_000, 1_000_000, 10**9])
@pytest.mark.parametrize("vocabulary", [30, 3000, 30_000])
@pytest.mark.parametrize(
    "budget", [Budget(), Budget(minutes=15), Budget(steps=0), Budget(epochs=2)]
)
def test_defaults_suit_any_text(tokens, vocabulary, budget):
    for level in ("char", "word"):
        choice = choose(tokens, vocabulary, level, budget)
        resolved = LMOptions(**choice.model)
        assert all(getattr(resolved, name) is not None for name in choice.model)
        assert resolved.window * resolved.streams * vocabulary <= 60_000_000
        TrainingOptions(**choice.training)


def test_a_cell_that_reads_more_than_text_has_is_refused_at_once(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("some words to learn from\n" * 40, encoding="utf-8")
    with pytest.raises(InputError, match="cfc reads dt besides its input"):
        build("lm", [file], {"cell": "cfc"})
