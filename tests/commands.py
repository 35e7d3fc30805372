"""Reading a command as the command line does, without running it."""

from typing import Any

import typer.main

from lisa.cli import app


def parse(arguments: list[str]) -> None:
    """Parse what follows `lisa`; a usage error is raised as the one that a person would see."""
    command: Any = typer.main.get_command(app)
    context = None
    while hasattr(command, "resolve_command") and not arguments[0].startswith("-"):
        context = command.make_context("lisa", [], resilient_parsing=True)
        _, command, arguments = command.resolve_command(context, arguments)
    command.make_context("lisa", arguments, parent=context)
