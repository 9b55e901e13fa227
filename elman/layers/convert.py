"""Put Elman's layers in the place of torch.nn's inside somebody else's model, and take them out.

A module is converted where it stands: its class changes, and what an Elman layer knows beyond
torch.nn's (the equation, the options) is laid beside its own attributes. Nothing is moved, so
parameters, hooks and their handles, buffers, sharing, and every reference that other code holds
stay what they were. The new class is also a subclass of the old one and has its name: models ask
`isinstance(self.rnn, nn.LSTM)` to know whether the state is a pair, and go wrong without a word
if it is not; and torch.nn's bookkeeping of flattened weights goes on with it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from elman.errors import ElmanError, InputError
from elman.layers import checks, dropins, single
from elman.layers.base import RecurrentLayer
from elman.layers.conversion import Conversion, Left, Replaced, Swaps, measure

_ADDED = "_added_by_convert"
_MODULE = frozenset(vars(nn.Module()))
# Attributes that torch.nn's modules and ours both have; the module's own are kept.
_COMMON = frozenset(
    {"input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"}
    | {"proj_size", "mode", "nonlinearity"}
)
# Methods that users replace on one instance without changing what it computes.
_HARMLESS = frozenset({"flatten_parameters", "reset_parameters", "extra_repr"})


class _Converted:
    """What marks a converted module."""

    def __init__(self, *args: Any, **kwargs: Any):
        # For code that builds a second module of the same kind by `type(rnn)(...)`.
        module: Any = self
        module.__class__ = _TORCH[type(self)]
        module.__init__(*args, **kwargs)
        _Swap.forward(module, "auto").do()


class ConvertedLSTM(_Converted, dropins.LSTM, nn.LSTM):
    """A torch.nn.LSTM that `elman.convert` made an `elman.LSTM`; it is both."""

    flatten_parameters = nn.LSTM.flatten_parameters


class ConvertedGRU(_Converted, dropins.GRU, nn.GRU):
    """A torch.nn.GRU that `elman.convert` made an `elman.GRU`; it is both."""

    flatten_parameters = nn.GRU.flatten_parameters


class ConvertedRNN(_Converted, dropins.RNN, nn.RNN):
    """A torch.nn.RNN that `elman.convert` made an `elman.RNN`; it is both."""

    flatten_parameters = nn.RNN.flatten_parameters


class ConvertedLSTMCell(_Converted, single.LSTMCell, nn.LSTMCell):
    """A torch.nn.LSTMCell that `elman.convert` made an `elman.LSTMCell`; it is both."""


class ConvertedGRUCell(_Converted, single.GRUCell, nn.GRUCell):
    """A torch.nn.GRUCell that `elman.convert` made an `elman.GRUCell`; it is both."""


class ConvertedRNNCell(_Converted, single.RNNCell, nn.RNNCell):
    """A torch.nn.RNNCell that `elman.convert` made an `elman.RNNCell`; it is both."""


# By torch.nn's class: the converted class, and Elman's own.
_CLASSES: dict[type, tuple[type, type]] = {
    nn.LSTM: (ConvertedLSTM, dropins.LSTM),
    nn.GRU: (ConvertedGRU, dropins.GRU),
    nn.RNN: (ConvertedRNN, dropins.RNN),
    nn.LSTMCell: (ConvertedLSTMCell, single.LSTMCell),
    nn.GRUCell: (ConvertedGRUCell, single.GRUCell),
    nn.RNNCell: (ConvertedRNNCell, single.RNNCell),
}
_OWN = (RecurrentLayer, single.LSTMCell, single.GRUCell, single.RNNCell)
_TORCH: dict[type, type] = {converted: base for base, (converted, _) in _CLASSES.items()}
_NAMES = {base.__name__ for base in _CLASSES}
for _base, _converted in _TORCH.items():
    # Models ask for the name too (`type(rnn).__name__ == "LSTM"`); pickle reads the other one.
    _base.__name__ = _converted.__name__


def convert(
    model: nn.Module,
    sample: Any = None,
    *,
    inplace: bool = True,
    backend: str = "auto",
    repeats: int = 9,
) -> Conversion:
    """Replace every recurrent module of torch.nn inside a model by Elman's, and say what was done.

    torch.nn's LSTM, GRU, RNN, LSTMCell, GRUCell and RNNCell become `elman.LSTM` and so on. The
    module objects stay where they are and only change their class, so all else is kept: the
    parameters themselves (an optimiser that holds them goes on), `state_dict`, hooks and their
    handles, parametrizations and weight norm, buffers and attributes of yours, device, number
    type, training mode, `requires_grad`, modules used in several places. They remain
    instances of torch.nn's classes too. Subclasses, quantised and scripted modules, and modules
    with methods of their own are left alone and named in the report; modules that the model does
    not register (in a plain list, say) are not seen. `elman.revert` undoes it.

    Args:
        model: any module; it may be a recurrent module itself.
        sample: what to compare and time the model on, before and after: a tensor, a tuple of
            arguments, a dict of keyword arguments, or a function of the model that returns its
            output. The outputs are compared in evaluation mode; buffers, gradients, training
            flags and random states are put back. Without it nothing is run.
        inplace: False leaves `model` as it is and converts a deep copy with parameters of its own.
        backend: what the layers run on, as in `elman.Recurrent`.
        repeats: how many times the sample is timed, before and after in turns; 0 for not at all.

    Returns:
        Conversion: a report; print it. `model` is the converted model (the same object, or the
        copy), `replaced` and `left` say which modules and why, `difference` is the largest output
        difference on the sample, `forward` and `forward_backward` the times.

    Raises:
        InputError: the model is no module, it cannot be copied, an option is unknown, or the
            sample does not run; the model is then as it came.

    Example:
        >>> import elman, torch
        >>> model = torch.nn.Sequential(torch.nn.LSTM(3, 4, num_layers=2))
        >>> report = elman.convert(model, torch.randn(5, 2, 3), repeats=0)
        >>> [str(one) for one in report.replaced] != [], report.difference < 1e-6
        (True, True)
    """
    _check_model("convert", model)
    checks.check_flag("convert", "inplace", inplace)
    checks.check_backend("convert", backend)
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 0:
        raise InputError(f"convert: repeats is {repeats!r}; give a whole number, 0 or more")
    if not inplace:
        model = _copied("convert", model)
    swaps, names, left = [], [], []
    for module, places in _places(model):
        reason = _reason_against(module)
        if reason is None and _torch_class(module) in _CLASSES:
            try:
                swaps.append(_Swap.forward(module, backend))
                names.append(places)
                continue
            except ElmanError as error:
                reason = str(error)
        if reason is not None:
            left.append(Left(places, type(module).__name__, reason))
    return _carried_out(model, swaps, names, left, sample, repeats)


def revert(model: nn.Module, *, inplace: bool = True) -> Conversion:
    """Undo `elman.convert`: every converted module has torch.nn's class again.

    What happened to the modules meanwhile (training, hooks, a move to another device) stays.
    Layers that were built as Elman's are left alone and named in the report.

    Args:
        model: a model that `elman.convert` has converted, or a part of one, or a copy.
        inplace: False leaves `model` as it is and reverts a deep copy.

    Returns:
        Conversion: what was replaced and what not; `model` is the model.

    Raises:
        InputError: the model is no module, or cannot be copied.

    Example:
        >>> import elman, torch
        >>> cell = torch.nn.GRUCell(3, 4)
        >>> model = elman.convert(cell).model
        >>> type(elman.revert(model).model)
        <class 'torch.nn.modules.rnn.GRUCell'>
    """
    _check_model("revert", model)
    checks.check_flag("revert", "inplace", inplace)
    if not inplace:
        model = _copied("revert", model)
    swaps, names, left = [], [], []
    for module, places in _places(model):
        if isinstance(module, _Converted):
            swaps.append(_Swap.back(module))
            names.append(places)
        elif isinstance(module, _OWN):
            reason = "it was built as Elman's, not converted"
            left.append(Left(places, type(module).__name__, reason))
    return _carried_out(model, swaps, names, left, None, 0)


def _carried_out(
    model: nn.Module,
    swaps: list[_Swap],
    names: list[tuple[str, ...]],
    left: list[Left],
    sample: Any,
    repeats: int,
) -> Conversion:
    both = Swaps(swaps)
    before = [swap.describe() for swap in swaps]
    measured = {}
    if sample is not None:
        measured = measure(model, both, sample, repeats)
    both.do()
    after = [swap.describe() for swap in swaps]
    replaced = tuple(Replaced(*row) for row in zip(names, before, after, strict=True))
    return Conversion(model, replaced, tuple(left), **measured)


@dataclass(eq=False)
class _Swap:
    """One module with its two classes, and the attributes that come or go between them."""

    module: nn.Module
    before: type
    after: type
    come: dict[str, Any]
    go: dict[str, Any]

    @classmethod
    def forward(cls, module: nn.Module, backend: str) -> _Swap:
        """From torch.nn to Elman. Raises InputError where Elman's layer cannot stand in."""
        base = _torch_class(module)
        converted, elmans = _CLASSES[base]
        like = _empty_layer(module, elmans, backend)
        _check_weights(module, like)
        _check_names(module, base, elmans, like)
        come = {k: v for k, v in vars(like).items() if k not in _MODULE and not hasattr(module, k)}
        come[_ADDED] = tuple(come)
        return cls(module, type(module), _moved(type(module), base, converted), come, {})

    @classmethod
    def back(cls, module: nn.Module) -> _Swap:
        """From Elman to torch.nn."""
        converted = _torch_class(module)
        own = vars(module)
        go = {name: own[name] for name in (*own[_ADDED], _ADDED) if name in own}
        return cls(module, type(module), _moved(type(module), converted, _TORCH[converted]), {}, go)

    def do(self) -> None:
        self._change(self.after, self.come, self.go)

    def undo(self) -> None:
        self._change(self.before, self.go, self.come)

    def _change(self, to: type, come: dict[str, Any], go: dict[str, Any]) -> None:
        # Past nn.Module's own __setattr__, which would look at what is assigned.
        own = vars(self.module)
        for name in go:
            own.pop(name, None)
        own.update(come)
        self.module.__class__ = to

    def describe(self) -> str:
        cls = _torch_class(self.module)
        home = "torch.nn" if cls in _CLASSES else "elman"
        return f"{home}.{cls.__name__}({self.module.extra_repr()})"


def _torch_class(module: nn.Module) -> type:
    """The class of a module without what torch's parametrizations lay over it."""
    cls = type(module)
    return cls.__bases__[0] if parametrize.is_parametrized(module) else cls


def _moved(now: type, base: type, to: type) -> type:
    """The class `now`, which is `base` or a parametrized one of it, with `to` in its stead.

    torch keeps the properties of parametrized weights in a class of the module's own.
    """
    if now is base:
        return to
    kept = {k: v for k, v in vars(now).items() if k not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{to.__name__}", (to,), kept)


def _empty_layer(module: Any, elmans: Any, backend: str) -> nn.Module:
    """Elman's layer of the same sizes without memory, to take its attributes from."""
    options = {"bias": module.bias, "device": "meta", "backend": backend}
    if isinstance(module, nn.RNNBase):
        # Not the dropout and batch_first, which are read at each call and are the module's own.
        options |= {"num_layers": module.num_layers, "bidirectional": module.bidirectional}
        if isinstance(module, nn.LSTM):
            options["proj_size"] = module.proj_size
        if isinstance(module, nn.RNN):
            options["nonlinearity"] = "relu" if module.mode == "RNN_RELU" else "tanh"
    elif isinstance(module, nn.RNNCell):
        options["nonlinearity"] = module.nonlinearity
    return elmans(module.input_size, module.hidden_size, **options)


def _check_weights(module: nn.Module, like: nn.Module) -> None:
    for name, expected in like.named_parameters():
        own = getattr(module, name, None)
        if not isinstance(own, torch.Tensor) or own.shape != expected.shape:
            what = "missing" if own is None else f"of shape {tuple(getattr(own, 'shape', ()))}"
            raise InputError(f"its {name} is {what}; {tuple(expected.shape)} belongs to its sizes")


def _check_names(module: nn.Module, base: type, elmans: type, like: nn.Module) -> None:
    """Refuse attributes that Elman's layer would hide, and methods that it would not call."""
    own = {*vars(module), *module._parameters, *module._buffers, *module._modules} - _MODULE
    ours = set(vars(like)) - _MODULE - _COMMON
    for name in sorted(own - _COMMON):
        if name in ours or (hasattr(elmans, name) and not hasattr(base, name)):
            raise InputError(f"its attribute {name!r} has the name of one of Elman's own")
        method = name in vars(module) and callable(getattr(base, name, None))
        if method and name not in _HARMLESS:
            raise InputError(f"its method {name!r} is replaced on the instance")


def _reason_against(module: nn.Module) -> str | None:
    """Why a recurrent module is left alone; None for one that is not, and for all the others."""
    cls = _torch_class(module)
    if isinstance(module, (_Converted, *_OWN)):
        return "it is Elman's already"
    if isinstance(module, torch.jit.ScriptModule):
        if getattr(module, "original_name", None) in _NAMES:
            return "it is compiled by torch.jit; convert the model before it is scripted"
        return None
    if cls.__module__.startswith("torch.ao.") and cls.__name__ in _NAMES:
        return "it is torch.ao's, for quantisation, and holds its weights in another way"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and cls not in _CLASSES:
        parent = next((c.__name__ for c in cls.__mro__ if c in _CLASSES), None)
        if parent is None:
            return "it has no kernel of torch.nn's; Elman knows LSTM, GRU, RNN and their cells"
        return f"it is a subclass of torch.nn.{parent} and may compute something else"
    return None


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Each module once, with all its names."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    for module, own in names.items():
        yield module, tuple(own)


def _check_model(verb: str, model: object) -> None:
    if isinstance(model, nn.Module):
        return
    if isinstance(model, type) and issubclass(model, nn.Module):
        hint = f"this is the class {model.__name__}; give an instance"
    elif isinstance(model, Conversion):
        hint = "this is the report of a conversion; give its .model"
    else:
        hint = f"this is a {type(model).__name__}"
    raise checks.ArgumentTypeError(f"{verb}: model must be a torch.nn.Module; {hint}")


def _copied(verb: str, model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise InputError(
            f"{verb}: the model cannot be copied ({type(error).__name__}: {error}); use "
            "inplace=True, or give a copy of your own making"
        ) from error
