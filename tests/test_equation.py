"""The language: tracing, sizes found by use, hyper-parameters, JSON, writing, counting."""

import cProfile
import json
import pickle
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

import elman
from elman.equation import Cell, Graph, Parameters, graph_to_json, with_layer_norm
from elman.errors import FileError, InputError, SizeError


@elman.cell(init={"U": "orthogonal", "b_*": 1.0}, initial={"c": 0.5}, family="test")
def sample(p, x, h, c, *, f=torch.tanh, alpha=0.25, depth=2):
    """A cell for the tests.

    Source: nowhere, eqs. 1
    and 2.
    """
    c = alpha * c + (1 - alpha) * f(p.W @ x + p.U @ h + p.b_c)
    for level in range(depth):
        h = f(p["V", level] @ h + p.b_h * c)
    return h, c


def test_sizes_come_from_use():
    shapes = sample.graph.parameter_shapes({"input": 3, "hidden": 5})
    assert shapes == {
        "W": (5, 3), "U": (5, 5), "b_c": (5,), "V_0": (5, 5), "V_1": (5, 5), "b_h": (5,)
    }  # fmt: skip
    assert sample.states == ("h", "c")
    assert [s.initial for s in sample.graph.states] == [0.0, 0.5]
    inits = {p.name: p.init for p in sample.graph.parameters}
    assert inits["U"] == "orthogonal"
    assert inits["b_c"] == inits["b_h"] == 1.0
    assert inits["W"] == "uniform"


def test_declared_sizes_and_a_product_after_pointwise_work():
    @elman.cell(sizes={"y": "output"})
    def projected(p, x, y, h):
        h = torch.tanh(p.W @ x + p.U @ (y * torch.sigmoid(p.G @ h)) + p.b)
        return p.V @ h, h

    shapes = projected.graph.parameter_shapes({"input": 2, "hidden": 3, "output": 4})
    assert shapes == {"W": (3, 2), "U": (3, 4), "G": (4, 3), "b": (3,), "V": (4, 3)}
    with pytest.raises(SizeError, match="'output' is not given"):
        projected.graph.parameter_shapes({"input": 2, "hidden": 3})


def test_sizes_joined_by_the_equation_must_agree():
    @elman.cell
    def highway(p, x, h):
        return h * torch.sigmoid(p.W @ x) + x

    assert highway.graph.parameter_shapes({"input": 3, "hidden": 3}) == {"W": (3, 3)}
    with pytest.raises(SizeError, match="got input 2, hidden 3"):
        highway.graph.check_sizes({"input": 2, "hidden": 3})


def test_hyper_parameters_retrace_once_a_value():
    deeper = sample.with_hyper(depth=3, f="relu")
    assert "V_2" in deeper.graph.parameter_shapes({"input": 1, "hidden": 1})
    assert sample.with_hyper(depth=3, f=torch.relu) is deeper
    assert sample.with_hyper(alpha=0.25) is sample
    assert deeper.to_json()["hyper"] == {"f": "relu", "alpha": 0.25, "depth": 3}
    for wrong, says in [
        ({"dept": 3}, "Did you mean 'depth'"),
        ({"depth": 2.5}, "expected a value like 2"),
        ({"f": "rellu"}, "Did you mean 'relu'"),
        ({"alpha": "much"}, "expected a value like 0.25"),
        ({"alpha": float("nan")}, "expected a value like 0.25"),
    ]:
        with pytest.raises(InputError, match=says):
            sample.with_hyper(**wrong)


def test_docstring_gives_title_and_source():
    assert sample.title == "A cell for the tests."
    assert sample.source == "nowhere, eqs. 1 and 2."
    assert sample.family == "test"


def test_traced_equals_called_on_tensors_for_every_operation():
    @elman.cell
    def everything(p, x, h, g):
        a = p.W @ x + p.b
        a = torch.sigmoid(a) - torch.tanh(h) * torch.relu(g) / (2 + torch.exp(-a)) + a.abs()
        a = a + F.leaky_relu(h, 0.2) + F.elu(g, 1.5) + F.softplus(a, 2.0) + F.hardsigmoid(h)
        a = a + torch.log(1 + a**2) + torch.sqrt(1 + h.square()) + torch.sin(g) + torch.cos(a)
        a = a + torch.minimum(a, h) - torch.maximum(g, h) + torch.clamp(a, -0.5, 0.5) + 2**h
        a = a + torch.where(h > 0, a, g) + torch.where(g <= h, 1.0, a) + torch.clamp(g, max=0.1)
        a = a + torch.softmax(a, -1) + F.layer_norm(h, h.shape) + F.layer_norm(a, a.shape, p.k, p.b)
        a = a + F.silu(h) + h.reciprocal() * 0.1 + torch.rsqrt(1 + g * g) + F.hardtanh(a)
        a = a + F.relu6(h) + F.softsign(g) + F.logsigmoid(h) + torch.lerp(h, g, a) - +a
        a = a + torch.add(h, g, alpha=2) + torch.sub(h, 1.5) + torch.mul(h, g) + (1 / (3 + g * g))
        return torch.ones_like(h) - torch.tanh(a), torch.pow(torch.sigmoid(a), torch.sigmoid(h))

    from elman.backends import reference

    torch.manual_seed(0)
    sizes = {"input": 3, "hidden": 4}
    tensors = {
        name: torch.randn(shape, dtype=torch.float64)
        for name, shape in everything.graph.parameter_shapes(sizes).items()
    }
    x, h, g = (torch.randn(n, dtype=torch.float64) for n in (3, 4, 4))
    called = everything(Parameters(tensors), x, h, g)
    loaded = Cell.from_json(json.loads(json.dumps(everything.to_json())))
    for each in (everything, loaded):
        _, traced, _ = reference.run(each.graph, tensors, x.expand(1, 1, 3), (h[None], g[None]))
        for one, other in zip(called, traced, strict=True):
            torch.testing.assert_close(one, other[0], rtol=1e-13, atol=1e-13)


def test_a_loaded_cell_has_the_equation_but_no_body():
    loaded = Cell.from_json(json.loads(json.dumps(sample.to_json())))
    assert loaded == sample
    assert loaded.graph == sample.graph
    assert loaded.graph.equation() == sample.graph.equation()
    assert pickle.loads(pickle.dumps(sample)) == sample
    with pytest.raises(InputError, match="no Python body"):
        loaded(None, torch.zeros(1), torch.zeros(1), torch.zeros(1))
    with pytest.raises(InputError, match="fixed"):
        loaded.with_hyper(depth=3)


def test_equality_is_structural():
    @elman.cell
    def one(p, x, h):
        return torch.tanh(p.W @ x + p.U @ h)

    @elman.cell
    def other(p, x, h):
        inside = p.W @ x + p.U @ h
        return torch.tanh(inside)

    @elman.cell
    def third(p, x, h):
        return torch.tanh(p.W @ x - p.U @ h)

    assert one.graph == other.graph
    assert hash(one.graph) == hash(other.graph)
    assert one.graph != third.graph


def test_written_equation():
    @elman.cell
    def written(p, x, h):
        """Precedence, delays and numbers."""
        gate = torch.sigmoid(p.W_g @ (x * 2 - 1) + p.U_g @ elman.delay(h, 3))
        return (1 - gate) * (h - (p.b + 1) / 2) ** 2 - (-gate)

    assert written.graph.equation() == [
        "gateₜ = σ(W_g (xₜ ⊙ 2 − 1) + U_g hₜ₋₃)",
        "hₜ = (1 − gateₜ) ⊙ (hₜ₋₁ − (b + 1) / 2)^2 − (−gateₜ)",
    ]
    assert r"\mathrm{gate}_{t} &= \sigma\left(W_{g} \left(x_{t} \odot 2 - 1\right)" in (
        written.graph.latex()
    )
    assert r"\frac{b + 1}{2}" in written.graph.latex()


def test_counts():
    @elman.cell
    def counted(p, x, h):
        return torch.tanh(p.W @ x + p.U @ h + (p.b + p.b))

    counts = counted.graph.count({"input": 3, "hidden": 5})
    assert counts.parameters == 5 * 3 + 5 * 5 + 5
    assert counts.operations == 2 * 5 * 3 + 2 * 5 * 5 + 5 + 5 + 5


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("nodes", 5, "op"), "eval"),
        (("nodes", 5, "args"), [99, 0]),
        (("nodes", 5, "args"), [5, 5]),
        (("nodes", 5, "args"), [True, 0]),
        (("nodes", 5, "dims"), ["input"]),
        (("nodes", 5, "name"), "import os"),
        (("nodes", 0, "attributes"), {}),
        (("nodes", 0, "attributes", "name"), "nobody"),
        (("output",), -1),
        (("output",), 3),
        (("new_states",), [0]),
        (("new_states",), []),
        (("states", 0, "initial"), "nan"),
        (("states", 0, "name"), "x"),
        (("states", 0, "dims"), ["hidden/0"]),
        (("parameters", 0, "init"), "explode"),
        (("parameters", 0, "dims"), ["hidden", "input", "hidden"]),
        (("inputs", 0, "varies"), "never"),
        (("equal",), [["a"]]),
        (("nodes",), "none"),
    ],
)
def test_an_altered_graph_is_refused(path, value):
    data = json.loads(json.dumps(graph_to_json(sample.graph)))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(FileError, match="no equation of Elman's"):
        Graph.from_json(data)


def test_delay_reads_the_past():
    @elman.cell
    def echo(p, x, h):
        return elman.delay(x, 2) + 0 * elman.delay(h, 3)

    from elman.backends import reference

    x = torch.arange(1.0, 7).reshape(6, 1, 1)
    carried = reference.initial_carried(echo.graph, {"input": 1, "hidden": 1}, 1)
    assert [c.shape for c in carried] == [(1, 1), (1, 2, 1), (1, 2, 1)]
    out, _, _ = reference.run(echo.graph, {}, x, carried)
    assert out.flatten().tolist() == [0, 0, 1, 2, 3, 4]
    called = echo(
        None, x[4, 0], torch.zeros(1), past={"x": [x[3, 0], x[2, 0]], "h": [x[0, 0], x[0, 0]]}
    )
    assert called.tolist() == [3.0]
    with pytest.raises(elman.EquationError, match="inside a cell's body"):
        elman.delay(torch.zeros(1), 1)


def test_structured_parameters_matrix_states_inputs_and_outputs():
    """Each of the wider things of the language once: graph = body = its JSON."""
    from elman.backends import reference

    @elman.cell(
        sizes={"C": ("hidden", "rank")},
        shapes={"b": (), "A": ("hidden", "rank"), "B": ("rank", "input")},
        inputs={"dt": (), "mask": "hidden"},
        output="output",
    )
    def wide(p, x, dt, h, C, mask, *, heads=2):
        k = p.B @ x
        i = torch.exp(-dt * torch.sigmoid(torch.dot(p.w, x) + p.b))
        C = i * C + torch.outer(h, k) + h.unsqueeze(-1) * k[None, :]
        h = torch.tanh(
            (p.W - p.W.T + 0.5 * p.V) @ h
            + elman.block_diagonal(p.R, heads) @ (mask * h)
            + (p.A @ p.B) @ x
            + C @ k / torch.clamp(torch.abs(k.sum(-1)), min=1.0)
            + F.bilinear(h, x, p.T, p.c) * torch.mean(h, -1)
        )
        return p.Y @ h, h, C

    sizes = {"input": 3, "hidden": 4, "rank": 2, "output": 5}
    shapes = wide.graph.parameter_shapes(sizes)
    assert shapes["T"] == (4, 4, 3)
    assert shapes["R"] == (4, 2)
    assert shapes["b"] == ()
    assert wide.states == ("h", "C")
    with pytest.raises(SizeError, match="multiple of 2"):
        wide.graph.parameter_shapes({**sizes, "hidden": 5})
    torch.manual_seed(0)
    tensors = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    extras = {
        "dt": torch.rand(3, 2, dtype=torch.float64),
        "mask": torch.rand(3, 2, 4, dtype=torch.float64),
    }
    carried = reference.initial_carried(wide.graph, sizes, 2, dtype=torch.float64)
    assert carried[1].shape == (2, 4, 2)
    loaded = Cell.from_json(json.loads(json.dumps(wide.to_json())))
    for each in (wide, loaded):
        out, last, _ = reference.run(each.graph, tensors, x, carried, extras=extras)
        for row in range(2):
            h, C = carried[0][row], carried[1][row]
            for t in range(3):
                dt, mask = extras["dt"][t, row], extras["mask"][t, row]
                y, h, C = wide(Parameters(tensors), x[t, row], dt, h, C, mask)
                torch.testing.assert_close(out[t, row], y, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(last[1][row], C, rtol=1e-12, atol=1e-12)
    assert wide.graph.equation()[-1].startswith("outputₜ = Y hₜ")
    counts = wide.graph.count(sizes)
    assert counts.parameters == sum(t.numel() for t in tensors.values())


def test_layer_norm_of_matrices_that_begin_with_one_parameter():
    """(W − Wᵀ) h and Wᵀ h are two products, each with a gain and a bias of its own."""

    @elman.cell
    def twice(p, x, h):
        return torch.tanh(0.5 * (p.W - p.W.T) @ h + p.W.T @ h + p.V @ x)

    normal = with_layer_norm(twice.graph)
    added = [p.name for p in normal.parameters if p.init in ("ones", "zeros")]
    assert added == ["W_gain", "W_bias", "W_2_gain", "W_2_bias", "V_gain", "V_bias"]


def test_a_cell_can_be_made_under_a_profiler():
    """cProfile's hook cannot be put back by hand; the names of the lines are found all the same."""
    profile = cProfile.Profile()
    profile.enable()
    try:

        @elman.cell
        def profiled(p, x, h):
            gate = torch.sigmoid(p.W @ x)
            return gate * h

    finally:
        profile.disable()
    assert profiled.graph.equation() == ["gateₜ = σ(W xₜ)", "hₜ = gateₜ ⊙ hₜ₋₁"]
    assert profile.getstats()


def test_import_leaves_the_collection_of_garbage_as_it_was():
    for switch, on in (("enable", True), ("disable", False)):
        code = f"import gc; gc.{switch}(); import elman; assert gc.isenabled() is {on}"
        subprocess.run([sys.executable, "-c", code], check=True)
