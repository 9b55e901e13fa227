"""The cache of compiled kernels: what it keeps, what it refuses, and that it never fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from elman.backends.cpu import cache

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
CODE = b"object code " * 100
MACHINE = "avx2 x86_64-unknown-linux-gnu x86-64-v3  "

posix = pytest.mark.skipif(os.name == "nt", reason="modes and owners are POSIX's")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    place = tmp_path / "kernels"
    monkeypatch.setenv("ELMAN_CACHE", str(place))
    monkeypatch.setattr(cache, "_warned", False)
    return place


def entry(folder: Path) -> Path:
    (found,) = folder.glob("*.kernel")
    return found


def refused(match: str) -> None:
    """The entry is refused, with a warning at the first time only: more would be errors."""
    with pytest.warns(RuntimeWarning, match=match) as seen:
        assert cache.read(KEY, MACHINE) is None
    assert len(seen) == 1
    assert cache.read(KEY, MACHINE) is None


def test_what_is_written_is_read(folder):
    assert cache.read(KEY, MACHINE) is None
    assert not folder.exists(), "reading makes no folder"
    assert cache.write(KEY, MACHINE, CODE)
    assert cache.read(KEY, MACHINE) == CODE
    assert cache.read(OTHER, MACHINE) is None
    assert [item.size for item in cache.entries()] == [entry(folder).stat().st_size]
    assert cache.clear() == 1
    assert cache.read(KEY, MACHINE) is None


@posix
def test_folder_and_entries_are_the_users_own(folder):
    old = os.umask(0)
    try:
        cache.write(KEY, MACHINE, CODE)
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert entry(folder).stat().st_mode & 0o777 == 0o600


def test_every_damaged_byte_is_found(folder):
    """One bit turned anywhere, in the header or the code, and the entry is not used."""
    cache.write(KEY, MACHINE, CODE)
    path = entry(folder)
    whole = path.read_bytes()
    for place in [*range(cache._HEAD.size + len(MACHINE) + 8), len(whole) // 2, len(whole) - 1]:
        turned = bytearray(whole)
        turned[place] ^= 1
        path.write_bytes(turned)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert cache.read(KEY, MACHINE) is None, place
    path.write_bytes(whole)
    assert cache.read(KEY, MACHINE) == CODE


@pytest.mark.parametrize("length", [0, 1, 87, 100, -1])
def test_a_cut_entry_is_refused_and_rewritten(folder, length):
    cache.write(KEY, MACHINE, CODE)
    path = entry(folder)
    path.write_bytes(path.read_bytes()[:length])
    refused("cut short")
    cache.write(KEY, MACHINE, CODE)
    assert cache.read(KEY, MACHINE) == CODE


def test_an_entry_that_is_too_long_is_refused(folder):
    cache.write(KEY, MACHINE, CODE)
    with entry(folder).open("ab") as file:
        file.write(b"x")
    refused("too long")


def test_code_for_another_processor_is_refused(folder):
    cache.write(KEY, MACHINE.replace("avx2", "avx9"), CODE)
    refused("another processor")


def test_an_entry_under_another_name_is_refused(folder):
    cache.write(OTHER, MACHINE, CODE)
    entry(folder).rename(folder / f"{KEY.hex()}.kernel")
    refused("another kernel")


@posix
def test_an_entry_that_others_may_write_is_refused(folder):
    cache.write(KEY, MACHINE, CODE)
    entry(folder).chmod(0o620)
    refused("written by others")
    cache.write(KEY, MACHINE, CODE)
    assert cache.read(KEY, MACHINE) == CODE


@posix
def test_an_entry_that_is_a_link_or_a_pipe_is_refused(folder, tmp_path, monkeypatch):
    cache.write(KEY, MACHINE, CODE)
    path = entry(folder)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refused("symbolic link")
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(cache, "_warned", False)
    refused("not a plain file")


@posix
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_may_write_is_not_used(folder, mode):
    cache.write(KEY, MACHINE, CODE)
    folder.chmod(mode)
    refused("written by others")
    assert not cache.write(OTHER, MACHINE, CODE)
    assert cache.entries() == []
    assert cache.folder() is None
    assert cache.clear() == 0
    assert entry(folder).exists()


@posix
def test_a_folder_of_another_user_is_not_used(folder, monkeypatch):
    cache.write(KEY, MACHINE, CODE)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    refused("not to you")


@posix
def test_a_folder_that_is_a_link_is_not_used(folder, tmp_path, monkeypatch):
    cache.write(KEY, MACHINE, CODE)
    link = tmp_path / "link"
    link.symlink_to(folder)
    monkeypatch.setenv("ELMAN_CACHE", str(link))
    refused("is a link")


def test_where_no_folder_can_be_one_warning_and_on(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "file" / "kernels"))
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        assert not cache.write(KEY, MACHINE, CODE)
    assert not cache.write(OTHER, MACHINE, CODE)


def test_a_file_in_place_of_the_folder_is_not_used(folder):
    folder.write_text("")
    with pytest.warns(RuntimeWarning, match="is not a folder"):
        assert not cache.write(KEY, MACHINE, CODE)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(folder):
    folder.mkdir(mode=0o500)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        assert not cache.write(KEY, MACHINE, CODE)


def test_a_full_disk_leaves_nothing_behind(folder, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        assert not cache.write(KEY, MACHINE, CODE)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("word", ["", "off", "OFF", " "])
def test_turned_off(word, monkeypatch, tmp_path):
    monkeypatch.setenv("ELMAN_CACHE", word)
    monkeypatch.chdir(tmp_path)
    assert not cache.write(KEY, MACHINE, CODE)
    assert cache.read(KEY, MACHINE) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG is Linux's")
def test_the_systems_place_for_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("ELMAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache._place() == tmp_path / "xdg" / "elman" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache._place() == tmp_path / ".cache" / "elman" / "kernels"


def test_the_longest_unused_go_first(folder, monkeypatch):
    keys = [bytes([number]) * 32 for number in range(4)]
    for age, key in enumerate(keys[:3]):
        cache.write(key, MACHINE, CODE)
        os.utime(folder / f"{key.hex()}.kernel", (1e9 + age, 1e9 + age))
    assert cache.read(keys[0], MACHINE) == CODE  # now the last used
    monkeypatch.setattr(cache, "LIMIT", 3 * cache.entries()[0].size)
    cache.write(keys[3], MACHINE, CODE)
    there = [cache.read(key, MACHINE) is not None for key in keys]
    assert there == [True, False, True, True]


def test_what_a_killed_writer_left_is_cleared(folder):
    folder.mkdir(mode=0o700)
    old, new = folder / ".aside-old", folder / ".aside-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    cache.write(KEY, MACHINE, CODE)
    assert (old.exists(), new.exists()) == (False, True)


def test_the_digest_parts_do_not_run_together():
    base = cache.digest("key", ["f", "g"], "machine", "llvm")
    assert base == cache.digest("key", ["f", "g"], "machine", "llvm")
    others = [
        cache.digest("key2", ["f", "g"], "machine", "llvm"),
        cache.digest("key", ["fg"], "machine", "llvm"),
        cache.digest("key", ["g", "f"], "machine", "llvm"),
        cache.digest("gkey", ["f"], "machine", "llvm"),
        cache.digest("key", ["f", "g"], "machine2", "llvm"),
        cache.digest("key", ["f", "g"], "machine", "llvm2"),
    ]
    assert len({base, *others}) == 7


def test_the_digest_knows_the_version_and_the_sources(monkeypatch):
    base = cache.digest("key", ["f"], "machine", "llvm")
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_version", lambda: "9.9")
        assert cache.digest("key", ["f"], "machine", "llvm") != base
    monkeypatch.setattr(cache, "_sources", lambda: "an emitter that was changed")
    assert cache.digest("key", ["f"], "machine", "llvm") != base


# Each process writes code of its own length under the same key, and reads what it finds.
_RACE = """
import importlib.util, os, sys, warnings
warnings.simplefilter("error")
spec = importlib.util.spec_from_file_location("cache", sys.argv[1])
cache = importlib.util.module_from_spec(spec)
sys.modules["cache"] = cache
spec.loader.exec_module(cache)
me = int(sys.argv[2])
for turn in range(60):
    assert cache.write(b"k" * 32, "m", bytes([me]) * (5000 * (me + 1)))
    seen = cache.read(b"k" * 32, "m")
    assert seen is not None and len(seen) == 5000 * (seen[0] + 1), len(seen or b"")
    if turn % 20 == 19:
        cache.entries(), cache._trim(cache.folder())
"""


def test_many_processes_at_once(folder):
    command = [sys.executable, "-I", "-c", _RACE, cache.__file__]
    running = [
        subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE) for number in range(4)
    ]
    for process in running:
        _, problem = process.communicate(timeout=120)
        assert process.returncode == 0, problem.decode()
    assert len(list(folder.iterdir())) == 1
