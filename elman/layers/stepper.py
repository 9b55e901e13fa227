"""One step at a time: for streams, control, and text that is written as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elman.backends import cpu
from elman.backends.call import Call
from elman.backends.call import Carried as Kept
from elman.backends.reference import Step
from elman.backends.torch_kernel import in_transform
from elman.equation import Graph
from elman.errors import InputError
from elman.layers import checks
from elman.layers.calls import plan_of, run_place
from elman.layers.forms import further_inputs
from elman.layers.states import read_state, write_state
from elman.layers.walk import draw_masks
from elman.learning import Carried

if TYPE_CHECKING:
    from elman.backends.cpu.stream import Stream
    from elman.layers.base import RecurrentLayer


_Run = Callable[[int, Tensor, Mapping[str, Tensor], Mapping[str, Tensor]], tuple[Tensor, Kept]]


class Stepper:
    """A layer that is fed one step at a time and keeps its state between calls.

    Masks of recurrent dropout are drawn once, at the first step after a start or reset; dropout
    between layers and zoneout draw at each step. Under autograd the graph grows from step to step
    until the state is reset or cut by `detach()`, or by the layer's `BPTT(window=…)`.

    Without gradients (under `torch.no_grad()` or `inference_mode()`, or where nothing requires
    them) a layer with a kernel for the CPU keeps its memory and its packed weights from step to
    step. Weights that are replaced, or changed in place, are seen at the next step; those written
    past torch, through `.data` or numpy, at the next `reset()`.

    Example:
        >>> import elman, torch
        >>> step = elman.RNN(2, 3).stepper()
        >>> step(torch.randn(2)).shape
        torch.Size([3])
        >>> step.state.shape
        torch.Size([1, 3])
    """

    def __init__(self, layer: RecurrentLayer, state: Tensor | Sequence[Tensor] | None = None):
        if layer.bidirectional:
            raise InputError(
                f"{layer.owner}: a bidirectional layer has no stepper, since its reverse direction "
                "begins with the last step; build it with bidirectional=False"
            )
        self._layer = layer
        self._streams = _Streams(layer)
        self.reset(state)

    def reset(self, state: Tensor | Sequence[Tensor] | None = None) -> None:
        """Start anew, with the layer's initial state or with the one given."""
        if isinstance(state, Carried):
            state = state.states
        self._given, self._batched, self._count = state, True, 0
        self._batch: int | None = None
        # What each layer carries on; with the streams while they run.
        self._carried: list[Kept] = []
        self._masks: list[dict[str, Tensor]] = []
        self._steps: list[Step] = []
        self._prepared = False
        self._streams.reset()

    @property
    def state(self):
        """The state in the layer's form; None before the first step if none was given."""
        if self._batch is None:
            return self._given
        carried = self._streams.carried() if self._streams.running else self._carried
        parts = write_state(self._layer.cell.graph, carried, 1)
        parts = parts if self._batched else tuple(p.squeeze(1) for p in parts)
        return parts[0] if len(parts) == 1 else parts

    def detach(self) -> None:
        """Cut the gradient here; the values stay."""
        self._carried = [tuple(c.detach() for c in carried) for carried in self._carried]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy begins with: the state as it is, and memory of its own."""
        values = {**self.__dict__, "_streams": _Streams(self._layer), "_masks": [*self._masks]}
        if self._streams.running:
            values["_carried"] = self._streams.carried()
        return values

    def __call__(self, x: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """One step.

        Args:
            x: (batch, input), or (input,) without a batch; the same at every step.
            inputs: the cell's further inputs by name, each (batch, …), or (…) without a batch.

        Returns:
            Tensor: the output of this step, (batch, output) or (output,).
        """
        if inputs is None and self._streams.ready(x):
            self._count += 1
            out = self._streams.step(x)
            return out if self._layer.dense is None else self._layer._dense(out)
        return self._step(x, inputs)

    def _step(self, x: Tensor, inputs: Mapping[str, Tensor] | None) -> Tensor:
        """One step of any kind, with every check."""
        layer = self._layer
        self._check(x)
        batched = x.dim() == 2
        further, graph = {}, layer.cell.graph
        given_inputs = further_inputs(layer.owner, graph, layer._sizes[0], inputs)
        for name, one in given_inputs.items():
            checks.check_further(layer.owner, name, one.value, (*x.shape[:-1], *one.shape), x)
            further[name] = one.value if batched else one.value.unsqueeze(0)
        x = x if batched else x.unsqueeze(0)
        if self._batch is None:
            self._start(x, batched)
        self._refuse_a_carry()
        window = layer.learning.window
        if window and self._count and self._count % window == 0:
            self.detach()
        self._count += 1
        x = self._stack(x, further, self._runner(x, further))
        if layer.dense is not None:
            x = layer._dense(x)
        return x if batched else x.squeeze(0)

    def _stack(self, x: Tensor, further: Mapping[str, Tensor], run: _Run) -> Tensor:
        """Layer after layer."""
        layer = self._layer
        plan, carried = plan_of(layer), []
        for i, sizes in enumerate(layer._sizes):
            below = x
            if i and plan.dropout:
                x = torch.dropout(x, plan.dropout, True)
            by_step, by_sequence = draw_masks(plan, x.unsqueeze(0), sizes)
            if len(self._masks) <= i:
                self._masks.append({})
            # Training may begin within a sequence: what is drawn first stays.
            self._masks[i] = {**by_sequence, **self._masks[i]}
            sequences = {name: self._masks[i][name] for name in by_sequence}
            by_step = {k: v[0] for k, v in by_step.items()}
            x, after = run(i, x, {**further, **by_step}, sequences)
            if plan.residual and i:
                x = x + below
            carried.append(after)
        if self._streams.running:
            return x.clone()  # a later step writes that memory again
        self._carried = carried
        return x

    def _runner(self, x: Tensor, further: Mapping[str, Tensor]) -> _Run:
        """What runs one layer at this step; the state goes to where it is needed."""
        layer, streams = self._layer, self._streams
        kernel = layer.backend in ("auto", "cpu") and layer._choose(False, False).backend == "cpu"
        tensors = (x, *further.values(), *(c for carried in self._carried for c in carried))
        if kernel and streams.possible(tensors):
            if streams.running and not streams.current():
                self._carried = streams.stop()
            if not streams.running:
                streams.begin(x.shape[0], self._batched, self._carried)
                self._carried = []
            return streams.run
        if streams.running:
            self._carried = streams.stop()
        return self._on_kernel if kernel else self._on_reference

    def _on_kernel(
        self, i: int, x: Tensor, steps: Mapping[str, Tensor], sequences: Mapping[str, Tensor]
    ) -> tuple[Tensor, Kept]:
        """One layer as a call of one step, under autograd."""
        steps = {name: value.unsqueeze(0) for name, value in steps.items()}
        call = Call(x.unsqueeze(0), self._carried[i], step_extras=steps, sequence_extras=sequences)
        result = run_place(self._layer, self._layer._choose(False, False), i, call)
        return result.out[0], result.carried

    def _on_reference(
        self, i: int, x: Tensor, steps: Mapping[str, Tensor], sequences: Mapping[str, Tensor]
    ) -> tuple[Tensor, Kept]:
        program = self._programs(self._layer._graphs[self._layer.training])[i]
        return program(x, self._carried[i], {**steps, **sequences})

    def _check(self, x: Tensor) -> None:
        layer = self._layer
        if not isinstance(x, Tensor):
            raise checks.ArgumentTypeError(
                f"{layer.owner}.stepper: x is a {type(x).__name__}; give a tensor"
            )
        shape = tuple(x.shape)
        if x.dim() not in (1, 2) or shape[-1] != layer.input_size:
            raise checks.SizeError(
                f"{layer.owner}.stepper: x has shape {shape}; one step is (batch, "
                f"{layer.input_size}) or ({layer.input_size},)"
            )
        checks.check_dtype(layer.owner, x, layer._weight().dtype)
        batch = self._batch
        if batch is None:
            return
        if (x.dim() == 2) != self._batched or (x.dim() == 2 and shape[0] != batch):
            before = (batch, layer.input_size) if self._batched else (layer.input_size,)
            raise checks.SizeError(
                f"{layer.owner}.stepper: x has shape {shape}; the steps before had {before}. "
                "Call reset() to begin with another batch"
            )

    def _refuse_a_carry(self) -> None:
        """A stepper has no influence beside its state, so a carry would silently be cut."""
        learning = self._layer.learning
        if learning.carry is None or not torch.is_grad_enabled():
            return
        if any(p.requires_grad for p in self._layer.parameters()):
            raise InputError(
                f"{self._layer.owner}.stepper: it keeps no influence, and learning is {learning}; "
                "learn by calls of the layer, out, state = layer(x, state), or step under "
                "torch.no_grad()"
            )

    def _start(self, x: Tensor, batched: bool) -> None:
        layer = self._layer
        if self._given is None:
            self._carried = layer.initial_carried(x.shape[0], x)
        else:
            self._carried = read_state(
                layer.owner,
                layer.cell.graph,
                layer._sizes,
                1,
                self._given,
                x.unsqueeze(0),
                batched=batched,
            )
        self._batched, self._batch = batched, x.shape[0]

    def _programs(self, graph: Graph) -> list[Step]:
        """The step of each layer. Without gradients the parameters are prepared only once."""
        layer = self._layer
        if not self._steps or torch.is_grad_enabled() or self._prepared != layer.training:
            self._steps = [
                Step(graph, layer.equation_parameters(i, 0)) for i in range(layer.num_layers)
            ]
            self._prepared = layer.training
        return self._steps


class _Streams:
    """The kernels of a stack, a step at a time; while they run, the state is theirs.

    Attributes:
        running: whether they hold the state.
    """

    def __init__(self, layer: RecurrentLayer):
        self._layer, self.running = layer, False
        self._made: list[Stream] = []
        self._key: tuple | None = None
        self._seen: list[tuple[str, Tensor, int, int]] | None = None
        self._plain = False

    def reset(self) -> None:
        self.running = self._plain = False
        self._seen = None

    def possible(self, tensors: Sequence[Tensor]) -> bool:
        """Whether a step on these tensors asks for no gradient, and has rows in plain memory."""
        plain = all(type(t) in (Tensor, nn.Parameter) and t.is_cpu for t in tensors)
        if not plain or not len(tensors[0]) or torch.compiler.is_compiling():
            return False
        asked = (*tensors, *self._layer.parameters())
        return not (torch.is_grad_enabled() and any(t.requires_grad for t in asked))

    def current(self) -> bool:
        """Whether what was made still serves; changed weights are taken."""
        if self._key != self._key_of(self._made[0].batch):
            return False
        if self._changed():
            self._load()
        return True

    def _key_of(self, batch: int) -> tuple:
        layer = self._layer
        return batch, layer.training, layer._weight().dtype, torch.get_num_threads()

    def begin(self, batch: int, batched: bool, carried: Sequence[Kept]) -> None:
        """Take over the state."""
        from elman.backends.cpu.stream import Stream

        layer, key = self._layer, self._key_of(batch)
        graph = layer._graphs[layer.training]
        if key != self._key:
            kernels = cpu.kernels_of(graph)
            self._made = [Stream(kernels, sizes, batch, key[2]) for sizes in layer._sizes]
            self._key, self._seen = key, None
        if self._changed():
            self._load()
        for stream, states in zip(self._made, carried, strict=True):
            stream.begin(states)
        self.running = True
        self._batched, self._dtype, self._mode = batched, key[2], (layer.training, layer.backend)
        self._shape = torch.Size([batch, layer.input_size] if batched else [layer.input_size])
        one = layer.num_layers == 1
        self._plain = len(graph.inputs) == 1 and (one or not (layer.training or layer.residual))

    def stop(self) -> list[Kept]:
        """Give the state back."""
        carried = self.carried()
        self.running = self._plain = False
        return carried

    def carried(self) -> list[Kept]:
        return [stream.carried() for stream in self._made]

    # Weights.

    def _load(self) -> None:
        """Take the weights, and remember by what to know them."""
        held = self._layer._parameters
        names = {id(value): name for name, value in held.items() if value is not None}
        seen: list[tuple[str, Tensor, int, int]] | None = []
        for i, stream in enumerate(self._made):
            parameters = self._layer._cpu_parameters(i, 0)
            stream.load_weights(parameters)
            for tensor in parameters.tensors:
                if id(tensor) not in names or tensor.is_inference():
                    seen = None  # made for this call, or without a count of its changes
                if seen is not None:
                    seen.append((names[id(tensor)], tensor, tensor._version, tensor.data_ptr()))
        self._seen = seen

    def _changed(self) -> bool:
        """Whether weights were replaced, moved or written since they were taken."""
        seen = self._seen
        if seen is None:
            return True
        held = self._layer._parameters
        for name, tensor, version, address in seen:
            if (
                held.get(name) is not tensor
                or tensor._version != version
                or tensor.data_ptr() != address
            ):
                return True
        return False

    # Steps.

    def ready(self, x: Tensor) -> bool:
        """Whether all is as at the step before, so that no other check is needed."""
        if not self._plain or type(x) is not Tensor or x.shape != self._shape or not x.is_cpu:
            return False
        layer = self._layer
        if x.dtype is not self._dtype or (layer.training, layer.backend) != self._mode:
            return False
        if torch.is_grad_enabled() and (
            x.requires_grad or any(tensor.requires_grad for _, tensor, _, _ in self._seen or ())
        ):
            return False
        return not (self._changed() or in_transform() or torch.compiler.is_compiling())

    def step(self, x: Tensor) -> Tensor:
        """A step of a stack with nothing between its layers."""
        for stream in self._made:
            x = stream.step(x)
        return (x if self._batched else x.squeeze(0)).clone()

    def run(
        self, i: int, x: Tensor, steps: Mapping[str, Tensor], sequences: Mapping[str, Tensor]
    ) -> tuple[Tensor, Kept]:
        """One layer of a step of any kind."""
        return self._made[i].step(x, {**steps, **sequences}), ()
