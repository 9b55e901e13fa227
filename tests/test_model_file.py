"""The model file: whole or refused, never half-believed."""

import json
import struct

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import elman
from elman.errors import FileError, InputError
from elman.tasks import load, model_file
from elman.tasks.lm import build

METADATA = {"config": {"hidden": 3, "rate": 0.25, "names": ["我", "b"], "none": None}}
TENSORS = {
    "w": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    model_file.write(path, "lm", METADATA, TENSORS)
    return path


def same(result):
    task, metadata, tensors = result
    return (
        task == "lm"
        and metadata == METADATA
        and tensors.keys() == TENSORS.keys()
        and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    )


def test_round_trip(good):
    assert same(model_file.read(good))
    assert [path.name for path in good.parent.iterdir()] == ["m.safetensors"]
    # Any reader of safetensors can open it.
    assert torch.equal(safetensors.torch.load_file(good)["w"], TENSORS["w"])


def test_views_and_shared_memory_are_written_in_full(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    model_file.write(tmp_path / "m", "lm", {}, {"a": base.T, "b": base[1:], "c": base})
    _, _, tensors = model_file.read(tmp_path / "m")
    assert torch.equal(tensors["a"], base.T)
    assert torch.equal(tensors["b"], base[1:])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_altered_bytes_are_refused(good, tmp_path_factory, data):
    original = good.read_bytes()
    altered = bytearray(original)
    places = st.integers(0, len(original) - 1)
    for at in data.draw(st.lists(places, min_size=1, max_size=3, unique=True)):
        altered[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("altered") / "m"
    path.write_bytes(altered)
    if altered == original:
        assert same(model_file.read(path))
        return
    with pytest.raises(FileError) as caught:
        model_file.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_cut_is_refused(good, tmp_path):
    original = good.read_bytes()
    path = tmp_path / "m"
    for size in [*range(0, len(original), 7), len(original) - 1]:
        path.write_bytes(original[:size])
        with pytest.raises(FileError):
            model_file.read(path)
    path.write_bytes(original + b"x")
    with pytest.raises(FileError, match="cut short or altered"):
        model_file.read(path)


def forged(header: object) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04K\x01.",  # a pickle
        b"PK\x03\x04" + b"\0" * 100,  # torch.save
        struct.pack("<Q", 1 << 62) + b"{}",
        forged(b"{" * 200_000),
        forged(b'{"a":' * 50_000),
        forged(b'{"a": NaN}'),
        forged(b"[]"),
        forged(b'{"\xff": 1}'),
        forged({}),
        forged({"__metadata__": {}}),
        forged({"__metadata__": "x"}),
        forged({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
    ],
)
def test_files_that_are_none(tmp_path, data):
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        model_file.read(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_and_folders(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        model_file.read(tmp_path / "none")
    with pytest.raises(FileError):
        model_file.read(tmp_path)
    with pytest.raises(FileError, match=r"no model.safetensors in this folder"):
        load(tmp_path)
    with pytest.raises(FileError, match="cannot be written"):
        model_file.write(tmp_path / "none" / "m", "lm", {}, {})


def test_metadata_must_be_json(tmp_path):
    for bad in ({"x": float("nan")}, {"x": torch.tensor(1)}, {"x": {1, 2}}):
        with pytest.raises(InputError, match="plain JSON"):
            model_file.write(tmp_path / "m", "lm", bad, {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(good, tmp_path, monkeypatch):
    path = tmp_path / "m"
    model_file.write(path, "lm", METADATA, TENSORS)

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_file.os, "fsync", fail)
    with pytest.raises(FileError, match="No space left"):
        model_file.write(path, "lm", {}, {})
    assert same(model_file.read(path))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@elman.cell
def own(p, x, h, *, rate=0.5):
    """A cell of the user's. Source: this test."""
    return (1 - rate) * h + rate * torch.tanh(p.W @ x + p.U @ h + p.b)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "a.txt"
    text.write_text("an apple, a pear\n" * 40, encoding="utf-8")
    return build([text], {"cell": own, "hyper": {"rate": 0.25}, "hidden": 6, "embedding": 4})


def test_a_model_with_somebodys_own_cell(task, tmp_path):
    path = tmp_path / "model.safetensors"
    model_file.write(path, task.name, task.metadata(), task.model.state_dict())
    here = task.trained().score("a pear")[0]
    for place in (path, tmp_path):
        model = load(place)
        assert model.score("a pear")[0] == here
        assert model.generate("a ", length=20, seed=3) == task.trained().generate(
            "a ", length=20, seed=3
        )
    assert model.network.layers[0].cell.hyper == {"rate": 0.25}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m, t: m["config"].update(hiden=3), "unknown key 'hiden'. Did you mean 'hidden'?"),
        (lambda m, t: m["config"].update(hidden="6"), "hidden should be a valid integer, got '6'"),
        (lambda m, t: m["config"].update(hidden=True), "hidden should be a valid integer"),
        (lambda m, t: m["config"].update(hidden=None), "leaves open"),
        (lambda m, t: m["config"].update(hidden=10**9), "too few for the sizes"),
        (lambda m, t: m["config"].update(layers=10**9), "too few for the sizes"),
        (lambda m, t: m["config"].update(hidden=7), "this model needs"),
        (lambda m, t: m["config"].update(layers=2), "layers.1"),
        (lambda m, t: m["config"].update(cell="../x"), "no such weight|needs|cell"),
        (lambda m, t: m["vocabulary"]["tokens"].append("a"), "repeated"),
        (lambda m, t: m["vocabulary"]["tokens"].append("z"), "this model needs"),
        (lambda m, t: m["vocabulary"].update(level="word"), "word"),
        (lambda m, t: m["equation"]["graph"].update(name="a b"), "no name|no equation"),
        (lambda m, t: m["equation"]["graph"]["nodes"][0].update(op="eval"), "equation"),
        (lambda m, t: m.pop("equation"), "do not describe a language model"),
        (lambda m, t: m.update(more=1), "do not describe a language model"),
        (lambda m, t: t.pop("output.bias"), "'output.bias' is missing"),
        (lambda m, t: t.update(other=torch.zeros(1)), "no such weight"),
    ],
)
def test_forged_content_is_refused(task, tmp_path, change, says):
    metadata = json.loads(json.dumps(task.metadata()))
    tensors = dict(task.model.state_dict())
    change(metadata, tensors)
    path = tmp_path / "m.safetensors"
    model_file.write(path, "lm", metadata, tensors)
    if metadata["config"]["cell"] == "../x":  # a label only: the equation is what is run
        load(path)
        return
    with pytest.raises(FileError, match=says) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_other_tasks_and_formats(tmp_path, monkeypatch):
    model_file.write(tmp_path / "m", "weather", {}, {})
    with pytest.raises(FileError, match="'weather', unknown"):
        load(tmp_path / "m")
    monkeypatch.setattr(model_file, "FORMAT", 2)
    model_file.write(tmp_path / "m", "lm", {}, {})
    monkeypatch.setattr(model_file, "FORMAT", 1)
    with pytest.raises(FileError, match="newer Elman is needed"):
        model_file.read(tmp_path / "m")


def test_the_same_model_is_the_same_bytes(tmp_path):
    tensors = {"b": torch.zeros(2), "a": torch.ones(3, 2)}
    for name in ("one", "other"):
        model_file.write(tmp_path / name, "lm", {"hidden": 2, "text": "é漢"}, tensors)
        tensors = dict(reversed(tensors.items()))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert model_file.read(tmp_path / "one")[1] == {"hidden": 2, "text": "é漢"}
