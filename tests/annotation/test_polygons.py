"""Masks as polygons: painting them gives the mask back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lisa.annotation.polygons import as_polygons, kept_by_polygons
from lisa.data.reasonseg import TARGET, Shape, rasterise


def painted(mask: np.ndarray) -> np.ndarray:
    shapes = [Shape("target", points.astype(np.int32)) for points in as_polygons(mask)]
    return rasterise(shapes, *mask.shape) == TARGET


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((30, 40), bool)
    mask[top : top + height, left : left + width] = True
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        box(3, 4, 10, 12),
        box(3, 4, 1, 1),
        box(3, 4, 1, 9),
        box(3, 4, 9, 1),
        box(0, 0, 30, 40),
        box(1, 1, 5, 5) | box(10, 20, 8, 3),
    ],
)
def test_a_mask_without_holes_comes_back_whole(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(painted(mask), mask)
    assert all(len(points) >= 3 for points in as_polygons(mask))


def test_holes_stay_holes() -> None:
    mask = box(2, 2, 24, 34) & ~box(6, 6, 8, 8) & ~box(16, 20, 5, 9)
    lost = painted(mask) & ~mask
    assert not (mask & ~painted(mask)).any()
    assert lost.sum() <= 8  # where the cuts run
    assert kept_by_polygons(mask) > 0.98


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_no_pixel_of_a_mask_is_lost(seed: int) -> None:
    random = np.random.default_rng(seed)
    coarse = random.random((6, 8)) < 0.6
    mask = coarse.repeat(5, axis=0).repeat(5, axis=1)
    assert not (mask & ~painted(mask)).any()
