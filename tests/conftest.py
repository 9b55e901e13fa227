"""What all tests share: a folder of compiled kernels that lives as long as the session."""

from __future__ import annotations

import os
import tempfile

import pytest

CACHE = "ELMAN_CACHE"
_folder = pytest.StashKey[tempfile.TemporaryDirectory]()
_before = pytest.StashKey[str | None]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled kernels away from the user's cache; subprocesses of tests see the folder too.

    ELMAN_TEST_CACHE names a folder that outlives the session, for quick runs again and again.
    """
    config.stash[_before] = os.environ.get(CACHE)
    kept = os.environ.get("ELMAN_TEST_CACHE")
    if not kept:
        config.stash[_folder] = tempfile.TemporaryDirectory(prefix="elman-tests-")
        kept = config.stash[_folder].name
    os.environ[CACHE] = kept


def pytest_unconfigure(config: pytest.Config) -> None:
    """Put the environment back, and remove the folder."""
    before = config.stash.get(_before, None)
    if before is None:
        os.environ.pop(CACHE, None)
    else:
        os.environ[CACHE] = before
    if _folder in config.stash:
        config.stash[_folder].cleanup()
