"""What a body may not do: one sentence each, with file, line and what to write instead."""

import re

import pytest

import elman

CASES = {
    "branch on data": ("if h > 0:\n        h = -h\n    return h", 6, "torch.where"),
    "while on data": ("while h < 1:\n        h = h + h\n    return h", 6, "torch.where"),
    "unknown function": ("return torch.erf(h)", 6, "torch.erf is not an operation"),
    "the nearest function": ("return torch.sigmid(h)", 6, "sigmid"),
    "unknown method": ("return h.gelu()", 6, r"\.gelu is not there"),
    "numpy": ("return np.tanh(h)", 6, "use torch.tanh"),
    "numpy array": ("return np.asarray(h)", 6, "NumPy was called"),
    "math": ("return h * math.tanh(h)", 6, "use torch, not math"),
    "write in place": ("h[0] = 1\n    return h", 6, "in place"),
    "in-place method": ("h.add_(1)\n    return h", 6, r"add\(…\)"),
    "in-place relu": ("return torch.nn.functional.relu(h, inplace=True)", 6, "in place"),
    "out=": ("return torch.tanh(h, out=h)", 6, "in place"),
    "an argument added to in place": ("h += p.W @ x\n    return h", 6, r"into h; write v = h \+ …"),
    "a parameter scaled in place": ("p.b *= 2\n    return h + p.b", 6, r"into p\.b"),
    "a delayed value written in place": (
        "d = elman.delay(x, 2)\n    d -= x\n    return h + p.W @ d",
        7,
        "in place into x",
    ),
    "a detached value": ("return torch.tanh(p.W @ x + h.detach())", 6, r"BPTT\(window="),
    "a detached value, the function": ("return torch.detach(h)", 6, r"BPTT\(window="),
    "noise": ("return h + torch.randn_like(h)", 6, "inputs="),
    "dropout": ("return torch.nn.functional.dropout(h, 0.5)", 6, "layer's options"),
    "joined vectors": ("return torch.tanh(p.W @ torch.cat([x, h]))", 6, r"p\.W @ x \+ p\.U @ h"),
    "parts of a vector": ("a, b = h.chunk(2)\n    return a", 6, "a parameter for each part"),
    "a number of a value": ("return h * h.item()", 6, "torch.where"),
    "a size": ("return h / h.size(0)", 6, "found by use"),
    "a cast": ("return h.double()", 6, "the layer moves and casts"),
    "NumPy first": ("return np.ones(3) * h", 6, "np.multiply was called.*torch.multiply"),
    "sizes that do not agree": ("return p.W @ x + torch.outer(h, h)", 6, "a vector and a matrix"),
    "indexing": ("return h[0]", 6, "indexed"),
    "unpacking": ("a, b = h\n    return a", 6, "taken apart"),
    "length": ("return h * len(h)", 6, "found by use"),
    "two kinds": ("return p.W @ x + p.W * h", 6, "matrix where it stands before @"),
    "two kinds, vector first": ("a = p.W * h\n    return p.W @ x + a", 7, "own names"),
    "a state not returned": ("return h, h", 6, r"returns 2 value\(s\); it has 1 state"),
    "a number for a state": ("return 0.0", 6, "new h is float"),
    "parameters alone": ("return p.a + p.b", 6, "parameters alone"),
    "a bare parameter": ("return p.a", 6, "bare parameter"),
    "a comparison for a state": ("return h > 0", 6, "comparison"),
    "a comparison in a sum": ("return h + (h > 0)", 6, "torch.where"),
    "where without one": ("return torch.where(h, h, h)", 6, "needs a comparison"),
    "a tensor from outside": ("return h + torch.ones(3)", 6, "outside of the equation"),
    "tensor first": ("return torch.ones(3) * h", 6, "outside of the equation"),
    "a text": ("return h + 'a'", 6, "meets a str"),
    "@ of two states": ("return h @ h", 6, "torch.dot for a scalar product"),
    "@ of parameters": ("return (p.W @ p.V) * h", 6, "a matrix and a vector"),
    "@ on an open parameter": (
        "return h * torch.dot(h, h) + torch.outer(h, h) @ p.v",
        6,
        "shapes=",
    ),
    "a vector transposed": ("return h.T", 6, "needs a matrix"),
    "a sum over another size": ("return h * torch.sum(h, 0, True)", 6, "last size"),
    "heads that are none": ("return elman.block_diagonal(p.R, 0) @ h", 6, "number of heads"),
    "heads of a row": (
        "return elman.block_diagonal(p.R * torch.dot(h, h), 2) @ h",
        6,
        "parameters alone",
    ),
    "a tensor of a row": (
        "return torch.nn.functional.bilinear(h, x, p.T * torch.dot(h, h))",
        6,
        "parameters alone",
    ),
    "a matrix for a state": ("return torch.outer(h, h)", 6, "must be a vector|a matrix"),
    "an undeclared output": ("return p.V @ h, h", 6, "output=True"),
    "sizes of softmax": ("return torch.softmax(h, 3)", 6, "dim=3"),
    "delay of a value": ("return elman.delay(h * 2, 2)", 6, "argument of the body"),
    "delay of a state by 0": ("return elman.delay(h, 0)", 6, "1 to 10,000"),
    "delay back in time": ("return elman.delay(x, -1)", 6, "0 to 10,000"),
    "delay by a fraction": ("return elman.delay(h, 1.5)", 6, "whole number"),
    "a name used twice": ("return p.x * h", 6, "name of an argument"),
    "an assigned parameter": ("p.W = h\n    return h", 6, "being used"),
    "an undefined name": ("return q.W @ x + h", 6, "NameError"),
    "wrong arguments": ("return torch.tanh(h, 1, 2)", 6, "torch code"),
}


@pytest.mark.parametrize("name", CASES)
def test_error_names_file_line_and_remedy(name, tmp_path):
    body, line, says = CASES[name]
    file = tmp_path / "mine.py"
    file.write_text(
        f"import math\nimport elman, torch\nimport numpy as np\n@elman.cell\n"
        f"def mine(p, x, h):\n    {body}\n",
        encoding="utf-8",
    )
    with pytest.raises((elman.EquationError, AttributeError)) as caught:
        exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), {})
    text = str(caught.value)
    assert re.search(says, text), text
    if not isinstance(caught.value, elman.EquationError):
        pytest.fail(f"not an EquationError: {caught.value!r}")
    assert "\n" not in text
    assert caught.value.file == str(file)
    assert caught.value.line in ((line, 4, 5) if "return" in body else (line,))


@pytest.mark.parametrize(
    ("signature", "says"),
    [
        ("def mine(p, x):\n    return x", "at least one state"),
        ("def mine(p, x, h, *more):\n    return h", "name every state"),
        ("def mine(p, x, h, *, alpha):\n    return h", "needs a default"),
    ],
)
def test_signatures(signature, says):
    with pytest.raises(elman.EquationError, match=says):
        exec(compile(f"import elman\n@elman.cell\n{signature}\n", "mine.py", "exec"), {})


def test_a_state_that_is_not_returned():
    with pytest.raises(elman.EquationError, match=r"1 value\(s\); it has 2 .*: return h, c"):
        exec(compile("import elman\n@elman.cell\ndef f(p, x, h, c):\n    return h\n", "f", "exec"))


def test_declarations_must_name_what_is_there():
    def body(p, x, h):
        return p.W @ x + h

    for options, says in [
        ({"sizes": {"g": "output"}}, "'g', which is no argument"),
        ({"initial": {"c": 1.0}}, "'c', which is no argument"),
        ({"init": {"V": "zeros"}}, "'V', and no parameter"),
        ({"init": {"W": "zero"}}, "Did you mean 'zeros'"),
        ({"init": {"W": float("inf")}}, "finite number"),
    ]:
        with pytest.raises(elman.InputError, match=says):
            elman.cell(**options)(body)


def test_only_functions_are_cells():
    with pytest.raises(elman.InputError, match="decorates a function"):
        elman.cell(3)
