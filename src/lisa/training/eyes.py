"""Stage "eyes": the mask decoder learns to find things by name; the language model's layers rest.

First from words alone (which ImageNet classes is "cat" true of?), then from photographs with masks.
The tower stays as ImageNet left it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lisa.data.imagenet import imagenet_classes, word_table
from lisa.data.knowledge import things
from lisa.data.mixture import Photos
from lisa.data.photos import crop, whole
from lisa.data.prompts import other_words
from lisa.data.tasks import eye_examples
from lisa.example import Example
from lisa.model.interfaces import Batch
from lisa.model.lisa import LisaModel
from lisa.model.nano import HERE_BIAS
from lisa.model.processor import LisaProcessor, pad
from lisa.training.loop import Losses, Task, warm_up
from lisa.training.loss import MaskLossWeights, mask_loss, soft_iou


class EyesTask(Task):
    """Masks of named things."""

    def __init__(self, model: LisaModel, weights: MaskLossWeights | None = None) -> None:
        decoder = model.decoder
        parts = [child for name, child in decoder.named_children() if name != "tower"]
        super().__init__(model, [*parts, decoder.output_tokens, model.vlm.projector.name_prompt])
        self.weights = weights or MaskLossWeights()

    def forward(self, batch: Batch) -> Losses:
        assert batch.masks is not None
        return mask_loss(self.model.segment_phrases(batch), batch.masks, self.weights)


def learn_words(model: LisaModel, processor: LisaProcessor, steps: int = 150) -> float:
    """Teach prompts and semantic keys what is what: "cat" is true of "tabby", not of "tub"."""
    classes = imagenet_classes()
    words, table = word_table(classes)
    phrase_ids = pad([processor.phrase_ids(word) for word in words], -1)
    truth = torch.from_numpy(table).float()
    keys = model.decoder.neck.semantic_keys
    names = model.vlm.projector.name_prompt
    embeddings = model.vlm.name_embeddings(phrase_ids).detach()

    def loss() -> Tensor:
        scores = keys(torch.eye(len(classes)))  # [1000, P]
        logits = names(embeddings) @ scores.T / math.sqrt(scores.shape[1]) + HERE_BIAS
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / len(words)

    names.requires_grad_(True)
    keys.requires_grad_(True)
    return warm_up([*names.parameters(), *keys.parameters()], loss, steps, 2e-3)


def eyes_stream(
    photos: Photos, side: int, count: int = 4
) -> Callable[[np.random.Generator], list[Example]]:
    """A maker of samples: one view of one photograph, ``count`` names."""

    known, kinds = things(), other_words()
    synonyms = {
        name: (*(known[name].synonyms if name in known else ()), *kinds.get(name, ()))
        for name in known.keys() | kinds.keys()
    }

    def make(random: np.random.Generator) -> list[Example]:
        return eye_examples(photos.draw(random, side), random, count, synonyms)

    return make


def held_out_rows(root: Path, side: int, per_source: int = 12) -> dict[str, list[list[Example]]]:
    """Whole held-out photographs of each source; all their names and some absent ones are asked."""
    photos = Photos(root, "held-out")
    random = np.random.default_rng(0)
    rows: dict[str, list[list[Example]]] = {}
    for name, folder in photos.folders.items():
        scenes = [
            crop(folder[n], whole(folder[n]), side) for n in range(min(per_source, len(folder)))
        ]
        made = [eye_examples(scene, random, 8, {}) for scene in scenes]
        rows[name] = [row for row in made if row]
    return rows


@torch.no_grad()
def iou_by_name(
    model: LisaModel, processor: LisaProcessor, rows: Mapping[str, Sequence[Sequence[Example]]]
) -> dict[str, float]:
    """Mean IoU of present names by source and over all; the share of absent names refused."""
    present: dict[str, list[float]] = {}
    absent: list[float] = []
    for source, examples in rows.items():
        for row in examples:
            batch = processor.encode(row).to(model.device)
            decoded = model.segment_phrases(batch)
            assert batch.masks is not None and batch.present is not None
            ious = soft_iou(decoded.low_res_masks, batch.masks)
            empty = (decoded.low_res_masks > 0).flatten(1).sum(1) == 0
            present.setdefault(source, []).extend(ious[batch.present].tolist())
            absent += empty[~batch.present].float().tolist()
    scores = {f"val_iou_{source}": float(np.mean(ious)) for source, ious in present.items() if ious}
    return {
        **scores,
        "val_iou": float(np.mean(list(scores.values()))),
        "val_absent": float(np.mean(absent or [0.0])),
    }
