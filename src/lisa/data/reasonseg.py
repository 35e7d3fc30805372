"""ReasonSeg: photos with an implicit question, the target as polygons (labelme-like JSON).

    FOLDER/NAME.jpg
    FOLDER/NAME.json    {"text": [...], "is_sentence": bool, "shapes": [{"label", "points"}]}
                        may add "answer": str, "absent": bool, "target_name": str, "kind": str
    explanatory/train.json  [{"image": "NAME.jpg", "query", "outputs"}], beside the splits

Annotations become masks by the rules of the official LISA (arXiv 2308.00692), odd ones included,
since its figures rest on them: they are written at `rasterise`. OpenCV before 4.11 fills slanted
polygons a few border pixels differently.

This file knows the format, and what training makes of it. It does not know models or scores.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lisa.data.image_dataset import ImageDataset, drawn
from lisa.data.prompts import (
    absent_answer,
    paper_answer,
    paper_explained_question,
    paper_question,
)
from lisa.data.records import BadRecords, field, read_list
from lisa.errors import DataError, QuestionError
from lisa.example import Example, check_question
from lisa.masks import FARTHEST_PIXEL

TARGET = 1
IGNORE = 255

EXPLANATIONS = Path("explanatory") / "train.json"  # beside the folders of the splits
EXPLAINED_SHARE = 0.1  # of the drawn photos with an explanation that are asked for it alone
SOME_THING = "such thing"


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


class ReasonSeg(ImageDataset):
    """The samples of one ReasonSeg folder, sorted by file name: index in, same Example out.

    An example has `masks` bool [1, H, W], everything asked for in one mask, or [0, H, W] where the
    target is absent (no target pixel, or `"absent": true`), `ignore` bool [H, W], the first text
    as `question`, the name of the target as `phrase` where the file gives it, and the tag "long" (a
    sentence) or "short" (a phrase), with the kind of the question where the file gives one.

    Every annotation is read and checked on construction, so that a broken one stops a run before
    it starts. Photos are read when asked for.

    Args:
        root: the folder with the samples, or the folder that holds the split folders, or the folder
            `reason_seg` that holds that, beside other data sets.
        split: the name of the split folder, or of several with "_" between them ("train_val");
            None where `root` holds the samples itself.
        skip_bad: leave broken annotations out.
        explain: of the photos that have one, the share that is asked for its explanation alone. Of
            the others half are asked for it beside the mask.

    Raises:
        DataError: there is no such folder, it holds no samples, a photo or an annotation is
            missing, or an annotation is malformed. Indexing raises ImageError for a broken photo.
    """

    name = "reasonseg"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        skip_bad: bool = False,
        explain: float = EXPLAINED_SHARE,
    ) -> None:
        self.split, self.explain = split, explain
        bad = BadRecords(skip_bad)
        self._annotations, photos = [], []
        folders = _find_folders(Path(root), split)
        for photo in [photo for folder in folders for photo in _find_photos(folder, bad)]:
            with bad.of():
                self._annotations.append(_read_annotation(photo.with_suffix(".json")))
                photos.append(photo)
        self.photos, self.skipped = photos, bad.messages
        self.explanations = _read_explanations(folders[0].parent / EXPLANATIONS)

    def __len__(self) -> int:
        return len(self.photos)

    def example(self, index: int) -> Example:
        photo, annotation = self.photos[index], self._annotations[index]
        image = self.picture(photo)
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

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        example = self.example(index)
        texts = drawn(self._annotations[index].texts, random)
        explanation = self.explanations.get(self.photos[index].name)
        if explanation is None:
            return [_asked(example, text, random) for text in texts]
        if random.random() < self.explain:
            return [_explained(example, text, explanation) for text in texts]
        if random.random() < 0.5:
            return [_asked(example, text, random) for text in texts]
        return [_pointed_and_explained(example, text, explanation, random) for text in texts]

    def questions(self, index: int) -> tuple[str, ...]:
        """All the texts of a sample: the same question in other words."""
        return self._annotations[index].texts


def _asked(example: Example, text: str, random: np.random.Generator) -> Example:
    """Asked as in the paper; an answer that the file has stays."""
    question = paper_question(text, random, sentence="long" in example.tags)
    answer = example.answer or paper_answer(random)
    if not example.answer and not example.mask.any():
        answer = absent_answer(example.phrase or SOME_THING)
    return replace(example, question=question, answer=answer)


def _pointed_and_explained(
    example: Example, text: str, explanation: str, random: np.random.Generator
) -> Example:
    question = paper_explained_question(text, random)
    return replace(example, question=question, answer=f"{paper_answer(random)} {explanation}")


def _explained(example: Example, text: str, explanation: str) -> Example:
    nothing = np.zeros((0, example.image.height, example.image.width), bool)
    return replace(example, question=text, answer=explanation, masks=nothing)


def reasonseg_splits(root: Path) -> list[str | None]:
    """The folders of samples under ``root``; [None] where it is one itself."""
    if _holds_samples(root):
        return [None]
    for folder in _homes(root):
        found = [path.name for path in sorted(folder.glob("*")) if _holds_samples(path)]
        if found:
            return list(found)
    return []


def _homes(root: Path) -> list[Path]:
    """Where the folders of the splits may be."""
    return [root, root / "ReasonSeg", root / "reason_seg" / "ReasonSeg"]


def _holds_samples(folder: Path) -> bool:
    """Whether a photo has an annotation with questions beside it."""
    for photo in folder.glob("*.jpg"):
        path = photo.with_suffix(".json")
        if path.is_file():
            return b'"text"' in path.read_bytes()
    return False


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


def _find_folders(root: Path, split: str | None) -> list[Path]:
    """The folder of a split, or those of several."""
    if split is None:
        return [root]
    for parts in ([split], split.split("_")):
        for folder in _homes(root):
            if all((folder / part).is_dir() for part in parts):
                return [folder / part for part in parts]
    return [root / split]


def _find_photos(folder: Path, bad: BadRecords) -> list[Path]:
    """The photos of a folder that have an annotation, sorted."""
    if not folder.is_dir():
        raise DataError(f"cannot open ReasonSeg folder '{folder}': no such folder")
    photos = {path.stem: path for path in folder.glob("*.jpg")}
    annotations = {path.stem for path in folder.glob("*.json")}
    for stem in sorted(photos.keys() ^ annotations):
        found, missing = ("jpg", "json") if stem in photos else ("json", "jpg")
        with bad.of():
            lone = f"'{folder / stem}.{found}'"
            raise DataError(f"{lone} stands alone; expected '{stem}.{missing}' too")
    if not photos:
        raise DataError(f"no samples in '{folder}'; expected NAME.jpg and NAME.json{_hint(folder)}")
    return sorted(photos[stem] for stem in photos.keys() & annotations)


def _read_explanations(path: Path) -> dict[str, str]:
    """By the name of the photo; none, where there is no such file."""
    if not path.is_file():
        return {}
    explanations = {}
    for number, record in enumerate(read_list(path)):
        where = f"explanation {number} of '{path}'"
        explanations[field(record, "image", str, where)] = field(record, "outputs", str, where)
    return explanations


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
    texts = field(content, "text", list)
    if not texts:
        raise DataError("'text' is empty; expected at least one question")
    shapes = field(content, "shapes", list)
    return _Annotation(
        texts=tuple(check_question(text) for text in texts),
        is_sentence=field(content, "is_sentence", bool),
        shapes=tuple(_parse_shape(shape, number) for number, shape in enumerate(shapes)),
        answer=field(content, "answer", str) if content.get("answer") is not None else None,
        absent=field(content, "absent", bool) if "absent" in content else False,
        phrase=field(content, "target_name", str) if "target_name" in content else "",
        kind=field(content, "kind", str) if "kind" in content else "",
    )


def _parse_shape(shape: Any, number: int) -> Shape:
    try:
        label, corners = field(shape, "label", str), field(shape, "points", list)
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
