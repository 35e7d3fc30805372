"""The command line: a table from word to typed function.

This file knows which word runs which function, and which exit code an error has: 0 done, 2 wrong
input (one line, `lisa: error: …`), 130 interrupted. Answers, tables and JSON go to stdout; progress
and errors go to stderr. What a command does stands in `commands/`.
"""

import sys
from typing import Annotated

import typer

from lisa import __version__
from lisa.commands import checkpoints, evaluate, segment
from lisa.commands.data import data_app
from lisa.commands.report import report_app
from lisa.commands.train import train_app
from lisa.errors import LisaError

app = typer.Typer(
    name="lisa",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lisa {__version__}")
        raise typer.Exit


@app.callback()
def lisa(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Ask a photo a question; get an answer and the mask of what it is about.

    \b
    [b]Start here[/b]
      lisa segment photo.jpg "what would keep my coffee warm?"
      lisa segment --help

    \b
    [b]Exit codes[/b]
      0    done, also when the answer is that the thing is not there
      2    wrong input: one line on stderr names it and what was expected
      130  interrupted
    """


app.command("segment")(segment.segment)
app.command("eval")(evaluate.evaluate)
app.add_typer(train_app, name="train")
app.add_typer(data_app, name="data")
app.add_typer(report_app, name="report")
app.command("plan")(checkpoints.plan_memory)
app.command("convert")(checkpoints.convert_checkpoint)
app.command("load-check")(checkpoints.check_checkpoint)


def main() -> None:
    """Run the command line of this process; the entry point of `lisa` and `python -m lisa`."""
    try:
        app(prog_name="lisa")
    except LisaError as error:
        typer.echo(f"lisa: error: {error}", err=True)
        sys.exit(2)
