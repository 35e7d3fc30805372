"""`lisa data`: data sets, and data of one's own.

This file knows what a person types and what is printed; the work is imported only when it is asked
for, so that `--help` is fast.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisa.commands.annotate import annotate
from lisa.commands.options import (
    FormatOption,
    ImagesOption,
    SkipBadOption,
    print_table,
    require_folder,
)

if TYPE_CHECKING:
    from lisa.annotation.check import Report
    from lisa.annotation.importing import Imported
    from lisa.annotation.statistics import Spread, Statistics

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
LISTED = 10  # lines of one kind that are printed one by one
SHEET = 24  # examples on a contact sheet


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

    from lisa.annotation.check import check_data
    from lisa.draw.sheet import contact_sheet
    from lisa.errors import DataError
    from lisa.files import write_atomically
    from lisa.image import image_bytes

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
        raise DataError(f"'{root}' has problems: {report.wrong}; expected none")


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
        print_some(f"problems of {split.label}: {len(split.problems)}", split.problems)
    for leak in report.leaks:
        heading = f"pictures of {leak.trained} that are in {leak.measured} too: {len(leak.pairs)}"
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
    format_name: FormatOption = None,
    images: ImagesOption = None,
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
    skip_bad: SkipBadOption = False,
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
    from lisa.annotation.formats.source import Source
    from lisa.annotation.importing import import_data

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


data_app.command("annotate")(annotate)


@data_app.command("stats")
def stats(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The data set's folder.", show_default=False)
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which data set it is, such as [b]refcoco[/b]; needed where DIR holds several.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One split instead of all.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count what is in a data set: questions, words, areas, names, kinds, absent targets.

    \b
    [b]Examples[/b]
      lisa data stats mydata
      lisa data stats ReasonSeg --split val --json
      lisa data stats data --dataset refcoco --split testA
    """
    from lisa.annotation.statistics import count
    from lisa.data.datasets import DATASETS, open_dataset
    from lisa.errors import DataError

    names = [dataset] if dataset else [name for name in DATASETS if DATASETS[name].find(folder)]
    if len(names) != 1:
        found = ", ".join(names) or "no known data set"
        raise DataError(f"'{folder}' holds {found}; expected --dataset to name one")
    (name,) = names
    splits = DATASETS[name].find(folder) if split is None and name in DATASETS else [split]
    counted = {part or name: count(open_dataset(name, folder, part)) for part in splits or [None]}
    if as_json:
        content = {part: one.to_dict() for part, one in counted.items()}
        typer.echo(json.dumps(content, ensure_ascii=False, indent=2))
        return
    print_table(["", *counted], rows_of(list(counted.values())))


def rows_of(counted: "list[Statistics]") -> list[list[str]]:
    """A row for each count, a column for each split."""
    rows = {
        "questions": [str(one.questions) for one in counted],
        "pictures": ["" if one.pictures is None else str(one.pictures) for one in counted],
        "absent": [share(one.absent, one.questions) for one in counted],
        "without masks": [share(one.unknown, one.questions) for one in counted],
        "with an answer": [share(one.answered, one.questions) for one in counted],
        "words a question": [spread(one.words, "{:.0f}") for one in counted],
        "width": [spread(one.width, "{:.0f}") for one in counted],
        "height": [spread(one.height, "{:.0f}") for one in counted],
        "masks a target": [spread(one.parts, "{:.0f}") for one in counted],
        "area of a target": [spread(one.area, "{:.1%}") for one in counted],
    }
    for label, attribute in (("area", "areas"), ("name", "names"), ("tag", "tags")):
        tables: list[dict[str, int]] = [getattr(one, attribute) for one in counted]
        keys = dict.fromkeys(key for table in tables for key in list(table)[:LISTED])
        rows |= {f"{label}: {key}": [str(table.get(key, 0)) for table in tables] for key in keys}
    return [[label, *values] for label, values in rows.items()]


def share(part: int, whole: int) -> str:
    """ "3 (12%)"."""
    return f"{part} ({part / whole:.0%})" if whole else str(part)


def spread(values: "Spread | None", form: str) -> str:
    """ "2 to 9, mostly 4": the least, the most, the middle."""
    if values is None:
        return ""
    low, middle, high = (form.format(one) for one in (values.least, values.median, values.most))
    return low if low == high else f"{low} to {high}, median {middle}"
