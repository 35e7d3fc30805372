"""The figures against hand-made sums, pycocotools, and records of the official validation."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from lisa.errors import DataError
from lisa.metrics import (
    ReliabilityBin,
    SegmentationMetrics,
    SegmentationScores,
    calibration_error,
    paired_difference,
    reliability_table,
)

GOLDEN = Path(os.environ.get("LISA_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
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


def test_the_same_samples_give_the_same_scores(five_samples: SegmentationMetrics) -> None:
    assert five_samples.compute() == five_samples.compute()


# Names, scores that can be relied upon, and pairs


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


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    hard = np.random.default_rng(1).uniform(0, 0.9, 100)
    difference = paired_difference((hard + 0.05).tolist(), hard.tolist())
    assert difference.mean == pytest.approx(0.05)
    assert (difference.low, difference.high) == pytest.approx((0.05, 0.05))
    noise = np.random.default_rng(2).normal(0, 0.3, 100)
    unclear = paired_difference((hard + noise).tolist(), hard.tolist())
    assert unclear.low < 0 < unclear.high or abs(unclear.mean) > 0.05


def test_runs_of_different_samples_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="cannot compare 2 with 1 samples"):
        paired_difference([0.1, 0.2], [0.1])
    with pytest.raises(DataError, match="cannot compare 0 with 0 samples"):
        paired_difference([], [])


# Reports


def test_to_dict_is_json_with_these_keys(five_samples: SegmentationMetrics) -> None:
    values = five_samples.compute().to_dict()
    assert json.loads(json.dumps(values)) == values
    assert " ".join(values) == (
        "n gIoU gIoU_present gIoU_present_ci cIoU N_acc emission_rate failures by "
        "naming_rate ECE reliability"
    )
    assert " ".join(values["by"]["long"]) == "n gIoU gIoU_present cIoU"


def test_the_table_shows_the_figures(five_samples: SegmentationMetrics) -> None:
    lines = str(five_samples.compute()).splitlines()
    assert lines[1].split() == ["all", "5", "0.4667", "0.4444", "0.2222"]
    assert [line.split()[0] for line in lines[2:4]] == ["long", "short"]
    assert "interval" in lines[4]
    assert str(score(EMPTY, EMPTY)).splitlines()[1].split() == ["all", "1", "1.0000", "-", "0.0000"]


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
