"""The cells under the law tests: one row a cell, then variants with other hyper-parameters.

A new cell is its function with docstring and source, and one row here; every law follows.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

import elman
from elman.backends.reference import initial_carried, run
from elman.equation import Cell, Graph
from elman.equation.sizes import shape_of

SIZES = {"input": 3, "hidden": 4, "projection": 2, "output": 2}


@dataclass(frozen=True)
class Case:
    """A cell, its hyper-parameters where they are not the defaults, its sizes where not `SIZES`.

    `keeps` says which way the update gate points: the gate's value at which the state stays.
    """

    name: str
    hyper: dict = field(default_factory=dict)
    sizes: dict = field(default_factory=dict)
    gate: str = ""
    keeps: int = -1

    @property
    def id(self) -> str:
        values = (f"{key}={value}" for key, value in (self.hyper | self.sizes).items())
        return "-".join((self.name, *values))

    @property
    def cell(self) -> Cell:
        return elman.cells.get(self.name).with_hyper(**self.hyper)

    @property
    def graph(self) -> Graph:
        return self.cell.graph

    @property
    def all_sizes(self) -> dict[str, int]:
        sizes = SIZES | self.sizes
        return {name: sizes[name] for name in self.graph.sizes}


CELLS = (
    Case("simple"),
    Case("jordan"),
    Case("irnn"),
    Case("residual_input"),
    Case("residual"),
    Case("indrnn"),
    Case("second_order"),
    Case("fast_rnn"),
    Case("scrn"),
    Case("tdnn"),
    Case("narx"),
    Case("lstm"),
    Case("lstm_1997"),
    Case("peephole_lstm"),
    Case("coupled_lstm"),
    Case("lstm_projected"),
    Case("res_lstm", sizes={"hidden": 3}),
    Case("wmc_lstm", sizes={"hidden": 3}),
    Case("mc_lstm", sizes={"hidden": 3}),
    Case("lstm_no_input_gate"),
    Case("lstm_no_forget_gate"),
    Case("lstm_no_output_gate"),
    Case("lstm_no_input_activation"),
    Case("lstm_no_output_activation"),
    Case("coupled_peephole_lstm"),
    Case("lstm_full_gate_recurrence", sizes={"hidden": 2}),
    Case("gru", gate="z", keeps=1),
    Case("gru_cho", gate="z", keeps=1),
    Case("gru_update_only", gate="z", keeps=1),
    Case("mgu", gate="f", keeps=0),
    Case("mingru", gate="z", keeps=0),
    Case("ugrnn", gate="g", keeps=1),
    Case("li_gru", gate="z", keeps=1),
    Case("light_ru", gate="f", keeps=0),
    Case("mut1", gate="z", keeps=0),
    Case("mut2", gate="z", keeps=0),
    Case("mut3", gate="z", keeps=0),
    Case("sgu", gate="z", keeps=0),
    Case("dsgu", gate="z", keeps=0),
    Case("janet"),
    Case("minlstm"),
    Case("multiplicative_lstm"),
    Case("recurrent_highway", sizes={"hidden": 3}),
    Case("atr"),
    Case("brc"),
    Case("nbrc"),
    Case("cfn"),
    Case("minimal_rnn"),
    Case("star"),
    Case("sgrn"),
    Case("ran"),
    Case("fast_grnn"),
    Case("intersection_rnn", sizes={"hidden": 3}),
    Case("miru1"),
    Case("miru2"),
    Case("nas", sizes={"hidden": 2}),
    Case("antisymmetric_rnn"),
    Case("lipschitz_rnn"),
    Case("tau_gru", {"tau": 2}),
    Case("cfc"),
    Case("gated_antisymmetric_rnn"),
    Case("co_rnn"),
    Case("unicornn"),
    Case("lem"),
    Case("lru", sizes={"hidden": 3}),
    Case("sru_2017"),
    Case("sru"),
    Case("qrnn_f"),
    Case("qrnn_fo"),
    Case("qrnn_ifo"),
    Case("t_rnn"),
    Case("t_gru"),
    Case("t_lstm"),
    Case("slstm", {"heads": 2}),
    Case("mlstm", sizes={"hidden": 3}),
)

VARIANTS = (
    Case("simple", {"f": "relu"}),
    Case("simple", {"f": "softmax"}),
    Case("jordan", {"f": "sigmoid", "g": "sigmoid"}, {"output": 4}),
    Case("irnn", {"scale": 0.1}),
    Case("residual", {"g": "elu"}),
    Case("indrnn", {"f": "tanh"}),
    Case("tdnn", {"K": 0}),
    Case("tdnn", {"K": 2, "dilation": 2}),
    Case("narx", {"Kx": 0, "Ky": 1}),
    Case("narx", {"Kx": 1, "Ky": 4, "g": "tanh"}),
    Case("lstm_projected", sizes={"projection": 4}),
    Case("gru_update_only", {"f": "relu"}),
    Case("janet", {"beta": 0.0}),
    Case("fast_rnn", {"f": "relu"}),
    Case("scrn", {"alpha": 0.5, "f": "softmax"}),
    Case("li_gru", {"f": "tanh"}),
    Case("ran", {"f": "linear"}),
    Case("miru2", {"update": 0.25, "reset": 1.0}),
    Case("qrnn_f", {"width": 1}),
    Case("qrnn_fo", {"width": 4}),
)

CASES = CELLS + VARIANTS


def generator(case: Case, seed: int = 0) -> torch.Generator:
    """Random numbers of a case's own, the same in every run."""
    return torch.Generator().manual_seed(zlib.crc32(case.id.encode()) + seed)


def random_parameters(case: Case, seed: int = 0, dtype=torch.float64) -> dict[str, Tensor]:
    """Distinct random parameters, with biases that are not zero."""
    numbers = generator(case, seed)
    shapes = case.graph.parameter_shapes(case.all_sizes)
    return {
        name: 0.6 * torch.randn(shape, generator=numbers, dtype=dtype)
        for name, shape in shapes.items()
    }


def random_input(case: Case, time: int, batch: int, seed: int = 1, dtype=torch.float64) -> Tensor:
    """x, and behind its features those of the further inputs, so that both are cut alike."""
    numbers = generator(case, seed)
    width = sum(width for _, width in extra_inputs(case)) + case.all_sizes["input"]
    return torch.randn(time, batch, width, generator=numbers, dtype=dtype)


def extra_inputs(case: Case) -> list[tuple[str, int]]:
    """The further inputs of a cell, scalars or vectors, with their widths in `random_input`."""
    return [(i.name, math.prod(shape_of(i.dims, SIZES))) for i in case.graph.inputs[1:]]


def split_input(case: Case, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What `random_input` gave, as x and the further inputs by name."""
    width = case.all_sizes["input"]
    extras, rest = {}, x[..., width:]
    for (name, size), declared in zip(extra_inputs(case), case.graph.inputs[1:], strict=True):
        extras[name] = rest[..., :size] if declared.dims else rest[..., 0]
        rest = rest[..., size:]
    return x[..., :width], extras


def random_carried(case: Case, batch: int, seed: int = 2, dtype=torch.float64):
    """Random states and random delay lines, as after some steps."""
    numbers = generator(case, seed)
    start = initial_carried(case.graph, case.all_sizes, batch, dtype=dtype)
    return tuple(0.5 * torch.randn(v.shape, generator=numbers, dtype=dtype) for v in start)


def run_case(case: Case, parameters, x, carried, **options):
    """Outputs and what is carried on, by the reference."""
    out, last, _ = run_graph(case, case.graph, parameters, x, carried, **options)
    return out, last


def run_graph(case: Case, graph: Graph, parameters, x, carried, **options):
    """Outputs, what is carried on, and all states, by the reference."""
    x, extras = split_input(case, x)
    return run(graph, parameters, x, carried, extras=extras, **options)
