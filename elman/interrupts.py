"""Ctrl-C while the command `elman` still imports: one line and exit code 130, no traceback.

Importing torch takes a second or more, and the command can catch nothing before it has begun. So
the first thing that `import elman` does, where it is the command that imports, is to set a handler;
the command gives it back when it begins. In any other program nothing is touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"elman: interrupted; nothing was left half-written.\n")
    os._exit(130)


def restore() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_the_command() -> bool:
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return sys.orig_argv[1:3] == ["-m", "elman"] or name in ("elman", "elman.exe")


if _is_the_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    with contextlib.suppress(ValueError):  # of a thread that is not the main one
        signal.signal(signal.SIGINT, _leave)
