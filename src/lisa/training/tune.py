"""The loop of fine-tuning: a task, a mixture and a preset through ``transformers.Trainer``.

An update is the mean over its micro-batches, whoever computes them: one process or many, the losses
are the same. A run that was stopped goes on from its last checkpoint, and draws what it would have
drawn. This file knows steps, processes and checkpoints; it refuses to know models and data sets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
)

from lisa.data.mixture import Mixture
from lisa.errors import LisaError, QuestionError
from lisa.example import Example
from lisa.model.interfaces import Batch
from lisa.training.launch import is_sharded, number_of_processes, shard_on_cpu
from lisa.training.loop import StageTrainer, Task, last_checkpoint, steps_of
from lisa.training.optim import make_optimizer, warmup_decay
from lisa.training.presets import Preset

SHARED_FILE = "optimizer.bin"  # of checkpoints whose model was shared out
Encode = Callable[[Sequence[Example]], Batch]


class TuneTrainer(StageTrainer):
    """``StageTrainer`` with a preset's optimiser and schedule, and samples in their own order."""

    def __init__(self, task: Task, preset: Preset, samples: int, **kwargs: Any) -> None:
        self.preset, self.samples = preset, samples
        super().__init__(task, **kwargs)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled = self.is_fsdp_enabled or shard_on_cpu(self.accelerator)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(range(self.samples))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self.optimizer is None:
            recipe = self.preset.recipe
            self.optimizer, _ = make_optimizer(
                self.task.parameter_groups(recipe.learning_rate), recipe
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = schedule(optimizer or self.optimizer, self.preset)
            self._created_lr_scheduler = True
        return self.lr_scheduler


def schedule(optimizer: Any, preset: Preset) -> LambdaLR:
    """The learning rate over updates."""
    recipe = preset.recipe
    if preset.schedule == "cosine":
        return get_cosine_schedule_with_warmup(optimizer, recipe.warmup, recipe.steps)
    return LambdaLR(
        optimizer,
        lambda update: warmup_decay(update, recipe.steps, recipe.warmup, recipe.compat),
    )


def fine_tune(
    task: Task,
    mixture: Mixture,
    encode: Encode,
    preset: Preset,
    out: Path,
    *,
    device: torch.device,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Train; returns the log, an entry an update. Goes on from the last checkpoint in ``out``."""
    stopped = last_checkpoint(out)
    if stopped and steps_of(stopped) >= preset.recipe.steps:  # Trainer would take one step more
        return TrainerState.load_from_json(str(stopped / "trainer_state.json")).log_history

    if stopped:
        check_shared_alike(stopped)

    def collate(draws: list[list[Example]]) -> dict[str, Any]:
        return {"batch": encode_what_fits([one for draw in draws for one in draw], encode)}

    trainer = TuneTrainer(
        task,
        preset,
        len(mixture),
        args=arguments(preset, out, device, seed),
        train_dataset=mixture,
        data_collator=collate,
        callbacks=[Progress()],
    )
    trainer.remove_callback(PrinterCallback)
    with advice_on_memory(preset):
        trainer.train(resume_from_checkpoint=str(stopped) if stopped else None)
    return list(trainer.state.log_history)


def check_shared_alike(checkpoint: Path) -> None:
    """Processes that share the model out cannot go on where others were, nor the reverse.

    Raises:
        LisaError: they would have to.
    """
    if (checkpoint / SHARED_FILE).is_file() != is_sharded():
        before, now = ("with", "without") if not is_sharded() else ("without", "with")
        raise LisaError(
            f"'{checkpoint}' was written {before} FSDP, this run is {now}; expected the same"
        )


def encode_what_fits(examples: Sequence[Example], encode: Encode) -> Batch:
    """The batch of those examples that are not too long; a long one does not end a long run.

    Raises:
        QuestionError: all of them are.
    """
    try:
        return encode(examples)
    except QuestionError:
        fitting = [example for example in examples if fits(example, encode)]
        if not fitting:
            raise
        return encode(fitting)


def fits(example: Example, encode: Encode) -> bool:
    """Whether an example can be encoded."""
    try:
        encode([example])
    except QuestionError:
        return False
    return True


def arguments(preset: Preset, out: Path, device: torch.device, seed: int) -> TrainingArguments:
    """A preset as ``transformers`` has it, for the processes that are here.

    Raises:
        LisaError: the pictures of an update cannot be shared out evenly.
    """
    recipe, together = preset.recipe, preset.micro * number_of_processes()
    if preset.pictures % together:
        raise LisaError(
            f"an update has {preset.pictures} pictures, {preset.micro} at once in each of "
            f"{number_of_processes()} processes; expected a multiple of {together}"
        )
    made = TrainingArguments(
        output_dir=str(out),
        max_steps=recipe.steps,
        per_device_train_batch_size=preset.micro,
        gradient_accumulation_steps=preset.pictures // together,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=preset.dtype == "bfloat16",
        save_steps=min(preset.save_every, recipe.steps),
        save_total_limit=2,
        logging_steps=1,
        disable_tqdm=True,
        report_to=["tensorboard"],
        remove_unused_columns=False,
        dataloader_num_workers=1,
        ddp_find_unused_parameters=False,
        use_cpu=device.type == "cpu",
        seed=seed,
        label_names=[],
    )
    made._n_gpu = min(1, made.n_gpu)  # several GPUs are for several processes
    return made


class Progress(TrainerCallback):
    """A line on stderr for each update."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            parts = " ".join(f"{n[5:]} {v:.3f}" for n, v in logs.items() if n.startswith("loss_"))
            line = f"step {state.global_step}/{state.max_steps} loss {logs['loss']:.4f} ({parts})"
            print(line, file=sys.stderr, flush=True)


@contextmanager
def advice_on_memory(preset: Preset) -> Iterator[None]:
    """Running out of memory becomes one line that says what helps.

    Raises:
        LisaError: instead of the error of torch.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise LisaError(
            f"out of memory with {preset.micro} pictures at once; expected fewer (--micro 1), "
            "the preset lora-16gb, or more processes (docs/training.md); the checkpoints are kept"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch found no memory, on a GPU or in the machine."""
    is_known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_known or "can't allocate memory" in str(error) or "out of memory" in str(error)
