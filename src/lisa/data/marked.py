"""A picture and what people marked in it, before any question about it is chosen.

Files of every annotation tool become these values, and own data are stored as them. A mask is held
as COCO's compressed run lengths, so that a large set fits in memory. This file knows values and
how a broken record is reported; it refuses to know files, formats and questions of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from pycocotools import mask as coco_mask

from lisa.errors import DataError, LisaError

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")
RunLengths = dict[str, Any]  # {"size": [H, W], "counts": str}

FARTHEST = 100_000  # pixels: a corner may lie outside its picture, but not in the void


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


@dataclass
class Problems:
    """Records that cannot be read: the first one ends the run, or they are skipped and listed."""

    skip: bool = False
    found: list[str] = field(default_factory=list)

    def attempt(
        self,
        where: str,
        make: Callable[Arguments, Made],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Made | None:
        """What ``make`` makes of the arguments; None where it fails and may be skipped.

        Raises:
            DataError: it fails and may not be skipped; the message begins with ``where``.
        """
        try:
            return make(*args, **kwargs)
        except LisaError as error:
            message = f"{where}: {error}"
            if not self.skip:
                raise DataError(message) from error
            self.found.append(message)
            return None


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
    flat = [corners(polygon, number) for number, polygon in enumerate(polygons)]
    if not flat:
        raise DataError("there is no polygon; expected at least one")
    return covering(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))


def corners(polygon: Any, number: int = 0) -> list[float]:
    """One polygon as [x1, y1, x2, y2, ...]."""
    try:
        points = np.array(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"polygon {number} is not all numbers; expected positions") from None
    if points.ndim not in (1, 2) or points.size % 2 or (points.ndim == 2 and points.shape[1] != 2):
        raise DataError(f"polygon {number} has {points.size} numbers; expected pairs of x and y")
    if points.size < 6:
        raise DataError(f"polygon {number} has {points.size // 2} points; expected at least 3")
    if not np.all(np.abs(points) <= FARTHEST):
        raise DataError(f"polygon {number} has a point that is NaN or beyond {FARTHEST:,} pixels")
    return [float(value) for value in points.ravel()]


def unpacked(segmentation: Any, height: int, width: int) -> RunLengths:
    """COCO's ``segmentation``: polygons, or run lengths compressed or not.

    Raises:
        DataError: it is neither, is malformed, of another size, or covers nothing.
    """
    if isinstance(segmentation, list):
        return filled(segmentation, height, width)
    if not isinstance(segmentation, dict):
        kind = "missing" if segmentation is None else f"a {type(segmentation).__name__}"
        raise DataError(f"'segmentation' is {kind}; expected polygons or run lengths")
    if list(segmentation.get("size") or []) != [height, width]:
        raise DataError(
            f"mask of {segmentation.get('size')}, picture of {[height, width]}; "
            "expected the same height and width"
        )
    counts = segmentation.get("counts")
    try:
        if isinstance(counts, list):
            return covering(coco_mask.frPyObjects(segmentation, height, width))
        return covering({"size": [height, width], "counts": counts.encode("ascii")})
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"malformed run lengths ({error!r})") from error


def covering(encoded: dict[str, Any]) -> RunLengths:
    """Run lengths of pycocotools as ours, which are text; they must fill their size."""
    height, width = (int(length) for length in encoded["size"])
    decoded = coco_mask.decode(encoded)
    area = int(coco_mask.area(encoded))
    if np.count_nonzero(decoded) != area:  # too few: pycocotools leaves the rest open
        raise DataError(f"malformed run lengths; expected as many as fill {[height, width]}")
    if not area:
        raise DataError("it covers no pixel of the picture; expected an area")
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def packed(mask: np.ndarray) -> RunLengths:
    """bool [H, W] as run lengths.

    Raises:
        DataError: no pixel is True.
    """
    return covering(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def united(masks: list[RunLengths]) -> RunLengths:
    """All of at least one mask in one."""
    merged = coco_mask.merge([{**mask, "counts": mask["counts"].encode()} for mask in masks])
    return covering(merged)


def area_of(mask: RunLengths) -> int:
    """Its pixels."""
    return int(coco_mask.area({**mask, "counts": mask["counts"].encode()}))
