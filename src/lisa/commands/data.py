"""`lisa data`: data sets, and data of one's own.

This file knows what a person types and what is printed; the work is imported only when it is asked
for, so that `--help` is fast.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lisa.data.importing import Imported

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
LISTED = 10  # skipped records that are printed one by one


class FormatName(StrEnum):
    """The formats that `lisa data import` reads."""

    coco = "coco"
    labelme = "labelme"
    yolo_seg = "yolo-seg"
    masks = "masks"
    jsonl = "jsonl"


@data_app.callback()
def data() -> None:
    """Data sets, and data of your own."""


@data_app.command("import")
def import_own(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="The file or folder with the annotations.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder to make.", show_default=False)
    ],
    format_name: Annotated[
        FormatName | None,
        typer.Option("--format", help="Without it, the files tell.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the pictures are, if not beside the annotations.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What a folder of black and white masks shows.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Of the pictures that are trained on; the others are [b]val[/b]. A split that "
            "the source makes stays.",
        ),
    ] = 0.8,
    seed: Annotated[int, typer.Option(help="Decides which pictures are which.")] = 0,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Leave out what cannot be read, and say how much that was."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a folder that `lisa train` and `lisa eval` read from annotations of your own.

    Names become questions when the data are used; ten pictures are enough to begin with. Nearly
    equal pictures are kept on one side of the split. The folder appears when it is complete.

    \b
    [b]Formats[/b]
      coco      a json with polygons or run lengths, or a folder with such files
      labelme   a json for each picture
      yolo-seg  data.yaml and a text file for each picture
      masks     images/ and masks/NAME.png with classes.txt, or masks/CLASS/NAME.png
      jsonl     a line a question: {"image", "question", "answer", "masks"}

    \b
    [b]Examples[/b]
      lisa data import labelled/ --out mydata
      lisa data import annotations/instances_val2017.json --images val2017 --out mydata
      lisa data import export/ --format yolo-seg --out mydata --split 0.9 --skip-bad
    """
    from lisa.data.annotations.source import Source
    from lisa.data.importing import import_data

    imported = import_data(
        Source(source, images, name),
        out,
        format_name.value if format_name else None,
        share=split,
        seed=seed,
        skip_bad=skip_bad,
    )
    typer.echo(
        json.dumps(imported.to_dict(), ensure_ascii=False, indent=2)
        if as_json
        else described(imported)
    )


def described(imported: "Imported") -> str:
    """What an import did, for a person."""
    pictures = ", ".join(f"{count} {split}" for split, count in imported.pictures.items())
    names = ", ".join(imported.names) or "none"
    lines = [
        f"format     {imported.format}{' (as the files look)' if imported.recognised else ''}",
        f"pictures   {sum(imported.pictures.values())} ({pictures})",
        f"things     {imported.things}",
        f"names      {names}",
        f"questions  {imported.questions} written",
    ]
    if imported.alike:
        lines.append(f"alike      {imported.alike} nearly equal to another, in the same split")
    if imported.skipped:
        lines.append(f"skipped    {len(imported.skipped)}")
        lines += [f"  {message}" for message in imported.skipped[:LISTED]]
        if len(imported.skipped) > LISTED:
            lines.append(f"  … and {len(imported.skipped) - LISTED} more; --json lists all")
    return "\n".join([*lines, f"wrote {imported.out}"])
