"""The paper's training of a full-size model: losses (equations 3 to 5), and what is trained (§4.1).

Low-rank factors go into the queries and values of the language model; they, the word tables, the
mask decoder and the head are trained, everything else stays as it was. The losses have the official
code's constants. This file knows models, losses and names of parameters; it refuses to know data
sets and loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from lisa.checkpoints.precision import part_of, whole_modules
from lisa.errors import DataError
from lisa.model.interfaces import IGNORE_LABEL, Batch
from lisa.model.lisa import LisaModel
from lisa.model.processor import FullSizeProcessor
from lisa.training.loop import Losses, Task
from lisa.training.optim import PAPER, Recipe
from lisa.training.presets import LossWeights, Preset

PAPER_LOSSES = LossWeights()
SOMETIMES_IDLE = ("model.head.", "model.decoder.")  # a batch without masks does not lead there

# The constants of the official code.
DICE_SCALE = 1000  # divides what its dice loss sums up
DICE_EPSILON = 1e-6
COUNT_EPSILON = 1e-8  # beside the number of masks in a denominator

# Parts of a name, in this project's spelling and in that of the official checkpoints.
TRAINED = ("lm_head", "embed_tokens", "mask_decoder", "text_hidden_fcs", "lora_")
TRAINED_PREFIX = "head."  # the head of this project's models
NOT_LANGUAGE = ("vision", "visual", "projector", "connector", "text_hidden_fcs")


def is_adapted(name: str, targets: Iterable[str] = PAPER.lora_targets) -> bool:
    """Whether the linear layer ``name`` of a vision-language model gets low-rank factors."""
    return any(target in name for target in targets) and not any(
        part in name for part in NOT_LANGUAGE
    )


def is_trained(name: str) -> bool:
    """Whether the parameter ``name`` of a model with low-rank factors is trained."""
    return name.startswith(TRAINED_PREFIX) or any(part in name for part in TRAINED)


def adapted_layers(vlm: nn.Module, targets: Iterable[str] = PAPER.lora_targets) -> list[str]:
    """Names of the linear layers of a vision-language model that get low-rank factors."""
    return [
        name
        for name, module in vlm.named_modules()
        if isinstance(module, nn.Linear) and is_adapted(name, targets)
    ]


def prepare(model: nn.Module, recipe: Recipe = PAPER) -> list[nn.Parameter]:
    """Put the low-rank factors in and freeze what is not trained; returns what is.

    Args:
        model: with the vision-language model as its child ``vlm``; factors that it has are kept.
        recipe: with ``lora_rank`` 0 the language model is trained itself.
    """
    vlm = model.get_submodule("vlm")
    if recipe.lora_rank and not any(isinstance(module, LoraLayer) for module in vlm.modules()):
        inject_adapter_in_model(lora_config(vlm, recipe), vlm)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(
            is_trained(name) or (not recipe.lora_rank and belongs_to_language(name))
        )
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def lora_config(vlm: nn.Module, recipe: Recipe) -> LoraConfig:
    """The recipe's factors, for exactly the layers that ``adapted_layers`` names."""
    return LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=adapted_layers(vlm, recipe.lora_targets),
        bias="none",
    )


def belongs_to_language(name: str) -> bool:
    """Whether a parameter of the whole model is one of the language model's own."""
    return name.startswith("vlm.") and not any(part in name for part in NOT_LANGUAGE)


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Next-token cross-entropy; ``logits`` [K, V] stand before the labels of ``labels`` [B, T]."""
    following = labels[:, 1:]
    return F.cross_entropy(logits, following[following != IGNORE_LABEL])


def official_bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of masks [N, H, W], mean over pixels, then over masks; 0 for N = 0."""
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").flatten(1)
    return each.mean(1).sum() / (len(logits) + COUNT_EPSILON)


def official_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """One minus the soft Dice coefficient of masks [N, H, W], mean over masks; 0 for N = 0."""
    probabilities, targets = logits.sigmoid().flatten(1), targets.flatten(1)
    overlap = 2 * (probabilities / DICE_SCALE * targets).sum(1)
    areas = (probabilities / DICE_SCALE).sum(1) + (targets / DICE_SCALE).sum(1)
    each = 1 - (overlap + DICE_EPSILON) / (areas + DICE_EPSILON)
    return each.sum() / (len(logits) + COUNT_EPSILON)


def official_mask_loss(
    predicted: Sequence[Tensor],
    targets: Sequence[Tensor],
    weights: LossWeights = PAPER_LOSSES,
) -> dict[str, Tensor]:
    """The weighted losses ``mask_bce_loss`` and ``mask_dice_loss`` of a batch.

    Args:
        predicted: for each picture the logits of its masks [n, H, W], at the picture's own size.
        targets: as many masks [n, H, W] in [0, 1] for each.

    Raises:
        DataError: a picture does not have as many masks as targets.
    """
    bce, dice = predicted[0].new_zeros(()), predicted[0].new_zeros(())
    for number, (logits, wanted) in enumerate(zip(predicted, targets, strict=True)):
        if logits.shape != wanted.shape:
            raise DataError(
                f"picture {number} of the batch has masks {list(logits.shape)}; "
                f"expected {list(wanted.shape)}, one for each [SEG]"
            )
        bce = bce + official_bce_loss(logits, wanted.float()) * len(wanted)
        dice = dice + official_dice_loss(logits, wanted.float()) * len(wanted)
    count = sum(map(len, targets)) + COUNT_EPSILON
    return {
        "mask_bce_loss": weights.bce * bce / count,
        "mask_dice_loss": weights.dice * dice / count,
    }


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
        masks = official_mask_loss(predicted, batch.full_masks, weights)
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
