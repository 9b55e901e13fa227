"""torchrecurrent's cells beside ours: which is which, and how weights go from ours to theirs.

`PEERS` has one entry for every cell that torchrecurrent 0.2.5 exports, by the name of ours:

    theirs, ours, copy = PEERS["mgu"].build(64, 128)
    copy()                     # theirs now has the weights of ours
    theirs(x)[0], ours(x)[0]   # x: (time, batch, 64)

Importing this needs no torchrecurrent; `build` does. tests/test_torchrecurrent.py compares all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import elman


class Pair(NamedTuple):
    """Their layer, our layer, and what copies the weights of ours into theirs."""

    theirs: nn.Module
    ours: elman.Recurrent
    copy: Callable[[], None]


@dataclass(frozen=True)
class Peer:
    """A cell that both libraries have.

    Attributes:
        cell: the name of ours.
        layer: the name of their layer; the cell beneath it is named with "Cell" behind.
        weights: for each of their tensors the parameters of ours that are stacked in it, in order,
            divided by spaces; "0" is a block of zeros. A bias that is not listed is zero: their
            second one, or one that the paper does not have. Their other numbers (β of JANET, α of
            SCRN, which theirs trains) stay as `options` set them.
        hyper: hyper-parameters of ours where not the default.
        options: arguments of theirs, so that it has the same hyper-parameters.
        identity: parameters of ours that theirs has not, and which are I for the comparison.
        differs: where their equation is not ours; empty where the two agree.
    """

    cell: str
    layer: str
    weights: Mapping[str, str]
    hyper: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    identity: tuple[str, ...] = ()
    differs: str = ""

    @property
    def square(self) -> bool:
        """Whether theirs takes only an input of the hidden size."""
        return bool(self.identity)

    def build(
        self, input_size: int, hidden_size: int, dtype: torch.dtype = torch.float32, **options: Any
    ) -> Pair:
        """Both layers, one deep, with weights of their own until `copy` is called.

        Args:
            input_size: features of x, ≥ 1; for a `square` peer the same as hidden_size.
            hidden_size: units, ≥ 1.
            dtype: the number type of both.
            options: further arguments of `elman.Recurrent`, such as backend.

        Raises:
            ImportError: torchrecurrent is not installed (pip install 'elman[bench]').
            ValueError: the sizes differ and theirs needs them equal.
        """
        import torchrecurrent

        if self.square and input_size != hidden_size:
            raise ValueError(
                f"torchrecurrent's {self.layer} needs input_size == hidden_size; got {input_size} "
                f"and {hidden_size}"
            )
        theirs = getattr(torchrecurrent, self.layer)(
            input_size, hidden_size, dtype=dtype, **self.options
        )
        cell = elman.cells.get(self.cell).with_hyper(**self.hyper)
        ours = elman.Recurrent(cell, input_size, hidden_size, dtype=dtype, **options)
        return Pair(theirs, ours, lambda: self.copy(theirs, ours))

    def copy(self, theirs: nn.Module, ours: elman.Recurrent) -> None:
        """Set the weights of theirs to those of ours; parameters in `identity` become I in ours."""
        with torch.no_grad():
            parameters = named(ours)
            for name in self.identity:
                nn.init.eye_(parameters[name])
            for name, tensor in theirs.cells[0].named_parameters():
                if name in self.weights:
                    tensor.copy_(self.stacked(name, parameters, tensor))
                elif name.startswith("bias"):
                    tensor.zero_()

    def stacked(self, name: str, values: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """Values by the names of ours in the shape of their tensor `name`, zeros for "0"."""
        blocks = self.weights[name].split()
        zero = like.new_zeros(len(like) // len(blocks), *like.shape[1:])
        return torch.cat([zero if b == "0" else values[b].reshape(zero.shape) for b in blocks])


def named(ours: elman.Recurrent) -> dict[str, Tensor]:
    """The parameters of our one-layer module by their names in the equation."""
    return {name.removesuffix("_l0"): p for name, p in ours.named_parameters()}


def _of(names: str, *kinds: str) -> str:
    """Of "W U" and the gates "i f": "W_i W_f U_i U_f"."""
    return " ".join(f"{name}_{kind}" for name in names.split() for kind in kinds)


def _gates(gates: str, w: str = "W", u: str = "U") -> dict[str, str]:
    """The three tensors of a cell whose gates all see x and h and have a bias."""
    kinds = gates.split()
    return {
        "weight_ih": _of(w, *kinds),
        "weight_hh": _of(u, *kinds),
        "bias_ih": _of("b", *kinds),
    }


_PLAIN = {"weight_ih": "W", "weight_hh": "U", "bias_ih": "b"}
_TURNED = {"epsilon": 0.1, "gamma": 0.01}

_ALL = (
    Peer("antisymmetric_rnn", "AntisymmetricRNN",
         {"weight_ih": "V", "weight_hh": "W", "bias_ih": "b"}, options=_TURNED),
    Peer("gated_antisymmetric_rnn", "GatedAntisymmetricRNN",
         {"weight_ih": "V_z V", "weight_hh": "W", "bias_ih": "b_z b"}, options=_TURNED),
    Peer("atr", "ATR", {"weight_ih": "W", "weight_hh": "U", "bias_hh": "b"}),
    Peer("brc", "BR",
         {"weight_ih": "W_a W_c W", "weight_hh": "w_a w_c", "bias_ih": "b_a b_c 0"}),
    Peer("nbrc", "NBR",
         {"weight_ih": "W_a W_c W", "weight_hh": "U_a U_c", "bias_ih": "b_a b_c 0"}),
    Peer("cfn", "CFN", {"weight_ih": "W_theta W_eta W", "weight_hh": "U_theta U_eta",
                        "bias_ih": "b_theta b_eta 0"}),
    Peer("sgu", "SGU", _gates("g z")),
    Peer("dsgu", "DSGU", _gates("g z") | {"weight_ho": "W_o"}),
    Peer("mc_lstm", "MCLSTM", _gates("f i o m g")),
    Peer("mgu", "MGU", _gates("f n")),
    Peer("minimal_rnn", "MinimalRNN", {"weight_ih": "W", "bias_ih": "b", "weight_hh": "U_h",
                                       "weight_mm": "U_z", "bias_hh": "b_u"}),
    Peer("miru1", "MiRU1", _gates("r n")),
    Peer("miru2", "MiRU2", _PLAIN),
    Peer("co_rnn", "coRNN",
         {"weight_ih": "V", "weight_hh": "W", "weight_ch": "Z", "bias_ih": "b"}),
    Peer("fast_rnn", "FastRNN", _PLAIN | {"alpha": "alpha", "beta": "beta"}),
    Peer("fast_grnn", "FastGRNN",
         {"weight_ih": "W", "weight_hh": "U", "bias_ih": "b_z b_n", "zeta": "zeta", "nu": "nu"},
         options={"nonlinearity": "sigmoid"}),  # of the gate; their default there is tanh
    Peer("indrnn", "IndRNN", {"weight_ih": "W", "vector_u": "u", "bias_ih": "b"},
         options={"nonlinearity": "relu"}),
    Peer("intersection_rnn", "IntersectionRNN", _gates("y h gy gh"), identity=("W_x",)),
    Peer("janet", "JANET", _gates("f g")),
    Peer("lem", "LEM",
         {"weight_ih": "V_2 V_1 V_z V_y", "weight_hh": "W_2 W_1 W_z", "weight_ch": "W_y",
          "bias_ih": "b_2 b_1 b_z b_y"},
         differs="their y sees the old z; the paper's sees the new one"),
    Peer("li_gru", "LiGRU", _gates("z n")),
    Peer("light_ru", "LightRU", {"weight_ih": "W_n W_f", "weight_hh": "U_f", "bias_ih": "0 b_f"}),
    Peer("multiplicative_lstm", "MultiplicativeLSTM",
         {"weight_ih": _of("W", *"mifgo"), "weight_hh": "U_m", "weight_mh": _of("U", *"ifgo"),
          "bias_ih": "0 " + _of("b", *"ifgo")}),
    Peer("mut1", "MUT1", {"weight_ih": "W_z W_r W_n", "weight_hh": "U_r U_n",
                          "bias_ih": "b_z b_r 0", "bias_hh": "0 b_n"}),
    Peer("mut2", "MUT2", _gates("z r n")),
    Peer("mut3", "MUT3", _gates("z r n")),
    Peer("nas", "NAS", {"weight_ih": _of("W", *"01234567"), "weight_hh": _of("U", *"01234567")},
         differs="their fourth pair of products is added; the authors' code multiplies it"),
    Peer("lstm_1997", "OriginalLSTM", _gates("i g o")),
    Peer("peephole_lstm", "PeepholeLSTM", _gates("i f g o") | {"weight_ph": "v_i v_f v_o"}),
    Peer("ran", "RAN", {"weight_ih": "W W_i W_f", "weight_hh": "U_i U_f", "bias_ih": "b_i b_f"}),
    Peer("res_lstm", "ResLSTM", _gates("i f g o")
         | {"weight_ph": "v_i v_f v_o", "weight_proj": "P", "weight_res": "R"}),
    Peer("scrn", "SCRN", {"weight_ih": "B A", "weight_hh": "R U", "weight_ch": "P V"},
         hyper={"f": "tanh", "alpha": 0.5},
         differs="their hidden layer sees the last output y; the paper's sees its own last h"),
    Peer("sgrn", "SGRN", {"weight_ih": "W", "weight_hh": "U", "bias_hh": "b"}),
    Peer("star", "STAR", {"weight_ih": "W_z W_k", "weight_hh": "U_k", "bias_ih": "b_z b_k"}),
    Peer("tau_gru", "tauGRU", _gates("u z g a"), options={"delay": 10}),
    Peer("t_rnn", "TRNN", {"weight_ih": "W_z W_f", "bias_ih": "0 b_f"}),
    Peer("t_gru", "TGRU", _gates("z f o", u="V")),
    Peer("t_lstm", "TLSTM", _gates("z f o", u="V")),
    Peer("ugrnn", "UGRNN", _gates("c g")),
    Peer("unicornn", "UnICORNN",
         {"weight_ih": "V", "weight_hh": "w", "weight_ch": "c", "bias_ih": "b"},
         options={"alpha": 1.0}),
    Peer("wmc_lstm", "WMCLSTM", _gates("i f g o") | {"weight_mh": "V_i V_f V_o"}),
)  # fmt: skip

PEERS: dict[str, Peer] = {peer.cell: peer for peer in _ALL}
