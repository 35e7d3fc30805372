"""Stage "eyes": the mask decoder learns to find things by name; the language model's layers rest.

First from words alone (which ImageNet classes is "cat" true of?), then from photographs with masks.
The tower stays as ImageNet left it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lisa.data.regions import Scene, Target, example, pick
from lisa.example import Example
from lisa.model.interfaces import Batch
from lisa.nano.data.imagenet import imagenet_classes, word_table, words_of_labels
from lisa.nano.data.knowledge import things
from lisa.nano.data.photos import LabelledPhotos, PhotoFolder, labelled_folders
from lisa.nano.data.prompts import other_words
from lisa.nano.data.questions import eye_examples, label_example
from lisa.nano.data.sources import Photos
from lisa.nano.data.views import augment, crop, crop_box, recolour, whole
from lisa.nano.model.decoder import PRIOR_BIAS, location_logits
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor, pad
from lisa.nano.training.losses import (
    MaskLossWeights,
    absent_loss,
    mask_loss,
    mil_loss,
    soft_iou,
)
from lisa.nano.training.stage import warm_up
from lisa.training.loop import Losses, Task

DECODED_ABSENT = 16  # one absent name in so many gets a mask, the others are only denied
LABELLED_SHARE = 0.12  # of photographs that have a label and no mask
COMPOSED = 1.75  # times larger than a view is a composite scene at most: larger than when asked
PSEUDO_SHARE = 0.2  # of the other photographs have a mask that the eyes found
TRUE_WORDS = 3  # of a label: its names and the closest kinds
SOMEWHERE_WEIGHT, WORDS_WEIGHT = 0.2, 0.1
WORDS_REHEARSED = 256  # a step


class EyesTask(Task):
    """Masks of named things; names that are known not to be there are denied at every place."""

    model: NanoModel

    words: WordTable | None = None  # what must not be forgotten while photographs are learnt

    def __init__(self, model: NanoModel, weights: MaskLossWeights | None = None) -> None:
        decoder = model.decoder
        parts = [child for name, child in decoder.named_children() if name != "tower"]
        super().__init__(model, [*parts, decoder.output_tokens, model.vlm.projector.name_prompt])
        self.weights = weights or MaskLossWeights()

    def forward(self, batch: Batch) -> Losses:
        assert batch.masks is not None and batch.present is not None and batch.known is not None
        assert batch.phrase_ids is not None and batch.image_index is not None
        features = self.model.decoder.encode_image(batch.pixel_values)
        prompts = self.model.phrase_prompts(batch.phrase_ids)  # [N, P]
        unmasked = ~(batch.present & batch.known)
        everywhere = location_logits(
            features.keys, prompts[unmasked].expand(len(features.keys), -1, -1)
        )  # [B, U, h, w]
        here = everywhere[batch.image_index[unmasked], torch.arange(everywhere.shape[1])]
        present = batch.present[unmasked]
        some = worth_a_mask(batch.present, batch.known)
        decoded = self.model.decoder.decode(features, prompts[some], batch.image_index[some])
        losses = mask_loss(decoded, batch.masks[some], self.weights)
        losses["denied"] = self.weights.here * absent_loss(here[~present])
        losses["somewhere"] = SOMEWHERE_WEIGHT * mil_loss(here[present])
        if self.words:
            losses["words"] = WORDS_WEIGHT * self.words.loss(self.model, WORDS_REHEARSED)
        return losses


def worth_a_mask(present: Tensor, known: Tensor) -> Tensor:
    """Which of N targets are decoded, bool [N]: all with a mask, and some that are not there."""
    absent = ~present & ((~present).cumsum(0) % DECODED_ABSENT == 1)
    return present & known | absent


@dataclass(frozen=True)
class WordTable:
    """Which ImageNet classes a word is true of."""

    embeddings: Tensor  # [W, H] mean input embedding of each word
    truth: Tensor  # [W, 1000] 1 where the word is true of the class

    @classmethod
    def of(cls, model: NanoModel, processor: LisaProcessor) -> WordTable:
        """The table of all words in WordNet's names and kinds of the classes."""
        words, table = word_table(imagenet_classes())
        phrase_ids = pad([processor.phrase_ids(word) for word in words], -1).to(model.device)
        embeddings = model.vlm.name_embeddings(phrase_ids).detach()
        return cls(embeddings, torch.from_numpy(table).float().to(model.device))

    def loss(self, model: NanoModel, count: int | None = None) -> Tensor:
        """Binary cross-entropy a word, of ``count`` random words or all."""
        some = torch.randperm(len(self.truth), device=self.truth.device)[:count]
        scores = model.decoder.neck.semantic_keys.weight.T  # [1000, P/2]
        known = model.vlm.projector.name_prompt(self.embeddings[some]).chunk(2, -1)[1]
        logits = known @ scores.T / math.sqrt(scores.shape[1]) + PRIOR_BIAS
        wrong = F.binary_cross_entropy_with_logits(logits, self.truth[some], reduction="sum")
        return wrong / len(some)


def learn_words(model: NanoModel, table: WordTable, steps: int = 200) -> float:
    """Teach prompts and semantic keys what is what: "cat" is true of "tabby", not of "tub"."""
    keys, names = model.decoder.neck.semantic_keys, model.vlm.projector.name_prompt
    names.requires_grad_(True)
    keys.requires_grad_(True)
    parameters = [*names.parameters(), *keys.parameters()]
    return warm_up(parameters, lambda: table.loss(model), steps, 2e-3)


def eyes_stream(
    root: Path,
    photos: Photos,
    side: int,
    count: int,
    missing: int,
    pseudo: PhotoFolder | None = None,
) -> Callable[[np.random.Generator], list[Example]]:
    """A maker of samples: a view of a photograph, names that are there, some that are not.

    Some photographs have a label and no mask: what it names is somewhere. Some have a mask that
    the eyes found themselves (``pseudo``).

    ``count`` and ``missing`` are those of ``eye_examples``.
    """

    known, kinds = things(), other_words()
    synonyms = {
        name: (*(known[name].synonyms if name in known else ()), *kinds.get(name, ()))
        for name in known.keys() | kinds.keys()
    }

    labelled = labelled_folders(root)
    classes = words_of_labels()

    def make(random: np.random.Generator) -> list[Example]:
        if labelled and random.random() < LABELLED_SHARE:
            folder = labelled[int(random.integers(len(labelled)))]
            return labelled_names(folder, classes, random, side, missing)
        if pseudo and random.random() < PSEUDO_SHARE:
            scene = pseudo_view(pseudo, random, side, photos.cutouts)
            return eye_examples(scene, random, count, classes, missing)
        scene = photos.draw(random, side, COMPOSED)
        return eye_examples(scene, random, count, synonyms, missing)

    return make


def pseudo_view(
    pseudo: PhotoFolder,
    random: np.random.Generator,
    side: int,
    cutouts: Sequence[tuple[np.ndarray, str]],
) -> Scene:
    """A view of a photograph whose mask the eyes found; most other such names are not there."""
    scene = pseudo[int(random.integers(len(pseudo)))]
    true = {word for name in scene.names for word in words_of_labels().get(name, ())}
    others = tuple(name for name in pseudo.names.values() if name not in true)
    return augment(replace(scene, elsewhere=others), random, side=side, cutouts=cutouts)


def labelled_names(
    folder: LabelledPhotos,
    classes: Mapping[str, tuple[str, ...]],
    random: np.random.Generator,
    side: int,
    missing: int,
) -> list[Example]:
    """Words that are true of a whole photograph, and ``missing`` labels that are not."""
    pixels, label = folder[int(random.integers(len(folder)))]
    true = classes.get(label.lower(), (label.lower(),))
    scene = Scene(recolour(pixels, random), (), (), False)
    square = crop(scene, crop_box(scene, random), side)
    image = Image.fromarray(np.ascontiguousarray(square.image))
    false = [name for name in pick(list(classes), missing, random) if name not in true]
    nothing = np.zeros((side, side), bool)
    return [
        *(label_example(image, word, word) for word in pick(true[:TRUE_WORDS], 2, random)),
        *(example(image, name, Target(name, nothing)) for name in false),
    ]


def held_out_rows(root: Path, side: int, per_source: int = 12) -> dict[str, list[list[Example]]]:
    """Whole held-out photographs of each source; all their names and some absent ones are asked."""
    photos = Photos(root, "held-out")
    random = np.random.default_rng(0)
    rows: dict[str, list[list[Example]]] = {}
    for name, folder in photos.folders.items():
        scenes = [
            crop(folder[n], whole(folder[n]), side) for n in range(min(per_source, len(folder)))
        ]
        made = [eye_examples(scene, random, 7, {}, 2) for scene in scenes]
        rows[name] = [row for row in made if row]
    return rows


@torch.no_grad()
def iou_by_name(
    model: NanoModel, processor: LisaProcessor, rows: Mapping[str, Sequence[Sequence[Example]]]
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
