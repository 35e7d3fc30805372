"""COCO segmentations: every form, and what is said of broken ones."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from lisa import masks
from lisa.errors import DataError
from lisa.masks import check_segmentation, decode_rle, decode_segmentation, run_lengths

HEIGHT, WIDTH = 8, 10
SQUARE = [2, 1, 6, 1, 6, 5, 2, 5]
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[1:5, 2:6] = True
RUNS = {"size": [HEIGHT, WIDTH], "counts": [17, 4, 4, 4, 4, 4, 4, 4, 35]}


@pytest.mark.parametrize(
    "segmentation",
    [[SQUARE], RUNS, run_lengths(MASK), [run_lengths(MASK)]],
    ids=["polygon", "run lengths", "compressed", "list of compressed"],
)
def test_every_form_gives_the_same_mask(segmentation: Any) -> None:
    assert np.array_equal(decode_segmentation(segmentation, HEIGHT, WIDTH), MASK)


def test_the_parts_of_a_segmentation_are_one_mask() -> None:
    overlapping = [SQUARE, [4, 3, 9, 3, 9, 7, 4, 7]]
    expected = MASK.copy()
    expected[3:7, 4:9] = True
    assert np.array_equal(decode_segmentation(overlapping, HEIGHT, WIDTH), expected)


def test_no_parts_are_an_empty_mask() -> None:
    mask = decode_segmentation([], HEIGHT, WIDTH)
    assert mask.shape == (HEIGHT, WIDTH)
    assert not mask.any()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 2, 3, 4]], r"polygon 0 has values \[4\]; expected x and y of 3 corners"),
        ([SQUARE, [1, 2, 3, 4, 5, 6, 7]], r"polygon 1 has values \[7\]"),
        ([[1, 2, math.nan, 4, 5, 6]], "polygon 0: a corner is NaN or beyond"),
        ([[1, 2, math.inf, 4, 5, 6]], "polygon 0: a corner is NaN or beyond"),
        ([["a", 2, 3, 4, 5, 6]], "polygon 0 does not hold numbers"),
        ([[[1, 2], [3, 4], [5, 6]]], r"polygon 0 has values \[3, 2\]"),
        ([None], "polygon 0"),
        (None, "its segmentation is a NoneType"),
        ("abc", "its segmentation is a str"),
        ({"size": [8, 10]}, "'counts' is a NoneType"),
        ({"size": [8], "counts": "a"}, r"'size' is \[8\]; expected \[height, width\]"),
        ({"size": [8, 10], "counts": [3]}, "malformed run lengths"),
        ({"size": [8, 10], "counts": ["a"]}, "malformed run lengths"),
        (run_lengths(MASK[:4]), r"of a mask of \[4, 10\]; expected \[8, 10\]"),
    ],
)
def test_what_is_malformed_is_refused(segmentation: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode_segmentation(segmentation, HEIGHT, WIDTH)


def test_checking_paints_nothing() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "coco_mask", None)
        check_segmentation([SQUARE])
        with pytest.raises(DataError, match="polygon 0"):
            check_segmentation([SQUARE[:4]])


def test_run_lengths_that_do_not_fill_their_size_are_refused() -> None:
    """pycocotools leaves the pixels beyond the last run as memory happened to be."""
    short = {**run_lengths(np.ones((4, 5), bool)), "size": [4, 6]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_mask, "decode", lambda rle: np.full((4, 6), 185, np.uint8))
        with pytest.raises(DataError, match=r"malformed run lengths; expected .* \[4, 6\]"):
            decode_rle(short)


@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_well_formed_run_lengths_are_read(mask: np.ndarray) -> None:
    assert np.array_equal(decode_rle(run_lengths(mask)), mask)
