"""Scores of predicted masks: gIoU and cIoU as the official LISA computes them, and what they hide.

The two official figures average over every sample, so a model gains by refusing and nobody sees
it. Beside them stand the mean IoU of the samples that have a target, with an interval; the share
of absent targets that were rightly left empty; the share of present targets that got a mask, and
of those that were named; and how far the model's own estimate of its IoU can be relied upon.

This file knows boolean masks. It does not know models, pictures, questions or data sets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from lisa.errors import DataError

# The constants of the official code. Both stand in a denominator.
IOU_EPSILON = 1e-5  # beside the union of one sample, and beside the number of samples
CUMULATIVE_EPSILON = 1e-10  # beside the union of all samples together

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 0
CONFIDENCE = 0.95
RELIABILITY_BINS = 10  # of equal width, from 0 to 1


@dataclass(frozen=True)
class GroupScores:
    """The scores of the samples that carry one tag. IoU is in [0, 1]."""

    n: int
    gIoU: float
    gIoU_present: float | None  # None: no sample of the group has a target
    cIoU: float


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers whose score lies between two bounds."""

    low: float
    high: float
    n: int
    score: float | None  # mean score; None: no answer lies here
    iou: float | None  # mean IoU of the same answers


@dataclass(frozen=True)
class SampleScore:
    """One sample as it was scored, to compare runs sample by sample."""

    name: str
    iou: float
    present: bool  # it has a target
    answered: bool
    score: float | None  # the model's own estimate of the IoU; None: it gave none
    named: bool | None  # whether the answer names the target; None: the target has no name


@dataclass(frozen=True)
class Difference:
    """Mean of differences of IoU, sample by sample, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class SegmentationScores:
    """What `SegmentationMetrics.compute` found. IoU values and shares are in [0, 1].

    Attributes:
        n: how many samples were measured, failures included.
        gIoU: mean IoU of all samples; an empty mask for an absent target is 1 (official rule).
        gIoU_present: mean IoU of the samples that have a target; None if there are none.
        gIoU_present_ci: its 95 % bootstrap interval (low, high); None if there are none.
        cIoU: sum of intersections over sum of unions, all samples together.
        N_acc: share of absent targets answered with an empty mask; None if there are none.
        emission_rate: share of present targets answered with at least one mask, be it empty;
            None if there are none.
        failures: names of the samples that failed.
        by: the scores of each tag.
        naming_rate: share of present targets that the answer names; None where none has a name.
        ECE: expected calibration error: mean distance between score and IoU over the bins of
            ``reliability``, by their share of the answers; None where no answer has a score.
        reliability: score and IoU of the answers that have a score, by the size of the score.
    """

    n: int
    gIoU: float
    gIoU_present: float | None
    gIoU_present_ci: tuple[float, float] | None
    cIoU: float
    N_acc: float | None
    emission_rate: float | None
    failures: tuple[str, ...]
    by: Mapping[str, GroupScores]
    naming_rate: float | None
    ECE: float | None
    reliability: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """The scores under their own names, made of what JSON can hold."""
        interval = self.gIoU_present_ci
        return asdict(self) | {
            "gIoU_present_ci": None if interval is None else list(interval),
            "failures": list(self.failures),
            "reliability": [asdict(one) for one in self.reliability],
        }

    def __str__(self) -> str:
        everything = GroupScores(self.n, self.gIoU, self.gIoU_present, self.cIoU)
        rows = [_row(name, group) for name, group in [("all", everything), *self.by.items()]]
        return "\n".join(
            [
                f"{'':<12}{'n':>6}{'gIoU':>9}{'present':>9}{'cIoU':>9}",
                *rows,
                f"gIoU of present targets  {_figure(self.gIoU_present)}{self._interval()}",
                f"absent targets refused   {_figure(self.N_acc)}",
                f"present targets answered {_figure(self.emission_rate)}",
                f"present targets named    {_figure(self.naming_rate)}",
                f"calibration error        {_figure(self.ECE)}",
                f"failures                 {len(self.failures)}",
            ]
        )

    def _interval(self) -> str:
        if self.gIoU_present_ci is None:
            return ""
        low, high = self.gIoU_present_ci
        return f"  ({CONFIDENCE:.0%} interval {low:.4f} to {high:.4f})"


class SegmentationMetrics:
    """Collects one sample at a time: `update` for each, then `compute`.

    The definitions are those of the official validation (LISA, arXiv 2308.00692, section 4.1;
    rules in the official code): a pixel to ignore counts nowhere; IoU = I / (U + 1e-5), and 1
    where prediction and target are both empty; gIoU = sum of IoU / (n + 1e-5); cIoU = sum of
    I / (sum of U + 1e-10). Counts are exact integers here; the official code keeps float32.
    """

    def __init__(self) -> None:
        self._samples: list[_Sample] = []

    def update(
        self,
        prediction: np.ndarray,
        target: np.ndarray,
        ignore: np.ndarray | None = None,
        *,
        answered: bool,
        failed: bool = False,
        tags: Iterable[str] = (),
        name: str = "",
        score: float | None = None,
        named: bool | None = None,
    ) -> Self:
        """Adds one sample and returns the metrics themselves.

        Args:
            prediction: bool [H, W], the union of the predicted masks.
            target: bool [H, W], all False where the target is absent.
            ignore: bool [H, W], True where no score is taken; None ignores nothing.
            answered: whether at least one mask was emitted, even an empty one.
            failed: the sample raised. It counts as an unanswered question with an empty mask
                that is wrong: IoU 0, even where the target is absent.
            tags: the groups the sample belongs to.
            name: how `failures` calls it.
            score: the model's own estimate of the IoU, in [0, 1]; None: it gave none.
            named: whether the answer names the target; None: nobody knows its name.

        Raises:
            DataError: a mask is not bool [H, W], or two of them differ in size. Nothing is added.
        """
        wanted = _checked("target", target, target.shape)
        predicted = _checked("prediction", prediction, target.shape) & (not failed)
        if ignore is not None:
            counted = ~_checked("ignore", ignore, target.shape)
            wanted, predicted = wanted & counted, predicted & counted
        self._samples.append(
            _Sample(
                intersection=int(np.count_nonzero(predicted & wanted)),
                union=int(np.count_nonzero(predicted | wanted)),
                present=bool(wanted.any()),
                answered=answered and not failed,
                failed=failed,
                tags=frozenset(tags),
                name=name,
                score=None if failed else score,
                named=False if failed and named is not None else named,
            )
        )
        return self

    @property
    def samples(self) -> tuple[SampleScore, ...]:
        """Each sample, in the order of `update`."""
        return tuple(
            SampleScore(one.name, one.iou, one.present, one.answered, one.score, one.named)
            for one in self._samples
        )

    def compute(self) -> SegmentationScores:
        """The scores of everything added so far; the same samples give the same scores.

        Raises:
            DataError: nothing was added.
        """
        samples = self._samples
        if not samples:
            raise DataError("no scores: 0 samples were measured; expected at least 1")
        present = [sample for sample in samples if sample.present]
        absent = [sample for sample in samples if not sample.present]
        rated = [(sample.score, sample.iou) for sample in samples if sample.score is not None]
        reliability = reliability_table(rated)
        return SegmentationScores(
            **vars(_group_scores(samples)),
            gIoU_present_ci=_bootstrap_interval(present),
            N_acc=_share([sample.rightly_empty for sample in absent]),
            emission_rate=_share([sample.answered for sample in present]),
            failures=tuple(sample.name for sample in samples if sample.failed),
            by=_scores_by_tag(samples),
            naming_rate=_share([bool(s.named) for s in present if s.named is not None]),
            ECE=calibration_error(reliability),
            reliability=reliability,
        )


def reliability_table(
    rated: Sequence[tuple[float, float]], bins: int = RELIABILITY_BINS
) -> tuple[ReliabilityBin, ...]:
    """(score, IoU) of answers, both in [0, 1], in ``bins`` bins of equal width by their score.

    A bin holds its lower bound and not its upper one, but for the last, which holds both.
    """
    table = np.array(rated, float).reshape(-1, 2)
    number = np.minimum((table[:, 0] * bins).astype(int), bins - 1)
    parts = [table[number == n] for n in range(bins)]
    means = [part.mean(0).tolist() if len(part) else (None, None) for part in parts]
    return tuple(
        ReliabilityBin(n / bins, (n + 1) / bins, len(part), *mean)
        for n, (part, mean) in enumerate(zip(parts, means, strict=True))
    )


def calibration_error(reliability: Sequence[ReliabilityBin]) -> float | None:
    """Expected calibration error (Naeini et al., 2015) of a table; None where it is empty."""
    total = sum(one.n for one in reliability)
    gaps = [
        one.n * abs(one.score - one.iou)
        for one in reliability
        if one.score is not None and one.iou is not None
    ]
    return sum(gaps) / total if total else None


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """How much better ``first`` is than ``second``: IoUs of the same samples in the same order.

    Raises:
        DataError: there is none, or not as many of the one as of the other.
    """
    if len(first) != len(second) or not len(first):
        raise DataError(
            f"cannot compare {len(first)} with {len(second)} samples; expected as many, at least 1"
        )
    gains = np.array(first, float) - np.array(second, float)
    low, high = mean_interval(gains.tolist())
    return Difference(float(gains.mean()), low, high)


@dataclass(frozen=True)
class _Sample:
    """One sample, reduced to what the scores need. Areas are in pixels."""

    intersection: int
    union: int
    present: bool
    answered: bool
    failed: bool
    tags: frozenset[str]
    name: str
    score: float | None
    named: bool | None

    @property
    def iou(self) -> float:
        if self.rightly_empty:
            return 1.0
        return self.intersection / (self.union + IOU_EPSILON)

    @property
    def rightly_empty(self) -> bool:
        return self.union == 0 and not self.failed


def _checked(role: str, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.dtype != np.bool_ or mask.ndim != 2 or mask.shape != shape:
        expected = f"bool {list(shape)}" if len(shape) == 2 else "bool [H, W]"
        raise DataError(f"{role} is {mask.dtype} {list(mask.shape)}; expected {expected}")
    return mask


def _group_scores(samples: Sequence[_Sample]) -> GroupScores:
    union = sum(sample.union for sample in samples)
    return GroupScores(
        n=len(samples),
        gIoU=_mean_iou(np.array([sample.iou for sample in samples])),
        gIoU_present=_present_iou(samples),
        cIoU=sum(sample.intersection for sample in samples) / (union + CUMULATIVE_EPSILON),
    )


def _scores_by_tag(samples: Sequence[_Sample]) -> dict[str, GroupScores]:
    tags = sorted(frozenset().union(*(sample.tags for sample in samples)))
    return {tag: _group_scores([s for s in samples if tag in s.tags]) for tag in tags}


def _mean_iou(ious: np.ndarray) -> float:
    return float(ious.sum() / (len(ious) + IOU_EPSILON))


def _present_iou(samples: Sequence[_Sample]) -> float | None:
    ious = np.array([sample.iou for sample in samples if sample.present])
    return _mean_iou(ious) if len(ious) else None


def _bootstrap_interval(samples: Sequence[_Sample]) -> tuple[float, float] | None:
    """The percentile interval of the mean IoU when samples are redrawn with replacement."""
    if not samples:
        return None
    scale = len(samples) / (len(samples) + IOU_EPSILON)
    return mean_interval([sample.iou * scale for sample in samples])


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile interval of the mean when values are redrawn with replacement."""
    generator, pool = np.random.default_rng(BOOTSTRAP_SEED), np.array(values, float)
    means = [generator.choice(pool, len(pool)).mean() for _ in range(BOOTSTRAP_RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _share(outcomes: Sequence[bool]) -> float | None:
    return sum(outcomes) / len(outcomes) if outcomes else None


def _row(name: str, group: GroupScores) -> str:
    present = _figure(group.gIoU_present)
    return f"{name:<12}{group.n:>6}{_figure(group.gIoU):>9}{present:>9}{_figure(group.cIoU):>9}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
