"""The language model under a carry: exact credit, restarts, memory, refusals, exact resume."""

import json
import math

import pytest
import torch
from torch.nn import functional
from training_toy import Toy

import elman
from elman.cli import main
from elman.errors import InputError
from elman.learning import Carried
from elman.tasks import build
from elman.tasks.lm import LanguageModel, LanguageModelling, LMOptions
from elman.tasks.lm import network as networks
from elman.tasks.lm.network import begin_anew, detached
from elman.training import train
from elman.training.folder import RunFolder

SMALL = {"hidden": 4, "layers": 1, "embedding": 3, "tied": False, "window": 5, "streams": 3,
         "dropout": 0.0, "dropout_input": 0.0}  # fmt: skip
RUN = SMALL | {"steps": 9, "checkpoint_every": 4, "quiet": True, "reports": []}
LINES = ["an apple and a pear", "the salad is good", "a ripe pear is good"] * 20


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def task_of(text, **options):
    task = build("lm", [text], SMALL | options)
    task.model.double()
    return task


def whole_gradient(task, batches):
    """The gradient through all windows by autograd, with the same weights and no carry."""
    options = task.options.model_copy(update={"carry": None})
    plain = LanguageModel(task.network.tokens, options, task.cell).double()
    plain.load_state_dict(task.network.state_dict())
    rows = task.options.streams
    states = plain.fresh(rows)
    total = 0.0
    for inputs, targets, anew in batches:
        states = begin_anew(states, plain.fresh(rows), anew)
        logits, states = plain(inputs, states)
        total = total + functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    total.backward()
    return {name: p.grad for name, p in plain.named_parameters()}


def carried_gradient(task, batches):
    """The sum of the gradients of the windows, one after the other, as training has them."""
    carry = task.start(0)
    for batch in batches:
        loss, carry, _ = task.loss(batch, carry)
        loss.backward()
    assert isinstance(carry, Carried)
    assert not any(t.requires_grad for t in torch.utils._pytree.tree_leaves(tuple(carry)))
    return {name: p.grad for name, p in task.model.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 1},
        {"cell": "gru", "layers": 2},
        {"cell": "gru_cho", "layers": 2, "restart": 0.5},
        {"embedding": 0},
        {"tied": True, "embedding": 3},
        {"initial_state": "learned", "restart": 0.5},
        {"cell": "narx", "restart": 0.5},
        {"cell": "indrnn", "layers": 2, "output_norm": True},
    ],
)
def test_the_gradient_is_that_of_the_whole_stream(text, options):
    torch.manual_seed(1)
    task = task_of(text, carry="exact", **options)
    windows = 8 if options.get("window") == 1 else 4
    batches = [task.batch(step) for step in range(windows)]
    if "restart" in options:
        assert sum(int(b[2].sum()) for b in batches[1:]) > 0
    expected = whole_gradient(task, batches)
    found = carried_gradient(task, batches)
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-11 * max(scale, 1e-3))


def test_windows_without_a_carry_have_another_gradient(text):
    """What the law above could not see, were the carry to carry nothing."""
    torch.manual_seed(1)
    task = task_of(text, carry="exact")
    batches = [task.batch(step) for step in range(4)]
    expected = whole_gradient(task, batches)
    carry = task.start(0)
    for batch in batches:
        loss, carry, _ = task.loss(batch, carry)
        loss.backward()
        carry = Carried(carry.states, tuple(torch.zeros_like(m) for m in carry.influence))
    gradient = task.model.layers[0].weight_hh_l0.grad
    whole = expected["layers.0.weight_hh_l0"]
    assert (gradient - whole).norm() > 1e-3 * whole.norm()


def test_a_restart_forgets_the_influence_of_its_rows_alone(text):
    task = task_of(text, carry="exact")
    _, carry, _ = task.loss(task.batch(0), task.start(0))
    inputs, targets, _ = task.batch(1)
    anew = torch.tensor([False, True, False])
    _, mixed, _ = task.loss((inputs, targets, anew), carry)
    _, kept, _ = task.loss((inputs, targets, torch.zeros(3, dtype=torch.bool)), carry)
    _, fresh, _ = task.loss((inputs, targets, anew), task.start(0))
    for m, k, f in zip(mixed.influence, kept.influence, fresh.influence, strict=True):
        torch.testing.assert_close(m[1], f[1])
        torch.testing.assert_close(m[[0, 2]], k[[0, 2]])
        assert not torch.allclose(m[1], k[1])


def test_the_memory_is_announced_and_is_what_is_used(text):
    task = build("lm", [text], SMALL | {"carry": "exact"})
    announced = task.network.influence_bytes(3)
    assert announced > 0
    line = next(line for line in task.describe() if line.startswith("learning:"))
    assert "exact" in line
    _, carry, _ = task.loss(task.batch(0), task.start(0))
    used = sum(t.numel() * t.element_size() for t in carry.influence)
    assert abs(announced - used) <= 0.05 * used
    assert build("lm", [text], SMALL).network.influence_bytes(3) == 0


def test_what_does_not_fit_is_refused_before_anything_is_made(text, tmp_path, monkeypatch):
    monkeypatch.setattr(networks.space, "room", lambda device: 10_000_000)
    options = RUN | {"hidden": 64, "embedding": 32}
    with pytest.raises(InputError, match=r"MiB.*are free.*hidden.*streams.*embedding.*snap1"):
        train("lm", text, run=tmp_path / "run", carry="exact", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"carry": "exact", "weight_dropout": 0.2}, "weight_dropout=0.2"),
        ({"carry": "exact", "residual": True, "layers": 2}, "residual=True"),
        ({"carry": "snap1", "learning": "rtrl"}, "learning=rtrl carries 'exact'"),
        ({"learning": "rtrl", "window": 7}, "for windows with the same credit say window=7"),
        ({"carry": "kf"}, "carry should be 'exact', 'snap1', 'rflo' or 'uoro'"),
        ({"learning": "adam"}, "learning should be"),
    ],
)
def test_what_cannot_be_is_refused_by_name(text, options, says):
    named = {k: v for k, v in SMALL.items() if k not in ("window",)}
    with pytest.raises(InputError, match=says) as caught:
        build("lm", [text], named | options)
    assert "\n" not in str(caught.value)


def test_learning_names_stand_for_windows_of_one(text):
    named = {k: v for k, v in SMALL.items() if k != "window"}
    for learning, carry in (("rtrl", "exact"), ("snap1", "snap1")):
        task = build("lm", [text], named | {"learning": learning})
        assert (task.config.window, task.config.carry) == (1, carry)
        again = build("lm", [text], task.config.model_dump())
        assert again.config == task.config


def test_sizes_are_chosen_so_that_the_influence_is_small(text):
    task = build("lm", [text], {"carry": "exact"})
    assert task.config.weight_dropout == 0
    assert task.network.influence_bytes(task.config.streams) < 500e6
    assert task.recommended["precision"] == "32"
    assert isinstance(LMOptions(carry="exact").window, type(None))


@pytest.mark.parametrize(
    ("learning", "part"),
    [("rtrl", 0.9), ("snap1", 0.9), ("rflo", 0.9), ("uoro", 0.98)],  # one draw is mostly noise
)
def test_every_method_learns(text, learning, part, tmp_path):
    named = {k: v for k, v in RUN.items() if k not in ("window", "steps")} | {"hidden": 8}
    result = train("lm", text, run=tmp_path / "run", learning=learning, steps=300, lr=0.02,
                   **named)  # fmt: skip
    first = math.log(len(result.model.vocabulary))
    assert result.metrics["nats_per_char"] < part * first


class Killed(Exception):
    pass


def kill_at(step, monkeypatch, run):
    """Have a run die where it would read the batch of a step."""
    before = LanguageModelling.batch

    def batch(self, number):
        if number == step:
            raise Killed
        return before(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModelling, "batch", batch)
        with pytest.raises(Killed):
            run()


@pytest.mark.parametrize(
    "options",
    [
        {"carry": "exact"},
        {"carry": "exact", "layers": 2, "cell": "gru_cho", "restart": 0.3, "dropout_input": 0.2},
        {"carry": "snap1", "restart": 0.3},
        {"carry": "uoro"},
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(text, tmp_path, monkeypatch, options):
    whole = train("lm", text, run=tmp_path / "whole", **RUN | options)
    kill_at(6, monkeypatch, lambda: train("lm", text, run=tmp_path / "cut", **RUN | options))
    folder = RunFolder(tmp_path / "cut")
    assert folder.last.exists()
    cut = train("lm", run=folder.path, resume=True, quiet=True, reports=[])
    ours, theirs = (r.model.network.state_dict() for r in (cut, whole))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    for one, other in zip(*rows, strict=True):
        assert all(one[k] == other[k] for k in one if "second" not in k)


def test_a_model_trained_with_a_carry_is_one_like_any_other(text, tmp_path):
    result = train("lm", text, run=tmp_path / "run", carry="exact", **RUN)
    loaded = elman.load(tmp_path / "run")
    one = loaded.score("a pear")[0].log_prob
    assert one == pytest.approx(result.model.score("a pear")[0].log_prob)
    assert loaded.generate("a ", length=5, seed=1)


@pytest.mark.parametrize(
    ("options", "says"), [({"precision": "bf16"}, "must be 32"), ({"flow_penalty": 0.1}, "walks")]
)
def test_what_does_not_go_with_a_carry_is_refused_at_once(text, tmp_path, options, says):
    with pytest.raises(InputError, match=says):
        train("lm", text, run=tmp_path / "run", carry="exact", **RUN | options)
    assert not (tmp_path / "run").exists()


def test_detached_keeps_what_is_carried():
    state = torch.ones(1, 2, 3, requires_grad=True) * 2
    found = detached(Carried((state,), (torch.ones(2, 3),)))
    assert isinstance(found, Carried)
    assert not found.states[0].requires_grad


def fidelity_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "fidelity"]


@pytest.mark.parametrize(
    ("options", "exact"),
    [
        ({"carry": "exact", "dropout_output": 0.2, "dropout_input": 0.2}, True),
        ({"carry": "snap1"}, False),
        ({"dropout_output": 0.2, "weight_dropout": 0.0}, False),
    ],
)
def test_fidelity_along_a_run(text, tmp_path, options, exact):
    named = {k: v for k, v in RUN.items() if k not in options} | {"precision": "32", "lr": 0.02}
    train("lm", text, run=tmp_path / "run", fidelity=2, **named | options)
    rows = fidelity_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 3, 5, 7, 9]
    assert rows[0]["cosine"] == pytest.approx(1)  # no past yet
    if exact:
        assert all(row["cosine"] == pytest.approx(1, abs=1e-6) for row in rows)
        assert all(row["relative_error"] < 1e-5 for row in rows)
    else:
        assert all(0 < row["cosine"] < 1 - 1e-7 for row in rows[2:])
        assert all(row["relative_error"] > 1e-4 for row in rows[2:])


def test_fidelity_changes_nothing_of_a_run_and_is_resumed(text, tmp_path, monkeypatch):
    options = RUN | {"carry": "uoro", "dropout_output": 0.2}  # uoro draws numbers of its own
    plain = train("lm", text, run=tmp_path / "plain", **options)
    whole = train("lm", text, run=tmp_path / "whole", fidelity=3, **options)
    for a, b in zip(
        plain.model.network.parameters(), whole.model.network.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    kill_at(6, monkeypatch, lambda: train("lm", text, run=tmp_path / "cut", fidelity=3, **options))
    train("lm", run=tmp_path / "cut", resume=True, quiet=True, reports=[])
    assert fidelity_of(tmp_path / "cut") == fidelity_of(tmp_path / "whole")


def test_fidelity_refuses_what_it_cannot_compare(text, tmp_path):
    with pytest.raises(InputError, match=r"dropout_input=0\.2 draws other masks"):
        train("lm", text, run=tmp_path / "a", fidelity=2, precision="32",
              **RUN | {"dropout_input": 0.2, "weight_dropout": 0.0})  # fmt: skip
    with pytest.raises(InputError, match=r"with fidelity.*must be 32"):
        train("lm", text, run=tmp_path / "c", fidelity=2, precision="bf16", **RUN)
    assert not (tmp_path / "c").exists()
    with pytest.raises(InputError, match="the task 'toy' cannot tell"):
        train(Toy(), run=tmp_path / "b", fidelity=2, steps=2, quiet=True, precision="32")


def test_from_the_command_line(text, tmp_path, capsys):
    sizes = ["--hidden", "8", "--embedding", "4", "--streams", "2", "--window", "6"]
    run = str(tmp_path / "run")
    plan = ["train", "lm", str(text), "--run", run, "--steps", "4", *sizes]
    assert (
        main([*plan, "--carry", "exact", "--chrono", "20", "--recurrent-init", "orthogonal"]) == 0
    )
    said = capsys.readouterr().err
    assert "the influence of 2 streams takes" in said
    assert "memories of up to 20 steps" in said
    plan[4] = str(tmp_path / "other")
    assert main([*plan, "--learning", "rtrl"]) == 2
    said = capsys.readouterr().err
    assert "window=6 and carry=exact" in said
    assert len(said.splitlines()) == 1
