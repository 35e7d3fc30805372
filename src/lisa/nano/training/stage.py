"""One stage of the recipe: a task, a stream, a schedule.

This file knows how a stage runs; it refuses to know which stages there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerState, TrainingArguments

from lisa.checkpoints.checkpoint import read_file
from lisa.data.stream import Stream
from lisa.training.loop import Sample, StageTrainer, Task, last_checkpoint, steps_of

STREAM_LENGTH = 10_000_000


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns."""

    steps: int
    pictures: int  # a step
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    save_every: int = 200


class Validation(TrainerCallback):
    """Runs a measurement every so many steps and logs it beside the losses."""

    def __init__(self, measure: Callable[[], dict[str, float]], every: int) -> None:
        self.measure, self.every = measure, every
        self.trainer: StageTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer and (
            state.global_step % self.every == 0 or state.global_step == state.max_steps
        ):
            losses_are_due = control.should_log
            self.trainer.log(self.measure())
            control.should_log = losses_are_due  # Trainer takes any log for theirs


def run_stage(
    task: Task,
    stream: Stream[Sample],
    encode: Callable[[list[Sample]], Any],
    schedule: Schedule,
    out: Path,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    measure: Callable[[], dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train; returns the log. A run that was stopped goes on from its last checkpoint.

    ``encode`` makes the samples of several draws into the batch that ``task`` reads.
    """
    stopped = last_checkpoint(out)
    if stopped and steps_of(stopped) >= schedule.steps:  # Trainer would take one step more
        task.load_state_dict(read_file(stopped / "model.safetensors"))
        return TrainerState.load_from_json(str(stopped / "trainer_state.json")).log_history

    def collate(draws: list[list[Sample]]) -> dict[str, Any]:
        return {"batch": encode([sample for draw in draws for sample in draw])}

    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=schedule.steps,
        per_device_train_batch_size=schedule.pictures,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=schedule.warmup,
        weight_decay=schedule.weight_decay,
        max_grad_norm=1.0,
        save_steps=schedule.save_every,
        save_total_limit=2,
        logging_steps=min(20, schedule.steps),
        report_to=["tensorboard"],
        remove_unused_columns=False,
        dataloader_num_workers=1,
        use_cpu=device is not None and device.type == "cpu",
        seed=seed,
        label_names=[],
    )
    validation = Validation(measure, schedule.save_every) if measure else None
    trainer = StageTrainer(
        task,
        args=arguments,
        train_dataset=stream,
        data_collator=collate,
        callbacks=[validation] if validation else [],
    )
    if validation:
        validation.trainer = trainer
    trainer.train(resume_from_checkpoint=str(stopped) if stopped else None)
    return list(trainer.state.log_history)


def has_checkpoint(out: Path) -> bool:
    """Whether a stopped run left something to go on from."""
    return last_checkpoint(out) is not None


def warm_up(
    parameters: list[nn.Parameter], loss: Callable[[], Tensor], steps: int, learning_rate: float
) -> float:
    """A few full-batch Adam steps on a loss without data; returns the last value."""
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    value = torch.tensor(0.0)
    for _ in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return float(value.detach())


@dataclass(frozen=True)
class Kind:
    """What a model may be trained on, in which stages."""

    stages: tuple[str, ...]
    reasoning: bool  # implicit questions are asked in "words" and "mind"
    sources: tuple[str, ...]  # beside the photographs


@dataclass(frozen=True)
class Run:
    """One training run: where it reads and writes, and how it is cut short."""

    data: Path
    out: Path
    seed: int
    device: torch.device
    resume: bool
    steps_scale: float
    kind: Kind

    def schedule(self, full: Schedule) -> Schedule:
        steps = max(2, round(full.steps * self.steps_scale))
        return replace(
            full,
            steps=steps,
            save_every=min(full.save_every, steps),
            warmup=min(full.warmup, steps // 2),
        )
