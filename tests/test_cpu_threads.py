"""Compiled functions on torch's threads and on ours: who runs what, barriers, forks, interrupts."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from elman.backends.cpu import engine, threads
from elman.backends.cpu.machine import host
from elman.errors import InputError

# Words of the argument block: the barrier, the rounds, how often a thread saw a wrong value, if a
# thread has begun, and from SLOT on, one word a thread.
BARRIER, ROUNDS, WRONG, BEGUN, SLOT, WORDS = 0, 1, 2, 3, 8, 40

# tell: each thread writes how many there are. meet: in each round each thread writes the round's
# number, all meet, each reads what all wrote, all meet. wait: until another sets the rounds' word.
IR = """
define void @tell(ptr %a, i64 %thread, i64 %threads) nounwind {
  %mine = add i64 %thread, 8
  %p = getelementptr i64, ptr %a, i64 %mine
  store i64 %threads, ptr %p
  ret void
}

define void @meet(ptr %a, i64 %thread, i64 %threads) nounwind {
entry:
  %barrier = load ptr, ptr %a
  %p.rounds = getelementptr i64, ptr %a, i64 1
  %rounds = load i64, ptr %p.rounds
  %p.wrong = getelementptr i64, ptr %a, i64 2
  %slots = getelementptr i64, ptr %a, i64 8
  %p.mine = getelementptr i64, ptr %slots, i64 %thread
  br label %round
round:
  %r = phi i64 [1, %entry], [%r.next, %met]
  store i64 %r, ptr %p.mine
  call void %barrier()
  br label %look
look:
  %j = phi i64 [0, %round], [%j.next, %look]
  %p.other = getelementptr i64, ptr %slots, i64 %j
  %other = load i64, ptr %p.other
  %differs = icmp ne i64 %other, %r
  %wrong = zext i1 %differs to i64
  %old = atomicrmw add ptr %p.wrong, i64 %wrong monotonic
  %j.next = add i64 %j, 1
  %more = icmp slt i64 %j.next, %threads
  br i1 %more, label %look, label %looked
looked:
  call void %barrier()
  br label %met
met:
  %r.next = add i64 %r, 1
  %again = icmp sle i64 %r.next, %rounds
  br i1 %again, label %round, label %done
done:
  ret void
}

define void @wait(ptr %a, i64 %thread, i64 %threads) nounwind {
entry:
  %p = getelementptr i64, ptr %a, i64 1
  %p.begun = getelementptr i64, ptr %a, i64 3
  store atomic i64 1, ptr %p.begun release, align 8
  br label %look
look:
  %set = load atomic i64, ptr %p acquire, align 8
  %go = icmp ne i64 %set, 0
  br i1 %go, label %done, label %look
done:
  call void @tell(ptr %a, i64 %thread, i64 %threads)
  ret void
}
"""


@pytest.fixture(scope="module")
def code():
    return engine.compile_module(
        "threads test", lambda: IR, ["tell", "meet", "wait"], host(), cached=False
    )


@pytest.fixture(params=["openmp", "own"])
def team(request, monkeypatch):
    """Both ways to several threads, each in turn."""
    usual = threads._openmp()
    if request.param == "openmp":
        if usual is None:
            pytest.skip("torch has no OpenMP that can be called here")
        monkeypatch.setattr(threads, "_team", usual)
        yield "openmp"
        return
    pool = threads._Pool()
    monkeypatch.setattr(threads, "_team", pool)
    yield "own"
    pool.close()
    threads._openmp()  # the barrier is OpenMP's again


def block() -> ctypes.Array[ctypes.c_int64]:
    words = (ctypes.c_int64 * WORDS)()
    words[BARRIER] = threads.barrier_address()
    return words


def slots(words: ctypes.Array[ctypes.c_int64]) -> list[int]:
    return [word for word in words[SLOT:] if word]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_thread_is_called_once_with_the_number_of_all(code, team, count):
    words = block()
    threads.run(code.address("tell"), ctypes.addressof(words), count)
    assert slots(words) == [count] * count
    assert threads.pool() == team


@pytest.mark.parametrize("count", [2, 4])
def test_nobody_passes_a_barrier_before_all_are_there(code, team, count):
    """With four threads there are more than this machine may have cores."""
    words = block()
    words[ROUNDS] = 200
    threads.run(code.address("meet"), ctypes.addressof(words), count)
    assert slots(words) == [200] * count
    assert words[WRONG] == 0


def test_the_barrier_test_can_fail(code):
    """The same function with a barrier that holds nobody sees wrong values."""
    library = ctypes.CDLL("kernel32" if sys.platform == "win32" else None)
    idle = library.GetTickCount if sys.platform == "win32" else library.sched_yield
    words = block()
    words[BARRIER], words[ROUNDS] = threads._address(idle), 2000
    for _ in range(500):  # on a busy machine the threads may happen to run one after the other
        threads.run(code.address("meet"), ctypes.addressof(words), 4)
        if words[WRONG]:
            return
    pytest.fail("no thread was ever ahead of another")


def test_fewer_than_one_thread_is_refused(code):
    with pytest.raises(InputError, match="threads is 0"):
        threads.run(code.address("tell"), 0, 0)


def test_calls_from_several_python_threads(code, team):
    blocks = [block() for _ in range(4)]

    def work(words: ctypes.Array[ctypes.c_int64]) -> None:
        for _ in range(20):
            words[ROUNDS] = 5
            threads.run(code.address("meet"), ctypes.addressof(words), 3)

    workers = [threading.Thread(target=work, args=(words,)) for words in blocks]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [slots(words) for words in blocks] == [[5, 5, 5]] * 4
    assert [words[WRONG] for words in blocks] == [0] * 4


def test_a_call_within_a_call_runs_and_ends(code, team):
    """The inner team may be smaller; it does the work of all the threads that it says it has."""
    inner = [block() for _ in range(2)]

    @threads._Function
    def outer(argument: int | None, thread: int, count: int) -> None:
        threads.run(code.address("tell"), ctypes.addressof(inner[thread]), 2)

    threads.run(threads._address(outer), 0, 2)
    for words in inner:
        told = slots(words)
        assert told == [len(told)] * len(told) != []


def test_pythons_lock_is_free_meanwhile(code, team):
    """Another Python thread sets the word that the call waits for: with the lock held, never."""
    words = block()

    def release() -> None:
        time.sleep(0.05)
        words[ROUNDS] = 1

    helper = threading.Thread(target=release)
    helper.start()
    threads.run(code.address("wait"), ctypes.addressof(words), 2)
    helper.join()
    assert slots(words) == [2, 2]


def test_torch_may_change_its_threads(code, team):
    before = torch.get_num_threads()
    try:
        for count in (1, 3, 2):
            torch.set_num_threads(count)
            torch.mm(torch.ones(300, 300), torch.ones(300, 300))
            words = block()
            words[ROUNDS] = 3
            threads.run(
                code.address("tell" if count == 1 else "meet"), ctypes.addressof(words), count
            )
            assert slots(words) == ([1] if count == 1 else [3] * count)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(os.name == "nt", reason="a signal to oneself is POSIX's")
def test_an_interrupt_waits_for_the_threads(code, team):
    """Ctrl-C within a call is raised when its threads are through, not while they still write."""
    words = block()

    def disturb() -> None:
        while not words[BEGUN]:
            time.sleep(0.001)
        for _ in range(3):
            time.sleep(0.03)
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.03)
        words[ROUNDS] = 1

    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    helper = threading.Thread(target=disturb)
    helper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.run(code.address("wait"), ctypes.addressof(words), 2)
        told = slots(words)
    finally:
        helper.join()
        signal.signal(signal.SIGINT, old)
    assert told == [2, 2], "raised only after the call"
    again = block()
    threads.run(code.address("tell"), ctypes.addressof(again), 2)
    assert slots(again) == [2, 2], "and the threads serve the next call"


def test_a_job_is_run_or_dropped_never_both():
    job = threads._Job(0, 0, 2)
    assert job.take("pool")
    assert not job.take("caller")
    other = threads._Job(0, 0, 2)
    assert other.take("caller")
    assert not other.take("pool")


def test_where_no_thread_can_be_started_one_runs(code, monkeypatch):
    pool = threads._Pool()
    try:
        monkeypatch.setattr(pool, "_hire", lambda: False)
        words = block()
        pool(code.address("tell"), ctypes.addressof(words), 3)
        assert slots(words) == [1]
    finally:
        pool.close()
        threads._openmp()


# In a process of its own


_START = f"""
import ctypes, os, sys
import torch
from elman.backends.cpu import engine, threads
from elman.backends.cpu.machine import host
IR = '''{IR}'''
code = engine.compile_module("t", lambda: IR, ["tell", "meet"], host(), cached=False)
def tell(count, name="tell"):
    words = (ctypes.c_int64 * {WORDS})(threads.barrier_address(), 50)
    threads.run(code.address(name), ctypes.addressof(words), count)
    return [word for word in words[{SLOT}:] if word], words[{WRONG}], threads.pool()
"""


def python(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _START + script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_openmp_may_give_fewer_threads():
    said = python("print(tell(4))", OMP_THREAD_LIMIT="2")
    if "openmp" not in said:
        pytest.skip("torch has no OpenMP that can be called here")
    assert said == "([2, 2], 0, 'openmp')\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_has_threads_of_its_own():
    """After a fork OpenMP's pool is gone from the child, where a call on it would never end."""
    said = python(
        "torch.mm(torch.ones(99, 99), torch.ones(99, 99)), tell(3)\n"
        "for depth in range(2):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    print(tell(3, 'meet'), tell(1), flush=True)\n"
        "os._exit(0)\n",
        OMP_NUM_THREADS="2",
    )
    assert said == "([50, 50, 50], 0, 'own') ([1], 0, 'own')\n" * 2


def test_a_call_while_python_ends_runs_on_one_thread():
    said = python(
        "import atexit\n"
        "threads._team = threads._Pool()\n"
        "threads._made.write('openmp_barrier', 0)\n"
        "print(tell(2, 'meet')[:2])\n"
        "atexit._run_exitfuncs()\n"
        "print(threads._team is threads._alone, tell(2)[0])\n",
    )
    assert said == "([50, 50], 0)\nTrue [1]\n"
