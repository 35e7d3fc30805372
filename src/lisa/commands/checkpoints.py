"""`lisa plan`, `lisa convert`, `lisa load-check`: what lies in model directories.

This file knows what a person types and what is printed; models are read elsewhere, imported only
when they are asked for, so that `--help` is fast.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisa.commands.options import print_table
from lisa.errors import ModelError

if TYPE_CHECKING:
    from lisa.checkpoints.convert import Part


class CheckpointKind(StrEnum):
    """What `lisa convert` can be told that its source is."""

    lisa = "lisa"
    lora = "lora"
    llava = "llava"
    sam = "sam"


class Template(StrEnum):
    """How an official checkpoint wants its questions written."""

    llava_v1 = "llava_v1"
    llava_llama_2 = "llava_llama_2"


def plan_memory(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="[b]nano[/b], or a directory: a model of ours, or an official checkpoint.",
            show_default=False,
        ),
    ] = None,
    vlm: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Plan a model of parts: its language side.", show_default=False
        ),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Plan a model of parts: its mask decoder.", show_default=False
        ),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(min=1, help="Of picture, question and answer: what a question takes."),
    ] = 1024,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, in bytes.")
    ] = False,
) -> None:
    """Tell how much memory a model will take, part by part, before anything is loaded.

    Reads configurations only. Says for each precision whether it fits this machine.

    \b
    [b]Examples[/b]
      lisa plan nano
      lisa plan LISA-7B-v1
      lisa plan --vlm Qwen3-VL-4B-Instruct --decoder sam2.1-hiera-large --json
    """
    from lisa.checkpoints.plan import plan

    planned = plan(model, vlm=vlm, decoder=decoder, tokens=tokens)
    typer.echo(json.dumps(planned.to_dict()) if as_json else str(planned))


def convert_checkpoint(
    source: Annotated[
        Path, typer.Argument(help="A checkpoint of another project: a directory or a weight file.")
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="The directory to make; it must not exist.")
    ],
    kind: Annotated[
        CheckpointKind | None,
        typer.Option(
            help="What the source is, if its names should not decide: an official LISA, the output "
            "of the official training, a LLaVA, a segment-anything file.",
            show_default=False,
        ),
    ] = None,
    vision_tower: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The CLIP model that the checkpoint was made with "
            "(openai/clip-vit-large-patch14), which it does not contain.",
            show_default="the one that config.json names, beside the source",
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For training output: the LLaVA that training started from.",
            show_default=False,
        ),
    ] = None,
    decoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For a LLaVA: a segment-anything file, to make an untrained LISA of both.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="For training output: alpha of its low-rank factors.")
    ] = 16.0,
    conversation: Annotated[
        Template, typer.Option(help="The template that questions are written with.")
    ] = Template.llava_v1,
) -> None:
    """Make a model directory from an official checkpoint.

    Takes official LISA directories, what their training leaves behind, LLaVA directories, and
    segment-anything files. Copies tensor by tensor and prints what went where. A tensor that is
    missing or left over is an error, and then nothing is written.

    \b
    [b]Examples[/b]
      lisa convert LISA-7B-v1 lisa-7b --vision-tower clip-vit-large-patch14
      lisa convert pytorch_model.bin mine --base LLaVA-7B --vision-tower clip-vit-large-patch14
      lisa convert sam_vit_h_4b8939.pth sam-huge
    """
    from lisa.checkpoints.convert import convert
    from lisa.checkpoints.official_names import Kind

    conversion = convert(
        source,
        destination,
        kind=None if kind is None else Kind[kind.name],
        vision_tower=vision_tower,
        base=base,
        decoder=decoder,
        alpha=alpha,
        conversation=conversation.value,
    )
    rows = [
        (part.name, Path(part.source).name, part.destination, f"{part.tensors:,}", _mebibytes(part))
        for part in conversion.parts
    ]
    print_table(("part", "from", "to", "tensors", "MiB"), rows)
    if conversion.left_out:
        typer.echo(f"{len(conversion.left_out)} tensors left out: they are computed or not needed")
    typer.echo(f"'{destination}' is {conversion.result}, made from {conversion.kind}")


def _mebibytes(part: "Part") -> str:
    """The size of a converted part."""
    return f"{part.bytes / 2**20:,.1f}"


def check_checkpoint(
    path: Annotated[
        str,
        typer.Argument(metavar="DIR", help="A model directory, or a weight file; or [b]nano[/b]."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell what a directory is and whether it is complete, without loading it.

    Recognises models of ours, official LISA directories, unmerged training output, LLaVA and
    segment-anything. Reads headers only. An incomplete checkpoint is an error, after the report.

    \b
    [b]Examples[/b]
      lisa load-check nano
      lisa load-check LISA-7B-v1 --json
    """
    from lisa.checkpoints.directory import EMBEDDED, model_directory
    from lisa.checkpoints.inspect import load_check

    found = load_check(model_directory(path) if path == EMBEDDED else Path(path))
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    if not found.complete:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise ModelError(f"'{path}' is not complete: {found.problems[0]}{more}")
