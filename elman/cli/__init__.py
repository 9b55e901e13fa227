"""The command `elman`: one file a verb, and here what they share at the edge.

Exit codes: 0 done, 1 failed, 2 bad input or usage, 130 interrupted, 141 whoever read the output
left, 143 terminated. Every error is one line on standard error, `elman: …`; results go to standard
output, and with --json nothing else does. Of several processes that train together, one speaks.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import elman
from elman import interrupts
from elman.cli import (
    benchmark,
    cells,
    check,
    demo,
    evaluate,
    generate,
    inspect,
    neighbours,
    online,
    predict,
    score,
    train,
)
from elman.cli.usage import UsageError, explain
from elman.errors import ElmanError

_INTERRUPTED = 130
_PIPE_CLOSED = 141  # as the shell counts a program that SIGPIPE ended

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(train.app, name="train")
app.add_typer(online.app, name="online")
app.command("generate")(generate.command)
app.command("score")(score.command)
app.command("predict")(predict.command)
app.command("evaluate")(evaluate.command)
app.command("inspect")(inspect.command)
app.command("neighbours")(neighbours.command)
app.command("cells")(cells.command)
app.command("check")(check.command)
app.command("benchmark")(benchmark.command)
app.add_typer(demo.app, name="demo")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"elman {elman.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _elman(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and leave."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where an error was raised (or set ELMAN_DEBUG=1)."),
    ] = False,
) -> None:
    """Recurrent networks in which a cell is one equation.

    [bold]A language model in three commands[/bold]

      elman train lm novel.txt --minutes 3 --run runs/novel

      elman generate runs/novel --prompt "It was "

      elman score runs/novel "the apple and pear salad" "the apple and pair salad"

    [bold]A model that goes on learning[/bold]

      tail -n +1 -f sensor.csv | elman online forecast --target y

    [bold]A look around[/bold]

      elman demo            trains on a novel, in under six minutes

      elman demo addition   watches a network find the carry of a sum

      elman cells           lists the cells; elman cells gru shows one
    """
    if debug:
        os.environ["ELMAN_DEBUG"] = "1"
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows `elman`; None takes the process's own.

    Returns:
        the exit code: 0 done, 1 failed, 2 bad input or usage, 130 interrupted, 141 where
        whoever read the output left, 143 terminated (SIGTERM).
    """
    interrupts.restore()
    os.environ.pop("ELMAN_DEBUG", None) if os.environ.get("ELMAN_DEBUG") in ("", "0") else None
    command = typer.main.get_command(app)
    given = None if arguments is None else list(arguments)
    try:
        code = command.main(given, prog_name="elman", standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # which typer makes of a KeyboardInterrupt, without a word
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as error:  # typer ends so where a write met a closed pipe
        if isinstance(error.__context__, OSError):
            return _reader_left()
        raise
    except UsageError as error:
        return _fail(explain(error), 2)
    except ElmanError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; nothing was left half-written.", _INTERRUPTED)
    except UnicodeDecodeError as error:
        return _fail(f"standard input: not UTF-8 at byte {error.start}.", 2)
    except Exception as error:  # the edge of the program: the user gets a line, not a traceback
        words = str(error) or "no message"
        hint = "" if _debugging() else " (a fault of Elman? ELMAN_DEBUG=1 shows where)"
        return _fail(f"{type(error).__name__}: {words}{hint}", 1)


def _debugging() -> bool:
    return bool(os.environ.get("ELMAN_DEBUG"))


def _fail(message: str, code: int) -> int:
    """Say an error in one line; of several processes that train together, in the first alone."""
    if _debugging():
        traceback.print_exc()
    from elman.training.launcher import leads  # loads what trains, which others need not

    if leads():
        print("elman:", " ".join(message.split("\n")), file=sys.stderr)
    return code


def _reader_left() -> int:
    """Whoever read our output wants no more of it, as in `elman generate RUN | head`."""
    # Python flushes standard output at its end, and must not fail at that again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _PIPE_CLOSED
