"""A segmenter over a data set: every question asked, every answer scored.

The segmenter is the one people use, and is asked the way people ask it. Two protocols, always
named beside the figures: "generate", where the model must emit the mask itself, and
"teacher-forced", where it is given the answer as in the paper's validation. A sample that raises
counts as wrong and is listed.

This file knows questions, results and metrics. It does not know tensors, prompts, file formats, or
how work is divided.
"""

import re
import time
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import PIL.Image
from rich.console import Console
from rich.progress import Progress

from lisa.data.knowledge import Thing, things
from lisa.data.prompts import paper_validation_question
from lisa.errors import DataError, LisaError
from lisa.example import Example
from lisa.footprint import Footprint
from lisa.metrics import SampleScore, SegmentationMetrics, SegmentationScores
from lisa.model.config import TEACHER_FORCED_ANSWER
from lisa.result import Result
from lisa.score_table import NAME_WIDTH, score_table

# What the segmenter is given as the answer, by protocol. None: it answers by itself.
PROTOCOLS: Mapping[str, str | None] = {
    "generate": None,
    "teacher-forced": TEACHER_FORCED_ANSWER,
}
BOTH = "both"  # what a report of two protocols calls itself

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
class Failure:
    """A sample that raised: its name, and the error in one line."""

    name: str
    message: str


@dataclass(frozen=True)
class FoundMask:
    """One mask of an answer, small enough to be kept."""

    rle: dict[str, Any]  # see `lisa.result.Mask.rle`
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
        split: the data set's split; None where it has none.
        contaminated: the source of the weights that holds what was measured; None: none does.
        footprint: what the run took; None: nobody measured it.
        paper_wording: see `Task`.
    """

    dataset: str
    protocol: str
    model: str
    scores: SegmentationScores
    failures: tuple[Failure, ...]
    seconds_per_question: float | None
    shuffle_questions: int | None = None
    samples: tuple[SampleScore, ...] = ()
    split: str | None = None
    contaminated: str | None = None
    footprint: Footprint | None = None
    paper_wording: bool = False

    def to_dict(self, samples: bool = False) -> dict[str, Any]:
        """Everything in one flat object for JSON; what was asked otherwise only where it was.

        Only ``seconds_per_question`` and ``footprint`` differ from run to run.

        Args:
            samples: with each sample's score, so that two runs can be compared in pairs.
        """
        values = {
            "dataset": self.dataset,
            "split": self.split,
            "protocol": self.protocol,
            "model": self.model,
            "contaminated": self.contaminated,
            **self.scores.to_dict(),
            "failures": [asdict(failure) for failure in self.failures],
            "seconds_per_question": self.seconds_per_question,
            "footprint": None if self.footprint is None else asdict(self.footprint),
        }
        if self.shuffle_questions is not None:
            values["shuffle_questions"] = self.shuffle_questions
        if self.paper_wording:
            values["paper_wording"] = True
        if samples:
            values["samples"] = [asdict(one) | {"tags": [*one.tags]} for one in self.samples]
        return values

    def __str__(self) -> str:
        return report_text([self])


def report_dict(evaluations: Sequence[Evaluation], samples: bool = False) -> dict[str, Any]:
    """One evaluation as `Evaluation.to_dict`; several protocols of one run side by side."""
    first = evaluations[0]
    if len(evaluations) == 1:
        return first.to_dict(samples)
    return {
        "dataset": first.dataset,
        "split": first.split,
        "protocol": BOTH,
        "model": first.model,
        "contaminated": first.contaminated,
        "n": first.scores.n,
        "protocols": {one.protocol: one.to_dict(samples) for one in evaluations},
    }


def report_text(evaluations: Sequence[Evaluation]) -> str:
    """A table with a column for each protocol of one run, and the failures by name."""
    first, names = evaluations[0], [one.protocol for one in evaluations]
    seed = first.shuffle_questions
    shuffled = "" if seed is None else f", questions shuffled (seed {seed})"
    where = first.dataset if first.split is None else f"{first.dataset}/{first.split}"
    protocols = f"protocol{'s' * (len(names) > 1)} {' and '.join(names)}"
    worded = ", in the paper's words" if first.paper_wording else ""
    lines = [f"{first.model} on {where}, {protocols}{worded}{shuffled}"]
    if first.contaminated is not None:
        lines.append(
            f"CONTAMINATED: the weights were trained on {first.contaminated}; no benchmark figure"
        )
    lines += ["", score_table({one.protocol: one.scores for one in evaluations}), ""]
    for one in evaluations:
        by = f" ({one.protocol})" if len(names) > 1 else ""
        lines += [f"  {failure.name}{by}: {failure.message}" for failure in one.failures]
        if one.seconds_per_question is not None:
            lines.append(
                f"{'seconds per question':<{NAME_WIDTH}}{one.seconds_per_question:.3f}{by}"
            )
    return "\n".join([*lines, *_footprint_lines(first.footprint)])


def _footprint_lines(footprint: Footprint | None) -> Iterator[str]:
    if footprint is None:
        return
    yield f"{'seconds':<{NAME_WIDTH}}{footprint.seconds:.1f}"
    largest = "" if footprint.processes == 1 else f" (largest of {footprint.processes} processes)"
    yield f"{'peak memory':<{NAME_WIDTH}}{footprint.memory_bytes / 2**20:.0f} MiB{largest}"
    if footprint.gpu_memory_bytes is not None:
        yield f"{'peak GPU memory':<{NAME_WIDTH}}{footprint.gpu_memory_bytes / 2**20:.0f} MiB"


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
        shuffle_questions: see `Task`.
        progress: whether to draw a progress bar on standard error.

    Raises:
        LisaError, DataError: as `Task`.
    """
    task = Task(dataset, (protocol,), shuffle_questions)
    records = ask(segmenter, task, range(len(dataset)), progress=progress)
    return summarise(task, list(records), protocol, segmenter.name)


def summarise(
    task: Task,
    records: Sequence[Record],
    protocol: str,
    model: str,
    *,
    contaminated: str | None = None,
    footprint: Footprint | None = None,
) -> Evaluation:
    """The scores of one protocol's records, which may come in any order.

    Raises:
        DataError: a question is missing, or was answered twice.
    """
    own = sorted((one for one in records if one.protocol == protocol), key=lambda one: one.index)
    if [one.index for one in own] != list(range(len(task.dataset))):
        raise DataError(
            f"{len(own)} answers to {len(task.dataset)} questions; expected one for each"
        )
    metrics = SegmentationMetrics()
    for one in own:
        metrics.add(one.sample)
    seconds = [one.seconds for one in own if one.seconds is not None]
    return Evaluation(
        dataset=getattr(task.dataset, "name", type(task.dataset).__name__),
        protocol=protocol,
        model=model,
        scores=metrics.compute(),
        failures=tuple(Failure(one.sample.name, one.error) for one in own if one.error is not None),
        seconds_per_question=float(np.mean(seconds)) if seconds else None,
        shuffle_questions=task.shuffle_questions,
        paper_wording=task.paper_wording,
        samples=metrics.samples,
        split=getattr(task.dataset, "split", None),
        contaminated=contaminated,
        footprint=footprint,
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


def _read_ahead(task: Task, indices: Sequence[int]) -> "Generator[Future[_Sample], None, None]":
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


def _ask(segmenter: AsksQuestions, sample: "Future[_Sample]", index: int, protocol: str) -> Record:
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


def _answered(index: int, protocol: str, known: _Sample, result: Result, clock: "_Clock") -> Record:
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
    index: int, protocol: str, error: Exception, known: _Sample | None, clock: "_Clock"
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
