"""Result: the answer to a question about a picture, as text and masks.

The value that leaves the package. It draws itself, saves itself, and turns itself into the
documents that annotation tools read. This file knows what those documents hold; it knows no model,
no tokens and no data set.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from lisa.draw.overlay import draw_overlay
from lisa.errors import DataError, LisaError, OutputError
from lisa.files import json_bytes, write_atomically
from lisa.image import base64_image, image_bytes
from lisa.masks import coco_polygons, grey

if TYPE_CHECKING:
    import supervision
from lisa.export.geojson import geojson_feature
from lisa.export.labelme import LABELME_VERSION, is_jpeg, labelme_shape
from lisa.masks import UNNAMED, Mask, expect_type, is_number


@dataclass(frozen=True, eq=False)
class Reply:
    """What is said and marked, before it is a ``Result``: masks of the image's size."""

    text: str
    masks: tuple[Mask, ...]
    mask_seconds: float = 0.0  # of the time it took, for the masks


@dataclass(frozen=True, eq=False)
class Result:
    """The answer to one question about one picture.

    Attributes:
        image: RGB, at its original size.
        question: as it was asked.
        text: the answer as a person reads it.
        masks: one for each thing that the answer points at, all of the image's size. None: the
            answer points at nothing.
        name: the picture's file name, or "".
        model: the name of the model that answered, or "".
        timings: seconds by step: load, image, answer, mask.

    Raises:
        DataError: a field does not have the form above.
    """

    image: PIL.Image.Image = field(repr=False)
    question: str
    text: str
    masks: tuple[Mask, ...]
    name: str = ""
    model: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect_type("image", self.image, PIL.Image.Image)
        if self.image.mode != "RGB" or 0 in self.image.size:
            actual = f"{self.image.mode} {self.image.width}x{self.image.height}"
            raise DataError(f"image: expected RGB of at least 1x1, got {actual}")
        for name in ("question", "text", "name", "model"):
            expect_type(name, getattr(self, name), str)
        self._check_masks()
        self._check_timings()

    def _check_masks(self) -> None:
        expect_type("masks", self.masks, tuple)
        expected = [self.image.height, self.image.width]
        for index, mask in enumerate(self.masks):
            expect_type(f"masks[{index}]", mask, Mask)
            if list(mask.mask.shape) != expected:
                actual = list(mask.mask.shape)
                raise DataError(f"masks[{index}]: expected the image's {expected}, got {actual}")

    def _check_timings(self) -> None:
        expect_type("timings", self.timings, Mapping)
        for step, seconds in self.timings.items():
            if not (is_number(seconds) and 0.0 <= seconds < math.inf):
                raise DataError(f"timings[{step!r}]: expected seconds >= 0, got {seconds!r}")
        timings = {str(step): float(seconds) for step, seconds in self.timings.items()}
        object.__setattr__(self, "timings", timings)

    @property
    def mask(self) -> np.ndarray:
        """bool [H, W]: everything the answer points at; all False when it points at nothing."""
        union = np.zeros((self.image.height, self.image.width), dtype=bool)
        for mask in self.masks:
            union |= mask.mask
        return union

    def overlay(self) -> PIL.Image.Image:
        """The picture (RGB, original size) with each mask tinted, outlined and named.

        Colours can be told apart with any colour vision. Each phrase stands beside its mask, in a
        box that never leaves the picture; one too long for the picture is cut, and a picture too
        small for legible letters gets none. Letters beyond English need a font that has them to
        be installed; otherwise they show as empty boxes.
        """
        masks, phrases = [m.mask for m in self.masks], [m.phrase for m in self.masks]
        return draw_overlay(self.image, masks, phrases)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result in the format that the end of the file name asks for.

        ============================ ========================================================
        `photo.png`                  the picture with masks and phrases, see `overlay`
        `photo.mask.png`             all masks in one: 8-bit grey, 255 on the things, 0 elsewhere
        `photo.json`                 everything but the pixels of the picture, see `to_dict`
        `photo.coco.json`            see `to_coco` (run lengths)
        `photo.labelme.json`         see `to_labelme`
        `photo.geojson`              see `to_geojson`
        ============================ ========================================================

        The three `json` formats and `geojson` keep the masks apart. Case does not matter, and a
        bare `mask.png` counts as `.mask.png`. Returns the path written.

        Raises:
            OutputError: another ending, or the file cannot be written; nothing is left behind.
        """
        target = Path(path)
        for suffix, encode in _ENCODERS.items():
            if f".{target.name}".lower().endswith(suffix):
                write_atomically(target, encode(self))
                return target
        endings = ", ".join(_ENCODERS)
        raise OutputError(f"cannot write {str(target)!r}: expected a name ending in {endings}")

    def to_dict(self) -> dict[str, Any]:
        """Everything but the picture's pixels, ready for JSON. Masks are lossless run lengths."""
        return {
            "image": self.name,
            "question": self.question,
            "answer": self.text,
            "model": self.model,
            "masks": [
                {
                    "rle": mask.rle,
                    "phrase": mask.phrase,
                    "score": mask.score,
                    "area": mask.area,
                    "bbox": list(mask.bbox),
                }
                for mask in self.masks
            ],
            "timings": dict(self.timings),
        }

    def to_coco(self, *, polygons: bool = False) -> dict[str, Any]:
        """A COCO instances data set of this one picture, as `pycocotools.coco.COCO` reads it.

        Args:
            polygons: give outlines along the pixels' edges instead of run lengths. Run lengths
                hold every mask exactly. Polygons hold several components, but COCO has no way to
                say that a ring is a hole: **holes are filled** when they are read back. `area`
                stays that of the mask.

        The phrases become the categories; a mask without one is an "object". Empty masks are left
        out. Question and answer are under "info". Format: https://cocodataset.org/#format-data
        """
        categories = {name: index for index, name in enumerate(self._names(), start=1)}
        annotations = [
            {
                "id": index,
                "image_id": 1,
                "category_id": categories[mask.phrase or UNNAMED],
                "segmentation": coco_polygons(mask.mask) if polygons else mask.rle,
                "area": mask.area,
                "bbox": list(mask.bbox),
                "iscrowd": 0,
                "score": mask.score,
            }
            for index, mask in enumerate(self._present(), start=1)
        ]
        width, height = self.image.size
        return {
            "info": {"question": self.question, "answer": self.text, "model": self.model},
            "licenses": [],
            "images": [{"id": 1, "file_name": self.name, "width": width, "height": height}],
            "annotations": annotations,
            "categories": [
                {"id": index, "name": name, "supercategory": ""}
                for name, index in categories.items()
            ],
        }

    def to_labelme(self) -> dict[str, Any]:
        """A labelme 5 file: one shape of type "mask" for each mask.

        labelme's polygons can hold neither holes nor several components; its "mask" shapes (a
        0/1 picture of the bounding box, and the box's first and last pixel) hold every mask
        exactly. The picture travels inside the file, as labelme itself writes it, so the file
        opens wherever it lies. Empty masks are left out. Needs labelme 5.3 or newer.
        """
        width, height = self.image.size
        return {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": [labelme_shape(mask, self.question) for mask in self._present()],
            "imagePath": self.name,
            "imageData": base64_image(self.image, "JPEG" if is_jpeg(self.name) else "PNG"),
            "imageHeight": height,
            "imageWidth": width,
        }

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON FeatureCollection: a Polygon or MultiPolygon for each mask, holes included.

        The outlines follow the pixels' edges, so that filling them gives back every mask exactly.
        Coordinates are pixels from the picture's upper left corner, x to the right and y down,
        and not longitude and latitude. The right-hand rule of RFC 7946, section 3.1.6, holds for
        these numbers: the signed area is positive for exterior rings and negative for holes.
        Empty masks are left out. Question and answer are members of the collection.
        """
        return {
            "type": "FeatureCollection",
            "image": self.name,
            "question": self.question,
            "answer": self.text,
            "features": [geojson_feature(mask) for mask in self._present()],
        }

    def to_supervision(self) -> "supervision.Detections":
        """`supervision.Detections` with masks [N, H, W], boxes, scores and class names.

        Class ids number the phrases in order of appearance, from 0.

        Raises:
            LisaError: the package `supervision` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise LisaError(
                "to_supervision needs the package 'supervision'; "
                "install it with: pip install 'lisa-seg[supervision]'"
            ) from error
        masks, names = self._present(), self._names()
        phrases = [mask.phrase or UNNAMED for mask in masks]
        boxes = np.array([mask.bbox for mask in masks], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # x, y, width, height -> x1, y1, x2, y2
        size = (self.image.height, self.image.width)
        return supervision.Detections(
            xyxy=boxes,
            mask=np.array([mask.mask for mask in masks], dtype=bool).reshape(-1, *size),
            confidence=np.array([mask.score for mask in masks], dtype=np.float32),
            class_id=np.array([names.index(phrase) for phrase in phrases], dtype=int),
            data={"class_name": np.array(phrases, dtype=str)},
        )

    def _present(self) -> list[Mask]:
        """The masks that cover at least one pixel: those an annotation can describe."""
        return [mask for mask in self.masks if mask.area]

    def _names(self) -> list[str]:
        """The different phrases of the present masks, in order of appearance."""
        return list(dict.fromkeys(mask.phrase or UNNAMED for mask in self._present()))


# Checks


# Documents


# Longer endings first: the first that fits is taken.
_ENCODERS: Mapping[str, Callable[[Result], bytes]] = {
    ".mask.png": lambda result: image_bytes(grey(result.mask, 255), "PNG"),
    ".png": lambda result: image_bytes(result.overlay(), "PNG"),
    ".geojson": lambda result: json_bytes(result.to_geojson()),
    ".labelme.json": lambda result: json_bytes(result.to_labelme()),
    ".coco.json": lambda result: json_bytes(result.to_coco()),
    ".json": lambda result: json_bytes(result.to_dict()),
}
