"""The command line: a table from word to typed function.

This file knows what a person types, what is printed where, and which exit code an error has:
0 done, 2 wrong input (one line, `lisa: error: …`), 130 interrupted. Answers, tables and JSON go
to stdout; progress and errors go to stderr. It knows nothing of models, data or measures: it calls
them, and imports them only inside the command that needs them, so that `--help` is fast.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisa import __version__
from lisa.errors import LisaError, ModelError, OutputError

if TYPE_CHECKING:
    from lisa.evaluate import Evaluation
    from lisa.example import Example
    from lisa.model.convert_official import Part
    from lisa.result import Result

app = typer.Typer(
    name="lisa",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
train_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(train_app, name="train")
report_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(report_app, name="report")


class DatasetName(StrEnum):
    """The data sets that `lisa eval` reads."""

    reasonseg = "reasonseg"


class NanoKind(StrEnum):
    """What `lisa train nano` may train on."""

    release = "release"
    zero_shot = "zero-shot"
    ft239 = "ft239"


class Protocol(StrEnum):
    """Who writes the answer: the model, or the protocol."""

    generate = "generate"
    teacher_forced = "teacher-forced"


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


@app.command()
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
    from lisa import predict
    from lisa.example import check_question
    from lisa.image import load_image

    # what the person typed is checked before the model is loaded
    question = check_question(question)
    picture = load_image(image)
    path = out if out is not None else image.parent / f"{image.stem}.lisa.png"
    _require_folder(path)
    segmenter = predict.load(
        model, _device(device), dtype=dtype, device_map=device_map, quantize=quantize
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


@app.command("eval")
def evaluate(
    root: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The folder with the photos and their annotations.",
            show_default=False,
        ),
    ],
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="[b]generate[/b]: the model writes the answer; no mask in it scores as an empty "
            r"mask. [b]teacher-forced[/b]: the answer '\[SEG].' is given, as in the paper.",
            show_default=False,
        ),
    ],
    dataset: Annotated[
        DatasetName, typer.Option(help="The layout of the folder.")
    ] = DatasetName.reasonseg,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The folder inside DIR to read, such as [b]val[/b]. Without it: DIR itself.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = "nano",
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    device_map: DeviceMapOption = None,
    quantize: QuantizeOption = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the scores here.", show_default=False),
    ] = None,
    shuffle_questions: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Ask each photo another photo's question. The score that is left is what the "
            "model gets without reading the question.",
            show_default=False,
        ),
    ] = None,
    per_sample: Annotated[
        bool,
        typer.Option(
            "--per-sample",
            help="Write the score of each sample too, so that two runs can be compared in pairs.",
        ),
    ] = False,
) -> None:
    """Measure a model on a data set, through the same code that answers a person.

    Prints a table. A sample that fails counts as wrong and is listed by name.

    \b
    [b]Measures[/b]
      gIoU           mean IoU of all samples; absent and nothing found counts 1
      gIoU_present   mean IoU of the samples that have a target, with a 95 % interval
      cIoU           intersections of all samples over unions of all samples
      N_acc          share of absent targets that were answered with no mask
      emission_rate  share of present targets that were answered with a mask
      naming_rate    share of present targets that the answer names, where the file has a name
      ECE            how far the masks' own scores are from their IoU (calibration error)

    \b
    [b]Examples[/b]
      lisa eval --root ReasonSeg --split val --protocol generate
      lisa eval --root ReasonSeg/val --protocol teacher-forced --json scores.json
      lisa eval --root ReasonSeg/val --protocol generate --shuffle-questions 0
    """
    from lisa import evaluate as measure
    from lisa import predict

    if json_file is not None:
        _require_folder(json_file)
    examples = _open_dataset(dataset, root, split)
    segmenter = predict.load(
        model, _device(device), dtype=dtype, device_map=device_map, quantize=quantize
    )
    evaluation = measure.evaluate(
        segmenter,
        examples,
        protocol=protocol.value,
        shuffle_questions=shuffle_questions,
        progress=True,
    )
    _write_scores(evaluation, json_file, per_sample)
    typer.echo(str(evaluation))


def _write_scores(evaluation: "Evaluation", path: Path | None, per_sample: bool) -> None:
    if path is None:
        return
    from lisa.image import write_atomically

    text = json.dumps(evaluation.to_dict(per_sample), indent=2)
    write_atomically(path, f"{text}\n".encode())


def _open_dataset(name: DatasetName, root: Path, split: str | None) -> "Sequence[Example]":
    from lisa.data.reasonseg import ReasonSeg

    return {DatasetName.reasonseg: ReasonSeg}[name](root, split)


@app.command("plan")
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
    from lisa.model.plan import plan

    planned = plan(model, vlm=vlm, decoder=decoder, tokens=tokens)
    typer.echo(json.dumps(planned.to_dict()) if as_json else str(planned))


@app.command("convert")
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
    from lisa.model.convert_official import convert
    from lisa.model.official import Kind

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
    _print_table(("part", "from", "to", "tensors", "MiB"), rows)
    if conversion.left_out:
        typer.echo(f"{len(conversion.left_out)} tensors left out: they are computed or not needed")
    typer.echo(f"'{destination}' is {conversion.result}, made from {conversion.kind}")


def _mebibytes(part: "Part") -> str:
    """The size of a converted part."""
    return f"{part.bytes / 2**20:,.1f}"


def _print_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
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


@app.command("load-check")
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
    from lisa.model.build import EMBEDDED, model_directory
    from lisa.model.load_check import load_check

    found = load_check(model_directory(path) if path == EMBEDDED else Path(path))
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    if not found.complete:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise ModelError(f"'{path}' is not complete: {found.problems[0]}{more}")


@train_app.callback()
def train() -> None:
    """Train a model of your own."""


@train_app.command()
def nano(
    data: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The folder with the training data.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The folder for checkpoints, logs, the report and the model.",
            show_default=False,
        ),
    ],
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 0,
    device: DeviceOption = "auto",
    resume: Annotated[
        bool,
        typer.Option(help="Go on from what is in the out folder, or start it anew."),
    ] = True,
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Run this stage only: [b]eyes[/b], [b]words[/b], [b]mind[/b] or, with ft239, "
            "[b]tune[/b].",
            show_default=False,
        ),
    ] = None,
    steps_scale: Annotated[
        float,
        typer.Option(help="Multiply the number of steps of each stage; 0.01 is a quick trial."),
    ] = 1.0,
    kind: Annotated[
        NanoKind,
        typer.Option(
            help="[b]release[/b]: on all data. [b]zero-shot[/b]: no implicit question anywhere. "
            "[b]ft239[/b]: zero-shot, then tuned on the 239 reasoning samples alone."
        ),
    ] = NanoKind.release,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With [b]ft239[/b]: the out folder of a finished zero-shot run, whose stages are "
            "taken over.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train lisa-nano, the small model that comes with the package.

    Runs the recipe stage by stage, on a GPU or on the CPU. A run that was killed goes on from its
    last checkpoint when the same command is given again. Losses and validation scores go to
    TensorBoard files in the out folder; the scores of masks are calibrated on photographs that
    were left out, and a one-page report ends the run.

    \b
    [b]Examples[/b]
      lisa train nano --data data --out runs/nano
      lisa train nano --data data --out runs/zero-shot --kind zero-shot
      lisa train nano --data data --out runs/ft239 --kind ft239 --start runs/zero-shot
      lisa train nano --data data --out runs/trial --steps-scale 0.01 --device cpu
      tensorboard --logdir runs/nano
    """
    from lisa.training import nano as recipe

    recipe.train(
        data=data,
        out=out,
        seed=seed,
        device=_device(device),
        resume=resume,
        stage=stage,
        steps_scale=steps_scale,
        kind=kind.value,
        start=start,
    )


@train_app.command()
def calibrate(
    data: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The folder with the training data.", show_default=False),
    ],
    model: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The directory of a finished model.", show_default=False),
    ],
    device: DeviceOption = "auto",
) -> None:
    """Fit the scores of a finished model to the IoU that they estimate.

    The recipe ends with this; the command is for models that were trained before it did. Only
    [b]config.json[/b] is written anew. Validation data are not looked at.

    \b
    [b]Examples[/b]
      lisa train calibrate --data data --model runs/nano/model
    """
    from lisa.training.calibrate import calibrate_directory

    found = calibrate_directory(model, data, _device(device))
    for name, value in found.items():
        typer.echo(f"{name:<14}{value:.4g}")


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
    from lisa.nano_page import write_page

    _require_folder(out)
    models = dict(_named_model(text) for text in model)
    written = write_page(models, data, out, cache, _device(device), limit)
    typer.echo(f"wrote {written}")


def _named_model(text: str) -> tuple[str, str]:
    """NAME=DIR in two."""
    name, equals, model = text.partition("=")
    if not (name and equals and model):
        raise LisaError(f"model {text!r} has no name; expected NAME=DIR, such as release=nano")
    return name, model


def _device(name: str) -> str | None:
    """The device to ask for; None lets the builder choose."""
    return None if name == "auto" else name


def _require_folder(path: Path) -> None:
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


def main() -> None:
    """Run the command line of this process; the entry point of `lisa` and `python -m lisa`."""
    try:
        app(prog_name="lisa")
    except LisaError as error:
        typer.echo(f"lisa: error: {error}", err=True)
        sys.exit(2)
