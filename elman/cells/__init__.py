"""The cells that come with Elman, by family: equations only, each with its source."""

from __future__ import annotations

from elman.cells import (
    ablations,
    delay,
    dynamical,
    gated,
    graph,
    gru,
    linear,
    lstm,
    memory,
    simple,
    tree,
)
from elman.equation import Cell
from elman.errors import InputError, nearest

FAMILIES: dict[str, tuple[Cell, ...]] = {
    "simple": (
        simple.simple,
        simple.jordan,
        simple.irnn,
        simple.residual_input,
        simple.residual,
        simple.indrnn,
        simple.second_order,
        simple.fast_rnn,
        simple.scrn,
    ),
    "delay": (delay.tdnn, delay.narx),
    "lstm": (
        lstm.lstm,
        lstm.lstm_1997,
        lstm.peephole_lstm,
        lstm.coupled_lstm,
        lstm.lstm_projected,
        lstm.res_lstm,
        lstm.wmc_lstm,
        lstm.mc_lstm,
        ablations.lstm_no_input_gate,
        ablations.lstm_no_forget_gate,
        ablations.lstm_no_output_gate,
        ablations.lstm_no_input_activation,
        ablations.lstm_no_output_activation,
        ablations.coupled_peephole_lstm,
        ablations.lstm_full_gate_recurrence,
    ),
    "gru": (
        gru.gru,
        gru.gru_cho,
        gru.gru_update_only,
        gru.mgu,
        gru.mingru,
        gru.ugrnn,
        gru.li_gru,
        gru.light_ru,
        gru.mut1,
        gru.mut2,
        gru.mut3,
        gru.sgu,
        gru.dsgu,
    ),
    "gated": (
        gated.janet,
        gated.minlstm,
        gated.multiplicative_lstm,
        gated.recurrent_highway,
        gated.atr,
        gated.brc,
        gated.nbrc,
        gated.cfn,
        gated.minimal_rnn,
        gated.star,
        gated.sgrn,
        gated.ran,
        gated.fast_grnn,
        gated.intersection_rnn,
        gated.miru1,
        gated.miru2,
        gated.nas,
    ),
    "dynamical": (
        dynamical.antisymmetric_rnn,
        dynamical.lipschitz_rnn,
        dynamical.tau_gru,
        dynamical.cfc,
        dynamical.gated_antisymmetric_rnn,
        dynamical.co_rnn,
        dynamical.unicornn,
        dynamical.lem,
    ),
    "linear": (
        linear.lru,
        linear.sru_2017,
        linear.sru,
        linear.qrnn_f,
        linear.qrnn_fo,
        linear.qrnn_ifo,
        linear.t_rnn,
        linear.t_gru,
        linear.t_lstm,
    ),
    "memory": (memory.slstm, memory.mlstm),
}

OF_TREES: tuple[Cell, ...] = (
    tree.recursive,
    tree.child_sum_tree_lstm,
    tree.nary_tree_lstm,
    tree.tree_gru,
)
OF_GRAPHS: tuple[Cell, ...] = (
    graph.gated_graph,
    graph.gated_graph_typed,
    graph.message_passing,
    graph.graph_convolution,
    graph.mean_neighbours,
)

_KINDS: dict[str, tuple[Cell, ...]] = {
    "sequences": tuple(cell for family in FAMILIES.values() for cell in family),
    "trees": OF_TREES,
    "graphs": OF_GRAPHS,
}
_BY_NAME: dict[str, Cell] = {cell.name: cell for kind in _KINDS.values() for cell in kind}


def names(of: str = "sequences") -> list[str]:
    """The names of the cells, family by family.

    Args:
        of: "sequences" (for `elman.Recurrent`), "trees" (for `elman.Tree`) or "graphs" (for
            `elman.Network`).

    Raises:
        InputError: there is no such kind.

    Example:
        >>> import elman
        >>> elman.cells.names()[:3]
        ['simple', 'jordan', 'irnn']
        >>> elman.cells.names("trees")[0]
        'recursive'
    """
    if of not in _KINDS:
        raise InputError(f"there are no cells of {of!r}.{nearest(of, _KINDS)} There are those of "
                         f"{', '.join(_KINDS)}")  # fmt: skip
    return [cell.name for cell in _KINDS[of]]


def get(name: str) -> Cell:
    """The cell of this name.

    Args:
        name: one of `names()`.

    Raises:
        InputError: there is no such cell; the error names the nearest.

    Example:
        >>> import elman
        >>> elman.cells.get("gru").states
        ('h',)
    """
    if not isinstance(name, str):
        raise InputError(f"a cell's name is text, such as 'lstm'; got {type(name).__name__}")
    if name not in _BY_NAME:
        raise InputError(
            f"There is no cell {name!r}.{nearest(name, _BY_NAME)} There are: {', '.join(_BY_NAME)}"
        )
    return _BY_NAME[name]


__all__ = ["FAMILIES", "OF_GRAPHS", "OF_TREES", "get", "names"]
