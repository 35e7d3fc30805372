"""Controls: what is left of an answer when a part of the model, or the question, is taken away.

Each answers as the model does, so that ``evaluate`` can measure it. This file knows the model's
parts and how to leave them out; it refuses to know data sets and scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lisa.example import Asked
from lisa.masks import Mask
from lisa.model.interfaces import Generated
from lisa.model.lisa import EncodedImages
from lisa.nano.model.decoder import ImageFeatures
from lisa.nano.model.processor import pad
from lisa.nano.model.projector import SemanticProjector, mean_embeddings
from lisa.nano.model.segmenter import NanoAnswering, nano_parts
from lisa.predict import Segmenter
from lisa.result import Result

ELLIPSE = 0.6  # of the picture's sides


class CentreEllipse:
    """Sees nothing and reads nothing: an ellipse in the middle, as large as things often are."""

    name = "centre ellipse"

    def segment(self, image: Image.Image, question: str, *, answer: str | None = None) -> Result:
        """The same place in every picture."""
        y, x = (np.linspace(-1, 1, length) / ELLIPSE for length in (image.height, image.width))
        mask = y[:, None] ** 2 + x**2 <= 1
        return Result(image, question, "", (Mask(mask, "", 0.0),))


class LargestThing:
    """Reads nothing: the largest of the things that the eyes find surest, by their names.

    Args:
        segmenter: whose eyes are used.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.model, self.processor = nano_parts(segmenter)
        self.name = f"{segmenter.name}, largest thing"

    @torch.inference_mode()
    def segment(self, image: Image.Image, question: str, *, answer: str | None = None) -> Result:
        """The largest thing of the picture, whatever is asked."""
        pixels = self.processor.encode_images([image]).to(self.model.device)
        features = self.model.decoder.encode_image(pixels)
        prompts = self.surest_prompts(features)
        rows = torch.zeros(len(prompts), dtype=torch.long, device=prompts.device)
        decoded = self.model.decoder.decode(features, prompts, rows)
        areas = (decoded.low_res_masks > 0).flatten(1).sum(1)
        largest = int(areas.argmax())
        mask = self.processor.decode_mask(
            decoded.low_res_masks[largest], (image.height, image.width)
        )
        (score,) = self.processor.scores(decoded.iou_logits[largest, None])
        return Result(image, question, "", (Mask(mask, "", score),))

    def surest_prompts(self, features: ImageFeatures) -> Tensor:
        """Prompts [N, P] of the concepts with the highest peaks in the picture."""
        projector, embed = self.model.vlm.projector, self.model.vlm.embed
        concepts = mean_embeddings(embed, projector.concept_ids)
        peaks = projector.concept_probabilities(features, concepts).flatten(2).amax(2)[0]
        surest = peaks.topk(min(max(1, projector.found[0]), len(peaks))).indices
        return projector.name_prompt(concepts[surest])


class WithoutLanguageModel(NanoAnswering):
    """The mean of the question's token embeddings takes the place of the ``[SEG]`` state.

    The same eyes and decoder, and the prompt that a name of these tokens would have.
    """

    @torch.inference_mode()
    def generate(self, kept: EncodedImages, asked: Sequence[Asked]) -> list[Generated]:
        device, processor = self.model.device, self.processor
        ids = pad([processor.phrase_ids(one.question) for one in asked], -1).to(device)
        prompts = self.model.phrase_prompts(ids)
        rows = torch.tensor([one.image_index for one in asked], device=device)
        masks = self.model.decoder.decode(kept.features, prompts, rows)
        seg = processor.config.seg_token_id
        each = torch.arange(len(asked), device=device).split(1)
        return [Generated([seg], masks.select(one), prompts[one]) for one in each]


class WithoutNames(NanoAnswering):
    """The language model sees the picture without the names that the eyes find in it."""

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> EncodedImages:
        encoded = self.processor.encode_pictures(images).to(self.model.device)
        features = self.model.decoder.encode_image(encoded.pixel_values)
        visual = nameless(self.model.vlm.projector, features)
        return EncodedImages(features, self.model.vlm.keep(encoded, visual))


def nameless(projector: SemanticProjector, features: ImageFeatures) -> Tensor:
    """Visual tokens [B, V, H] with named places and found names zeroed: what is left is learnt."""
    learned = projector.learned(features.context.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return F.pad(projector.place_tokens(learned), (0, 0, 0, projector.found_tokens))
