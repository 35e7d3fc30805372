"""Example: one picture, one question, and whatever is known about the answer.

The value that data sets give out and that training and evaluation take in. It holds meaning as
people have it: no tensors, no tokens, no model sizes. This file checks the values; it reads no
files and knows no data set.
"""

from dataclasses import dataclass

import numpy as np
import PIL.Image

from lisa.errors import DataError, ImageError, LisaError, QuestionError

MAX_QUESTION_CHARACTERS = 2000
SEG_TOKEN = "[SEG]"  # in an answer: here stands the next of its masks
TEACHER_FORCED_ANSWER = f"{SEG_TOKEN}."  # the answer that the paper's evaluation supplies


def check_question(question: object) -> str:
    """Return the question without surrounding white space, or say why it cannot be asked.

    Any language is fine. Control markers are not removed here: they are text, and the processor
    takes care that they stay text.

    Raises:
        QuestionError: not a str, empty, longer than `MAX_QUESTION_CHARACTERS`, or not valid
            Unicode (half a character, as a broken terminal encoding leaves it).
    """
    if not isinstance(question, str):
        raise QuestionError(f"question is a {type(question).__name__}; expected text (str)")
    stripped = question.strip()
    if not stripped:
        raise QuestionError(f"question {question[:40]!r} is empty; expected at least one word")
    if len(stripped) > MAX_QUESTION_CHARACTERS:
        raise QuestionError(
            f"question '{stripped[:40]}...' has {len(stripped)} characters; "
            f"expected at most {MAX_QUESTION_CHARACTERS}"
        )
    try:
        stripped.encode("utf-8")
    except UnicodeEncodeError as error:
        raise QuestionError(
            f"question {stripped[:40]!a} is not valid Unicode; expected text in UTF-8"
        ) from error
    return stripped


@dataclass(frozen=True, eq=False)
class Example:
    """A question about a picture, with the answer and the masks when they are known.

    Attributes:
        image: RGB, at its original size.
        question: at most `MAX_QUESTION_CHARACTERS`; surrounding white space is removed.
        answer: what should be said, or None when nobody wrote an answer. It may say with
            `SEG_TOKEN` where each of the masks stands: once for each, or not at all.
        masks: bool [N, H, W], one for each thing asked for. N = 0: the target is not in the
            picture. None: not known.
        ignore: bool [H, W], True where no score is taken; None: every pixel counts.
        name: where the example came from, for messages.
        tags: for results by group, such as {"long"} or {"short"}.
        phrase: what the target is called, such as "left dog"; "" when the example names none.
        further: what was asked and answered next, in turn, about the same picture.

    Raises:
        ImageError, QuestionError, DataError: a field does not have the form above. The message
            gives the example's name, what was expected and what came.
    """

    image: PIL.Image.Image
    question: str
    answer: str | None = None
    masks: np.ndarray | None = None
    ignore: np.ndarray | None = None
    name: str = ""
    tags: frozenset[str] = frozenset()
    phrase: str = ""
    further: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        self._check_image()
        object.__setattr__(self, "question", check_question(self.question))
        height, width = self.image.height, self.image.width
        if self.masks is not None:
            count = len(self.masks) if np.ndim(self.masks) else 0
            self._check_array("masks", self.masks, (count, height, width), "N")
        if self.ignore is not None:
            self._check_array("ignore", self.ignore, (height, width))
        self._check_words()

    @property
    def mask(self) -> np.ndarray:
        """bool [H, W]: everything asked for in one mask, all False when the target is absent.

        Raises:
            DataError: the masks of this example are not known.
        """
        if self.masks is None:
            raise DataError(f"example {self.name!r} has no masks; expected bool [N, H, W]")
        return np.asarray(self.masks.any(axis=0))

    def _check_image(self) -> None:
        self._check_type("image", self.image, PIL.Image.Image, ImageError)
        if self.image.mode != "RGB" or 0 in self.image.size:
            actual = f"{self.image.mode} {self.image.width}x{self.image.height}"
            raise ImageError(
                f"image of example {self.name!r}: expected RGB of at least 1x1 pixels, got {actual}"
            )

    def _check_array(
        self, field: str, values: np.ndarray, shape: tuple[int, ...], first: str = ""
    ) -> None:
        """Check for bool of the given shape; `first` names a first length that may be anything."""
        self._check_type(field, values, np.ndarray)
        if values.dtype == np.bool_ and values.shape == shape:
            return
        lengths = [first, *shape[1:]] if first else shape
        expected = f"bool [{', '.join(map(str, lengths))}]"
        actual = f"{values.dtype} {list(values.shape)}"
        raise DataError(f"{field} of example {self.name!r}: expected {expected}, got {actual}")

    def _check_words(self) -> None:
        if self.answer is not None:
            self._check_type("answer", self.answer, str)
        self._check_type("name", self.name, str)
        self._check_type("phrase", self.phrase, str)
        self._check_type("tags", self.tags, frozenset)
        for tag in self.tags:
            self._check_type("each of tags", tag, str)
        self._check_type("further", self.further, tuple)
        for turn in self.further:
            self._check_type("each of further", turn, tuple)

    def _check_type(
        self, field: str, value: object, expected: type, error: type[LisaError] = DataError
    ) -> None:
        if not isinstance(value, expected):
            raise error(
                f"{field} of example {self.name!r}: "
                f"expected {expected.__name__}, got {type(value).__name__}"
            )


@dataclass(frozen=True)
class Asked:
    """One question on its way to an answer."""

    image_index: int  # which of the images it is about
    question: str
    answer: str | None  # read this one instead of generating
