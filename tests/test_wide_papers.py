"""The wide cells against programs of their papers: outputs and gradients."""

from __future__ import annotations

import ast
import inspect
import textwrap

import numpy as np
import pytest
import torch
from tolerances import ORACLE
from wide_papers import (
    PAPERS,
    far,
    gradient_deviations,
    lru,
    lru_in_torch,
    output_deviations,
    paper,
    setting,
)

import elman


@pytest.mark.parametrize("program", PAPERS, ids=lambda program: program.__name__)
def test_outputs_are_those_of_the_paper(program):
    deviations = output_deviations(program, PAPERS[program])
    assert max(deviations.values()) <= ORACLE[torch.float64], deviations


@pytest.mark.parametrize("program", PAPERS, ids=lambda program: program.__name__)
def test_gradients_are_those_of_the_paper(program):
    deviations = gradient_deviations(program, PAPERS[program])
    assert max(deviations.values()) <= ORACLE[torch.float64], deviations


def test_complex_numbers_in_torch_are_those_of_numpy():
    named = setting(PAPERS[lru])
    arrays = {k: v.numpy() for k, v in named.items()}
    one, other = paper(lru_in_torch, named, 0), paper(lru, arrays, 0)
    assert far(torch.stack(one[0]), np.stack(other[0])) < 1e-14


@pytest.mark.parametrize("program", PAPERS, ids=lambda program: program.__name__)
def test_a_body_has_at_most_twelve_lines(program):
    source = textwrap.dedent(inspect.getsource(elman.cells.get(program.__name__).body))
    (function,) = ast.parse(source).body
    first, *rest = function.body
    assert isinstance(first, ast.Expr)
    assert isinstance(first.value, ast.Constant)  # the docstring, which does not count
    assert rest[-1].end_lineno - rest[0].lineno + 1 <= 12
