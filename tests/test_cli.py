"""The command line: every verb, every way of going wrong, in one line."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import elman
from elman.cli import main
from elman.cli.train_lm import command as lm
from elman.tasks.lm import LMOptions
from elman.training import TrainingOptions

TEXT = "the apple and pear salad\nan apple a day\na pear and a plum\n" * 60
OWN_CELL = """
import torch
import elman

@elman.cell
def leaky(p, x, h, *, alpha=0.5):
    '''Leaky units. Source: a test.'''
    return (1 - alpha) * h + alpha * torch.tanh(p.W @ x + p.U @ h + p.b)

def plain(p, x, h):
    return h
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "fruit.txt").write_text(TEXT)
    (folder / "mine.py").write_text(OWN_CELL)
    return folder


@pytest.fixture(scope="module")
def run(place):
    sizes = ["--hidden", "8", "--embedding", "4", "--window", "16", "--streams", "4"]
    arguments = ["train", "lm", str(place / "fruit.txt"), "--steps", "40", *sizes, "-q"]
    assert main([*arguments, "--run", str(place / "run")]) == 0
    return str(place / "run")


@pytest.fixture
def call(capsys, monkeypatch):
    """Call the command; the exit code, standard output and standard error."""

    def run_it(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


# -- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "there is no command 'trian'. Did you mean 'train'?"),
        (["train", "ln", "a.txt"], "train: there is no command 'ln'. Did you mean 'lm'?"),
        (["xyzzy"], "There are: "),
        (["train", "lm", "--hiden", "3"], "no option '--hiden'. Did you mean '--hidden'?"),
        (["--versio"], "Did you mean '--version'?"),
        (["train", "lm", "a.txt", "--hidden", "many"], "'--hidden'"),
        (["train", "lm", "no/such.txt"], "no/such.txt: there is no such file."),
        (["train", "lm", "-", "also.txt"], "standard input (-) does not go with other files"),
        (["train", "lm", "--resume"], "name the run folder to resume"),
        (["train", "lm", "a.txt", "--cell", "lsmt"], "no cell 'lsmt'. Did you mean 'lstm'?"),
        (["train", "lm", "a.txt", "--lr", "-1"], "lr should be greater than 0"),
        (["train", "lm", "a.txt", "--optimizer", "adan"], "optimizer"),
        (["train", "lm", "a.txt", "--hyper", "alpha"], "--hyper alpha: expected NAME=VALUE"),
        (["generate"], "generate: missing argument 'run'"),
        (["generate", "no-such-run"], "no-such-run"),
        (["score", "no-such-run", "a"], "no-such-run"),
        (["evaluate", "no-such-run", "a.txt"], "no-such-run"),
        (["cells", "lsmt"], "Did you mean 'lstm'?"),
        (["cells", "lstm:gru"], "expected a cell's name, or FILE.py:NAME"),
        (["cells", "no/such.py:mine"], "no/such.py: there is no such file."),
        (["cells", "lstm", "--hyper", "q=1"], "no hyper-parameter 'q'"),
        (["cells", "--latex"], "name the cell"),
        (["cells", "--hidden", "0"], "--hidden is 0; expected a whole number >= 1"),
        (["demo", "--minutes", "0"], "minutes should be greater than 0"),
        (["demo", "--seed", "-1"], "seed should be"),
        (["cells", "tdnn", "--hyper", "K=-1"], "K is -1; expected a whole number >= 0"),
        (["cells", "narx", "--hyper", "Ky=-2"], "Ky is -2; expected a whole number >= 0"),
        (["cells", "tdnn", "--hyper", "dilation=0"], "dilation is 0; expected a whole number >= 1"),
        (["train", "lm", "a.txt", "--cell", "tdnn", "--hyper", "K=-1"], "K is -1; expected"),
        (["demo", "--lang", "enn"], "expected en or zh. Did you mean 'en'?"),
        (["demo", "addition", "--base", "1"], "a base from 2 to 16, got 1"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(call, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(TEXT)
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("elman: ")
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "runs").exists() or arguments[0] == "demo"


def test_without_a_command_it_shows_the_help(call):
    for arguments in ([], ["--help"], ["train"], ["train", "lm", "--help"], ["demo", "-h"]):
        code, out, err = call(*arguments)
        assert (code, err) == (0, "")
        assert "Usage" in out
        assert "elman train lm" in out or "elman demo" in out


def test_version(call):
    assert call("--version") == (0, f"elman {elman.__version__}\n", "")


def test_what_was_not_foreseen_is_one_line_and_exit_1(call, monkeypatch):
    def broken(name):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("elman.cells.get", broken)
    monkeypatch.delenv("ELMAN_DEBUG", raising=False)
    code, out, err = call("cells", "lstm")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("elman: ZeroDivisionError: division by zero")
    monkeypatch.setenv("ELMAN_DEBUG", "1")
    code, _, err = call("cells", "lstm")
    assert code == 1
    assert "Traceback" in err


def test_an_interrupt_is_exit_130(call, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("elman.cells.get", interrupted)
    code, out, err = call("cells", "lstm")
    assert (code, out, err.count("\n")) == (130, "", 1)


ALL_CELLS = [n for of in ("sequences", "trees", "graphs") for n in elman.cells.names(of)]


# -- cells ---------------------------------------------------------------------------------------


def test_cells_lists_every_cell(call):
    code, out, _ = call("cells")
    assert code == 0
    for name in ALL_CELLS:
        assert any(line.startswith(f"{name} ") for line in out.splitlines())


def test_the_list_of_cells_says_what_is_not_in_its_columns(call):
    out = call("cells")[1]
    assert "jordan, narx, lstm_projected, gated_graph_typed, message_passing take sizes=" in out
    assert "Cho et al. 2014" in next(li for li in out.splitlines() if li.startswith("gru_cho "))


def test_cells_as_json(call):
    facts = json.loads(call("cells", "--json", "--input", 3, "--hidden", 5)[1])
    assert [fact["name"] for fact in facts] == ALL_CELLS
    lstm = next(fact for fact in facts if fact["name"] == "lstm")
    assert lstm["formula"] == "4hx + 4h² + 4h"
    assert lstm["parameters"] == 4 * 5 * 3 + 4 * 25 + 4 * 5
    assert all(fact["source"] for fact in facts)


@pytest.mark.parametrize("name", ALL_CELLS)
def test_a_cell_in_full(call, name):
    code, out, _ = call("cells", name)
    cell = elman.cells.get(name)
    assert code == 0
    for line in cell.graph.equation():
        assert line in out
    for parameter in cell.graph.parameters:
        assert f"\n{parameter.name} " in out
    assert "Source:" in out
    fact = json.loads(call("cells", name, "--json")[1])
    assert elman.Cell.from_json(fact["cell"]) == cell
    assert call("cells", name, "--latex")[1].strip() == cell.graph.latex().strip()


def test_a_cell_of_a_file(call, place):
    code, out, _ = call("cells", f"{place}/mine.py:leaky", "--hyper", "alpha=0.25")
    assert code == 0
    assert "0.25 ⊙ tanh" in out
    assert call("cells", f"{place}/mine.py")[1].startswith("leaky: Leaky units.")


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        (OWN_CELL, "leeky", "Did you mean 'leaky'?"),
        (OWN_CELL, "plain", "plain is a function, not a cell: put @elman.cell above it"),
        ("x = 1\n", "", "it has no cell at all"),
        ("import elman\n1 / 0\n", "a", "mine.py:2: ZeroDivisionError"),
        ("import sys\nsys.exit('no')\n", "a", "mine.py:2: SystemExit: no"),
        ("class Own(BaseException): pass\nraise Own\n", "a", "mine.py:2: Own"),
        ("def broken(:\n", "a", "mine.py:1: SyntaxError"),
        ("import elman\n@elman.cell\ndef a(p, x, h):\n    return h.cumsum(0)\n", "a", "mine.py:4"),
    ],
)
def test_a_file_that_has_no_such_cell(call, tmp_path, source, name, words):
    (tmp_path / "mine.py").write_text(source)
    code, out, err = call("cells", f"{tmp_path}/mine.py" + (f":{name}" if name else ""))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


# -- the main job --------------------------------------------------------------------------------


def test_the_options_of_a_task_are_those_of_the_command(call):
    import inspect

    parameters = inspect.signature(lm).parameters
    for options in (LMOptions, TrainingOptions):
        for name in options.model_fields:
            option = parameters[name].annotation.__metadata__[0]
            assert option.help, name
    wanted = {"run", "cell", "hidden", "layers", "minutes", "steps", "epochs", "seed"}
    assert wanted | {"resume", "init_from", "quiet"} <= set(parameters)
    assert call("train", "lm", "--help")[0] == 0


def test_training_leaves_a_run(run, place):
    assert (place / "run" / "model.safetensors").is_file()
    for picture in ("training.png", "gradients.png"):
        assert (place / "run" / "plots" / picture).read_bytes().startswith(b"\x89PNG")


def test_training_says_where_the_run_is(call, place):
    arguments = ("train", "lm", place / "fruit.txt", "--steps", 2, "--hidden", 4)
    code, out, err = call(*arguments, "--run", place / "loud")
    assert (code, out.strip()) == (0, str(place / "loud"))
    assert "pictures: " in err
    assert f"elman generate {place / 'loud'}" in err
    code, out, err = call(*arguments, "--run", place / "json", "--json", "-q")
    assert (code, err) == (0, "")
    assert json.loads(out)["metrics"]["nats_per_char"] > 0


def test_an_option_reaches_the_run(call, place):
    given = ["--cell", f"{place}/mine.py:leaky", "--hyper", "alpha=0.25", "--no-residual"]
    given += ["--optimizer", "sgd", "--lr", "0.25", "--l2", "1e-4", "--level", "word"]
    arguments = ["train", "lm", place / "fruit.txt", "--steps", 2, "--hidden", 4, "--window", 4]
    code, _, err = call(*arguments, "--streams", 2, *given, "--run", place / "own", "-q")
    assert (code, err) == (0, "")
    kept = (place / "own" / "config.yaml").read_text()
    for words in ("leaky", "0.25", "sgd", "0.0001", "word"):
        assert words in kept
    os.rename(place / "mine.py", place / "gone.py")
    try:
        assert call("generate", place / "own", "--length", 3)[0] == 0
    finally:
        os.rename(place / "gone.py", place / "mine.py")


def test_a_run_is_not_written_over_but_resumed(call, run, place):
    before = (place / "run" / "metrics.jsonl").read_bytes()
    code, _, err = call("train", "lm", place / "fruit.txt", "--run", run, "--steps", 3)
    assert code == 2
    assert "already holds a run" in err
    assert call("train", "lm", "--run", run, "--resume", "-q") == (0, f"{run}\n", "")
    assert (place / "run" / "metrics.jsonl").read_bytes() == before


def test_generate(call, run):
    code, out, err = call("generate", run, "--prompt", "an ", "--length", 12, "--seed", 3)
    assert (code, err) == (0, "")
    data = json.loads(call("generate", run, "-p", "an ", "-n", 12, "-s", 3, "-c", 2, "--json")[1])
    assert len(data["texts"]) == 2
    assert data["texts"][0].rstrip("\n") == out.rstrip("\n")
    piped = json.loads(
        call("generate", run, "-p", "-", "-n", 12, "-s", 3, "--json", stdin="an ")[1]
    )
    assert piped["texts"][0] == data["texts"][0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "Ω"], "'Ω' (U+03A9), unseen in training"),
        (["--temperature", "-1"], "temperature"),
        (["--count", "0"], "--count is 0"),
        (["--length", "-1"], "length"),
        (["--top-k", "0"], "top_k"),
        (["--prompt", "a\udcff"], "--prompt: not UTF-8 at character 1"),
    ],
)
def test_generate_refuses(call, run, options, words):
    code, out, err = call("generate", run, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_score(call, run):
    code, out, err = call("score", run, "an apple", "lpp naeea")
    assert (code, err) == (0, "")
    assert "'an apple' is " in out
    assert "times as likely as 'lpp naeea'" in out
    assert "⏎" in out
    data = json.loads(call("score", run, "--json", stdin="an apple\nlpp naeea\n")[1])
    first, second = data["sentences"]
    assert first["log_prob"] == pytest.approx(sum(first["per_token"]))
    assert data["order"] == [0, 1]
    assert data["log_factors"][1] == pytest.approx(first["log_prob"] - second["log_prob"])
    assert call("score", run, "-", stdin="an apple\n")[1].startswith("an apple\n")
    begun = json.loads(call("score", run, "an apple", "--unfinished", "--json")[1])
    assert begun["sentences"][0]["tokens"] == list("an apple")


def test_score_without_a_sentence(call, run):
    code, _, err = call("score", run, stdin="")
    assert code == 2
    assert "standard input: is empty" in err


def test_evaluate(call, run, place):
    keys = {"nats_per_token", "bits_per_token", "nats_per_char", "bits_per_char", "perplexity"}
    data = json.loads(call("evaluate", run, place / "fruit.txt", "--json")[1])
    assert keys | {"tokens"} <= set(data)
    piped = json.loads(call("evaluate", run, "--json", stdin=TEXT)[1])
    assert piped == data
    code, out, _ = call("evaluate", run, place / "fruit.txt")
    assert code == 0
    assert f"{data['nats_per_char']:.4f} nats a character" in out


@pytest.fixture(scope="module")
def rare(place):
    """A run over characters whose vocabulary has an <unk>: its training file has rare ones."""
    (place / "rare.txt").write_text(TEXT + "an Ω\n" + TEXT, encoding="utf-8")
    sizes = ["--hidden", "8", "--embedding", "4", "--window", "16", "--streams", "4"]
    arguments = ["train", "lm", str(place / "rare.txt"), "--steps", "2", "--min-count", "2"]
    assert main([*arguments, *sizes, "-q", "--run", str(place / "rare")]) == 0
    return str(place / "rare")


def test_rare_characters_are_noted_where_the_model_has_unk(call, rare, place):
    code, out, err = call("evaluate", rare, place / "rare.txt")
    assert code == 0
    assert "not comparable" in out
    assert err.startswith("note: 1 of ")
    assert "counted as <unk>" in err
    data = json.loads(call("evaluate", rare, place / "rare.txt", "--json")[1])
    assert (data["unseen"], data["skipped"]) == (1, 0)
    assert "not comparable" in data["note"]
    for verb in (["score", rare, "Ω"], ["generate", rare, "-p", "Ω", "-n", 2]):
        code, out, err = call(*verb)
        assert (code, err.count("\n")) == (0, 1)
        assert "rare or unseen in training, taken as <unk>: 'Ω'" in err


def test_a_closed_vocabulary_refuses_in_every_verb(call, run, place):
    (place / "omega.txt").write_text("an Ω\n", encoding="utf-8")
    for verb in (["score", "Ω"], ["generate", "-p", "Ω"], ["evaluate", place / "omega.txt"]):
        code, out, err = call(verb[0], run, *verb[1:])
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "'Ω' (U+03A9), unseen in training" in err
    data = json.loads(call("evaluate", run, place / "omega.txt", "--unknown=skip", "--json")[1])
    assert (data["skipped"], data["tokens"]) == (1, 4)


def test_a_damaged_model_is_one_line(call, run, tmp_path):
    whole = (tmp_path.parent / "whole").with_suffix(".safetensors")
    data = Path(f"{run}/model.safetensors").read_bytes()
    whole.write_bytes(data[:-7])
    for verb in (["generate"], ["score", "a"], ["evaluate", "a.txt"]):
        code, out, err = call(verb[0], whole, *verb[1:])
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert whole.name in err


# -- the demo ------------------------------------------------------------------------------------


@pytest.fixture
def small_demo(monkeypatch, place):
    texts = {"en": (str(place / "fruit.txt"), "Fruit"), "zh": (str(place / "poem.txt"), "詩")}
    (place / "poem.txt").write_text("春江明月照水，月明水照江。\n" * 80, encoding="utf-8")
    monkeypatch.setattr("elman.cli.demo._TEXTS", texts)
    monkeypatch.setattr(
        "elman.cli.demo._PROMPTS", {"en": ("", "a", "the "), "zh": ("", "春", "月")}
    )
    pairs = {"en": ("a pear", "a apple"), "zh": ("明月照江，", "月明照江，")}
    monkeypatch.setattr("elman.cli.demo._PAIRS", pairs)
    monkeypatch.chdir(place)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_demo_shows_all_it_promises(call, small_demo, lang):
    code, out, err = call("demo", "--lang", lang, "--minutes", 0.03)
    assert code == 0
    assert "validation" in err
    assert out.count("── sample") == 3
    assert "times as likely as" in out or "equally likely" in out
    assert "Kneser-Ney" in out
    assert "plots" in out


def test_the_demo_as_json(call, small_demo):
    code, out, err = call("demo", "--minutes", 0.03, "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert len(data["samples"]) == 3
    assert len(data["pictures"]) == 2
    assert data["baseline"]["name"].startswith("Kneser-Ney")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_real_texts_hold_what_the_demo_asks_of_them(lang):
    from importlib import resources

    from elman.cli.demo import _PAIRS, _PROMPTS, _TEXTS

    text = (resources.files("elman") / "demo_data" / _TEXTS[lang][0]).read_text(encoding="utf-8")
    assert set("".join([*_PROMPTS[lang], *_PAIRS[lang]])) <= set(text)
    assert not any(pair in text for pair in _PAIRS[lang])


def test_the_addition_demo(call, monkeypatch, tmp_path):
    from elman.tasks.addition import learning

    monkeypatch.setattr(learning, "SUMS", 1_000)
    monkeypatch.setattr(learning, "LIMIT", 1_000)
    code, out, err = call("demo", "addition", "--out", tmp_path / "pictures")
    assert code == 0
    assert "update      0  error 3.45638663" in err
    assert "1,000 held-out sums" in out
    assert "64 bits each" in out
    assert (tmp_path / "pictures" / "addition-base2.png").is_file()
    data = json.loads(call("demo", "addition", "--out", tmp_path / "pictures", "--json")[1])
    assert data["errors"]["0"] == pytest.approx(3.45638663, abs=1e-8)
    code, _, err = call("demo", "addition", "--out", f"{tmp_path}/pictures/addition-base2.png/a")
    assert (code, err.count("\n")) == (2, 1)


# -- as a process --------------------------------------------------------------------------------


def _start(*arguments, **streams):
    command = [sys.executable, "-m", "elman", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **streams)


def test_a_reader_that_leaves_is_no_error(run):
    with _start("generate", run, "--length", "100000", stdin=subprocess.DEVNULL) as process:
        process.stdout.read(20)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_an_interrupt_during_the_imports_is_one_line(tmp_path):
    # A module that stands for a slow import: it waits where torch would be brought in.
    (tmp_path / "torch.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    with _start("cells", env=path, stdin=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
    assert err == b"elman: interrupted; nothing was left half-written.\n"


def test_ctrl_c_saves_and_says_how_to_go_on(place):
    folder = place / "stopped"
    sizes = ("--hidden", 8, "--window", 16, "--streams", 4)
    with _start("train", "lm", place / "fruit.txt", "--minutes", 5, *sizes, "--run", folder) as p:
        metrics = folder / "metrics.jsonl"
        until = time.monotonic() + 90
        while time.monotonic() < until and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.05)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=60)
        assert p.returncode == 130
    last = err.decode().strip().splitlines()[-1]
    assert last.startswith("elman: ")
    assert "--resume" in last
    assert (folder / "checkpoints" / "last.safetensors").is_file()
