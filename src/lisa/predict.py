"""``Segmenter``: an image and a question go in, a ``Result`` comes out.

The one road to an answer: the command line, evaluation and the server all go through it. An image
is encoded once, however many questions follow. ``Answering`` is the contract of what answers. This
file knows the order of the steps; it refuses to know models and the library that runs them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol, TypeVar, overload

from PIL import Image

from lisa.errors import LisaError, QuestionError
from lisa.example import Asked, check_question
from lisa.image import ImageSource, load_image
from lisa.result import Reply, Result

REMEMBERED_IMAGES = 4
BATCH_SIZE = 8  # questions side by side
STRIP_PIXELS = 2**22  # of a picture that are copied at once to tell it from others

Item = TypeVar("Item")


@dataclass(frozen=True)
class Picture:
    """A picture and where it came from."""

    image: Image.Image  # RGB
    name: str


class Answering(Protocol):
    """What answers: a model with its processor, whatever runs them."""

    def encode(self, images: Sequence[Image.Image]) -> Any:
        """RGB images of any size -> what is kept of them for any number of questions."""

    def answer(
        self, kept: Any, images: Sequence[Image.Image], asked: Sequence[Asked]
    ) -> list[Reply]:
        """Each question's text and masks; ``kept`` is what ``encode`` made of ``images``."""


class Segmenter:
    """Answers questions about pictures with text and masks.

    Args:
        answering: what answers. Its weights must not change afterwards: images that have been
            encoded are remembered.
        name: what results call the model.
        load_seconds: how long loading took, for ``Result.timings``.
    """

    def __init__(self, answering: Answering, name: str = "", load_seconds: float = 0.0) -> None:
        self.answering, self.name, self.load_seconds = answering, name, load_seconds
        self._remembered: OrderedDict[str, Any] = OrderedDict()

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
        kept: Any,
        asked: Sequence[Asked],
        image_seconds: float,
    ) -> list[Result]:
        """Answer at most ``BATCH_SIZE`` questions side by side."""
        started = time.perf_counter()
        replies = self.answering.answer(kept, [one.image for one in pictures], asked)
        seconds = (time.perf_counter() - started) / len(asked)
        mask_seconds = sum(reply.mask_seconds for reply in replies) / len(asked)
        timings = {
            "load": self.load_seconds,
            "image": image_seconds,
            "answer": seconds - mask_seconds,
            "mask": mask_seconds,
        }
        return [
            Result(
                pictures[one.image_index].image,
                one.question,
                reply.text,
                reply.masks,
                name=pictures[one.image_index].name,
                model=self.name,
                timings=timings,
            )
            for one, reply in zip(asked, replies, strict=True)
        ]

    def _encode(self, images: Sequence[Image.Image]) -> Any:
        """The images as they are kept; a single one is kept for the next question, too."""
        if len(images) > 1:
            return self.answering.encode(images)
        key = fingerprint(images[0])
        if key not in self._remembered:
            self._remembered[key] = self.answering.encode(images)
        self._remembered.move_to_end(key)
        while len(self._remembered) > REMEMBERED_IMAGES:
            self._remembered.popitem(last=False)
        return self._remembered[key]


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
