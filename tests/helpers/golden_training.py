"""The training loop against records of the official LISA: losses, gradients, rates, what moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainerState

from helpers.golden_files import read_json, stated
from helpers.golden_model import Loaded, is_language, load_record, ours_of
from helpers.lively_model import picture
from lisa.checkpoints.checkpoint import read_file
from lisa.example import Example
from lisa.model.interfaces import Batch
from lisa.training.optim import Recipe, make_optimizer
from lisa.training.paper import PaperTask
from lisa.training.presets import PRESETS
from lisa.training.tune import fine_tune, schedule

CPU = torch.device("cpu")
NAMES = {"text": "ce_loss", "bce": "mask_bce_loss", "dice": "mask_dice_loss"}


def entry_of(path: str) -> str:
    """What the manifest says of a file."""
    (entry,) = [entry for entry in read_json("MANIFEST.json")["files"] if entry["path"] == path]
    return str(entry["what"])


def test_training_loop(loaded: Loaded, tmp_path: Path) -> None:
    """The recorded recipe through the loop of `lisa train`: two micro-batches an update."""
    record, said = read_json("model/trajectory.json"), entry_of("model/trajectory.json")
    updates = len(record["steps"])  # of the schedule's eight
    recipe = Recipe(learning_rate=3e-3, warmup=3, steps=8, lora_rank=0, compat="deepspeed")
    plain = replace(PRESETS["paper"], dtype="float32", checkpointing=False)
    preset = replace(plain, recipe=recipe, pictures=2, micro=1, save_every=updates)
    task = PaperTask(loaded.model, loaded.processor, preset)
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not is_language(name))
    before = {name: value.detach().clone() for name, value in loaded.model.named_parameters()}
    batches = [load_record(loaded, name)[2] for name in ("train", "train_vqa_only")]
    asked = [[Example(picture(8, 8), str(number))] for number in range(2 * recipe.steps)]

    def encode(examples: Sequence[Example]) -> Batch:
        number = int(examples[0].question)
        if number > 2 * updates:  # one is read ahead
            raise LookupError("the record ends here")
        return batches[number % 2]

    with pytest.raises(LookupError):
        fine_tune(task, asked, encode, preset, tmp_path, device=CPU)  # type: ignore[arg-type]
    last = tmp_path / f"checkpoint-{updates}"
    log = TrainerState.load_from_json(str(last / "trainer_state.json")).log_history
    for entry, expected in zip(log, record["steps"], strict=True):
        compare_update(entry, expected, said)
    after = read_file(last / "model.safetensors")
    for key, norm in record["final_delta_norms"].items():
        name = ours_of(key)
        if key.endswith("k_proj.bias"):  # moved by rounding alone
            continue
        moved = (after[f"model.{name}"] - before[name]).norm() if f"model.{name}" in after else 0
        np.testing.assert_allclose(moved, norm, **stated(said, "final_delta_norms"), err_msg=key)


def compare_update(entry: dict[str, float], expected: dict[str, Any], said: str) -> None:
    """An update of the log with the recorded one, whose losses are of its micro-batches."""
    means = {
        key: np.mean([micro[key] for micro in expected["micro"]]) for key in expected["micro"][0]
    }
    for ours, theirs in {"": "loss", **NAMES}.items():
        value = entry[f"loss_{ours}".rstrip("_")]
        np.testing.assert_allclose(value, means[theirs], **stated(said, "losses"), err_msg=theirs)
    norm = expected["grad_norm_before_clip"]
    np.testing.assert_allclose(entry["grad_norm"], norm, **stated(said, "grad norms"))
    assert entry["learning_rate"] == pytest.approx(expected["lr"], rel=1e-9)


def test_learning_rates() -> None:
    """Every recorded rate of both kinds of DeepSpeed."""
    for name, rates in read_json("schedule/warmup_decay.json").items():
        version, *numbers = name.split("|")
        total, warmup, rate = (text.partition("=")[2] for text in numbers)
        compat = "official" if version < "deepspeed_0.11" else "deepspeed"
        recipe = Recipe(int(total), float(rate), int(warmup), compat=compat)
        optimizer, _ = make_optimizer([nn.Parameter(torch.zeros(1))], recipe)
        planned = schedule(optimizer, replace(PRESETS["paper"], recipe=recipe))
        ours = []
        for _ in range(max(map(int, rates)) + 1):
            ours.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            planned.step()
        for update, expected in rates.items():
            assert ours[int(update)] == pytest.approx(expected, rel=1e-12, abs=1e-18), (
                name,
                update,
            )
