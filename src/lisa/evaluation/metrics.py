"""Scores of predicted masks: gIoU and cIoU as the official LISA computes them, and what they hide.

The two official figures average over every sample, so a model gains by refusing and nobody sees
it. Beside them stand the mean IoU of the samples that have a target; the shares of IoU above
thresholds, as papers on referring expressions give them; the IoU of outlines alone; the shares of
absent and present targets that were told apart; the share of targets that were named; and how far
the model's own estimate of its IoU can be relied upon. Each has an interval.

This file knows boolean masks. It does not know models, pictures, questions or data sets.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import cv2
import numpy as np

from lisa.errors import DataError
from lisa.evaluation.bootstrap import Interval, percentiles, resampled_sums

# The constants of the official code. Both stand in a denominator.
IOU_EPSILON = 1e-5  # beside the union of one sample, and beside the number of samples
CUMULATIVE_EPSILON = 1e-10  # beside the union of all samples together

OUTLINE_WIDTH = 0.02  # of the picture's diagonal (Cheng et al., 2021)
TENTHS = (5, 6, 7, 8, 9)  # the thresholds of the referring papers, P@0.5 to P@0.9
RELIABILITY_BINS = 10  # of equal width, from 0 to 1


@dataclass(frozen=True)
class SampleScore:
    """One sample as it was scored: all that the scores need, and to compare runs in pairs.

    Attributes:
        name: where the sample came from.
        iou: I / (U + 1e-5); 1 where the target is absent and nothing was predicted.
        present: it has a target.
        answered: at least one mask was emitted, be it empty.
        score: the model's own estimate of the IoU; None: it gave none.
        named: whether the answer names the target; None: the target has no name.
        intersection: in pixels.
        union: in pixels.
        boundary_iou: the IoU of the outlines; 1 where ``iou`` is 1 because both are empty.
        found: at least one pixel was predicted.
        failed: it raised, and counts as wrong.
        tags: the groups it belongs to.
    """

    name: str
    iou: float
    present: bool
    answered: bool
    score: float | None
    named: bool | None
    intersection: int
    union: int
    boundary_iou: float
    found: bool
    failed: bool
    tags: tuple[str, ...]

    @property
    def rightly_empty(self) -> bool:
        """The target is absent, and nothing was predicted."""
        return self.union == 0 and not self.failed


@dataclass(frozen=True)
class GroupScores:
    """The scores of some samples. IoU values and shares are in [0, 1].

    Attributes:
        n: how many samples were measured, failures included.
        gIoU: mean IoU of all samples; an empty mask for an absent target is 1 (official rule).
        gIoU_present: mean IoU of the samples that have a target.
        cIoU: sum of intersections over sum of unions, all samples together.
        boundary_IoU: mean IoU of the outlines of present targets (Cheng et al., 2021).
        precision: "P@0.5" to "P@0.9": share of present targets whose IoU is at least so much.
        N_acc: share of absent targets answered with no pixel (Liu et al., 2023, GRES).
        T_acc: share of present targets answered with at least one pixel (GRES).
        emission_rate: share of present targets answered with at least one mask, be it empty.
        naming_rate: share of present targets that the answer names, of those that have a name.
        intervals: 95 % bootstrap intervals (low, high), by the names above.

    What is about present targets is None where there are none, and so with absent ones.
    """

    n: int
    gIoU: float
    gIoU_present: float | None
    cIoU: float
    boundary_IoU: float | None
    precision: Mapping[str, float | None]
    N_acc: float | None
    T_acc: float | None
    emission_rate: float | None
    naming_rate: float | None
    intervals: Mapping[str, Interval]


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers whose score lies between two bounds."""

    low: float
    high: float
    n: int
    score: float | None  # mean score; None: no answer lies here
    iou: float | None  # mean IoU of the same answers


@dataclass(frozen=True)
class SegmentationScores(GroupScores):
    """What `SegmentationMetrics.compute` found: the scores of all samples, and of each group.

    Attributes:
        failures: names of the samples that failed.
        by: the scores of each tag.
        ECE: expected calibration error: mean distance between score and IoU over the bins of
            ``reliability``, by their share of the answers; None where no answer has a score.
        reliability: score and IoU of the answers that have a score, by the size of the score.
    """

    failures: tuple[str, ...]
    by: Mapping[str, GroupScores]
    ECE: float | None
    reliability: tuple[ReliabilityBin, ...]

    @property
    def gIoU_present_ci(self) -> Interval | None:
        """The interval of ``gIoU_present``; None without a present target."""
        return self.intervals.get("gIoU_present")

    def to_dict(self) -> dict[str, Any]:
        """The scores under their own names, made of what JSON can hold."""
        interval = self.gIoU_present_ci
        return _group_dict(self) | {
            "gIoU_present_ci": None if interval is None else list(interval),
            "failures": list(self.failures),
            "by": {tag: _group_dict(group) for tag, group in self.by.items()},
            "ECE": self.ECE,
            "reliability": [asdict(one) for one in self.reliability],
        }


class SegmentationMetrics:
    """Collects one sample at a time: `update` for each, then `compute`.

    The definitions are those of the official validation (LISA, arXiv 2308.00692, section 4.1;
    rules in the official code): a pixel to ignore counts nowhere; IoU = I / (U + 1e-5), and 1
    where prediction and target are both empty; gIoU = sum of IoU / (n + 1e-5); cIoU = sum of
    I / (sum of U + 1e-10). Counts are exact integers here; the official code keeps float32.
    """

    def __init__(self) -> None:
        self._samples: list[SampleScore] = []

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
        intersection = int(np.count_nonzero(predicted & wanted))
        union = int(np.count_nonzero(predicted | wanted))
        both_empty = union == 0 and not failed
        return self.add(
            SampleScore(
                name=name,
                iou=1.0 if both_empty else intersection / (union + IOU_EPSILON),
                present=bool(wanted.any()),
                answered=answered and not failed,
                score=None if failed else score,
                named=False if failed and named is not None else named,
                intersection=intersection,
                union=union,
                boundary_iou=1.0 if both_empty else boundary_iou(predicted, wanted),
                found=bool(predicted.any()),
                failed=failed,
                tags=tuple(sorted(tags)),
            )
        )

    def add(self, sample: SampleScore) -> Self:
        """Adds a sample that was scored before, and returns the metrics themselves."""
        self._samples.append(sample)
        return self

    @property
    def samples(self) -> tuple[SampleScore, ...]:
        """Each sample, in the order of `update`."""
        return tuple(self._samples)

    def compute(self) -> SegmentationScores:
        """The scores of everything added so far; the same samples give the same scores.

        Raises:
            DataError: nothing was added.
        """
        samples = self._samples
        if not samples:
            raise DataError("no scores: 0 samples were measured; expected at least 1")
        rated = [(sample.score, sample.iou) for sample in samples if sample.score is not None]
        reliability = reliability_table(rated)
        return SegmentationScores(
            **vars(group_scores(samples)),
            failures=tuple(sample.name for sample in samples if sample.failed),
            by=_scores_by_tag(samples),
            ECE=calibration_error(reliability),
            reliability=reliability,
        )


def boundary_iou(prediction: np.ndarray, target: np.ndarray) -> float:
    """IoU of what lies near the outlines of two masks, each bool [H, W] (Cheng et al., 2021).

    Of each mask the pixels count that lie within `OUTLINE_WIDTH` of the picture's diagonal of the
    outside; beyond the picture's edge is outside, too. Without any such pixel it is 0.
    """
    distance = max(1, round(OUTLINE_WIDTH * math.hypot(*target.shape)))  # as a king moves
    x, y, width, height = cv2.boundingRect((prediction | target).astype(np.uint8))
    part = np.s_[y : y + height, x : x + width]  # all that is not outside of both
    near, wanted = (_near_outline(mask[part], distance) for mask in (prediction, target))
    union = int(np.count_nonzero(near | wanted))
    return int(np.count_nonzero(near & wanted)) / union if union else 0.0


def _near_outline(mask: np.ndarray, distance: int) -> np.ndarray:
    if not mask.size:
        return mask
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    core = cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask & (core == 0))


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


def _checked(role: str, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.dtype != np.bool_ or mask.ndim != 2 or mask.shape != shape:
        expected = f"bool {list(shape)}" if len(shape) == 2 else "bool [H, W]"
        raise DataError(f"{role} is {mask.dtype} {list(mask.shape)}; expected {expected}")
    return mask


@dataclass(frozen=True)
class Measure:
    """A sum over samples, over another one: every figure is such a ratio."""

    above: Callable[[SampleScore], float]
    below: Callable[[SampleScore], float] = lambda sample: 1.0
    epsilon: float = 0.0  # beside the lower sum


def _reaches(tenths: int) -> Callable[[SampleScore], float]:
    """Whether intersection over union is at least so many tenths, in whole numbers."""
    return lambda sample: sample.union > 0 and 10 * sample.intersection >= tenths * sample.union


PRECISION = {f"P@{tenths / 10}": Measure(_reaches(tenths)) for tenths in TENTHS}

# Which samples, and what is measured of them.
MEASURES: tuple[tuple[Callable[[SampleScore], bool], Mapping[str, Measure]], ...] = (
    (
        lambda sample: True,
        {
            "gIoU": Measure(lambda sample: sample.iou, epsilon=IOU_EPSILON),
            "cIoU": Measure(
                lambda sample: sample.intersection, lambda sample: sample.union, CUMULATIVE_EPSILON
            ),
        },
    ),
    (
        lambda sample: sample.present,
        {
            "gIoU_present": Measure(lambda sample: sample.iou, epsilon=IOU_EPSILON),
            "boundary_IoU": Measure(lambda sample: sample.boundary_iou),
            **PRECISION,
            "T_acc": Measure(lambda sample: sample.found),
            "emission_rate": Measure(lambda sample: sample.answered),
        },
    ),
    (
        lambda sample: not sample.present,
        {"N_acc": Measure(lambda sample: sample.rightly_empty)},
    ),
    (
        lambda sample: sample.present and sample.named is not None,
        {"naming_rate": Measure(lambda sample: bool(sample.named))},
    ),
)


def measured(samples: Sequence[SampleScore], measures: Iterable[Measure]) -> np.ndarray:
    """[N, K, 2]: what each sample adds to the upper and to the lower sum of K measures."""
    sums = [[(one.above(sample), one.below(sample)) for one in measures] for sample in samples]
    return np.array(sums, float)


def ratios(sums: np.ndarray, measures: Iterable[Measure]) -> np.ndarray:
    """Sums [..., K, 2] -> the values [..., K] of K measures."""
    return sums[..., 0] / (sums[..., 1] + np.array([one.epsilon for one in measures]))


def group_scores(samples: Sequence[SampleScore]) -> GroupScores:
    """The scores of at least one sample.

    For the interval of a figure, the samples that it is about are drawn anew.
    """
    values: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for about, measures in MEASURES:
        some, kinds = [sample for sample in samples if about(sample)], list(measures.values())
        if some:
            columns = measured(some, kinds)
            values |= zip(measures, ratios(columns.sum(0), kinds).tolist(), strict=True)
            drawn = resampled_sums(columns.reshape(len(some), -1)).reshape(-1, len(kinds), 2)
            intervals |= zip(measures, map(percentiles, ratios(drawn, kinds).T), strict=True)
    return GroupScores(
        n=len(samples),
        gIoU=values["gIoU"],
        gIoU_present=values.get("gIoU_present"),
        cIoU=values["cIoU"],
        boundary_IoU=values.get("boundary_IoU"),
        precision={name: values.get(name) for name in PRECISION},
        N_acc=values.get("N_acc"),
        T_acc=values.get("T_acc"),
        emission_rate=values.get("emission_rate"),
        naming_rate=values.get("naming_rate"),
        intervals=intervals,
    )


def _scores_by_tag(samples: Sequence[SampleScore]) -> dict[str, GroupScores]:
    tags = sorted({tag for sample in samples for tag in sample.tags})
    return {tag: group_scores([s for s in samples if tag in s.tags]) for tag in tags}


def _group_dict(group: GroupScores) -> dict[str, Any]:
    """The fields of every group, as JSON has them."""
    values = {name: getattr(group, name) for name in GroupScores.__dataclass_fields__}
    intervals = {name: list(interval) for name, interval in group.intervals.items()}
    return values | {"precision": dict(group.precision), "intervals": intervals}
