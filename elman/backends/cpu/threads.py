"""Compiled functions on several threads: torch's own OpenMP pool, or threads of ours.

The function is `void f(void *arguments, int64_t thread, int64_t threads)`. It is called once on
each of `threads` threads, which may be fewer than were asked for: it must share the work by the
number that it is given. Where threads > 1 it may call `barrier_address()`, a `void barrier(void)`
that all of them must reach equally often; where threads is 1 it must not.

torch's pool is used where it can be, since after a product its idle threads spin for a moment on
the other cores, and threads of ours would lose half of those. After a fork that pool is gone from
the child, and OpenMP does not notice; there, and where torch has no OpenMP that we can call,
threads of our own run.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from elman.backends.cpu import engine
from elman.backends.cpu.machine import host
from elman.errors import InputError

_Function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

_PAUSE = {
    "x86_64": ("call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"),
    "aarch64": (
        "call void @llvm.aarch64.hint(i32 1)",
        "declare void @llvm.aarch64.hint(i32 immarg)",
    ),
}

# region: what OpenMP calls on each thread; its data are {f, arguments, omp_get_thread_num,
# omp_get_num_threads}. barrier: OpenMP's, where @openmp_barrier is set; else a counter and a number
# of the meeting, on which the early ones spin for a moment and then give up their turn each time,
# so that it also ends where fewer cores are free than there are threads.
_SUPPORT = """
@openmp_barrier = global ptr null
@yield_turn = global ptr null
@team = global i64 1
@arrived = global i64 0
@meeting = global i64 0

define void @region(ptr %data) nounwind {
  %f = load ptr, ptr %data
  %arguments.at = getelementptr i64, ptr %data, i64 1
  %arguments = load ptr, ptr %arguments.at
  %number.at = getelementptr i64, ptr %data, i64 2
  %number = load ptr, ptr %number.at
  %count.at = getelementptr i64, ptr %data, i64 3
  %count = load ptr, ptr %count.at
  %thread = call i32 %number()
  %threads = call i32 %count()
  %thread.wide = sext i32 %thread to i64
  %threads.wide = sext i32 %threads to i64
  call void %f(ptr %arguments, i64 %thread.wide, i64 %threads.wide)
  ret void
}

define void @barrier() nounwind {
  %openmp = load ptr, ptr @openmp_barrier
  %ours = icmp eq ptr %openmp, null
  br i1 %ours, label %own, label %theirs
theirs:
  call void %openmp()
  ret void
own:
  %team = load i64, ptr @team
  %meeting = load atomic i64, ptr @meeting acquire, align 8
  %before = atomicrmw add ptr @arrived, i64 1 acq_rel
  %now = add i64 %before, 1
  %last = icmp sge i64 %now, %team
  br i1 %last, label %open, label %wait
open:
  store atomic i64 0, ptr @arrived monotonic, align 8
  %next = add i64 %meeting, 1
  store atomic i64 %next, ptr @meeting release, align 8
  ret void
wait:
  %turns = phi i64 [0, %own], [%more, %spin], [%more, %give]
  %seen = load atomic i64, ptr @meeting acquire, align 8
  %gone = icmp ne i64 %seen, %meeting
  br i1 %gone, label %done, label %again
again:
  %more = add i64 %turns, 1
  %patient = icmp slt i64 %turns, 1000
  br i1 %patient, label %spin, label %give
spin:
  PAUSE
  br label %wait
give:
  %yield = load ptr, ptr @yield_turn
  %ignored = call i32 %yield()
  br label %wait
done:
  ret void
}
"""


class _Support:
    """The compiled region and barrier, and the words that steer them."""

    def __init__(self) -> None:
        machine = host()
        names = ("region", "barrier", "openmp_barrier", "yield_turn", "team", "arrived")
        architecture = machine.triple.split("-")[0].replace("arm64", "aarch64")
        pause, declared = _PAUSE.get(architecture, ("", ""))
        ir = _SUPPORT.replace("PAUSE", pause) + declared
        self._code = engine.compile_module(f"threads {ir}", lambda: ir, names, machine)
        self.region, self.barrier = self._code.address("region"), self._code.address("barrier")
        libc = ctypes.CDLL("kernel32" if sys.platform == "win32" else None)
        turn = libc.SwitchToThread if sys.platform == "win32" else libc.sched_yield
        self.write("yield_turn", _address(turn))

    def write(self, name: str, value: int) -> None:
        """Set one of the module's words."""
        ctypes.c_int64.from_address(self._code.address(name)).value = value


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


_direct: dict[int, Any] = {}


def _function(address: int) -> Any:
    """The compiled function as ctypes calls it, without Python's lock."""
    function = _direct.get(address)
    if function is None:
        function = _direct[address] = _Function(address)
    return function


def _openmp() -> Callable[[int, int, int], None] | None:
    """A caller of torch's OpenMP; None where torch has none with these entries.

    Looked up in torch's own library, whose dependencies are searched too: another copy of OpenMP in
    the process would have threads of its own.
    """
    import torch

    if not torch.backends.openmp.is_available():
        return None
    try:
        library = ctypes.CDLL(torch._C.__file__)
        parallel, barrier = library.GOMP_parallel, library.GOMP_barrier
        own = _address(library.omp_get_thread_num), _address(library.omp_get_num_threads)
    except (AttributeError, OSError):
        return None
    parallel.restype = None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    support = _support()
    support.write("openmp_barrier", _address(barrier))
    region, data_type = support.region, ctypes.c_int64 * 4

    def call(address: int, argument: int, threads: int) -> None:
        parallel(region, data_type(address, argument, *own), threads, 0)

    return call


class _Job:
    """One call on the pool: what to run, who took it on, and when it is done."""

    def __init__(self, address: int, argument: int, threads: int):
        self.address, self.argument, self.threads = address, argument, threads
        self.taken: dict[str, str] = {}
        self.done = threading.Lock()
        self.done.acquire()
        self.finished = False
        self.error: BaseException | None = None

    def take(self, who: str) -> bool:
        """Whether `who` claims the job first: the pool to run it, the caller to drop it."""
        return self.taken.setdefault("by", who) == who


class _Pool:
    """Threads of our own, kept from call to call; jobs run one after the other.

    The caller only waits: an interrupt may strike it between any two steps, and must not strike
    while half of a team has begun and waits at a barrier for the rest.
    """

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.inboxes: list[queue.SimpleQueue[tuple[_Job, int, int] | None]] = []
        self.done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.idents: set[int] = set()
        _support().write("openmp_barrier", 0)
        threading.Thread(target=self._lead, name="elman-0", daemon=True).start()

    def __call__(self, address: int, argument: int, threads: int) -> None:
        if threading.get_ident() in self.idents:  # a call from within a call: its team is busy
            return _function(address)(argument, 0, 1)
        job = _Job(address, argument, threads)
        try:
            self.jobs.put(job)
            job.done.acquire()
        except BaseException:
            if not job.take("caller"):
                _wait_out(job)  # its memory is in use until then
            raise
        if job.error is not None:
            raise job.error

    def _lead(self) -> None:
        self.idents.add(threading.get_ident())
        while (job := self.jobs.get()) is not None:
            if not job.take("pool"):
                continue
            try:
                self._run(job)
            except BaseException as error:
                job.error = error
            job.finished = True
            job.done.release()
        for inbox in self.inboxes:
            inbox.put(None)

    def _run(self, job: _Job) -> None:
        while len(self.inboxes) < job.threads - 1 and self._hire():
            pass
        threads = min(job.threads, len(self.inboxes) + 1)
        _support().write("team", threads)
        _support().write("arrived", 0)
        function = _function(job.address)
        for thread in range(1, threads):
            self.inboxes[thread - 1].put((job, thread, threads))
        function(job.argument, 0, threads)
        for _ in range(1, threads):
            self.done.get()

    def _hire(self) -> bool:
        """Start one more thread, if the system grants it."""
        inbox: queue.SimpleQueue[tuple[_Job, int, int] | None] = queue.SimpleQueue()
        name = f"elman-{len(self.inboxes) + 1}"
        try:
            threading.Thread(target=self._work, args=(inbox,), name=name, daemon=True).start()
        except RuntimeError:
            return False
        self.inboxes.append(inbox)
        return True

    def _work(self, inbox: queue.SimpleQueue[tuple[_Job, int, int] | None]) -> None:
        self.idents.add(threading.get_ident())
        while (item := inbox.get()) is not None:
            job, thread, threads = item
            _function(job.address)(job.argument, thread, threads)
            self.done.put(None)

    def close(self) -> None:
        self.jobs.put(None)


def _wait_out(job: _Job) -> None:
    """Wait until an interrupted caller's job is over, whatever else strikes meanwhile."""
    while not job.finished:
        try:
            job.done.acquire(timeout=0.01)
        except BaseException:
            continue


def _alone(address: int, argument: int, threads: int) -> None:
    _function(address)(argument, 0, 1)


_lock = threading.RLock()
_team: Callable[[int, int, int], None] | None = None
_made: _Support | None = None
_forked = False


def _support() -> _Support:
    global _made
    with _lock:
        if _made is None:
            _made = _Support()
        return _made


def _choose() -> Callable[[int, int, int], None]:
    """The way to several threads, chosen at the first call that needs it."""
    global _team
    with _lock:
        if _team is None:
            _team = (None if _forked else _openmp()) or _Pool()
        return _team


def _after_fork() -> None:
    """In a child only the forking thread is left: of OpenMP's pool, and of ours."""
    global _team, _lock, _forked
    _team, _lock, _forked = None, threading.RLock(), True
    _direct.clear()
    if _made is not None:
        _made.write("openmp_barrier", 0)


def _at_exit() -> None:
    """Python's threads end with the interpreter; what is still called then runs on one."""
    global _team
    if isinstance(_team, _Pool):
        _team.close()
        _team = _alone


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def pool() -> str:
    """Whose threads run a call: "openmp" (torch's) or "own"."""
    return "own" if isinstance(_team or _choose(), _Pool) else "openmp"


def barrier_address() -> int:
    """Where the compiled `void barrier(void)` begins, at which the threads of a call wait for each
    other; a function on one thread must not call it."""
    _choose()
    return _support().barrier


def run(address: int, argument: int, threads: int) -> None:
    """Call a compiled function on several threads, and wait until all have returned.

    The function is `void f(void *arguments, int64_t thread, int64_t threads)`, with thread from 0
    to threads - 1. Python's lock is released meanwhile, so other Python threads go on.

    Args:
        address: where the function begins; its `Code` must live until the call is over.
        argument: the address handed to it; what lies there must live as long.
        threads: how many threads are wanted, 1 or more. The function may be given fewer.

    Raises:
        InputError: threads is below 1.
    """
    if threads == 1:
        function = _direct.get(address) or _function(address)
        function(argument, 0, 1)
        return
    if threads < 1:
        raise InputError(f"threads is {threads}; a call needs 1 or more")
    (_team or _choose())(address, argument, threads)
