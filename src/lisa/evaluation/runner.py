"""Asking: a data set's questions, one by one, each answer a record.

This file knows protocols and records; it refuses to know figures and reports."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import PIL.Image
from rich.console import Console
from rich.progress import Progress

from lisa.data.prompts import paper_validation_question, synonyms
from lisa.errors import DataError, LisaError
from lisa.evaluation.metrics import SampleScore, SegmentationMetrics
from lisa.example import TEACHER_FORCED_ANSWER, Example
from lisa.result import Result

# What the segmenter is given as the answer, by protocol. None: it answers by itself.
PROTOCOLS: Mapping[str, str | None] = {
    "generate": None,
    "teacher-forced": TEACHER_FORCED_ANSWER,
}
READ_AHEAD = 2  # samples that are read while one is asked
# Stands for the target of a sample that cannot be read, so that it counts as a target missed.
_UNREAD = np.ones((1, 1), bool)


class AsksQuestions(Protocol):
    """What is evaluated: `lisa.predict.Segmenter`, or anything that answers as it does."""

    @property
    def name(self) -> str: ...

    def segment(
        self, image: PIL.Image.Image, question: str, *, answer: str | None = None
    ) -> Result: ...


@dataclass(frozen=True)
class FoundMask:
    """One mask of an answer, small enough to be kept."""

    rle: dict[str, Any]  # see `lisa.masks.Mask.rle`
    phrase: str


@dataclass(frozen=True)
class Record:
    """One question as it was answered and scored.

    Attributes:
        index: the sample's place in the data set.
        protocol: a key of `PROTOCOLS`.
        question: as it was asked; "" where the sample could not be read.
        text: the answer; "" where there was none.
        masks: what the answer pointed at.
        sample: how it was scored.
        error: why there is no answer, in one line; None: there is one.
        seconds: wall time of the answer; None where nothing was asked.
    """

    index: int
    protocol: str
    question: str
    text: str
    masks: tuple[FoundMask, ...]
    sample: SampleScore
    error: str | None
    seconds: float | None


@dataclass(frozen=True)
class Task:
    """What is asked of a segmenter.

    Args:
        dataset: examples with masks.
        protocols: keys of `PROTOCOLS`.
        shuffle_questions: a seed; each photo is then asked another photo's question. The control
            that shows whether the question is read.
        paper_wording: whether questions are put in the words of the paper's validation, which its
            checkpoints were trained on, and not as people wrote them.

    Raises:
        LisaError: there is no such protocol.
        DataError: the data set is empty, or too small to shuffle.
    """

    dataset: Sequence[Example]
    protocols: tuple[str, ...]
    shuffle_questions: int | None = None
    paper_wording: bool = False

    def __post_init__(self) -> None:
        for protocol in self.protocols:
            if protocol not in PROTOCOLS:
                raise LisaError(f"unknown protocol '{protocol}'; expected {' or '.join(PROTOCOLS)}")
        count, least = len(self.dataset), 1 if self.shuffle_questions is None else 2
        if count < least:
            aim = "evaluate" if self.shuffle_questions is None else "shuffle the questions of"
            raise DataError(
                f"cannot {aim} a data set of {count}; expected at least {least} samples"
            )

    def question(self, example: Example) -> str:
        """What is asked about an example."""
        if not self.paper_wording:
            return example.question
        return paper_validation_question(example.question, sentence="long" in example.tags)

    def sources(self) -> list[int]:
        """For each sample, whose question it is asked: its own, or with a seed always another's.

        The exchange is one random cycle through all samples, which leaves none in its place.
        """
        count = len(self.dataset)
        if self.shuffle_questions is None:
            return list(range(count))
        cycle = np.random.default_rng(self.shuffle_questions).permutation(count)
        sources = np.empty(count, int)
        sources[cycle] = np.roll(cycle, 1)
        return [int(source) for source in sources]


def names_the_target(text: str, phrase: str) -> bool | None:
    """Whether an answer holds the target's name, or a synonym of it, as whole words.

    Returns:
        None where the target has no name.
    """
    if not phrase:
        return None
    names = "|".join(re.escape(name) for name in (phrase, *synonyms().get(phrase, ())))
    return re.search(rf"\b(?:{names})(?:s|es)?\b", text, re.IGNORECASE) is not None


def own_score(result: Result) -> float | None:
    """What the model thinks of its masks' IoU: the mean of their scores; None without masks."""
    return float(np.mean([mask.score for mask in result.masks])) if result.masks else None


def ask(
    segmenter: AsksQuestions,
    task: Task,
    indices: Sequence[int],
    *,
    done: Collection[tuple[int, str]] = (),
    progress: bool = False,
) -> Iterator[Record]:
    """Asks some of the questions of a task, in order, by every protocol.

    Args:
        segmenter: who is asked.
        task: what is asked.
        indices: the samples to take.
        done: (index, protocol) of what is not to be asked again.
        progress: whether to draw a progress bar on standard error.
    """
    open_ones = {
        index: [protocol for protocol in task.protocols if (index, protocol) not in done]
        for index in indices
    }
    wanted = [index for index, protocols in open_ones.items() if protocols]
    with (
        Progress(console=Console(stderr=True), disable=not progress) as bar,
        closing(_read_ahead(task, wanted)) as read,
    ):
        shown = bar.track(read, total=len(wanted), description="asking")
        for index, sample in zip(wanted, shown, strict=True):
            for protocol in open_ones[index]:
                yield _ask(segmenter, sample, index, protocol)


@dataclass(frozen=True)
class _Sample:
    """A sample that was read: what is asked, and what is expected."""

    example: Example
    question: str
    target: np.ndarray  # bool [H, W]


def _read_ahead(task: Task, indices: Sequence[int]) -> Generator[Future[_Sample], None, None]:
    """The samples in order; the next ones are read while one is asked."""
    sources = task.sources()

    def read(index: int) -> _Sample:
        example, source = task.dataset[index], sources[index]
        asked = example if source == index else task.dataset[source]
        return _Sample(example, task.question(asked), example.mask)

    waiting: deque[Future[_Sample]] = deque()
    with ThreadPoolExecutor(1) as reader:  # one: a data set need not bear two at once
        for index in indices:
            waiting.append(reader.submit(read, index))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft()
        yield from waiting


def _ask(segmenter: AsksQuestions, sample: Future[_Sample], index: int, protocol: str) -> Record:
    """Asks one question; an error, be it out of memory, must not lose the others."""
    clock = _Clock()
    try:
        known = sample.result()
    except Exception as error:
        return _failed(index, protocol, error, None, clock)
    try:
        with clock:
            result = segmenter.segment(
                known.example.image, known.question, answer=PROTOCOLS[protocol]
            )
        return _answered(index, protocol, known, result, clock)
    except Exception as error:
        return _failed(index, protocol, error, known, clock)


def _answered(index: int, protocol: str, known: _Sample, result: Result, clock: _Clock) -> Record:
    """The record of a result.

    Raises:
        DataError: a mask is not as large as the sample's.
    """
    example = known.example
    metrics = SegmentationMetrics().update(
        result.mask,
        known.target,
        example.ignore,
        answered=bool(result.masks),
        tags=example.tags,
        name=example.name or f"sample {index}",
        score=own_score(result),
        named=names_the_target(result.text, example.phrase),
    )
    return Record(
        index=index,
        protocol=protocol,
        question=known.question,
        text=result.text,
        masks=tuple(FoundMask(mask.rle, mask.phrase) for mask in result.masks),
        sample=metrics.samples[0],
        error=None,
        seconds=clock.seconds,
    )


def _failed(
    index: int, protocol: str, error: Exception, known: _Sample | None, clock: _Clock
) -> Record:
    """The record of a sample that raised; ``known`` is None where it could not be read."""
    example = known.example if known else None
    target = known.target if known else _UNREAD
    metrics = SegmentationMetrics().update(
        np.zeros_like(target),
        target,
        example.ignore if example else None,
        answered=False,
        failed=True,
        tags=example.tags if example else (),
        name=(example.name if example else "") or f"sample {index}",
        named=False if example and example.phrase else None,
    )
    return Record(
        index=index,
        protocol=protocol,
        question=known.question if known else "",
        text="",
        masks=(),
        sample=metrics.samples[0],
        error=_one_line(error),
        seconds=clock.seconds,
    )


class _Clock:
    """How long a block took, whether or not it raised."""

    def __init__(self) -> None:
        self.seconds: float | None = None

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._start


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, LisaError) else f"{type(error).__name__}: {message}"
