"""A model file with a foreign equation, altered at random: loaded rightly or refused in one line.

Run it with `ELMAN_ALTERATIONS=10000` for the figure in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import copy
import json
import os
import random

import pytest
import torch

import elman
from elman.errors import FileError, SizeError
from elman.tasks import model_file

ALTERATIONS = int(os.environ.get("ELMAN_ALTERATIONS", "600"))
VALUES = [
    None, True, -1, 0, 1, 2, 10**9, 1e308, "x", "h", "hidden", "hidden/4", "input", "__class__",
    [], {}, [[]], [0], ["hidden"], ["hidden", "hidden"], "inf", 3.5, "matmul", "add", "exp",
    "matvec", "outer", "state", "delayed", "sum", "row",
]  # fmt: skip


@elman.cell(sizes={"C": ("hidden", "hidden")}, shapes={"g": ()})
def foreign(p, x, h, C, *, heads=2):
    C = 0.9 * C + torch.outer(h, p.K @ x)
    past = elman.block_diagonal(p.R, heads) @ elman.delay(h, 2)
    return torch.tanh((p.W - p.W.T) @ h + past + C @ (p.Q @ x) * p.g + p.b), C


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The bytes of a model file that holds the foreign cell's equation and some weights."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    text = path.with_suffix(".txt")
    text.write_text("the cat sat on the mat\n" * 40, encoding="utf-8")
    result = elman.train(
        "lm", text, cell=foreign, hidden=4, embedding=2, steps=1, quiet=True, run=path.parent / "r"
    )
    return (result.run / "model.safetensors").read_bytes()


def altered(data: bytes, draw: random.Random) -> bytes:
    out, kind, at = bytearray(data), draw.randrange(4), draw.randrange(len(data))
    if kind == 0:
        out[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        out[at : at + draw.randrange(1, 40)] = draw.randbytes(draw.randrange(40))
    else:
        other, size = draw.randrange(len(data)), draw.randrange(1, 200)
        out[at : at + size] = data[other : other + size]
    return bytes(out)


def test_altered_bytes(data, tmp_path):
    draw, path = random.Random(0), tmp_path / "model.safetensors"
    path.write_bytes(data)
    right = model_file.read(path)[1]
    refusals = []
    for _ in range(ALTERATIONS):
        changed = altered(data, draw)
        path.write_bytes(changed)
        try:
            assert model_file.read(path)[1] == right
            assert elman.load(path).score(["the cat"])
        except FileError as error:
            refusals.append((changed == data, str(error)))
    assert not any(unchanged or "\n" in words for unchanged, words in refusals)


def mutated(tree, draw: random.Random):
    """One random place of nested data removed, replaced, doubled or shuffled."""
    tree = copy.deepcopy(tree)
    place = tree
    while place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and draw.random() < 0.85:
            place = place[key]
            continue
        kind = draw.randrange(5)
        if kind == 0:
            del place[key]
        elif kind == 1 and isinstance(place, list):
            place.append(copy.deepcopy(draw.choice(place)))
        elif kind == 2 and isinstance(place, list):
            draw.shuffle(place)
        else:
            place[key] = draw.choice(VALUES)
        break
    return tree


def test_altered_equation_behind_a_right_checksum():
    """What passes the reader is an equation: it is written out, and runs there and back."""
    draw, equation = random.Random(1), json.loads(json.dumps(foreign.to_json()))
    accepted, refusals = 0, []
    for _ in range(ALTERATIONS):
        changed = mutated(equation, draw)
        try:
            cell = elman.Cell.from_json(changed)
            sizes = {name: 4 for name in cell.graph.sizes if name not in ("input", "hidden")}
            layer = elman.Recurrent(cell, 3, 4, sizes=sizes)
        except (FileError, SizeError) as error:
            refusals.append(str(error))
            continue
        accepted += 1
        inputs = {i.name: torch.randn(3, 2, *[4] * len(i.dims)) for i in cell.graph.inputs[1:]}
        out, _ = layer(torch.randn(3, 2, 3), inputs=inputs)
        if out.requires_grad:
            out.sum().backward()
        assert cell.graph.equation()
        assert cell.graph.latex()
    assert accepted > 0
    assert refusals
    assert not any("\n" in words for words in refusals)
