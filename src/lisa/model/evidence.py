"""What is known about questions before they are answered: recalled, seen and said, and where.

The one place where strings, pictures and ``Recall`` meet. This file knows in which order the parts
are asked; it refuses to know how their answers are weighed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lisa.model.nano import ImageFeatures, NanoDecoder
from lisa.model.processor import LisaProcessor, pad
from lisa.model.recall import Evidence, Recall
from lisa.model.vlm import NanoVlm, Prefix


@torch.no_grad()
def collect(
    vlm: NanoVlm,
    processor: LisaProcessor,
    prefix: Prefix,
    rows: Tensor,
    questions: Sequence[str],
    seen: Tensor,
    answers: Sequence[str],
) -> Evidence:
    """The evidence for the answer to each question.

    Args:
        vlm: of a model with recall.
        processor: of that model.
        prefix: the pictures.
        rows: [N] which picture each question is about.
        questions: N of them.
        seen: [N, K, SEEN] in each question's picture.
        answers: what would be said for each of the K names.
    """
    recall = vlm.recall
    assert isinstance(recall, Recall)
    ids = pad([processor.recall_ids(question) for question in questions], -1).to(rows.device)
    recalled = recall(*vlm.read_alone(ids))
    asked = [processor.question_ids(question) for question in questions]
    names = recall.shortlist(recalled, seen)
    possible = [
        [processor.answer_ids(answers[name])[:-1] for name in row]  # without the end
        for row in names.tolist()
    ]
    return Evidence(recalled, seen, names, vlm.likelihoods(prefix, rows, asked, possible))


@torch.no_grad()
def gains(decoder: NanoDecoder, features: ImageFeatures, prompts: Tensor, rows: Tensor) -> Tensor:
    """How good the mask of one name is where another is meant, [N, R, R], as ``Recall.choose`` has.

    Args:
        decoder: of a model with recall.
        features: of the pictures.
        prompts: [N, R, P] of the names that are possible answers to each question.
        rows: [N] which picture each question is about.
    """
    count = prompts.shape[1]
    found = decoder.decode(features, prompts.flatten(0, 1), rows.repeat_interleave(count))
    masks = (found.low_res_masks > 0).flatten(1).unflatten(0, (-1, count)).float()
    common = masks @ masks.mT  # [N, R, R] pixels
    areas = masks.sum(2)
    either = areas[:, :, None] + areas[:, None] - common
    overlaps = torch.where(either > 0, common / either.clamp(min=1), torch.eye(count).to(common))
    return found.iou_logits.sigmoid().unflatten(0, (-1, count))[..., None] * overlaps
