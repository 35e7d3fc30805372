"""`lisa data`: data sets, and data of one's own.

This file knows what a person types and what is printed; the work is imported only when it is asked
for, so that `--help` is fast.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisa.commands.options import print_table, require_folder

if TYPE_CHECKING:
    from lisa.data.check import Report
    from lisa.data.importing import Imported

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
LISTED = 10  # lines of one kind that are printed one by one
SHEET = 24  # examples on a contact sheet


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


@data_app.command("check")
def check(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A data set, or the folder that holds several in the paper's layout.",
            show_default=False,
        ),
    ],
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Draw some of the examples here.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Read at most N examples of a split, evenly spread; records are all read.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what lies in a folder of data, whether it is whole, and whether its splits are apart.

    Recognises the data sets that `lisa eval` and `lisa train` read by their layout, counts their
    pictures, masks and questions, and lists missing pictures, broken polygons, masks of another
    size, and pictures that are trained on in one split and measured on in another.
    Where anything is wrong, the exit code is 2.

    \b
    [b]Examples[/b]
      lisa data check ReasonSeg --sheet sheet.png
      lisa data check dataset --limit 1000 --json
    """
    from rich.console import Console
    from rich.progress import track

    from lisa.data.check import check_data
    from lisa.data.sheet import contact_sheet
    from lisa.errors import DataError
    from lisa.formats import image_bytes
    from lisa.image import write_atomically

    if sheet is not None:
        require_folder(sheet)
    console = Console(stderr=True)
    report, examples = check_data(
        root,
        sheet=SHEET if sheet is not None else 0,
        limit=limit,
        follow=lambda numbers, label: track(
            numbers, label, console=console, transient=True, disable=not console.is_terminal
        ),
    )
    if sheet is not None:
        write_atomically(sheet, image_bytes(contact_sheet(examples), "PNG"))
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    else:
        print_report(report)
    if report.wrong:
        raise DataError(f"{report.wrong} things are wrong in '{root}'; expected none")


def print_report(report: "Report") -> None:
    """What a check found, for a person."""
    rows = [
        [
            split.label,
            str(split.pictures),
            str(split.questions),
            str(split.absent),
            str(split.masks),
            str(len(split.problems)),
        ]
        for split in report.splits
    ]
    print_table(["data set", "pictures", "questions", "absent", "masks", "problems"], rows)
    for split in report.splits:
        print_some(f"{split.label}: {len(split.problems)} problems", split.problems)
    for leak in report.leaks:
        heading = f"{leak.trained} and {leak.measured} have {len(leak.pairs)} pictures in common"
        print_some(heading, [f"{one} = {other}" for one, other in leak.pairs])
    if not report.wrong:
        typer.echo("nothing is wrong")


def print_some(heading: str, lines: Sequence[str]) -> None:
    """A heading and the first lines; nothing, where there are none."""
    if lines:
        typer.echo(heading)
        for line in lines[:LISTED]:
            typer.echo(f"  {line}")
        if len(lines) > LISTED:
            typer.echo(f"  … and {len(lines) - LISTED} more; --json lists all")


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
