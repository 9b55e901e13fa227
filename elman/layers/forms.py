"""The forms in which a sequence comes in and goes out.

Inside, every layer works on (time, batch, features). Outside, a sequence may also be without a
batch, batch-first, or packed. `Form` remembers which it was and turns results back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from elman.equation import Graph
from elman.equation.sizes import shape_of
from elman.errors import InputError
from elman.layers import checks

TIME_FIRST, BATCH_FIRST, UNBATCHED, PACKED = "time first", "batch first", "unbatched", "packed"


@dataclass(frozen=True)
class Form:
    """How a sequence was given, and how to give one back."""

    kind: str
    packed: PackedSequence | None = None

    def restore(self, sequence: Tensor) -> Tensor | PackedSequence:
        """Turn (time, batch, features) into the form of the input."""
        if self.kind == BATCH_FIRST:
            return sequence.transpose(0, 1)
        if self.kind == UNBATCHED:
            return sequence.squeeze(1)
        if self.packed is not None:
            data = sequence[packed_places(self.packed)]
            return PackedSequence(data, *self.packed[1:])
        return sequence

    def restore_state(self, state: Tensor) -> Tensor:
        """Take the batch dimension from a state where the input had none."""
        return state.squeeze(1) if self.kind == UNBATCHED else state

    def dropout(self, sequence: Tensor, p: float) -> Tensor:
        """Dropout on (time, batch, features), with the random numbers torch.nn draws.

        torch.nn draws one number for each real element in the packed order where the input was
        packed, and one for each element of the padded tensor where it was not.
        """
        if self.packed is None:
            return torch.dropout(sequence, p, True)
        where = packed_places(self.packed)
        mask = torch.dropout(torch.ones_like(sequence[where]), p, True)
        return sequence * torch.zeros_like(sequence).index_put(where, mask)


def packed_places(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """For each packed entry its step and its row in the padded tensor."""
    data, batch_sizes, sorted_indices, _ = packed
    rows = torch.cat([torch.arange(int(n)) for n in batch_sizes]).to(data.device)
    steps = torch.repeat_interleave(torch.arange(len(batch_sizes)), batch_sizes).to(data.device)
    return steps, rows if sorted_indices is None else sorted_indices[rows]


@dataclass(frozen=True)
class Further:
    """A further input as it was given, and the shape that one step of one row must have."""

    value: Tensor
    shape: tuple[int, ...]


def further_inputs(
    owner: str, graph: Graph, sizes: Mapping[str, int], inputs: Mapping[str, Tensor] | None
) -> dict[str, Further]:
    """The further inputs that a cell asks for, as given; InputError where they are not those."""
    declared = {i.name: shape_of(i.dims, sizes) for i in graph.inputs[1:]}
    inputs = inputs or {}
    if inputs.keys() != declared.keys():
        raise InputError(
            f"{owner}: the cell {graph.name} takes {', '.join(declared) or 'no further inputs'}; "
            f"inputs= gives {', '.join(inputs) or 'none'}"
        )
    return {name: Further(inputs[name], shape) for name, shape in declared.items()}


@dataclass(frozen=True)
class Given:
    """A call in the inner form: x (time, batch, input), lengths, resets (time, batch).

    `further` has the cell's further inputs by name, each (time, batch, …).
    """

    x: Tensor
    lengths: Tensor | None
    resets: Tensor | None
    form: Form
    further: Mapping[str, Tensor] = field(default_factory=dict)


def given(
    owner: str,
    x: Tensor | PackedSequence,
    lengths: object,
    resets: object,
    *,
    input_size: int,
    dtype: torch.dtype,
    batch_first: bool,
    further: Mapping[str, Further] | None = None,
    clean: bool = True,
) -> Given:
    """Check what came in and bring it to the inner form; `clean` puts zeros past each row's end."""
    further = further or {}
    if isinstance(x, PackedSequence):
        if further:
            raise InputError(
                f"{owner}: a cell with further inputs ({', '.join(further)}) takes a padded x with "
                "lengths, not a PackedSequence"
            )
        return _from_packed(owner, x, lengths, resets, input_size=input_size, dtype=dtype)
    checks.check_input(owner, x, input_size, dtype, batch_first=batch_first)
    marks = checks.check_resets(owner, resets, tuple(x.shape[:-1]))
    values = {}
    for name, (value, shape) in ((n, (f.value, f.shape)) for n, f in further.items()):
        checks.check_further(owner, name, value, (*x.shape[:-1], *shape), x)
        values[name] = value
    if x.dim() == 2:
        form = Form(UNBATCHED)
        x = x.unsqueeze(1)
        marks = None if marks is None else marks.unsqueeze(1)
        values = {name: value.unsqueeze(1) for name, value in values.items()}
    elif batch_first:
        form = Form(BATCH_FIRST)
        x = x.transpose(0, 1)
        marks = None if marks is None else marks.transpose(0, 1)
        values = {name: value.transpose(0, 1) for name, value in values.items()}
    else:
        form = Form(TIME_FIRST)
    if lengths is None:
        return Given(x, None, marks, form, values)
    real = checks.check_lengths(owner, lengths, x.shape[0], x.shape[1], x.device)
    # Whatever stands in the padding must reach no result and no gradient.
    if clean:
        x = x.masked_fill(~real_steps(x.shape[0], real).unsqueeze(-1), 0)
    return Given(x, real, marks, form, values)


def _from_packed(
    owner: str,
    packed: PackedSequence,
    lengths: object,
    resets: object,
    *,
    input_size: int,
    dtype: torch.dtype,
) -> Given:
    if lengths is not None:
        raise InputError(
            f"{owner}: a PackedSequence knows its lengths; leave out lengths, or give a padded x"
        )
    data = packed.data
    checks.check_dtype(owner, data, dtype)
    if data.dim() != 2:
        raise checks.SizeError(
            f"input must have 2 dimensions, got {data.dim()}. {owner}: the data of a "
            f"PackedSequence has the shape (steps of all rows, input); got {tuple(data.shape)}"
        )
    if data.shape[1] != input_size:
        raise checks.SizeError(
            f"input.size(-1) must be equal to input_size. Expected {input_size}, got "
            f"{data.shape[1]}. {owner}: the packed x has {data.shape[1]} features; input_size is "
            f"{input_size}"
        )
    form = Form(PACKED, packed)
    padded, real = torch.nn.utils.rnn.pad_packed_sequence(packed)
    if isinstance(resets, PackedSequence):
        resets = torch.nn.utils.rnn.pad_packed_sequence(resets)[0]
    marks = checks.check_resets(owner, resets, tuple(padded.shape[:-1]))
    return Given(padded, real.to(data.device), marks, form)


def reverse(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Turn the time of each row around: (time, batch, …), the real steps of a row among themselves.

    Steps past a row's end stay where they are.
    """
    if lengths is None:
        return sequence.flip(0)
    time, batch = sequence.shape[:2]
    steps = torch.arange(time, device=sequence.device).unsqueeze(1)
    source = torch.where(steps < lengths, lengths - 1 - steps, steps)
    flat = source * batch + torch.arange(batch, device=sequence.device)
    turned = sequence.reshape(time * batch, *sequence.shape[2:]).index_select(0, flat.reshape(-1))
    return turned.reshape(sequence.shape)


def real_steps(time: int, lengths: Tensor) -> Tensor:
    """A (time, batch) mask, true at each row's real steps."""
    return torch.arange(time, device=lengths.device).unsqueeze(1) < lengths
