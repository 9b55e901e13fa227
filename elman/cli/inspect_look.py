"""What `elman inspect` measures and draws: gradients, states, gates, spectrum."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from elman import diagnose
from elman.cli.inspect_text import Reading, plain, read
from elman.cli.score import visible
from elman.cli.terminal import note, table
from elman.errors import InputError
from elman.plots import inspect as pictures

if TYPE_CHECKING:
    from torch import Tensor

Found = tuple[dict[str, Any], list[str]]

_SPECTRA = 32  # steps whose singular values are computed; each costs the cube of the units


def gradients(reading: Reading, place: Path, others: Sequence[str], unknown: str) -> Found:
    """The gradient flow of the run's own loss, its horizon, and advice."""
    flow = _flow(reading)
    drawn = [place / "gradients.png", place / "horizon.png"]
    tokens, predicted = reading.tokens[:-1], reading.tokens[1:]
    pictures.flow(flow, drawn[0], tokens=tokens, predicted=predicted, title=reading.name)
    decays = {p.name: p.decay() for p in flow.places}
    flows = {reading.name: flow}
    for other in others:
        beside = _again(other, reading, unknown)
        name = beside.name if beside.name not in flows else other
        flows[name] = _flow(beside)
    if others:
        decays = {name: f.places[-1].decay() for name, f in flows.items()}
        drawn.append(place / "beside.png")
        pictures.beside(flows, drawn[-1])
    pictures.decay(decays, drawn[1], title="" if others else reading.name)
    ids, targets = _pairs(reading)
    found = diagnose.advice(reading.model.network, ids, targets, _loss)
    data = _head(reading, drawn) | {
        "losses": plain(flow.losses),
        "places": [_flow_data(p) for p in flow.places],
        "advice": [one.to_json() for one in found],
        "beside": {
            name: [_decay_data(p.decay()) | {"place": p.name} for p in f.places]
            for name, f in list(flows.items())[1:]
        },
    }
    return data, [line for one in found for line in one.lines()]


def _again(run: str, reading: Reading, unknown: str) -> Reading:
    """Another run on the same text."""
    text = "".join(reading.tokens[1:])
    if reading.model.vocabulary.level == "word":
        text = reading.model.vocabulary.decode(reading.ids[1:])
    return read(run, text, None, 100_000, unknown)


def _pairs(reading: Reading) -> tuple[Tensor, Tensor]:
    """What is read and what is to be predicted, (time, 1)."""
    ids = torch.tensor(reading.ids).unsqueeze(1)
    return ids[:-1], ids[1:]


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits, target, reduction="none")


def _flow(reading: Reading) -> diagnose.Flow:
    ids, targets = _pairs(reading)
    return diagnose.gradient_flow(reading.model.network, ids, targets, _loss)


def _flow_data(place: diagnose.PlaceFlow) -> dict[str, Any]:
    return {
        "place": place.name,
        "matrix": plain(place.matrix()),
        "all": _decay_data(place.decay()),
        "gates": {name: _decay_data(place.decay(name)) for name in place.gates},
        "states": {name: _decay_data(place.decay(name)) for name in place.states},
    }


def _decay_data(decay: diagnose.Decay) -> dict[str, Any]:
    return {
        "word": decay.word,
        "e_fold": decay.e_fold,
        "horizon": decay.horizon,
        "explodes": decay.explodes,
        "rate": plain(decay.rate),
        "mean": plain(decay.mean),
    }


def states(
    reading: Reading, place: Path, unit: int | None, state: str | None, layer: int | None
) -> Found:
    """Every unit of every state over the tokens, and the text coloured by one."""
    layers = diagnose.activity(reading.model.network, torch.tensor(reading.ids).unsqueeze(1))
    at = len(layers) if layer is None else layer
    if not 1 <= at <= len(layers):
        raise InputError(f"inspect: --layer is {layer}; this model has layers 1 to {len(layers)}.")
    one = layers[at - 1]
    name = next(iter(one.states)) if state is None else state
    number = _liveliest(one, name) if unit is None else unit
    values = diagnose.unit_of(one, name, number)[:, 0]
    drawn = [place / f"states-{found.name.replace(' ', '')}.png" for found in layers]
    for found, path in zip(layers, drawn, strict=True):
        pictures.states(found, reading.tokens, path, title=reading.name)
    drawn.append(place / "unit.png")
    which = f"unit {number} of {name}, {one.name}"
    bound = float(values.abs().max())
    scale = f"blue −{bound:.2g}, red +{bound:.2g}"
    pictures.text(reading.tokens, values.tolist(), drawn[-1], title=f"{which} ({scale})")
    data = _head(reading, drawn) | {
        "unit": {"layer": at, "state": name, "unit": number, "values": plain(values)},
        "places": [
            {
                "place": found.name,
                "norms": {n: plain(v[:, 0]) for n, v in found.norms().items()},
                "states": {n: plain(v[:, 0]) for n, v in found.states.items()},
            }
            for found in layers
        ],
    }
    return data, [f"{which} ({scale}):", *coloured(reading.tokens, values.tolist())]


def _liveliest(one: diagnose.Activity, name: str) -> int:
    """The unit that changes most over the text."""
    diagnose.unit_of(one, name, 0)
    values = one.states[name]
    return int(values.reshape(len(values), -1).std(0).argmax())


def coloured(tokens: Sequence[str], values: Sequence[float]) -> list[str]:
    """Lines of a text on coloured ground, blue below zero and red above, for a terminal.

    Where there are no colours (a pipe, NO_COLOR), the numbers stand behind the tokens.
    """
    bound = max((abs(v) for v in values), default=0.0) or 1.0
    if not _has_colours():
        rows = [(visible(t), f"{v:+.3f}") for t, v in zip(tokens, values, strict=True)]
        return table(("token", "value"), rows)
    lines, line = [], ""
    for token, value in zip(tokens, values, strict=True):
        part = max(-1.0, min(1.0, value / bound))
        faint = round(255 * (1 - abs(part)))
        red, green, blue = (255, faint, faint) if part > 0 else (faint, faint, 255)
        line += f"\x1b[48;2;{red};{green};{blue}m\x1b[30m{visible(token)}\x1b[0m"
        if token == "\n":
            lines.append(line)
            line = ""
    return [*lines, line] if line else lines


def _has_colours() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def gates(reading: Reading, place: Path) -> Found:
    """Every gate over the tokens, and how much of each is near its bounds."""
    layers = diagnose.activity(reading.model.network, torch.tensor(reading.ids).unsqueeze(1))
    drawn, rows, places = [], [], []
    for found in layers:
        if not found.gates:
            note(f"note: {found.name} has no gate and no activation to look at.")
            continue
        name = found.name.replace(" ", "")
        drawn += [place / f"gates-{name}.png", place / f"saturation-{name}.png"]
        pictures.gates(found, reading.tokens, drawn[-2], title=reading.name)
        pictures.saturated(found, drawn[-1], title=reading.name)
        shares = found.saturation()
        for gate, s in shares.items():
            figures = (f"{v:.3f}" for v in (s.mean, s.low, s.high, s.stuck))
            rows.append((found.name, gate, found.functions[gate], *figures))
        places.append(
            {
                "place": found.name,
                "gates": {
                    gate: plain_saturation(s) | {"values": plain(found.gates[gate][:, 0])}
                    for gate, s in shares.items()
                },
            }
        )
    data = _head(reading, drawn) | {"places": places}
    head = ("place", "gate", "function", "mean", "near low", "near high", "stuck units")
    return data, table(head, rows)


def plain_saturation(found: diagnose.Saturation) -> dict[str, Any]:
    """A saturation as plain data."""
    return {key: plain(value) for key, value in found._asdict().items()}


def spectrum(reading: Reading, place: Path) -> Found:
    """Singular values and spectral radii of the steps, Lyapunov exponents of the whole."""
    ids = torch.tensor(reading.ids).unsqueeze(1)
    network = reading.model.network
    spectra = diagnose.spectrum(network, ids, most=_SPECTRA)
    exponents = diagnose.lyapunov(network, ids)
    drawn = [place / "spectrum.png"]
    pictures.spectrum(spectra, exponents, drawn[0], title=reading.name)
    rows, places = [], []
    for one, found in zip(spectra, exponents, strict=True):
        largest, radius = float(one.singular[..., 0].median()), float(one.radius.median())
        top = float(found.values.max())
        rows.append((one.name, f"{largest:.3f}", f"{radius:.3f}", f"{top:+.3f}", _says(top)))
        places.append(
            {
                "place": one.name,
                "steps": list(one.steps),
                "singular": plain(one.singular[:, 0]),
                "radius": plain(one.radius[:, 0]),
                "lyapunov": plain(found.values[0]),
                "skipped": found.skipped,
            }
        )
    head = ("place", "σ₁ (median)", "radius (median)", "largest exponent", "that is")
    return _head(reading, drawn) | {"places": places}, table(head, rows)


def _says(exponent: float) -> str:
    """A largest Lyapunov exponent in words."""
    if exponent > 0.01:
        return "chaotic: small changes grow"
    if exponent > -0.01:
        return "at the edge: small changes stay"
    return f"it forgets a change by half in {0.6931 / -exponent:.1f} tokens"


def _head(reading: Reading, drawn: Sequence[Path]) -> dict[str, Any]:
    return {
        "run": reading.name,
        "tokens": reading.tokens,
        "pictures": [str(path) for path in drawn],
    }
