"""`lisa eval`: a model over a data set.

This file knows what a person types and what is printed; measuring is imported only when it is
asked for, so that `--help` is fast.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
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
    from lisa.evaluate import Evaluation
    from lisa.example import Example


class DatasetName(StrEnum):
    """The data sets that `lisa eval` reads."""

    reasonseg = "reasonseg"


class Protocol(StrEnum):
    """Who writes the answer: the model, or the protocol."""

    generate = "generate"
    teacher_forced = "teacher-forced"


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
        require_folder(json_file)
    examples = _open_dataset(dataset, root, split)
    segmenter = predict.load(
        model, device_or_none(device), dtype=dtype, device_map=device_map, quantize=quantize
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
