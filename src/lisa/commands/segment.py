"""`lisa segment`: one picture, one question.

This file knows what a person types and what is printed; the answer comes from elsewhere, and is
imported only when it is asked for, so that `--help` is fast.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisa.commands.options import (
    DeviceMapOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    QuantizeOption,
    device_or_none,
    require_folder,
)

if TYPE_CHECKING:
    from lisa.result import Result


def segment(
    image: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGE",
            readable=False,  # what is wrong with it is told in one line, like every other error
            help="The photo: jpg, png, webp, gif, tiff, … Rotation stored in the file is applied.",
            show_default=False,
        ),
    ],
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION",
            help="What you want to know. It need not name the thing.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Where the result goes; the ending says in which form. "
            "Without it: [b]IMAGE.lisa.png[/b] beside the photo.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object on stdout, and nothing else there."),
    ] = False,
    model: ModelOption = "nano",
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    device_map: DeviceMapOption = None,
    quantize: QuantizeOption = None,
    answer: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help=r"Do not generate: take this as the model's answer, such as [b]'\[SEG].'[/b]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Answer a QUESTION about an IMAGE and mask what the answer is about.

    Prints the answer and the path of the picture it wrote. If the model finds nothing that fits,
    it says so, and no picture is written unless [b]--out[/b] asks for one.

    \b
    [b]Forms of --out[/b]
      .png            the photo with the masks drawn on it
      .mask.png       black and white: 255 on the masks, 0 elsewhere
      .json           the object that --json prints
      .geojson        polygons with holes, in pixels
      .labelme.json   for labelme and tools that read its files
      .coco.json      a COCO data set of one picture

    \b
    [b]JSON[/b]
      {"image", "question", "answer", "model",
       "masks": \\[{"rle": {"size": \\[h, w], "counts"}, "phrase", "score", "area",
                  "bbox": \\[x, y, w, h]}],
       "timings": {"load", "image", "answer", "mask"}}      seconds

    \b
    [b]Examples[/b]
      lisa segment coffee.jpg "something to wake up with"
      lisa segment coffee.jpg "something to wake up with" --out cup.mask.png
      lisa segment street.jpg "what should a driver stop for?" --json
      lisa segment street.jpg "what should a driver stop for?" --model runs/mine/model
    """
    from lisa import models
    from lisa.example import check_question
    from lisa.image import load_image

    # what the person typed is checked before the model is loaded
    question = check_question(question)
    picture = load_image(image)
    path = out if out is not None else image.parent / f"{image.stem}.lisa.png"
    require_folder(path)
    segmenter = models.load(
        model, device_or_none(device), dtype=dtype, device_map=device_map, quantize=quantize
    )
    result = replace(segmenter.segment(picture, question, answer=answer), name=str(image))
    written = bool(result.masks) or out is not None
    if written:
        result.save(path)
    _report(result, path if written else None, as_json)


def _report(result: "Result", written: Path | None, as_json: bool) -> None:
    """Say what was found: for a person, or as one JSON object with the path on stderr."""
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    else:
        typer.echo(result.text)
        if not result.masks:
            typer.echo("no mask")
    if written is not None:
        typer.echo(f"wrote {written}", err=as_json)
