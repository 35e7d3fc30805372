"""What fine-tuning trains: nano as its recipe ends, a full-size model as the paper does.

This file knows models, losses and what is trained; it refuses to know data sets and loops.
"""

from __future__ import annotations

from lisa.checkpoints.directory import Processor
from lisa.model.interfaces import Batch
from lisa.model.lisa import LisaModel
from lisa.model.processor import FullSizeProcessor
from lisa.nano.model.lisa import NanoModel
from lisa.nano.training.joint import MindTask
from lisa.training.loop import Losses, Task
from lisa.training.paper import PaperTask, existing, idle
from lisa.training.presets import Preset


class NanoTask(MindTask):
    """The losses of the stage "mind", on any data."""

    def forward(self, batch: Batch) -> Losses:
        losses = super().forward(batch)
        return losses | {"text": losses["text"] + idle(self)}


def make_task(model: LisaModel, processor: Processor, preset: Preset) -> Task:
    """The task of a model's kind."""
    if isinstance(processor, FullSizeProcessor):
        return PaperTask(model, processor, preset)
    assert isinstance(model, NanoModel)
    task = NanoTask(model)
    task._no_split_modules = existing(task, ["LlamaDecoderLayer"])
    return task
