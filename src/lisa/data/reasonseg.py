"""ReasonSeg: photos with an implicit question, the target as polygons (labelme-like JSON).

    FOLDER/NAME.jpg
    FOLDER/NAME.json    {"text": [...], "is_sentence": bool, "shapes": [{"label", "points"}]}
                        may add "answer": str, "absent": bool, "target_name": str, "kind": str

Annotations become masks by the rules of the official LISA (arXiv 2308.00692), odd ones included,
since its figures rest on them: they are written at `rasterise`. OpenCV before 4.11 fills slanted
polygons a few border pixels differently.

This file knows the format. It does not know prompts, models or scores.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import cv2
import numpy as np

from lisa.errors import DataError, QuestionError
from lisa.example import Example, check_question
from lisa.image import load_image

TARGET = 1
IGNORE = 255

FARTHEST_PIXEL = 1_000_000  # a corner may lie outside its photo, but not in the void

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, eq=False)
class Shape:
    """One annotated polygon: its label, and its corners int32 [N, 2] as (x, y) pixels."""

    label: str
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class _Annotation:
    """One JSON file, checked."""

    texts: tuple[str, ...]
    is_sentence: bool
    shapes: tuple[Shape, ...]
    answer: str | None
    absent: bool
    phrase: str
    kind: str


class ReasonSeg(Sequence[Example]):
    """The samples of one ReasonSeg folder, sorted by file name: index in, same Example out.

    An example has `masks` bool [1, H, W], everything asked for in one mask, or [0, H, W] where the
    target is absent (no target pixel, or `"absent": true`), `ignore` bool [H, W], the first text
    as `question`, the name of the target as `phrase` where the file gives it, and the tag "long" (a
    sentence) or "short" (a phrase), with the kind of the question where the file gives one.

    Every annotation is read and checked on construction, so that a broken one stops a run before
    it starts. Photos are read when asked for.

    Args:
        root: the folder with the samples, or the folder that holds the split folders.
        split: the name of the split folder; None where `root` holds the samples itself.

    Raises:
        DataError: there is no such folder, it holds no samples, a photo or an annotation is
            missing, or an annotation is malformed. Indexing raises ImageError for a broken photo.
    """

    name = "reasonseg"

    def __init__(self, root: str | Path, split: str | None = None) -> None:
        folder = Path(root) if split is None else Path(root) / split
        self._photos = _find_photos(folder)
        self._annotations = [_read_annotation(path.with_suffix(".json")) for path in self._photos]

    def __len__(self) -> int:
        return len(self._photos)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        photo, annotation = self._photos[index], self._annotations[index]
        image = load_image(photo)
        label_map = rasterise(annotation.shapes, image.height, image.width)
        target = label_map == TARGET
        present = bool(target.any()) and not annotation.absent
        return Example(
            image=image,
            question=annotation.texts[0],
            answer=annotation.answer,
            masks=target[np.newaxis][: int(present)],  # [1, H, W] or [0, H, W]
            ignore=label_map == IGNORE,
            name=photo.name,
            tags=frozenset({"long" if annotation.is_sentence else "short", annotation.kind} - {""}),
            phrase=annotation.phrase,
        )

    def questions(self, index: int) -> tuple[str, ...]:
        """All the texts of a sample: the same question in other words."""
        return self._annotations[index].texts


def rasterise(shapes: Sequence[Shape], height: int, width: int) -> np.ndarray:
    """Paints shapes into a label map uint8 [height, width]: 0, TARGET or IGNORE.

    The official rules: a shape labelled "flag", in any case, is left out; a label that contains
    "ignore" means IGNORE; any other means TARGET. Shapes are painted from the largest to the
    smallest, so that the smaller lies on top; of equal ones the later is painted first. A shape
    covers its border. Parts outside the picture are cut off.
    """
    shapes = [shape for shape in shapes if shape.label.lower() != "flag"]
    areas = [_painted_area(shape, height, width) for shape in shapes]
    label_map = np.zeros((height, width), np.uint8)
    for index in np.argsort(areas, kind="stable")[::-1]:
        is_ignored = "ignore" in shapes[index].label.lower()
        _paint(label_map, shapes[index], IGNORE if is_ignored else TARGET)
    return label_map


def _painted_area(shape: Shape, height: int, width: int) -> int:
    canvas = np.zeros((height, width), np.uint8)
    _paint(canvas, shape, 1)
    return int(np.count_nonzero(canvas))


def _paint(canvas: np.ndarray, shape: Shape, value: int) -> None:
    cv2.polylines(canvas, [shape.points], isClosed=True, color=value, thickness=1)
    cv2.fillPoly(canvas, [shape.points], color=value)


def _find_photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"cannot open ReasonSeg folder '{folder}': no such folder")
    photos = {path.stem: path for path in folder.glob("*.jpg")}
    annotations = {path.stem for path in folder.glob("*.json")}
    unpaired = sorted(photos.keys() ^ annotations)
    if unpaired:
        stem = unpaired[0]
        found, missing = ("jpg", "json") if stem in photos else ("json", "jpg")
        raise DataError(f"'{folder / stem}.{found}' stands alone; expected '{stem}.{missing}' too")
    if not photos:
        raise DataError(f"no samples in '{folder}'; expected NAME.jpg and NAME.json{_hint(folder)}")
    return sorted(photos.values())


def _hint(folder: Path) -> str:
    splits = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return f", or one of the splits {', '.join(splits)}" if splits else ""


def _read_annotation(path: Path) -> _Annotation:
    try:
        return _parse_annotation(_load_json(path.read_bytes()))
    except (OSError, QuestionError, DataError) as error:
        raise DataError(f"cannot read annotation '{path}': {error}") from error


def _load_json(content: bytes) -> Any:
    """JSON in UTF-8, or else in Windows-1252, as some of the published annotations are."""
    try:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not JSON ({error}); expected an object") from error


def _parse_annotation(content: Any) -> _Annotation:
    if not isinstance(content, dict):
        raise DataError(f"it holds a {type(content).__name__}; expected an object")
    texts = _field(content, "text", list)
    if not texts:
        raise DataError("'text' is empty; expected at least one question")
    shapes = _field(content, "shapes", list)
    return _Annotation(
        texts=tuple(check_question(text) for text in texts),
        is_sentence=_field(content, "is_sentence", bool),
        shapes=tuple(_parse_shape(shape, number) for number, shape in enumerate(shapes)),
        answer=_field(content, "answer", str) if content.get("answer") is not None else None,
        absent=_field(content, "absent", bool) if "absent" in content else False,
        phrase=_field(content, "target_name", str) if "target_name" in content else "",
        kind=_field(content, "kind", str) if "kind" in content else "",
    )


def _parse_shape(shape: Any, number: int) -> Shape:
    try:
        label, corners = _field(shape, "label", str), _field(shape, "points", list)
        return Shape(label, _parse_points(corners))
    except DataError as error:
        raise DataError(f"shape {number}: {error}") from error


def _parse_points(corners: list[Any]) -> np.ndarray:
    """Corners as whole pixels, int32 [N, 2]: fractions are cut off towards zero."""
    try:
        points = np.array(corners, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError("its points are not all numbers; expected [[x, y], ...]") from None
    if len(points) < 3 or points.shape[1:] != (2,):
        raise DataError(f"its points form {list(points.shape)}; expected [3 or more, 2]")
    if not np.all(np.abs(points) <= FARTHEST_PIXEL):
        raise DataError(f"a point is NaN or beyond {FARTHEST_PIXEL:,} pixels; expected a position")
    return points.astype(np.int32)


def _field(content: Any, key: str, kind: type[_Kind]) -> _Kind:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise DataError(f"'{key}' is {found}; expected a {kind.__name__}")
    return value
