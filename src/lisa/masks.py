"""Masks and pictures in the forms that files and annotation tools hold them in.

Run lengths, polygons along the pixels' edges, pictures and JSON as bytes. This file knows one mask
at a time and the forms; it knows no question, no answer and no model.
"""

import functools
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import PIL.Image
from pycocotools import mask as coco_mask

from lisa.errors import DataError

FARTHEST_PIXEL = 1_000_000  # a corner may lie outside its photo, but not in the void
_MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)

UNNAMED = "object"  # the label of a mask without a phrase in formats that demand one
Box = tuple[int, int, int, int]  # x, y, width, height in pixels


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """bool [H, W] -> COCO's compressed run lengths {"size": [H, W], "counts": str}. Lossless."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def coco_polygons(mask: np.ndarray) -> list[list[int]]:
    """bool [H, W] -> COCO's polygons [x1, y1, x2, y2, ...], one a component; holes are lost."""
    return [exterior.ravel().tolist() for exterior, *_ in outlines(mask)]


def outlines(mask: np.ndarray) -> list[list[np.ndarray]]:
    """The outlines of a mask along its pixels' edges.

    Returns for each 4-connected component its exterior ring and then its holes, each int [n, 2] of
    (x, y) corners, open (the first corner is not repeated). Exterior rings have a positive signed
    area, holes a negative one. A ring never touches itself.
    """
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )
    components = []
    for label in range(1, count):
        x, y, width, height = (int(value) for value in boxes[label, :4])
        component = labels[y : y + height, x : x + width] == label
        components.append([ring + np.array([x, y]) for ring in _component_rings(component)])
    return components


def _component_rings(component: np.ndarray) -> list[np.ndarray]:
    """bool [H, W] of one 4-connected component -> its exterior ring, then its holes.

    OpenCV's contours run through the centres of border pixels. With every pixel doubled, the
    border pixels 2x and 2x + 1 lie on either side of a pixel, and rounding half their coordinate
    up gives the pixel's edges, x and x + 1.
    """
    doubled = component.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = []
    for contour, (*_, parent) in zip(contours, hierarchy[0], strict=True):
        corners = (contour[:, 0].astype(np.int64) + 1) // 2
        corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
        is_exterior = parent < 0
        rings.append(corners if (_signed_area(corners) > 0) == is_exterior else corners[::-1])
    return sorted(rings, key=_signed_area, reverse=True)  # the one positive area comes first


def _signed_area(ring: np.ndarray) -> float:
    """Shoelace formula: positive when a ring turns from the x axis towards the y axis."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2.0


def grey(mask: np.ndarray, value: int) -> PIL.Image.Image:
    """bool [H, W] -> 8-bit grey with `value` on the mask and 0 elsewhere."""
    return PIL.Image.fromarray(mask.astype(np.uint8) * np.uint8(value))


@dataclass(frozen=True, eq=False)
class Mask:
    """One thing the answer points at.

    Attributes:
        mask: bool [H, W], True on the thing.
        phrase: what the answer calls it; may be "".
        score: the model's own estimate of the mask's IoU, in [0, 1].

    Raises:
        DataError: a field does not have the form above.
    """

    mask: np.ndarray = field(repr=False)
    phrase: str
    score: float

    def __post_init__(self) -> None:
        expect_type("mask", self.mask, np.ndarray)
        if self.mask.dtype != np.bool_ or self.mask.ndim != 2 or 0 in self.mask.shape:
            actual = f"{self.mask.dtype} {list(self.mask.shape)}"
            raise DataError(f"mask: expected bool [H, W] of at least 1x1, got {actual}")
        expect_type("phrase", self.phrase, str)
        if not (is_number(self.score) and 0.0 <= self.score <= 1.0):
            raise DataError(f"score: expected a number in [0, 1], got {self.score!r}")
        object.__setattr__(self, "score", float(self.score))

    @functools.cached_property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    @functools.cached_property
    def bbox(self) -> Box:
        """(x, y, width, height) in whole pixels, tight around the mask; zeros when it is empty."""
        x, y, width, height = cv2.boundingRect(self.mask.astype(np.uint8))
        return (x, y, width, height)

    @functools.cached_property
    def rle(self) -> dict[str, Any]:
        """COCO's compressed run lengths: {"size": [H, W], "counts": str}. Lossless."""
        return run_lengths(self.mask)


def expect_type(field_name: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        actual = type(value).__name__
        raise DataError(f"{field_name}: expected {expected.__name__}, got {actual}")


def is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


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


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether one COCO mask stands for many things that were not drawn one by one."""
    return bool(annotation.get("iscrowd"))
