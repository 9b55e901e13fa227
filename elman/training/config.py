"""config.yaml: everything a run was asked for and what was chosen, enough to go on with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field

from elman.errors import FileError, InputError
from elman.tasks.base import TaskOptions, parse_options
from elman.training.folder import write_text
from elman.training.options import TrainingOptions

FORMAT = 1
_LARGEST = 1 << 20  # bytes of a config.yaml; an honest one has two thousand


class DataFile(TaskOptions):
    """A file of data as it was when the run began.

    Args:
        path: absolute.
        bytes: its size.
        sha256: hex digest of its content.
    """

    path: str
    bytes: int
    sha256: str


class RunConfig(TaskOptions):
    """The content of config.yaml.

    Args:
        format: of this file, 1.
        elman: version of Elman that began the run.
        task: name of the task, "lm".
        data: the files learned from, in order.
        also: other files the task read (a validation file).
        options: the task's own options, nothing left open.
        training: how the run trains, nothing left open.
    """

    format: int
    elman: str
    task: str
    data: list[DataFile]
    also: list[DataFile] = Field(default_factory=list)
    options: dict[str, Any]
    training: TrainingOptions


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also reads 1e-3 as a number and refuses a key said twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is there twice", node.start_mark
            )
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def fingerprint(path: str | Path) -> DataFile:
    """Return path, size and SHA-256 digest of a file.

    Raises:
        FileError: the file cannot be read.
    """
    path = Path(path).absolute()
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise FileError(f"{path}: {(error.strerror or 'cannot be read').lower()}.") from None
    return DataFile(path=str(path), bytes=size, sha256=digest)


def check_unchanged(files: Sequence[DataFile]) -> None:
    """See that data files are what they were when the run began.

    Raises:
        FileError: a file is gone or changed; it says which, and what to do.
    """
    for then in files:
        now = fingerprint(then.path)
        if now == then:
            continue
        raise FileError(
            f"{then.path} has changed since this run began ({then.bytes:,} bytes then, "
            f"{now.bytes:,} now{', other content' if now.bytes == then.bytes else ''}). A run goes "
            "on only with the data it began with; bring that back, or begin a new run from these "
            "weights (init_from)."
        )


def plain(options: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Return options as plain values that YAML can hold."""
    if isinstance(options, BaseModel):
        return options.model_dump(mode="json")
    return dict(options)


def write(path: Path, config: RunConfig) -> None:
    """Write config.yaml, aside and renamed."""
    text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=100)
    write_text(path, text)


def read(path: Path) -> RunConfig:
    """Read config.yaml with the safe loader, and check every key and type.

    Raises:
        FileError: there is no such file, or it is no YAML.
        InputError: an unknown key, a wrong type, a value out of range; in one line.
    """
    values = read_yaml(path)
    files: dict[str, list[DataFile]] = {}
    for name in ("data", "also"):
        entries = values.get(name, [])
        if not isinstance(entries, list):
            raise InputError(f"{path}: {name} should be a list of files, got {entries!r}.")
        files[name] = [parse_options(DataFile, e, f"{path}: {name}") for e in entries]
    if "training" in values:
        training = parse_options(TrainingOptions, values["training"], f"{path}: training")
        values = {**values, "training": training}
    config = parse_options(RunConfig, {**values, **files}, str(path))
    if config.format != FORMAT:
        raise FileError(
            f"{path}: format {config.format} is not the one this version of Elman reads ({FORMAT})."
        )
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds names and values.

    Raises:
        FileError: missing, too large, not UTF-8, not YAML, or something else than a mapping.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: {(error.strerror or 'cannot be read').lower()}.") from None
    if len(data) > _LARGEST:
        raise FileError(f"{path}: {len(data):,} bytes is too much for a configuration.")
    try:
        values = yaml.load(data.decode("utf-8"), Loader=_Loader)  # a SafeLoader
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 at byte {error.start}.") from None
    except yaml.YAMLError as error:
        raise FileError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise FileError(f"{path}: expected names and values, got {type(values).__name__}.")
    return values
