"""What the tests of fine-tuning train: tiny models as directories, and a few samples."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState

from helpers.parts import TEMPLATE, tiny_processor
from helpers.training_data import write_reasonseg
from lisa.checkpoints.directory import FullSizeModel, save
from lisa.training.finetune import CHECKPOINTS, Settings
from lisa.training.loop import last_checkpoint

QUESTIONS = ("What is the cat?", "What is left?", "What is the right cat?", "What is a cat?")
FEW = {"pictures": 2, "micro": 1, "steps": 6, "save_every": 2, "dtype": "float32"}


def write_samples(root: Path) -> Path:
    """A folder with the data set "reasonseg", of four pictures each to train on and to look at."""
    for split in ("train", "val"):
        write_reasonseg(root / "reasonseg" / split, QUESTIONS)
    return root / "reasonseg"


def write_full_size(directory: Path, vlm: str = "llava", decoder: str = "sam") -> Path:
    """A model of full size that has no size, with random weights."""
    processor = tiny_processor(vlm, decoder, TEMPLATE)
    torch.manual_seed(0)
    save(FullSizeModel(processor.config), processor, directory)
    return directory


def few(model: Path, data: Path, **changes: Any) -> Settings:
    """A run of seconds."""
    settings = FEW | {"datasets": ("reasonseg",), "device": "cpu"} | changes
    return Settings(str(model), data, **settings)


def losses(out: Path) -> list[dict[str, float]]:
    """The losses of a run by update, from its last checkpoint."""
    last = last_checkpoint(out / CHECKPOINTS)
    assert last is not None
    log = TrainerState.load_from_json(str(last / "trainer_state.json")).log_history
    return [
        {name: value for name, value in entry.items() if name.startswith("loss")}
        for entry in log
        if "loss" in entry
    ]


def command(settings: Settings, out: Path) -> list[str]:
    """The run as it is typed."""
    numbers = {"--steps": settings.steps, "--pictures": settings.pictures}
    numbers |= {"--micro": settings.micro, "--save-every": settings.save_every}
    numbers |= {"--model": settings.model, "--data": settings.data, "--out": out}
    numbers |= {"--dataset": "reasonseg", "--dtype": settings.dtype, "--preset": settings.preset}
    numbers |= {"--learning-rate": settings.learning_rate, "--device": "cpu"}
    return ["-m", "lisa", "train", *(str(one) for pair in numbers.items() for one in pair)]
