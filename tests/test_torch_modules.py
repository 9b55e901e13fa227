"""torch's own module test database, driven on Elman's drop-ins.

`torch.testing._internal.common_modules` lists, for each module of torch.nn, constructor arguments,
inputs, a reference function and inputs that must fail. The class that runs them does not ship
with torch; the tests here are that drive, for the recurrent modules.
"""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence
from torch.testing import make_tensor
from torch.testing._internal.common_modules import (
    ModuleErrorEnum,
    module_db,
    module_inputs_torch_nn_RNN_GRU,
)

import elman

NAMES = ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell")
INFOS = {i.module_cls.__name__: i for i in module_db if i.module_cls.__name__ in NAMES}
BACKENDS = ("auto", "reference")

each_module = pytest.mark.parametrize("name", NAMES)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def inputs_of(name, *, training=True, requires_grad=False, dtype=torch.float64):
    torch.manual_seed(0)
    info = INFOS[name]
    return info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=requires_grad, training=training
    )


def built(name, given, backend, dtype=torch.float64):
    """Elman's module and torch's, with one set of weights."""
    args, kwargs = given.constructor_input.args, given.constructor_input.kwargs
    ours = getattr(elman, name)(*args, **kwargs, dtype=dtype, backend=backend)
    theirs = getattr(torch.nn, name)(*args, **kwargs, dtype=dtype)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def flat(value):
    """The tensors of a nested result, in order."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for v in value for t in flat(v)]


def assert_same(got, expected):
    got, expected = flat(got), flat(expected)
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-12, atol=1e-12)


def test_the_database_has_our_modules():
    assert set(INFOS) == set(NAMES)


@each_backend
@pytest.mark.parametrize("training", [True, False])
@each_module
def test_forward_equals_the_reference_function_and_torch(name, training, backend):
    for given in inputs_of(name, training=training):
        ours, theirs = built(name, given, backend)
        ours.train(training)
        theirs.train(training)
        args, kwargs = given.forward_input.args, given.forward_input.kwargs
        out = ours(*args, **kwargs)
        assert_same(out, theirs(*args, **kwargs))
        if given.reference_fn is not None:
            assert_same(out, given.reference_fn(ours, *args, **kwargs))
        assert str(ours).startswith(f"{name}(")


@each_backend
@pytest.mark.parametrize("name", ["RNN", "GRU"])
def test_packed_inputs_of_the_database(name, backend):
    torch.manual_seed(0)
    samples = module_inputs_torch_nn_RNN_GRU(
        INFOS[name],
        device="cpu",
        dtype=torch.float64,
        requires_grad=False,
        training=True,
        with_packed_sequence=True,
        is_rnn=name == "RNN",
    )
    packed = [s for s in samples if isinstance(s.forward_input.args[0], PackedSequence)]
    assert packed
    for given in packed:
        ours, theirs = built(name, given, backend)
        (x,) = given.forward_input.args
        got, expected = ours(x), theirs(x)
        assert_same(got, expected)
        assert torch.equal(got[0].batch_sizes, expected[0].batch_sizes)


def check_gradients(name, backend, check):
    # The database makes a case for each value of each flag; all are run forward above, and here
    # those with given states, which contain the others' paths.
    for given in inputs_of(name, requires_grad=True):
        args, kwargs = given.forward_input.args, given.forward_input.kwargs
        if len(args) < 2:
            continue
        module, _ = built(name, given, backend)
        parameters = tuple(module.parameters())
        leaves = tuple(flat(args))

        def run(*tensors, module=module, kwargs=kwargs, args=args, leaves=leaves):
            count = len(leaves)
            rest = list(tensors[:count])
            filled = [
                rest.pop(0) if isinstance(a, torch.Tensor) else tuple(rest.pop(0) for _ in a)
                for a in args
            ]
            weights = dict(zip(dict(module.named_parameters()), tensors[count:], strict=True))
            return tuple(flat(torch.func.functional_call(module, weights, tuple(filled), kwargs)))

        assert check(run, leaves + parameters, fast_mode=True)


@each_backend
@each_module
def test_grad(name, backend):
    check_gradients(name, backend, torch.autograd.gradcheck)


@each_backend
@each_module
def test_gradgrad(name, backend):
    check_gradients(name, backend, torch.autograd.gradgradcheck)


def noncontiguous(value):
    if isinstance(value, torch.Tensor):
        spread = torch.stack([value, torch.full_like(value, float("nan"))], -1)
        return spread[..., 0].detach().requires_grad_()
    return tuple(noncontiguous(v) for v in value)


@each_backend
@each_module
def test_noncontiguous_inputs(name, backend):
    for given in inputs_of(name, requires_grad=True):
        module, _ = built(name, given, backend)
        args = given.forward_input.args
        spread = noncontiguous(args)
        assert not all(t.is_contiguous() for t in flat(spread))
        results = []
        for inputs in (args, spread):
            out = flat(module(*inputs))
            total = sum((o * torch.linspace(1, 2, o.numel()).view_as(o)).sum() for o in out)
            results.append(torch.autograd.grad(total, [*flat(inputs), *module.parameters()]))
            results[-1] = (*out, *results[-1])
        assert_same(results[1], results[0])


@each_backend
@each_module
def test_copy_pickle_and_saved_weights(name, backend):
    for given in inputs_of(name)[:2]:
        module, theirs = built(name, given, backend)
        args = given.forward_input.args
        expected = module(*args)
        assert_same(copy.deepcopy(module)(*args), expected)
        assert_same(pickle.loads(pickle.dumps(module))(*args), expected)
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        assert_same(torch.load(file, weights_only=False)(*args), expected)
        other, _ = built(name, given, backend)
        other.load_state_dict(theirs.state_dict())
        assert_same(other(*args), expected)
        theirs.load_state_dict(module.state_dict())
        assert_same(theirs(*args), expected)


@each_module
def test_factory_arguments_and_conversion(name):
    for given in inputs_of(name)[:2]:
        args, kwargs = given.constructor_input.args, given.constructor_input.kwargs
        meta = getattr(elman, name)(*args, **kwargs, device="meta", dtype=torch.float64)
        assert all(p.is_meta and p.dtype == torch.float64 for p in meta.parameters())
        empty = meta.to_empty(device="cpu")
        assert all(p.device.type == "cpu" for p in empty.parameters())
        single = getattr(elman, name)(*args, **kwargs).double()
        assert all(p.dtype == torch.float64 for p in single.parameters())
        single(*given.forward_input.args)


@each_module
def test_same_seed_same_weights_as_torch(name):
    for given in inputs_of(name):
        args, kwargs = given.constructor_input.args, given.constructor_input.kwargs
        torch.manual_seed(5)
        ours = getattr(elman, name)(*args, **kwargs)
        torch.manual_seed(5)
        theirs = getattr(torch.nn, name)(*args, **kwargs)
        pairs = list(zip(ours.named_parameters(), theirs.named_parameters(), strict=True))
        assert all(a == b and torch.equal(p, q) for (a, p), (b, q) in pairs)
        ours.reset_parameters()
        theirs.reset_parameters()
        assert not torch.equal(pairs[0][0][1], pairs[-1][0][1])


@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_module
def test_error_inputs(name, dtype, backend):
    info = INFOS[name]
    samples = info.module_error_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=False, training=True
    )
    assert samples
    for sample in samples:
        given = sample.module_error_input
        args, kwargs = given.constructor_input.args, given.constructor_input.kwargs
        if sample.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(sample.error_type, match=sample.error_regex) as caught:
                getattr(elman, name)(*args, **kwargs, backend=backend)
            with pytest.raises(sample.error_type) as theirs:
                getattr(torch.nn, name)(*args, **kwargs)
        else:
            x = given.forward_input.args
            kind = {} if "dtype" in kwargs else {"dtype": x[0].dtype}
            module = getattr(elman, name)(*args, **kwargs, **kind, backend=backend)
            with pytest.raises(sample.error_type, match=sample.error_regex) as caught:
                module(*x)
            with pytest.raises(sample.error_type) as theirs:
                getattr(torch.nn, name)(*args, **kwargs, **kind)(*x)
        assert isinstance(caught.value, elman.InputError)
        assert str(caught.value).startswith(str(theirs.value))
        assert len(str(caught.value)) > len(str(theirs.value))


def test_make_tensor_is_not_constant():
    """The database's inputs must be random, or the comparisons above prove little."""
    assert make_tensor((5,), device="cpu", dtype=torch.float64).std() > 0
