"""``lisa train``: a model, data and a preset in; a tuned model, its log and a report out.

    out/checkpoints/   the last two checkpoints, TensorBoard files
    out/model/         the tuned model, for ``lisa.load``
    out/report.html    losses, and answers to questions that were held out, where there are some

The same command goes on where a stopped run was. This file knows the order of things; it refuses to
know losses, formats and processes.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from lisa.checkpoints.checkpoint import read_file
from lisa.checkpoints.directory import build, model_directory, pick_device, read_config
from lisa.checkpoints.merge import sort_learnt, write_merged
from lisa.checkpoints.precision import DEFAULT, Precision
from lisa.data.datasets import DATASETS, open_dataset
from lisa.data.mixture import Mixture, Share, Vary, family_weights
from lisa.data.prompts import absent_answer, present_answer
from lisa.errors import DataError, LisaError, OutputError
from lisa.example import SEG_TOKEN, Example
from lisa.files import write_atomically
from lisa.model.answers import is_present
from lisa.nano.model.segmenter import answering, load
from lisa.nano.training.joint import sometimes_silent
from lisa.nano.training.tuning import make_task
from lisa.predict import Segmenter
from lisa.training.launch import is_first_process, is_sharded, own_device
from lisa.training.loop import last_checkpoint
from lisa.training.presets import Preset, preset_of
from lisa.training.report import Answered, answer_some, tune_page
from lisa.training.tune import fine_tune, is_out_of_memory

TRAIN = "train"  # the split that is trained on unless another is named
HELD_OUT = ("val", "test")  # splits whose questions the report asks, the first that is there
CHECKPOINTS = "checkpoints"
SETTINGS = "run.json"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Settings:
    """What a person asks for.

    Attributes:
        model: "nano" or a directory.
        data: the folder of the data sets.
        preset: a name of ``PRESETS``; None: that for the kind of model.
        datasets: NAME, NAME/SPLIT, NAME=WEIGHT or NAME/SPLIT=WEIGHT; none: the preset's.
        steps, pictures, micro, learning_rate, dtype, save_every: instead of the preset's.
        seed: of what is new in the model, and of the order of the samples.
        device: "cpu", "cuda" ...; None takes a GPU if there is one.
        skip_bad: leave out what cannot be read.
    """

    model: str
    data: Path
    preset: str | None = None
    datasets: tuple[str, ...] = ()
    steps: int | None = None
    pictures: int | None = None
    micro: int | None = None
    learning_rate: float | None = None
    dtype: str | None = None
    save_every: int | None = None
    seed: int = 0
    device: str | None = None
    skip_bad: bool = False


@dataclass(frozen=True)
class Wanted:
    """A data set as a person names it."""

    name: str
    split: str | None
    weight: float | None

    @property
    def shown(self) -> str:
        return f"{self.name}/{self.split}" if self.split else self.name


def chosen_preset(settings: Settings) -> Preset:
    """The preset with what the person changed of it.

    Raises:
        LisaError: it is unknown, for another kind of model, or a change makes no sense.
    """
    is_full = read_config(model_directory(settings.model)).full_size
    name = settings.preset or ("lora-16gb" if is_full else "nano")
    preset = preset_of(name)
    if preset.full_size != is_full:
        fits = "models of full size" if preset.full_size else "lisa-nano"
        raise LisaError(f"preset '{name}' is for {fits}; expected another one for this model")
    return changed(preset, settings)


def changed(preset: Preset, settings: Settings) -> Preset:
    """A preset with the numbers of the person, where there are some."""
    recipe = preset.recipe
    steps = or_else(settings.steps, recipe.steps)
    rate = or_else(settings.learning_rate, recipe.learning_rate)
    pictures = or_else(settings.pictures, preset.pictures)
    micro = or_else(settings.micro, min(preset.micro, pictures))
    every = or_else(settings.save_every, preset.save_every)
    if min(steps, pictures, micro, every) < 1 or not 0 < rate < float("inf"):
        raise LisaError(
            f"steps is {steps}, pictures {pictures}, micro {micro}, save-every {every}, "
            f"learning rate {rate}; expected more than 0"
        )
    return replace(
        preset,
        recipe=replace(
            recipe, steps=steps, warmup=min(recipe.warmup, steps // 2), learning_rate=rate
        ),
        pictures=pictures,
        micro=micro,
        dtype=or_else(settings.dtype, preset.dtype),
        save_every=every,
    )


def or_else(asked: Value | None, usual: Value) -> Value:
    """What was asked for, if anything was."""
    return usual if asked is None else asked


# ------------------------------------------------------------------------- data


def wanted(text: str) -> Wanted:
    """What NAME/SPLIT=WEIGHT says.

    Raises:
        DataError: the weight is no number.
    """
    shown, is_weighed, weight = text.partition("=")
    name, _, split = shown.partition("/")
    try:
        return Wanted(name, split or usual_split(name), float(weight) if is_weighed else None)
    except ValueError as error:
        raise DataError(f"the weight in '{text}' is no number; expected NAME=3") from error


def usual_split(name: str) -> str | None:
    """The split that is trained on, of data sets that have one."""
    return TRAIN if name in DATASETS and TRAIN in DATASETS[name].splits else None


def data_sets(settings: Settings, preset: Preset) -> Sequence[str]:
    """Those that were asked for, or else those of the preset that are in the folder.

    Raises:
        DataError: none of them is.
    """
    if settings.datasets:
        return settings.datasets
    there = [name for name in preset.datasets if DATASETS[name].find(settings.data)]
    if not there:
        raise DataError(
            f"'{settings.data}' holds none of {', '.join(preset.datasets)}; expected one, or its "
            "name with --dataset"
        )
    return there


def open_shares(
    data: Path, names: Sequence[str], skip_bad: bool = False
) -> tuple[dict[str, Share], list[Wanted]]:
    """The data sets by the names that they are shown with, and what was asked for.

    Raises:
        DataError: one is unknown or broken; with ``skip_bad``, more of it than single records.
    """
    asked = [wanted(text) for text in names]
    opened = {one.shown: open_dataset(one.name, data, one.split, skip_bad) for one in asked}
    usual = family_weights({one.shown: DATASETS[one.name].family for one in asked})
    weights = {one.shown: usual[one.shown] if one.weight is None else one.weight for one in asked}
    return {name: Share(opened[name], weights[name]) for name in opened}, asked


def seen(shares: Mapping[str, Share]) -> list[str]:
    """What the weights will have seen, as ``LisaConfig.trained_on`` has it: NAME/SPLIT."""
    found = []
    for shown, share in shares.items():
        name, _, split = shown.partition("/")
        name = getattr(share.dataset, "name", name)  # own data say what they are called
        found.append(f"{name}/{split}" if split else name)
    return found


def vary_for(preset: Preset) -> Vary:
    """How examples are changed for a kind of model."""
    return pointed if preset.full_size else named_answer


def named_answer(example: Example, random: np.random.Generator) -> Example:
    """An example for nano: the answer names the thing, now and then it only points."""
    if example.answer is None or SEG_TOKEN in example.answer:
        says = present_answer if is_present(example) else absent_answer
        example = replace(example, answer=says(example.phrase) if example.phrase else "")
    return sometimes_silent(pointed(example, random), random)


def pointed(example: Example, random: np.random.Generator) -> Example:
    """An example that has masks and no name is called by its question: it has a target."""
    if example.phrase or example.masks is None or not example.masks.any():
        return example
    return replace(example, phrase=example.question)


# ------------------------------------------------------------------------- the run


def train(settings: Settings, out: Path) -> Path:
    """Fine-tune; returns the directory of the tuned model, ``out/model``.

    Raises:
        LisaError: the model, the data, the preset or the device cannot be used; a loss became no
            number; there is not enough memory. Checkpoints that were written stay.
    """
    preset = chosen_preset(settings)
    shares, asked = open_shares(settings.data, data_sets(settings, preset), settings.skip_bad)
    device = pick_device(settings.device)
    remember(settings, preset, out)
    tell(shares)
    model, processor = build(settings.model, str(own_device(device)), precision_of(preset))
    where, examples = held_out(asked, settings.data, settings.skip_bad)
    asks = is_first_process() and not is_sharded()  # a model that waits in memory is slow
    before = answer_some(Segmenter(answering(model, processor)), examples) if asks else []
    torch.manual_seed(settings.seed)
    task = make_task(model, processor, preset)
    mixture = Mixture(
        shares,
        preset.recipe.steps * preset.pictures,
        settings.seed,
        vary_for(preset),
    )
    log = fine_tune(
        task,
        mixture,
        processor.encode,
        preset,
        out / CHECKPOINTS,
        device=device,
        seed=settings.seed,
    )
    scale, trained = scale_of(task), task.trained_names()
    del task, model
    gc.collect()
    if is_first_process():
        config = processor.config
        config.trained_on = list(dict.fromkeys([*config.trained_on, *seen(shares)]))
        export(settings, processor, scale, trained, out)
        after = answers_of_tuned(settings, preset, examples, out)
        page = tune_page(config.trained_on, log, where, after, before if after else ())
        write_atomically(out / "report.html", page.encode())
    return out / "model"


def tell(shares: Mapping[str, Share]) -> None:
    """Say on stderr what is trained on: one that is not there is not missed in silence."""
    if is_first_process():
        total = sum(share.weight for share in shares.values())
        parts = [f"{name} {share.weight / total:.1%}" for name, share in shares.items()]
        print(f"training on {', '.join(parts)}", file=sys.stderr)
        for name, share in shares.items():
            skipped = getattr(share.dataset, "skipped", [])
            for message in skipped:
                print(f"skipped: {message}", file=sys.stderr)
            if skipped:
                print(f"skipped {len(skipped)} of {name} in all", file=sys.stderr)


def precision_of(preset: Preset) -> Precision:
    """How the frozen weights are held; those that are shared out by FSDP, all in float32."""
    if not preset.full_size or is_sharded():
        return Precision()
    return Precision(dtype=preset.dtype, quantize=preset.quantize)


def scale_of(task: nn.Module) -> float:
    """What the product of the low-rank factors is multiplied by; 1 where there are none."""
    layers = (module for module in task.modules() if isinstance(module, LoraLayer))
    return next((float(layer.scaling["default"]) for layer in layers), 1.0)


def export(settings: Settings, processor: Any, scale: float, trained: set[str], out: Path) -> None:
    """Write ``out/model`` from the last checkpoint, which may hold more than was trained (ZeRO)."""
    last = last_checkpoint(out / CHECKPOINTS)
    assert last is not None
    state = read_file(last / "model.safetensors")
    learnt = sort_learnt({name: state[name] for name in sorted(trained)}, scale)
    write_merged(model_directory(settings.model), learnt, processor, out / "model")


def remember(settings: Settings, preset: Preset, out: Path) -> None:
    """Write down what is run; a folder with another run in it is refused.

    Where it runs, and how many pictures are held at once, may change on the way.

    Raises:
        OutputError: it is another run, or nothing can be written.
    """
    fields = asdict(replace(settings, data=settings.data.resolve(), device=None, micro=None))
    numbers = asdict(replace(preset, micro=0))
    text = json.dumps({"settings": fields, "preset": numbers}, indent=1, default=str)
    path = out / SETTINGS
    if last_checkpoint(out / CHECKPOINTS) and path.is_file() and path.read_text() != text:
        raise OutputError(
            f"'{out}' holds a run with other settings ({path}); expected the same ones, "
            "or another folder"
        )
    if is_first_process():
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot write '{out}': {error.strerror}; expected a folder"
            ) from error
        write_atomically(path, text.encode())


def answers_of_tuned(
    settings: Settings, preset: Preset, examples: Sequence[Example], out: Path
) -> list[Answered]:
    """The tuned model is loaded as a user would, and asked; not where there is no memory for it."""
    precision = Precision(preset.dtype, quantize=preset.quantize) if preset.full_size else DEFAULT
    try:
        return answer_some(load(out / "model", settings.device, precision), examples)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print("no memory to ask the tuned model: the report has no answers", file=sys.stderr)
        return []


def held_out(
    asked: Sequence[Wanted], data: Path, skip_bad: bool = False
) -> tuple[str, Sequence[Example]]:
    """Questions for the report and what they are called: held out, where there are such."""
    for one in asked:
        there = DATASETS[one.name].find(data)
        for split in HELD_OUT:
            if split in there and split != one.split:
                return f"{one.name}/{split}", open_dataset(one.name, data, split, skip_bad)
    first = asked[0]
    dataset = open_dataset(first.name, data, first.split, skip_bad)
    return f"{first.shown} (trained on)", dataset
