"""A chain of torch's modules and our layers, through whose whole depth credit can be carried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from elman.backends.call import Carried as Kept
from elman.errors import InputError
from elman.layers import checks
from elman.layers.base import RecurrentLayer
from elman.layers.calls import one_or_all
from elman.layers.carried import Passed, bytes_of, carry_in_words, refuse, run, taken
from elman.layers.explain import explain
from elman.layers.forms import BATCH_FIRST, TIME_FIRST, UNBATCHED, Form, Given, real_steps
from elman.layers.links import Link, links_of
from elman.layers.stateless import dense_links, link_of
from elman.layers.states import read_state, write_state
from elman.learning import BPTT, Carried


class Chain(nn.Module):
    r"""Modules one after another over a sequence; state in, state out.

    As nn.Sequential, where a recurrent layer takes its entry of the state and gives a new one.
    Under a carry the influence is that of every weight in or below the last recurrent layer on the
    states of all; what lies above needs none.

    Args:
        modules: recurrent layers of Elman in one direction, and, in any order: nn.Linear,
            nn.LayerNorm over the last size, nn.Dropout, nn.Identity, and what has no parameters and
            consists of operations of the language (nn.Tanh, nn.ReLU, nn.SiLU, nn.ELU and others);
            nn.Embedding as the first. Above the last recurrent layer any module at all. At least
            one recurrent layer.
        learning: how credit travels in time through all of them; `elman.BPTT()` if not given. The
            layers themselves are built without `learning`.

    Shapes:
        x: (time, batch, features), or whole numbers (time, batch) for an nn.Embedding; batch before
        time where the recurrent layers are batch_first. state: a tuple with one entry for each
        recurrent layer, in that layer's form; under a carry `elman.learning.Carried` of that tuple
        and the influence. lengths: (batch,). resets: (time, batch), batch before time as for x.

    Raises:
        InputError: a module that credit cannot be carried through, by name; no recurrent layer.

    Example:
        >>> import elman, torch
        >>> words = torch.nn.Embedding(5, 3)
        >>> chain = elman.Chain(
        ...     words, elman.LSTM(3, 4), torch.nn.Linear(4, 5), learning=elman.RTRL()
        ... )
        >>> out, state = chain(torch.tensor([[0], [3], [1]]))
        >>> out.shape, [tuple(t.shape) for t in state.influence]
        (torch.Size([3, 1, 5]), [(1, 8, 15), (1, 8, 128)])
    """

    def __init__(self, *modules: nn.Module, learning: BPTT | None = None):
        super().__init__()
        self.learning = BPTT() if learning is None else learning
        self.links = nn.ModuleList(modules)
        last = max((i for i, m in enumerate(modules) if isinstance(m, RecurrentLayer)), default=-1)
        if last < 0:
            given = ", ".join(type(m).__name__ for m in modules) or "nothing"
            raise InputError(f"Chain: no recurrent layer of Elman among its modules ({given})")
        self._last = last
        checks.check_learning("Chain", self.learning)
        for place, module in enumerate(modules):
            if isinstance(module, RecurrentLayer):
                _check_layer(place, module, modules)
        self.batch_first = self._recurrent()[0].batch_first
        self._below = self._all_links()

    def set_learning(self, learning: BPTT) -> None:
        """Let credit travel in time in another way from the next call on.

        Args:
            learning: as the chain takes it when it is built.

        Raises:
            InputError: credit cannot be carried through one of the modules, which is named.
        """
        before = self.learning
        checks.check_learning("Chain", learning)
        try:
            self.learning = learning
            self._below = self._all_links()
        except InputError:
            self.learning = before
            raise

    def _recurrent(self) -> list[RecurrentLayer]:
        return [m for m in self.links if isinstance(m, RecurrentLayer)]

    def forward(
        self,
        x: Tensor,
        state: Carried | Sequence[Any] | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Run over a sequence.

        Args:
            x: the inputs.
            state: what to start with, as the call before returned it; initial states if not given.
            lengths: real steps of each row, 1 to time.
            resets: booleans, true at the first step of a segment.

        Returns:
            (out, state).

        Raises:
            SizeError: shapes, number types or lengths that do not fit, named.
            InputError: what cannot be carried.
        """
        owner, layers = "Chain", self._recurrent()
        states, influence = taken(state)
        got = self._given(x, lengths, resets)
        entries = _entries(states, len(layers))
        if self.learning.carry is not None:
            refuse(owner, got, states, carried=isinstance(state, Carried))
        elif influence:
            raise InputError(
                f"Chain: the state is that of a carry, and learning is {self.learning}; give "
                "state.states"
            )
        carried = []
        for layer, entry in zip(layers, entries, strict=True):
            carried += _start(layer, entry, got)
        passed = run(
            owner, self._below, got, carried, influence, self.learning,
            given=any(entry is not None for entry in entries),
        )  # fmt: skip
        out = got.form.restore(passed.out)
        for module in self.modules_above():
            out = module(out)
        after = self._written(layers, passed, got.form)
        return out, Carried(after, passed.influence) if self.learning.carry else after

    def modules_above(self) -> list[nn.Module]:
        """What lies above the last recurrent layer, and needs no carry."""
        top = self.links[self._last]
        dense = dense_links(top) if isinstance(top, RecurrentLayer) else []
        return [*(link.module for link in dense if link.module), *self.links[self._last + 1 :]]

    def learning_bytes(self, batch: int) -> int:
        """What the influence of a carry weighs, in bytes; 0 without a carry.

        Args:
            batch: rows, ≥ 1.
        """
        return bytes_of(self._below, self.learning, batch)

    def explain(self) -> str:
        """Say which backend runs each recurrent layer, and how credit is carried."""
        keep = self.learning.carry is not None and self.learning.window != 1
        words = []
        for layer in self._recurrent():
            choice = layer._choose(False, keep)
            words.append(
                explain(layer.owner, choice, self.learning.words(), whole=False, lengths=True)
            )
        if self.learning.carry is not None:
            words.append(carry_in_words(self._below, self.learning))
        return "\n".join(words)

    def extra_repr(self) -> str:
        return f"learning={self.learning}"

    def _all_links(self) -> list[Link]:
        """The links up to the last recurrent layer. Tracing takes a moment, and may refuse."""
        found: list[Link] = []
        for place, module in enumerate(self.links[: self._last + 1]):
            if isinstance(module, RecurrentLayer):
                found += links_of(module)
                found += dense_links(module) if place < self._last else ()
            elif self.learning.carry is None:
                found.append(Link(module=module))
            else:
                found += link_of(place, module)
        return found

    def _given(self, x: Tensor, lengths: object, resets: object) -> Given:
        """The call in the inner form."""
        if not isinstance(x, Tensor):
            raise checks.ArgumentTypeError(
                f"Chain: x is a {type(x).__name__}; give a tensor, padded and with lengths where "
                "its rows end before each other"
            )
        first = self.links[0]
        lead = x.dim() - (0 if isinstance(first, nn.Embedding) else 1)
        if lead not in (1, 2) or not x.shape[0]:
            features = "" if isinstance(first, nn.Embedding) else ", features"
            raise checks.SizeError(
                f"Chain: x has shape {tuple(x.shape)}; give (time, batch{features}), batch before "
                "time where the layers are batch_first, or without a batch"
            )
        if isinstance(first, RecurrentLayer):
            dtype = first._weight().dtype
            checks.check_input("Chain", x, first.input_size, dtype, batch_first=self.batch_first)
        marks = checks.check_resets("Chain", resets, tuple(x.shape[:lead]))
        form = Form(UNBATCHED if lead == 1 else BATCH_FIRST if self.batch_first else TIME_FIRST)
        if lead == 1:
            x, marks = x.unsqueeze(1), None if marks is None else marks.unsqueeze(1)
        elif self.batch_first:
            x, marks = x.transpose(0, 1), None if marks is None else marks.transpose(0, 1)
        if lengths is None:
            return Given(x, None, marks, form)
        real = checks.check_lengths("Chain", lengths, x.shape[0], x.shape[1], x.device)
        past = ~real_steps(x.shape[0], real)
        return Given(
            x.masked_fill(past.view(*past.shape, *[1] * (x.dim() - 2)), 0), real, marks, form
        )

    def _written(self, layers: list[RecurrentLayer], passed: Passed, form: Form) -> tuple[Any, ...]:
        """The state in the outer form, an entry for each recurrent layer."""
        result, carried = [], iter(passed.carried)
        for layer in layers:
            own = [next(carried) for _ in range(layer.num_layers)]
            states = write_state(layer.cell.graph, own, 1)
            result.append(one_or_all([form.restore_state(s) for s in states]))
        return tuple(result)


def _check_layer(place: int, layer: RecurrentLayer, modules: Sequence[nn.Module]) -> None:
    """Raise InputError where a recurrent layer cannot stand in a chain."""
    name = f"Chain: module {place}, {layer.owner},"
    if layer.bidirectional:
        raise InputError(f"{name} is bidirectional; a chain goes one way, from step to step")
    if layer.learning != BPTT():
        raise InputError(
            f"{name} has learning={layer.learning} of its own; give it to the Chain, which passes "
            "through all of its layers at once"
        )
    if len(layer.cell.graph.inputs) > 1:
        further = ", ".join(i.name for i in layer.cell.graph.inputs[1:])
        raise InputError(f"{name} takes further inputs ({further}), which a chain cannot give it")
    first = next(m for m in modules if isinstance(m, RecurrentLayer))
    if layer.batch_first != first.batch_first:
        raise InputError(
            f"{name} has batch_first={layer.batch_first}, the first recurrent layer "
            f"{first.batch_first}; build all alike"
        )


def _entries(states: Any, count: int) -> list[Any]:
    """The state's entry of each recurrent layer."""
    if states is None:
        return [None] * count
    if not isinstance(states, tuple | list) or len(states) != count:
        got = (
            f"{len(states)} entries" if isinstance(states, tuple | list) else type(states).__name__
        )
        raise checks.SizeError(
            f"Chain: the state is a tuple with one entry for each of the {count} recurrent "
            f"layer(s); got {got}"
        )
    return list(states)


def _start(layer: RecurrentLayer, entry: Any, got: Given) -> list[Kept]:
    if entry is None:
        return layer.initial_carried(got.x.shape[1], layer._weight())
    like = layer._weight().new_empty(*got.x.shape[:2], 0)
    batched = got.form.kind != UNBATCHED
    graph = layer.cell.graph
    return read_state(layer.owner, graph, layer._sizes, 1, entry, like, batched=batched)
