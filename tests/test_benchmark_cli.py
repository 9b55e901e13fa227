"""`elman benchmark`: what it prints and writes, how it refuses, and the figures of `make bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from matplotlib import image

from elman.cli import main
from elman.layers.base import RecurrentLayer

FAST = ["--shape", "3,2,4,5", "--rounds", "2", "-q"]
OWN_CELL = """
import torch
import elman

@elman.cell
def leaky(p, x, h, *, alpha=0.5):
    '''Leaky units. Source: a test.'''
    return (1 - alpha) * h + alpha * torch.tanh(p.W @ x + p.U @ h + p.b)
"""
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Call the command in a folder of its own; the exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run_it(*arguments):
        capsys.readouterr()
        code = main(["benchmark", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


def test_it_prints_tables_and_writes_json_and_a_picture(call, tmp_path):
    arguments = [*FAST, "--shape", "4,1,4,5", "--against", "torch,products", "--out", "there"]
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    for words in (
        "lstm, forward, on backend ",
        "lstm, forward + backward",
        "3, 2, 4, 5",
        "torch.nn",
    ):
        assert words in out
    for words in (
        "elman ÷ it",
        "mean, worst",
        "Agrees with the reference",
        "torch 2.",
        "Python 3.",
    ):
        assert words in out
    data = json.loads((tmp_path / "there" / "benchmark.json").read_text())
    assert set(data) == {"schema", "machine", "settings", "rows", "summary", "notes"}
    assert data["schema"] == 1
    assert data["machine"]["libraries"]["torch"] == torch.__version__
    assert data["machine"]["threads"] == torch.get_num_threads()
    assert len(data["rows"]) == 4
    for row in data["rows"]:
        assert set(row["times_ms"]) == {"elman", "torch", "products"}
        assert set(row["ratios"]) == {"torch", "products"}
        assert row["share_of_real_steps"] == 1.0
        for time in row["times_ms"].values():
            assert 0 < time["low"] <= time["median"] <= time["high"]
            assert time["rounds"] == 2
    assert [r["shape"]["steps"] for r in data["rows"]] == [3, 3, 4, 4]
    mean = next(s for s in data["summary"] if s["peer"] == "torch")
    ratios = [r["ratios"]["torch"]["median"] for r in data["rows"] if r["pass"] == "forward"]
    assert mean["geometric_mean"] == pytest.approx((ratios[0] * ratios[1]) ** 0.5)
    assert mean["least"] == min(ratios)
    picture = image.imread(tmp_path / "there" / "benchmark.png")
    assert picture.shape[0] > 300
    assert picture[..., :3].std() > 0.05


def test_many_cells_at_one_shape_share_a_picture(call, tmp_path):
    cells = [part for name in ("mgu", "gru", "lru", "cfc", "simple") for part in ("--cell", name)]
    code, _, _ = call(*FAST, *cells, "--against", "products", "--forward-only", "--out", ".")
    assert code == 0
    tall, wide = image.imread(tmp_path / "benchmark.png").shape[:2]
    assert tall < 700 < wide  # five panels would be 1,200


def test_without_a_folder_it_makes_the_next_one(call, tmp_path):
    for number in ("001", "002"):
        assert call(*FAST, "--against", "products", "--forward-only")[0] == 0
        assert (tmp_path / "runs" / f"benchmark-lstm-{number}" / "benchmark.png").is_file()


def test_a_cell_of_ones_own_and_json(call, tmp_path):
    (tmp_path / "mine.py").write_text(OWN_CELL)
    code, out, _ = call(*FAST, "--cell", "mine.py:leaky", "--hyper", "alpha=0.2", "--json")
    assert code == 0
    data = json.loads(out)
    assert {row["cell"] for row in data["rows"]} == {"leaky"}
    assert set(data["rows"][0]["ratios"]) == {"products", "reference"}
    # Where torchrecurrent is not installed the note says that instead.
    assert [note.partition(":")[0] for note in data["notes"]] == ["torchrecurrent"]


def test_the_products_of_onednn(call):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN")
    code, out, _ = call(*FAST, "--against", "onednn", "--json")
    assert code == 0
    assert json.loads(out)["rows"][1]["ratios"]["onednn"]["median"] > 0
    code, out, _ = call(*FAST, "--against", "onednn", "--dtype", "float64")
    assert code == 0
    assert "onednn: torch has no oneDNN product for this build or number type." in out


def test_lengths_threads_and_progress(call):
    threads = torch.get_num_threads()
    code, out, err = call(*FAST[:-1], "--lengths", "--threads", "1", "--json", "--seed", "3")
    assert code == 0
    assert torch.get_num_threads() == threads
    data = json.loads(out)
    assert data["settings"]["threads"] == 1
    assert set(data["rows"][0]["ratios"]) == {"whole", "torch", "packed", "products"}
    assert 0 < data["rows"][0]["share_of_real_steps"] <= 1
    assert err.startswith("[1/2] lstm (3, 2, 4, 5) forward: elman ")
    assert err.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "torhc"], "--against torhc: there is no such peer. Did you mean 'torch'?"),
        (["--against", ","], "--against is empty; name some of torch, packed"),
        (["--shape", "1,2,3"], "--shape 1,2,3: expected four whole numbers >= 1"),
        (["--shape", "0,1,1,1"], "such as 100,32,64,128"),
        (["--dtype", "float23"], "--dtype is 'float23'; expected float32 or float64. Did you mean"),
        (["--cell", "lsmt"], "no cell 'lsmt'. Did you mean 'lstm'?"),
        (["--cell", "gru", "--cell", "gru"], "two of --cell have one name"),
        (["--backend", "gpuu"], "backend"),
        (["--stream", "--compile"], "give one"),
        (["--stream", "--lengths"], "leave it out here"),
        (["--seconds", "inf"], "--seconds is inf; expected a number of seconds"),
        (["--rounds", "0"], "--rounds"),
        (["--roudns", "3"], "no option '--roudns'. Did you mean '--rounds'?"),
        (["--out", "file/below"], "the folder cannot be made"),
    ],
)
def test_bad_input_is_one_line(call, tmp_path, arguments, words):
    (tmp_path / "file").write_text("")
    code, out, err = call("--shape", "2,1,2,2", "--rounds", "1", *arguments)
    assert code == 2
    assert err.startswith("elman: ")
    assert err.count("\n") == 1
    assert words in err
    assert "elman ms" not in out


def test_a_wrong_kernel_is_refused_with_exit_code_1(call, tmp_path, monkeypatch):
    right = RecurrentLayer._forward

    def wrong(self, *arguments):
        out, *rest = right(self, *arguments)
        return (out + 0.01 * (self.backend != "reference"), *rest)

    monkeypatch.setattr(RecurrentLayer, "_forward", wrong)
    code, out, err = call(*FAST, "--against", "products")
    assert code == 1
    assert "the output on backend 'auto' differs from the reference by" in err
    assert "No time is reported" in err
    assert "÷" not in out
    assert not (tmp_path / "runs").exists()


def test_a_missing_library_is_said_with_the_way_to_it(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setitem(sys.modules, "torchrecurrent", None)
    code, out, _ = call(*FAST, "--cell", "mgu", "--against", "jax,torchrecurrent,products")
    assert code == 0
    for library in ("jax", "torchrecurrent"):
        assert (
            f'{library}: {library} is not installed; pip install "elman[bench]" brings it.' in out
        )


def test_streams(call):
    code, out, _ = call("--stream", "--rounds", "2", "--cell", "gru", "--shape", "1,1,3,4")
    assert code == 0
    assert "gru, one step of 1 row, input 3, hidden 4: elman " in out
    code, out, _ = call("--stream", "--rounds", "2", "--json", "--shape", "1,2,3,4")
    assert code == 0
    assert json.loads(out)["streams"][0]["ratio"]["median"] > 0


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not beside tests/")
def test_the_figures_stand_beside_what_was_asked(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import figures

    arguments = ["--only", "simple", "lengths", "--seconds", "0", "--shape", "3,2,4,5"]
    assert figures.main([*arguments, "--out", str(tmp_path / "results")]) == 0
    out = capsys.readouterr().out
    assert ">= 3, worst 1.2" in out
    assert "<= 0.65" in out
    found = json.loads((tmp_path / "results" / "figures.json").read_text())["figures"]
    assert len(found) == 5
    assert set(found[0]) == {"what", "asked", "seen", "reached"}
    assert (tmp_path / "results" / "simple.png").stat().st_size > 10_000
    assert (tmp_path / "results" / ".gitignore").read_text() == "*\n"


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not beside tests/")
def test_a_figure_is_reached_only_with_mean_and_worst(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import figures

    seen = {"torch": (2.0, 1.1)}
    monkeypatch.setattr(figures, "summary", lambda rows: seen)
    monkeypatch.setattr(figures, "busy", lambda rows: "")
    assert figures.at_least("x", "torch", [], 1.6, 1.05).reached
    assert not figures.at_least("x", "torch", [], 1.6, 1.15).reached
    assert not figures.at_least("x", "torch", [], 2.1, 1.05).reached
    assert figures.at_least("x", "torch", [], 1.6, 1.15).seen == "2.00, worst 1.10"
