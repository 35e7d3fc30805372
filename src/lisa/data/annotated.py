"""A picture and what people marked in it, before any question about it is chosen.

Files of every annotation tool become these values, and own data are stored as them. A mask is held
as COCO's compressed run lengths, so that a large set fits in memory. This file knows values; it
refuses to know files and formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from lisa.errors import DataError
from lisa.masks import decode_rle, decode_segmentation, run_lengths

RunLengths = dict[str, Any]  # {"size": [H, W], "counts": str}


@dataclass(frozen=True)
class Thing:
    """A named part of a picture."""

    name: str
    mask: RunLengths


@dataclass(frozen=True)
class Written:
    """A question that a person wrote, in one or more wordings, with what is known of its answer."""

    questions: tuple[str, ...]
    answer: str | None = None
    masks: tuple[RunLengths, ...] | None = None  # (): the target is absent; None: not known
    name: str = ""
    kind: str = ""


@dataclass(frozen=True)
class MarkedPicture:
    """A picture, the things marked in it, and the questions written about it.

    Attributes:
        image: its file, or the bytes of one.
        name: the file name to store it under, with its ending.
        height, width: of the upright picture, in pixels.
        things: what is marked; several may have one name.
        written: questions of people.
        ignore: where no score is taken.
        complete: whether everything of the set's names is marked, so that others are absent.
        instances: whether a thing is one thing, and not all of that name together.
        split: the one that its source puts it in.
    """

    image: Path | bytes
    name: str
    height: int
    width: int
    things: tuple[Thing, ...] = ()
    written: tuple[Written, ...] = ()
    ignore: RunLengths | None = None
    complete: bool = True
    instances: bool = True
    split: str | None = None


def plain_words(label: str) -> str:
    """A class name as people write it: "traffic_light" -> "traffic light".

    Raises:
        DataError: nothing is left.
    """
    words = " ".join(label.replace("_", " ").split())
    if not words:
        raise DataError(f"the name {label!r} is empty; expected a word")
    return words


# ------------------------------------------------------------------ masks


def filled(polygons: list[Any], height: int, width: int) -> RunLengths:
    """Polygons, each [x1, y1, x2, y2, ...] or [[x, y], ...] in pixels, as one mask.

    Raises:
        DataError: a polygon has fewer than three corners, a corner is not a position, or nothing
            of the picture is covered.
    """
    return unpacked([flat(polygon) for polygon in polygons], height, width)


def flat(polygon: Any) -> list[Any]:
    """[[x, y], ...] as [x1, y1, x2, y2, ...]."""
    if not isinstance(polygon, list):
        raise DataError(f"an outline is a {type(polygon).__name__}; expected a list of corners")
    if not any(isinstance(corner, list) for corner in polygon):
        return polygon
    if not all(isinstance(corner, list) and len(corner) == 2 for corner in polygon):
        raise DataError("a corner is not [x, y]; expected two numbers for each")
    return [value for corner in polygon for value in corner]


def unpacked(segmentation: Any, height: int, width: int) -> RunLengths:
    """COCO's ``segmentation``: polygons, or run lengths compressed or not.

    Raises:
        DataError: it is neither, is malformed, of another size, or covers nothing.
    """
    return packed(decode_segmentation(segmentation, height, width))


def packed(mask: np.ndarray) -> RunLengths:
    """bool [H, W] as run lengths.

    Raises:
        DataError: no pixel is True.
    """
    if not mask.any():
        raise DataError("it covers no pixel of the picture; expected an area")
    return run_lengths(mask)


def united(masks: list[RunLengths]) -> RunLengths:
    """All of at least one mask in one."""
    return packed(np.logical_or.reduce([decode_rle(mask) for mask in masks]))


def area_of(mask: RunLengths) -> int:
    """Its pixels."""
    return int(coco_mask.area({**mask, "counts": mask["counts"].encode()}))
