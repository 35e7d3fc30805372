"""Reading a command as the command line does, without running it."""

from typing import Any

import typer.main

from lisa.cli import app


def parse(arguments: list[str]) -> None:
    """Parse what follows `lisa`; a usage error is raised as the one that a person would see."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("lisa", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            return
        _, command, rest = command.resolve_command(context, rest)
        context = command.make_context("lisa", rest, parent=context)
