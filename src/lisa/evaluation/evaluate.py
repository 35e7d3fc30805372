"""A segmenter over a data set: every question asked, every answer scored.

The segmenter is the one people use, and is asked the way people ask it. Two protocols, always
named beside the figures: "generate", where the model must emit the mask itself, and
"teacher-forced", where it is given the answer as in the paper's validation. A sample that raises
counts as wrong and is listed.

This file knows questions, results and metrics. It does not know tensors, prompts, file formats, or
how work is divided.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lisa.errors import DataError
from lisa.evaluation.footprint import Footprint
from lisa.evaluation.metrics import SampleScore, SegmentationMetrics, SegmentationScores
from lisa.evaluation.runner import AsksQuestions, Record, Task, ask
from lisa.evaluation.score_table import NAME_WIDTH, score_table
from lisa.example import Example

BOTH = "both"  # what a report of two protocols calls itself


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
