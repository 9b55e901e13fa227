"""The drop-ins against torch.nn with copied weights: outputs, states and all gradients.

With `backend="reference"`, so that it is our evaluation of the equations that is compared with
torch's kernels; the torch backend is compared with the reference in test_layers_backends.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from tolerances import EQUAL
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import elman

FORMS = ("time first", "batch first", "unbatched", "packed", "packed batch first")
TIME, BATCH, INPUT, HIDDEN = 4, 3, 3, 4
LENGTHS = torch.tensor([2, 4, 3])


def kinds():
    for name in ("LSTM", "GRU", "RNN"):
        for proj_size in (0, 2) if name == "LSTM" else (0,):
            for f in ("tanh", "relu") if name == "RNN" else (None,):
                yield name, proj_size, f


def pair(name, proj_size, f, layers, bidirectional, bias, batch_first, dtype, backend):
    options = {
        "num_layers": layers,
        "bidirectional": bidirectional,
        "bias": bias,
        "batch_first": batch_first,
        "dtype": dtype,
    }
    if proj_size:
        options["proj_size"] = proj_size
    if f:
        options["nonlinearity"] = f
    theirs = getattr(torch.nn, name)(INPUT, HIDDEN, **options)
    ours = getattr(elman, name)(INPUT, HIDDEN, **options, backend=backend)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def call(module, x, state, form):
    """Run a module and return its output, padded if it was packed, and its states."""
    if form.startswith("packed"):
        first = form.endswith("first")
        packed = pack_padded_sequence(x, LENGTHS, batch_first=first, enforce_sorted=False)
        out, last = module(packed, state)
        out, _ = pad_packed_sequence(out, batch_first=first)
    else:
        out, last = module(x, state)
    return out, *(last if isinstance(last, tuple) else (last,))


def compared(module, x, state, form):
    """Outputs, states, and the gradients of x, the states and all parameters."""
    x = x.clone().requires_grad_()
    state = tuple(s.clone().requires_grad_() for s in state)
    given = state if len(state) > 1 else state[0]
    results = call(module, x, given, form)
    total = sum((r * torch.cos(torch.arange(r.numel())).view_as(r)).sum() for r in results)
    leaves = dict(module.named_parameters())
    gradients = torch.autograd.grad(total, [x, *state, *leaves.values()])
    return [*results, *gradients]


def largest_difference(name, proj_size, f, dtype, backend="reference"):
    worst = 0.0
    flags = itertools.product((1, 2, 3), (False, True), (True, False), FORMS)
    for layers, bidirectional, bias, form in flags:
        torch.manual_seed(layers)
        ours, theirs = pair(
            name,
            proj_size,
            f,
            layers,
            bidirectional,
            bias,
            form.endswith("first") and form[0] != "t",
            dtype,
            backend,
        )
        shape = {"time first": (TIME, BATCH), "packed": (TIME, BATCH), "unbatched": (TIME,)}
        x = torch.randn(*shape.get(form, (BATCH, TIME)), INPUT, dtype=dtype)
        places = layers * (2 if bidirectional else 1)
        rows = () if form == "unbatched" else (BATCH,)
        sizes = (proj_size or HIDDEN, HIDDEN)[: 2 if name == "LSTM" else 1]
        state = tuple(torch.randn(places, *rows, size, dtype=dtype) for size in sizes)
        got, expected = compared(ours, x, state, form), compared(theirs, x, state, form)
        for g, e in zip(got, expected, strict=True):
            assert g.shape == e.shape
            scale = e.abs().max().item()
            worst = max(worst, (g - e).abs().max().item() / scale if scale else 0.0)
    return worst


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "proj_size", "f"), list(kinds()))
def test_outputs_states_and_gradients_equal_torch(name, proj_size, f, dtype):
    worst = largest_difference(name, proj_size, f, dtype)
    print(f"{name} proj_size={proj_size} {f or ''} {dtype}: {worst:.1e}")
    assert worst < EQUAL[dtype]
