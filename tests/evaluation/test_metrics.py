"""The figures against hand-made sums, pycocotools, and records of the official validation."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from helpers.paths import GOLDEN
from lisa.errors import DataError
from lisa.evaluation.metrics import (
    ReliabilityBin,
    SegmentationMetrics,
    SegmentationScores,
    boundary_iou,
    calibration_error,
    reliability_table,
)

needs_golden = pytest.mark.skipif(
    not (GOLDEN / "metrics").is_dir(),
    reason=f"no official records in '{GOLDEN}'; set LISA_GOLDEN to their folder",
)
GOLDEN_TOLERANCE = 1e-6  # the official code sums in float32

FULL = np.ones((2, 5), bool)
EMPTY = np.zeros((2, 5), bool)


def strip(*columns: int) -> np.ndarray:
    """bool [2, 5] with whole columns set, two pixels each."""
    mask = EMPTY.copy()
    mask[:, list(columns)] = True
    return mask


def score(
    prediction: np.ndarray,
    target: np.ndarray,
    ignore: np.ndarray | None = None,
    answered: bool = True,
) -> SegmentationScores:
    return SegmentationMetrics().update(prediction, target, ignore, answered=answered).compute()


def masks(shape: tuple[int, int] = (4, 5)) -> st.SearchStrategy[np.ndarray]:
    return arrays(bool, shape)


# Sums by hand


@pytest.fixture
def five_samples() -> SegmentationMetrics:
    """IoU 2/6, 1, 0 (not answered) with a target; 1 (refused), 0 (not refused) without."""
    metrics = SegmentationMetrics()
    metrics.update(strip(0, 1), strip(1, 2), answered=True, tags={"short"})
    metrics.update(strip(3), strip(3), answered=True, tags={"long"})
    metrics.update(EMPTY, strip(0, 1, 2, 3), answered=False, tags={"long"})
    metrics.update(EMPTY, EMPTY, answered=False, tags={"short"})
    return metrics.update(strip(4), EMPTY, answered=True, tags={"short"})


def test_figures_by_hand(five_samples: SegmentationMetrics) -> None:
    scores = five_samples.compute()
    assert scores.n == 5
    assert scores.gIoU == pytest.approx((2 / 6 + 1 + 0 + 1 + 0) / 5, abs=1e-5)
    assert scores.gIoU_present == pytest.approx((2 / 6 + 1 + 0) / 3, abs=1e-5)
    assert scores.cIoU == pytest.approx((2 + 2 + 0 + 0 + 0) / (6 + 2 + 8 + 0 + 2))
    assert scores.N_acc == 1 / 2
    assert scores.emission_rate == 2 / 3
    assert scores.failures == ()


def test_figures_by_tag(five_samples: SegmentationMetrics) -> None:
    by = five_samples.compute().by
    assert list(by) == ["long", "short"]
    assert (by["long"].n, by["short"].n) == (2, 3)
    assert by["long"].gIoU == pytest.approx(1 / 2, abs=1e-5)
    assert by["short"].gIoU == pytest.approx((2 / 6 + 1 + 0) / 3, abs=1e-5)
    assert by["short"].gIoU_present == pytest.approx(2 / 6, abs=2e-5)
    assert by["short"].cIoU == pytest.approx(2 / (6 + 0 + 2))


def test_the_official_epsilons() -> None:
    assert score(strip(0), strip(0)).gIoU == 2 / (2 + 1e-5) / (1 + 1e-5)
    assert score(strip(0), strip(0)).cIoU == 2 / (2 + 1e-10)
    assert score(EMPTY, EMPTY).gIoU == 1 / (1 + 1e-5)
    assert score(EMPTY, EMPTY).cIoU == 0


def test_a_share_of_nothing_is_none() -> None:
    absent, present = score(EMPTY, EMPTY), score(FULL, FULL)
    assert (absent.gIoU_present, absent.gIoU_present_ci, absent.emission_rate) == (None,) * 3
    assert present.N_acc is None


def test_an_empty_mask_counts_as_emitted_and_as_a_refusal() -> None:
    assert score(EMPTY, FULL, answered=True).emission_rate == 1
    assert score(EMPTY, EMPTY, answered=True).N_acc == 1


@pytest.mark.parametrize(("target", "union"), [(EMPTY, 0), (strip(2), 2)])
def test_a_failure_is_an_empty_mask_that_is_wrong(target: np.ndarray, union: int) -> None:
    metrics = SegmentationMetrics().update(FULL, FULL, answered=True)
    metrics.update(FULL, target, answered=True, failed=True, name="photo.jpg")
    scores = metrics.compute()
    assert scores.gIoU == pytest.approx(1 / 2, abs=1e-5)
    assert scores.cIoU == pytest.approx(10 / (10 + union))
    assert scores.N_acc == (0 if union == 0 else None)
    assert scores.emission_rate == (1 if union == 0 else 1 / 2)
    assert scores.failures == ("photo.jpg",)


def test_counts_stay_exact_beyond_float32() -> None:
    target = np.ones((4097, 4097), bool)
    prediction = target.copy()
    prediction[0, 0] = False
    assert score(prediction, target).cIoU == (4097**2 - 1) / (4097**2 + 1e-10)


# Thresholds and outlines


def test_thresholds_are_reached_exactly() -> None:
    metrics = SegmentationMetrics()
    target = np.ones((1, 10), bool)
    for pixels in (4, 5, 7, 10):
        metrics.update(np.arange(10)[np.newaxis] < pixels, target, answered=True)
    metrics.update(np.zeros((1, 10), bool), np.zeros((1, 10), bool), answered=False)  # absent
    assert metrics.compute().precision == {
        "P@0.5": 3 / 4,
        "P@0.6": 2 / 4,
        "P@0.7": 2 / 4,
        "P@0.8": 1 / 4,
        "P@0.9": 1 / 4,
    }


@given(st.lists(st.tuples(masks(), masks()), min_size=1, max_size=6))
def test_thresholds_agree_with_fractions(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    metrics = SegmentationMetrics()
    for prediction, target in pairs:
        metrics.update(prediction, target, answered=True)
    ious = [Fraction(int((p & t).sum()), int((p | t).sum())) for p, t in pairs if t.any()]
    for name, share in metrics.compute().precision.items():
        reached = [iou >= Fraction(name.removeprefix("P@")) for iou in ious]
        assert share == (sum(reached) / len(reached) if reached else None)


def near_outline(mask: np.ndarray, distance: int) -> set[tuple[int, int]]:
    """Cheng et al. (2021) word for word: a mask's pixels that have one outside within a distance.

    A distance as their erosion by squares has it: the larger of the two along the axes.
    """
    height, width = mask.shape
    inside = {(y, x) for y in range(height) for x in range(width) if mask[y, x]}
    steps = range(-distance, distance + 1)
    return {
        (y, x) for y, x in inside if any((y + a, x + b) not in inside for a in steps for b in steps)
    }


@given(arrays(bool, (9, 12)), arrays(bool, (9, 12)), st.sampled_from([0.02, 0.1, 0.2]))
def test_outlines_agree_with_the_definition(
    prediction: np.ndarray, target: np.ndarray, ratio: float
) -> None:
    distance = max(1, round(ratio * (9**2 + 12**2) ** 0.5))
    first, second = near_outline(prediction, distance), near_outline(target, distance)
    expected = len(first & second) / len(first | second) if first | second else 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lisa.evaluation.metrics.OUTLINE_WIDTH", ratio)
        assert boundary_iou(prediction, target) == pytest.approx(expected)


def test_outlines_of_a_large_mask_see_what_its_area_hides() -> None:
    target = np.zeros((300, 400), bool)
    target[50:250, 50:350] = True  # the outline is 10 pixels wide: 2 % of 500
    prediction = np.zeros_like(target)
    prediction[55:245, 55:345] = True
    scores = score(prediction, target)
    assert scores.gIoU == pytest.approx(190 * 290 / (200 * 300), abs=1e-4)
    rings = [200 * 300 - 180 * 280, 190 * 290 - 170 * 270]
    common = 190 * 290 - 180 * 280
    assert scores.boundary_IoU == pytest.approx(common / (sum(rings) - common))


def test_absent_and_present_targets_are_told_apart_by_pixels() -> None:
    """N-acc and T-acc by the four cells of their definition (Liu et al., 2023)."""
    cells = [(FULL, FULL, 3), (EMPTY, FULL, 1), (EMPTY, EMPTY, 2), (FULL, EMPTY, 3)]
    metrics = SegmentationMetrics()
    for prediction, target, count in cells:
        for _ in range(count):
            metrics.update(prediction, target, answered=True)
    scores = metrics.compute()
    assert (scores.N_acc, scores.T_acc) == (2 / (2 + 3), 3 / (3 + 1))
    assert scores.emission_rate == 1  # an empty mask is a mask


# Properties


@given(prediction=masks(), target=masks())
def test_iou_agrees_with_pycocotools(prediction: np.ndarray, target: np.ndarray) -> None:
    predicted, wanted = (
        coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in (prediction, target)
    )
    scores = score(prediction, target)
    if prediction.any() or target.any():
        expected = coco_mask.iou([predicted], [wanted], [0]).item()
        assert scores.gIoU == pytest.approx(expected, abs=3e-5)
        assert scores.cIoU == pytest.approx(expected, abs=1e-9)


@given(prediction=masks(), other=masks(), target=masks(), ignore=masks())
def test_ignored_pixels_change_nothing(
    prediction: np.ndarray, other: np.ndarray, target: np.ndarray, ignore: np.ndarray
) -> None:
    mixed = np.where(ignore, other, prediction)
    assert score(mixed, target, ignore) == score(prediction, target, ignore)
    assert score(prediction, np.where(ignore, other, target), ignore) == score(
        prediction, target, ignore
    )


@given(prediction=masks((2, 6)), target=masks((2, 6)))
def test_ignoring_columns_is_cutting_them_off(prediction: np.ndarray, target: np.ndarray) -> None:
    ignore = np.zeros((2, 6), bool)
    ignore[:, 4:] = True
    assert score(prediction, target, ignore) == score(prediction[:, :4], target[:, :4])


def test_a_target_that_is_all_ignored_is_absent() -> None:
    assert score(strip(1), strip(1), strip(1)).N_acc == 1


def test_the_interval_is_that_of_the_normal_law_for_many_samples() -> None:
    generator = np.random.default_rng(7)
    ious = generator.integers(0, 101, 400) / 100
    metrics = SegmentationMetrics()
    target = np.ones((1, 100), bool)
    for iou in ious:
        metrics.update(np.arange(100)[np.newaxis] < iou * 100 - 0.5, target, answered=True)
    scores = metrics.compute()
    assert scores.gIoU_present_ci is not None
    low, high = scores.gIoU_present_ci
    margin = 1.96 * ious.std() / np.sqrt(400)
    assert low == pytest.approx(ious.mean() - margin, abs=0.1 * margin)
    assert high == pytest.approx(ious.mean() + margin, abs=0.1 * margin)


def test_every_figure_lies_in_its_interval(five_samples: SegmentationMetrics) -> None:
    scores = five_samples.compute()
    for group in (scores, *scores.by.values()):
        values = {name: getattr(group, name, None) for name in group.intervals} | dict(
            group.precision
        )
        for name, (low, high) in group.intervals.items():
            assert 0 <= low <= values[name] <= high <= 1, name
    assert set(scores.intervals) == {
        *("gIoU", "gIoU_present", "cIoU", "boundary_IoU", "N_acc", "T_acc", "emission_rate"),
        *(f"P@0.{tenths}" for tenths in range(5, 10)),
    }


def test_the_interval_of_ciou_is_that_of_the_ratio() -> None:
    """Against a bootstrap written out, drawn by another generator."""
    generator = np.random.default_rng(3)
    metrics, pairs = SegmentationMetrics(), []
    for _ in range(60):
        target, prediction = (np.arange(99)[np.newaxis] < n for n in generator.integers(1, 99, 2))
        metrics.update(prediction, target, answered=True)
        pairs.append(((prediction & target).sum(), (prediction | target).sum()))
    drawn = [generator.choice(pairs, 60).sum(0) for _ in range(4000)]
    expected = np.quantile([above / below for above, below in drawn], [0.025, 0.975])
    assert metrics.compute().intervals["cIoU"] == pytest.approx(expected, abs=0.01)


def test_the_same_samples_give_the_same_scores(five_samples: SegmentationMetrics) -> None:
    assert five_samples.compute() == five_samples.compute()


# Names, and scores that can be relied upon


def test_a_target_without_a_name_is_not_counted_as_unnamed() -> None:
    metrics = SegmentationMetrics()
    for named in (True, False, None, True):
        metrics.update(FULL, FULL, answered=True, named=named)
    metrics.update(EMPTY, EMPTY, answered=False, named=False)  # absent: there is nothing to name
    metrics.update(EMPTY, FULL, answered=True, named=True, failed=True)
    assert metrics.compute().naming_rate == 2 / 4
    assert score(FULL, FULL).naming_rate is None


def test_reliability_by_hand() -> None:
    table = reliability_table([(0.05, 0.2), (0.15, 0.0), (0.5, 0.9), (1.0, 1.0)], bins=2)
    assert [(one.low, one.high, one.n) for one in table] == [(0.0, 0.5, 2), (0.5, 1.0, 2)]
    assert (table[0].score, table[0].iou) == pytest.approx((0.1, 0.1))
    assert (table[1].score, table[1].iou) == pytest.approx((0.75, 0.95))
    assert calibration_error(table) == pytest.approx((2 * 0.0 + 2 * 0.2) / 4)


def test_an_empty_table_has_no_error() -> None:
    table = reliability_table([])
    assert table[0] == ReliabilityBin(0.0, 0.1, 0, None, None)
    assert len(table) == 10
    assert calibration_error(table) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_score_that_is_the_iou_has_no_error(ious: list[float]) -> None:
    table = reliability_table([(iou, iou) for iou in ious])
    assert sum(one.n for one in table) == len(ious)
    assert calibration_error(table) == pytest.approx(0, abs=1e-9)


def test_an_error_is_that_of_the_answers_which_have_a_score() -> None:
    metrics = SegmentationMetrics()
    metrics.update(FULL, FULL, answered=True, score=0.7)
    metrics.update(EMPTY, FULL, answered=False)
    metrics.update(FULL, FULL, answered=True, score=0.7, failed=True)
    scores = metrics.compute()
    assert abs((scores.ECE or 0) - 0.3) < 1e-5
    assert sum(one.n for one in scores.reliability) == 1


def test_samples_are_kept_in_their_order(five_samples: SegmentationMetrics) -> None:
    five_samples.update(FULL, FULL, answered=True, name="last.jpg", score=0.5, named=True)
    samples = five_samples.samples
    assert [round(one.iou, 3) for one in samples] == [0.333, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert [one.present for one in samples] == [True, True, True, False, False, True]
    assert (samples[-1].name, samples[-1].score, samples[-1].named) == ("last.jpg", 0.5, True)


# Reports


def test_to_dict_is_json_with_these_keys(five_samples: SegmentationMetrics) -> None:
    values = five_samples.compute().to_dict()
    assert json.loads(json.dumps(values)) == values
    assert " ".join(values) == (
        "n gIoU gIoU_present cIoU boundary_IoU precision N_acc T_acc emission_rate naming_rate "
        "intervals gIoU_present_ci failures by ECE reliability"
    )
    assert " ".join(values["by"]["long"]) == (
        "n gIoU gIoU_present cIoU boundary_IoU precision N_acc T_acc emission_rate naming_rate "
        "intervals"
    )
    assert values["intervals"]["gIoU_present"] == values["gIoU_present_ci"]


# Bad input


@pytest.mark.parametrize(
    ("prediction", "target", "ignore", "message"),
    [
        (
            FULL.astype(np.uint8),
            FULL,
            None,
            r"prediction is uint8 \[2, 5\]; expected bool \[2, 5\]",
        ),
        (FULL[:1], FULL, None, r"prediction is bool \[1, 5\]; expected bool \[2, 5\]"),
        (FULL, FULL.astype(float), None, r"target is float64 \[2, 5\]; expected bool \[2, 5\]"),
        (FULL[None], FULL[None], None, r"target is bool \[1, 2, 5\]; expected bool \[H, W\]"),
        (FULL, FULL, FULL[:, :1], r"ignore is bool \[2, 1\]; expected bool \[2, 5\]"),
    ],
)
def test_a_wrong_mask_is_refused_and_not_counted(
    prediction: np.ndarray, target: np.ndarray, ignore: np.ndarray | None, message: str
) -> None:
    metrics = SegmentationMetrics()
    with pytest.raises(DataError, match=message):
        metrics.update(prediction, target, ignore, answered=True)
    with pytest.raises(DataError, match="0 samples were measured"):
        metrics.compute()


# Records of the official validation


@pytest.fixture(scope="module")
def golden() -> tuple[dict, dict[str, np.ndarray]]:
    expected = json.loads((GOLDEN / "metrics" / "expected.json").read_text())
    return expected, dict(np.load(GOLDEN / "metrics" / "pairs.npz"))


def add_image(metrics: SegmentationMetrics, pairs: dict[str, np.ndarray], image: str) -> None:
    for logits, target in zip(pairs[f"{image}.logits"], pairs[f"{image}.target"], strict=True):
        metrics.update(logits > 0, target == 1, target == 255, answered=True)


@needs_golden
def test_official_figures_of_growing_sets(golden: tuple[dict, dict[str, np.ndarray]]) -> None:
    expected, pairs = golden
    metrics = SegmentationMetrics()
    for image, official in zip(expected["images"], expected["cumulative"], strict=True):
        add_image(metrics, pairs, image["image"])
        scores = metrics.compute()
        assert scores.gIoU == pytest.approx(official["giou"], abs=GOLDEN_TOLERANCE)
        assert scores.cIoU == pytest.approx(official["ciou"], abs=GOLDEN_TOLERANCE)
    assert scores.gIoU == pytest.approx(expected["all"]["giou"], abs=GOLDEN_TOLERANCE)


@needs_golden
def test_official_figures_of_single_images(golden: tuple[dict, dict[str, np.ndarray]]) -> None:
    expected, pairs = golden
    for image, official in zip(expected["images"], expected["single_image"], strict=True):
        metrics = SegmentationMetrics()
        add_image(metrics, pairs, image["image"])
        scores = metrics.compute()
        assert scores.gIoU == pytest.approx(official["giou"], abs=GOLDEN_TOLERANCE)
        assert scores.cIoU == pytest.approx(official["ciou"], abs=GOLDEN_TOLERANCE)


@needs_golden
def test_official_pixel_counts_of_single_masks(golden: tuple[dict, dict[str, np.ndarray]]) -> None:
    expected, pairs = golden
    for image in expected["images"]:
        name = image["image"]
        for mask, logits, target in zip(
            image["masks"], pairs[f"{name}.logits"], pairs[f"{name}.target"], strict=True
        ):
            scores = score(logits > 0, target == 1, target == 255)
            intersection, union = mask["intersection"][1], mask["union"][1]
            assert scores.cIoU == intersection / (union + 1e-10)
            assert (scores.gIoU_present is not None) == (mask["target_area"][1] > 0)
