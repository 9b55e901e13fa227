"""A trained model of trees: what users call to label and to evaluate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.data.trees import LabelledTree, parse_trees, read_trees
from elman.tasks.tree.corpus import Meaning
from elman.tasks.tree.measure import measure, parts
from elman.tasks.tree.network import TreeModel


class Labelled(NamedTuple):
    """What a model says of one tree: its label and its certainty at every node."""

    labels: list[str]
    probabilities: list[float]


class TrainedTree:
    """A model of trees with its vocabulary, as `elman.load` returns it.

    Attributes:
        network: the torch module, in evaluation mode.
        meaning: its vocabulary and labels.

    Example:
        >>> import tempfile
        >>> from elman.tasks import build
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/a.txt").write_text("(1 (1 good) (1 fun))\\n(0 bad)\\n" * 20)
        ...     task = build("tree", [f"{folder}/a.txt"], {"hidden": 4, "embedding": 3})
        >>> model = task.trained()
        >>> said = model.predict(["(? (? good) (? bad))"])[0]
        >>> said.startswith("("), said.count("(")
        (True, 3)
    """

    task = "tree"

    def __init__(self, network: TreeModel, meaning: Meaning):
        self.network, self.meaning = network.eval(), meaning

    def predict(self, trees: Iterable[str | LabelledTree]) -> list[str]:
        """Return trees in brackets with the model's labels; theirs are not read.

        Args:
            trees: in brackets, with or without labels, or as `elman.data.trees.read_trees` gives
                them.

        Raises:
            FileError: a text is no tree; the error has line and column.
        """
        found = list(_as_trees(trees))
        return [_with_labels(t, said) for t, said in zip(found, self.label(found), strict=True)]

    def answers(self, path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each tree of a file with the model's labels, and the same as plain values.

        Args:
            path: a file of bracketed trees; "-" is standard input.

        Returns:
            the tree in brackets, and a dict of "tree" (the same), "label" and "probability" of the
            root, and of all nodes, as they open, "labels" and "probabilities"; "note" where a
            leaf may have been meant otherwise.

        Raises:
            FileError: the file is none of trees; the error has line and column.
        """
        for part in parts(read_trees(path)):
            for tree, said in zip(part, self.label(part), strict=True):
                text = _with_labels(tree, said)
                record = {
                    "tree": text,
                    "label": said.labels[0],
                    "probability": said.probabilities[0],
                    "labels": said.labels,
                    "probabilities": said.probabilities,
                }
                doubt = self._doubt(tree)
                yield text, record | ({"note": doubt} if doubt else {})

    def _doubt(self, tree: LabelledTree) -> str:
        """Words for a leaf whose label may be meant as a word; "" where none is."""
        for label, word in zip(tree.labels, tree.words, strict=True):
            if label is not None and word is not None and label not in (*self.meaning.classes, "?"):
                return (
                    f"line {tree.line}: ({label} {word}) is read as the word {word!r} with the "
                    f"label {label!r}, which is none of the model's; if it is a word, give it "
                    f"brackets of its own: (({label}) ({word}))"
                )
        return ""

    @torch.no_grad()
    def label(self, trees: Sequence[str | LabelledTree]) -> list[Labelled]:
        """Return the label and its probability at every node of every tree."""
        found: list[Labelled] = []
        for part in parts(list(_as_trees(trees))):
            batch = self.meaning.batch(part, labels=False)
            certain, told = self.network(batch.words, batch.parents).softmax(1).max(1)
            first = 0
            for tree in part:
                end = first + len(tree.parents)
                names = [self.meaning.classes[i] for i in told[first:end].tolist()]
                found.append(Labelled(names, certain[first:end].tolist()))
                first = end
        return found

    def evaluate(self, files: str | Path | Sequence[str | Path]) -> dict[str, Any]:
        """Measure the model on files of labelled trees.

        In a binary model trees with a root of 2 are left out.

        Returns:
            "root_accuracy", "node_accuracy", "nats_per_node", and the numbers of trees, labelled
            roots and labelled nodes.

        Raises:
            FileError: a file cannot be read, or has a label that training had not.
        """
        names = [files] if isinstance(files, str | Path) else list(files)
        trees = [tree for name in names for tree in read_trees(name)]
        if self.meaning.binary:
            trees = [tree for tree in trees if tree.labels[0] != "2"]
        return measure(self.network, self.meaning, trees, ", ".join(map(str, names)))

    def vectors(self) -> tuple[Sequence[str], Tensor]:
        """Return the words and their learned vectors, (words, size); the first is the unknown."""
        return self.meaning.words, self.network.embedding.weight.detach()

    @staticmethod
    def in_words(metrics: Mapping[str, Any]) -> list[str]:
        """Say what `evaluate` found, in lines."""
        lines = [f"{metrics['trees']:,} trees"]
        for name, key in (("root", "root"), ("node", "node")):
            count = metrics[f"labelled_{name}s"]
            share = f"{metrics[f'{key}_accuracy']:.1%} right" if count else "none labelled"
            lines.append(f"{name}s: {share} ({count:,} labelled)")
        return [*lines, f"{metrics['nats_per_node']:.4f} nats a node"]


def _with_labels(tree: LabelledTree, said: Labelled) -> str:
    labels: list[str | None] = list(said.labels)
    return str(LabelledTree(labels, tree.words, tree.parents, tree.line))


def _as_trees(trees: Iterable[str | LabelledTree]) -> Iterable[LabelledTree]:
    for tree in [trees] if isinstance(trees, str) else trees:
        if isinstance(tree, str):
            yield from parse_trees([tree], "the text given")
        else:
            yield tree
