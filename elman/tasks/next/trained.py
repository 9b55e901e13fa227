"""A trained model of the next item: what users call to ask it and to measure it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elman.data.lexicon import Lexicon
from elman.errors import InputError
from elman.tasks.intervals import in_words
from elman.tasks.next.baseline import NAMES, Followers
from elman.tasks.next.measure import KS, gain, intervals, measured, score, told
from elman.tasks.next.network import OFFSET, NextItemModel
from elman.tasks.next.options import NextOptions
from elman.tasks.next.sessions import Sessions, read_sessions, sessions_given

TOLD = 5  # items told of each session


class TrainedNext:
    """A model of the next item, as `elman.load` returns it.

    Attributes:
        network: the torch module, in evaluation mode.
        lexicon: its items.
        options: with the layout of the files it was trained on.
        followers: the baseline, where it was kept.

    Example:
        >>> import tempfile
        >>> from elman.tasks import build
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/a.txt").write_text("tea milk cup\\ncup tea milk\\n" * 20)
        ...     task = build("next", [f"{folder}/a.txt"], {"hidden": 4})
        >>> model = task.trained()
        >>> said = model.predict(["tea milk", "cup"])
        >>> [sorted(row["next"]) for row in said]
        [['cup', 'milk', 'tea'], ['cup', 'milk', 'tea']]
    """

    task = "next"

    def __init__(
        self,
        network: NextItemModel,
        lexicon: Lexicon,
        options: NextOptions,
        followers: Followers | None = None,
    ):
        self.network, self.lexicon = network.eval(), lexicon
        self.options, self.followers = options, followers

    def take_baseline(
        self, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
    ) -> None:
        """Take what `NextItem.keep_baseline` kept.

        Raises:
            FileError: it does not fit the model.
        """
        self.followers = Followers.of(tensors, self.network.items, where)

    def predict(self, data: Any, count: int = TOLD) -> list[dict[str, Any]]:
        """Tell the likeliest next items of every session.

        Args:
            data: a file of the kind it was trained on, a list of sessions (texts, or lists of
                items), a list of dicts, or an object with Arrow's C interface.
            count: items to tell of each, >= 1.

        Returns:
            for each session a dict of "session", "items" (how many it has), "next" and
            "probabilities"; of a session without any item nothing is told, and a "note" says so.

        Raises:
            FileError: data that cannot be read.
            InputError: data of another kind, or a count below 1.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"predict: count is {count!r}; expected a whole number >= 1.")
        sessions = self._sessions(data)
        numbers = sessions.numbers(self.lexicon)
        found = []
        for key, session, said in zip(
            sessions.keys, numbers, self.tell(numbers, count), strict=True
        ):
            record: dict[str, Any] = {"session": key, "items": len(session)}
            record["next"] = [item for item, _ in said]
            record["probabilities"] = [p for _, p in said]
            unknown = int((session < OFFSET).sum())
            if unknown:
                record["note"] = f"{key}: {unknown} item(s) that training had not, taken as <unk>"
            found.append(record)
        note = {"items": 0, "next": [], "probabilities": []}
        found += [
            {"session": key, **note, "note": f"{key}: no item, so nothing is told"}
            for key in sessions.empty
        ]
        return found

    def answers(self, path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the next items of each session of a file, as a line and as plain values.

        Args:
            path: a file of the kind it was trained on; "-" is standard input.

        Returns:
            the session, a tab, and items with their probabilities; and a dict as of `predict`.
        """
        for record in self.predict(path):
            pairs = zip(record["next"], record["probabilities"], strict=True)
            words = ", ".join(f"{item} {p:.1%}" for item, p in pairs)
            yield f"{record['session']}\t{words}", record

    @torch.no_grad()
    def tell(self, sessions: Sequence[np.ndarray], count: int) -> list[list[tuple[str, float]]]:
        """Return the likeliest next items of sessions of numbers, with their probabilities."""
        found: list[list[tuple[str, float]]] = [[] for _ in sessions]
        ends = np.array([len(session) - 1 for session in sessions])
        for rows, places, vectors in told(self.network, sessions):
            last = np.flatnonzero(places == ends[rows])
            if not len(last):
                continue
            p = self.network.scores(vectors[torch.from_numpy(last)]).softmax(-1)
            best, items = p.topk(min(count, self.network.items))
            for row, values, which in zip(rows[last], best.tolist(), items.tolist(), strict=True):
                names = [self.lexicon.token(i + OFFSET) for i in which]
                found[row] = list(zip(names, values, strict=True))
        return found

    def vectors(self) -> tuple[list[str], Tensor]:
        """Return the items, and their learned vectors, (items, embedding)."""
        weight = self.network.embedding.weight.detach()
        return list(self.lexicon.tokens[OFFSET:]), weight[OFFSET:]

    def evaluate(self, data: Any) -> dict[str, Any]:
        """Measure the model on sessions it has not seen.

        Every item but the first of each session is to be told from all before it. An item that
        training had not counts as missed, and is left out of the nats.

        Args:
            data: files of the kind it was trained on, or what `predict` takes.

        Returns:
            "recall@1", … "recall@20", "mrr", "nats_per_item", "bits_per_item", "sessions",
            "judged" items, "unknown" ones, "left_out" sessions, "intervals", and, where the
            baseline was kept, "baseline" and "verdict". The nats and bits are None where training
            had none of the items.

        Raises:
            FileError: a file that cannot be read.
            InputError: no session of two items or more.
        """
        sessions = self._sessions(data)
        numbers = [part for part in sessions.numbers(self.lexicon) if len(part) > 1]
        if not numbers:
            raise InputError(
                f"evaluate: no session of two items or more, so there is nothing to tell. Read was "
                f"{sessions.said}."
            )
        sums = score(self.network, numbers)
        found = measured(sums)
        found["judged"] = int(found["judged"])
        found["sessions"] = len(numbers)
        found["unknown"] = int(sum((part[1:] < OFFSET).sum() for part in numbers))
        found["left_out"] = len(sessions) + len(sessions.empty) - len(numbers)
        found["intervals"] = intervals(sums)
        if self.followers is not None:
            each = {name: self.followers.judge(numbers, name) for name in NAMES}
            baseline = as_baseline({name: measured(s) for name, s in each.items()})
            baseline["intervals"] = intervals(each["bigram"])
            baseline["gain"] = gain(sums, each[better(baseline)])
            found["baseline"] = baseline
            found["verdict"] = against(found, baseline)
        else:
            found["note"] = "no baseline was kept with this model, so it is held against nothing"
        return found

    @staticmethod
    def in_words(metrics: Mapping[str, Any]) -> list[str]:
        """Say what `evaluate` found, in lines."""
        ends = metrics["intervals"]
        lines = [f"{metrics['sessions']:,} sessions, {metrics['judged']:,} items to tell"]
        if metrics["left_out"]:
            lines[0] += f" ({metrics['left_out']:,} sessions of fewer than two items left out)"
        if metrics["unknown"]:
            lines.append(f"{metrics['unknown']:,} of them not in training, counted as missed")
        baseline = metrics.get("baseline", {})
        for name in (*(f"recall@{k}" for k in KS), "mrr", "nats_per_item"):
            form = ".1%" if name.startswith("recall") else ".3f"
            if ends[name] is None:
                lines.append(f"{name.replace('_', ' ')}: –")
                continue
            line = f"{name.replace('_', ' ')}: {in_words(metrics[name], ends[name], form)}"
            if baseline:
                line += f"; bigram {baseline[name]:{form}}"
                line += f", popularity {baseline['popularity'][name]:{form}}"
            lines.append(line)
        if not baseline:
            return lines
        if baseline["gain"] is not None:
            name, (low, high) = better(baseline), baseline["gain"]
            by = metrics["mrr"] - _mrr(baseline, name)
            lines.append(f"mrr above that of {name} by {by:.4f} ({low:.4f} to {high:.4f})")
        return [*lines, metrics["verdict"]]

    def _sessions(self, data: Any) -> Sessions:
        if isinstance(data, str | Path):
            return read_sessions([data], self.options)
        if isinstance(data, Sequence) and data and all(map(_is_file, data)):
            return read_sessions(list(data), self.options)
        return sessions_given(data, self.options)


def _is_file(entry: object) -> bool:
    """Whether an entry of a list names a file, and is no session itself."""
    if not isinstance(entry, str):
        return isinstance(entry, Path)
    return entry == "-" or ("\n" not in entry and len(entry) < 256 and Path(entry).is_file())


def as_baseline(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put the figures of both baselines together, the bigram first."""
    bigram, popularity = found["bigram"], found["popularity"]
    nats = bigram["nats_per_item"]
    in_nats = "" if nats is None else f", {nats:.3f} nats an item"
    words = (
        f"bigram (what followed the last item, backed off to popularity): recall@5 "
        f"{bigram['recall@5']:.1%}, mrr {bigram['mrr']:.3f}{in_nats}; popularity: recall@5 "
        f"{popularity['recall@5']:.1%}, mrr {popularity['mrr']:.3f}"
    )
    return {"name": "bigram", **bigram, "popularity": dict(popularity), "words": words}


def against(metrics: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """Say in words which is ahead by the mean reciprocal rank, and what to use.

    The baseline has the interval of the difference ("gain"), which must not reach 0.
    """
    name = better(baseline)
    theirs, ours = _mrr(baseline, name), metrics["mrr"]
    figures = f"mrr {ours:.3f} against {theirs:.3f}"
    if "recall@5" in metrics:
        other = baseline if name == "bigram" else baseline["popularity"]
        figures += f", recall@5 {metrics['recall@5']:.1%} against {other['recall@5']:.1%}"
    sure = baseline["gain"]
    if sure is not None and sure[0] > 0 and f"{ours:.3f}" != f"{theirs:.3f}":
        return f"{figures}: this model is ahead of {name}."
    return f"{figures}: {name} is level or ahead. Use the baseline, or find more sessions."


def better(baseline: Mapping[str, Any]) -> str:
    """Return which baseline has the larger mean reciprocal rank."""
    return max(("bigram", "popularity"), key=lambda name: _mrr(baseline, name))


def _mrr(baseline: Mapping[str, Any], name: str) -> float:
    return float(baseline["mrr"] if name == "bigram" else baseline["popularity"]["mrr"])
