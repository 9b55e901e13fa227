"""Several compiled functions in one turn of the threads: side by side, and one stage after another.

To wake the threads takes as long as a small walk. So both directions of a layer share one turn, a
part of the threads each; and the gradients of the weights, which read what all threads wrote,
follow the walk back in the same turn, after all have met.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from elman.backends.cpu import engine, threads
from elman.backends.cpu.emit import I64, POINTER, VOID, CallTarget, Writer
from elman.backends.cpu.machine import host

HEAD = ("barrier", "stages")
STAGE = ("functions", "most", "meetings", "first")
FUNCTION = ("address", "words")


class Function(NamedTuple):
    """A function `f(words, thread, threads)`: where its code begins, and its block of words."""

    address: int
    words: np.ndarray


class Stage(NamedTuple):
    """What runs side by side.

    Attributes:
        functions: each is run once, by a share of the threads.
        most: threads that one function takes at most.
        meetings: how often each function calls the barrier where it has two threads or more.
    """

    functions: Sequence[Function]
    most: int
    meetings: int = 0


def run(stages: Sequence[Stage], count: int) -> None:
    """Run stages one after the other, on up to `count` threads.

    What a function finds of threads and their number is its own: of those that share it. A stage
    begins when the one before is over.

    Args:
        stages: one or more, each with one function or more.
        count: threads, ≥ 1.
    """
    if count == 1:
        for stage in stages:
            for function in stage.functions:
                threads.run(function.address, function.words.ctypes.data, 1)
        return
    if len(stages) == 1 and len(stages[0].functions) == 1:
        function = stages[0].functions[0]
        threads.run(function.address, function.words.ctypes.data, min(count, stages[0].most))
        return
    head, tail = [threads.barrier_address(), len(stages)], []
    first = len(HEAD) + len(stages) * len(STAGE)
    for functions, most, meetings in stages:
        head += len(functions), most, meetings, first + len(tail)
        for address, words in functions:
            tail += address, words.ctypes.data
    block = np.array(head + tail, np.int64)
    threads.run(_code().address("turn"), block.ctypes.data, count)


@cache
def _code() -> engine.Code:
    machine = host()
    return engine.compile_module("turn", lambda: str(_Turn(machine).module), ("turn",), machine)


class _Turn(Writer):
    """The function in the making."""

    def __init__(self, machine):
        super().__init__("float", machine, "turn")
        self.names = {name: i for i, name in enumerate(HEAD)}
        builder, one = self.builder, self.number(1)
        shared = builder.icmp_signed(">", self.threads, one)
        with self.loop(self.word("stages")) as stage:
            start = builder.mul(stage, self.number(len(STAGE)))
            self._stage(builder.add(start, self.number(len(HEAD))))
            more = builder.icmp_signed("<", builder.add(stage, one), self.word("stages"))
            with builder.if_then(builder.and_(shared, more)):
                self.call("barrier")
        builder.ret_void()

    def _stage(self, start: ir.Value) -> None:
        """The threads in groups of equal size, a function each; with fewer threads than functions
        each thread takes several in turn."""
        builder, one, none = self.builder, self.number(1), self.number(0)

        def own(name: str) -> ir.Value:
            return self.word_at(builder.add(start, self.number(STAGE.index(name))))

        functions = own("functions")
        size = self.smaller(builder.sdiv(self.threads, functions), own("most"))
        size = self.larger(size, one)
        groups = builder.sdiv(self.threads, size)
        group = builder.sdiv(self.thread, size)
        within = builder.srem(self.thread, size)
        left = builder.add(builder.sub(functions, group), builder.sub(groups, one))
        turns = builder.sdiv(left, groups)
        # A thread of the last, broken group would be one too many of its function.
        turns = builder.select(builder.icmp_signed("<", group, groups), turns, none)
        with self.loop(turns) as turn:
            number = builder.add(group, builder.mul(turn, groups))
            place = builder.add(own("first"), builder.mul(number, self.number(len(FUNCTION))))
            address = self.address(self.word_at(place))
            words = self.address(self.word_at(builder.add(place, one)))
            kind = ir.FunctionType(VOID, [POINTER, I64, I64])
            builder.call(CallTarget(address, kind), [words, within, size])
        # Those without a function must not be missed where the others meet.
        idle = builder.icmp_signed("<=", turns, none)
        meets = builder.and_(idle, builder.icmp_signed(">", size, one))
        with self.loop(builder.select(meets, own("meetings"), none)):
            self.call("barrier")
