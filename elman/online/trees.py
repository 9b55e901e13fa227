"""Trees of tensors: what a learner goes on from, as tensors by name and JSON beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from elman.learning import Carried


def change_all(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The tree with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: change_all(value, change) for key, value in tree.items()}
    if isinstance(tree, Carried):
        return Carried(change_all(tree.states, change), change_all(tree.influence, change))
    if isinstance(tree, tuple | list):
        return type(tree)(change_all(value, change) for value in tree)
    return tree


def cut(carried: Any) -> Any:
    """The same values without their history."""
    return change_all(carried, Tensor.detach)


def as_tree(value: Any) -> Any:
    """Dicts and lists in place of tuples, which JSON does not tell from lists."""
    if isinstance(value, Carried):
        return {"states": as_tree(value.states), "influence": as_tree(value.influence)}
    if isinstance(value, tuple):
        return {"tuple": [as_tree(part) for part in value]}
    if isinstance(value, list):
        return [as_tree(part) for part in value]
    return value


def from_tree(tree: Any) -> Any:
    """What `as_tree` was given."""
    if isinstance(tree, dict) and "tuple" in tree:
        return tuple(from_tree(part) for part in tree["tuple"])
    if isinstance(tree, dict) and "influence" in tree:
        return Carried(from_tree(tree["states"]), from_tree(tree["influence"]))
    return tree


def flatten(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Move the tensors of a tree into `tensors`; JSON is left, with their names in their places."""
    if isinstance(tree, Tensor):
        tensors[path] = tree
        return {"tensor": path}
    if isinstance(tree, dict):
        return {k: flatten(v, tensors, f"{path}.{k}".lstrip(".")) for k, v in tree.items()}
    if isinstance(tree, list):
        return [flatten(v, tensors, f"{path}.{i}") for i, v in enumerate(tree)]
    return tree


def unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `flatten` was given."""
    if isinstance(tree, dict) and tree.keys() == {"tensor"}:
        return tensors[tree["tensor"]]
    if isinstance(tree, dict):
        return {key: unflatten(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unflatten(value, tensors) for value in tree]
    return tree
