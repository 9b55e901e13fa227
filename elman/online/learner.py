"""A model that goes on learning: it predicts, then learns from what came, step after step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from elman.errors import FileError, InputError, SizeError
from elman.layers.base import RecurrentLayer
from elman.layers.chain import Chain
from elman.learning import BPTT, RTRL, Carried
from elman.learning.quick import Quick
from elman.online import losses
from elman.online.descent import descent_of
from elman.online.losses import Loss
from elman.online.quickly import begin_quickly, carried_of, quick_of, still_quick
from elman.online.running import Mean
from elman.online.trees import as_tree, change_all, cut, flatten, from_tree, unflatten
from elman.tasks import model_file

KIND = "online"


class OnlineLearner:
    r"""A model on an endless stream: each step predicts, and then learns from the target.

    With the state s and the influence M of the past on it, a step at the input $x_t$ is

    .. math::

        \hat y_t = V(s_t), \quad s_t = F(s_{t-1}, x_t; \theta), \qquad
        \theta \leftarrow \theta - \eta\, \nabla_\theta L(\hat y_t, y_t)

    where the gradient reaches back through all of the past by the carry of the learning method, so
    memory and work per step stay the same for ever. The weights change while s and M live on: M is
    then that of the weights that were, not of those that are, the more so the larger η is.

    With `delay` d the target of a prediction comes d steps later, as in a forecast d steps ahead:
    `step(x_t, y_t)` first learns from the prediction made at step t − d, whose target y_t is, and
    then predicts. With d ≤ 1 and a window of one step the model runs once a step. Otherwise it
    runs twice: ahead to predict, and d steps behind, a window at a time, to learn; so the influence
    is kept once only.

    Args:
        model: a recurrent layer of Elman's in one direction, with `dense` layers on top or not, or
            an `elman.Chain`.
        readout: a module from the model's output to the prediction, such as nn.Linear(32, 1).
        learning: how credit travels in time, with a window; if not given, the model's own where
            that has a window, else `elman.RTRL()`. It becomes the model's.
        loss: "mse", "huber", "cross_entropy" (the target is a class number), or a function of the
            predictions and the targets, both (steps, batch, …), to a number.
        optimizer: "adam", "sgd", or an optimiser of torch.optim with exactly the trained weights of
            model and readout.
        lr: learning rate, > 0; of "adam" and "sgd".
        clip: longest gradient allowed (Euclidean norm), > 0; None is any.
        delay: steps after which the target of a prediction comes, ≥ 0.

    Attributes:
        steps: predictions made.
        updates: changes of the weights.
        refused: gradients that were not finite: they change no weight, and the state and its
            influence begin anew.
        loss: mean losses, `loss.overall` and `loss.recent` (over about the last 1000).

    Raises:
        InputError: an option, model or optimiser that cannot be used.

    Example:
        >>> import elman, math, torch
        >>> _ = torch.manual_seed(0)
        >>> model = elman.Recurrent("gru", 1, 8)
        >>> learner = elman.OnlineLearner(model, torch.nn.Linear(8, 1), lr=0.01)
        >>> wave = [math.sin(t / 3) for t in range(400)]
        >>> for now, later in zip(wave, wave[1:]):
        ...     prediction = learner.step([now], [later])
        >>> learner.loss.recent < 0.5 and abs(float(prediction) - later) < 0.3
        True

    Source: Williams & Zipser 1989 (learning in real time); Schmidhuber 1992 (windows with carry).
    """

    def __init__(
        self,
        model: nn.Module,
        readout: nn.Module | None = None,
        *,
        learning: BPTT | None = None,
        loss: str | Loss = "mse",
        optimizer: str | Optimizer = "adam",
        lr: float = 3e-3,
        clip: float | None = 1.0,
        delay: int = 0,
    ):
        _check(model, readout, lr, clip, delay)
        self.model, self.readout, self.delay = model, readout, delay
        self.learning = _teach(model, learning)
        self._window = self.learning.window or 1
        losses.check(loss)
        self._loss = loss
        modules = (model,) if readout is None else (model, readout)
        self._weights = [w for m in modules for w in m.parameters() if w.requires_grad]
        if not self._weights:
            raise InputError("OnlineLearner: the model has no weight that is trained")
        self._descent = descent_of(optimizer, self._weights, lr)
        self._clip = clip
        self._once = self._window == 1 and delay <= 1
        self._indices = _takes_indices(model)
        self._like = self._weights[0]
        self.steps = self.updates = self.refused = 0
        self.loss = Mean()
        self.reset()

    def reset(self, carried: Any = None) -> None:
        """Begin a new stream: with the model's initial state, or with the one given.

        What is learned stays; targets of earlier predictions are not waited for any more.
        """
        self._carried = carried
        self._ahead = carried.states if isinstance(carried, Carried) else carried
        # Inputs whose targets have not come; then pairs of the window that is being filled.
        self._waiting: deque[Tensor] = deque()
        self._pairs: list[tuple[Tensor, Tensor | None]] = []
        self._open: Tensor | None = None  # the prediction made last, where it is to be learned from
        self._quick: Quick | None = None
        self._sought = False  # whether it was looked for
        self._joint: Tensor | None = None  # its output, for autograd
        self._before: tuple[Any, Tensor] | None = None
        self._batched: bool | None = None

    @property
    def carried(self) -> Any:
        """The model's state, with the influence; None before the first step."""
        if self._quick is None:
            return self._carried
        return carried_of(self._quick)

    @property
    def lr(self) -> float:
        """The learning rate; it may be set."""
        return self._descent.lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._descent.lr = value

    # A step.

    def step(self, x: Any, y: Any = None) -> Tensor:
        """Predict from x, and learn from y.

        Args:
            x: what comes in now: (input,) for one stream, (batch, input) for several; numbers or a
                tensor. A class number for each stream, () or (batch,), where the model begins with
                an embedding.
            y: the target of this prediction or, with a delay, of the one made so many steps
                before, shaped like the prediction; class numbers for "cross_entropy". NaN, or a
                class below 0, is a missing entry. None: nothing to learn from.

        Returns:
            Tensor: the prediction from x, made before its own target was learned from, without
            gradient: (…) for one stream, (batch, …) for several.

        Raises:
            SizeError: shapes that do not fit.
        """
        now = self._input(x)
        target = None if y is None else self._target(y)
        out = self._step_once(now, target) if self._once else self._step_twice(now, target)
        self.steps += 1
        out = out.detach()[0]
        return out if self._batched else out[0]

    def _step_once(self, x: Tensor, y: Tensor | None) -> Tensor:
        if not self.delay:
            out = self._run(x)
            if y is not None:
                self._learn(out, y.unsqueeze(0))
            return out
        if self._open is not None and y is not None:
            self._learn(self._open, y.unsqueeze(0))
        self._before = None if self._quick else (self._carried, torch.get_rng_state())
        self._waiting = deque([x])
        self._open = self._run(x)
        return self._open

    def _step_twice(self, x: Tensor, y: Tensor | None) -> Tensor:
        self._waiting.append(x)
        early = self.delay > 0  # the target at hand belongs to an earlier prediction
        if early:
            self._pair(y)
        with torch.no_grad():
            out, ahead = self.model(x, self._ahead)
            self._ahead = ahead.states if isinstance(ahead, Carried) else ahead
            out = out if self.readout is None else self.readout(out)
        if not early:
            self._pair(y)
        return out

    def _pair(self, y: Tensor | None) -> None:
        """Join the target at hand with its input; learn where that fills a window."""
        if len(self._waiting) <= self.delay:
            return
        self._pairs.append((self._waiting.popleft(), y))
        if len(self._pairs) < self._window:
            return
        xs, ys = zip(*self._pairs, strict=True)
        self._pairs = []
        out = self._run(torch.cat(xs))
        there = [i for i, one in enumerate(ys) if one is not None]
        if there:
            self._learn(out[there], torch.stack([ys[i] for i in there]))

    def _run(self, x: Tensor) -> Tensor:
        """The model over (time, batch, …), under autograd, from where it stands."""
        quick = self._quickly()
        with torch.enable_grad():
            if quick is not None:
                self._joint = quick.step(x).requires_grad_()
                return self._joint if self.readout is None else self.readout(self._joint)
            out, carried = self.model(x, self._carried)
            self._carried = cut(carried)
            return out if self.readout is None else self.readout(out)

    def _quickly(self) -> Quick | None:
        """The quick way, where it serves; the state is its own while it does."""
        if not self._sought:
            self._sought = True
            self._quick = None if self._batched or not self._once else quick_of(self.model)
            if self._quick is not None:
                begin_quickly(self._quick, self.model, self._carried)
        elif self._quick is not None and not still_quick(self._quick, self.model):
            self._carried, self._quick = self.carried, None
        return self._quick

    def _gradient(self, loss: Tensor) -> Tensor:
        """Of all trained weights, one after another."""
        weights = self._weights
        if self._quick is None or self._joint is None:
            return torch.cat(_flat(weights, torch.autograd.grad(loss, weights, allow_unused=True)))
        above = weights[self._quick.count :]
        outer, *found = torch.autograd.grad(loss, [self._joint, *above], allow_unused=True)
        return torch.cat([*self._quick.gradient(outer), *_flat(above, found)])

    def _learn(self, out: Tensor, y: Tensor) -> None:
        """One change of the weights, by the loss of predictions (steps, batch, …)."""
        self._open = None
        loss = losses.measure(self._loss, out, y)
        if loss is None:
            return
        gradient = self._gradient(loss)
        norm = float(torch.linalg.vector_norm(gradient))
        if not math.isfinite(norm):
            self.refused += 1
            self._begin_anew()
            return
        if self._clip is not None and norm > self._clip:
            gradient.mul_(self._clip / norm)
        self._descent.step(gradient)
        self.updates += 1
        self.loss.take(float(loss.detach()))  # finite, as its gradient is

    def _begin_anew(self) -> None:
        """Without state and influence: one that is not finite, or near it, would stay so."""
        self._carried = self._ahead = None
        self._quick, self._sought = None, False

    # What comes in.

    def _input(self, x: Any) -> Tensor:
        """What came in as one step of a sequence: (1, batch, …)."""
        like = self._like
        if self._indices:
            x = torch.as_tensor(x, device=like.device)
        else:
            x = torch.as_tensor(x, dtype=like.dtype, device=like.device)
        most = 1 if self._indices else 2
        batched = x.dim() == most
        if x.dim() not in (most - 1, most):
            forms = "() or (batch,)" if self._indices else "(input,) or (batch, input)"
            raise SizeError(f"OnlineLearner: x has shape {tuple(x.shape)}; expected {forms}")
        if self._batched not in (None, batched):
            before = "several streams" if self._batched else "one stream"
            raise SizeError(
                f"OnlineLearner: x has shape {tuple(x.shape)}, but before there was {before}; "
                "reset() begins anew"
            )
        self._batched = batched
        x = x if batched else x.unsqueeze(0)
        return x.unsqueeze(0)

    def _target(self, y: Any) -> Tensor:
        """Targets with a batch in front: (batch, …)."""
        like = self._like
        if self._loss == losses.CLASSES:
            y = torch.as_tensor(y, device=like.device)
            if y.is_floating_point():
                raise InputError("OnlineLearner: cross_entropy takes whole class numbers as y")
        else:
            y = torch.as_tensor(y, dtype=like.dtype, device=like.device)
        return y if self._batched else y.unsqueeze(0)

    # What is kept.

    def state_dict(self) -> dict[str, Any]:
        """Everything it goes on from, to the same bits: nested dicts and lists of tensors, numbers.

        Weights, what the optimiser remembers, states and influence, inputs that wait for their
        targets, figures, and the state of torch's random generator.
        """
        tree: dict[str, Any] = {
            "model": dict(self.model.state_dict()),
            "readout": None if self.readout is None else dict(self.readout.state_dict()),
            "optimizer": self._descent.state_dict(),
            "carried": as_tree(self.carried),
            "ahead": as_tree(self._ahead),
            "before": None if self._open is None else as_tree(self._before or self._quick_before()),
            "waiting": [*self._waiting],
            "pairs": [[x, y] for x, y in self._pairs],
            "batched": self._batched,
            "figures": [self.steps, self.updates, self.refused, self.loss.state_dict()],
            "random": torch.get_rng_state(),
        }
        return change_all(tree, lambda tensor: tensor.detach().clone())

    def _quick_before(self) -> tuple[Any, Tensor]:
        """What the quick way began the last step with."""
        if self._quick is None:
            raise ValueError("there is no quick way")
        return carried_of(self._quick, before=True), torch.get_rng_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave, on a learner that was built in the same way.

        Raises:
            RuntimeError: weights that do not fit, as torch says it.
        """
        device = self._like.device
        random = state["random"]
        # Memory of its own, laid out as torch does: what is computed must not depend on it.
        tree = change_all(
            {k: v for k, v in state.items() if k != "random"},
            lambda t: t.detach().to(device).clone(),
        )
        self.model.load_state_dict(tree["model"])
        if self.readout is not None:
            self.readout.load_state_dict(tree["readout"])
        self._descent.load_state_dict(tree["optimizer"])
        self.reset()
        self._batched = tree["batched"]
        self._carried, self._ahead = from_tree(tree["carried"]), from_tree(tree["ahead"])
        self._pairs = [(x, y) for x, y in tree["pairs"]]
        self._waiting = deque(tree["waiting"])
        if tree["before"] is not None:  # the last prediction is made again, to learn from it
            self._carried, drawn = from_tree(tree["before"])
            torch.set_rng_state(drawn.cpu())
            self._before = (self._carried, drawn.cpu())
            self._open = self._run(self._waiting[0])
        self.steps, self.updates, self.refused, loss = tree["figures"]
        self.loss = Mean.from_state_dict(loss)
        torch.set_rng_state(random.cpu())

    def save(self, path: str | Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write `state_dict` into a file without pickle; a crash leaves the old one or the new one.

        Args:
            path: of the file; one that is there is replaced.
            notes: plain JSON values to be kept beside it.

        Raises:
            FileError: the file cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        shape = flatten(self.state_dict(), tensors)
        model_file.write(path, KIND, {"state": shape, "notes": dict(notes or {})}, tensors)

    def load(self, path: str | Path) -> dict[str, Any]:
        """Go on from a file of `save`; returns its notes.

        Raises:
            FileError: the file is missing, damaged, or of another model.
        """
        metadata, tensors = read(path)
        try:
            self.load_state_dict(unflatten(metadata["state"], tensors))
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            words = " ".join(str(error).split())
            raise FileError(f"{path}: this does not fit the learner: {words}") from None
        return metadata["notes"]


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file of `OnlineLearner.save` holds: "state" and "notes", and the tensors.

    Raises:
        FileError: the file is missing, damaged, or none of these.
    """
    kind, metadata, tensors = model_file.read(path)
    if kind != KIND or not {"state", "notes"} <= metadata.keys():
        raise FileError(f"{path}: no state of an online learner, but a file of kind {kind!r}.")
    return metadata, tensors


# -- what it is built of -----------------------------------------------------------------------


def _check(
    model: nn.Module, readout: nn.Module | None, lr: float, clip: float | None, delay: int
) -> None:
    if not isinstance(model, RecurrentLayer | Chain):
        kind = type(model).__name__
        raise InputError(
            f"OnlineLearner: the model is a {kind}; give a recurrent layer of Elman's (with "
            "readout=… on top), or an elman.Chain of modules"
        )
    if getattr(model, "bidirectional", False):
        raise InputError(
            "OnlineLearner: a bidirectional layer cannot predict on a stream, since its reverse "
            "direction begins with the last step; build it with bidirectional=False"
        )
    if getattr(model, "batch_first", False):
        raise InputError("OnlineLearner: build the layer without batch_first; a step has no time")
    if readout is not None and not isinstance(readout, nn.Module):
        raise InputError(
            f"OnlineLearner: readout is a {type(readout).__name__}; expected a module, such as "
            "torch.nn.Linear(32, 1)"
        )
    if not (isinstance(lr, int | float) and 0 < lr < math.inf):
        raise InputError(f"OnlineLearner: lr is {lr!r}; expected a number > 0")
    if clip is not None and not (isinstance(clip, int | float) and clip > 0):
        raise InputError(f"OnlineLearner: clip is {clip!r}; expected a number > 0, or None")
    if not isinstance(delay, int) or isinstance(delay, bool) or delay < 0:
        raise InputError(f"OnlineLearner: delay is {delay!r}; expected a whole number >= 0")


def _teach(model: Any, learning: BPTT | None) -> BPTT:
    """Give the model the learning method, and return it."""
    own = model.learning
    if learning is None:
        learning = own if own.window is not None or own.carry is not None else RTRL()
    if learning.window is None and learning.carry is None:
        raise InputError(
            "OnlineLearner: a stream has no end, so the learning needs a window: elman.RTRL(), "
            'elman.BPTT(window=8, carry="exact") or elman.BPTT(window=8)'
        )
    if learning != own:
        model.set_learning(learning)
    return learning


def _flat(weights: Sequence[Tensor], found: Sequence[Tensor | None]) -> list[Tensor]:
    """Gradients as vectors, zeros where a weight has none."""
    return [
        w.new_zeros(w.numel()) if g is None else g.reshape(-1)
        for w, g in zip(weights, found, strict=True)
    ]


def _takes_indices(model: nn.Module) -> bool:
    return isinstance(model, Chain) and isinstance(model.links[0], nn.Embedding)
