"""Penalties, clipping, averaging and optimisers, against sums done by hand."""

import copy

import pytest
import torch
from torch import nn

from elman.training.optimise import (
    Average,
    Muon,
    add_penalty_gradients,
    clip,
    make_optimizers,
    norm_of,
    orthogonal,
    penalty,
    recurrent_matrices,
    set_rate,
)
from elman.training.options import TrainingOptions


def make_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.ModuleDict(
        {"embed": nn.Embedding(5, 3), "lstm": nn.LSTM(3, 4, proj_size=2), "head": nn.Linear(2, 5)}
    ).double()


def with_gradients(model: nn.Module) -> list[nn.Parameter]:
    parameters = list(model.parameters())
    for weight in parameters:
        weight.grad = torch.randn_like(weight)
    return parameters


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_penalty_gradients_are_those_of_the_penalty(l1, l2):
    parameters = list(make_model().parameters())
    value = sum((l1 * w.abs() + l2 * w**2).sum() for w in parameters if w.ndim == 2)
    assert isinstance(value, torch.Tensor)
    wanted = torch.autograd.grad(value, [w for w in parameters if w.ndim == 2])
    assert penalty(parameters, l1, l2) == pytest.approx(float(value.detach()))
    with_gradients_before = [torch.randn_like(w) for w in parameters]
    for weight, gradient in zip(parameters, with_gradients_before, strict=True):
        weight.grad = gradient.clone()
    add_penalty_gradients(parameters, l1, l2)
    expected = iter(wanted)
    for weight, before in zip(parameters, with_gradients_before, strict=True):
        add = next(expected) if weight.ndim == 2 else torch.zeros_like(before)
        torch.testing.assert_close(weight.grad, before + add, rtol=1e-12, atol=1e-12)


def test_parameters_without_a_gradient_are_let_be():
    weight = nn.Parameter(torch.ones(2, 2))
    add_penalty_gradients([weight], 1.0, 1.0)
    assert weight.grad is None
    clip([], 0.0, 1.0, 1.0)
    assert norm_of([]) == 0.0


@pytest.mark.parametrize("longest", [0.5, 1e6])
def test_clipping_by_norm_is_torch_s(longest):
    ours = with_gradients(make_model())
    theirs = copy.deepcopy(ours)
    for mine, other in zip(ours, theirs, strict=True):
        other.grad = mine.grad.clone()
    expected = nn.utils.clip_grad_norm_(theirs, longest)
    gradients = [w.grad for w in ours]
    norm = norm_of(gradients)
    assert norm == pytest.approx(float(expected))
    clip(gradients, norm, longest, 0.0)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=0)


def test_values_are_clipped_before_the_norm():
    gradient = torch.tensor([3.0, -0.5, -8.0])
    clip([gradient], norm_of([gradient]), 0.0, 1.0)
    assert gradient.tolist() == [1.0, -0.5, -1.0]
    clip([gradient], norm_of([gradient]), 0.75, 1.0)
    torch.testing.assert_close(gradient, torch.tensor([0.5, -0.25, -0.5]))


def test_the_average_is_the_mean_at_part_one_and_swaps_to_the_bit():
    weight = nn.Parameter(torch.tensor([0.0]))
    average = Average.of([weight], 1.0)
    for step, value in enumerate([3.0, 6.0, 12.0], 1):
        weight.data.fill_(value)
        average.update(step)
    assert float(average.average[0]) == pytest.approx((0 + 3 + 6 + 12) / 4)
    kept = average.average[0].clone()
    average.swap()
    assert torch.equal(weight.detach(), kept)
    average.swap()
    assert weight.item() == 12.0
    assert torch.equal(average.average[0], kept)


def test_the_average_by_the_formula():
    weight = nn.Parameter(torch.tensor([1.0]))
    average = Average.of([weight], 0.25)
    expected = 1.0
    for step in range(1, 6):
        weight.data.fill_(float(step * step))
        average.update(step)
        expected += (step * step - expected) / (1 + 0.25 * step)
    assert float(average.average[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 6, 6), (4, 5, 9), (3, 9, 5)])
def test_orthogonal_keeps_directions_and_levels_singular_values(shape):
    torch.manual_seed(0)
    given = torch.randn(shape, dtype=torch.float64)
    found = orthogonal(given)
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    values = (left.mT @ found @ right.mT).diagonal(dim1=1, dim2=2)
    rest = left.mT @ found @ right.mT - torch.diag_embed(values)
    assert float(rest.abs().max()) < 1e-9
    assert 0.3 < float(values.min()) <= float(values.max()) < 1.3


def test_muon_takes_the_recurrent_matrices_gate_by_gate():
    model = make_model()
    rows = {tuple(w.shape): blocks for w, blocks in recurrent_matrices(model)}
    assert rows == {(16, 3): 4, (16, 2): 4, (2, 4): 1}
    first, second = make_optimizers(model, TrainingOptions(optimizer="muon", muon_lr=0.1))
    assert isinstance(first, Muon)
    assert [w.ndim for group in second.param_groups for w in group["params"]] == [2, 2, 1, 1, 1]
    set_rate([first, second], 0.5)
    assert first.param_groups[0]["lr"] == pytest.approx(0.05)


def test_a_step_of_muon_by_hand():
    weight = nn.Parameter(torch.randn(6, 2, dtype=torch.float64))
    before, gradient = weight.detach().clone(), torch.randn(6, 2, dtype=torch.float64)
    weight.grad = gradient
    Muon([(weight, 2)], lr=0.1, momentum=0.9, weight_decay=0.5, precision=torch.float64).step()
    ahead = 0.1 * gradient + 0.9 * (0.1 * gradient)
    direction = torch.cat([orthogonal(block[None])[0] for block in ahead.chunk(2)])
    expected = before * (1 - 0.1 * 0.5) - 0.1 * (3 / 2) ** 0.5 * direction
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_optimisers_are_torch_s_and_vectors_do_not_decay(name):
    model, options = make_model(), TrainingOptions(optimizer=name, lr=0.1, weight_decay=0.2)
    options = options if name == "adamw" else options.model_copy(update={"weight_decay": 0.0})
    reference = copy.deepcopy(model)
    parameters, others = with_gradients(model), list(reference.parameters())
    for mine, other in zip(parameters, others, strict=True):
        other.grad = mine.grad.clone()
    plain = {
        "adamw": lambda ps, decay: torch.optim.AdamW(ps, 0.1, (0.9, 0.99), weight_decay=decay),
        "adam": lambda ps, decay: torch.optim.Adam(ps, 0.1, (0.9, 0.99)),
        "sgd": lambda ps, decay: torch.optim.SGD(ps, 0.1, 0.9),
    }[name]
    plain([w for w in others if w.ndim > 1], options.weight_decay).step()
    plain([w for w in others if w.ndim == 1], 0.0).step()
    (ours,) = make_optimizers(model, options)
    ours.step()
    for mine, other in zip(parameters, others, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
