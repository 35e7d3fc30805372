"""``Segmenter``: a picture and a question go in, a ``Result`` comes out.

The one road to an answer: the command line, evaluation and the server all go through it. A picture
is encoded once, however many questions follow. This file knows the order of the steps; it refuses
to know what the model is made of.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lisa.checkpoints.directory import EMBEDDED, Processor, build
from lisa.checkpoints.precision import DeviceMap, Precision
from lisa.data.prompts import present_answer
from lisa.errors import LisaError, QuestionError
from lisa.example import SEG_TOKEN, check_question
from lisa.image import ImageSource, load_image
from lisa.masks import Mask
from lisa.model.interfaces import DecodedMasks, Generated
from lisa.model.lisa import EncodedImages, LisaModel
from lisa.nano.model.candidates import collect, gains, glimpse
from lisa.nano.model.decoder import ImageFeatures
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.model.zoom import both_views, closer_box, main_pieces
from lisa.result import Result

REMEMBERED_IMAGES = 4
BATCH_SIZE = 8  # questions side by side
LEAST_CERTAINTY = 1e-6
STRIP_PIXELS = 2**22  # of a picture that are copied at once to tell it from others

Item = TypeVar("Item")


@dataclass(frozen=True)
class Picture:
    """A picture and where it came from."""

    image: Image.Image  # RGB
    name: str


@dataclass(frozen=True)
class Asked:
    """One question on its way."""

    image_index: int  # which of the pictures it is about
    question: str
    answer: str | None  # read this one instead of generating
    certainty: float | None = None  # that a recalled answer is about what is meant


class Segmenter:
    """Answers questions about pictures with text and masks.

    Args:
        model: in evaluation mode, on its device. Its weights must not change afterwards: pictures
            that have been encoded are remembered.
        processor: of that model.
        name: what results call the model.
        load_seconds: how long loading took, for ``Result.timings``.
    """

    def __init__(
        self, model: LisaModel, processor: Processor, name: str = "", load_seconds: float = 0.0
    ) -> None:
        self.model, self.processor, self.name = model, processor, name
        self.load_seconds = load_seconds
        self._remembered: OrderedDict[str, EncodedImages] = OrderedDict()

    # A str is a sequence of str, too; the first overload that fits is the one that counts.
    @overload
    def segment(  # type: ignore[overload-overlap]
        self, image: ImageSource, question: str, *, answer: str | None = None
    ) -> Result: ...
    @overload
    def segment(
        self, image: ImageSource, question: Sequence[str], *, answer: str | None = None
    ) -> list[Result]: ...
    def segment(
        self, image: ImageSource, question: str | Sequence[str], *, answer: str | None = None
    ) -> Result | list[Result]:
        """Answer one question, or several, about one picture.

        Args:
            image: a path, the bytes of a picture file, a PIL picture, or an array (``load_image``).
            question: one question gives one result, a sequence gives a list.
            answer: do not generate, read this one (the paper's teacher-forced protocol: "[SEG].").

        Returns:
            Results with masks at the picture's own size. No ``[SEG]`` in the answer: no mask.

        Raises:
            ImageError: the picture cannot be read.
            QuestionError: the question cannot be asked, or the answer cannot be read.
        """
        several = isinstance(question, Sequence) and not isinstance(question, str | bytes)
        questions = question if several else [question]
        asked = [ask(0, one, answer) for one in questions]
        results = self._run([read(image)], asked)
        return results if several else results[0]

    def segment_batch(
        self,
        pairs: Sequence[tuple[ImageSource, str]],
        *,
        answers: Sequence[str | None] | None = None,
    ) -> list[Result]:
        """Answer many questions, each about its own picture, ``BATCH_SIZE`` side by side.

        Args:
            pairs: pictures and questions.
            answers: for each pair, None or an answer to read instead of generating.

        Raises:
            LisaError: there are not as many answers as pairs.
            ImageError, QuestionError: as ``segment``; all questions are looked at first.
        """
        given = list(answers) if answers is not None else [None] * len(pairs)
        if len(given) != len(pairs):
            raise LisaError(
                f"answers has {len(given)} entries; expected {len(pairs)}, one for each pair"
            )
        asked = [
            ask(number % BATCH_SIZE, question, answer)
            for number, ((_, question), answer) in enumerate(zip(pairs, given, strict=True))
        ]
        results: list[Result] = []
        for some_pairs, questions in zip(parts(pairs), parts(asked), strict=True):
            results += self._run([read(source) for source, _ in some_pairs], questions)
        return results

    def chat(self, image: ImageSource) -> Chat:
        """A conversation about one picture, which is encoded once."""
        picture = read(image)
        return Chat(self, picture.image, picture.name)

    def _run(self, pictures: Sequence[Picture], asked: Sequence[Asked]) -> list[Result]:
        """Encode the pictures, then ask; all questions share the time for the pictures."""
        if not asked:
            return []
        started = time.perf_counter()
        images = self._encode([picture.image for picture in pictures])
        seconds = (time.perf_counter() - started) / len(asked)
        answered = [self._answer(pictures, images, part, seconds) for part in parts(asked)]
        return list(chain.from_iterable(answered))

    def _answer(
        self,
        pictures: Sequence[Picture],
        images: EncodedImages,
        asked: Sequence[Asked],
        image_seconds: float,
    ) -> list[Result]:
        """Answer at most ``BATCH_SIZE`` questions side by side."""
        started = time.perf_counter()
        asked = self._recall(images, asked)
        generated = self._generate(images, asked)
        answered = time.perf_counter()
        pictured = [pictures[one.image_index] for one in asked]
        decoded = [
            self._decode(answer, picture.image, one.certainty)
            for answer, picture, one in zip(generated, pictured, asked, strict=True)
        ]
        timings = {
            "load": self.load_seconds,
            "image": image_seconds,
            "answer": (answered - started) / len(asked),
            "mask": (time.perf_counter() - answered) / len(asked),
        }
        return [
            Result(
                picture.image,
                one.question,
                text,
                masks,
                name=picture.name,
                model=self.name,
                timings=timings,
            )
            for picture, one, (text, masks) in zip(pictured, asked, decoded, strict=True)
        ]

    def _generate(self, images: EncodedImages, asked: Sequence[Asked]) -> list[Generated]:
        """What the model says and points at."""
        return self.model.generate(
            images,
            [self.processor.question_ids(one.question) for one in asked],
            [one.image_index for one in asked],
            end_token_id=self.processor.end_token_id,
            max_new_tokens=self.processor.max_new_tokens,
            answers=[
                None if one.answer is None else self.processor.answer_ids(one.answer)
                for one in asked
            ],
        )

    @torch.inference_mode()
    def _recall(self, images: EncodedImages, asked: Sequence[Asked]) -> list[Asked]:
        """Questions whose answer can be recalled come back with it; the model reads it then."""
        recall, features = getattr(self.model.vlm, "recall", None), images.features
        open_ones = [n for n, one in enumerate(asked) if one.answer is None]
        found = list(asked)
        if recall is None or not open_ones:
            return found
        assert isinstance(self.processor, LisaProcessor) and isinstance(features, ImageFeatures)
        rows = torch.tensor([asked[n].image_index for n in open_ones], device=self.model.device)
        answers = list(map(present_answer, self.processor.config.recall_names))
        first = glimpse(
            self.model.vlm,
            self.processor,
            images.prefix,
            rows,
            [asked[n].question for n in open_ones],
            recall.look(features.keys)[rows],
            answers,
        )
        evidence = collect(self.model.vlm, first)
        decoder, prompts = self.model.decoder, recall.prompts[evidence.names]
        choices = recall.choose(evidence, gains(decoder, features, prompts, rows))
        for n, choice in zip(open_ones, choices, strict=True):
            if choice is not None:
                answer = f"{answers[choice.name]} {SEG_TOKEN}"
                found[n] = replace(asked[n], answer=answer, certainty=choice.certainty)
        return found

    def _decode(
        self, answer: Generated, picture: Image.Image, certainty: float | None
    ) -> tuple[str, tuple[Mask, ...]]:
        """An answer's text and masks; each mask is looked at once more, from closer by.

        A question that took recalling is about one thing: small pieces beside it are dropped.
        """
        sure = 1.0 if certainty is None else certainty
        answer = replace(answer, masks=less_sure(answer.masks, sure))
        text, masks = self.processor.decode(answer, (picture.height, picture.width))
        if self.processor.looks_closer:
            views = zip(masks, answer.masks.low_res_masks, answer.prompts, strict=True)
            masks = tuple(self._look_closer(picture, *view, sure) for view in views)
        return text, masks if certainty is None else tuple(map(one_thing, masks))

    @torch.inference_mode()
    def _look_closer(
        self, picture: Image.Image, mask: Mask, whole: Tensor, prompt: Tensor, certainty: float
    ) -> Mask:
        """The mask refined by what its prompt finds in the part of the picture around it."""
        assert isinstance(self.processor, LisaProcessor)  # it says that it looks closer
        box = closer_box(mask.mask)
        if box is None:
            return mask
        pixels = self.processor.encode_pictures([picture.crop(box)]).pixel_values
        decoder = self.model.decoder
        row = torch.zeros(1, dtype=torch.long, device=self.model.device)
        seen = decoder.decode(decoder.encode_image(pixels.to(self.model.device)), prompt[None], row)
        seen = less_sure(seen, certainty)
        (score,) = self.processor.scores(seen.iou_logits)
        left, top, right, bottom = box
        both = both_views(whole, seen.low_res_masks[0], box, (picture.height, picture.width))
        full = np.zeros_like(mask.mask)
        full[top:bottom, left:right] = self.processor.decode_mask(
            both, (bottom - top, right - left)
        )
        return Mask(full, mask.phrase, (mask.score + score) / 2)

    def _encode(self, pictures: Sequence[Image.Image]) -> EncodedImages:
        """The pictures as the model keeps them; a single one is kept for the next question."""
        if len(pictures) > 1:
            return self._run_encoder(pictures)
        key = fingerprint(pictures[0])
        if key not in self._remembered:
            self._remembered[key] = self._run_encoder(pictures)
        self._remembered.move_to_end(key)
        while len(self._remembered) > REMEMBERED_IMAGES:
            self._remembered.popitem(last=False)
        return self._remembered[key]

    def _run_encoder(self, pictures: Sequence[Image.Image]) -> EncodedImages:
        encoded = self.processor.encode_pictures(pictures)
        return self.model.encode_images(encoded.to(self.model.device))


class Chat:
    """A conversation about one picture: ``ask``, and ``turns`` to look back on.

    Each question is answered on its own; what was said before does not change the answer, and the
    picture is encoded once.

    Args:
        segmenter: who answers.
        image: RGB.
        name: the picture's, for the results.
    """

    def __init__(self, segmenter: Segmenter, image: Image.Image, name: str = "") -> None:
        self.segmenter, self.image, self.name = segmenter, image, name
        self.turns: list[Result] = []

    def ask(self, question: str) -> Result:
        """Answer a question about the picture and keep the turn."""
        result = replace(self.segmenter.segment(self.image, question), name=self.name)
        self.turns.append(result)
        return result


def one_thing(mask: Mask) -> Mask:
    """The mask without the pieces that are small beside its largest one."""
    return replace(mask, mask=main_pieces(mask.mask))


def less_sure(masks: DecodedMasks, certainty: float) -> DecodedMasks:
    """The same masks, their expected IoU multiplied by a certainty in (0, 1]."""
    if certainty >= 1.0:
        return masks
    expected = F.logsigmoid(masks.iou_logits) + math.log(max(certainty, LEAST_CERTAINTY))
    return replace(masks, iou_logits=expected - torch.log1p(-expected.exp()))


def ask(image_index: int, question: object, answer: object) -> Asked:
    """A question that can be asked, and an answer that can be read.

    Raises:
        QuestionError: one of them is not text, or ``check_question`` says no.
    """
    if answer is not None and not isinstance(answer, str):
        raise QuestionError(f"answer is a {type(answer).__name__}; expected text (str) or None")
    try:
        (answer or "").encode("utf-8")
    except UnicodeEncodeError as error:
        raise QuestionError(
            f"answer {answer!a:.60} is not valid Unicode; expected text in UTF-8"
        ) from error
    return Asked(image_index, check_question(question), answer)


def parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """``BATCH_SIZE`` at a time."""
    for start in range(0, len(items), BATCH_SIZE):
        yield items[start : start + BATCH_SIZE]


def fingerprint(picture: Image.Image) -> str:
    """The same for the same pixels; the picture is read strip by strip."""
    width, height = picture.size
    digest = hashlib.blake2b(repr((width, height)).encode(), digest_size=16)
    step = max(1, STRIP_PIXELS // width)
    for top in range(0, height, step):
        digest.update(picture.crop((0, top, width, min(top + step, height))).tobytes())
    return digest.hexdigest()


def read(source: ImageSource) -> Picture:
    """A picture from anywhere; its name is the path of one that came as a file."""
    return Picture(load_image(source), source_name(source))


def source_name(source: ImageSource) -> str:
    """The path of a picture that came as one, or ""."""
    return os.fsdecode(source) if isinstance(source, str | os.PathLike) else ""


def load(
    model: str | Path = EMBEDDED,
    device: str | None = None,
    *,
    dtype: str | None = None,
    device_map: DeviceMap | None = None,
    quantize: str | None = None,
) -> Segmenter:
    """Load a model: ``"nano"``, the embedded one, or a directory.

    Args:
        model: name or directory.
        device: "cpu", "cuda", "cuda:1" ...; None takes a GPU if there is one.
        dtype: "float32", "bfloat16" or "float16", for models of full size.
        device_map: "auto" spreads a model of full size over the GPUs, the memory and the disk.
        quantize: "8bit" or "4bit" for the layers of a full-size language model.

    Raises:
        ModelError: no such model, damaged weights, no such device, an unknown precision, or one
            that the model cannot have.
    """
    started = time.perf_counter()
    precision = Precision(dtype=dtype, device_map=device_map, quantize=quantize)
    built, processor = build(model, device, precision)
    return Segmenter(built, processor, name=str(model), load_seconds=time.perf_counter() - started)
