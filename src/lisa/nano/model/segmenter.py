"""The embedded model behind the contract of ``lisa.predict``.

A question is compared with the names that are known; the one whose mask is expected to be best is
the answer that the model reads. Each mask is looked at once more, from closer by. This file knows
the order of these steps; it refuses to know how each is done.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lisa.checkpoints.directory import Processor, build
from lisa.checkpoints.precision import DEFAULT, Precision
from lisa.data.prompts import present_answer
from lisa.errors import ModelError
from lisa.example import SEG_TOKEN, Asked
from lisa.masks import Mask
from lisa.model.answering import ModelAnswering, timed_reply
from lisa.model.interfaces import DecodedMasks, Generated
from lisa.model.lisa import EncodedImages, LisaModel
from lisa.nano.model.candidates import collect, first_pass, gains
from lisa.nano.model.decoder import ImageFeatures
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.model.retriever import Choice
from lisa.nano.model.zoom import fuse_views, main_pieces, zoom_box
from lisa.predict import Segmenter
from lisa.result import Reply

LEAST_CERTAINTY = 1e-6


class NanoAnswering(ModelAnswering):
    """The embedded model with its processor."""

    model: NanoModel
    processor: LisaProcessor

    @cached_property
    def answers(self) -> list[str]:
        """What is said about each known name."""
        return [present_answer(name) for name in self.processor.config.recall_names]

    def answer(
        self, kept: EncodedImages, images: Sequence[Image.Image], asked: Sequence[Asked]
    ) -> list[Reply]:
        """Text and masks of each question; open ones are answered with a known name if one fits."""
        choices = self.retrieve(kept, asked)
        read = [self.with_choice(one, choice) for one, choice in zip(asked, choices, strict=True)]
        generated = self.generate(kept, read)
        return [
            timed_reply(self.decode_chosen, answer, images[one.image_index], choice)
            for answer, one, choice in zip(generated, asked, choices, strict=True)
        ]

    @torch.inference_mode()
    def retrieve(self, kept: EncodedImages, asked: Sequence[Asked]) -> list[Choice | None]:
        """The known name that answers each question; None: it is given an answer, or none fits."""
        found: list[Choice | None] = [None] * len(asked)
        open_ones = [n for n, one in enumerate(asked) if one.answer is None]
        recall, features = self.model.vlm.recall, kept.features
        if recall is None or not open_ones:
            return found
        assert isinstance(features, ImageFeatures)
        rows = torch.tensor([asked[n].image_index for n in open_ones], device=self.model.device)
        first = first_pass(
            self.model.vlm,
            self.processor,
            kept.prefix,
            rows,
            [asked[n].question for n in open_ones],
            recall.look(features.keys)[rows],
            self.answers,
        )
        evidence = collect(self.model.vlm, first)
        prompts = recall.prompts[evidence.names]
        masks = gains(self.model.decoder, features, prompts, rows)
        for n, choice in zip(open_ones, recall.choose(evidence, masks), strict=True):
            found[n] = choice
        return found

    def with_choice(self, asked: Asked, choice: Choice | None) -> Asked:
        """A question with the answer that was chosen for it."""
        if choice is None:
            return asked
        return replace(asked, answer=f"{self.answers[choice.name]} {SEG_TOKEN}")

    def decode_chosen(
        self, answer: Generated, image: Image.Image, choice: Choice | None
    ) -> tuple[str, tuple[Mask, ...]]:
        """An answer's text and masks, each refined by a look from closer by.

        An answer that was chosen is about one thing: small pieces beside it are dropped.
        """
        certainty = 1.0 if choice is None else choice.certainty
        answer = replace(answer, masks=scale_confidence(answer.masks, certainty))
        text, masks = self.decode(answer, image)
        views = zip(masks, answer.masks.low_res_masks, answer.prompts, strict=True)
        closer = [self.look_closer(image, *view, certainty) for view in views]
        return text, tuple(closer if choice is None else map(main_components, closer))

    @torch.inference_mode()
    def look_closer(
        self, image: Image.Image, mask: Mask, whole: Tensor, prompt: Tensor, certainty: float
    ) -> Mask:
        """The mask refined by what its prompt finds in the part of the image around it."""
        box = zoom_box(mask.mask)
        if box is None:
            return mask
        pixels = self.processor.encode_pictures([image.crop(box)]).pixel_values
        decoder = self.model.decoder
        row = torch.zeros(1, dtype=torch.long, device=self.model.device)
        seen = decoder.decode(decoder.encode_image(pixels.to(self.model.device)), prompt[None], row)
        seen = scale_confidence(seen, certainty)
        (score,) = self.processor.scores(seen.iou_logits)
        left, top, right, bottom = box
        both = fuse_views(whole, seen.low_res_masks[0], box, (image.height, image.width))
        full = np.zeros_like(mask.mask)
        full[top:bottom, left:right] = self.processor.decode_mask(
            both, (bottom - top, right - left)
        )
        return Mask(full, mask.phrase, (mask.score + score) / 2)


def main_components(mask: Mask) -> Mask:
    """The mask without the pieces that are small beside its largest one."""
    return replace(mask, mask=main_pieces(mask.mask))


def scale_confidence(masks: DecodedMasks, certainty: float) -> DecodedMasks:
    """The same masks, their expected IoU multiplied by a certainty in (0, 1]."""
    if certainty >= 1.0:
        return masks
    expected = F.logsigmoid(masks.iou_logits) + math.log(max(certainty, LEAST_CERTAINTY))
    return replace(masks, iou_logits=expected - torch.log1p(-expected.exp()))


def answering(model: LisaModel, processor: Processor) -> ModelAnswering:
    """A model of either kind behind the contract of ``lisa.predict``."""
    if isinstance(processor, LisaProcessor) and isinstance(model, NanoModel):
        return NanoAnswering(model, processor)
    return ModelAnswering(model, processor)


def load(model: str | Path, device: str | None = None, precision: Precision = DEFAULT) -> Segmenter:
    """A model directory, or "nano", as what answers; as ``lisa.load`` has it.

    Raises:
        ModelError: as ``build``.
    """
    started = time.perf_counter()
    answers = answering(*build(model, device, precision))
    return Segmenter(answers, name=str(model), load_seconds=time.perf_counter() - started)


def nano_answering(segmenter: Segmenter) -> NanoAnswering:
    """What answers behind a nano model: only its parts can be taken away one by one.

    Raises:
        ModelError: the model is of full size.
    """
    if not isinstance(segmenter.answering, NanoAnswering):
        raise ModelError(f"model '{segmenter.name}' is of full size; expected a nano model")
    return segmenter.answering


def nano_parts(segmenter: Segmenter) -> tuple[NanoModel, LisaProcessor]:
    """Model and processor of a nano model; raises as ``nano_answering``."""
    answering = nano_answering(segmenter)
    return answering.model, answering.processor
