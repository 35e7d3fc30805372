"""One training stage: a task, a stream of examples, ``transformers.Trainer`` as the loop.

A task is a module that turns a batch into named losses and says which of the model's parameters it
trains; only those are saved in checkpoints. This file knows how to run and resume a stage; it
refuses to know which stages there are and what they are for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from transformers import Trainer

from lisa.errors import LisaError, ModelError
from lisa.model.interfaces import Batch
from lisa.model.lisa import LisaModel

Losses = dict[str, Tensor]
Sample = TypeVar("Sample")


class Task(nn.Module):
    """A model and what is trained of it; ``forward(batch)`` gives named losses that add up."""

    _keys_to_ignore_on_save = None  # Trainer asks for it when it resumes
    _no_split_modules: Sequence[str] = ()  # classes of layers that processes share out (FSDP)

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

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load what is trained; all of it must be there."""
        missing = self.trained_names() - state_dict.keys()
        unexpected = state_dict.keys() - self.trained_names()
        if missing or unexpected:
            raise ModelError(
                f"the checkpoint does not fit the task: '{sorted(missing | unexpected)[0]}' differs"
            )
        super().load_state_dict(state_dict, strict=False, assign=assign)
        return _IncompatibleKeys([], [])

    def trained_names(self) -> set[str]:
        """Names of the parameters that are trained."""
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Only what is trained."""
        trained = self.trained_names()
        state = super().state_dict(*args, **kwargs)
        return {k: v.contiguous() for k, v in state.items() if k in trained}


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
        self.check_finite(losses)
        for name, value in losses.items():
            self.parts[name] = self.parts.get(name, 0.0) + float(value.detach())
        self.counted += 1
        return sum(losses.values())

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        self.check_finite({"gradient": torch.as_tensor(float(norm))})
        return norm

    def check_finite(self, values: Mapping[str, Tensor]) -> None:
        """Stop before a loss or gradient that is no number reaches the weights.

        Raises:
            LisaError: names it and the step, and says what helps.
        """
        for name, value in values.items():
            if not math.isfinite(float(value.detach())):
                kept = last_checkpoint(Path(str(self.args.output_dir)))
                raise LisaError(
                    f"'{name}' became {float(value.detach())} at step "
                    f"{self.state.global_step + 1}; expected a number: try a lower learning rate "
                    f"or float32 (the last good weights are in '{kept or 'none yet'}')"
                )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self.counted and "loss" in logs:
            means = torch.tensor([total / self.counted for total in self.parts.values()])
            means = self.accelerator.reduce(means.to(self.args.device), "mean")
            logs |= {f"loss_{n}": v for n, v in zip(self.parts, means.tolist(), strict=True)}
            self.parts, self.counted = {}, 0
        super().log(logs, *args, **kwargs)


def last_checkpoint(out: Path) -> Path | None:
    """The last checkpoint that was written to its end: its state file is written last."""
    states = out.glob("checkpoint-*/trainer_state.json")
    return max((path.parent for path in states if is_whole(path)), key=steps_of, default=None)


def is_whole(path: Path) -> bool:
    """Whether a file of JSON was written to its end."""
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def steps_of(checkpoint: Path) -> int:
    """After how many steps a checkpoint was written: it is called ``checkpoint-STEPS``."""
    return int(checkpoint.name.rpartition("-")[2])
