"""`elman inspect`: pictures and figures of a trained model, and errors in a line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import elman
from elman import diagnose
from elman.cli import main
from elman.cli.inspect_look import coloured
from elman.plots import inspect as pictures
from elman.plots import style
from elman.tasks import build, load, model_file

PNG = b"\x89PNG"
SENTENCE = "an apple and a pear"


def folder_of(path, text, **options):
    """A run folder with a random model of a text."""
    path.mkdir()
    source = path.parent / f"{path.name}.txt"
    source.write_text(text, encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task = build("lm", [source], {"hidden": 8, "embedding": 4, **options})
    model_file.write(
        path / "model.safetensors", task.name, task.metadata(), task.model.state_dict()
    )
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("runs") / "english", f"{SENTENCE}\n" * 40, layers=2)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "plain"
    return folder_of(path, f"{SENTENCE}\n" * 40, layers=1, cell="simple")


def inspect(capsys, *arguments):
    """The exit code, standard output and standard error of a call."""
    code = main(["inspect", *map(str, arguments)])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_gradients(run, other, tmp_path, capsys):
    code, out, err = inspect(
        capsys, run, "gradients", "--text", SENTENCE, "--beside", other,
        "--out", tmp_path / "new" / "seen", "--json",
    )  # fmt: skip
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert data == json.loads((tmp_path / "new" / "seen" / "gradients.json").read_text())
    assert data["tokens"] == ["\n", *SENTENCE]
    names = {"gradients.png", "horizon.png", "beside.png"}
    assert {p.name for p in (tmp_path / "new" / "seen").glob("*.png")} == names
    assert all(Path(p).read_bytes().startswith(PNG) for p in data["pictures"])
    assert list(data["beside"]) == ["plain"]
    assert [a["place"] for a in data["advice"]] == ["layer 1", "layer 2"]


def test_the_gradients_are_those_of_the_runs_own_loss(run, tmp_path, capsys):
    """∂L_t/∂(input of the top layer's bias): the norm of δ_{t,t} from autograd on one token."""
    _, out, _ = inspect(
        capsys, run, "gradients", "--text", "a", "--out", tmp_path, "--json", "--steps", "2"
    )
    found = json.loads(out)["places"][1]["matrix"]
    network = load(run).network.double()
    vocabulary = load(run).vocabulary
    layer = network.recurrent[1]
    logits = network(torch.tensor([[vocabulary.end]]))[0]
    loss = functional.cross_entropy(logits[0], torch.tensor(vocabulary.encode("a")))
    (expected,) = torch.autograd.grad(loss, layer.bias_ih_l0)
    assert math.isclose(found[0][0], float(expected.norm()), rel_tol=1e-4)


def test_states_and_the_coloured_text(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    arguments = (run, "states", "--text", SENTENCE, "--unit", 3, "--state", "c", "--layer", 1)
    code, out, _ = inspect(capsys, *arguments, "--out", tmp_path)
    assert code == 0
    assert "unit 3 of c, layer 1" in out
    assert out.count("\x1b[48;2;") == len(SENTENCE) + 1
    names = {"states-layer1.png", "states-layer2.png", "unit.png"}
    assert {p.name for p in tmp_path.glob("*.png")} == names
    data = json.loads((tmp_path / "states.json").read_text())
    model = load(run)
    ids = torch.tensor([0, *model.vocabulary.encode(SENTENCE)]).unsqueeze(1)
    layer = model.network.double().recurrent[0]
    _, _, (_, c) = layer(model.network.embedding(ids), return_states=True)
    assert torch.allclose(
        torch.tensor(data["unit"]["values"]).double(), c[:, 0, 3].detach(), rtol=1e-4
    )


def test_gates_and_spectrum(other, tmp_path, capsys):
    code, out, _ = inspect(capsys, other, "gates", "--text", SENTENCE, "--out", tmp_path)
    assert code == 0
    head, _, row, *_ = out.splitlines()
    assert head.split()[:4] == ["place", "gate", "function", "mean"]
    assert row.split()[:4] == ["layer", "1", "h", "tanh"]
    arguments = ("spectrum", "--text", SENTENCE, "--out", tmp_path, "--json")
    code, out, _ = inspect(capsys, other, *arguments)
    (place,) = json.loads(out)["places"]
    assert code == 0
    assert len(place["lyapunov"]) == 8
    assert all(len(row) == 8 for row in place["singular"])
    assert place["lyapunov"] == sorted(place["lyapunov"], reverse=True)


def test_where_it_goes_and_what_it_reads(other, capsys, tmp_path):
    """Without --out into the run; from a file the beginning, which a note says."""
    text = tmp_path / "text.txt"
    text.write_bytes("\ufeffan apple\r\nand a pear\r\n".encode())
    code, out, err = inspect(capsys, other, "states", "--file", text, "--steps", 10, "--json")
    data = json.loads(out)
    assert code == 0
    assert data["tokens"] == ["\n", *"an apple\na"]
    assert err == "note: only the first 10 tokens are read (--steps)\n"
    assert (other / "inspect" / "states.json").exists()


def test_chinese(tmp_path, capsys):
    """Ideographs are in the figures; where no font has them the pictures show code points."""
    text = "春眠不覺曉，處處聞啼鳥。\n" * 40
    run = folder_of(tmp_path / "唐詩", text, cell="simple", layers=1)
    code, out, err = inspect(capsys, run, "states", "--text", "春眠不覺曉")
    assert code == 0
    data = json.loads((run / "inspect" / "states.json").read_text(encoding="utf-8"))
    assert data["tokens"] == ["\n", *"春眠不覺曉"]
    assert "春" in out
    missing = style.lacking("春眠不覺曉")
    assert ("no font of this machine has" in err) == bool(missing)
    if missing:
        assert style.written("春") == "U+6625"


def test_without_a_text_the_validation_part_is_read(tmp_path, capsys):
    source = tmp_path / "novel.txt"
    source.write_text("a pear\n" * 60 + "an apple\n" * 60)
    run = tmp_path / "run"
    elman.train(
        "lm", source, run=run, steps=2, hidden=8, layers=1, embedding=4, device="cpu", quiet=True,
        streams=2, window=8, valid_fraction=0.4,
    )  # fmt: skip
    code, out, err = inspect(capsys, run, "gradients", "--json", "--steps", 20)
    data = json.loads(out)
    assert code == 0
    assert "no text was given; the run's validation part is read" in err
    assert "".join(data["tokens"]).startswith("\nan apple\nan apple")
    source.unlink()
    code, _, err = inspect(capsys, run, "gradients")
    assert code == 2
    assert "there is no such file" in err
    assert "give --text or --file" in err


ERRORS = [
    (["gradient"], "there is no 'gradient'; there are gradients, states"),
    (["gradients", "--text", ""], "--text is empty; give a text of one token"),
    (["gradients", "--text", "xyz"], "--text"),
    (["gradients", "--text", "a", "--file", "b"], "give --text or --file, not both"),
    (["gradients", "--text", "a", "--unknown", "drop"], "unknown is 'drop'"),
    (["gradients", "--text", "xyz", "--unknown", "skip"], "no token of --text was seen"),
    (["gradients"], "there is no text; give --text or --file"),
    (["gradients", "--text", "a", "--unit", "1"], "--unit goes with states, not with gradients"),
    (["gates", "--text", "a", "--beside", "b"], "--beside goes with gradients, not with gates"),
    (["states", "--text", "an", "--unit", "8"], "there is no unit 8 in h; there are 0 to 7"),
    (["states", "--text", "an", "--state", "s"], "has no state 's'; there are h, c"),
    (["states", "--text", "an", "--layer", "3"], "--layer is 3; this model has layers 1 to 2"),
    (["states", "--text", "an", "--steps", "1"], "--steps is 1; expected a whole number >= 2"),
    (["states", "--file", "none.txt"], "none.txt: there is no such file"),
]


@pytest.mark.parametrize(("arguments", "words"), ERRORS, ids=lambda v: str(v)[:40])
def test_errors(run, capsys, arguments, words):
    code, out, err = inspect(capsys, run, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_errors_of_the_run(run, tmp_path, capsys):
    (tmp_path / "file").write_text("a")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("empty", "no model.safetensors in this folder"),
        ("none", "no such file"),
        ("file", "not a model file"),
    ):
        code, _, err = inspect(capsys, tmp_path / name, "states", "--text", "a", "--out", tmp_path)
        assert code == 2
        assert words in err or name in err
    model = run / "model.safetensors"
    code, _, err = inspect(capsys, model, "states", "--text", "an")
    assert code == 2
    assert "is a model file, not a run folder; name a folder (--out)" in err
    code, _, err = inspect(capsys, run, "states", "--text", "an", "--out", tmp_path / "file")
    assert code == 2
    assert "is a file; name a folder" in err


def test_colours_and_plain_text(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert coloured(["a", " "], [0.5, -1.0])[2:] == ["a      +0.500", "␣      -1.000"]
    monkeypatch.delenv("NO_COLOR")
    red, blue = "\x1b[48;2;255;0;0m", "\x1b[48;2;0;0;255m"
    assert coloured(["a", "\n", "b"], [1.0, 0.0, -1.0]) == [
        f"{red}\x1b[30ma\x1b[0m\x1b[48;2;255;255;255m\x1b[30m⏎\x1b[0m",
        f"{blue}\x1b[30mb\x1b[0m",
    ]


def test_pictures_of_any_model(tmp_path):
    """Layers of every kind are drawn: both directions, no way back, nothing that arrives."""
    x = torch.randn(12, 1, 3, generator=torch.Generator().manual_seed(0))
    both = elman.RNN(3, 4, num_layers=2, bidirectional=True)
    for number, layer in enumerate((both, elman.Recurrent("tdnn", 3, 4))):
        flow = diagnose.gradient_flow(layer, x)
        pictures.flow(flow, tmp_path / f"flow{number}.png", tokens=list("abcdefghijkl"))
        pictures.decay({p.name: p.decay() for p in flow.places}, tmp_path / f"decay{number}.png")
        spectra, exponents = diagnose.spectrum(layer, x, most=3), diagnose.lyapunov(layer, x)
        pictures.spectrum(spectra, exponents, tmp_path / f"spectrum{number}.png")
    matrix = diagnose.activity(elman.Recurrent("mlstm", 3, 3), x)[0]
    pictures.states(matrix, list("a$c春\n ghijkl"), tmp_path / "states.png")
    nothing = diagnose.gradient_flow(layer, x, loss=lambda o, _: 0.0 * o.sum())
    pictures.flow(nothing, tmp_path / "flow9.png")
    pictures.decay({"none": nothing[0].decay()}, tmp_path / "decay9.png")
    assert all(p.read_bytes().startswith(PNG) for p in tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("*.png"))) == 9
