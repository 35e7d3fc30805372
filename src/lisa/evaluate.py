"""A segmenter over a data set: every question asked, every answer scored.

The segmenter is the one people use, and is asked the way people ask it. Two protocols, always
named beside the figures: "generate", where the model must emit the mask itself, and
"teacher-forced", where it is given the answer as in the paper's validation. A sample that raises
counts as wrong and is listed.

This file knows questions, results and metrics. It does not know tensors, prompts or file formats.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
import PIL.Image
from rich.console import Console
from rich.progress import track

from lisa.data.knowledge import Thing, things
from lisa.errors import DataError, LisaError
from lisa.example import Example
from lisa.metrics import SampleScore, SegmentationMetrics, SegmentationScores
from lisa.model.config import TEACHER_FORCED_ANSWER
from lisa.result import Result

# What the segmenter is given as the answer, by protocol. None: it answers by itself.
PROTOCOLS: Mapping[str, str | None] = {
    "generate": None,
    "teacher-forced": TEACHER_FORCED_ANSWER,
}

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
class Failure:
    """A sample that raised: its name, and the error in one line."""

    name: str
    message: str


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model on one data set, and how they came about.

    Attributes:
        dataset: the data set's name.
        protocol: "generate" or "teacher-forced".
        model: the segmenter's name.
        scores: see `SegmentationScores`.
        failures: the samples that raised; they count as wrong.
        seconds_per_question: mean wall time of a question; None if no sample could be read.
        shuffle_questions: the seed with which the photos exchanged their questions; None: each
            photo was asked its own.
        samples: each sample as it was scored, in the order of the data set.
    """

    dataset: str
    protocol: str
    model: str
    scores: SegmentationScores
    failures: tuple[Failure, ...]
    seconds_per_question: float | None
    shuffle_questions: int | None = None
    samples: tuple[SampleScore, ...] = ()

    def to_dict(self, samples: bool = False) -> dict[str, Any]:
        """Everything in one flat object for JSON; `shuffle_questions` only where it is set.

        Args:
            samples: with each sample's score, so that two runs can be compared in pairs.
        """
        values = {
            "dataset": self.dataset,
            "protocol": self.protocol,
            "model": self.model,
            **self.scores.to_dict(),
            "failures": [asdict(failure) for failure in self.failures],
            "seconds_per_question": self.seconds_per_question,
        }
        if self.shuffle_questions is not None:
            values["shuffle_questions"] = self.shuffle_questions
        if samples:
            values["samples"] = [asdict(sample) for sample in self.samples]
        return values

    def __str__(self) -> str:
        seed = self.shuffle_questions
        shuffled = "" if seed is None else f", questions shuffled (seed {seed})"
        heading = f"{self.model} on {self.dataset}, protocol {self.protocol}{shuffled}"
        seconds = self.seconds_per_question
        pace = [] if seconds is None else [f"seconds per question     {seconds:.3f}"]
        failures = [f"  {failure.name}: {failure.message}" for failure in self.failures]
        return "\n".join([heading, "", str(self.scores), *failures, *pace])


def evaluate(
    segmenter: AsksQuestions,
    dataset: Sequence[Example],
    *,
    protocol: str,
    shuffle_questions: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Asks the segmenter every question of the data set and scores the masks.

    Args:
        segmenter: what is measured.
        dataset: examples with masks. Its `name` attribute, or else its type's, goes in the report.
        protocol: "generate" or "teacher-forced" (see `PROTOCOLS`).
        shuffle_questions: a seed; each photo is then asked another photo's question. The control
            that shows whether the question is read.
        progress: whether to draw a progress bar on standard error.

    Raises:
        LisaError: there is no such protocol.
        DataError: the data set is empty, or too small to shuffle.
    """
    if protocol not in PROTOCOLS:
        raise LisaError(f"unknown protocol '{protocol}'; expected {' or '.join(PROTOCOLS)}")
    sources = _question_sources(len(dataset), shuffle_questions)
    run = _Run(segmenter, PROTOCOLS[protocol])
    console = Console(stderr=True)
    for index in track(range(len(dataset)), "asking", console=console, disable=not progress):
        run.sample(dataset, index, sources[index])
    return Evaluation(
        dataset=getattr(dataset, "name", type(dataset).__name__),
        protocol=protocol,
        model=segmenter.name,
        scores=run.metrics.compute(),
        failures=tuple(run.failures),
        seconds_per_question=float(np.mean(run.seconds)) if run.seconds else None,
        shuffle_questions=shuffle_questions,
        samples=run.metrics.samples,
    )


def names_the_target(text: str, phrase: str) -> bool | None:
    """Whether an answer holds the target's name, or a synonym of it, as whole words.

    Returns:
        None where the target has no name.
    """
    if not phrase:
        return None
    known = _known_things().get(phrase)
    names = "|".join(re.escape(name) for name in (phrase, *(known.synonyms if known else ())))
    return re.search(rf"\b(?:{names})(?:s|es)?\b", text, re.IGNORECASE) is not None


@cache
def _known_things() -> dict[str, Thing]:
    return things()


def own_score(result: Result) -> float | None:
    """What the model thinks of its masks' IoU: the mean of their scores; None without masks."""
    return float(np.mean([mask.score for mask in result.masks])) if result.masks else None


def _question_sources(count: int, seed: int | None) -> list[int]:
    """For each sample, whose question it is asked: its own, or with a seed always another's.

    The exchange is one random cycle through all samples, which leaves none in its place.
    """
    least = 1 if seed is None else 2
    if count < least:
        task = "evaluate" if seed is None else "shuffle the questions of"
        raise DataError(f"cannot {task} a data set of {count}; expected at least {least} samples")
    if seed is None:
        return list(range(count))
    cycle = np.random.default_rng(seed).permutation(count)
    sources = np.empty(count, int)
    sources[cycle] = np.roll(cycle, 1)
    return [int(source) for source in sources]


@dataclass
class _Run:
    """One evaluation under way."""

    segmenter: AsksQuestions
    answer: str | None
    metrics: SegmentationMetrics = field(default_factory=SegmentationMetrics)
    failures: list[Failure] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def sample(self, dataset: Sequence[Example], index: int, source: int) -> None:
        """Asks one photo the question of sample `source`; an error is recorded as a failure."""
        name = f"sample {index}"
        target, ignore, tags, phrase = _UNREAD, None, frozenset[str](), ""
        try:
            example = dataset[index]
            name = example.name or name
            target, ignore, tags = example.mask, example.ignore, example.tags
            phrase = example.phrase
            question = example.question if source == index else dataset[source].question
            result = self.ask(example.image, question)
            self.metrics.update(
                result.mask,
                target,
                ignore,
                answered=bool(result.masks),
                tags=tags,
                name=name,
                score=own_score(result),
                named=names_the_target(result.text, phrase),
            )
        except Exception as error:  # an out-of-memory in one sample must not lose the others
            self.failures.append(Failure(name, _one_line(error)))
            empty = np.zeros_like(target)
            self.metrics.update(
                empty,
                target,
                ignore,
                answered=False,
                failed=True,
                tags=tags,
                name=name,
                named=False if phrase else None,
            )

    def ask(self, image: PIL.Image.Image, question: str) -> Result:
        """Asks one question and takes the time, whether or not it is answered."""
        start = time.perf_counter()
        try:
            return self.segmenter.segment(image, question, answer=self.answer)
        finally:
            self.seconds.append(time.perf_counter() - start)


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, LisaError) else f"{type(error).__name__}: {message}"
