"""Masks as COCO files hold them: polygons, run lengths, compressed run lengths.

    [[x1, y1, x2, y2, ...], ...]              polygons; the mask is what any of them covers
    {"size": [H, W], "counts": [...] or str}  run lengths, down the columns
    [{"size": ..., "counts": ...}, ...]       several of these (refCLEF)
    []                                        nothing

This file knows segmentations; it refuses to know files and pictures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from lisa.errors import DataError

FARTHEST_PIXEL = 1_000_000  # a corner may lie outside its photo, but not in the void

_MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)


def check_segmentation(segmentation: Any) -> None:
    """Look at a segmentation without painting it.

    Raises:
        DataError: it is none of the forms above; a polygon has fewer than three corners, or one
            that is not a number or out of all bounds.
    """
    if isinstance(segmentation, dict):
        _check_run_lengths(segmentation)
        return
    if not isinstance(segmentation, list):
        found = type(segmentation).__name__
        raise DataError(f"its segmentation is a {found}; expected polygons or run lengths")
    for number, part in enumerate(segmentation):
        if isinstance(part, dict):
            _check_run_lengths(part)
        else:
            _check_polygon(part, number)


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A segmentation of any form -> bool [height, width]: everything that its parts cover.

    Raises:
        DataError: it is malformed (see ``check_segmentation``), or its run lengths are of a mask of
            another size.
    """
    check_segmentation(segmentation)
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    polygons = [part for part in parts if not isinstance(part, dict)]
    mask = np.zeros((height, width), bool)
    if polygons:
        mask |= coco_mask.decode(_polygon_rle(polygons, height, width)).astype(bool)
    for part in (part for part in parts if isinstance(part, dict)):
        decoded = decode_rle(part)
        if decoded.shape != mask.shape:
            sizes = f"{list(decoded.shape)}; expected {list(mask.shape)}"
            raise DataError(f"its run lengths are of a mask of {sizes}")
        mask |= decoded
    return mask


def _polygon_rle(polygons: list[Any], height: int, width: int) -> Any:
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def decode_rle(segmentation: dict[str, Any]) -> np.ndarray:
    """COCO run lengths, compressed or not -> bool [H, W].

    Raises:
        DataError: the run lengths are malformed, or do not fill their size.
    """
    try:
        counts, size = segmentation["counts"], segmentation["size"]
        if isinstance(counts, list):
            rle = coco_mask.frPyObjects(segmentation, *size)
        else:
            rle = {"size": size, "counts": counts.encode()}
        decoded = coco_mask.decode(rle)
    except _MALFORMED as error:
        raise DataError(f"malformed run lengths ({error!r})") from error
    filled = np.count_nonzero(decoded) == coco_mask.area(rle)
    if not filled:  # too few: pycocotools leaves the rest open
        raise DataError(f"malformed run lengths; expected as many as fill {rle['size']}")
    return decoded.astype(bool)


def _check_polygon(polygon: Any, number: int) -> None:
    try:
        values = np.array(polygon, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"polygon {number} does not hold numbers; expected [x1, y1, ...]") from None
    if values.ndim != 1 or len(values) < 6 or len(values) % 2:
        shape = list(values.shape)
        raise DataError(f"polygon {number} has values {shape}; expected x and y of 3 corners")
    if not np.all(np.abs(values) <= FARTHEST_PIXEL):
        far = f"a corner is NaN or beyond {FARTHEST_PIXEL:,} pixels"
        raise DataError(f"polygon {number}: {far}; expected a position")


def _check_run_lengths(segmentation: dict[str, Any]) -> None:
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(counts, str | list):
        raise DataError(f"'counts' is a {type(counts).__name__}; expected run lengths")
    if not (isinstance(size, list) and [type(side) for side in size] == [int, int]):
        raise DataError(f"'size' is {size!r}; expected [height, width]")
