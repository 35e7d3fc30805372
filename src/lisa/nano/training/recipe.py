"""The recipe of ``lisa-nano``, stage by stage: the eyes, then the mind, then the files that ship.

    eyes   mask decoder and name prompts on photographs with names (nano/training/grounding.py)
    self   the same, also on masks that the eyes found themselves (nano/training/pseudo_labels.py)
    words  LoRA on the language model: to choose among imagined things (nano/training/symbolic.py)
    mind   LoRA on the language model, head and decoder end to end (nano/training/joint.py)
    tune   kind "ft239" alone: the same on the 239 reasoning samples and nothing else

At the end the scores are calibrated (nano/training/calibration.py).

The pretrained parts come from the embedded model, where they are stored as they were published (the
tower in float16). A stage that is done is not run again, one that was stopped goes on. This file
knows the order and the sizes; what a stage teaches stands in its own file.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lisa.checkpoints.checkpoint import read_file, write_file
from lisa.checkpoints.directory import (
    EMBEDDED,
    model_directory,
    pick_device,
    read_config,
    write_config,
)
from lisa.checkpoints.packed import assemble
from lisa.data.reasonseg import ReasonSeg
from lisa.data.stream import Stream
from lisa.errors import DataError, LisaError
from lisa.example import Example
from lisa.files import write_atomically
from lisa.nano.data.imagenet import imagenet_classes
from lisa.nano.data.photos import PhotoFolder, labelled_folders
from lisa.nano.data.sources import Photos
from lisa.nano.model.directory import write_names
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.model.segmenter import NanoAnswering
from lisa.nano.training.calibration import calibrate_once
from lisa.nano.training.grounding import (
    EyesTask,
    WordTable,
    eyes_stream,
    held_out_rows,
    iou_by_name,
    learn_words,
)
from lisa.nano.training.joint import (
    MindTask,
    held_out_questions,
    iou_by_question,
    learn_to_name,
    mind_stream,
    tune_stream,
)
from lisa.nano.training.lora import LORA
from lisa.nano.training.pseudo_labels import write_pseudo_masks
from lisa.nano.training.report import write_report
from lisa.nano.training.retrieval import (
    EPOCHS,
    MANY_TEXTS,
    RecallTask,
    learn_to_recall,
    learn_to_weigh,
    pairs_to_learn,
    questions_to_weigh,
    recall_names,
)
from lisa.nano.training.stage import STREAM_LENGTH, Kind, Run, Schedule, has_checkpoint, run_stage
from lisa.nano.training.symbolic import (
    WordsTask,
    choices,
    encode_scenes,
    held_out_scenes,
    words_stream,
)
from lisa.predict import Segmenter
from lisa.training.loop import Task

SHARED = ("eyes", "self", "words", "mind")
STAGES = (*SHARED, "recall")
NAMES_ONLY = "knowledge (names and synonyms only)"
DEFINITIONS = "definitions (WordNet, Webster 1913)"
ASKED = "asked (questions about photographs)"
SAMPLES = "reasonseg_nano/train239"
KINDS = {
    "release": Kind(STAGES, True, ("knowledge", DEFINITIONS, ASKED, SAMPLES)),
    "zero-shot": Kind(STAGES, False, (NAMES_ONLY, DEFINITIONS)),
    "ft239": Kind(
        (*SHARED, "tune", "recall"),
        False,
        (NAMES_ONLY, DEFINITIONS, f"{SAMPLES} (targets present)"),
    ),
}
ALL_STAGES = (*SHARED, "tune", "recall")
CALIBRATION = "calibration.json"
FROZEN_FILES = ("language-embeddings", "language-layers-1", "language-layers-2", "tower")
EYES = Schedule(steps=2500, pictures=16, learning_rate=1e-3, save_every=250)
SELF = Schedule(steps=600, pictures=16, learning_rate=3e-4, save_every=150)
WORDS = Schedule(
    steps=300, pictures=4, learning_rate=5e-4, warmup=20, weight_decay=0.0, save_every=100
)
MIND = Schedule(
    steps=220, pictures=6, learning_rate=5e-4, warmup=20, weight_decay=0.0, save_every=55
)
TUNE = Schedule(
    steps=120, pictures=6, learning_rate=2e-4, warmup=10, weight_decay=0.0, save_every=40
)
EYES_SIDE = 256  # pixels; crops are seen closer than whole pictures will be
EYES_NAMES = 4  # asked of a picture
EYES_MISSING = 24  # names that are not there, asked of a picture
WORDS_QUESTIONS = 8  # asked of an imagined scene
MIND_QUESTIONS = 5  # asked of a picture


def train(
    data: Path,
    out: Path,
    seed: int = 0,
    device: str | None = None,
    resume: bool = True,
    stage: str | None = None,
    steps_scale: float = 1.0,
    kind: str = "release",
    start: Path | None = None,
) -> Path:
    """Run the recipe; returns the directory of the finished model, ``out/model``.

    Args:
        data: holds ``photos/`` (COCO-format folders) and ``reasonseg_nano/train239``.
        out: checkpoints, TensorBoard files, ``report.html`` and ``model/``.
        seed: of initial weights and of the stream of samples.
        device: "cpu", "cuda" ...; None takes a GPU if there is one.
        resume: go on from what ``out`` holds; False starts anew, or ``stage`` and what follows it.
        stage: only this one of the kind's stages, after the finished ones before it.
        steps_scale: multiplies the number of steps of each stage.
        kind: "release": all data; "zero-shot": no implicit question anywhere, as the paper's model
            of that name; "ft239": zero-shot, then tuned on the 239 samples.
        start: the folder of a finished zero-shot run, whose stages are taken over.

    Raises:
        DataError: ``data`` does not hold the training data. LisaError: no such kind or stage, one
            before it is not finished, or ``start`` is not that of a zero-shot run.
    """
    check_request(data, stage, steps_scale, kind)
    run = Run(data, out, seed, pick_device(device), resume, steps_scale, KINDS[kind])
    photos = Photos(data)
    if kind != "zero-shot" and stage not in ("eyes", "self"):
        ReasonSeg(data / "reasonseg_nano", "train239")  # a broken sample stops the run here
    if not resume:
        forget(out, stage)
    out.mkdir(parents=True, exist_ok=True)
    if start is not None:
        take_over(start, out)
    wanted = wanted_stages(out, run.kind.stages, stage)
    model, processor = starting_model(photos, seed)
    for name in wanted:
        run_or_reload(name, run, photos, model, processor)
    if wanted == run.kind.stages:
        segmenter = Segmenter(NanoAnswering(model, processor))
        calibrate_once(segmenter, data, run.kind.reasoning, out / CALIBRATION)
    finished = write_model(model, processor, run, photos)
    write_report(finished, data, out, device)
    return finished


def check_request(data: Path, stage: str | None, steps_scale: float, kind: str) -> None:
    """Say early what cannot work."""
    if kind not in KINDS:
        raise LisaError(f"there is no kind '{kind}'; expected one of {', '.join(KINDS)}")
    if not (data / "photos").is_dir():
        raise DataError(
            f"no training data in '{data}'; expected the folders photos/ and reasonseg_nano/"
        )
    stages = KINDS[kind].stages
    if stage is not None and stage not in stages:
        raise LisaError(f"there is no stage '{stage}'; expected one of {', '.join(stages)}")
    if not 0 < steps_scale < math.inf:
        raise LisaError(f"steps-scale is {steps_scale}; expected more than 0")


def forget(out: Path, stage: str | None) -> None:
    """Remove what ``stage`` and the stages after it (None: all stages) left in ``out``."""
    for name in ALL_STAGES[ALL_STAGES.index(stage) :] if stage else ALL_STAGES:
        shutil.rmtree(out / name, ignore_errors=True)
        (out / f"{name}.safetensors").unlink(missing_ok=True)
    (out / CALIBRATION).unlink(missing_ok=True)


def take_over(start: Path, out: Path) -> None:
    """Copy the finished stages of a zero-shot run that ``out`` does not have itself."""
    files = [start / f"{name}.safetensors" for name in SHARED]
    saw = read_config(start / "model").trained_on if all(f.is_file() for f in files) else []
    if NAMES_ONLY not in saw:
        raise LisaError(f"'{start}' is not the folder of a finished zero-shot run; expected one")
    for path in files:
        if not (out / path.name).is_file():
            shutil.copyfile(path, out / path.name)


def wanted_stages(out: Path, stages: tuple[str, ...], stage: str | None) -> tuple[str, ...]:
    """The stage asked for after those it builds on, which must be finished; None: all stages."""
    if stage is None:
        return stages
    earlier = stages[: stages.index(stage)]
    for name in earlier:
        finished = out / f"{name}.safetensors"
        if not finished.is_file():
            raise LisaError(f"stage '{stage}' goes on from '{finished}'; expected it to be there")
    return *earlier, stage


def starting_model(photos: Photos, seed: int) -> tuple[NanoModel, LisaProcessor]:
    """Published language model and tower, all else new; the names to find are the photos'."""
    source = model_directory(EMBEDDED)
    config = read_config(source)
    config.concepts, config.trained_on = photos.names, []
    config.recall_names, config.recall_texts = recall_names(config.concepts), 0
    processor = LisaProcessor.from_directory(source, config)
    torch.manual_seed(seed)
    model = NanoModel(config)
    stored: dict[str, Tensor] = {}
    for name in FROZEN_FILES:
        stored |= read_file(source / f"{name}.safetensors")
    model.load_state_dict(assemble(stored), strict=False)
    write_names(model, processor, [c.name for c in imagenet_classes()])
    return model.eval(), processor


def run_or_reload(
    name: str, run: Run, photos: Photos, model: NanoModel, processor: LisaProcessor
) -> None:
    """Train one stage into the model, or load what it learnt when it is done."""
    tasks: dict[str, Callable[[NanoModel], Task]] = {
        "eyes": EyesTask,
        "self": EyesTask,
        "words": WordsTask,
        "mind": MindTask,
        "tune": MindTask,
        "recall": RecallTask,
    }
    task = tasks[name](model)
    finished = run.out / f"{name}.safetensors"
    if finished.is_file():
        task.load_state_dict(read_file(finished), strict=False)
        return
    stages = {
        "eyes": train_eyes,
        "self": train_self,
        "words": train_words,
        "mind": train_mind,
        "tune": train_tune,
        "recall": train_recall,
    }
    stages[name](task, run, photos, model, processor)
    write_file({key: value.cpu() for key, value in task.state_dict().items()}, finished)


def train_eyes(
    task: Task, run: Run, photos: Photos, model: NanoModel, processor: LisaProcessor
) -> None:
    """Names to masks."""
    if not has_checkpoint(run.out / "eyes"):
        learn_words(model, WordTable.of(model, processor))
    learn_to_see(task, run, photos, processor, EYES, run.out / "eyes")


def train_self(
    task: Task, run: Run, photos: Photos, model: NanoModel, processor: LisaProcessor
) -> None:
    """Names to masks, some of them found by the eyes."""
    found = run.out / "self" / "masks"
    if (found / "annotations.json").is_file():
        pseudo = PhotoFolder(found)
    else:
        pseudo = write_pseudo_masks(model, processor, labelled_folders(run.data), found)
    learn_to_see(task, run, photos, processor, SELF, run.out / "self", pseudo)


def learn_to_see(
    task: Task,
    run: Run,
    photos: Photos,
    processor: LisaProcessor,
    schedule: Schedule,
    out: Path,
    pseudo: PhotoFolder | None = None,
) -> None:
    """One stage of the eyes, at their own size of picture."""
    assert isinstance(task, EyesTask)
    model = task.model
    full_size, model.config.image_size = model.config.image_size, EYES_SIDE
    task.words = WordTable.of(model, processor)
    rows = held_out_rows(run.data, EYES_SIDE)
    make = eyes_stream(run.data, photos, EYES_SIDE, EYES_NAMES, EYES_MISSING, pseudo)
    run_stage(
        task,
        Stream(make, STREAM_LENGTH, run.seed),
        processor.encode,
        run.schedule(schedule),
        out,
        seed=run.seed,
        device=run.device,
        measure=lambda: iou_by_name(model, processor, rows),
    )
    model.config.image_size = full_size


def train_words(
    task: Task, run: Run, photos: Photos, model: NanoModel, processor: LisaProcessor
) -> None:
    """Questions to names, without pictures."""
    if not has_checkpoint(run.out / "words"):
        learn_to_name(model, processor)
    scenes = held_out_scenes(processor.config)
    run_stage(
        task,
        Stream(
            words_stream(processor.config, WORDS_QUESTIONS, run.kind.reasoning),
            STREAM_LENGTH,
            run.seed,
        ),
        lambda made: encode_scenes(made, processor),
        run.schedule(WORDS),
        run.out / "words",
        seed=run.seed,
        device=run.device,
        measure=lambda: choices(model, processor, scenes),
    )


def train_mind(
    task: Task, run: Run, photos: Photos, model: NanoModel, processor: LisaProcessor
) -> None:
    """Questions to answers and masks."""
    reasoning = run.kind.reasoning
    make = mind_stream(run.data, photos, model.config.image_size, MIND_QUESTIONS, reasoning)
    train_end_to_end("mind", make, MIND, task, run, model, processor)


def train_tune(
    task: Task, run: Run, photos: Photos, model: NanoModel, processor: LisaProcessor
) -> None:
    """The 239 reasoning samples, over and over."""
    make = tune_stream(run.data, model.config.image_size)
    train_end_to_end("tune", make, TUNE, task, run, model, processor)


def train_recall(
    task: Task, run: Run, photos: Photos, model: NanoModel, processor: LisaProcessor
) -> None:
    """Questions to names, and names against what is seen."""
    samples = SAMPLES in " ".join(run.kind.sources)
    pairs = pairs_to_learn(run.data, run.kind.reasoning, samples)
    some = pairs[:: max(1, round(1 / run.steps_scale))]
    epochs = EPOCHS * max(1.0, MANY_TEXTS / len(pairs))
    torch.manual_seed(run.seed)
    learn_to_recall(model, processor, some, max(1, round(epochs * min(1.0, run.steps_scale))))
    asked = questions_to_weigh(run.data, processor.config.recall_names, run.kind.reasoning)
    found = learn_to_weigh(model, processor, asked)
    write_atomically(run.out / "recall.json", json.dumps(found, indent=1).encode())


def train_end_to_end(
    name: str,
    make: Callable[[np.random.Generator], list[Example]],
    full: Schedule,
    task: Task,
    run: Run,
    model: NanoModel,
    processor: LisaProcessor,
) -> None:
    """A stage of questions and photographs, measured as a user would."""
    asked = held_out_questions(run.data, run.kind.reasoning)
    run_stage(
        task,
        Stream(make, STREAM_LENGTH, run.seed + 1),
        processor.encode,
        run.schedule(full),
        run.out / name,
        seed=run.seed,
        device=run.device,
        measure=lambda: iou_by_question(model, processor, asked),
    )


# ------------------------------------------------------------------ what ships


def write_model(model: NanoModel, processor: LisaProcessor, run: Run, photos: Photos) -> Path:
    """The finished model directory: published parts as they were, what was learnt in float16."""
    source, out = model_directory(EMBEDDED), run.out / "model"
    out.mkdir(exist_ok=True)
    for name in ("tokenizer.json", *(f"{name}.safetensors" for name in FROZEN_FILES)):
        shutil.copyfile(source / name, out / name)
    learnt, adapter = split_learnt(model)
    write_file(learnt, out / "lisa.safetensors")
    write_file(adapter, out / "adapter.safetensors")
    labelled = [folder.folder.name for folder in labelled_folders(run.data)]
    seen = [*photos.sources, *labelled, *run.kind.sources]
    processor.config.trained_on = list(dict.fromkeys(seen))
    processor.config.recall_texts = len(model.vlm.recall.memory.about)
    write_config(processor.config, out)
    return out


def split_learnt(model: NanoModel) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What was trained, in float16: all of our own, and the language model's LoRA factors."""
    learnt, adapter = {}, {}
    for key, value in model.state_dict().items():
        if ".lora_" in key:
            name, rest = key.split(".lora_")  # ...q_proj, A.default.weight
            factor = rest[0]
            scale = LORA.lora_alpha / LORA.r if factor == "B" else 1.0
            adapter[f"{name}.weight.lora_{factor}"] = halved(value * scale)
        elif not key.startswith(("vlm.language.", "decoder.tower.")):
            learnt[key] = halved(value)
    return learnt, adapter


def halved(value: Tensor) -> Tensor:
    """In float16 and on the CPU; counters keep their type."""
    return (value.half() if value.is_floating_point() else value).cpu()
