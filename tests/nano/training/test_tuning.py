"""What fine-tuning trains, and that its losses are the paper's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.lively_model import picture
from helpers.parts import TEMPLATE, tiny_processor
from helpers.tiny_model import tiny_model
from lisa.checkpoints.directory import FullSizeModel
from lisa.checkpoints.precision import part_of
from lisa.example import Example
from lisa.nano.training.joint import MindTask
from lisa.nano.training.tuning import NanoTask, make_task
from lisa.training.optim import PAPER
from lisa.training.paper import PaperTask, answer_loss, official_mask_loss
from lisa.training.presets import PRESETS, LossWeights, Preset

PRESET = replace(PRESETS["paper"], recipe=replace(PAPER, lora_dropout=0.0), checkpointing=False)


def full_size(preset: Preset = PRESET, **parts: str) -> tuple[PaperTask, Any]:
    processor = tiny_processor(parts.get("vlm", "llava"), parts.get("decoder", "sam"), TEMPLATE)
    torch.manual_seed(0)
    task = make_task(FullSizeModel(processor.config), processor, preset)
    assert isinstance(task, PaperTask)
    return task, processor


def examples(*targets: int) -> list[Example]:
    """A question for each target: 1 for one that is there, 0 for small talk."""
    image, masks = picture(), np.zeros((1, 40, 48), bool)
    masks[0, 10:30, 5:25] = True
    pointing = Example(image, "What is the cat?", "It is the cat [SEG].", masks, phrase="cat")
    talking = Example(image, "What is left?", "the cat", masks[:0])
    return [pointing if target else talking for target in targets]


def test_the_paper_trains_factors_words_decoder_and_head() -> None:
    task, _ = full_size()
    trained = {
        ("factors" if "lora_" in name else part_of(name))
        for name, parameter in task.model.named_parameters()
        if parameter.requires_grad
    }
    assert trained == {"factors", "language model", "mask decoder", "projector and head"}
    names = [name for name in task.trained_names() if part_of(name[6:]) == "language model"]
    assert {name.split(".")[-2] for name in names if "lora_" not in name} == {
        "embed_tokens",
        "lm_head",
    }


def test_the_losses_are_the_papers_and_weighed() -> None:
    task, processor = full_size()
    batch = processor.encode(examples(1, 1, 0))
    output = task.model(batch)
    masks = official_mask_loss(processor.predicted_masks(output, batch), batch.full_masks)
    losses = task(batch)
    torch.testing.assert_close(losses["text"], answer_loss(output.logits, batch.labels))
    torch.testing.assert_close(losses["bce"], masks["mask_bce_loss"])
    torch.testing.assert_close(losses["dice"], masks["mask_dice_loss"])
    doubled, _ = full_size(replace(PRESET, losses=LossWeights(text=2.0, bce=4.0, dice=1.0)))
    for name, value in doubled(batch).items():
        torch.testing.assert_close(value, 2 * losses[name])


def test_a_batch_without_masks_has_a_gradient_everywhere() -> None:
    """Processes that share a model wait for each other's gradients."""
    task, processor = full_size()
    losses = task(processor.encode(examples(0)))
    assert losses["bce"] == losses["dice"] == 0
    sum(losses.values(), torch.zeros(())).backward()
    assert [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None] == []


def test_what_is_trained_is_float32_and_the_rest_stays() -> None:
    processor = tiny_processor("llava", "sam", TEMPLATE)
    model = FullSizeModel(processor.config).to(torch.bfloat16)
    task = PaperTask(model, processor, PRESET)
    formats = {True: set(), False: set()}
    for parameter in task.parameters():
        formats[parameter.requires_grad].add(parameter.dtype)
    assert formats == {True: {torch.float32}, False: {torch.bfloat16}}
    with torch.autocast("cpu", torch.bfloat16):
        losses = task(processor.encode(examples(1, 0)))
    assert all(torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("vlm", ["llava", "qwen2_5_vl", "smolvlm"])
def test_checkpointing_changes_no_loss_and_no_gradient(vlm: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        task, processor = full_size(replace(PRESET, checkpointing=checkpointing), vlm=vlm)
        task.train()
        losses = task(processor.encode(examples(1, 0)))
        sum(losses.values(), torch.zeros(())).backward()
        gradients.append({n: p.grad for n, p in task.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_only_the_language_model_is_in_training_mode() -> None:
    task, _ = full_size(replace(PRESET, recipe=PAPER))
    modes = {name: module.training for name, module in task.train().model.named_modules()}
    assert any(modes[name] for name in modes if "lora_dropout" in name)
    assert not any(mode for name, mode in modes.items() if part_of(name) != "language model")
    assert not any(module.training for module in task.eval().modules())


def test_nano_is_trained_as_its_recipe_ends() -> None:
    model, processor = tiny_model()
    task = make_task(model, processor, PRESETS["nano"])
    assert isinstance(task, NanoTask) and task._no_split_modules == ["LlamaDecoderLayer"]
    batch = processor.encode(examples(1, 0))
    torch.testing.assert_close(task(batch), MindTask(model)(batch))
