"""The losses, beside the model: text, masks, quality (LISA §3.2, equations 3 to 5).

Functions of outputs and targets, for lisa-nano; then those of the official code, with its
constants, for the full-size models. This file knows no loop, no weights but the ones given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lisa.model.interfaces import DecodedMasks


@dataclass(frozen=True)
class MaskLossWeights:
    """How the parts of the mask loss add up (binary cross-entropy and dice as in the paper)."""

    bce: float = 2.0
    dice: float = 0.5
    quality: float = 0.3
    here: float = 1.0


def mask_loss(
    decoded: DecodedMasks, targets: Tensor, weights: MaskLossWeights
) -> dict[str, Tensor]:
    """Named losses of N masks against ``targets`` [N, h, w] in [0, 1] (all 0: absent)."""
    present = targets.flatten(1).amax(1) > 0
    return {
        "bce": weights.bce * bce_loss(decoded.low_res_masks, targets),
        "dice": weights.dice * dice_loss(decoded.low_res_masks[present], targets[present]),
        "quality": weights.quality * quality_loss(decoded, targets),
        "here": weights.here * location_loss(decoded.similarity, targets),
    }


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels, then over masks."""
    return (
        F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        .flatten(1)
        .mean(1)
        .mean()
    )


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, mean over masks; 0 when there are none."""
    if not len(logits):
        return logits.sum() * 0
    probabilities, targets = logits.sigmoid().flatten(1), targets.flatten(1)
    overlap = 2 * (probabilities * targets).sum(1)
    return (1 - (overlap + 1) / (probabilities.sum(1) + targets.sum(1) + 1)).mean()


def quality_loss(decoded: DecodedMasks, targets: Tensor) -> Tensor:
    """The predicted IoU against the real one (0 where the thing is absent)."""
    with torch.no_grad():
        real = soft_iou(decoded.low_res_masks, targets)
    return F.binary_cross_entropy_with_logits(decoded.iou_logits, real)


def soft_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU [N] of the thresholded masks with soft targets."""
    predicted, targets = (logits > 0).float().flatten(1), targets.flatten(1)
    intersection = (predicted * targets).sum(1)
    return intersection / (predicted.sum(1) + targets.sum(1) - intersection).clamp(min=1e-6)


def location_loss(similarity: Tensor, targets: Tensor) -> Tensor:
    """The coarse "here" map against the share of each location that is target, mean over masks."""
    shares = F.adaptive_avg_pool2d(targets[:, None], (similarity.shape[1], similarity.shape[2]))[
        :, 0
    ]
    soft = (shares * 2).clamp(max=1)  # half covered counts as here
    return (
        F.binary_cross_entropy_with_logits(similarity, soft, reduction="none")
        .flatten(1)
        .mean(1)
        .mean()
    )


def absent_loss(similarity: Tensor) -> Tensor:
    """The coarse "here" maps [N, h, w] of things that are nowhere; 0 when there are none."""
    if not len(similarity):
        return similarity.sum() * 0
    return F.softplus(similarity).mean()


def mil_loss(similarity: Tensor) -> Tensor:
    """The coarse "here" maps [N, h, w] of things that are somewhere; 0 when there are none.

    The surest location alone counts (multiple instance learning).
    """
    if not len(similarity):
        return similarity.sum() * 0
    return F.softplus(-similarity.flatten(1).amax(1)).mean()


def prompt_loss(prompts: Tensor, taught: Tensor) -> Tensor:
    """How far ``[SEG]`` prompts [M, P] are from those of their targets' names, in their scale.

    0 when there are none: every question of a batch may be about something absent.
    """
    if not len(prompts):
        return prompts.sum() * 0
    scale = taught.pow(2).mean(-1, keepdim=True).clamp(min=1e-6)
    return ((prompts - taught).pow(2) / scale).mean()


# ------------------------------------------------------------------ as the official code has them
