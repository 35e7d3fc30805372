"""`lisa train`: models of one's own.

This file knows what a person types and what is printed; training is imported only when it is
asked for, so that `--help` is fast.
"""

import json
import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lisa.commands.options import DeviceOption, DtypeOption, SkipBadOption, device_or_none

train_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


class NanoKind(StrEnum):
    """What `lisa train nano` may train on."""

    release = "release"
    zero_shot = "zero-shot"
    ft239 = "ft239"


class PresetName(StrEnum):
    """What `lisa train --preset` may be."""

    nano = "nano"
    paper = "paper"
    paper_239 = "paper-239"
    lora_16gb = "lora-16gb"
    full = "full"


def _print_config_path(name: str | None) -> None:
    if name is not None:
        from lisa.training.launch import config_path

        typer.echo(str(config_path(name)))
        raise typer.Exit


@train_app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(help="What to start from: [b]nano[/b], or a directory with a saved model."),
    ] = "nano",
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder with the data sets.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder for checkpoints, the report and the tuned model.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        PresetName | None,
        typer.Option(
            help="What is trained, how long, how fast: see docs/training.md. Without it "
            "[b]nano[/b] for lisa-nano, [b]lora-16gb[/b] for a model of full size.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A data set in the folder: [b]own[/b], [b]refcoco[/b], [b]reasonseg/train[/b], "
            "[b]refcoco=3[/b] with a weight; as often as you like. Without it the preset's.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Updates, instead of the preset's.", show_default=False)
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(help="Pictures an update, instead of the preset's.", show_default=False),
    ] = None,
    micro: Annotated[
        int | None,
        typer.Option(help="Pictures held at once; fewer take less memory.", show_default=False),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Instead of the preset's.", show_default=False)
    ] = None,
    dtype: DtypeOption = None,
    save_every: Annotated[
        int | None,
        typer.Option(help="Updates between two checkpoints.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 0,
    device: DeviceOption = "auto",
    skip_bad: SkipBadOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, and train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    accelerate_config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            callback=_print_config_path,
            is_eager=True,
            help="Print where a configuration for [b]accelerate launch[/b] is: [b]one-gpu[/b], "
            "[b]ddp[/b], [b]fsdp2[/b], [b]zero2[/b] or [b]zero3[/b].",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a model of your own: tune one on your data, or on the data of the paper.

    A run that was killed goes on from its last checkpoint when the same command is given again, and
    gives the same losses. At the end the out folder holds the tuned model and a one-page report.

    \b
    [b]Examples[/b]
      lisa train --data mydata --out runs/mine
      lisa train --model weights/lisa-7b --data mydata --preset lora-16gb --out runs/mine --dry-run
      lisa train --data . --dataset reasonseg/train --dataset own=2 --out runs/both --steps 200
      lisa train nano --help
    """
    if context.invoked_subcommand is not None:
        return
    if data is None or (out is None and not dry_run):
        missing = "--data" if data is None else "--out"
        raise typer.BadParameter(f"Missing option '{missing}'.")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # tells what a CPU does not need
    from lisa.training import finetune

    settings = finetune.Settings(
        model=model,
        data=data,
        preset=preset.value if preset else None,
        datasets=tuple(dataset or ()),
        steps=steps,
        pictures=pictures,
        micro=micro,
        dtype=dtype,
        save_every=save_every,
        learning_rate=learning_rate,
        seed=seed,
        device=device_or_none(device),
        skip_bad=skip_bad,
    )
    if dry_run:
        from lisa.training.dry_run import estimate

        foreseen = estimate(settings)
        typer.echo(json.dumps(foreseen.to_dict(), indent=2) if as_json else str(foreseen))
        return
    assert out is not None
    finished = finetune.train(settings, out)
    if finetune.is_first_process():
        written = {"model": str(finished), "report": str(out / "report.html")}
        typer.echo(json.dumps(written) if as_json else f"wrote {finished} and {written['report']}")


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
            help="Run this stage only: [b]eyes[/b], [b]self[/b], [b]words[/b], [b]mind[/b], "
            "[b]recall[/b] or, with ft239, [b]tune[/b].",
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
    from lisa.nano.training import recipe as recipe

    recipe.train(
        data=data,
        out=out,
        seed=seed,
        device=device_or_none(device),
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
    from lisa.nano.training.calibration import calibrate_directory

    found = calibrate_directory(model, data, device_or_none(device))
    for name, value in found.items():
        typer.echo(f"{name:<14}{value:.4g}")
