"""`elman check`: each mutant is caught by its law, no cell of ours is; what the report says."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from cases import CASES
from mutants import FILES, MUTANTS, REFUSED

import elman
from elman.cli import main
from elman.diagnose import LAWS, as_text, at_start, check

SMALL = {"input_size": 3, "hidden_size": 4}


@pytest.fixture
def call(capsys, monkeypatch):
    """Call the command: the exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "100")  # what a report is laid out for

    def run_it(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run_it


@pytest.fixture
def file(tmp_path):
    """A file of the user's, of which the cell is called mine; as the command names it."""

    def write(text):
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        return f"{tmp_path / 'mine.py'}:mine"

    return write


# --- what is caught ---


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_no_false_alarm(case):
    report = check(case.cell, **SMALL | {"hidden_size": 8})
    assert report.holds, as_text(report)
    assert len(report.verdicts) == len(LAWS)
    assert all(v.holds for v in report.verdicts)


@pytest.mark.parametrize("mutant", FILES, ids=lambda mutant: mutant.what)
def test_mutant_in_a_file_is_caught(mutant, file, call):
    code, out, err = call("check", file(mutant.file), "--input", 3, "--hidden", 4)
    if mutant.law == REFUSED:
        assert (code, out) == (2, "")
        assert mutant.says in err
        assert "mine.py:" in err
        return
    assert code == 1
    assert f"✗ {mutant.law}" in out
    assert mutant.says in out


@pytest.mark.parametrize(
    "mutant", [m for m in MUTANTS if m not in FILES], ids=lambda mutant: mutant.what
)
def test_altered_equation_or_machinery_is_caught(mutant, monkeypatch):
    cell = mutant.make()
    mutant.patch(monkeypatch)
    report = check(cell, **SMALL)
    assert mutant.law in [v.law.name for v in report.broken], as_text(report)


def test_there_are_twenty_mutants_and_one_for_each_law():
    assert len(MUTANTS) >= 20
    caught = Counter(m.law for m in MUTANTS)
    assert set(caught) == {REFUSED, *(law.name for law in LAWS)}


# --- the report ---

MINE = """import elman, torch
@elman.cell
def mine(p, x, h, c):
    '''A cell of mine.'''
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    c = f * c + (1 - f) * torch.tanh(p.W @ x + p.U @ h)
    return torch.tanh(c), c
"""
BROKEN = MINE.replace("f * c +", "(0.9 if isinstance(x, torch.Tensor) else 1.0) * f * c +")


def test_report_of_a_good_cell(file, call):
    code, out, err = call("check", file(MINE), "--input", 8, "--hidden", 16)
    assert (code, err) == (0, "")
    assert out.startswith("mine: A cell of mine.\n\n    fₜ = σ(W_f xₜ + U_f hₜ₋₁ + b_f)\n")
    assert f"All {len(LAWS)} laws hold" in out
    assert "✗" not in out
    assert "784 parameters" in out
    assert "128 bytes carried on" in out


def test_report_of_a_broken_cell_shows_the_smallest_case(file, call):
    code, out, _ = call("check", file(BROKEN), "--input", 8, "--hidden", 16)
    assert code == 1
    assert "smallest case: input 1, hidden 1, 1 step, 1 row\n    p.W_f = " in out
    assert "the new c at step 0, row 0, entry [0]: " in out
    assert "by the body" in out
    assert "the same case as above" in out
    assert f"2 of {len(LAWS)} laws broken: traced = called, gradient of the body" in out
    assert max(map(len, out.splitlines())) <= 100


def test_report_as_json(file, call):
    code, out, err = call("check", file(BROKEN), "--json", "--input", 8, "--hidden", 16)
    data = json.loads(out)
    assert (code, err) == (1, "")
    assert data["holds"] is False
    assert data["broken"] == ["traced = called", "gradient of the body"]
    verdict = next(law for law in data["laws"] if law["law"] == "traced = called")
    assert verdict["case"]["sizes"] == {"input": 1, "hidden": 1}
    assert verdict["difference"]["the body"] != verdict["difference"]["its trace"]
    assert data["cost"]["parameters"] == 784
    assert data["start"]["gradient"]["word"] == "vanishing"


def test_seed_and_hyper_parameters(call):
    ran = [json.loads(call("check", "irnn", "--json", "--seed", seed)[1]) for seed in (0, 0, 1)]
    for data in ran:
        del data["seconds"]
    assert ran[0] == ran[1]
    assert ran[0]["start"] != ran[2]["start"]
    code, out, _ = call("check", "irnn", "--hyper", "scale=0.5")
    assert code == 0
    assert "0.5" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lsmt"], "Did you mean 'lstm'"),
        (["nowhere.py:mine"], "no such file"),
        (["lstm", "--hidden", "0"], "--hidden is 0"),
        (["lstm", "--seed", "-1"], "--seed is -1"),
        (["slstm", "--hidden", "6"], "multiple of 4"),
        (["lstm", "--hyper", "depth=3"], "no hyper-parameter"),
        ([], "missing argument"),
    ],
)
def test_what_cannot_be_loaded(arguments, says, call):
    code, out, err = call("check", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_cell_of_a_file_has_no_body_to_check():
    cell = elman.Cell.from_json(elman.cells.get("gru").to_json())
    report = check(cell, **SMALL)
    assert report.holds
    assert [v.law.name for v in report.verdicts if v.holds is None] == [
        law.name for law in LAWS if law.of_body
    ]
    assert "without its Python" in "\n".join(as_text(report))


def test_a_cell_of_roots_is_tried_where_it_has_values():
    @elman.cell
    def rooted(p, x, h):
        return torch.sqrt(h) + torch.log(torch.abs(p.W @ x) + 0.5) ** 2

    report = check(rooted, **SMALL)
    assert report.holds, as_text(report)


# --- gains ---


def gain(body, **options):
    graph = elman.cell(**options)(body).graph
    return at_start(graph, {"input": 3, "hidden": 4})


@pytest.mark.parametrize(
    ("factor", "word"), [(0.5, "vanishing"), (1.0, "steady"), (2.0, "exploding")]
)
def test_gain_of_a_scaled_state_is_its_factor(factor, word):
    def body(p, x, h):
        return h * factor + 0 * (p.W @ x)

    found = gain(body, initial={"h": 1.0})
    assert (found.state.word, found.gradient.word) == (word, word)
    assert found.state.rate == pytest.approx(factor)
    assert found.gradient.rate == pytest.approx(factor)
    assert found.silent == ("W",)


def test_gain_of_what_overflows_and_of_what_is_not_carried():
    def grows(p, x, h):
        return torch.exp(h) + p.b

    def forgets(p, x, h):
        return torch.tanh(p.W @ x)

    assert gain(grows, init={"b": 1.0}).state.word == "overflowing"
    assert gain(forgets).gradient.word == "none"
