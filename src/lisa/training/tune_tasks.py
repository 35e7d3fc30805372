"""What fine-tuning trains: nano as its recipe ends, a full-size model as the paper does.

This file knows models, losses and what is trained; it refuses to know data sets and loops.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lisa.model.build import Processor
from lisa.model.interfaces import Batch
from lisa.model.lisa import LisaModel
from lisa.model.precision import part_of, whole_modules
from lisa.model.processor_full import FullSizeProcessor
from lisa.training.loop import Losses, Task
from lisa.training.loss import MaskLossWeights, answer_loss, official_mask_loss
from lisa.training.mind import MindTask
from lisa.training.optim import prepare
from lisa.training.presets import Preset

SOMETIMES_IDLE = ("model.head.", "model.decoder.")  # a batch without masks does not lead there


class NanoTask(MindTask):
    """The losses of the stage "mind", on any data."""

    def forward(self, batch: Batch) -> Losses:
        losses = super().forward(batch)
        return losses | {"text": losses["text"] + idle(self)}


class PaperTask(Task):
    """Text, BCE and dice losses at the pictures' own size (arXiv 2308.00692, equations 3 to 5).

    Args:
        model: of full size; low-rank factors are put in, and what is trained becomes float32.
        processor: of that model.
        preset: with the recipe and the weights of the losses.
    """

    def __init__(self, model: LisaModel, processor: FullSizeProcessor, preset: Preset) -> None:
        super().__init__(model, prepare(model, preset.recipe))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.processor, self.preset = processor, preset
        self._no_split_modules = existing(self, whole_modules(model.vlm))
        if preset.checkpointing:
            keep_less(model.vlm.model)

    def forward(self, batch: Batch) -> Losses:
        assert batch.labels is not None and batch.full_masks is not None
        weights = self.preset.losses
        output = self.model(batch)
        predicted = self.processor.predicted_masks(output, batch)
        masks = official_mask_loss(
            predicted, batch.full_masks, MaskLossWeights(bce=weights.bce, dice=weights.dice)
        )
        text = weights.text * answer_loss(output.logits, batch.labels)
        return {
            "text": text + idle(self),
            "bce": masks["mask_bce_loss"],
            "dice": masks["mask_dice_loss"],
        }

    def train(self, mode: bool = True) -> PaperTask:
        """The language model alone has two modes: dropout of the factors, checkpointing."""
        super().train(False)
        for name, module in self.model.named_modules():
            module.training = mode and part_of(name) == "language model"
        return self


def make_task(model: LisaModel, processor: Processor, preset: Preset) -> Task:
    """The task of a model's kind."""
    if isinstance(processor, FullSizeProcessor):
        return PaperTask(model, processor, preset)
    task = NanoTask(model)
    task._no_split_modules = existing(task, ["LlamaDecoderLayer"])
    return task


def keep_less(language: Any) -> None:
    """Compute activations twice instead of keeping them."""
    settings = {"use_reentrant": False}
    if hasattr(language, "activation_checkpointing_enable"):  # transformers from 5.24 on
        language.activation_checkpointing_enable(settings)
    else:
        language.gradient_checkpointing_enable(settings)


def existing(task: nn.Module, classes: Iterable[str]) -> list[str]:
    """Those of the classes that a module has members of."""
    there = {type(module).__name__ for module in task.modules()}
    return sorted(there & set(classes))


def idle(task: Task) -> Tensor:
    """Zero, with a gradient of zero for what a batch without masks would leave out.

    All processes must agree on what has a gradient.
    """
    often_idle = [
        parameter.flatten()[:1].sum()
        for name, parameter in task.named_parameters()
        if parameter.requires_grad and name.startswith(SOMETIMES_IDLE)
    ]
    return 0 * torch.stack(often_idle).float().sum()
