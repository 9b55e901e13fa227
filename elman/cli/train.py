"""`elman train`: one command a task, each made when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

# The module of each task's command; what stands there under that name is the command.
_ALL = ("lm", "classify", "tag", "translate", "forecast", "caption", "next", "tree", "graph")
_COMMANDS = {name: f"elman.cli.train_{name}" for name in _ALL}


class _Tasks(TyperGroup):
    """The tasks; a task's options are read from it, so it is imported here and not before."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        own = typer.Typer(
            add_completion=False,
            rich_markup_mode="rich",
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        own.command(cmd_name)(import_module(_COMMANDS[cmd_name]).command)
        return typer.main.get_command(own)


app = typer.Typer(cls=_Tasks, rich_markup_mode="rich", invoke_without_command=True)


@app.callback()
def train(context: typer.Context) -> None:
    """Train a model and leave everything about it in a run folder.

    [bold]Examples[/bold]

      elman train lm novel.txt --minutes 3 --run runs/novel

      elman train tree trees.txt --minutes 3 --run runs/trees

      elman train graph folder --minutes 1 --run runs/graph
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
