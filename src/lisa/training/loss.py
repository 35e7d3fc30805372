"""The losses, beside the model: text, masks, quality (LISA §3.2, equations 3 to 5).

Functions of outputs and targets, for lisa-nano; then those of the official code, with its
constants, for the full-size models. This file knows no loop, no weights but the ones given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lisa.errors import DataError
from lisa.model.interfaces import IGNORE_LABEL, DecodedMasks

# The constants of the official code.
DICE_SCALE = 1000  # divides what its dice loss sums up
DICE_EPSILON = 1e-6
COUNT_EPSILON = 1e-8  # beside the number of masks in a denominator


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
        "here": weights.here * here_loss(decoded.similarity, targets),
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


def here_loss(similarity: Tensor, targets: Tensor) -> Tensor:
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


def denial_loss(similarity: Tensor) -> Tensor:
    """The coarse "here" maps [N, h, w] of things that are nowhere; 0 when there are none."""
    if not len(similarity):
        return similarity.sum() * 0
    return F.softplus(similarity).mean()


def somewhere_loss(similarity: Tensor) -> Tensor:
    """The coarse "here" maps [N, h, w] of things that are somewhere; 0 when there are none.

    The surest location alone counts (multiple instance learning).
    """
    if not len(similarity):
        return similarity.sum() * 0
    return F.softplus(-similarity.flatten(1).amax(1)).mean()


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Next-token cross-entropy; ``logits`` [K, V] stand before the labels of ``labels`` [B, T]."""
    following = labels[:, 1:]
    return F.cross_entropy(logits, following[following != IGNORE_LABEL])


def prompt_loss(prompts: Tensor, taught: Tensor) -> Tensor:
    """How far ``[SEG]`` prompts [M, P] are from those of their targets' names, in their scale.

    0 when there are none: every question of a batch may be about something absent.
    """
    if not len(prompts):
        return prompts.sum() * 0
    scale = taught.pow(2).mean(-1, keepdim=True).clamp(min=1e-6)
    return ((prompts - taught).pow(2) / scale).mean()


# ------------------------------------------------------------------ as the official code has them


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
    weights: MaskLossWeights = MaskLossWeights(),
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
