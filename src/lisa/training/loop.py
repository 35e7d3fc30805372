"""One training stage: a task, a stream of examples, ``transformers.Trainer`` as the loop.

A task is a module that turns a batch into named losses and says which of the model's parameters it
trains; only those are saved in checkpoints. This file knows how to run and resume a stage; it
refuses to know which stages there are and what they are for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from lisa.example import Example
from lisa.model.interfaces import Batch
from lisa.model.lisa import LisaModel
from lisa.model.processor import LisaProcessor

Losses = dict[str, Tensor]


class Task(nn.Module):
    """A model and what is trained of it; ``forward(batch)`` gives named losses that add up."""

    def __init__(self, model: LisaModel, trainable: Sequence[nn.Module | nn.Parameter]) -> None:
        super().__init__()
        self.model = model
        model.requires_grad_(False)
        for part in trainable:
            part.requires_grad_(True)

    def forward(self, batch: Batch) -> Losses:
        raise NotImplementedError

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """What is trained and how fast; one group unless a task says otherwise."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": learning_rate}]

    def train(self, mode: bool = True) -> Task:
        """Nothing here has two modes: batch norms keep their statistics, there is no dropout."""
        return super().train(False)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Only what is trained."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        state = super().state_dict(*args, **kwargs)
        return {k: v.contiguous() for k, v in state.items() if k in trained}


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns."""

    steps: int
    pictures: int  # a step
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    save_every: int = 200


class StageTrainer(Trainer):
    """``Trainer`` over batches that are dataclasses and losses that have names."""

    def __init__(self, task: Task, **kwargs: Any) -> None:
        super().__init__(model=task, **kwargs)
        self.task = task
        self.parts: dict[str, float] = {}
        self.counted = 0

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups = self.task.parameter_groups(self.args.learning_rate)
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        losses = model(inputs["batch"].to(self.args.device))
        for name, value in losses.items():
            self.parts[name] = self.parts.get(name, 0.0) + float(value.detach())
        self.counted += 1
        return sum(losses.values())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self.counted and "loss" in logs:
            logs |= {f"loss_{name}": total / self.counted for name, total in self.parts.items()}
            self.parts, self.counted = {}, 0
        super().log(logs, *args, **kwargs)


class Validation(TrainerCallback):
    """Runs a measurement every so many steps and logs it beside the losses."""

    def __init__(self, measure: Callable[[], dict[str, float]], every: int) -> None:
        self.measure, self.every = measure, every
        self.trainer: StageTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer and (
            state.global_step % self.every == 0 or state.global_step == state.max_steps
        ):
            self.trainer.log(self.measure())


def run_stage(
    task: Task,
    stream: Dataset[list[Example]],
    processor: LisaProcessor,
    schedule: Schedule,
    out: Path,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    measure: Callable[[], dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train; returns the log. A run that was stopped goes on from its last checkpoint."""

    def collate(rows: list[list[Example]]) -> dict[str, Batch]:
        return {"batch": processor.encode([example for row in rows for example in row])}

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
        logging_steps=20,
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
    trainer.train(resume_from_checkpoint=has_checkpoint(out))
    return list(trainer.state.log_history)


def has_checkpoint(out: Path) -> bool:
    """Whether a stopped run left something to go on from."""
    return out.is_dir() and get_last_checkpoint(str(out)) is not None


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
    return float(value)
