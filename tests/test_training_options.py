"""Options and config.yaml: what is chosen, what is refused, and how it is said."""

import pytest

from elman.errors import FileError, InputError
from elman.training import config
from elman.training.config import RunConfig
from elman.training.options import (
    TrainingOptions,
    budget,
    check,
    divide,
    resolve,
    resolve_device,
)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lr": "fast"}, "lr should be a valid number"),
        ({"lr": -1.0}, "greater than 0"),
        ({"lr": float("nan")}, "finite"),
        ({"steps": 1.5}, "steps"),
        ({"steps": True}, "steps"),
        ({"optimizer": "adamm"}, "optimizer"),
        ({"warmpu": 0.1}, "Did you mean 'warmup'"),
        ({"warmup": 1.0}, "less than 1"),
        ({"optimizer": "sgd", "weight_decay": 0.1}, "use l2"),
    ],
)
def test_a_bad_option_is_named_in_one_line(given, says):
    with pytest.raises(InputError, match=says) as caught:
        check(given)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_name_nobody_knows_gets_the_nearest():
    task, training = divide({"hidden": 3, "lr": 0.1, "layers": None}, ["hidden", "layers"])
    assert (task, training) == ({"hidden": 3}, {"lr": 0.1})
    with pytest.raises(InputError, match=r"unknown option 'hiden'. Did you mean 'hidden'"):
        divide({"hiden": 3}, ["hidden"])


def test_what_was_given_wins_over_what_is_recommended_over_defaults():
    options = resolve({"lr": 0.5, "steps": 3}, {"lr": 0.1, "ema": 0.2})
    assert (options.lr, options.ema, options.clip_norm) == (0.5, 0.2, 1.0)
    assert (options.steps, options.minutes) == (3, None)


def test_rates_recommended_for_another_optimiser_do_not_count():
    recommended = {"optimizer": "muon", "lr": 0.008, "weight_decay": 0.1, "ema": 0.1}
    assert resolve({"steps": 1}, recommended).lr == 0.008
    options = resolve({"steps": 1, "optimizer": "sgd"}, recommended)
    assert (options.lr, options.weight_decay, options.ema) == (0.5, 0.0, 0.1)


def test_a_recommended_end_stands_beside_minutes_only():
    recommended = {"epochs": 30.0}
    options = resolve({"minutes": 3.0}, recommended)
    assert (options.minutes, options.epochs) == (3.0, 30.0)
    assert resolve({}, recommended).epochs == 30.0
    assert resolve({"steps": 9}, recommended).epochs is None
    assert resolve({"epochs": 99.0}, recommended).epochs == 99.0


def test_no_budget_is_five_minutes():
    assert budget({}).minutes == 5.0
    assert budget({"epochs": 2.0}).minutes is None


def test_a_device_that_is_not_there_is_said():
    with pytest.raises(InputError, match=r"there is: .*cpu"):
        resolve_device("abacus")


def make_config(tmp_path) -> RunConfig:
    data = tmp_path / "text.txt"
    data.write_text("Elman\n", encoding="utf-8")
    return RunConfig(
        format=1,
        elman="0",
        task="lm",
        data=[config.fingerprint(data)],
        options={"hidden": 8, "cell": "lstm", "tied": None},
        training=TrainingOptions(steps=4, lr=1e-5, precision="32"),
    )


def test_a_config_comes_back_as_it_was(tmp_path):
    written = make_config(tmp_path)
    config.write(tmp_path / "config.yaml", written)
    assert config.read(tmp_path / "config.yaml") == written
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "text.txt"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("lr: 1.0e-05", "lr: fast", "config.yaml: training: lr should be a valid number"),
        ("  lr:", "  lrr:", "unknown key 'lrr'. Did you mean 'lr'"),
        ("task:", "taks:", "unknown key 'taks'. Did you mean 'task'"),
        ("steps: 4", "steps: four", "training: steps"),
        ("format: 1", "format: 9", "format 9"),
        ("bytes: 6", "bytes: six", "data: bytes"),
        ("task: lm", "task: lm\ntask: lm", "the key 'task' is there twice"),
        ("task: lm", "task: [lm", "config.yaml"),
        ("task: lm", "task: !!python/name:os.system", "could not determine a constructor"),
    ],
)
def test_a_spoilt_config_is_said_in_one_line(tmp_path, old, new, says):
    path = tmp_path / "config.yaml"
    config.write(path, make_config(tmp_path))
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        config.read(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_may_be_written_as_people_write_it(tmp_path):
    path = tmp_path / "config.yaml"
    config.write(path, make_config(tmp_path))
    text = path.read_text(encoding="utf-8").replace("lr: 1.0e-05", "lr: 1e-3")
    path.write_text(text, encoding="utf-8")
    assert config.read(path).training.lr == 1e-3


@pytest.mark.parametrize("content", [b"\xff\xfe", b"- 1\n", b"", b"x" * (1 << 21)])
def test_what_is_no_config_is_a_file_error(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"config\.yaml"):
        config.read(path)


def test_changed_data_are_named(tmp_path):
    then = make_config(tmp_path).data
    config.check_unchanged(then)
    (tmp_path / "text.txt").write_text("Jordan\n", encoding="utf-8")
    with pytest.raises(FileError, match=r"has changed since this run began .6 bytes then, 7 now"):
        config.check_unchanged(then)
    (tmp_path / "text.txt").write_text("Elmen\n", encoding="utf-8")
    with pytest.raises(FileError, match="other content"):
        config.check_unchanged(then)
    (tmp_path / "text.txt").unlink()
    with pytest.raises(FileError, match="no such file"):
        config.check_unchanged(then)
