"""Presets of ``lisa train``: one table from a name to what is trained, on what, how long, how fast.

This file knows numbers and names; it refuses to know models and loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from lisa.errors import LisaError
from lisa.training.optim import PAPER, Recipe

PAPER_DATASETS = (
    *("ade20k", "coco-stuff", "mapillary", "paco-lvis", "pascal-part"),
    *("refclef", "refcoco", "refcoco+", "refcocog-umd"),
    *("llava-instruct", "reasonseg"),
)


@dataclass(frozen=True)
class LossWeights:
    """How the losses of a full-size model add up (arXiv 2308.00692, §4.1)."""

    text: float = 1.0
    bce: float = 2.0
    dice: float = 0.5


@dataclass(frozen=True)
class Preset:
    """One way to train.

    Attributes:
        summary: for the help, in a line.
        full_size: for models of full size, or for nano.
        recipe: steps (updates), learning rate, schedule, low-rank factors.
        pictures: of one update, over all processes together.
        micro: of these, how many a process holds at once.
        datasets: what is trained on unless the caller says otherwise.
        schedule: "warmup_decay" (the paper's) or "cosine".
        dtype: format of what is frozen, and of the arithmetic.
        quantize: of the language model's layers: "4bit", "8bit" or None.
        checkpointing: activations of the language model are computed twice instead of kept.
        save_every: updates between two checkpoints.
        losses: of full-size models; nano has its own (nano/training/joint.py).
    """

    summary: str
    full_size: bool
    recipe: Recipe
    pictures: int
    micro: int
    datasets: tuple[str, ...] = ("own",)
    schedule: str = "warmup_decay"
    dtype: str = "bfloat16"
    quantize: str | None = None
    checkpointing: bool = False
    save_every: int = 100
    losses: LossWeights = field(default_factory=LossWeights)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "nano": Preset(
            "lisa-nano on data of one's own, on a CPU, in minutes",
            full_size=False,
            recipe=Recipe(
                steps=60, learning_rate=3e-4, warmup=10, betas=(0.9, 0.999), lora_dropout=0.0
            ),
            pictures=4,
            micro=4,
            schedule="cosine",
            dtype="float32",
            save_every=20,
        ),
        "paper": Preset(
            "the paper's training of LISA, on its mixture 9/3/3/1",
            full_size=True,
            recipe=PAPER,
            pictures=160,  # 8 GPUs, 2 pictures each, 10 batches an update
            micro=2,
            datasets=PAPER_DATASETS,
            checkpointing=True,
        ),
        "paper-239": Preset(
            "the paper's fine-tuning of a trained LISA on the 239 samples of ReasonSeg",
            full_size=True,
            recipe=Recipe(steps=150, learning_rate=3e-5, warmup=10),
            pictures=16,
            micro=2,
            datasets=("reasonseg",),
            checkpointing=True,
            save_every=25,
        ),
        "lora-16gb": Preset(
            "a full-size model on data of one's own, on one GPU of 16 GB",
            full_size=True,
            recipe=Recipe(steps=500, warmup=50),
            pictures=8,
            micro=1,
            quantize="4bit",
            checkpointing=True,
            save_every=50,
        ),
        "full": Preset(
            "the whole language model, on several large GPUs",
            full_size=True,
            recipe=Recipe(learning_rate=2e-5, lora_rank=0),
            pictures=128,
            micro=2,
            datasets=PAPER_DATASETS,
            checkpointing=True,
        ),
    }
)


def preset_of(name: str) -> Preset:
    """A preset by its name.

    Raises:
        LisaError: there is none of this name.
    """
    if name not in PRESETS:
        raise LisaError(f"there is no preset '{name}'; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
