"""`lisa report`: models measured, and a page about it.

This file knows what a person types and what is printed; measuring is imported only when it is
asked for, so that `--help` is fast.
"""

from pathlib import Path
from typing import Annotated

import typer

from lisa.commands.options import DeviceOption, device_or_none, require_folder
from lisa.errors import LisaError

report_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@report_app.callback()
def report() -> None:
    """Measure models and write a page about it."""


@report_app.command("nano")
def report_nano(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The folder with photos/ and reasonseg_nano/val.",
            show_default=False,
        ),
    ],
    model: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=DIR",
            help="A name for the page and the model's directory, or [b]nano[/b]. May be given "
            "several times; [b]release[/b], [b]zero-shot[/b] and [b]ft239[/b] are compared. The "
            "controls are measured on the first.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The page, in Markdown; its plots go into a folder beside it.",
            show_default=False,
        ),
    ],
    cache: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="What was measured is kept here, so that a report that was stopped goes on. "
            "Sheets of photographs go here, too.",
        ),
    ] = Path("runs/report"),
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Ask only so many questions of each set: a trial.", show_default=False
        ),
    ] = None,
    brief: Annotated[
        bool,
        typer.Option(
            "--brief/--full",
            help="Of the models after the first measure only what the claims need: their answers "
            "to the validation samples.",
        ),
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Write the page of results of lisa-nano: claims, protocols, test sets and controls.

    The controls are: another photo's question, no language model, no names in front of the
    language model, no name before the mask, the largest thing, an ellipse in the middle. Where a
    model lies in the folder of its training run, the curves of that run are drawn, too.

    \b
    [b]Examples[/b]
      lisa report nano --data data --model release=nano --out docs/nano.md
      lisa report nano --data data --model release=runs/nano/model \
        --model zero-shot=runs/zero-shot/model --model ft239=runs/ft239/model --out docs/nano.md
    """
    from lisa.nano.evaluation.page import write_page

    require_folder(out)
    models = dict(_named_model(text) for text in model)
    written = write_page(models, data, out, cache, device_or_none(device), limit, brief)
    typer.echo(f"wrote {written}")


def _named_model(text: str) -> tuple[str, str]:
    """NAME=DIR in two."""
    name, equals, model = text.partition("=")
    if not (name and equals and model):
        raise LisaError(f"model {text!r} has no name; expected NAME=DIR, such as release=nano")
    return name, model
