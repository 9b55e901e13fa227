"""Our cells beside torchrecurrent's with the same weights, and a third program where they differ.

The third programs are loops of plain torch, straight from the papers; with one term turned they are
what torchrecurrent computes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tolerances import ORACLE, assert_close, distance
from torch import Tensor

import elman

torchrecurrent = pytest.importorskip(
    "torchrecurrent", reason="torchrecurrent is not installed: pip install 'elman[bench]'"
)
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("benchmarks/ is not beside tests/", allow_module_level=True)
sys.path.append(str(BENCHMARKS))

from torchrecurrent_peer import PEERS, Peer, named  # noqa: E402

TIME, BATCH, INPUT, HIDDEN = 13, 3, 3, 4  # longer than τ-GRU's delay of 10 steps
AGREE = [peer for peer in PEERS.values() if not peer.differs]
# Their τ-GRU keeps no delayed states from call to call.
CONTINUED = [peer for peer in AGREE if peer.cell != "tau_gru"]


class HardSigmoid(torch.nn.Module):
    """torch's hardsigmoid with an exact slope; torch's own gradient rounds 1/6 to float32."""

    def forward(self, v: Tensor) -> Tensor:
        return torch.clamp(v / 6 + 0.5, 0.0, 1.0)


def pair_of(peer: Peer):
    """Theirs and ours with the same random weights, and an input."""
    torch.manual_seed(7)
    inputs = HIDDEN if peer.square else INPUT
    theirs, ours, copy = peer.build(inputs, HIDDEN, torch.float64, backend="reference")
    with torch.no_grad():
        for parameter in (*ours.parameters(), *theirs.parameters()):
            if parameter.dim():  # their trained β and α stay
                parameter.copy_(0.6 * torch.randn_like(parameter))
    for number in (p for n, p in named(ours).items() if p.dim() == 0):
        torch.nn.init.uniform_(number, -2.0, 2.0)
    copy()
    if isinstance(getattr(theirs.cells[0], "gate_act", None), torch.nn.Hardsigmoid):
        theirs.cells[0].gate_act = HardSigmoid()
    x = torch.randn(TIME, BATCH, inputs, dtype=torch.float64, requires_grad=True)
    return theirs, ours, x


def weighed(out: Tensor) -> Tensor:
    """A scalar that weighs every entry differently."""
    return (out * torch.cos(torch.arange(out.numel(), dtype=out.dtype)).view(out.shape)).sum()


def states(state) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def near(one, other, what: str) -> None:
    assert_close(one, other, ORACLE, what)


# --- the list ---


def test_every_cell_that_torchrecurrent_exports_has_a_peer():
    exported = {n for n in torchrecurrent.__all__ if f"{n}Cell" in torchrecurrent.__all__}
    assert {peer.layer for peer in PEERS.values()} == exported
    assert len(PEERS) == len(exported) == 41
    assert set(PEERS) <= set(elman.cells.names())


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.cell)
def test_every_parameter_has_its_place(peer):
    theirs, ours, _ = pair_of(peer)
    listed = {b for blocks in peer.weights.values() for b in blocks.split()} - {"0"}
    assert listed | set(peer.identity) == set(named(ours))
    assert not listed & set(peer.identity)
    there = dict(theirs.cells[0].named_parameters())
    assert set(peer.weights) <= set(there)
    left = {n for n, t in there.items() if n not in peer.weights and not n.startswith("bias")}
    assert left <= {"alpha", "beta"}


def test_an_input_of_another_size_than_theirs_takes_is_refused():
    with pytest.raises(ValueError, match="needs input_size == hidden_size; got 3 and 4"):
        PEERS["intersection_rnn"].build(3, 4)


# --- where the two agree ---


@pytest.mark.parametrize("peer", AGREE, ids=lambda peer: peer.cell)
def test_outputs_states_and_gradients_agree(peer):
    theirs, ours, x = pair_of(peer)
    out, last = ours(x)
    their_out, their_last = theirs(x)
    near(out, their_out, "outputs")
    count = len(elman.cells.get(peer.cell).states)
    last = states(last)[:count]
    near(last, states(their_last)[:count], "states")
    parameters = {n: p for n, p in named(ours).items() if n not in peer.identity}
    found = torch.autograd.grad(weighed(out), (x, *parameters.values()))
    there = {n: t for n, t in theirs.cells[0].named_parameters() if n in peer.weights}
    expected = torch.autograd.grad(weighed(their_out), (x, *there.values()))
    near(found[0], expected[0], "gradient of x")
    gradients = dict(zip(parameters, found[1:], strict=True))
    for (name, tensor), gradient in zip(there.items(), expected[1:], strict=True):
        blocks = peer.weights[name].split()
        stacked = peer.stacked(name, gradients, tensor)
        rows = stacked.chunk(len(blocks)), gradient.chunk(len(blocks))
        for block, one, other in zip(blocks, *rows, strict=True):
            if block != "0":
                near(one, other, f"gradient of {block}")


@pytest.mark.parametrize("peer", CONTINUED, ids=lambda peer: peer.cell)
def test_a_given_state_is_continued_alike(peer):
    theirs, ours, x = pair_of(peer)
    last, their_last = ours(x)[1], theirs(x)[1]
    near(ours(x, last)[0], theirs(x, their_last)[0], "outputs")


# --- where the two differ: the paper, and the paper with one term turned ---


def lem(p, x: Tensor, turned: bool) -> Tensor:
    """Rusch et al. 2022: y_n of z_n; turned, of z_{n−1}."""
    y = z = x.new_zeros(BATCH, HIDDEN)
    out = []
    for u in x:
        delta = torch.sigmoid(y @ p["W_1"].T + u @ p["V_1"].T + p["b_1"])
        delta_bar = torch.sigmoid(y @ p["W_2"].T + u @ p["V_2"].T + p["b_2"])
        drive = torch.tanh(y @ p["W_z"].T + u @ p["V_z"].T + p["b_z"])
        old, z = z, z - delta * z + delta * drive
        seen = old if turned else z
        y = y + delta_bar * (torch.tanh(seen @ p["W_y"].T + u @ p["V_y"].T + p["b_y"]) - y)
        out.append(y)
    return torch.stack(out)


def nas(p, x: Tensor, turned: bool) -> Tensor:
    """The authors' NASCell: a tree of eight leaves, the fourth a product; turned, a sum."""
    h = c = x.new_zeros(BATCH, HIDDEN)
    out = []
    sigmoid, relu, tanh = torch.sigmoid, torch.relu, torch.tanh
    leaves = (sigmoid, relu, sigmoid, relu, tanh, sigmoid, tanh, sigmoid)
    for now in x:
        pairs = [(now @ p[f"W_{k}"].T, h @ p[f"U_{k}"].T) for k in range(8)]
        leaf = [
            f(a * b if k == 3 and not turned else a + b)
            for k, (f, (a, b)) in enumerate(zip(leaves, pairs, strict=True))
        ]
        first, second = tanh(leaf[0] * leaf[1]), tanh(leaf[2] + leaf[3])
        third, fourth = tanh(leaf[4] * leaf[5]), sigmoid(leaf[6] + leaf[7])
        c = tanh(first + c) * second
        h = tanh(c * tanh(third + fourth))
        out.append(h)
    return torch.stack(out)


def scrn(p, x: Tensor, turned: bool) -> Tensor:
    """Mikolov et al. 2014, f = tanh, α = 1/2: h_t of h_{t−1}; turned, of y_{t−1}."""
    h = s = x.new_zeros(BATCH, HIDDEN)
    out = []
    for now in x:
        s = 0.5 * (now @ p["B"].T) + 0.5 * s
        h = torch.sigmoid(s @ p["P"].T + now @ p["A"].T + h @ p["R"].T)
        y = torch.tanh(h @ p["U"].T + s @ p["V"].T)
        out.append(y)
        h = y if turned else h
    return torch.stack(out)


PAPERS = {"lem": lem, "nas": nas, "scrn": scrn}


def test_every_difference_has_a_program():
    assert set(PAPERS) == {peer.cell for peer in PEERS.values() if peer.differs}


@pytest.mark.parametrize("name", PAPERS)
def test_ours_is_the_paper(name):
    _, ours, x = pair_of(PEERS[name])
    parameters = named(ours)
    out, program = ours(x)[0], PAPERS[name](parameters, x, turned=False)
    near(out, program, "outputs")
    leaves = (x, *parameters.values())
    found = torch.autograd.grad(weighed(out), leaves)
    near(found, torch.autograd.grad(weighed(program), leaves), "gradients")


@pytest.mark.parametrize("name", PAPERS)
def test_theirs_is_the_paper_with_one_term_turned(name):
    theirs, ours, x = pair_of(PEERS[name])
    out = theirs(x)[0]
    near(out, PAPERS[name](named(ours), x, turned=True), "outputs")
    assert distance(out, ours(x)[0]) > 0.01
