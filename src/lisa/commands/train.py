"""`lisa train`: models of one's own.

This file knows what a person types and what is printed; training is imported only when it is
asked for, so that `--help` is fast.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lisa.commands.options import DeviceOption, device_or_none

train_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


class NanoKind(StrEnum):
    """What `lisa train nano` may train on."""

    release = "release"
    zero_shot = "zero-shot"
    ft239 = "ft239"


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
    from lisa.training.calibrate import calibrate_directory

    found = calibrate_directory(model, data, device_or_none(device))
    for name, value in found.items():
        typer.echo(f"{name:<14}{value:.4g}")
