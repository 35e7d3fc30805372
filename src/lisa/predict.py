"""``Segmenter``: a picture and a question go in, a ``Result`` comes out.

The one road to an answer: the command line, evaluation and the server all go through it. A picture is
encoded once, however many questions follow. This file knows the order of the steps; it refuses to
know what the model is made of.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import torch
from PIL import Image

from lisa.errors import LisaError
from lisa.example import check_question
from lisa.image import ImageSource, load_image
from lisa.model.build import EMBEDDED, build
from lisa.model.lisa import EncodedImages, LisaModel
from lisa.model.processor import LisaProcessor
from lisa.result import Result

REMEMBERED_IMAGES = 4
BATCH_SIZE = 8


class Segmenter:
    """Answers questions about pictures with text and masks.

    Args:
        model: in evaluation mode, on its device.
        processor: of that model.
        name: what results call the model.
        load_seconds: how long loading took, for ``Result.timings``.
    """

    def __init__(
        self, model: LisaModel, processor: LisaProcessor, name: str = "", load_seconds: float = 0.0
    ) -> None:
        self.model, self.processor, self.name = model, processor, name
        self.load_seconds = load_seconds
        self._remembered: OrderedDict[str, EncodedImages] = OrderedDict()

    @overload
    def segment(
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
            image: a path, the bytes of a picture file, a PIL picture, or an array (see ``load_image``).
            question: one question gives one result, a sequence gives a list.
            answer: do not generate, read this one (the paper's teacher-forced protocol: "[SEG].").

        Returns:
            Results with masks at the picture's own size. No ``[SEG]`` in the answer: no mask.

        Raises:
            ImageError, QuestionError: the picture cannot be read, the question cannot be asked.
        """
        questions = [question] if isinstance(question, str) else list(question)
        picture = load_image(image)
        names = [source_name(image)]
        results = self._ask(
            [picture], names, [(0, q) for q in questions], [answer] * len(questions)
        )
        return results[0] if isinstance(question, str) else results

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
        """
        given = list(answers) if answers is not None else [None] * len(pairs)
        if len(given) != len(pairs):
            raise LisaError(
                f"answers has {len(given)} entries; expected {len(pairs)}, one for each pair"
            )
        results: list[Result] = []
        for start in range(0, len(pairs), BATCH_SIZE):
            part = pairs[start : start + BATCH_SIZE]
            pictures = [load_image(image) for image, _ in part]
            asked = [(n, question) for n, (_, question) in enumerate(part)]
            names = [source_name(image) for image, _ in part]
            results += self._ask(pictures, names, asked, given[start : start + BATCH_SIZE])
        return results

    def chat(self, image: ImageSource) -> Chat:
        """A conversation about one picture, which is encoded once."""
        return Chat(self, load_image(image))

    def _ask(
        self,
        pictures: list[Image.Image],
        names: list[str],
        asked: list[tuple[int, str]],
        answers: Sequence[str | None],
    ) -> list[Result]:
        questions = [check_question(question) for _, question in asked]
        if not questions:
            return []
        started = time.perf_counter()
        images = self._encode(pictures)
        encoded = time.perf_counter()
        generated = self.model.generate(
            images,
            [self.processor.question_ids(question) for question in questions],
            [index for index, _ in asked],
            end_token_id=self.processor.end_token_id,
            answers=[
                None if answer is None else self.processor.answer_ids(answer) for answer in answers
            ],
        )
        answered = time.perf_counter()
        decoded = [
            self.processor.decode(one, (pictures[index].height, pictures[index].width))
            for one, (index, _) in zip(generated, asked, strict=True)
        ]
        share = len(questions)
        timings = {
            "load": self.load_seconds,
            "image": (encoded - started) / share,
            "answer": (answered - encoded) / share,
            "mask": (time.perf_counter() - answered) / share,
        }
        return [
            Result(
                pictures[index],
                question,
                text,
                masks,
                name=names[index],
                model=self.name,
                timings=timings,
            )
            for (index, _), question, (text, masks) in zip(asked, questions, decoded, strict=True)
        ]

    def _encode(self, pictures: list[Image.Image]) -> EncodedImages:
        """The pictures as the model keeps them; a single one is remembered for the next question."""
        if len(pictures) > 1:
            return self._run_encoder(pictures)
        key = fingerprint(pictures[0])
        if key not in self._remembered:
            self._remembered[key] = self._run_encoder(pictures)
        self._remembered.move_to_end(key)
        while len(self._remembered) > REMEMBERED_IMAGES:
            self._remembered.popitem(last=False)
        return self._remembered[key]

    def _run_encoder(self, pictures: list[Image.Image]) -> EncodedImages:
        device = self.model.device
        prefix = torch.tensor([self.processor.prefix_ids()] * len(pictures), device=device)
        return self.model.encode_images(self.processor.encode_images(pictures).to(device), prefix)


class Chat:
    """A conversation about one picture: ``ask``, and ``turns`` to look back on.

    Each question is answered on its own; what was said before does not change the answer, and the
    picture is encoded once.
    """

    def __init__(self, segmenter: Segmenter, image: Image.Image) -> None:
        self.segmenter, self.image = segmenter, image
        self.turns: list[Result] = []

    def ask(self, question: str) -> Result:
        """Answer a question about the picture and keep the turn."""
        result = self.segmenter.segment(self.image, question)
        self.turns.append(result)
        return result


def fingerprint(picture: Image.Image) -> str:
    """The same for the same pixels."""
    digest = hashlib.blake2b(picture.tobytes(), digest_size=16)
    digest.update(repr(picture.size).encode())
    return digest.hexdigest()


def source_name(source: ImageSource) -> str:
    """The path of a picture that came as one, or ""."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else ""


def load(model: str | Path = EMBEDDED, device: str | None = None) -> Segmenter:
    """Load a model: ``"nano"``, the embedded one, or a directory.

    Args:
        model: name or directory.
        device: "cpu", "cuda", "cuda:1" ...; None takes a GPU if there is one.

    Raises:
        ModelError: no such model, damaged weights, or no such device.
    """
    started = time.perf_counter()
    built, processor = build(model, device)
    return Segmenter(built, processor, name=str(model), load_seconds=time.perf_counter() - started)
