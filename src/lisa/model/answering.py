"""The paper's model behind the contract of ``lisa.predict``.

Images and questions go in, text and masks come out. This file knows the order of
the model's steps; it refuses to know where an image came from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from lisa.example import Asked
from lisa.masks import Mask
from lisa.model.interfaces import Generated, Processor
from lisa.model.lisa import EncodedImages, LisaModel
from lisa.result import Reply


class ModelAnswering:
    """A model with its processor.

    Args:
        model: in evaluation mode, on its device.
        processor: of that model.
    """

    def __init__(self, model: LisaModel, processor: Processor) -> None:
        self.model, self.processor = model, processor

    def encode(self, images: Sequence[Image.Image]) -> EncodedImages:
        """The images as the model keeps them."""
        encoded = self.processor.encode_pictures(images)
        return self.model.encode_images(encoded.to(self.model.device))

    def answer(
        self, kept: EncodedImages, images: Sequence[Image.Image], asked: Sequence[Asked]
    ) -> list[Reply]:
        """Text and masks of each question."""
        generated = self.generate(kept, asked)
        return [
            timed_reply(self.decode, one, images[question.image_index])
            for one, question in zip(generated, asked, strict=True)
        ]

    def generate(self, kept: EncodedImages, asked: Sequence[Asked]) -> list[Generated]:
        """What the model says and points at."""
        return self.model.generate(
            kept,
            [self.processor.question_ids(one.question) for one in asked],
            [one.image_index for one in asked],
            end_token_id=self.processor.end_token_id,
            max_new_tokens=self.processor.max_new_tokens,
            answers=[
                None if one.answer is None else self.processor.answer_ids(one.answer)
                for one in asked
            ],
        )

    def decode(self, answer: Generated, image: Image.Image) -> tuple[str, tuple[Mask, ...]]:
        """An answer's text and masks."""
        return self.processor.decode(answer, (image.height, image.width))


def timed_reply(decode: Callable[..., tuple[str, tuple[Mask, ...]]], *answer: Any) -> Reply:
    """What ``decode`` makes of an answer, and how long that took."""
    started = time.perf_counter()
    text, masks = decode(*answer)
    return Reply(text, masks, time.perf_counter() - started)
