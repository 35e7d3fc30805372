"""What a training run would train, read and need, told before anything is loaded.

The model is built where tensors have shapes and no memory; a few samples are drawn and encoded.
This file counts and estimates (``FORMULAS``); it trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lisa.checkpoints.directory import Processor, empty_model, model_directory, read_config
from lisa.checkpoints.plan import PARTS, Part, count_parts, gibibytes, image_bytes, number_bytes
from lisa.checkpoints.precision import part_of
from lisa.data.mixture import Mixture
from lisa.model.interfaces import PADDING_SEGMENT, Batch
from lisa.model.lisa import LisaModel
from lisa.model.processor import FullSizeProcessor
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.training.tuning import make_task
from lisa.training.finetune import (
    Settings,
    chosen_preset,
    data_sets,
    open_shares,
    vary_for,
)
from lisa.training.launch import number_of_processes
from lisa.training.presets import Preset

SAMPLES = 4  # that are drawn to count their tokens
STATE_BYTES = 16  # of a trained number: float32 weight, gradient, and Adam's two
FORMULAS = {
    "weights": "as `lisa plan` has them, in the format of what is frozen",
    "trained": "16 bytes for each number: weight, gradient and Adam's two moments in float32",
    "activations": "layers x tokens x (12 widths + 3 inner widths) x bytes of a number; with "
    "checkpointing layers x tokens x width + one layer whole; and the logits, 3 times in float32, "
    "and the image encoder's largest maps",
}


@dataclass(frozen=True)
class Foreseen:
    """A run before it is run; bytes are those of one process that holds the whole model.

    Attributes:
        trained: numbers that are trained, by part; ``numbers``: all that there are, by part.
        questions, masks, tokens: of an update, on average over a few samples; all processes.
    """

    model: str
    preset: Preset
    datasets: dict[str, float]
    processes: int
    trained: dict[str, int]
    numbers: dict[str, int]
    questions: float
    masks: float
    tokens: float
    memory: dict[str, int]

    def __str__(self) -> str:
        recipe = self.preset.recipe
        total = sum(self.datasets.values())
        shares = ", ".join(f"{n} {w / total:.1%}" for n, w in self.datasets.items())
        lines = [
            f"{self.model}: {recipe.steps} updates of {self.preset.pictures} pictures, "
            f"{self.preset.micro} at once in each of {self.processes} processes",
            f"data: {shares}",
            "",
            f"{'part':<20}{'M numbers':>12}{'M trained':>12}",
            *(
                f"{part:<20}{count / 1e6:>12,.2f}{self.trained.get(part, 0) / 1e6:>12,.2f}"
                for part, count in self.numbers.items()
            ),
            "",
            f"an update: {self.questions:,.1f} questions, {self.masks:,.1f} masks, "
            f"{self.tokens:,.0f} tokens (mean of {SAMPLES} samples)",
            "",
            *(f"{name:<20}{gibibytes(count):>8} GiB" for name, count in self.memory.items()),
            f"{'together':<20}{gibibytes(sum(self.memory.values())):>8} GiB in one process, "
            "if nothing is shared out",
            "",
            *(f"{name}: {formula}" for name, formula in FORMULAS.items()),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; bytes throughout."""
        return asdict(self) | {"formulas": FORMULAS}


def estimate(settings: Settings) -> Foreseen:
    """What the settings would do.

    Raises:
        LisaError: what ``finetune.train`` would refuse before it trains.
    """
    preset = chosen_preset(settings)
    shares, _ = open_shares(settings.data, data_sets(settings, preset), settings.skip_bad)
    directory = model_directory(settings.model)
    config = read_config(directory)
    kind = FullSizeProcessor if config.full_size else LisaProcessor
    processor: Processor = kind.from_directory(directory, config)
    mixture = Mixture(shares, SAMPLES, settings.seed, vary_for(preset))
    draws = [mixture[index] for index in range(SAMPLES)]
    batches = [processor.encode(draw) for draw in draws]
    model = empty_model(config, directory)
    parts = count_parts(model)
    with torch.device("meta"):
        task = make_task(model, processor, preset)
    trained = count_trained(task.model)
    scale = preset.pictures / SAMPLES
    return Foreseen(
        model=settings.model,
        preset=preset,
        datasets={name: share.weight for name, share in shares.items()},
        processes=number_of_processes(),
        trained=trained,
        numbers={part.name: part.numbers for part in parts},
        questions=scale * sum(map(len, draws)),
        masks=scale * count_masks(batches),
        tokens=scale * sum(map(count_tokens, batches)),
        memory=memory(model, parts, trained, preset, batches),
    )


def count_trained(model: LisaModel) -> dict[str, int]:
    """Numbers that are trained, by part; what two names share counts once."""
    found = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        found[part_of(name)] += parameter.numel() * parameter.requires_grad
    return {part: count for part, count in found.items() if count}


def count_masks(batches: Sequence[Batch]) -> int:
    """Targets with a known mask."""
    full = sum(len(masks) for batch in batches for masks in batch.full_masks or ())
    return full + sum(int(batch.known.sum()) for batch in batches if batch.known is not None)


def count_tokens(batch: Batch) -> int:
    """Those that are read."""
    return int((batch.segments != PADDING_SEGMENT).sum())


def memory(
    model: LisaModel,
    parts: Sequence[Part],
    trained: Mapping[str, int],
    preset: Preset,
    batches: Sequence[Batch],
) -> dict[str, int]:
    """Bytes by what takes them (``FORMULAS``)."""
    precision = preset.quantize or preset.dtype
    tokens = preset.micro * max(batch.input_ids.numel() for batch in batches)
    return {
        "weights": sum(part.bytes(precision) for part in parts),
        "trained": STATE_BYTES * sum(trained.values()),
        "activations": activations(model, tokens, preset),
    }


def activations(model: LisaModel, tokens: int, preset: Preset) -> int:
    """What the way forward keeps for the way back."""
    language: Any = model.config.language_config()
    size = number_bytes(preset.dtype)
    layer = tokens * (12 * language.hidden_size + 3 * language.intermediate_size) * size
    layers = language.num_hidden_layers
    kept = layers * layer
    if preset.checkpointing:
        kept = layers * tokens * language.hidden_size * size + layer
    logits = 3 * 4 * tokens * language.vocab_size
    return kept + logits + preset.micro * image_bytes(model, size)
