"""labelme: a JSON file beside each picture, or with the picture inside.

    {"imagePath", "imageData": base64 or null, "imageHeight", "imageWidth",
     "shapes": [{"label", "points", "shape_type", "group_id"?, "mask"?}]}

Format: https://github.com/wkentaro/labelme. Shapes with one label and one ``group_id`` are one
thing. ``__ignore__`` is where no score is taken, ``_background_`` is nothing. Lines and points
cover no area and are refused.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lisa.annotation.formats.source import Source, find_picture, load_or_none
from lisa.data.annotated import (
    MarkedPicture,
    RunLengths,
    Thing,
    filled,
    flat,
    packed,
    plain_words,
    united,
)
from lisa.data.records import BadRecords, field, read_json
from lisa.errors import DataError
from lisa.image import load_image, upright_size

IGNORED, BACKGROUND = "__ignore__", "_background_"
ROUND = 64  # corners of a circle


def recognise(source: Source) -> bool:
    """Whether a file, or any in a folder, has shapes and names a picture."""
    contents = (load_or_none(path) for path in files(source.path))
    return any(isinstance(c, dict) and {"shapes", "imagePath"} <= c.keys() for c in contents)


def files(path: Path) -> list[Path]:
    """The JSON files of a folder and the folders in it, by name."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    return sorted(path.rglob("*.json"))


def read(source: Source, bad: BadRecords) -> Iterator[MarkedPicture]:
    """The picture of each file."""
    found = files(source.path)
    if not found:
        raise DataError(f"no labelme files in '{source.path}'; expected NAME.json")
    for path in found:
        picture = None
        with bad.of(f"labelme file '{path}'"):
            picture = read_file(path, source, bad)
        if picture:
            yield picture


def read_file(path: Path, source: Source, bad: BadRecords) -> MarkedPicture:
    """One file; shapes that cannot be read end it or are skipped."""
    content = read_json(path)
    shapes = field(content, "shapes", list, "the file")
    image, name = find_image(content, path, source)
    width, height = upright_size(image)
    told = [content.get("imageHeight") or height, content.get("imageWidth") or width]
    if told != [height, width]:
        raise DataError(f"its picture is said to be {told}, and is {[height, width]}")
    groups: dict[tuple[str, str], list[RunLengths]] = {}
    before = len(bad.messages)
    for number, shape in enumerate(shapes):
        with bad.of(f"shape {number} of '{path.name}'" if bad.skip else f"shape {number}"):
            label, mask = read_shape(shape, height, width)
            group = shape.get("group_id")
            thing = (label, f"shape {number}" if group is None else f"group {group!r}")
            groups.setdefault(thing, []).append(mask)
    complete = len(bad.messages) == before
    ignored = [mask for (label, _), masks in groups.items() if label == IGNORED for mask in masks]
    return MarkedPicture(
        image=image,
        name=name,
        height=height,
        width=width,
        things=tuple(
            Thing(plain_words(label), united(masks))
            for (label, _), masks in groups.items()
            if label not in (IGNORED, BACKGROUND)
        ),
        ignore=united(ignored) if ignored else None,
        complete=complete and not ignored,
    )


def find_image(content: Any, path: Path, source: Source) -> tuple[Path | bytes, str]:
    """The picture's file, or its bytes where the file holds them, and its name."""
    name = field(content, "imagePath", str, "the file")
    plain = Path(name.replace("\\", "/")).name
    data = content.get("imageData")
    try:
        return find_picture(name, (source.images, path.parent)), plain
    except DataError:
        if not isinstance(data, str):
            raise
    try:
        return base64.b64decode(data, validate=True), plain
    except ValueError as error:
        raise DataError(f"'imageData' is not base64 ({error})") from error


def read_shape(shape: Any, height: int, width: int) -> tuple[str, RunLengths]:
    """(label, mask) of one shape."""
    label = field(shape, "label", str)
    points = field(shape, "points", list)
    kind = shape.get("shape_type") or "polygon"
    if label not in (IGNORED, BACKGROUND):
        plain_words(label)
    if kind == "polygon":
        return label, filled([points], height, width)
    if kind == "mask":
        return label, drawn_mask(shape, points, height, width)
    outlines = {"rectangle": rectangle, "circle": circle}
    if kind not in outlines:
        raise DataError(f"a '{kind}' covers no area; expected a polygon, rectangle, circle or mask")
    return label, filled([outlines[kind](*two(points, kind))], height, width)


def two(points: list[Any], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Both points of a shape that has two."""
    if len(points) != 2:
        raise DataError(f"a {kind} has {len(points)} points; expected 2")
    values = flat(points)
    try:
        first, second = np.array(values, np.float64).reshape(2, 2)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"the points of a {kind} are not numbers; expected [x, y]") from None
    if not np.all(np.isfinite(values)):
        raise DataError(f"a point of a {kind} is NaN; expected a position")
    return first, second


def rectangle(first: np.ndarray, second: np.ndarray) -> list[list[float]]:
    """The corners of a rectangle from two opposite ones."""
    (left, top), (right, bottom) = first.tolist(), second.tolist()
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def circle(centre: np.ndarray, edge: np.ndarray) -> list[list[float]]:
    """A circle by its centre and a point on it."""
    radius = float(np.hypot(*(edge - centre)))
    angles = [2 * math.pi * n / ROUND for n in range(ROUND)]
    x, y = centre.tolist()
    return [[x + radius * math.cos(a), y + radius * math.sin(a)] for a in angles]


def drawn_mask(shape: Any, points: list[Any], height: int, width: int) -> RunLengths:
    """A mask drawn pixel by pixel: a PNG in base64, and the box where it lies."""
    left, top = (int(value) for value in two(points, "mask")[0])
    try:
        png = base64.b64decode(field(shape, "mask", str), validate=True)
    except ValueError as error:
        raise DataError(f"'mask' is not base64 ({error})") from error
    inside = np.asarray(load_image(png))[..., 0] > 0
    if not (0 <= top <= height - inside.shape[0] and 0 <= left <= width - inside.shape[1]):
        raise DataError(f"a mask of {list(inside.shape)} at {[top, left]} leaves the picture")
    mask = np.zeros((height, width), bool)
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return packed(mask)
