"""What commands share: options, paths that are refused early, tables.

This file knows words that several commands take; it knows no command.
"""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lisa.errors import OutputError

ModelOption = Annotated[
    str,
    typer.Option(help="The embedded model [b]nano[/b], or a directory with a saved model."),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        help="[b]auto[/b] (a GPU if there is one), [b]cpu[/b], [b]cuda[/b], [b]cuda:1[/b], …"
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="[b]float32[/b], [b]bfloat16[/b] or [b]float16[/b]; for models of full size.",
        show_default=False,
    ),
]
DeviceMapOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="[b]auto[/b] spreads a model of full size over the GPUs, the memory and the disk.",
        show_default=False,
    ),
]
QuantizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="BITS",
        help="[b]8bit[/b] or [b]4bit[/b]: hold the language model of a full-size LISA so.",
        show_default=False,
    ),
]


class FormatName(StrEnum):
    """The formats of annotations that can be imported."""

    coco = "coco"
    labelme = "labelme"
    yolo_seg = "yolo-seg"
    masks = "masks"
    jsonl = "jsonl"


FormatOption = Annotated[
    FormatName | None,
    typer.Option("--format", help="Without it, the files tell.", show_default=False),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where the pictures are, if not beside the annotations.",
        show_default=False,
    ),
]
SkipBadOption = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave out what cannot be read, and say how much that was."),
]


def device_or_none(name: str) -> str | None:
    """The device to ask for; None lets the builder choose."""
    return None if name == "auto" else name


def require_folder(path: Path) -> None:
    """Refuse a path that cannot be written before time is spent on what goes there."""
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(
            f"cannot write {str(path)!r}: expected an existing folder {str(folder)!r}"
        )
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {str(path)!r}: expected a writable folder {str(folder)!r}")
    if path.is_dir():
        raise OutputError(f"cannot write {str(path)!r}: expected a file, this is a folder")


def print_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, as wide as it needs to be; its last two columns are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for place, name in enumerate(heading):
        table.add_column(name, justify="left" if place < len(heading) - 2 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False)
    console.width = max(console.width, 120)
    console.print(table)
